//! What a connection has for its life.

use std::time::Duration;

use tokio::time::Instant;

use super::connections::Slot;
use crate::{metrics::UpstreamMetrics, network::descriptors::Permit};

/// Goes with a connection from its beginning to its end.
pub(in crate::proxy) struct Lease {
    /// From then on no request is sent on it.
    old_at: Instant,
    slot: Option<Slot>,
    _permit: Permit,
    _open: Open,
}

/// A connection that is counted.
struct Open(UpstreamMetrics);

impl Lease {
    /// For a connection that has just been made. Those made together do not end together: up to a tenth of `age` is taken
    /// off by chance.
    pub(super) fn new(age: Duration, slot: Option<Slot>, permit: Permit, metrics: UpstreamMetrics) -> Self {
        let old_at = Instant::now() + age.mul_f64(1.0 - fastrand::f64() / 10.0);
        metrics.opened(1);
        Self { old_at, slot, _permit: permit, _open: Open(metrics) }
    }

    pub(in crate::proxy) fn is_over(&self, now: Instant) -> bool {
        now >= self.old_at
    }

    /// Its place, for the connection that comes after.
    pub(super) fn into_slot(mut self) -> Option<Slot> {
        self.slot.take()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.opened(-1);
    }
}
