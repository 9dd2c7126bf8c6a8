//! What is measured: each scenario once for one proxy, which is started for it and ended after it.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Context, Failure, Result},
    load, origin,
    peers::{Programs, Proxy, Setup},
    process::{self, Memory},
    running::{Origin, Running},
};

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// As it is called on the command line, in the goals and in the results.
    pub name: &'static str,
    /// What happens in it, for a table's heading.
    pub about: &'static str,
    work: Work,
    /// Whether it is part of a run that names no scenarios.
    pub is_standard: bool,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    /// Connections, path, length of the body.
    Loop(usize, &'static str, usize),
    Transfer(Direction),
    Start,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Download,
    Upload,
}

/// All of them, in the order in which they are run.
pub const ALL: &[Scenario] = &[
    standard("start", "from exec to the first answer, and idle memory", Work::Start),
    standard("small-1", "1 KiB of JSON, 1 connection", Work::Loop(1, origin::SMALL, origin::SMALL_BYTES)),
    standard("small-64", "1 KiB of JSON, 64 connections", Work::Loop(64, origin::SMALL, origin::SMALL_BYTES)),
    standard(
        "small-512",
        "1 KiB of JSON, 512 connections",
        Work::Loop(512, origin::SMALL, origin::SMALL_BYTES),
    ),
    standard(
        "large-16",
        "100 KiB of JSON, 16 connections",
        Work::Loop(16, origin::LARGE, origin::LARGE_BYTES),
    ),
    standard("download", "one download of 256 MiB", Work::Transfer(Direction::Download)),
    standard("upload", "one upload of 256 MiB", Work::Transfer(Direction::Upload)),
    Scenario {
        is_standard: false,
        ..standard(
            "small-chunked-64",
            "1 KiB of JSON in chunks, 64 connections",
            Work::Loop(64, origin::SMALL_CHUNKED, origin::SMALL_BYTES),
        )
    },
    Scenario {
        is_standard: false,
        ..standard(
            "large-chunked-16",
            "100 KiB of JSON in chunks, 16 connections",
            Work::Loop(16, origin::LARGE_CHUNKED, origin::LARGE_BYTES),
        )
    },
];

const fn standard(name: &'static str, about: &'static str, work: Work) -> Scenario {
    Scenario { name, about, work, is_standard: true }
}

/// What one scenario gave for one proxy in one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// The scenario's name.
    pub scenario: String,
    /// The proxy's name.
    pub proxy: String,
    /// From 1.
    pub round: usize,
    /// By the names of [`figures`].
    pub figures: BTreeMap<String, f64>,
    /// What a reader has to know of it.
    pub notes: Vec<String>,
}

/// What is measured, by name. The unit is the last word.
pub mod figures {
    /// CPU time of the proxy for one request.
    pub const CPU: &str = "cpu_us";
    /// The share of it that the kernel took, from 0 to 1.
    pub const SYSTEM: &str = "system_share";
    /// Requests in a second.
    pub const RATE: &str = "rate_per_s";
    /// Latency: half of all requests are faster.
    pub const P50: &str = "p50_us";
    /// 99 % are faster.
    pub const P99: &str = "p99_us";
    /// 99.9 % are faster.
    pub const P999: &str = "p999_us";
    /// The slowest.
    pub const LONGEST: &str = "longest_us";
    /// CPU time of a whole transfer.
    pub const TRANSFER_CPU: &str = "cpu_s";
    /// How long it took.
    pub const TRANSFER: &str = "wall_s";
    /// The most memory in it, less what was resident before.
    pub const PEAK: &str = "peak_above_idle_mib";
    /// Resident memory under load.
    pub const MEMORY: &str = "memory_mib";
    /// Resident memory after the first answer.
    pub const IDLE: &str = "idle_mib";
    /// The same with shared pages split among those that share them.
    pub const IDLE_PROPORTIONAL: &str = "idle_pss_mib";
    /// From exec to the first answer.
    pub const START: &str = "start_ms";
    /// The same without the exchange of a token at IMS.
    pub const START_BEYOND_EXCHANGE: &str = "start_beyond_exchange_ms";
    /// How busy the core of the origin and the load was, from 0 to 1.
    pub const ORIGIN_CORE: &str = "origin_core_share";
    /// How busy the proxy's core was with it.
    pub const PROXY_CORE: &str = "proxy_core_share";
    /// What others took, in cores.
    pub const OTHERS: &str = "others_cores";
}

/// How long each loop runs.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Before the measured time.
    pub warm_up: Duration,
    /// The measured time.
    pub measured: Duration,
}

