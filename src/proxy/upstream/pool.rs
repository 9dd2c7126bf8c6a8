//! Connections to one AEM that wait for the next request.

use std::{cell::RefCell, collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{
    config::Timeouts,
    proxy::{
        buffer::Buffers,
        http2::Shared,
        link::{Link, Wire},
    },
};

/// A thread's connections to AEM that wait for the next request, the one used last at the end.
#[derive(Default)]
pub(in crate::proxy) struct Pool {
    idle: RefCell<VecDeque<(Wire, Instant)>>,
    /// Those that requests share.
    pub(in crate::proxy) shared: Shared,
}

impl Pool {
    /// The connection that was used last, unless AEM has something to say on it, or has gone.
    pub(in crate::proxy) fn take(&self, max_age: Duration, buffers: &Buffers) -> Option<Link> {
        let now = Instant::now();
        loop {
            let (mut wire, _) = self.idle.borrow_mut().pop_back()?;
            if !wire.is_old(now, max_age) && wire.is_fresh(buffers) {
                return Some(Link::Wire(wire));
            }
            wire.close(buffers);
        }
    }

    /// Keeps a connection for the next request.
    pub(in crate::proxy) fn keep(&self, link: Link, now: Instant, buffers: &Buffers) {
        let Link::Wire(wire) = link else { return };
        let mut idle = self.idle.borrow_mut();
        idle.push_back((wire, now));
        if idle.len() > IDLE_MAX
            && let Some((oldest, _)) = idle.pop_front()
        {
            oldest.close(buffers);
        }
    }

    /// Closes what has waited for longer than `timeouts.upstream_idle`, what is too old, and what AEM has closed.
    pub(in crate::proxy) fn sweep(&self, timeouts: &Timeouts, buffers: &Buffers) {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        for _ in 0..idle.len() {
            let Some((mut wire, since)) = idle.pop_front() else { break };
            let in_time =
                now - since < timeouts.upstream_idle && !wire.is_old(now, timeouts.upstream_max_age);
            if in_time && wire.is_fresh(buffers) {
                idle.push_back((wire, since));
            } else {
                wire.close(buffers);
            }
        }
        drop(idle);
        self.shared.sweep(timeouts.upstream_idle, timeouts.upstream_max_age);
    }

    /// Closes up to so many connections that wait here: somebody else needs their places.
    pub(in crate::proxy) fn yield_places(&self, count: usize, buffers: &Buffers) {
        for _ in 0..count {
            let Some((wire, _)) = self.idle.borrow_mut().pop_front() else { break };
            wire.close(buffers);
        }
        self.shared.sweep(Duration::ZERO, Duration::MAX);
    }
}

/// As many as a busy app may have in use at once: fewer, and every burst would end in handshakes. They end by themselves
/// when idle.
const IDLE_MAX: usize = 4096;
