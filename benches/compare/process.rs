//! Processes: which there are, what CPU time and memory they have used, and how they are started and ended.
//!
//! Everything is read from `/proc`, so that it is the same for every proxy.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use crate::failure::{Context, Result};

/// What processes have used of CPU so far.
#[derive(Debug, Default)]
pub struct Reading {
    /// Nanoseconds on a CPU of each thread, by process and thread id.
    threads: BTreeMap<(u32, u32), u64>,
    user_ticks: u64,
    system_ticks: u64,
}

/// CPU time between two readings.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Cpu {
    /// All of it, in seconds.
    pub seconds: f64,
    /// The share spent in the kernel, from 0 to 1. Counted in hundredths of a second: rough for short times.
    pub system_share: f64,
}

impl Reading {
    /// Reads what these processes have used.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut reading = Self::default();
        for pid in pids {
            let tasks = format!("/proc/{pid}/task");
            for task in fs::read_dir(&tasks).context(&tasks)?.flatten() {
                // A thread may end between the listing and the reading: then it counts by the process's ticks.
                let Ok(schedstat) = fs::read_to_string(task.path().join("schedstat")) else { continue };
                let nanos = schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
                let tid = task.file_name().to_str().and_then(|tid| tid.parse().ok()).unwrap_or(0);
                reading.threads.insert((*pid, tid), nanos);
            }
            let stat = Stat::of(*pid)?;
            reading.user_ticks += stat.user_ticks;
            reading.system_ticks += stat.system_ticks;
        }
        Ok(reading)
    }

    /// What was used since `before`.
    ///
    /// The scheduler's nanoseconds of each thread are the finest figure there is. A thread that has ended takes its own
    /// along; the process's ticks keep them, in hundredths of a second. So the ticks count where a thread is gone.
    pub fn since(&self, before: &Self) -> Cpu {
        let nanos = self.threads.iter().map(|(thread, nanos)| {
            nanos.saturating_sub(before.threads.get(thread).copied().unwrap_or_default())
        });
        let by_threads = Duration::from_nanos(nanos.sum()).as_secs_f64();
        let user = self.user_ticks.saturating_sub(before.user_ticks);
        let system = self.system_ticks.saturating_sub(before.system_ticks);
        let by_ticks = (user + system) as f64 / TICKS_PER_SECOND;
        let gone = before.threads.keys().any(|thread| !self.threads.contains_key(thread));
        let unseen = by_ticks > by_threads + TICKS_ERROR_SECONDS;
        Cpu {
            seconds: if gone || unseen { by_ticks } else { by_threads },
            system_share: if user + system == 0 { 0.0 } else { system as f64 / (user + system) as f64 },
        }
    }
}

/// The CPU time that the machine's cores have spent working for anyone, in seconds.
///
/// # Errors
/// When the system does not tell.
pub fn machine_busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
    // user, nice, system, and after idle and iowait: interrupts, soft interrupts, stolen.
    let busy: f64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| ticks.get(*index)).sum();
    Ok(busy / TICKS_PER_SECOND)
}

/// The memory of processes, in KiB.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Memory {
    /// Resident now. Pages that processes share count for each.
    pub resident: u64,
    /// The same with shared pages split among those that share them; 0 where the system does not tell.
    pub proportional: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

impl Memory {
    /// The sums over these processes.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut memory = Self::default();
        for pid in pids {
            let path = format!("/proc/{pid}/status");
            let status = fs::read_to_string(&path).context(&path)?;
            memory.resident += kib(&status, "VmRSS:");
            memory.peak += kib(&status, "VmHWM:");
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            memory.proportional += kib(&rollup, "Pss:");
        }
        Ok(memory)
    }
}

fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// `pid` and all processes that come from it.
pub fn family(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::of(pid).ok()?.parent)))
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        family.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

