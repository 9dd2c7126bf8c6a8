//! Wall-clock time, the one place that asks for it.
//!
//! Tokens and certificates end at a wall-clock time. Monotonic timers stand still while a laptop
//! sleeps, so expiry is never a timer: it is a comparison with [`Clock::now`] at each use.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A source of wall-clock time that tests can move.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Manual>>);

/// A clock that follows tokio's time (which tests pause) from a fixed start, plus what was skipped.
struct Manual {
    start: SystemTime,
    started: tokio::time::Instant,
    skipped_ms: AtomicI64,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that starts at `start` and moves with tokio's time; for tests with paused time.
    pub fn paused_at(start: SystemTime) -> Self {
        Self(Some(Arc::new(Manual {
            start,
            started: tokio::time::Instant::now(),
            skipped_ms: AtomicI64::new(0),
        })))
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn now(&self) -> SystemTime {
        match &self.0 {
            None => SystemTime::now(),
            Some(manual) => {
                let skipped = manual.skipped_ms.load(Ordering::Relaxed);
                let moved = manual.start + manual.started.elapsed();
                let by = Duration::from_millis(skipped.unsigned_abs());
                if skipped < 0 { moved - by } else { moved + by }
            }
        }
    }

    /// Moves the wall clock without moving timers, as a suspended laptop does. Only a clock of [`Clock::paused_at`] can
    /// be moved.
    pub fn skip(&self, by: Duration) {
        self.shift(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    /// Sets the wall clock back, as NTP does with one that was fast.
    pub fn set_back(&self, by: Duration) {
        self.shift(-i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    fn shift(&self, by_ms: i64) {
        if let Some(manual) = &self.0 {
            manual.skipped_ms.fetch_add(by_ms, Ordering::Relaxed);
        }
    }

    /// Whole seconds since 1970, the unit of JWT times (RFC 7519 `NumericDate`).
    pub fn unix_seconds(&self) -> u64 {
        unix_seconds(self.now())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Clock(paused)" } else { "Clock(system)" })
    }
}

/// Whole seconds between 1970 and `time`; 0 for times before.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `time` as RFC 3339 in UTC with whole seconds, as the log and `/status` show it; the nearest that it can tell.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = unix_seconds(time).min(RFC3339_MAX_SECONDS);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// The end of the year 9999.
const RFC3339_MAX_SECONDS: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_follows_timers_and_can_skip_ahead_of_them() {
        let clock = Clock::paused_at(UNIX_EPOCH);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(clock.unix_seconds(), 5);
        clock.skip(Duration::from_secs(3600));
        assert_eq!(clock.unix_seconds(), 3605);
    }

    #[test]
    fn times_are_shown_as_rfc_3339() {
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(86_399)), "1970-01-01T23:59:59Z");
        // Documents and tokens say what they like.
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(u64::MAX / 4)), "9999-12-31T23:59:59Z");
    }
}
