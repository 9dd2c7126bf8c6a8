//! Compares the proxy with nginx, `HAProxy`, Envoy and a blind relay: CPU time, latency, memory, start.
//!
//! `cargo bench --bench compare`; docs/benchmarks.md says what is measured and how to read it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench is for who looks at it")]
#![expect(unreachable_pub, reason = "nobody reaches into a bench")]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use self::{
    failure::{Context, Failure, Result},
    goals::Outcome,
    peers::{Programs, Proxy, Setup},
    process::Cores,
    results::{Machine, Results},
    running::Origin,
    scenarios::{Sample, Scenario, Times},
};

mod extras;
mod failure;
mod goals;
mod histogram;
mod http;
mod instructions;
mod load;
mod origin;
mod peers;
mod plot;
mod process;
mod refresh;
mod relay;
mod release;
mod report;
mod results;
mod running;
mod scale;
mod scenarios;
mod token;

/// Compares the proxy with its peers: CPU time, latency, memory, start. Without arguments: all that the goals need.
#[derive(Debug, Parser)]
#[command(name = "compare", args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Arguments {
    /// The part that a process of the bench plays
    #[command(subcommand)]
    role: Option<Role>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// Count the instructions of a request with valgrind, in place of the comparison
    #[arg(long, group = "mode")]
    instructions: bool,
    /// Measure what single settings cost, in place of the comparison
    #[arg(long, group = "mode")]
    extras: bool,
    /// Measure what refreshing the token costs, in place of the comparison
    #[arg(long, group = "mode")]
    refresh: bool,
    /// Measure how memory and CPU time grow with connections, in place of the comparison; ours unless --only says more
    #[arg(long, group = "mode")]
    scale: bool,
    /// Compare these only
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    only: Vec<Proxy>,
    /// Run these scenarios only
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    scenarios: Vec<String>,
    /// How often everything is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The measured seconds of each loop
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// A program that is not found by its name, or another build of ours; may be given several times
    #[arg(long, value_name = "NAME=PATH", value_parser = named_program)]
    program: Vec<(Proxy, PathBuf)>,
    /// A key of our configuration, beside the defaults; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Where to write results.json, results.md and cpu.svg; target/compare if it is not given
    #[arg(long, value_name = "DIRECTORY")]
    save: Option<PathBuf>,
    /// Fail if a goal does not hold
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Origin(origin::Arguments),
    #[command(hide = true)]
    Load(load::Arguments),
    #[command(hide = true)]
    Relay(relay::Arguments),
}

fn named_program(text: &str) -> std::result::Result<(Proxy, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("write it as NAME=PATH")?;
    Ok((clap::ValueEnum::from_str(name, true)?, path.into()))
}

