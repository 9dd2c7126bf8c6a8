//! How much there is at one AEM at once: requests, connections, and those who wait for their turn. Shared by all threads;
//! where nothing is capped, nothing of it is touched.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{config, metrics::UpstreamMetrics};

/// A place for a request, or for a connection. It is free again when this is dropped.
pub(in crate::proxy) type Place = OwnedSemaphorePermit;

/// Wakes all threads when somebody waits for a connection: one of theirs may be idle.
#[derive(Debug, Clone, Default)]
pub struct Hunger(Arc<Notify>);

impl Hunger {
    /// Ready when somebody has begun to wait.
    pub(in crate::proxy) async fn felt(&self) {
        self.0.notified().await;
    }
}

pub(super) struct Caps {
    requests: Option<Arc<Semaphore>>,
    connections: Option<Arc<Semaphore>>,
    queued_max: usize,
    patience: Duration,
    waiting: AtomicUsize,
    /// How many wait for a connection.
    hungry: AtomicUsize,
    hunger: Hunger,
    metrics: UpstreamMetrics,
}

/// There is no place, and none was to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum Busy {
    /// So many wait already.
    #[error("too many requests wait for their turn")]
    Full,
    /// It took too long.
    #[error("a request has waited too long for its turn")]
    TooLong,
}

impl Caps {
    pub(super) fn new(
        upstream: &config::Upstream,
        patience: Duration,
        hunger: &Hunger,
        metrics: UpstreamMetrics,
    ) -> Self {
        let places = |count: Option<usize>| count.map(|count| Arc::new(Semaphore::new(count)));
        Self {
            requests: places(upstream.max_in_flight),
            connections: places(upstream.max_connections),
            queued_max: upstream.max_queued,
            patience,
            waiting: AtomicUsize::new(0),
            hungry: AtomicUsize::new(0),
            hunger: hunger.clone(),
            metrics,
        }
    }

    /// A place for a request; none where it needs none.
    pub(super) async fn turn(&self) -> Result<Option<Place>, Busy> {
        match &self.requests {
            None => Ok(None),
            Some(places) => self.place(places, || {}).await.map(Some),
        }
    }

    /// A place for a connection; none where it needs none.
    pub(super) async fn connection(&self) -> Result<Option<Place>, Busy> {
        let Some(places) = &self.connections else { return Ok(None) };
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Ok(Some(place));
        }
        let _hungry = Counted::one_more(&self.hungry);
        self.place(places, || self.hunger.0.notify_waiters()).await.map(Some)
    }

    /// How many wait for a connection.
    pub(super) fn hungry(&self) -> usize {
        if self.connections.is_none() { 0 } else { self.hungry.load(Relaxed) }
    }

    async fn place(&self, places: &Arc<Semaphore>, waits: impl FnOnce()) -> Result<Place, Busy> {
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Ok(place);
        }
        let waiting = Counted::one_more(&self.waiting);
        if waiting.before >= self.queued_max {
            self.metrics.refused("full");
            return Err(Busy::Full);
        }
        let _queued = self.metrics.queued();
        waits();
        // They are never closed: the only error is the wait.
        match timeout(self.patience, Arc::clone(places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => {
                self.metrics.refused("too_long");
                Err(Busy::TooLong)
            }
        }
    }
}

/// One more of something, until it is dropped.
struct Counted<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Counted<'a> {
    fn one_more(count: &'a AtomicUsize) -> Self {
        let before = count.fetch_add(1, Relaxed);
        Self { count, before }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}
