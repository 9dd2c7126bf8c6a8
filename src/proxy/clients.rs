//! The connections of a thread's clients: how many there are, and which of them makes room for another one.
//!
//! A place is taken once for each connection. What a request costs are two stores: whether it is there is said by the connection,
//! and asked for only when there is no room. Each connection, and each stream of an HTTP/2 connection, also says how much memory
//! it holds while it waits, and since when: if the memory budget runs out, the one that holds the most for the longest is closed
//! first.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    time::Duration,
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
    /// Streams of HTTP/2 connections.
    streams: RefCell<Vec<Place>>,
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
    /// What it takes by itself, in bytes.
    base: Cell<usize>,
    /// Bytes that its buffers take while it waits.
    held: Cell<usize>,
    /// It waits for the client to send or to take, rather than for AEM.
    on_client: Cell<bool>,
    /// When something moved last.
    moved: Cell<Instant>,
    is_stream: bool,
    task: OnceCell<AbortHandle>,
}

/// Gives a place up when it is dropped.
pub(super) struct Leaving<'w>(pub &'w Worker, pub Place);

/// A connection that is told that there is no place for it.
pub(super) struct Refused<'w>(&'w Worker);

impl Clients {
    pub(super) fn new((most, refused_most): (usize, usize)) -> Self {
        Self {
            most: most.max(1),
            refused_most,
            places: RefCell::default(),
            streams: RefCell::default(),
            refused: Cell::new(0),
        }
    }

    fn is_full(&self) -> bool {
        self.places.borrow().len() >= self.most
    }

    /// The connection that has been without a request for longest, at least for so long.
    fn idlest(&self, least: Duration) -> Option<Place> {
        let places = self.places.borrow();
        let now = Instant::now();
        let idle = places.iter().filter_map(|place| Some((place.idle(now)?, place)));
        let idlest = idle.max_by_key(|(idle, _)| *idle).filter(|(idle, _)| *idle >= least);
        idlest.map(|(_, place)| place.clone())
    }

    fn add(&self, proxy: usize, base: usize, is_stream: bool) -> Place {
        let mut places = self.list(is_stream).borrow_mut();
        let now = Instant::now();
        let place = Place(Rc::new(Inner {
            proxy,
            at: Cell::new(Some(places.len())),
            idle: Cell::new((!is_stream).then_some(now)),
            base: Cell::new(base),
            held: Cell::new(0),
            on_client: Cell::new(false),
            moved: Cell::new(now),
            is_stream,
            task: OnceCell::new(),
        }));
        places.push(place.clone());
        place
    }

    fn list(&self, is_stream: bool) -> &RefCell<Vec<Place>> {
        if is_stream { &self.streams } else { &self.places }
    }

    /// The places that hold the most memory for the longest, until they make up `excess` bytes: a few at a time, since they may
    /// free more than they know. None that has moved just now: it may be over in a moment. Those that hold no buffers, or little
    /// while they wait for AEM, come last, and only when they have stood still for long: there is little to gain.
    fn slowest(&self, excess: usize) -> Vec<Place> {
        let now = Instant::now();
        let (places, streams) = (self.places.borrow(), self.streams.borrow());
        let all = || places.iter().chain(&*streams).filter_map(|place| Some((place.rank(now)?, place)));
        // What the h2 crate holds for a connection, it does not tell.
        let may_hold = |Place(place): &Place| {
            let least = if place.on_client.get() { 0 } else { LITTLE };
            place.held.get() > least || place.base.get() > TLS_CONNECTION
        };
        let mut ranked: Vec<_> = all().filter(|(_, place)| may_hold(place)).collect();
        if ranked.is_empty() {
            ranked =
                all().filter(|(_, place)| place.idle(now).is_some_and(|idle| idle >= IDLE_MIN)).collect();
        }
        if ranked.is_empty() {
            ranked = all().filter(|(_, place)| now - place.0.moved.get() >= STILL_MAX).collect();
        }
        ranked.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        let (mut freed, most) = (0, (ranked.len() / 8).max(CLOSED_AT_ONCE));
        let enough = |(_, place): &(_, &Place)| {
            let more = freed < excess;
            freed += place.0.held.get() + place.0.base.get();
            more
        };
        ranked.into_iter().take(most).take_while(enough).map(|(_, place)| place.clone()).collect()
    }

    fn remove(&self, place: &Place) -> bool {
        let Some(at) = place.0.at.take() else { return false };
        let mut places = self.list(place.0.is_stream).borrow_mut();
        places.swap_remove(at);
        if let Some(moved) = places.get(at) {
            moved.0.at.set(Some(at));
        }
        true
    }
}

impl Worker {
    /// A place for a connection to the proxy with this number. Where there is none, the connection that has waited for a request
    /// for longest makes room; none where all have one, or, for want of memory, may have one in a moment.
    pub fn place(&self, proxy: usize) -> Option<Place> {
        let is_full = self.clients.is_full();
        if is_full || !self.has_room() {
            let idlest = self.clients.idlest(if is_full { Duration::ZERO } else { IDLE_MIN })?;
            self.leave(&idlest);
            if let Some(proxy) = self.proxies.get(idlest.0.proxy) {
                proxy.metrics.connection_ended(Ended::Idle);
            }
            if let Some(task) = idlest.0.task.get() {
                task.abort();
            }
        }
        let base = match self.proxies.get(proxy) {
            Some(proxy) if proxy.tls.is_some() => TLS_CONNECTION,
            _ => CONNECTION,
        };
        let place = self.clients.add(proxy, base, false);
        if let Some(proxy) = self.proxies.get(proxy) {
            proxy.metrics.connected();
        }
        Some(place)
    }

