//! How many file descriptors the process may have, and how they are shared.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::network::{descriptors::Limits, resolver};

/// What the process needs besides connections of clients and connections to AEM.
pub(super) struct Needs {
    /// Threads that serve connections, at most.
    pub(super) workers: usize,
    /// Groups of files that are watched.
    pub(super) watched: usize,
    /// Credentials that are exchanged at IMS.
    pub(super) exchanged: usize,
    /// Listeners of proxies.
    pub(super) listeners: usize,
    /// Listeners of the admin listener.
    pub(super) admin_listeners: usize,
}

/// How the descriptors of the process are shared.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Threads that serve connections.
    pub(super) workers: usize,
    /// Connections of clients that each thread serves.
    pub(super) clients_each: usize,
    /// Connections of clients on each thread that are told that there is no place.
    pub(super) refusals_each: usize,
    /// Connections of each address of the admin listener.
    pub(super) admin_each: usize,
    pub(super) limits: Limits,
}

/// Shares the descriptors that there are, for `wanted` connections of clients at most. Most systems start a process with few,
/// and let it have more.
///
/// Called when all listeners are bound: what is open now stays open, whoever opened it.
pub(super) fn plan(wanted: usize, needs: &Needs) -> Plan {
    let open = open();
    let needed = needed(open, wanted, needs);
    let allowed = raise(needed as u64).map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let plan = share(allowed, open, wanted, needs);
    let most = plan.clients_each * plan.workers;
    if most < wanted {
        warn!(
            descriptors = allowed,
            needed,
            "Too few file descriptors for limits.connections: at most {most} connections of clients at once"
        );
    }
    plan
}