/// The fields of `/proc/PID/stat` that are wanted here.
struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).context(&path)?;
        // The name in parentheses may hold anything, spaces too. Field 3 is the first one after it.
        let (_, fields) = text.rsplit_once(')').context(&path)?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse().ok()).unwrap_or(0);
        Ok(Self {
            parent: u32::try_from(field(4)).unwrap_or(0),
            user_ticks: field(14),
            system_ticks: field(15),
        })
    }
}

/// Where the proxy under test runs, and where all the rest does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cores {
    /// The cores of the proxy, as `taskset` writes them.
    pub proxy: String,
    /// The cores of the origin and the load.
    pub rest: String,
}

impl Cores {
    /// The last core that this process may use for the proxy, the one before it for the rest. On a machine with one core
    /// all share it, and no figure means much.
    ///
    /// # Errors
    /// When the system does not tell which there are.
    pub fn choose() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let mut cores = Vec::new();
        for range in list.context("Cpus_allowed_list")?.trim().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.parse().context(range)?, last.parse().context(range)?);
            cores.extend(first..=last);
        }
        let proxy = cores.pop().context("a core")?;
        let rest = cores.pop().unwrap_or(proxy);
        Ok(Self { proxy: proxy.to_string(), rest: rest.to_string() })
    }

    /// Both, for a proxy that may use all that there is.
    pub fn both(&self) -> String {
        format!("{},{}", self.rest, self.proxy)
    }
}

/// A program of this name: a path as it is, a name by `PATH` and the directories of system programs.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// A command that runs on these cores only, and ends when nobody holds it any more.
pub fn pinned(cores: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cores).arg(program).kill_on_drop(true);
    command
}

/// The same, but the program is executed only when the standard input that is given here ends. Then nothing but `exec`
/// stands between that moment and the program.
pub fn held(cores: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = pinned(cores, "sh");
    command.args(["-c", "read -r _; exec \"$@\"", "sh"]).arg(program).stdin(Stdio::piped());
    command
}

/// Lets this process, and so those that it starts, run on these cores only.
///
/// # Errors
/// When `taskset` is missing or refuses.
pub async fn pin_self(cores: &str) -> Result<()> {
    own(Command::new("taskset").args(["-c", "-p", cores])).await
}

/// Raises the number of files that this process, and those that it starts, may have open to what the system allows.
///
/// # Errors
/// When `prlimit` is missing or refuses.
pub async fn raise_open_files() -> Result<u64> {
    let limits = fs::read_to_string("/proc/self/limits").context("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(1)).context("Max open files")?;
    let hard: u64 = hard.parse().unwrap_or(OPEN_FILES_ENOUGH);
    own(Command::new("prlimit").arg(format!("--nofile={hard}:{hard}")).arg("--pid")).await?;
    Ok(hard)
}

/// Runs a command on this process: its id is the last argument.
async fn own(command: &mut Command) -> Result<()> {
    let command = command.arg(std::process::id().to_string());
    let name = format!("{:?}", command.as_std().get_program());
    let output = command.output().await.context(&name)?;
    output.status.success().then_some(()).context(String::from_utf8_lossy(&output.stderr).trim())
}

/// Asks a process to end, and makes it after a while.
pub async fn end(child: &mut Child) {
    if let Some(pid) = child.id() {
        // A process that is gone already is what is wanted.
        let _ = Command::new("kill").arg(pid.to_string()).stderr(Stdio::null()).status().await;
    }
    if tokio::time::timeout(END_PATIENCE, child.wait()).await.is_err() {
        // The same: it may have ended by now.
        let _ = child.kill().await;
    }
}

/// Standard output or standard error into a file.
///
/// # Errors
/// When the file cannot be written.
pub fn into_file(path: &Path) -> Result<Stdio> {
    Ok(fs::File::create(path).context(path.display())?.into())
}

/// `USER_HZ`, which Linux has fixed for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// By how much ticks may be ahead of the scheduler's nanoseconds without telling of a thread that nobody saw.
const TICKS_ERROR_SECONDS: f64 = 0.05;

/// How long a process has to end when it is asked to.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// Where the system sets no limit.
const OPEN_FILES_ENOUGH: u64 = 65_536;
