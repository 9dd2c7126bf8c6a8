//! How much is asked of one AEM at once: requests, connections, and those that wait for either. Shared by all threads; what
//! is not limited costs nothing.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit, oneshot},
    time::timeout,
};

use crate::{
    metrics::{Turned, UpstreamMetrics},
    proxy::link::{Detached, Wire},
};

/// Why a request does not get its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum Busy {
    /// Too many wait already.
    #[error("too many requests wait for AEM")]
    Full,
    /// It has waited for too long.
    #[error("the request has waited for its turn at AEM for too long")]
    Overdue,
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
    async fn wait<T>(&self, turn: impl Future<Output = Option<T>>) -> Result<T, Busy> {
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

/// The connections that there may be at once.
pub(in crate::proxy) struct Connections {
    state: Mutex<State>,
    max: usize,
    /// How many wait for one, or did and have left: looked at without the lock.
    wanted: AtomicUsize,
    queue: Arc<Queue>,
    /// Tells the threads that one of their idle connections is wanted.
    told: Arc<Notify>,
    /// Whether a connection serves any request: one that requests share stays with its thread.
    movable: bool,
}

#[derive(Default)]
struct State {
    open: usize,
    waiting: VecDeque<oneshot::Sender<Offer>>,
}

/// What comes to somebody who waits for a connection.
pub(super) enum Offer {
    /// They may make one.
    Slot(Slot),
    /// Here is one.
    Wire(Box<Detached>),
}

/// A connection's place among those that there may be, until it is dropped.
pub(in crate::proxy) struct Slot(Option<Arc<Connections>>);

impl Connections {
    pub(super) fn new(max: usize, movable: bool, queue: Arc<Queue>, told: Arc<Notify>) -> Self {
        Self { state: Mutex::default(), max, wanted: AtomicUsize::new(0), queue, told, movable }
    }

    /// A place for a new connection, or a connection that another request has done with.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Offer, Busy> {
        if let Some(slot) = self.slot() {
            return Ok(Offer::Slot(slot));
        }
        // Few need it: not a part of every connection's task.
        Box::pin(self.queue.wait(self.offered())).await
    }

    async fn offered(self: &Arc<Self>) -> Option<Offer> {
        let offered = self.enqueue();
        // Whoever has an idle one hears it after this wait can be seen.
        self.told.notify_waiters();
        offered.await.ok()
    }

    fn slot(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.state();
        if state.open >= self.max {
            return None;
        }
        state.open += 1;
        Some(Slot(Some(Arc::clone(self))))
    }

    fn enqueue(self: &Arc<Self>) -> oneshot::Receiver<Offer> {
        let (give, given) = oneshot::channel();
        let mut state = self.state();
        if state.open < self.max {
            state.open += 1;
            // The other end is here.
            drop(give.send(Offer::Slot(Slot(Some(Arc::clone(self))))));
            return given;
        }
        // Those who gave up in the order in which they came.
        while state.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            state.waiting.pop_front();
        }
        state.waiting.push_back(give);
        self.wanted.store(state.waiting.len(), Relaxed);
        given
    }

    /// Whether somebody waits for a connection.
    pub(in crate::proxy) fn are_wanted(&self) -> bool {
        self.wanted.load(Relaxed) > 0
    }

    /// Gives a connection away to whoever has waited longest; it comes back if nobody does. One that cannot be moved is not
    /// returned: its place is free once it is closed.
    pub(super) fn hand_over(&self, wire: Wire) -> Option<Wire> {
        if !self.are_wanted() || !self.movable {
            return Some(wire);
        }
        // A socket that cannot be moved is lost, and its place goes to whoever waits.
        let mut offer = Offer::Wire(Box::new(wire.detach()?));
        while let Some(waiting) = self.next(&mut self.state()) {
            match waiting.send(offer) {
                Ok(()) => return None,
                Err(back) => offer = back,
            }
        }
        match offer {
            Offer::Wire(wire) => wire.attach(),
            Offer::Slot(_) => None,
        }
    }

    fn next(&self, state: &mut State) -> Option<oneshot::Sender<Offer>> {
        let next = loop {
            match state.waiting.pop_front() {
                Some(waiting) if waiting.is_closed() => {}
                next => break next,
            }
        };
        self.wanted.store(state.waiting.len(), Relaxed);
        next
    }

    /// A place is free: the next one has it.
    fn free(self: Arc<Self>) {
        let mut state = self.state();
        while let Some(waiting) = self.next(&mut state) {
            match waiting.send(Offer::Slot(Slot(Some(Arc::clone(&self))))) {
                Ok(()) => return,
                // It is still the same place.
                Err(Offer::Slot(mut slot)) => slot.0 = None,
                Err(Offer::Wire(_)) => {}
            }
        }
        state.open -= 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(connections) = self.0.take() {
            connections.free();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn queue(max: usize) -> Arc<Queue> {
        let metrics = Metrics::new().unwrap().upstream("author");
        Arc::new(Queue::new(max, Duration::from_secs(10), metrics))
    }

    fn connections(max: usize, queued: usize) -> Arc<Connections> {
        Arc::new(Connections::new(max, true, queue(queued), Arc::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_and_whoever_leaves_frees_its_place() {
        let turns = Turns::new(1, queue(2));
        let first = turns.at_once().unwrap();
        assert!(turns.at_once().is_none());
        let mut second = Box::pin(turns.wait());
        let mut third = Box::pin(turns.wait());
        assert!(futures_poll(&mut second).is_none() && futures_poll(&mut third).is_none());
        assert_eq!(turns.wait().await.err(), Some(Busy::Full));
        drop(second);
        let mut fourth = Box::pin(turns.wait());
        assert!(futures_poll(&mut fourth).is_none());
        drop(first);
        assert!(turns.at_once().is_none(), "somebody waits");
        assert!(third.await.is_ok());
        assert!(fourth.await.is_ok());
        let _held = turns.at_once().unwrap();
        assert_eq!(turns.wait().await.err(), Some(Busy::Overdue));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_given_back_goes_to_whoever_still_waits() {
        let connections = connections(2, 3);
        let (Ok(Offer::Slot(one)), Ok(Offer::Slot(two))) =
            (connections.acquire().await, connections.acquire().await)
        else {
            panic!("there is room")
        };
        let mut leaves = Box::pin(connections.acquire());
        let mut stays = Box::pin(connections.acquire());
        assert!(futures_poll(&mut leaves).is_none() && futures_poll(&mut stays).is_none());
        assert!(connections.are_wanted());
        drop(leaves);
        drop(one);
        let Ok(Offer::Slot(three)) = stays.await else { panic!("the place comes") };
        assert!(!connections.are_wanted());
        assert_eq!(connections.acquire().await.err(), Some(Busy::Overdue));
        drop((two, three));
        assert_eq!(connections.state().open, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_came_too_late_is_not_lost() {
        let connections = connections(1, 3);
        let Ok(Offer::Slot(one)) = connections.acquire().await else { panic!("there is room") };
        let mut late = Box::pin(connections.acquire());
        assert!(futures_poll(&mut late).is_none());
        drop(one);
        drop(late);
        assert!(matches!(connections.acquire().await, Ok(Offer::Slot(_))));
    }

    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
