//! Control groups, version 1 or 2: a memory limit as in the Kubernetes sample, or a limit of threads.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::harness::failure::{Context, Failure, Result};

/// A group of our own. It is removed when it is dropped.
pub struct Cgroup {
    directory: PathBuf,
    is_v1: bool,
}

/// What the kernel has seen in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// The most memory at once, in bytes.
    pub peak: u64,
    /// How often the limit was hit.
    pub at_limit: u64,
    /// How many processes were killed for it.
    pub killed: u64,
}

impl Cgroup {
    /// Creates a group with a limit.
    ///
    /// # Errors
    /// When there is no memory control group here that may be written.
    pub fn create(limit: u64) -> Result<Self> {
        let this = Self::new("memory", "memory.limit_in_bytes", "memory.max", limit)?;
        if this.is_v1 {
            // Without it swap would hide that the limit is passed. Kernels without swap accounting have no such file.
            let _ = this.write("memory.memsw.limit_in_bytes", &limit.to_string());
        } else {
            // The same.
            let _ = this.write("memory.swap.max", "0");
        }
        Ok(this)
    }

    /// Creates a group in which threads can be limited.
    ///
    /// # Errors
    /// When there is no such control group here that may be written.
    pub fn of_threads() -> Result<Self> {
        Self::new("pids", THREADS, THREADS, THREADS_ENOUGH)
    }

    /// Limits the threads to those that there are.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn limit_threads(&self) -> Result<()> {
        let threads = self.number("pids.current").context("pids.current")?;
        self.write(THREADS, &threads.to_string())
    }

    fn new(controller: &str, v1_file: &str, v2_file: &str, limit: u64) -> Result<Self> {
        let name = format!("aem-auth-proxy-attack-{}-{controller}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup").join(controller);
        let (parent, is_v1) = if v1.join("cgroup.procs").exists() {
            (v1, true)
        } else {
            (own_v2(controller).context(format!("no control group for {controller}"))?, false)
        };
        let directory = parent.join(name);
        fs::create_dir(&directory).context(directory.display())?;
        let this = Self { directory, is_v1 };
        let file = if is_v1 { v1_file } else { v2_file };
        this.write(file, &limit.to_string())?;
        let read = this.number(file);
        if read == Some(limit) { Ok(this) } else { Err(Failure(format!("{file} is {read:?}"))) }
    }

    /// Where a process writes its id to be in it.
    pub fn procs(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        if self.is_v1 {
            Seen {
                peak: self.number("memory.max_usage_in_bytes").unwrap_or(0),
                at_limit: self.number("memory.failcnt").unwrap_or(0),
                killed: self.keyed("memory.oom_control", "oom_kill "),
            }
        } else {
            Seen {
                peak: self.number("memory.peak").unwrap_or(0),
                at_limit: self.keyed("memory.events", "max "),
                killed: self.keyed("memory.events", "oom_kill "),
            }
        }
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.directory.join(file), text).context(file)
    }

    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.directory.join(file)).ok()?.trim().parse().ok()
    }

    fn keyed(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(self.directory.join(file)).unwrap_or_default();
        let value =
            text.lines().find_map(|line| line.strip_prefix(key)).and_then(|text| text.trim().parse().ok());
        value.unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel takes a moment after the last process has left.
        for _ in 0..50 {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// The parent of the group of this process: a group with processes can have no children with controllers.
fn own_v2(controller: &str) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let own = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    let candidates = [own.parent().map(Path::to_owned), Some(own), Some(PathBuf::from("/sys/fs/cgroup"))];
    candidates.into_iter().flatten().find(|directory| {
        let enabled = fs::read_to_string(directory.join("cgroup.subtree_control"));
        enabled.is_ok_and(|text| text.split_whitespace().any(|name| name == controller))
    })
}

/// The memory limit of the Kubernetes sample, in bytes.
///
/// # Errors
/// When the sample has none in the form that is looked for.
pub fn sample_limit() -> Result<u64> {
    let sample = include_str!("../../deploy/kubernetes/sidecar.yaml");
    let line = sample.lines().find_map(|line| line.trim().strip_prefix("limits:"));
    let value = line.and_then(|line| line.split("memory:").nth(1)).context("the sample's memory limit")?;
    let digits: String = value.trim().chars().take_while(char::is_ascii_digit).collect();
    let mebibytes: u64 = digits.parse().context("the sample's memory limit")?;
    if value.contains("Mi") {
        Ok(mebibytes << 20)
    } else {
        Err(Failure("the sample's memory limit is not in Mi".to_owned()))
    }
}

const THREADS: &str = "pids.max";

/// More than the proxy has at the start.
const THREADS_ENOUGH: u64 = 4096;
