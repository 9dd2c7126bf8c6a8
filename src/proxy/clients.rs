//! The connections of a thread's clients: how many there are, and which of them makes room for another one.
//!
//! A place is taken once for each connection. What a request costs are two stores: whether it is there is said by the connection,
//! and asked for only when there is no room.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
};

use tokio::{task::AbortHandle, time::Instant};

use super::Worker;
use crate::metrics::Ended;

/// All of them.
pub(super) struct Clients {
    most: usize,
    /// How many are told at once that there is no place for them.
    refused_most: usize,
    places: RefCell<Vec<Place>>,
    /// Those for which there is no place, and that are told so.
    refused: Cell<usize>,
}

/// The place of one connection.
#[derive(Clone)]
pub struct Place(Rc<Inner>);

struct Inner {
    /// The number of its proxy.
    proxy: usize,
    /// Where it stands among the others; nowhere once it is given up.
    at: Cell<Option<usize>>,
    /// Since when there is no request on the connection.
    idle: Cell<Option<Instant>>,
    task: OnceCell<AbortHandle>,
}

/// Gives a place up when it is dropped.
pub(super) struct Leaving<'w>(pub &'w Worker, pub Place);

/// A connection that is told that there is no place for it.
pub(super) struct Refused<'w>(&'w Worker);

impl Clients {
    pub(super) fn new((most, refused_most): (usize, usize)) -> Self {
        Self { most: most.max(1), refused_most, places: RefCell::default(), refused: Cell::new(0) }
    }

    fn is_full(&self) -> bool {
        self.places.borrow().len() >= self.most
    }

    /// The connection that has been without a request for longest.
    fn idlest(&self) -> Option<Place> {
        let places = self.places.borrow();
        let idle = places.iter().filter_map(|place| Some((place.0.idle.get()?, place)));
        idle.min_by_key(|(since, _)| *since).map(|(_, place)| place.clone())
    }

    fn remove(&self, place: &Place) -> bool {
        let Some(at) = place.0.at.take() else { return false };
        let mut places = self.places.borrow_mut();
        places.swap_remove(at);
        if let Some(moved) = places.get(at) {
            moved.0.at.set(Some(at));
        }
        true
    }
}

impl Worker {
    /// A place for a connection to the proxy with this number. Where there is none, the connection that has waited for a request
    /// for longest makes room; none where all have one.
    pub fn place(&self, proxy: usize) -> Option<Place> {
        if self.clients.is_full() {
            let idlest = self.clients.idlest()?;
            self.leave(&idlest);
            if let Some(proxy) = self.proxies.get(idlest.0.proxy) {
                proxy.metrics.connection_ended(Ended::Idle);
            }
            if let Some(task) = idlest.0.task.get() {
                task.abort();
            }
        }
        let mut places = self.clients.places.borrow_mut();
        let (at, idle) = (Cell::new(Some(places.len())), Cell::new(Some(Instant::now())));
        let place = Place(Rc::new(Inner { proxy, at, idle, task: OnceCell::new() }));
        places.push(place.clone());
        if let Some(proxy) = self.proxies.get(proxy) {
            proxy.metrics.connected();
        }
        Some(place)
    }

    fn leave(&self, place: &Place) {
        if self.clients.remove(place)
            && let Some(proxy) = self.proxies.get(place.0.proxy)
        {
            proxy.metrics.disconnected();
        }
    }

    /// The right to be told that there is no place: not for any number at once, since that takes its time.
    pub(super) fn refuse(&self) -> Option<Refused<'_>> {
        let refused = self.clients.refused.get() + 1;
        (refused <= self.clients.refused_most).then(|| {
            self.clients.refused.set(refused);
            Refused(self)
        })
    }
}

impl Place {
    /// The task that serves the connection: it ends when another one needs the place.
    pub fn belongs_to(&self, task: AbortHandle) {
        // It is said once.
        let _ = self.0.task.set(task);
    }

    /// There has been no request since then.
    pub(super) fn rests(&self, since: Instant) {
        self.0.idle.set(Some(since));
    }

    /// There is one.
    pub(super) fn works(&self) {
        self.0.idle.set(None);
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave(&self.1);
    }
}

impl Drop for Refused<'_> {
    fn drop(&mut self) {
        self.0.clients.refused.set(self.0.clients.refused.get() - 1);
    }
}
