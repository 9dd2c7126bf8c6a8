//! What the proxy's process uses, sampled by a thread of its own.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// Peaks since the last reset, and the latest sample.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Resident memory now, in KiB.
    pub rss: u64,
    /// The largest sample.
    pub peak_rss: u64,
    /// `VmHWM`: the kernel's own peak since the start.
    pub high_water: u64,
    /// The most open descriptors.
    pub descriptors: u64,
    /// The most threads.
    pub threads: u64,
    /// CPU time used so far, in hundredths of a second.
    pub cpu_ticks: u64,
    /// The process is gone.
    pub is_gone: bool,
}

/// A thread that samples a process until it is dropped.
pub struct Sampler {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    usage: Usage,
    stop: bool,
}

impl Sampler {
    /// Samples this process.
    pub fn start(pid: u32) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for round in 0_u64.. {
                let sample = sample(pid, round.is_multiple_of(DESCRIPTORS_EVERY));
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if state.stop {
                    return;
                }
                match sample {
                    None => state.usage.is_gone = true,
                    Some(sample) => state.usage.add(sample),
                }
                drop(state);
                std::thread::sleep(EVERY);
            }
        });
        Self { state, thread: Some(thread) }
    }

    /// What was seen so far.
    pub fn usage(&self) -> Usage {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).usage
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        if let Some(thread) = self.thread.take() {
            // It has nothing to report.
            let _ = thread.join();
        }
    }
}

impl Usage {
    fn add(&mut self, sample: Self) {
        self.rss = sample.rss;
        self.peak_rss = self.peak_rss.max(sample.rss);
        self.high_water = self.high_water.max(sample.high_water);
        self.descriptors = self.descriptors.max(sample.descriptors);
        self.threads = self.threads.max(sample.threads);
        self.cpu_ticks = sample.cpu_ticks;
    }
}

fn sample(pid: u32, with_descriptors: bool) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok())
    };
    // A zombie has no memory.
    let rss = number("VmRSS:")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    let descriptors = if with_descriptors {
        fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
    } else {
        0
    };
    Some(Usage {
        rss,
        high_water: number("VmHWM:").unwrap_or(rss),
        descriptors,
        threads: number("Threads:").unwrap_or(0),
        cpu_ticks: ticks(11) + ticks(12),
        ..Usage::default()
    })
}

const EVERY: Duration = Duration::from_millis(20);

/// Counting descriptors takes a while where there are thousands.
const DESCRIPTORS_EVERY: u64 = 10;