impl Scenario {
    /// Starts a proxy as `setup` says, measures it, and ends it.
    ///
    /// # Errors
    /// When it does not start, breaks connections, or answers wrongly: then there is no sample.
    pub async fn run(
        &self,
        setup: &Setup,
        programs: &Programs,
        origin: &Origin,
        times: Times,
        round: usize,
    ) -> Result<Sample> {
        let name = setup.proxy.name();
        match self.work {
            Work::Start => {
                let mut samples = Vec::new();
                for _ in 0..STARTS {
                    samples.push(start(setup, programs, origin, self.name, round).await?);
                }
                Ok(middle(samples))
            }
            Work::Loop(connections, path, body_bytes) => {
                let run = loaded(setup, programs, origin, |arguments| load::Arguments {
                    connections,
                    path: path.to_owned(),
                    body_bytes: body_bytes as u64,
                    ..times.of(arguments)
                });
                Ok(run.await?.loop_sample(self.name, name, round))
            }
            Work::Transfer(direction) => {
                let mut samples = Vec::new();
                for _ in 0..TRANSFERS {
                    let run = loaded(setup, programs, origin, |arguments| direction.of(arguments)).await?;
                    samples.push(run.transfer_sample(self.name, name, round));
                }
                Ok(middle(samples))
            }
        }
    }
}

impl Direction {
    /// The same load with one transfer in this direction.
    fn of(self, arguments: load::Arguments) -> load::Arguments {
        match self {
            Self::Download => load::Arguments {
                path: format!("{}{TRANSFER_BYTES}", origin::DOWNLOAD),
                body_bytes: TRANSFER_BYTES,
                requests: Some(1),
                ..arguments
            },
            Self::Upload => load::Arguments { upload_bytes: Some(TRANSFER_BYTES), ..arguments },
        }
    }
}

impl Times {
    /// The same load for these times.
    pub fn of(self, arguments: load::Arguments) -> load::Arguments {
        load::Arguments {
            warm_up_seconds: self.warm_up.as_secs_f64(),
            seconds: self.measured.as_secs_f64(),
            ..arguments
        }
    }
}

/// A proxy was started, put under load, and ended.
#[derive(Debug)]
pub struct Run {
    /// What the load tells.
    pub report: load::Report,
    /// The proxy's memory before.
    pub idle: Memory,
    /// And after.
    pub after: Memory,
}

/// Starts a proxy, runs the load against it, and ends it. `arguments` completes the load's: they come with the address
/// and the processes, and ask for small answers on one connection.
///
/// What others disturb is done once more, and the calmer of both counts.
///
/// # Errors
/// When the proxy does not start, breaks connections, or answers wrongly: such a run measures nothing.
pub async fn loaded(
    setup: &Setup,
    programs: &Programs,
    origin: &Origin,
    arguments: impl Fn(load::Arguments) -> load::Arguments,
) -> Result<Run> {
    let first = loaded_once(setup, programs, origin, &arguments).await?;
    if first.others() <= OTHERS_DISTURB {
        return Ok(first);
    }
    let again = loaded_once(setup, programs, origin, &arguments).await?;
    Ok(if again.others() < first.others() { again } else { first })
}

async fn loaded_once(
    setup: &Setup,
    programs: &Programs,
    origin: &Origin,
    arguments: impl Fn(load::Arguments) -> load::Arguments,
) -> Result<Run> {
    let running = Running::start(setup, programs, origin).await?;
    let arguments = arguments(load::Arguments::at(running.addr, &running.pids, origin.pid));
    let report = under_load(programs, &arguments).await;
    let after = running.memory();
    let idle = running.idle;
    running.stop().await;
    Ok(Run { report: report?, idle, after: after? })
}

impl Run {
    /// What others took of the machine, in cores.
    fn others(&self) -> f64 {
        self.report.others_seconds / self.report.seconds
    }

    /// The figures of a loop.
    pub fn loop_sample(&self, scenario: &str, proxy: &str, round: usize) -> Sample {
        let report = &self.report;
        let mut sample = self.sample(scenario, proxy, round);
        sample.put(figures::CPU, report.proxy.seconds * 1e6 / report.requests as f64);
        sample.put(figures::RATE, report.requests as f64 / report.seconds);
        sample.put(figures::P50, report.p50_us);
        sample.put(figures::P99, report.p99_us);
        sample.put(figures::P999, report.p999_us);
        sample.put(figures::LONGEST, report.longest_us);
        sample.put(figures::MEMORY, mib(report.memory.resident));
        sample
    }

    fn transfer_sample(&self, scenario: &str, proxy: &str, round: usize) -> Sample {
        let mut sample = self.sample(scenario, proxy, round);
        sample.put(figures::TRANSFER_CPU, self.report.proxy.seconds);
        sample.put(figures::TRANSFER, self.report.seconds);
        sample.put(figures::PEAK, mib(self.after.peak.saturating_sub(self.idle.resident)));
        sample
    }