    /// A place for a stream of an HTTP/2 connection, of which there may be any number.
    pub(super) fn stream_place(&self, proxy: usize) -> Place {
        self.clients.add(proxy, STREAM, true)
    }

    /// Waits for a moment until the memory budget has room for a new request, or a new connection: connections that stand still
    /// are closed meanwhile. Tells whether there is room.
    pub async fn wait_for_room(&self) -> bool {
        let memory = self.buffers.memory();
        let deadline = Instant::now() + ROOM_PATIENCE;
        while !self.has_room() && Instant::now() < deadline {
            memory.press();
            tokio::time::sleep(ROOM_LOOK).await;
        }
        self.has_room()
    }

    /// Whether the memory budget has room for a new request or connection.
    pub fn has_room(&self) -> bool {
        !self.buffers.memory().is_exhausted()
    }

    /// Closes connections while the memory budget is nearly used up, those first that hold the most for the longest.
    pub async fn relieve(self: Rc<Self>) {
        let memory = self.buffers.memory().clone();
        loop {
            let pressed = memory.pressed();
            if !memory.is_high() {
                pressed.await;
            }
            self.buffers.shrink();
            self.pools.iter().for_each(|pool| pool.close_idle(&self.buffers));
            memory.look();
            while memory.is_high() || memory.is_bloated() {
                let closed = memory.is_high() && self.close_slowest(memory.excess());
                // The tasks that were closed free their memory now, those that wait look again.
                self.buffers.wake_some_waiting();
                tokio::time::sleep(if closed { RELIEF_PAUSE } else { LOOK_PAUSE }).await;
                memory.look();
            }
            // What a connection that requests share has grown by is free only when it ends: others are made for new requests.
            self.pools.iter().for_each(|pool| pool.shared.close());
            self.buffers.wake_all_waiting();
        }
    }

    /// Closes connections that make up so many bytes; tells whether there was one.
    fn close_slowest(&self, excess: usize) -> bool {
        let slowest = self.clients.slowest(excess);
        for place in &slowest {
            self.leave(place);
            if let Some(proxy) = self.proxies.get(place.0.proxy) {
                proxy.metrics.connection_ended(Ended::Memory);
            }
            if let Some(task) = place.0.task.get() {
                task.abort();
            }
        }
        !slowest.is_empty()
    }

    fn leave(&self, place: &Place) {
        if self.clients.remove(place)
            && !place.0.is_stream
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

    /// It has become an HTTP/2 connection.
    pub(super) fn is_http2(&self) {
        self.0.base.set(self.0.base.get() + HTTP2_CONNECTION);
    }

    /// It waits, for the client or for AEM, and its buffers take so many bytes; something moved last at that time.
    pub(super) fn waits(&self, held: usize, on_client: bool, moved: Instant) {
        self.0.held.set(held);
        self.0.on_client.set(on_client);
        self.0.moved.set(moved);
    }

    /// For how long there has been no request on it; none where there is one.
    fn idle(&self, now: Instant) -> Option<Duration> {
        self.0.idle.get().map(|since| now.saturating_duration_since(since))
    }

    /// How much is to be gained by closing it: bytes times milliseconds. None while it moves.
    fn rank(&self, now: Instant) -> Option<u64> {
        let still = now.saturating_duration_since(self.0.moved.get());
        if still < STILL_MIN {
            return None;
        }
        Some((self.0.held.get() + self.0.base.get()) as u64 * still.min(STILL_MAX).as_millis() as u64)
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

/// What a connection without a request takes, in bytes, measured: its task, and its share of the runtime's tables.
const CONNECTION: usize = 6 * 1024;

/// The same with a TLS session.
const TLS_CONNECTION: usize = 24 * 1024;

/// What the h2 crate takes for a connection: its buffers, and tables of fields.
const HTTP2_CONNECTION: usize = 40 * 1024;

/// What a request on an HTTP/2 connection takes beside its buffers.
const STREAM: usize = 6 * 1024;

/// What moves at least as often is left alone.
const STILL_MIN: Duration = Duration::from_millis(200);

/// Beyond it, only the memory counts: an idle connection that holds nothing is no better a choice for being idle for long.
const STILL_MAX: Duration = Duration::from_secs(2);

/// The most that an ordinary request holds while AEM works on it: its head, and the beginning of the next one.
const LITTLE: usize = 16 * 1024;

/// For want of memory no connection is closed that has had no request for less: one may be on its way, or wait to be read.
const IDLE_MIN: Duration = Duration::from_secs(1);

/// How many connections are closed at least before another look.
const CLOSED_AT_ONCE: usize = 4;

/// How long closed connections take to free their memory.
const RELIEF_PAUSE: Duration = Duration::from_millis(10);

/// How long until another look where none could be closed.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// How long a new request or connection waits for room in the memory budget.
const ROOM_PATIENCE: Duration = Duration::from_millis(800);

/// How often it looks.
const ROOM_LOOK: Duration = Duration::from_millis(10);