fn setting(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("compare: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match &arguments.role {
            Some(Role::Origin(origin)) => origin::run(origin).await.map(|()| true),
            Some(Role::Load(load)) => load::run(load).await.map(|()| true),
            Some(Role::Relay(relay)) => relay::run(relay).await.map(|()| true),
            None if !arguments.bench => {
                println!("run it with `cargo bench --bench compare`");
                Ok(true)
            }
            None => compare(&arguments).await,
        }
    });
    // Reading standard input keeps a thread that nothing wakes.
    runtime.shutdown_background();
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The whole plan. False where a goal does not hold and that matters.
async fn compare(arguments: &Arguments) -> Result<bool> {
    let goals = goals::read()?;
    let scenarios = chosen(arguments)?;
    let open_files = process::raise_open_files().await?;
    let (machine, cores) = (Machine::this(), Cores::choose()?);
    let directory = tempfile::tempdir().context("a directory for the run")?;
    let mut given = arguments.program.clone();
    let asked = arguments.only.is_empty() || arguments.only.contains(&Proxy::Ours);
    if asked && !given.iter().any(|(proxy, _)| *proxy == Proxy::Ours) {
        given.push((Proxy::Ours, release::build()?));
    }
    process::pin_self(&cores.rest).await?;
    let settings = arguments.set.clone();
    let programs = Programs { given, cores, open_files, directory: directory.path().to_owned(), settings };
    let times = Times { warm_up: WARM_UP, measured: Duration::from_secs_f64(arguments.seconds) };
    println!("{}", machine.line());
    println!("proxies on core {}, origin and load on core {}", programs.cores.proxy, programs.cores.rest);

    let origin = Origin::start(&programs, DAY, false).await?;
    if arguments.instructions {
        instructions::run(&programs, &origin).await?;
    } else if arguments.extras {
        extras::run(&programs, &origin, arguments.rounds, times).await?;
    } else if arguments.refresh {
        refresh::run(&programs, arguments.rounds, times).await?;
    } else if arguments.scale {
        let proxies = if arguments.only.is_empty() { &[Proxy::Ours] } else { &arguments.only[..] };
        scale::run(&programs, &origin, proxies, times).await;
    } else {
        let proxies = available(arguments, &programs);
        let results = Results {
            at: results::now(),
            commit: aem_auth_proxy::COMMIT,
            machine,
            versions: results::versions(&programs, &proxies).await,
            seconds: arguments.seconds,
            rounds: arguments.rounds,
            settings: programs.settings.clone(),
            samples: in_turns(arguments.rounds, &scenarios, &proxies, &programs, &origin, times).await,
            goals: Vec::new(),
        };
        let goals = goals.iter().map(|goal| goal.judge(&results.samples)).collect();
        let results = Results { goals, ..results };
        report::print(&scenarios, &proxies, &results.samples);
        println!("\ngoals\n{}", report::aligned(&results.goal_rows()));
        let save = arguments.save.clone().unwrap_or_else(default_directory);
        results.save(&save, &scenarios, &proxies)?;
        println!("written to {}", save.display());
        let fails = results.goals.iter().any(|goal| goal.outcome == Outcome::DoesNotHold);
        return Ok(!(fails && arguments.strict));
    }
    Ok(true)
}

/// Beside what cargo builds.
fn default_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("compare")
}

/// The proxies that were asked for and whose programs are there. Says how to get the others.
fn available(arguments: &Arguments, programs: &Programs) -> Vec<Proxy> {
    let asked: Vec<Proxy> =
        if arguments.only.is_empty() { Proxy::ALL.to_vec() } else { arguments.only.clone() };
    let (found, missing): (Vec<Proxy>, Vec<Proxy>) =
        asked.into_iter().partition(|proxy| programs.find(*proxy).is_some());
    for proxy in missing {
        println!("{} is not here and is left out. To have it, {}.", proxy.name(), proxy.how_to_get());
    }
    found
}

fn chosen(arguments: &Arguments) -> Result<Vec<&'static Scenario>> {
    if arguments.scenarios.is_empty() {
        return Ok(scenarios::ALL.iter().filter(|scenario| scenario.is_standard).collect());
    }
    let find = |name: &String| {
        let names: Vec<&str> = scenarios::ALL.iter().map(|scenario| scenario.name).collect();
        let found = scenarios::ALL.iter().find(|scenario| scenario.name == name);
        found.ok_or_else(|| Failure(format!("no scenario is called {name}; there are {}", names.join(", "))))
    };
    arguments.scenarios.iter().map(find).collect()
}

/// Measures all proxies one after the other in each scenario, round by round, so that whatever changes on the machine
/// with time changes for all. What fails is told of and left out.
async fn in_turns(
    rounds: usize,
    scenarios: &[&Scenario],
    proxies: &[Proxy],
    programs: &Programs,
    origin: &Origin,
    times: Times,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    for round in 1..=rounds {
        for scenario in scenarios {
            for proxy in proxies {
                let setup = Setup::of(*proxy, programs);
                let sample = scenario.run(&setup, programs, origin, times, round).await;
                match sample {
                    Ok(sample) => samples.push(sample),
                    Err(error) => eprintln!("round {round}, {}, {}: {error}", scenario.name, proxy.name()),
                }
            }
            eprintln!("round {round} of {rounds}: {}", scenario.name);
        }
    }
    samples
}

/// Long enough for all connections to be open, upstream too, and for caches to be warm.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long IMS's tokens live.
const DAY: Duration = Duration::from_secs(24 * 3600);
