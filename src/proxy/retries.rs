//! A budget for second attempts at an AEM that is busy: a share of all requests, so that a fleet of proxies does not turn a
//! hiccup into an outage.

use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};

/// What may be tried again. Shared by all threads.
pub struct Retries {
    /// In thousandths of an attempt.
    balance: AtomicI64,
    share: i64,
    /// The longest wait that is worth it.
    pub(super) max_wait: Duration,
}

impl Retries {
    /// `share` is between 0 and 1, and `None` is had for 0: second attempts are off then.
    pub fn new(share: f64, max_wait: Duration) -> Option<Self> {
        let share = (share * WHOLE as f64) as i64;
        (share > 0).then(|| Self { balance: AtomicI64::new(MOST), share, max_wait })
    }

    /// A request has come.
    pub(super) fn deposit(&self) {
        if self.balance.load(Relaxed) < MOST {
            self.balance.fetch_add(self.share, Relaxed);
        }
    }

    /// Whether there is enough for one more attempt; it is taken.
    pub(super) fn withdraw(&self) -> bool {
        if self.balance.fetch_sub(WHOLE, Relaxed) >= WHOLE {
            return true;
        }
        self.balance.fetch_add(WHOLE, Relaxed);
        false
    }
}

/// One attempt.
const WHOLE: i64 = 1000;

/// So many attempts are there at the start, and no more are saved.
const MOST: i64 = 10 * WHOLE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_a_share_of_requests_beyond_the_first_ten() {
        let retries = Retries::new(0.25, Duration::ZERO).unwrap();
        assert_eq!((0..100).filter(|_| retries.withdraw()).count(), 10);
        for _ in 0..40 {
            retries.deposit();
        }
        assert_eq!((0..100).filter(|_| retries.withdraw()).count(), 10);
        for _ in 0..1000 {
            retries.deposit();
        }
        assert_eq!((0..100).filter(|_| retries.withdraw()).count(), 10);
    }

    #[test]
    fn a_share_of_nothing_is_no_budget() {
        assert!(Retries::new(0.0, Duration::ZERO).is_none());
    }
}
