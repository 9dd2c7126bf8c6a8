//! Runs the proxy for minutes with short tokens, a faulty IMS, changing credentials and an AEM that
//! is killed, and gives each failure a cause or fails.
//!
//! `benches/soak MINUTES SEED`; docs/benchmarks.md says how to read the summary.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench is for who looks at it")]
#![expect(unreachable_pub, reason = "no other crate uses a bench")]

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use self::{
    aem::Aem,
    clients::Clients,
    harness::{
        failure::{self, Context, Result},
        proxy::{Launch, Proxy, Stop},
        usage::{Sampler, Usage},
    },
    ims::Ims,
    record::{Cause, Record},
};

mod aem;
mod bodies;
mod clients;
mod credentials;
#[path = "../harness/mod.rs"]
mod harness;
mod ims;
mod record;
#[path = "../compare/release.rs"]
mod release;

/// Runs the proxy while everything around it fails, and gives each failure a cause.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Arguments {
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// How long
    minutes: Option<f64>,
    /// Of what is decided by chance
    seed: Option<u64>,
    /// The binary to run, in place of the release of this tree
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Where to keep the proxy's log
    #[arg(long, value_name = "PATH")]
    keep_log: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (Some(minutes), Some(seed)) = (arguments.minutes, arguments.seed) else {
        // `cargo bench` without a name starts it too.
        println!("soak: left out. Run it with `benches/soak MINUTES SEED`");
        return ExitCode::SUCCESS;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.context("runtime").and_then(|runtime| {
        let done = runtime.block_on(run(&arguments, minutes, seed));
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments, minutes: f64, seed: u64) -> Result<bool> {
    let binary = match &arguments.binary {
        Some(binary) => binary.canonicalize().context(binary.display())?,
        None => release::build()?,
    };
    let directory = tempfile::tempdir().context("a directory for the run")?;
    let record = Arc::new(Record::default());
    let mut chance = Rng::with_seed(seed);
    let ims = Ims::start(chance.fork(), Arc::clone(&record)).await?;
    let aem = Aem::start(ims.ledger.clone(), Arc::clone(&record)).await?;
    let files = credentials::Files::new(directory.path(), &ims)?;
    files.good()?;

    let mut launch = Launch { binary, directory: directory.path().to_owned(), ..Launch::default() };
    launch.set("upstream", format!("http://{}", aem.addr()));
    launch.set("credentials_file", files.path().display().to_string());
    launch.set("ims_endpoint", ims.endpoint());
    launch.set("timeouts.ims", format!("{}s", ims::IMS_TIMEOUT.as_secs()));
    if launch.knows("http2", "true") {
        launch.set("http2", "true");
    }
    record.start();
    let mut proxy = launch.start().await?;
    let sampler = Sampler::start(proxy.pid);
    let clients = Clients::start(proxy.addr, chance.fork(), Arc::clone(&record));
    sleep(WARM_UP).await;
    let begin = sampler.usage();

    let total = Duration::from_secs_f64(minutes * 60.0);
    let mut tasks = JoinSet::new();
    tasks.spawn(aem.keep_killing(chance.fork(), total));
    tasks.spawn(files.keep_changing(chance.fork(), Arc::clone(&record)));
    let story = Story { proxy: &proxy, ims: &ims, clients: &clients, record: &record };
    let recoveries = story.run(total, &mut chance).await;
    clients.stop().await;
    tasks.shutdown().await;
    let end = sampler.usage();
    drop(sampler);

    let ended = proxy.ended();
    let panics = proxy.metric("aem_proxy_panics_total").await;
    let last_words = proxy.last_words();
    if let Some(path) = &arguments.keep_log {
        std::fs::copy(directory.path().join("log.txt"), path).context(path.display())?;
    }
    let stop = match ended {
        Some(status) => Stop::Before(status),
        None => proxy.stop().await,
    };
    let summary = Summary { minutes, seed, begin, end, recoveries, panics, stop, last_words };
    Ok(summary.print(&record))
}

/// What happens to IMS, one thing after the other.
struct Story<'a> {
    proxy: &'a Proxy,
    ims: &'a Ims,
    clients: &'a Clients,
    record: &'a Record,
}

/// How long it took to be ready after IMS was well.
#[derive(Debug)]
struct Recovery {
    with_requests: bool,
    was_down: Duration,
    took: Option<Duration>,
    /// The latest `Retry-After` of IMS, from when it was well.
    retry_after: Duration,
}

impl Story<'_> {
    /// Faults for a while, an outage, and that again without requests.
    async fn run(&self, total: Duration, chance: &mut Rng) -> Vec<Recovery> {
        let begun = Instant::now();
        let normal = (total / 6).clamp(Duration::from_secs(10), Duration::from_secs(40));
        let longest = (total.as_secs_f64() / 6.0).clamp(5.0, 40.0);
        let mut recoveries = Vec::new();
        let mut with_requests = true;
        while begun.elapsed() < total {
            sleep(normal).await;
            let down = Duration::from_secs_f64(5.0 + chance.f64() * (longest - 5.0));
            recoveries.push(self.outage(down, with_requests, chance.fork()).await);
            with_requests = !with_requests;
        }
        recoveries
    }

    async fn outage(&self, down: Duration, with_requests: bool, chance: Rng) -> Recovery {
        // The credentials are good throughout: this is about IMS alone.
        self.record.pause_credentials(true);
        let good = self.record.credentials_are_good();
        tokio::time::timeout(Duration::from_secs(30), good).await.ok();
        if !with_requests {
            self.clients.pause(true);
        }
        self.ims.outage(chance, down).await;
        let well = Instant::now();
        let retry_after = self.record.retry_after_from(well);
        let took = loop {
            if self.proxy.ask("/ready").await.is_ok_and(|status| status == 200) {
                break Some(well.elapsed());
            }
            if well.elapsed() > RECOVERY_PATIENCE {
                break None;
            }
            sleep(Duration::from_millis(100)).await;
        };
        self.ims.end_outage();
        self.clients.pause(false);
        self.record.pause_credentials(false);
        Recovery { with_requests, was_down: down, took, retry_after }
    }
}

