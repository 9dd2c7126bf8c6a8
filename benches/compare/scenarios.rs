//! What is measured: each scenario once for one proxy, which is started for it and ended after it.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Context, Failure, Result},
    load, origin,
    peers::{Origin, Programs, Proxy, Running, Setup},
    process,
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
    Download,
    Upload,
    Start,
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
    standard("download", "one download of 256 MiB", Work::Download),
    standard("upload", "one upload of 256 MiB", Work::Upload),
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
    ) -> Result<Sample> {
        let mut sample = Sample {
            scenario: self.name.to_owned(),
            proxy: setup.proxy.name().to_owned(),
            round: 0,
            figures: BTreeMap::new(),
            notes: Vec::new(),
        };
        if matches!(self.work, Work::Start) {
            start(setup, programs, origin, &mut sample).await?;
            return Ok(sample);
        }
        let running = Running::start(setup, programs, origin).await?;
        let arguments = self.arguments(&running, origin, times);
        let report = under_load(programs, &arguments).await;
        let memory = running.memory();
        let idle = running.idle;
        running.stop().await;
        let (report, memory) = (report?, memory?);

        let mut put = |name: &str, figure: f64| sample.figures.insert(name.to_owned(), figure);
        put(figures::SYSTEM, report.proxy.system_share);
        put(figures::ORIGIN_CORE, (report.origin.seconds + report.load.seconds) / report.seconds);
        put(figures::PROXY_CORE, report.proxy.seconds / report.seconds);
        put(figures::OTHERS, report.others_seconds / report.seconds);
        if let Work::Loop(..) = self.work {
            put(figures::CPU, report.proxy.seconds * 1e6 / report.requests as f64);
            put(figures::RATE, report.requests as f64 / report.seconds);
            put(figures::P50, report.p50_us);
            put(figures::P99, report.p99_us);
            put(figures::P999, report.p999_us);
            put(figures::MEMORY, report.memory.resident as f64 / KIB_PER_MIB);
        } else {
            put(figures::TRANSFER_CPU, report.proxy.seconds);
            put(figures::TRANSFER, report.seconds);
            put(figures::PEAK, memory.peak.saturating_sub(idle.resident) as f64 / KIB_PER_MIB);
        }
        sample.notes = notes(&report);
        Ok(sample)
    }

    fn arguments(&self, running: &Running, origin: &Origin, times: Times) -> load::Arguments {
        let arguments = load::Arguments {
            to: running.addr,
            path: origin::SMALL.to_owned(),
            body_bytes: origin::SMALL_BYTES as u64,
            connections: 1,
            warm_up_seconds: times.warm_up.as_secs_f64(),
            seconds: times.measured.as_secs_f64(),
            requests: None,
            upload_bytes: None,
            idle: 0,
            watch: running.pids.clone(),
            origin: origin.pid,
        };
        match self.work {
            Work::Loop(connections, path, body_bytes) => load::Arguments {
                connections,
                path: path.to_owned(),
                body_bytes: body_bytes as u64,
                ..arguments
            },
            Work::Download => load::Arguments {
                path: format!("{}{TRANSFER_BYTES}", origin::DOWNLOAD),
                body_bytes: TRANSFER_BYTES,
                requests: Some(1),
                ..arguments
            },
            Work::Upload => load::Arguments { upload_bytes: Some(TRANSFER_BYTES), ..arguments },
            Work::Start => arguments,
        }
    }
}

/// Starts a proxy some times, and takes the medians.
async fn start(setup: &Setup, programs: &Programs, origin: &Origin, sample: &mut Sample) -> Result<()> {
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..STARTS {
        let running = Running::start(setup, programs, origin).await?;
        let (first_answer, idle) = (running.first_answer, running.idle);
        running.stop().await;
        let mut put = |name, figure| figures.entry(name).or_default().push(figure);
        let start_ms = first_answer.as_secs_f64() * 1e3;
        put(figures::START, start_ms);
        let exchange_ms =
            if setup.proxy == Proxy::Ours { origin.exchanges().await?.last_us / 1e3 } else { 0.0 };
        put(figures::START_BEYOND_EXCHANGE, start_ms - exchange_ms);
        put(figures::IDLE, idle.resident as f64 / KIB_PER_MIB);
        put(figures::IDLE_PROPORTIONAL, idle.proportional as f64 / KIB_PER_MIB);
    }
    sample.figures = figures.into_iter().map(|(name, figures)| (name.to_owned(), median(&figures))).collect();
    Ok(())
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

fn notes(report: &load::Report) -> Vec<String> {
    let mut notes = Vec::new();
    if (report.origin.seconds + report.load.seconds) / report.seconds > ORIGIN_CORE_FULL {
        notes.push("the origin's core is the limit".to_owned());
    }
    let others = report.others_seconds / report.seconds;
    if others > OTHERS_DISTURB {
        notes.push(format!("disturbed: others took {:.0} % of a core", others * 100.0));
    }
    notes
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

/// How often a proxy is started in each round.
const STARTS: usize = 5;

/// Above this share of its core, the origin and the load limit the rate.
const ORIGIN_CORE_FULL: f64 = 0.95;

/// Above this share of a core, others disturb. The system's own work and the reading of figures are below.
const OTHERS_DISTURB: f64 = 0.08;

const KIB_PER_MIB: f64 = 1024.0;
