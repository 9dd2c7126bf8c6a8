//! What the h2 crate holds of the answers on one client connection, counted.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use crate::proxy::Place;

/// Response bytes that were given to the h2 crate and have not left yet, of all streams of a connection.
pub(super) struct Flow {
    unsent: Cell<usize>,
    /// Bytes that have left since [`Stall`] looked last.
    sent: Cell<usize>,
    /// Streams that wait until there is less.
    waiting: RefCell<Vec<Waker>>,
    place: Place,
}

/// Response bytes that say when the h2 crate is done with them.
pub(super) struct Metered {
    bytes: Bytes,
    size: usize,
    flow: Rc<Flow>,
}

/// How far a client is behind the rate at which it has to take its answers.
pub(super) struct Stall {
    /// Bytes a second; 0 where it may be as slow as it likes, as long as something moves.
    rate: usize,
    most: Duration,
    behind: Duration,
    looked: Instant,
}

impl Flow {
    pub(super) fn new(place: Place) -> Rc<Self> {
        Rc::new(Self { unsent: Cell::new(0), sent: Cell::new(0), waiting: RefCell::default(), place })
    }

    /// Ready while the connection takes more of an answer.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unsent.get() < UNSENT_MAX {
            return Poll::Ready(());
        }
        self.waiting.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }

    /// Counts `bytes` until the h2 crate is done with them.
    pub(super) fn meter(self: &Rc<Self>, bytes: Bytes) -> Metered {
        self.unsent.set(self.unsent.get() + bytes.len());
        Metered { size: bytes.len(), bytes, flow: Rc::clone(self) }
    }

    fn released(&self, bytes: usize) {
        self.unsent.set(self.unsent.get() - bytes);
        self.sent.set(self.sent.get().saturating_add(bytes));
        self.place.waits(self.unsent.get(), Instant::now());
        if self.unsent.get() < UNSENT_MAX {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Stall {
    pub(super) fn new(rate: usize, most: Duration) -> Self {
        Self { rate, most, behind: Duration::ZERO, looked: Instant::now() }
    }

    /// How often to look: a stall is found after a quarter more than its limit at the latest.
    pub(super) fn every(&self) -> Duration {
        (self.most / 4).max(Duration::from_millis(1))
    }

    /// Whether the client has been behind for too long.
    pub(super) fn is_over(&mut self, flow: &Flow, now: Instant) -> bool {
        let (passed, sent) = (now - self.looked, flow.sent.take());
        self.looked = now;
        let made_good = match (sent, self.rate) {
            (0, _) => Duration::ZERO,
            (_, 0) => Duration::MAX,
            (sent, rate) => Duration::from_secs_f64(sent as f64 / rate as f64),
        };
        self.behind = if flow.unsent.get() == 0 {
            Duration::ZERO
        } else {
            (self.behind + passed).saturating_sub(made_good)
        };
        self.behind >= self.most
    }
}

impl Buf for Metered {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.flow.released(self.size);
    }
}

/// Unsent bytes of one connection beyond which its streams wait: more than a round trip needs on one machine.
const UNSENT_MAX: usize = 256 * 1024;
