//! The process's memory budget: how much of the heap is in use, and how much may be.
//!
//! The allocator counts (`main.rs` installs the meter), so that nothing is forgotten: heads, bodies, decoder windows, TLS
//! sessions, and whatever the h2 crate, hyper or reqwest hold. The rooms ask before they let something grow:
//!
//! - above 50 % of the budget, connections that stand still and hold memory are closed;
//! - above 65 %, no more of a body is read, and above 70 % no head of a response;
//! - above 75 %, nothing at all is read, and new requests are refused. What a single read leads to may still come on top.
//!
//! The rest is for what the allocator needs in addition: parts of pages that nothing else fits in, and what was freed and has
//! not gone back to the system yet. Where both together reach 85 %, which is looked at while memory is short, bodies wait, too.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::{Notify, futures::OwnedNotified};

/// Tells how many bytes of the heap are in use.
pub type Meter = fn() -> usize;

static METER: OnceLock<Meter> = OnceLock::new();

/// Names the meter of the process; the first one stays. Without one, nothing counts as used. To be called before the first
/// thread starts.
pub fn install(meter: Meter) {
    let _ = METER.set(meter);
    #[cfg(target_os = "linux")]
    {
        // Of huge pages of 2 MiB a process of 10 MiB would touch a few bytes each. Where the kernel refuses, the process is larger
        // and works.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
    }
}

/// Bytes of anonymous memory that are resident; none where the system does not tell (`/proc/self/statm` is Linux's).
fn resident() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split(' ').skip(1).map_while(|pages| pages.parse::<usize>().ok());
    let (all, shared) = (pages.next()?, pages.next()?);
    Some(all.saturating_sub(shared) * rustix::param::page_size())
}

/// What is read, each kind with its own reserve in the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Heads of requests: they may use all of it, else the proxy could not even refuse them.
    Requests,
    /// The beginnings of responses, the whole of short ones.
    Responses,
    /// Bodies, and all but the beginning of a response.
    Bodies,
}

impl Share {
    /// Each of them, the one with the largest reserve first.
    pub const ALL: [Self; 3] = [Self::Requests, Self::Responses, Self::Bodies];

    /// Up to which part of the budget it is read, in twentieths.
    fn twentieths(self) -> usize {
        match self {
            Self::Requests => 15,
            Self::Responses => 14,
            Self::Bodies => 13,
        }
    }
}

/// The budget, and what is used of it. Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    /// Bytes.
    limit: usize,
    meter: Meter,
    /// Bytes of the process's own pages that are in memory, when that was looked at last.
    resident: Arc<AtomicUsize>,
    /// Wakes the tasks that make room, of all threads.
    pressure: Arc<Notify>,
}

impl Memory {
    /// A budget of so many bytes for the heap that the installed meter watches.
    pub fn new(limit: usize) -> Self {
        Self::metered(limit, METER.get().copied().unwrap_or(|| 0))
    }

    /// A budget with a meter of its own.
    pub fn metered(limit: usize, meter: Meter) -> Self {
        Self { limit, meter, resident: Arc::default(), pressure: Arc::default() }
    }

    /// The budget in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The bytes in use.
    pub fn used(&self) -> usize {
        (self.meter)()
    }

    /// Whether connections that stand still are to be closed.
    pub fn is_high(&self) -> bool {
        self.used() >= self.limit / 20 * 10
    }

    /// How many bytes are to be freed until the pressure is over; 0 when it is.
    pub fn excess(&self) -> usize {
        self.used().saturating_sub(self.limit / 20 * 8)
    }

    /// Looks at how much of the process is in memory, its program and libraries apart.
    pub fn look(&self) {
        self.resident.store(resident().unwrap_or_default(), Relaxed);
    }

    /// Whether the process takes nearly its whole budget in memory, whatever is in use of that.
    pub fn is_bloated(&self) -> bool {
        self.resident.load(Relaxed) >= self.limit / 20 * 17
    }

    /// The bytes that so much of the budget has left for what is read; 0 where it waits.
    pub fn room(&self, share: Share) -> usize {
        (self.limit / 20 * share.twentieths()).saturating_sub(self.used())
    }

    /// Whether the budget is used up but for its reserves: bodies wait.
    pub fn is_full(&self) -> bool {
        self.room(Share::Bodies) == 0
    }

    /// Whether the reserve for new requests is used up as well: they are refused.
    pub fn is_exhausted(&self) -> bool {
        self.room(Share::Requests) == 0
    }

    /// Wakes the tasks that make room.
    pub fn press(&self) {
        self.pressure.notify_waiters();
    }

    /// Ready at the next [`Memory::press`] after this call.
    pub fn pressed(&self) -> OwnedNotified {
        Arc::clone(&self.pressure).notified_owned()
    }
}

impl Default for Memory {
    /// Without a limit.
    fn default() -> Self {
        Self::metered(usize::MAX, || 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_of_the_budget_comes_before_the_next() {
        let levels = |meter: Meter| {
            let memory = Memory::metered(1000, meter);
            (memory.is_high(), memory.is_full(), memory.is_exhausted(), memory.excess())
        };
        assert_eq!(levels(|| 400), (false, false, false, 0));
        assert_eq!(levels(|| 500), (true, false, false, 100));
        assert_eq!(levels(|| 650), (true, true, false, 250));
        assert_eq!(levels(|| 750), (true, true, true, 350));
        let unlimited = Memory::default();
        assert!(!unlimited.is_bloated());
        assert!(!unlimited.is_high() && !unlimited.is_full() && !unlimited.is_exhausted());
    }

    #[test]
    fn what_the_allocator_keeps_counts_once_it_was_looked_at() {
        let memory = Memory::metered(20, || 0);
        assert!(!memory.is_bloated());
        memory.look();
        // This process has more than 20 bytes of its own; where the system does not tell, nothing is known.
        assert_eq!(memory.is_bloated(), resident().is_some());
    }
}
