//! What one client connection is doing, so that a single lazy timer can watch all of its waits.
//!
//! The connection's task, its socket and its bodies share one [`Activity`]. Moving bytes costs a relaxed store
//! each; no timer is set or reset for a request.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::Tunnel;
use crate::{config::Timeouts, listener::Stream};

/// Shared by everything that belongs to one client connection.
pub(super) struct Activity {
    started: Instant,
    /// Milliseconds after `started` when a byte last moved to or from the client.
    moved_ms: AtomicU64,
    phase: AtomicU8,
    head_bytes: AtomicU64,
    uploaded: AtomicBool,
    abandoned: AtomicBool,
    overdue: AtomicBool,
    cut: AtomicBool,
    refused: AtomicU16,
    tunnel: Mutex<Option<Tunnel>>,
    stream: Mutex<Option<Stream>>,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// The next request.
    Idle,
    /// The rest of a request's head.
    Head,
    /// AEM's response head, while the request's body may still be on its way.
    Waiting,
    /// The response's body.
    Streaming,
    /// A client that takes the last bytes of a response.
    Flushing,
    /// The rest of a request's body that was answered before its end.
    Unread,
    /// Nothing: the connection is no longer HTTP. This phase is never left.
    Tunnel,
}

/// A wait that took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// No next request came.
    Idle,
    /// A request's head did not come to its end.
    Head,
    /// No response head: the request is to answer that itself.
    Response,
    /// A response's body, or a tunnel, does not move.
    Body,
    /// A client neither goes on sending what nobody reads nor leaves.
    Unread,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            moved_ms: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Idle as u8),
            head_bytes: AtomicU64::new(0),
            uploaded: AtomicBool::new(true),
            abandoned: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            refused: AtomicU16::new(0),
            tunnel: Mutex::new(None),
            stream: Mutex::new(None),
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Waiting,
            3 => Phase::Streaming,
            4 => Phase::Flushing,
            5 => Phase::Unread,
            _ => Phase::Tunnel,
        }
    }

    fn enter(&self, phase: Phase) {
        if self.phase() != Phase::Tunnel {
            self.phase.store(phase as u8, Relaxed);
        }
    }

    fn moved(&self) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(ms, Relaxed);
    }

    /// Bytes came from the client. The first ones after a message begin the next head and start its clock; later
    /// bytes of that head do not move the clock, or a byte a minute would hold a connection for ever.
    pub(super) fn read(&self, bytes: usize) {
        match self.phase() {
            Phase::Idle => {
                self.moved();
                self.head_bytes.store(bytes as u64, Relaxed);
                self.enter(Phase::Head);
            }
            Phase::Head | Phase::Flushing => {
                self.head_bytes.fetch_add(bytes as u64, Relaxed);
            }
            Phase::Waiting | Phase::Streaming | Phase::Unread | Phase::Tunnel => self.moved(),
        }
    }

    /// Bytes went to the client.
    pub(super) fn wrote(&self) {
        if !self.in_head() {
            self.moved();
        }
    }

    /// Whether a head has begun and not ended.
    pub(super) fn in_head(&self) -> bool {
        self.phase() == Phase::Head
    }

    /// Whether everything was answered: nothing that is written now is an answer to a request.
    pub(super) fn owes_nothing(&self) -> bool {
        matches!(self.phase(), Phase::Idle | Phase::Head)
    }

    /// Bytes that were read since the last head began, up to the read in which it ended.
    pub(super) fn head_bytes(&self) -> u64 {
        self.head_bytes.load(Relaxed)
    }

    /// A request's head is complete.
    pub(super) fn request(&self) {
        self.uploaded.store(false, Relaxed);
        self.abandoned.store(false, Relaxed);
        self.overdue.store(false, Relaxed);
        self.moved();
        self.enter(Phase::Waiting);
    }

    /// The request's body has come to its end: now it is AEM's turn.
    pub(super) fn uploaded(&self) {
        self.uploaded.store(true, Relaxed);
        self.moved();
        if self.phase() == Phase::Unread && !self.is_abandoned() {
            self.flush_out();
        }
    }

    /// Whether the request's body has come to its end.
    pub(super) fn is_uploaded(&self) -> bool {
        self.uploaded.load(Relaxed)
    }

    /// Nobody reads the rest of the request's body.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
        self.uploaded();
    }

    /// Whether the connection is no longer HTTP.
    pub(super) fn is_tunnel(&self) -> bool {
        self.phase() == Phase::Tunnel
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Relaxed)
    }

    /// Whether the client may still be sending what nobody reads.
    pub(super) fn is_unread(&self) -> bool {
        self.phase() == Phase::Unread
    }

    /// The response's head is there.
    pub(super) fn response(&self) {
        self.moved();
        self.enter(Phase::Streaming);
    }

    /// The response is complete, or given up. What comes next is a head, unless the request's body was left unread.
    pub(super) fn answered(&self) {
        self.moved();
        if self.is_uploaded() && !self.is_abandoned() {
            self.flush_out();
        } else {
            self.enter(Phase::Unread);
        }
    }

    fn flush_out(&self) {
        self.head_bytes.store(0, Relaxed);
        self.enter(Phase::Flushing);
    }

    /// Everything that was to be written has been. The client may have begun the next head before that.
    pub(super) fn flushed(&self) {
        if self.phase() == Phase::Flushing {
            self.moved();
            self.enter(if self.head_bytes() > 0 { Phase::Head } else { Phase::Idle });
        }
    }

    /// AEM broke off in a body: the client must notice.
    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    /// Whether the connection must not look complete.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// What came is no request; `status` says why.
    pub(super) fn refuse(&self, status: u16) {
        self.refused.store(status, Relaxed);
    }

    /// The status of what came and was no request.
    pub(super) fn refused(&self) -> Option<u16> {
        Some(self.refused.load(Relaxed)).filter(|status| *status != 0)
    }

    /// Tells the request in flight that it has waited long enough.
    pub(super) fn give_up(&self) {
        self.overdue.store(true, Relaxed);
    }

    /// Whether the request in flight has waited long enough.
    pub(super) fn is_overdue(&self) -> bool {
        self.overdue.load(Relaxed)
    }

    /// When to look again, or what is overdue now.
    pub(super) fn look(&self, timeouts: &Timeouts) -> Result<Instant, Overdue> {
        let (limit, overdue) = match self.phase() {
            Phase::Idle => (timeouts.keep_alive, Overdue::Idle),
            Phase::Unread => (timeouts.idle, Overdue::Unread),
            Phase::Head => (timeouts.request_head, Overdue::Head),
            Phase::Waiting if self.is_uploaded() => (timeouts.response_head, Overdue::Response),
            Phase::Waiting => (timeouts.idle, Overdue::Response),
            Phase::Streaming | Phase::Flushing | Phase::Tunnel => (timeouts.idle, Overdue::Body),
        };
        let now = Instant::now();
        let due = self.started + Duration::from_millis(self.moved_ms.load(Relaxed)) + limit;
        if due > now { Ok(due.min(now + look_every(timeouts))) } else { Err(overdue) }
    }

    /// Keeps both ends of an upgraded connection until hyper lets go of it.
    pub(super) fn hold_tunnel(&self, tunnel: Tunnel) {
        self.enter(Phase::Tunnel);
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
    }

    pub(super) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes the socket back from hyper.
    pub(super) fn hold_stream(&self, stream: Stream) {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    pub(super) fn take_stream(&self) -> Option<Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Looking as often as the shortest limit asks, no wait that begins after a look can be missed.
pub(super) fn look_every(timeouts: &Timeouts) -> Duration {
    timeouts.keep_alive.min(timeouts.response_head).min(timeouts.idle)
}
