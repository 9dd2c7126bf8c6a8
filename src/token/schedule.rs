//! When to ask, and how long a token may be sent: pure functions. `roll` is a random number in 0..1.

use std::time::{Duration, SystemTime};

use crate::ims::{Grant, Retry};

/// At `share` of the lifetime, less up to 10 % of that, so that a fleet started together does not ask together.
/// A share, not a fixed margin: a 3 s token works as a 24 h one does.
/// What cannot be renewed is left alone until its end.
pub(super) fn refresh_due(grant: &Grant, share: f64, roll: f64) -> SystemTime {
    if !grant.renewable {
        return grant.expires_at;
    }
    grant.issued_at + grant.lifetime().mul_f64(share * (1.0 - 0.1 * roll)).max(REFRESH_MIN)
}

/// A token on its way when it ends arrives dead: it is held back for its last second, or for a tenth of a short life.
pub(super) fn usable_until(grant: &Grant) -> SystemTime {
    grant.expires_at - grant.lifetime().mul_f64(0.1).min(Duration::from_secs(1))
}

/// How long to wait after the `failures`th failure in a row; of refusals, the number of refusals in a row.
pub(super) fn wait_after(retry: Retry, failures: u32, roll: f64) -> Duration {
    match retry {
        // What IMS says is the least; a little on top keeps a fleet from coming back as one. A zero is no leave to
        // ask without end: then the back-off holds.
        Retry::After(after) => not_before(after, roll).max(backoff(failures, roll)),
        Retry::Soon => backoff(failures, roll),
        Retry::Slowly => after_refusal(failures).mul_f64(1.0 - 0.2 * roll),
        Retry::Never => REMINDER,
    }
}

/// How long no attempt starts after `Retry-After`.
pub(super) fn not_before(after: Duration, roll: f64) -> Duration {
    after + after.mul_f64(0.1 * roll)
}

/// A new secret or certificate needs some minutes before all of IMS knows it. Then a person has to do something.
fn after_refusal(refusals: u32) -> Duration {
    let doublings = refusals.saturating_sub(1).min(16);
    let wait = AFTER_REFUSAL * 2_u32.pow(doublings);
    if wait > AFTER_REFUSAL_MAX { PERMANENT } else { wait }
}

/// Exponential with full jitter: anything between the floor and a ceiling that doubles up to a minute.
fn backoff(failures: u32, roll: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let ceiling = (FIRST * 2_u32.pow(doublings)).min(CEILING);
    FLOOR + (ceiling - FLOOR).mul_f64(roll)
}

/// The longest sleep at a time: a laptop that wakes up has a new token within a minute.
pub(super) const NAP_MAX: Duration = Duration::from_secs(60);
/// However short a token lives, IMS is not asked more often.
const REFRESH_MIN: Duration = Duration::from_millis(500);
const FLOOR: Duration = Duration::from_millis(100);
const FIRST: Duration = Duration::from_secs(1);
const CEILING: Duration = Duration::from_secs(60);
/// After the first refusal; it doubles with each one.
const AFTER_REFUSAL: Duration = Duration::from_secs(15);
/// The last wait of these.
const AFTER_REFUSAL_MAX: Duration = Duration::from_secs(120);
/// A person has to do something first; and each attempt counts against the client at IMS.
const PERMANENT: Duration = Duration::from_secs(300);
/// Another document comes by another way; the attempt that cannot succeed only says so in the log once more.
const REMINDER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::secret::Authorization;

    #[test]
    fn what_cannot_be_renewed_is_not_asked_for_before_its_end() {
        let mut grant = Grant {
            authorization: Authorization::bearer("local").unwrap(),
            issued_at: UNIX_EPOCH,
            expires_at: UNIX_EPOCH + Duration::from_secs(86_400),
            client_id: String::new(),
            org: None,
            user_id: None,
            scopes: Vec::new(),
            renewable: false,
            clock_skew_seconds: None,
        };
        assert_eq!(refresh_due(&grant, 0.75, 1.0), grant.expires_at);
        grant.renewable = true;
        assert!(refresh_due(&grant, 0.75, 0.0) < grant.expires_at);
    }

    #[test]
    fn an_attempt_that_cannot_succeed_is_a_reminder_each_hour() {
        assert_eq!(wait_after(Retry::Never, 1, 0.5), Duration::from_secs(3600));
        assert_eq!(wait_after(Retry::Never, 50, 1.0), Duration::from_secs(3600));
    }

    #[test]
    fn backoff_doubles_up_to_a_minute_and_never_is_zero() {
        for (failures, roll, expected_ms) in [
            (1, 0.0, 100),
            (1, 1.0, 1000),
            (2, 1.0, 2000),
            (5, 1.0, 16_000),
            (7, 1.0, 60_000),
            (99, 1.0, 60_000),
            (99, 0.0, 100),
        ] {
            assert_eq!(wait_after(Retry::Soon, failures, roll), Duration::from_millis(expected_ms));
        }
    }

    #[test]
    fn what_ims_says_wins_over_backoff() {
        let wait = wait_after(Retry::After(Duration::from_secs(90)), 1, 0.0);
        assert!(wait >= Duration::from_secs(90) && wait < Duration::from_secs(92));
        assert!(wait_after(Retry::After(Duration::from_secs(90)), 1, 1.0) <= Duration::from_secs(100));
    }

    #[test]
    fn a_retry_after_of_nothing_is_no_leave_to_ask_without_end() {
        assert_eq!(wait_after(Retry::After(Duration::ZERO), 7, 1.0), Duration::from_secs(60));
    }

    /// The window in seconds of the operators' alert on failed exchanges, and what has to be exceeded in it.
    fn alert() -> (u64, u64) {
        let operations = include_str!("../../docs/operations.md");
        let begin = "increase(aem_proxy_token_refreshes_total{outcome!=\"success\"}[";
        let (_, alert) = operations.split_once(begin).expect("the alert is documented");
        let (minutes, least) = alert.lines().next().and_then(|line| line.split_once("m])) > ")).unwrap();
        (minutes.parse::<u64>().unwrap() * 60, least.parse().unwrap())
    }

    /// As Prometheus counts, without what it extrapolates, and with a scrape missing at each end of the window.
    #[test]
    fn the_documented_alert_fires_for_a_refused_credential_and_goes_on() {
        const SCRAPE: u64 = 60;
        let (window, least) = alert();
        for roll in [0.0, 0.5, 1.0] {
            let mut failures = vec![0];
            while failures.last().is_none_or(|last| *last < 6 * 3600) {
                let number = u32::try_from(failures.len()).unwrap();
                let wait = wait_after(Retry::Slowly, number, roll).as_secs();
                failures.push(failures.last().copied().unwrap_or_default() + wait);
            }
            for now in 15 * 60_u64..5 * 3600 {
                let seen = now.saturating_sub(window - 2 * SCRAPE)..=now;
                let counted = failures.iter().filter(|at| seen.contains(at)).count() as u64;
                assert!(counted > least, "{counted} failures at {now} s, roll {roll}");
            }
        }
        // A network that is away for a moment is no alarm.
        assert!(least >= 2);
    }

    #[test]
    fn refused_credentials_are_tried_again_four_times_before_every_four_to_five_minutes() {
        for (refusals, seconds) in [(1, 15), (2, 30), (3, 60), (4, 120), (5, 300), (6, 300), (u32::MAX, 300)]
        {
            let longest = Duration::from_secs(seconds);
            assert_eq!(wait_after(Retry::Slowly, refusals, 0.0), longest);
            assert_eq!(wait_after(Retry::Slowly, refusals, 1.0), longest.mul_f64(0.8));
        }
    }
}
