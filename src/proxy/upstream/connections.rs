//! How many connections there are to one AEM at once, of all threads together; and who gets the next one.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::{Notify, oneshot};

use super::limit::{Busy, Queue};
use crate::proxy::link::{Detached, Wire};

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
        loop {
            // Not in the loop's head, where the lock would be held for its body.
            let next = self.next(&mut self.state());
            let Some(waiting) = next else { break };
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
    use super::{
        super::limit::tests::{once, queue},
        *,
    };

    fn connections(max: usize, queued: usize) -> Arc<Connections> {
        Arc::new(Connections::new(max, true, queue(queued), Arc::default()))
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
        assert!(once(&mut leaves).is_none() && once(&mut stays).is_none());
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
        assert!(once(&mut late).is_none());
        drop(one);
        drop(late);
        assert!(matches!(connections.acquire().await, Ok(Offer::Slot(_))));
    }
}