impl Recovery {
    fn allowed(&self) -> Duration {
        let least = if self.with_requests { READY_WITH_REQUESTS } else { READY_WITHOUT_REQUESTS };
        // A `Retry-After` is waited for, and a tenth on top.
        least.max(self.retry_after.mul_f64(1.1)) + PROBE_STEP + MACHINE_SLACK
    }

    fn holds(&self) -> bool {
        self.took.is_some_and(|took| took <= self.allowed())
    }
}

struct Summary {
    minutes: f64,
    seed: u64,
    begin: Usage,
    end: Usage,
    recoveries: Vec<Recovery>,
    panics: Option<f64>,
    stop: Stop,
    last_words: String,
}

impl Summary {
    /// Prints everything. False where something failed.
    fn print(&self, record: &Record) -> bool {
        let mut failures = record.failures();
        let outcomes = record.outcomes();
        let all: u64 = outcomes.iter().map(|(_, count)| count).sum();
        let late = outcomes.iter().filter(|(what, _)| what.contains(UNUSED));
        let unused: u64 = late.map(|(_, count)| count).sum();
        if self.minutes < GATE_MINUTES && unused * 100 <= all {
            // On a machine that is busy with other things a token may be late for a moment. It is shown above.
            failures.retain(|failure| !failure.contains(UNUSED));
        }
        println!("soak of {} minutes, seed {}", self.minutes, self.seed);
        println!("\nrequests by outcome");
        for (what, count) in record.outcomes() {
            println!("  {count:8}  {what}");
        }
        println!("\nwhat happened");
        for (what, count) in record.events() {
            println!("  {count:8}  {what}");
        }
        println!("\nready after IMS was well");
        for recovery in &self.recoveries {
            let requests = if recovery.with_requests { "with requests   " } else { "without requests" };
            let took = recovery.took.map_or("not".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
            println!(
                "  {requests}  down {:4.1} s  ready after {took}, allowed {:.1} s",
                recovery.was_down.as_secs_f64(),
                recovery.allowed().as_secs_f64()
            );
            if !recovery.holds() {
                failures.push(format!("ready after {took} {requests}"));
            }
        }
        let mib = |kib: u64| kib as f64 / 1024.0;
        println!(
            "\nRSS {:.1} MiB at the begin, {:.1} MiB at the end, {:.1} MiB at the peak; {} descriptors and {} threads at most",
            mib(self.begin.rss),
            mib(self.end.rss),
            mib(self.end.peak_rss),
            self.end.descriptors,
            self.end.threads
        );
        match self.stop {
            Stop::Asked(status, _) if status.success() => {}
            stop => failures.push(format!("the process: {stop:?}\n{}", self.last_words)),
        }
        if self.panics.is_some_and(|panics| panics > 0.0) {
            failures.push(format!("{:?} panics", self.panics));
        }
        if record.outcome(Cause::Answered) == 0 {
            failures.push("no request was answered".to_owned());
        }
        if failures.is_empty() {
            println!("\nno failure without a cause");
            return true;
        }
        println!("\n{} failures, of each kind of failed request the first ones", failures.len());
        for failure in failures.iter().take(FAILURES_SHOWN) {
            println!("  {failure}");
        }
        false
    }
}

const WARM_UP: Duration = Duration::from_secs(2);

/// With requests arriving, once IMS is well.
const READY_WITH_REQUESTS: Duration = Duration::from_secs(5);

/// Without any.
const READY_WITHOUT_REQUESTS: Duration = Duration::from_secs(60);

/// The exchange itself, and how often readiness is asked for.
const PROBE_STEP: Duration = Duration::from_millis(500);

/// By how much a busy machine may be late. The summary shows the time itself.
const MACHINE_SLACK: Duration = Duration::from_millis(1500);

/// A shorter run is the gate's.
const GATE_MINUTES: f64 = 5.0;

/// In what is said of a request that had no token though there was one.
const UNUSED: &str = "ALTHOUGH IMS HAD ISSUED ONE";

const RECOVERY_PATIENCE: Duration = Duration::from_secs(90);

const FAILURES_SHOWN: usize = 60;
