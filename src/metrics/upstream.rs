//! What is counted of one upstream.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::network::Cause;

/// The handles of one upstream. Cheap to clone.
#[derive(Clone)]
pub struct UpstreamMetrics(Arc<Handles>);

struct Handles {
    queued: IntGauge,
    connections: IntGauge,
    connected: IntCounter,
    /// By the cause.
    failed: [IntCounter; Cause::ALL.len()],
    turned_away: [IntCounter; Turned::ALL.len()],
}

/// Why a request did not get its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// Too many wait.
    Full,
    /// It has waited for too long.
    Overdue,
    /// There is no file descriptor for a connection.
    Descriptors,
}

impl Turned {
    const ALL: [Self; 3] = [Self::Full, Self::Overdue, Self::Descriptors];

    fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Overdue => "timeout",
            Self::Descriptors => "descriptors",
        }
    }
}

impl UpstreamMetrics {
    pub(super) fn new(
        name: &str,
        queued: &IntGaugeVec,
        connections: &IntGaugeVec,
        connects: &IntCounterVec,
        turned_away: &IntCounterVec,
    ) -> Self {
        Self(Arc::new(Handles {
            queued: queued.with_label_values(&[name]),
            connections: connections.with_label_values(&[name]),
            connected: connects.with_label_values(&[name, "ok"]),
            failed: Cause::ALL.map(|cause| connects.with_label_values(&[name, cause.label()])),
            turned_away: Turned::ALL.map(|why| turned_away.with_label_values(&[name, why.label()])),
        }))
    }

    /// So many more wait for their turn, or fewer.
    pub fn waits(&self, more: i64) {
        self.0.queued.add(more);
    }

    /// A request does not get its turn.
    pub fn turned_away(&self, why: Turned) {
        self.0.turned_away[why as usize].inc();
    }

    /// There are so many more connections, or fewer.
    pub fn opened(&self, more: i64) {
        self.0.connections.add(more);
    }

    /// An attempt at a connection has ended.
    pub fn connected(&self, result: Result<(), Cause>) {
        match result {
            Ok(()) => self.0.connected.inc(),
            Err(cause) => self.0.failed[cause as usize].inc(),
        }
    }
}
