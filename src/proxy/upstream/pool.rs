//! A thread's connections to one AEM that wait for the next request.

use std::{cell::RefCell, collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::connections::Connections;
use crate::{
    network::descriptors::Descriptors,
    proxy::{
        buffer::Buffers,
        http2::Shared,
        link::{Link, Wire},
    },
};

/// A thread's connections to AEM that wait for the next request, the one used last at the end.
#[derive(Default)]
pub(in crate::proxy) struct Pool {
    idle: RefCell<VecDeque<(Box<Wire>, Instant)>>,
    /// Those that requests share.
    pub(in crate::proxy) shared: Shared,
    /// Where there may be only so many.
    connections: Option<Arc<Connections>>,
    /// Where their descriptors come from.
    descriptors: Option<Arc<Descriptors>>,
}

impl Pool {
    pub(super) fn new(connections: Option<Arc<Connections>>, descriptors: Arc<Descriptors>) -> Self {
        Self { connections, descriptors: Some(descriptors), ..Self::default() }
    }

    /// How many dials wait for a descriptor.
    fn wanted_descriptors(&self) -> usize {
        self.descriptors.as_ref().map_or(0, |descriptors| descriptors.wanted())
    }

    /// The connection that was used last, unless it is old, or AEM has something to say on it, or has gone.
    pub(in crate::proxy) fn take(&self, now: Instant, buffers: &Buffers) -> Option<Link> {
        loop {
            let (mut wire, _) = self.idle.borrow_mut().pop_back()?;
            if !wire.is_old(now) && wire.is_fresh(buffers) {
                return Some(Link::Wire(wire));
            }
            wire.close(buffers);
        }
    }

    /// Keeps a connection for the next request, of this thread or of another one that waits.
    pub(in crate::proxy) fn keep(&self, link: Link, now: Instant, buffers: &Buffers) {
        let Link::Wire(wire) = link else { return };
        if wire.is_old(now) {
            return wire.close(buffers);
        }
        let Some(wire) = self.offer(wire, buffers) else { return };
        if self.wanted_descriptors() > 0 {
            return wire.close(buffers);
        }
        let mut idle = self.idle.borrow_mut();
        idle.push_back((wire, now));
        if idle.len() > IDLE_MAX
            && let Some((oldest, _)) = idle.pop_front()
        {
            oldest.close(buffers);
        }
    }

    /// Gives a connection to whoever waits for one; it comes back if nobody does.
    fn offer(&self, wire: Box<Wire>, buffers: &Buffers) -> Option<Box<Wire>> {
        let Some(connections) = self.connections.as_ref().filter(|connections| connections.are_wanted())
        else {
            return Some(wire);
        };
        let wire = connections.hand_over(*wire).map(Box::new)?;
        if connections.are_wanted() {
            // There is something better to do with its place.
            wire.close(buffers);
            return None;
        }
        Some(wire)
    }

    /// Gives up idle connections while somebody waits for one, or for a descriptor.
    pub(in crate::proxy) fn make_room(&self, buffers: &Buffers) {
        for _ in 0..self.wanted_descriptors() {
            let Some((wire, _)) = self.idle.borrow_mut().pop_front() else {
                self.shared.sweep(Duration::ZERO, Duration::MAX);
                break;
            };
            wire.close(buffers);
        }
        let Some(connections) = &self.connections else { return };
        while connections.are_wanted() {
            let Some((mut wire, since)) = self.idle.borrow_mut().pop_front() else { break };
            if !wire.is_fresh(buffers) {
                wire.close(buffers);
            } else if let Some(wire) = self.offer(wire, buffers) {
                return self.idle.borrow_mut().push_front((wire, since));
            }
        }
        if connections.are_wanted() {
            self.shared.let_go();
        }
    }

    /// Closes all that wait for a request.
    pub(in crate::proxy) fn close_idle(&self, buffers: &Buffers) {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        idle.into_iter().for_each(|(wire, _)| wire.close(buffers));
    }

    /// Closes what has waited for longer than `limit`, what is old, and what AEM has closed.
    pub(in crate::proxy) fn sweep(&self, limit: Duration, buffers: &Buffers) {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        for _ in 0..idle.len() {
            let Some((mut wire, since)) = idle.pop_front() else { break };
            if now - since < limit && !wire.is_old(now) && wire.is_fresh(buffers) {
                idle.push_back((wire, since));
            } else {
                wire.close(buffers);
            }
        }
    }
}

/// As many as a busy app may have in use at once: fewer, and every burst would end in handshakes. They end by themselves
/// when idle.
const IDLE_MAX: usize = 4096;
