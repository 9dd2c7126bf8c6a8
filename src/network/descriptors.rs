//! The account of file descriptors of one process: every socket of a client and every socket to AEM has a permit.
//!
//! Clients and connections to AEM have shares of their own. A client's connection that is served can always have one
//! connection to AEM, so that clients cannot starve each other's requests. Further streams of one HTTP/2 connection draw on a
//! share that all of them have together. What else needs descriptors (the admin listener, IMS, name look-ups, files) is not
//! counted here: the limits leave room for it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::{info, warn};

/// How many descriptors there are for what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections of clients that are served.
    pub clients: usize,
    /// Connections of clients on top of that: those that are told that there is no place, and those that are just being
    /// accepted or closed.
    pub surplus: usize,
    /// Requests on HTTP/2 connections of clients that have a connection to AEM while another request on the same connection of
    /// the client has one already.
    pub streams: usize,
    /// Second sockets of connection attempts that try two addresses at once.
    pub attempts: usize,
}

impl Limits {
    /// Connections of clients, whether they are served or not.
    pub fn all_clients(&self) -> usize {
        self.clients + self.surplus
    }

    /// Connections to AEM.
    pub fn upstream(&self) -> usize {
        self.clients + self.streams
    }
}

/// The account.
#[derive(Debug)]
pub struct Descriptors {
    limits: OnceLock<Limits>,
    clients: Arc<Semaphore>,
    upstream: Arc<Semaphore>,
    streams: AtomicUsize,
    attempts: AtomicUsize,
    /// Permits of listeners that wait for a connection.
    listening: AtomicUsize,
    /// Dials that wait for a permit.
    waiting: AtomicUsize,
    /// A request was refused since the last time that there was enough.
    exhausted: AtomicBool,
    /// Wakes the threads: one of their idle connections to AEM is wanted.
    wanted: Arc<Notify>,
}

/// One descriptor, until it is dropped.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "it is given back")] OwnedSemaphorePermit);

/// There is no descriptor for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too few file descriptors")]
pub struct Exhausted;

/// The right to use two descriptors for one attempt, or to a further connection to AEM, until it is dropped.
#[derive(Debug)]
pub struct Share<'a>(&'a AtomicUsize);