    /// What all have.
    fn sample(&self, scenario: &str, proxy: &str, round: usize) -> Sample {
        let report = &self.report;
        let mut sample = Sample::new(scenario, proxy, round);
        let origin_core = (report.origin.seconds + report.load.seconds) / report.seconds;
        let others = self.others();
        sample.put(figures::SYSTEM, report.proxy.system_share);
        sample.put(figures::ORIGIN_CORE, origin_core);
        sample.put(figures::PROXY_CORE, report.proxy.seconds / report.seconds);
        sample.put(figures::OTHERS, others);
        if origin_core > ORIGIN_CORE_FULL {
            sample.notes.push("the origin's core is the limit".to_owned());
        }
        if others > OTHERS_DISTURB {
            sample.notes.push(format!("disturbed: others took {:.0} % of a core", others * 100.0));
        }
        sample
    }
}

impl Sample {
    fn new(scenario: &str, proxy: &str, round: usize) -> Self {
        let (scenario, proxy) = (scenario.to_owned(), proxy.to_owned());
        Self { scenario, proxy, round, figures: BTreeMap::new(), notes: Vec::new() }
    }

    /// Whether others took so much of the machine that the figures may be wrong.
    pub fn is_disturbed(&self) -> bool {
        self.figures.get(figures::OTHERS).is_some_and(|others| *others > OTHERS_DISTURB)
    }

    fn put(&mut self, name: &str, figure: f64) {
        self.figures.insert(name.to_owned(), figure);
    }
}

/// Starts a proxy, and ends it.
async fn start(
    setup: &Setup,
    programs: &Programs,
    origin: &Origin,
    scenario: &str,
    round: usize,
) -> Result<Sample> {
    let running = Running::start(setup, programs, origin).await?;
    let (first_answer, idle) = (running.first_answer, running.idle);
    running.stop().await;
    let start_ms = first_answer.as_secs_f64() * 1e3;
    let exchange_ms = if setup.proxy == Proxy::Ours { origin.exchanges().await?.last_us / 1e3 } else { 0.0 };
    let mut sample = Sample::new(scenario, setup.proxy.name(), round);
    sample.put(figures::START, start_ms);
    sample.put(figures::START_BEYOND_EXCHANGE, start_ms - exchange_ms);
    sample.put(figures::IDLE, mib(idle.resident));
    sample.put(figures::IDLE_PROPORTIONAL, mib(idle.proportional));
    Ok(sample)
}

/// One sample of several of the same: the median of each figure, and the last one's notes.
fn middle(samples: Vec<Sample>) -> Sample {
    let mut figures: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, figure) in samples.iter().flat_map(|sample| &sample.figures) {
        figures.entry(name.clone()).or_default().push(*figure);
    }
    let figures = figures.into_iter().map(|(name, figures)| (name, median(&figures))).collect();
    let last = samples.into_iter().next_back().unwrap_or_else(|| Sample::new("", "", 0));
    Sample { figures, ..last }
}

/// Runs the load in a process of its own.
///
/// # Errors
/// When it says that something was wrong: such a run measures nothing.
pub async fn under_load(programs: &Programs, arguments: &load::Arguments) -> Result<load::Report> {
    let this = std::env::current_exe().context("this program")?;
    let mut command = process::pinned(&programs.cores.rest, this);
    command.arg("load").args(arguments.to_words()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().await.context("load")?;
    if !output.status.success() {
        return Err(Failure(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let report: load::Report = serde_json::from_slice(&output.stdout).context("load")?;
    if report.wrong > 0 || report.broken > 0 {
        let first = report.first_error.as_deref().unwrap_or("none");
        let words = format!(
            "not valid: {} wrong answers, {} broken connections (the first: {first})",
            report.wrong, report.broken
        );
        return Err(Failure(words));
    }
    Ok(report)
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The middle one, or the mean of the two in the middle; not a number without figures.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}

/// How many bytes a transfer has.
const TRANSFER_BYTES: u64 = 256 * 1024 * 1024;

/// How often a proxy is started in each round. One start is short, and the median is less noisy.
const STARTS: usize = 5;

/// How often something is transferred in each round, for the same reason.
const TRANSFERS: usize = 3;

/// Above this share of its core, the origin and the load limit the rate.
const ORIGIN_CORE_FULL: f64 = 0.95;

/// Above this share of a core, others disturb. The system's own work and the reading of figures are below.
const OTHERS_DISTURB: f64 = 0.08;
