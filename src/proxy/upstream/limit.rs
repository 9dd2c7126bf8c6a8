//! How many requests are at one AEM at once, and how many wait. Shared by all threads; what is not limited costs nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::metrics::{Turned, UpstreamMetrics};

/// Why a request does not get its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum Busy {
    /// Too many wait already.
    #[error("too many requests wait for AEM")]
    Full,
    /// It has waited for too long.
    #[error("the request has waited for its turn at AEM for too long")]
    Overdue,
    /// The process has no file descriptor for a connection.
    #[error("too few file descriptors for a connection to AEM")]
    Descriptors,
}

/// Those who wait, whatever for.
pub(super) struct Queue {
    waiting: AtomicUsize,
    max: usize,
    patience: Duration,
    metrics: UpstreamMetrics,
}

/// A place in the queue.
struct Place<'a>(&'a Queue);

impl Queue {
    pub(super) fn new(max: usize, patience: Duration, metrics: UpstreamMetrics) -> Self {
        Self { waiting: AtomicUsize::new(0), max, patience, metrics }
    }

    /// Waits for `turn`, which is asked for only if there is room to wait.
    pub(super) async fn wait<T>(&self, turn: impl Future<Output = Option<T>>) -> Result<T, Busy> {
        let _place = self.enter()?;
        match timeout(self.patience, turn).await {
            Ok(Some(turn)) => Ok(turn),
            Ok(None) | Err(_) => {
                self.metrics.turned_away(Turned::Overdue);
                Err(Busy::Overdue)
            }
        }
    }

    fn enter(&self) -> Result<Place<'_>, Busy> {
        let room = |waiting| (waiting < self.max).then_some(waiting + 1);
        if self.waiting.fetch_update(Relaxed, Relaxed, room).is_err() {
            self.metrics.turned_away(Turned::Full);
            return Err(Busy::Full);
        }
        self.metrics.waits(1);
        Ok(Place(self))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
        self.0.metrics.waits(-1);
    }
}

/// The requests that may be at AEM at once, each in the order in which it came.
pub(in crate::proxy) struct Turns {
    free: Semaphore,
    queue: Arc<Queue>,
}

/// A request's turn, until it is dropped.
pub(in crate::proxy) struct Turn<'a>(#[expect(dead_code, reason = "it is given back")] SemaphorePermit<'a>);

impl Turns {
    pub(super) fn new(max: usize, queue: Arc<Queue>) -> Self {
        Self { free: Semaphore::new(max.min(Semaphore::MAX_PERMITS)), queue }
    }

    /// A turn, if nobody waits and there is one.
    pub(in crate::proxy) fn at_once(&self) -> Option<Turn<'_>> {
        self.free.try_acquire().ok().map(Turn)
    }

    /// A turn, after all who came before.
    ///
    /// # Errors
    /// When too many wait, or the wait is too long.
    pub(in crate::proxy) async fn wait(&self) -> Result<Turn<'_>, Busy> {
        // It is never closed.
        self.queue.wait(async { self.free.acquire().await.ok().map(Turn) }).await
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::metrics::Metrics;

    pub(in super::super) fn queue(max: usize) -> Arc<Queue> {
        let metrics = Metrics::new(crate::memory::Memory::default()).unwrap().upstream("author");
        Arc::new(Queue::new(max, Duration::from_secs(10), metrics))
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_and_whoever_leaves_frees_its_place() {
        let turns = Turns::new(1, queue(2));
        let first = turns.at_once().unwrap();
        assert!(turns.at_once().is_none());
        let mut second = Box::pin(turns.wait());
        let mut third = Box::pin(turns.wait());
        assert!(once(&mut second).is_none() && once(&mut third).is_none());
        assert_eq!(turns.wait().await.err(), Some(Busy::Full));
        drop(second);
        let mut fourth = Box::pin(turns.wait());
        assert!(once(&mut fourth).is_none());
        drop(first);
        assert!(turns.at_once().is_none(), "somebody waits");
        assert!(third.await.is_ok());
        assert!(fourth.await.is_ok());
        let _held = turns.at_once().unwrap();
        assert_eq!(turns.wait().await.err(), Some(Busy::Overdue));
    }

    /// What comes of one poll.
    pub(in super::super) fn once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}
