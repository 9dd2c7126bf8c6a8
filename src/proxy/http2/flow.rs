//! What the h2 crate holds of the bodies on one client connection, counted.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
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
    /// DATA frames of requests that the crate has and that were not read yet, by stream.
    unread: RefCell<BTreeMap<u32, usize>>,
    /// All of them.
    unread_frames: Cell<usize>,
    /// The connection, where it waits until there are fewer.
    reader: RefCell<Option<Waker>>,
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
        Rc::new(Self {
            unsent: Cell::new(0),
            sent: Cell::new(0),
            waiting: RefCell::default(),
            unread: RefCell::default(),
            unread_frames: Cell::new(0),
            reader: RefCell::default(),
            place,
        })
    }

    /// A stream begins; its frames count from now on.
    pub(super) fn begin(&self, stream: u32) {
        self.unread.borrow_mut().insert(stream, 0);
    }

    /// The rest of a stream is not read: the crate drops its frames.
    pub(super) fn end(&self, stream: u32) {
        let frames = self.unread.borrow_mut().remove(&stream).unwrap_or_default();
        self.read_frames(frames);
    }

    /// A DATA frame of a stream goes to the crate. What is of no stream that was begun, the crate drops.
    pub(super) fn received(&self, stream: u32) {
        if let Some(frames) = self.unread.borrow_mut().get_mut(&stream) {
            *frames += 1;
            self.unread_frames.set(self.unread_frames.get() + 1);
        }
    }

    /// A frame of a stream was read.
    pub(super) fn read(&self, stream: u32) {
        let known = self.unread.borrow_mut().get_mut(&stream).is_some_and(|frames| {
            let counted = *frames > 0;
            *frames = frames.saturating_sub(1);
            counted
        });
        self.read_frames(usize::from(known));
    }

    fn read_frames(&self, frames: usize) {
        self.unread_frames.set(self.unread_frames.get() - frames);
        if self.unread_frames.get() < UNREAD_FRAMES_MAX
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }

    /// Ready while the crate takes more frames: a frame of one byte takes a few hundred bytes there, which no window counts.
    pub(super) fn poll_frames(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unread_frames.get() < UNREAD_FRAMES_MAX {
            return Poll::Ready(());
        }
        *self.reader.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
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
        self.unsent.set(self.unsent.get() + bytes.len() + FRAME);
        Metered { size: bytes.len(), bytes, flow: Rc::clone(self) }
    }

    fn released(&self, bytes: usize) {
        self.unsent.set(self.unsent.get() - bytes - FRAME);
        self.sent.set(self.sent.get().saturating_add(bytes));
        self.place.waits(self.unsent.get(), true, Instant::now());
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

/// DATA frames of one connection that were not read: far more than its windows hold of frames of an ordinary size.
const UNREAD_FRAMES_MAX: usize = 2048;

/// What the h2 crate takes for a frame that waits to be sent, in addition to its bytes: less than this.
const FRAME: usize = 512;

/// Unsent bytes of one connection beyond which its streams wait: more than a round trip needs on one machine.
const UNSENT_MAX: usize = 256 * 1024;
