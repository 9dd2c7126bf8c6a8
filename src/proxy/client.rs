//! The client's side of a connection: its socket, what came and what is to go, and one timer for all the waits.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{
    buffer::{Buffer, Buffers},
    socket::Socket,
};
use crate::config::Timeouts;

/// A client's connection.
pub(super) struct Client {
    pub stream: Socket,
    /// Came, and is not used yet.
    pub input: Buffer,
    /// Is to be sent.
    pub output: Buffer,
    pub watch: Watch,
    /// An answer has begun and not ended.
    pub half: bool,
}

impl Drop for Client {
    /// However a connection ends, half an answer must not look whole.
    fn drop(&mut self) {
        if self.half {
            self.stream.reset();
        }
    }
}

impl Client {
    pub(super) fn new(stream: Socket, timeouts: &Timeouts) -> Self {
        let watch = Watch::new(timeouts);
        Self { stream, input: Buffer::default(), output: Buffer::default(), watch, half: false }
    }

    /// Reads once. 0 is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> Poll<io::Result<usize>> {
        buffers.equip(&mut self.input);
        let read = self.input.poll_fill(&mut self.stream, cx);
        buffers.release(&mut self.input);
        read
    }

    /// Sends what the socket takes; tells how much that was.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> io::Result<usize> {
        let sent = self.output.poll_drain(&mut self.stream, cx)?;
        buffers.release(&mut self.output);
        Ok(sent)
    }

    /// Ready when the client has left. A client that sends the next request early has not; nor can one be seen to
    /// leave behind it.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> Poll<()> {
        if !self.input.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_read(cx, buffers)) {
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(()),
        }
    }
}

/// A limit on how long something may take or stand still. No timer is set for a request: the one there is looks, when it
/// goes off, whether anything is overdue.
pub(super) struct Watch {
    timer: Pin<Box<Sleep>>,
    since: Instant,
    limit: Duration,
    /// As often as the shortest of the usual limits asks: nothing that begins after a look is missed by the next.
    every: Duration,
}

impl Watch {
    fn new(timeouts: &Timeouts) -> Self {
        let every = timeouts.keep_alive.min(timeouts.response_head).min(timeouts.idle);
        let timer = Box::pin(tokio::time::sleep(every));
        Self { timer, since: Instant::now(), limit: timeouts.keep_alive, every }
    }

    /// From now on `limit` holds.
    pub(super) fn begin(&mut self, limit: Duration, now: Instant) {
        self.limit = limit;
        self.since = now;
    }

    /// Something moved: the limit begins anew.
    pub(super) fn moved(&mut self) {
        self.since = Instant::now();
    }

    /// Ready when the limit has passed, and then once a second: it may take some time until that helps.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.since + self.limit;
        if due < self.timer.deadline() {
            self.timer.as_mut().reset(due);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= due {
                self.timer.as_mut().reset(now + OVERDUE_PAUSE);
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due.min(now + self.every));
        }
    }
}

/// Between finding something overdue and looking whether that helped.
const OVERDUE_PAUSE: Duration = Duration::from_secs(1);
