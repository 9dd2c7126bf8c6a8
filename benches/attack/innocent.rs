//! Clients that behave, and what they see during an attack.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::harness::{self, Conn, PROBE_PATIENCE, get, server_name};

/// What one kind of probe has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Answers of 200.
    pub answered: u64,
    /// Answers of 503.
    pub refused: u64,
    /// Other statuses, broken connections, and no answer in time.
    pub failed: u64,
    /// The slowest of all, failures included.
    pub slowest: Duration,
    /// What the first failure was.
    pub first_failure: Option<String>,
    /// Since when the requests that are under way have waited.
    waiting_since: [Option<Instant>; 2],
}

impl Seen {
    fn ended(&mut self, kind: usize, took: Duration, outcome: Result<u16, String>) {
        self.waiting_since[kind] = None;
        self.slowest = self.slowest.max(took);
        match outcome {
            Ok(200) => self.answered += 1,
            Ok(503) => self.refused += 1,
            other => {
                self.failed += 1;
                let what = other.map_or_else(|what| what, |status| format!("status {status}"));
                self.first_failure.get_or_insert(format!("{what} after {} ms", took.as_millis()));
            }
        }
    }

    /// With the requests that are under way: one that hangs is slow before it has failed.
    fn now(&self) -> Self {
        let mut seen = self.clone();
        for since in self.waiting_since.iter().flatten() {
            seen.slowest = seen.slowest.max(since.elapsed());
        }
        seen
    }
}

/// A thread with clients of its own, until it is dropped.
pub struct Innocent {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    client: Mutex<Seen>,
    live: Mutex<Seen>,
    straight: Mutex<Seen>,
}

impl Innocent {
    /// Asks the proxy, its admin listener and AEM itself every [`EVERY`].
    pub fn start(addr: SocketAddr, admin: SocketAddr, aem: SocketAddr, tls: Option<TlsConnector>) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                let kept = probe(&theirs, addr, "/small", tls.clone(), KEPT, &theirs.client);
                let fresh = probe(&theirs, addr, "/small", tls, FRESH, &theirs.client);
                let live = probe(&theirs, admin, "/live", None, FRESH, &theirs.live);
                let straight = probe(&theirs, aem, "/small", None, FRESH, &theirs.straight);
                tokio::join!(kept, fresh, live, straight);
            });
        });
        Self { shared, thread: Some(thread) }
    }

    /// What the clients have seen, what `/live` was, and how AEM answers without the proxy: so slow is
    /// the machine.
    pub fn seen(&self) -> (Seen, Seen, Seen) {
        let read = |seen: &Mutex<Seen>| seen.lock().unwrap_or_else(PoisonError::into_inner).now();
        (read(&self.shared.client), read(&self.shared.live), read(&self.shared.straight))
    }

    /// Forgets what was seen so far.
    pub fn reset(&self) {
        for seen in [&self.shared.client, &self.shared.live, &self.shared.straight] {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = Seen { waiting_since: seen.waiting_since, ..Seen::default() };
        }
    }
}

impl Drop for Innocent {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to report.
            let _ = thread.join();
        }
    }
}

async fn probe(
    shared: &Shared,
    addr: SocketAddr,
    path: &str,
    tls: Option<TlsConnector>,
    kind: usize,
    seen: &Mutex<Seen>,
) {
    let mut kept: Option<Conn> = None;
    let lock = || seen.lock().unwrap_or_else(PoisonError::into_inner);
    while !shared.stop.load(Relaxed) {
        let begun = Instant::now();
        lock().waiting_since[kind] = Some(begun);
        let asked = ask(&mut kept, addr, path, tls.as_ref(), kind == KEPT);
        let outcome = timeout(PROBE_PATIENCE, asked).await.unwrap_or_else(|_| Err("no answer".to_owned()));
        let took = begun.elapsed();
        if outcome.is_err() {
            kept = None;
        }
        lock().ended(kind, took, outcome);
        tokio::time::sleep(EVERY.saturating_sub(took)).await;
    }
}

/// One GET. A kept connection that the proxy has closed between two requests is replaced, once.
async fn ask(
    kept: &mut Option<Conn>,
    addr: SocketAddr,
    path: &str,
    tls: Option<&TlsConnector>,
    keeps: bool,
) -> Result<u16, String> {
    loop {
        let was_kept = kept.is_some();
        let mut conn = match kept.take() {
            Some(conn) => conn,
            None => {
                let stream =
                    harness::connect(addr, None).await.map_err(|error| format!("connect: {error}"))?;
                match tls {
                    None => Box::new(stream) as Conn,
                    Some(tls) => {
                        let stream = tls.connect(server_name(), stream).await;
                        Box::new(stream.map_err(|error| format!("TLS: {error}"))?)
                    }
                }
            }
        };
        match get(&mut conn, addr, path).await {
            Ok((status, reusable)) => {
                if keeps && reusable {
                    *kept = Some(conn);
                }
                return Ok(status);
            }
            Err(error) if was_kept && !error.began => {}
            Err(_) => return Err("connection closed".to_owned()),
        }
    }
}

/// A connection for each request.
const FRESH: usize = 0;

/// One connection for all of them.
const KEPT: usize = 1;

/// How often each client asks.
pub const EVERY: Duration = Duration::from_millis(100);
