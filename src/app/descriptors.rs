//! File descriptors: a client's connection takes one, and its request at AEM may take another.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// As many connections of clients as there are descriptors for, `wanted` at most. Most systems start a process with few, and let
/// it have more.
pub(super) fn connections(wanted: usize) -> usize {
    let needed = wanted.saturating_mul(2).saturating_add(OTHERS) as u64;
    let Some(allowed) = raise(needed).filter(|allowed| *allowed < needed) else { return wanted };
    let most = fitting(allowed);
    warn!(
        descriptors = allowed,
        needed,
        "Too few file descriptors for limits.connections: at most {most} connections of clients at once"
    );
    most
}

/// Asks for so many; how many there are then, `None` for any number.
fn raise(needed: u64) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        let current = Some(maximum.map_or(needed, |maximum| maximum.min(needed)));
        // What is not given is seen below.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
    getrlimit(Resource::Nofile).current
}

fn fitting(allowed: u64) -> usize {
    usize::try_from(allowed).unwrap_or(usize::MAX).saturating_sub(OTHERS).max(2) / 2
}

/// Listeners, files, events, the admin listener's connections, and those that are just being made or closed.
const OTHERS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_takes_two_descriptors() {
        assert_eq!(fitting(1024), 384);
        assert_eq!(fitting(20_256), 10_000);
        assert_eq!(fitting(10), 1);
        assert_eq!(fitting(u64::MAX), (usize::MAX - OTHERS) / 2);
    }

    #[test]
    fn what_can_be_had_is_asked_for() {
        let before = getrlimit(Resource::Nofile);
        let current = before.current.map(|current| current.min(512));
        setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
        assert_eq!(connections(200), 200);
        let raised = getrlimit(Resource::Nofile);
        assert!(raised.current.is_none_or(|current| current >= 656) && raised.maximum == before.maximum);
        setrlimit(Resource::Nofile, before).unwrap();
    }
}