/// Something that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Descriptors {
    /// An account without anything in it; `wanted` is notified when idle connections to AEM have to give way.
    pub fn new(wanted: Arc<Notify>) -> Self {
        Self {
            limits: OnceLock::new(),
            clients: Arc::new(Semaphore::new(0)),
            upstream: Arc::new(Semaphore::new(0)),
            streams: AtomicUsize::new(0),
            attempts: AtomicUsize::new(0),
            listening: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            exhausted: AtomicBool::new(false),
            wanted,
        }
    }

    /// Opens the account, once.
    pub fn open(&self, limits: Limits) {
        if self.limits.set(limits).is_ok() {
            self.clients.add_permits(limits.all_clients().min(Semaphore::MAX_PERMITS));
            self.upstream.add_permits(limits.upstream().min(Semaphore::MAX_PERMITS));
        }
    }

    /// The limits; all are 0 before the account is opened.
    pub fn limits(&self) -> Limits {
        self.limits.get().copied().unwrap_or_default()
    }

    /// What comes of `accepting`, which brings a connection of a client, and the permit for it. There is a permit first: a
    /// connection in the backlog costs no descriptor.
    pub async fn accept<T>(&self, accepting: impl Future<Output = T>) -> (T, Permit) {
        let permit = match Arc::clone(&self.clients).acquire_owned().await {
            Ok(permit) => Permit(permit),
            // It is never closed.
            Err(_) => std::future::pending().await,
        };
        let _listening = Waiting::new(&self.listening);
        (accepting.await, permit)
    }

    /// One for a connection to AEM. Idle ones are closed for it where there is none.
    ///
    /// # Errors
    /// When none becomes free within [`PATIENCE`].
    pub async fn upstream(&self) -> Result<Permit, Exhausted> {
        if let Ok(permit) = Arc::clone(&self.upstream).try_acquire_owned() {
            if self.exhausted.load(Relaxed) {
                self.notice_recovery();
            }
            return Ok(Permit(permit));
        }
        let _waiting = Waiting::new(&self.waiting);
        let acquire = async {
            // Whoever has an idle one hears it after this wait can be seen.
            self.wanted.notify_waiters();
            Arc::clone(&self.upstream).acquire_owned().await
        };
        match timeout(PATIENCE, acquire).await {
            Ok(Ok(permit)) => Ok(Permit(permit)),
            Ok(Err(_)) | Err(_) => Err(self.notice_exhaustion()),
        }
    }

    /// How many idle connections to AEM have to give way.
    pub fn wanted(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// A second socket for one connection attempt, if there is one to spare.
    pub fn second_attempt(&self) -> Option<Share<'_>> {
        Share::of(&self.attempts, self.limits().attempts)
    }

    /// A further request with a connection to AEM on one connection of a client.
    ///
    /// # Errors
    /// When there are as many as there may be.
    pub fn stream(&self) -> Result<Share<'_>, Exhausted> {
        Share::of(&self.streams, self.limits().streams).ok_or_else(|| self.notice_exhaustion())
    }

    /// Logs the first refusal alone: the metrics count all.
    fn notice_exhaustion(&self) -> Exhausted {
        if !self.exhausted.swap(true, Relaxed) {
            warn!(
                upstream.limit = self.limits().upstream(),
                upstream.in_use = self.upstream_in_use(),
                "Too few file descriptors for connections to AEM; refusing requests with 503"
            );
        }
        Exhausted
    }

    /// It is over once half of the descriptors are free: the log is not to change its mind with every connection.
    fn notice_recovery(&self) {
        let limits = self.limits();
        let calm = self.upstream_in_use() <= limits.upstream() / 2
            && self.streams.load(Relaxed) <= limits.streams / 2;
        if calm && self.exhausted.swap(false, Relaxed) {
            info!("There are file descriptors for connections to AEM again");
        }
    }

    /// Descriptors in use by connections of clients.
    pub fn clients_in_use(&self) -> usize {
        let free = self.clients.available_permits() + self.listening.load(Relaxed);
        self.limits().all_clients().saturating_sub(free)
    }

    /// Descriptors in use by connections to AEM.
    pub fn upstream_in_use(&self) -> usize {
        self.limits().upstream().saturating_sub(self.upstream.available_permits())
    }
}

impl<'a> Share<'a> {
    fn of(used: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let room = |used| (used < limit).then_some(used + 1);
        used.fetch_update(Relaxed, Relaxed, room).ok().map(|_| Self(used))
    }
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// How long a dial waits for a descriptor: idle connections are closed in a moment, those with a request on them are not.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptors(wanted: &Arc<Notify>) -> Descriptors {
        let descriptors = Descriptors::new(Arc::clone(wanted));
        descriptors.open(Limits { clients: 2, surplus: 1, streams: 1, attempts: 1 });
        descriptors
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_without_a_descriptor_waits_for_one_and_not_for_ever() {
        let descriptors = descriptors(&Arc::default());
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(descriptors.upstream().await.unwrap());
        }
        assert_eq!((descriptors.upstream_in_use(), descriptors.wanted()), (3, 0));
        assert_eq!(descriptors.upstream().await.err(), Some(Exhausted));
        let freed = async {
            while descriptors.wanted() == 0 {
                tokio::task::yield_now().await;
            }
            all.pop();
        };
        let (dialled, ()) = tokio::join!(descriptors.upstream(), freed);
        assert!(dialled.is_ok());
        assert_eq!(descriptors.wanted(), 0);
    }

    #[tokio::test]
    async fn whoever_has_idle_connections_hears_that_one_is_wanted() {
        let wanted = Arc::new(Notify::new());
        let descriptors = descriptors(&wanted);
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(descriptors.upstream().await.unwrap());
        }
        let heard = async {
            wanted.notified().await;
            assert_eq!(descriptors.wanted(), 1);
            all.clear();
        };
        let ((), dialled) = tokio::join!(heard, descriptors.upstream());
        assert!(dialled.is_ok());
    }

    #[test]
    fn shares_are_limited_and_given_back() {
        let descriptors = descriptors(&Arc::default());
        let one = descriptors.stream().unwrap();
        assert_eq!(descriptors.stream().err(), Some(Exhausted));
        drop(one);
        assert!(descriptors.stream().is_ok() && descriptors.second_attempt().is_some());
    }
}
