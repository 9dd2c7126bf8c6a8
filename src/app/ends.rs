//! What ends by the calendar is told of in time: certificates, and tokens that nobody renews.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tracing::{error, warn};

use crate::{clock::rfc3339, tls};

/// Steps towards an end, each told once.
#[derive(Clone, Default)]
pub(super) struct End(Option<(SystemTime, usize)>);

impl End {
    /// The end and the time that is left, when a step was passed since the last call. `steps` are longest first.
    pub(super) fn step(
        &mut self,
        end: Option<SystemTime>,
        now: SystemTime,
        steps: &[Duration],
    ) -> Option<(SystemTime, Duration)> {
        let end = end?;
        let left = end.duration_since(now).unwrap_or_default();
        let passed = steps.iter().filter(|step| left <= **step).count();
        let told = self.0.filter(|(known, _)| *known == end).map_or(0, |(_, told)| told);
        self.0 = Some((end, passed));
        (passed > told).then_some((end, left))
    }
}

/// A certificate that the proxy shows to clients or to AEM.
#[derive(Clone)]
pub(super) struct Shown {
    /// The key of the configuration that names its file.
    key: String,
    file: PathBuf,
    validity: Option<tls::Validity>,
    end: End,
}

impl Shown {
    /// The one in this file.
    pub(super) fn of(key: String, file: PathBuf) -> Self {
        Self { key, validity: tls::validity(&file), file, end: End::default() }
    }

    /// The one that is there now.
    pub(super) fn anew(mut self) -> Self {
        self.validity = tls::validity(&self.file);
        self
    }

    /// Says so when its end comes near, once for each step.
    pub(super) fn warn_of_end(&mut self, now: SystemTime) {
        let Some(validity) = self.validity else { return };
        let Some((end, left)) = self.end.step(Some(validity.until), now, steps(validity)) else { return };
        let (key, file, at) = (&*self.key, self.file.display(), rfc3339(end));
        if left.is_zero() {
            error!(key, %file, certificate.expires_at = at, "The certificate that is shown has expired: {NEXT}");
        } else {
            let days_left = left.as_secs() / DAY;
            warn!(key, %file, certificate.expires_at = at, days_left, "The certificate that is shown ends soon: {NEXT}");
        }
    }
}

/// Whoever issues certificates for 90 days, or for one, renews them by himself when a third is left.
fn steps(validity: tls::Validity) -> &'static [Duration] {
    let third = validity.until.duration_since(validity.from).unwrap_or_default() / 3;
    let early = CERTIFICATE_STEPS.iter().take_while(|step| **step >= third).count();
    &CERTIFICATE_STEPS[early..]
}

pub(super) const DAY: u64 = 24 * 3600;

/// Weeks to plan, a day to act.
pub(super) const CERTIFICATE_STEPS: [Duration; 5] = [
    Duration::from_secs(30 * DAY),
    Duration::from_secs(14 * DAY),
    Duration::from_secs(7 * DAY),
    Duration::from_secs(DAY),
    Duration::ZERO,
];

/// A developer gets the next one by hand.
pub(super) const TOKEN_STEPS: [Duration; 3] =
    [Duration::from_secs(2 * 3600), Duration::from_secs(30 * 60), Duration::from_secs(5 * 60)];

/// How often it is looked whether an end has come near. By the wall clock: a laptop may have slept.
pub(super) const LOOK: Duration = Duration::from_secs(30);

const NEXT: &str = "put the next one in place of the file, with its key";

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const AT: Duration = Duration::from_secs(1000 * DAY);

    fn told(end: &mut End, at: SystemTime, days_left: u64) -> bool {
        let now = at - Duration::from_secs(days_left * DAY);
        end.step(Some(at), now, &CERTIFICATE_STEPS).is_some()
    }

    #[test]
    fn each_step_towards_an_end_is_told_once() {
        let at = UNIX_EPOCH + AT;
        let mut end = End::default();
        let days = [40, 31, 30, 30, 20, 14, 13, 8, 7, 6, 2, 1, 1, 0, 0];
        let told: Vec<_> = days.into_iter().filter(|days| told(&mut end, at, *days)).collect();
        assert_eq!(told, [30, 14, 7, 1, 0]);
    }

    #[test]
    fn a_start_near_the_end_tells_once_and_a_new_end_begins_anew() {
        let at = UNIX_EPOCH + AT;
        let mut end = End::default();
        assert!(told(&mut end, at, 3));
        assert!(!told(&mut end, at, 2));
        let later = at + Duration::from_secs(365 * DAY);
        assert!(!told(&mut end, later, 200));
        assert!(told(&mut end, later, 29));
        assert!(end.step(None, at, &CERTIFICATE_STEPS).is_none());
    }

    #[test]
    fn of_short_certificates_no_step_is_told_before_they_are_renewed() {
        let days = |days| {
            let until = UNIX_EPOCH + AT;
            let steps = steps(tls::Validity { from: until - Duration::from_secs(days * DAY), until });
            steps.iter().map(|step| step.as_secs() / DAY).collect::<Vec<_>>()
        };
        assert_eq!(days(365), [30, 14, 7, 1, 0]);
        assert_eq!(days(90), [14, 7, 1, 0]);
        assert_eq!(days(6), [1, 0]);
        assert_eq!(days(1), [0]);
    }
}