/// How many are open; an estimate where the system does not tell.
fn open() -> usize {
    let listed = ["/proc/self/fd", "/dev/fd"].into_iter().find_map(|path| std::fs::read_dir(path).ok());
    // The list itself takes one.
    listed.map_or(OPEN_ESTIMATED, |entries| entries.count().saturating_sub(1))
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

/// As many as there are uses for.
fn needed(open: usize, wanted: usize, needs: &Needs) -> usize {
    let fixed = fixed(open, needs.workers, needs);
    let admin = ADMIN_EACH_MAX * needs.admin_listeners;
    fixed + admin + SURPLUS_MAX + ATTEMPTS_MAX + STREAMS_MAX + wanted.saturating_mul(2)
}

/// What the process itself takes with so many `workers`.
fn fixed(open: usize, workers: usize, needs: &Needs) -> usize {
    open + OWN
        + workers * EACH_WORKER
        + needs.watched * EACH_WATCHED
        + needs.exchanged * EACH_EXCHANGED
        // A listener has a permit before there is a connection.
        + needs.listeners
}

fn share(allowed: usize, open: usize, wanted: usize, needs: &Needs) -> Plan {
    let workers = needs.workers.min(allowed / ALLOWED_EACH_WORKER).max(1);
    let spare = allowed.saturating_sub(fixed(open, workers, needs));
    let admin_listeners = needs.admin_listeners.max(1);
    let admin_each = (spare / 16 / admin_listeners).clamp(ADMIN_EACH_MIN, ADMIN_EACH_MAX);
    let rest = spare.saturating_sub(admin_each * needs.admin_listeners);
    let surplus = (rest / 16).clamp(1, SURPLUS_MAX);
    let attempts = (rest / 16).min(ATTEMPTS_MAX);
    let rest = rest.saturating_sub(surplus + attempts);
    let streams = (rest / 4).min(STREAMS_MAX);
    // One for the client, and one for its request at AEM.
    let fitting = (rest - streams) / 2;
    let clients_each = wanted.div_ceil(workers).min(fitting / workers).max(1);
    let clients = clients_each * workers;
    Plan {
        workers,
        clients_each,
        refusals_each: (surplus / 2 / workers).clamp(1, REFUSALS_EACH_MAX),
        admin_each,
        limits: Limits { clients, surplus: surplus + needs.listeners, streams, attempts },
    }
}

/// Look-ups open a file and two sockets each; reading files, two on each thread for that; and some for what is not foreseen.
const OWN: usize = resolver::THREADS * 3 + super::FILE_THREADS * 2 + 4;

/// A thread's runtime: two event queues, a wake-up and the end of the signals' pipe.
const EACH_WORKER: usize = 4;

/// The system's events: one for the changes, a queue and a wake-up.
const EACH_WATCHED: usize = 3;

/// A connection to IMS, and another one where it has addresses of two families.
const EACH_EXCHANGED: usize = 2;

/// Of few descriptors, threads do not take the most.
const ALLOWED_EACH_WORKER: usize = 64;

/// Probers and people, of each address.
const ADMIN_EACH_MAX: usize = 64;
const ADMIN_EACH_MIN: usize = 4;

/// Clients that are told that there is no place take up half of it at most.
const SURPLUS_MAX: usize = 64;
const REFUSALS_EACH_MAX: usize = 32;

/// As many attempts at once try two addresses; the others try one after the other.
const ATTEMPTS_MAX: usize = 32;

/// Eight connections of clients that have as many requests in flight as HTTP/2 lets them.
const STREAMS_MAX: usize = 1024;

/// Standard streams, the runtime's events and a listener or two.
const OPEN_ESTIMATED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs { workers: 2, watched: 1, exchanged: 1, listeners: 2, admin_listeners: 2 };

    /// What a process with this plan has open at most.
    fn total(plan: &Plan, open: usize, needs: &Needs) -> usize {
        let Limits { clients, surplus, attempts, .. } = plan.limits;
        let served = clients + surplus - needs.listeners + plan.limits.upstream() + attempts;
        fixed(open, plan.workers, needs) + plan.admin_each * needs.admin_listeners + served
    }

    #[test]
    fn what_is_shared_is_no_more_than_there_is() {
        for workers in [1, 2, 8] {
            let needs = Needs { workers, ..NEEDS };
            for allowed in (64..4096).chain([20_000, 65_536, 1 << 20]) {
                for wanted in [1, 100, 10_000] {
                    let plan = share(allowed, 15, wanted, &needs);
                    let most = total(&plan, 15, &needs);
                    assert!(most <= allowed, "{most} of {allowed}: {plan:?}");
                    assert!(plan.clients_each * plan.workers < wanted + plan.workers, "{plan:?}");
                    assert!(plan.refusals_each * plan.workers <= plan.limits.surplus, "{plan:?}");
                }
            }
        }
    }

    #[test]
    fn few_descriptors_are_enough_for_some_clients() {
        for (allowed, at_least) in
            [(64, 1), (128, 10), (256, 50), (1024, 280), (20_000, 9_000), (22_000, 10_000)]
        {
            let plan = share(allowed, 15, 10_000, &NEEDS);
            let clients = plan.clients_each * plan.workers;
            assert!(clients >= at_least, "{allowed}: {plan:?}");
        }
    }

    #[test]
    fn with_all_that_is_needed_there_is_room_for_all_that_is_wanted() {
        for wanted in [1, 2, 1000, 10_000] {
            let plan = share(needed(15, wanted, &NEEDS), 15, wanted, &NEEDS);
            assert!(plan.clients_each * plan.workers >= wanted, "{plan:?}");
        }
        let plan = share(usize::MAX, 15, 10_000, &NEEDS);
        assert_eq!(plan.limits.clients, 10_000);
        assert_eq!((plan.admin_each, plan.limits.streams), (ADMIN_EACH_MAX, STREAMS_MAX));
    }

    #[test]
    fn what_can_be_had_is_asked_for() {
        let before = getrlimit(Resource::Nofile);
        let current = before.current.map(|current| current.min(512));
        setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
        assert_eq!(plan(200, &NEEDS).limits.clients, 200);
        let raised = getrlimit(Resource::Nofile);
        assert!(raised.current.is_none_or(|current| current >= 1500) && raised.maximum == before.maximum);
        setrlimit(Resource::Nofile, before).unwrap();
    }
}
