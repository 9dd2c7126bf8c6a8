//! Collapses repeated warnings: the first one is logged at once, further ones are counted, and the count is logged later.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::Instant;
use tracing::callsite::Identifier;

use super::line::{cut, with_field, without_timestamp};

/// The warnings of the last [`WINDOW`]. Its memory is bounded: by [`TOTAL_MAX`], the number of call sites in the program, and
/// [`LINE_MAX`].
#[derive(Default)]
pub(super) struct Repeats {
    hasher: RandomState,
    entries: HashMap<Key, Entry>,
    /// When the next window ends.
    due: Option<Instant>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    call_site: Identifier,
    /// The hash of the text and all fields; none for the lines of a call site that has logged too many different ones.
    text: Option<u64>,
}

struct Entry {
    until: Instant,
    count: u64,
    /// The last one of those that are counted.
    line: Vec<u8>,
}

impl Repeats {
    /// Whether to log this line now; otherwise it is counted.
    pub(super) fn admit(&mut self, call_site: &Identifier, line: &[u8], now: Instant) -> bool {
        let text = Some(self.hasher.hash_one(without_timestamp(line)));
        let mut key = Key { call_site: call_site.clone(), text };
        if !self.entries.contains_key(&key) {
            let own = self.entries.keys().filter(|key| key.call_site == *call_site).count();
            if own >= CALL_SITE_MAX || self.entries.len() >= TOTAL_MAX {
                key.text = None;
            }
        }
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.count += 1;
            entry.line.clear();
            entry.line.extend_from_slice(&cut(line, LINE_MAX));
            return false;
        }
        let until = now + WINDOW;
        self.entries.insert(key, Entry { until, count: 0, line: Vec::new() });
        self.due.get_or_insert(until);
        true
    }

    /// The lines with the counts of the windows that have ended: `repeated` of equal ones, `similar` of those of one call site.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.due.is_none_or(|due| now < due) { Vec::new() } else { self.take(now, |until| until <= now) }
    }

    /// All counts so far.
    pub(super) fn take_all(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.take(now, |_| true)
    }

    /// When to call [`Repeats::expire`].
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    fn take(&mut self, now: Instant, has_ended: impl Fn(Instant) -> bool) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        self.entries.retain(|key, entry| {
            if !has_ended(entry.until) {
                return true;
            }
            if entry.count == 0 {
                return false;
            }
            let name = if key.text.is_some() { "repeated" } else { "similar" };
            lines.push(with_field(&std::mem::take(&mut entry.line), name, entry.count));
            (entry.until, entry.count) = (now + WINDOW, 0);
            true
        });
        self.due = self.entries.values().map(|entry| entry.until).min();
        // Each begins with its time.
        lines.sort_unstable();
        lines
    }
}

/// A warning that goes on is logged once in this time.
const WINDOW: Duration = Duration::from_secs(10);

/// Different lines of one call site within a window. It is above the number of credentials, of which each has its own.
const CALL_SITE_MAX: usize = 64;

/// Different lines within a window.
const TOTAL_MAX: usize = 256;

/// What is kept of a line that is repeated.
const LINE_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use tracing::{callsite::Callsite, subscriber::Interest};

    use super::*;

    struct Site;

    impl Callsite for Site {
        fn set_interest(&self, _: Interest) {}

        fn metadata(&self) -> &tracing::Metadata<'_> {
            panic!("it is only an address")
        }
    }

    static SITES: [(Site, u8); 2] = [(Site, 0), (Site, 1)];

    fn site(number: usize) -> Identifier {
        Identifier(&SITES[number].0)
    }

    fn line(text: &str, seconds: u32) -> Vec<u8> {
        format!("2026-12-01T10:00:{seconds:02}.000000Z  WARN {text}\n").into_bytes()
    }

    #[test]
    fn equal_warnings_are_one_line_and_a_count() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let logged = (0..60).filter(|n| repeats.admit(&site(0), &line("AEM is away", *n), now)).count();
        assert_eq!(logged, 1);
        assert!(repeats.expire(now + WINDOW / 2).is_empty());
        assert_eq!(repeats.due(), Some(now + WINDOW));
        assert_eq!(repeats.expire(now + WINDOW), [line("AEM is away repeated=59", 59)]);
        // It goes on: once in a window.
        assert!(!repeats.admit(&site(0), &line("AEM is away", 1), now + WINDOW));
        assert_eq!(repeats.expire(now + 2 * WINDOW), [line("AEM is away repeated=1", 1)]);
        assert!(repeats.expire(now + 3 * WINDOW).is_empty());
        // It was quiet: at once.
        assert!(repeats.admit(&site(0), &line("AEM is away", 1), now + 3 * WINDOW));
    }

    #[test]
    fn a_warning_with_another_text_or_from_another_place_is_logged_at_once() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        assert!(repeats.admit(&site(0), &line("error=refused", 0), now));
        assert!(repeats.admit(&site(0), &line("error=reset", 0), now));
        assert!(repeats.admit(&site(1), &line("error=refused", 0), now));
        assert!(!repeats.admit(&site(0), &line("error=reset", 1), now));
        assert_eq!(repeats.take_all(now), [line("error=reset repeated=1", 1)]);
        assert!(repeats.take_all(now).is_empty());
    }

    #[test]
    fn warnings_that_are_always_different_are_bounded_and_counted() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let admit = |repeats: &mut Repeats, site_number, from| {
            let texts = (from..from + 1000).map(|n| line(&format!("port={n} {}", "x".repeat(10_000)), 0));
            texts.filter(|line| repeats.admit(&site(site_number), line, now)).count()
        };
        assert_eq!(admit(&mut repeats, 0, 0), CALL_SITE_MAX + 1);
        assert_eq!(admit(&mut repeats, 0, 5000), 0);
        assert!(repeats.admit(&site(1), &line("another place", 0), now));
        let kept: usize = repeats.entries.values().map(|entry| entry.line.capacity()).sum();
        assert!(kept <= 2 * LINE_MAX, "{kept}");
        let lines = repeats.expire(now + WINDOW);
        let last = String::from_utf8_lossy(&lines[0]).into_owned();
        assert!(
            lines.len() == 1 && last.contains("port=5999") && last.ends_with(" similar=1935\n"),
            "{last}"
        );
    }
}
