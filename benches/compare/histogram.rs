//! Latencies by logarithmic buckets of linear parts.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counts of durations, in nanoseconds. A bucket is at most 1/128 of its value wide, so that what is read from it is
/// wrong by less than 1 %.
///
/// The counts are atomic because tasks share them, and are changed without a locked instruction because these tasks
/// share one thread.
pub struct Histogram {
    counts: Vec<AtomicU64>,
    longest: AtomicU64,
}

impl Histogram {
    /// Without any counts.
    pub fn new() -> Self {
        let counts = (0..(PARTS_BITS + OCTAVES) << PARTS_BITS).map(|_| AtomicU64::new(0)).collect();
        Self { counts, longest: AtomicU64::new(0) }
    }

    /// Counts one. Only one thread may do so.
    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get(bucket(nanos)) {
            count.store(count.load(Relaxed) + 1, Relaxed);
        }
        if nanos > self.longest.load(Relaxed) {
            self.longest.store(nanos, Relaxed);
        }
    }

    /// The duration below which `share` of all are, in microseconds; 0 without counts.
    pub fn quantile_us(&self, share: f64) -> f64 {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let wanted = share * total as f64;
        let mut seen = 0;
        for (index, count) in counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return middle(index) / 1000.0;
            }
        }
        0.0
    }

    /// The longest duration, in microseconds.
    pub fn longest_us(&self) -> f64 {
        self.longest.load(Relaxed) as f64 / 1000.0
    }
}

/// Values below 128 have a bucket each; above, each octave has 128.
fn bucket(nanos: u64) -> usize {
    let octave = (u64::BITS - nanos.leading_zeros()).saturating_sub(PARTS_BITS + 1);
    ((octave as usize) << PARTS_BITS) + (nanos >> octave) as usize
}

/// The middle of a bucket, in nanoseconds.
fn middle(index: usize) -> f64 {
    let octave = (index >> PARTS_BITS).saturating_sub(1);
    let low = (index - (octave << PARTS_BITS)) as f64;
    (low + 0.5) * (1_u64 << octave) as f64
}

/// 128 parts to an octave.
const PARTS_BITS: u32 = 7;

/// Up to 2^40 ns, which is a quarter of an hour.
const OCTAVES: u32 = 34;
