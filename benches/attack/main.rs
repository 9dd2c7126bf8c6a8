//! Attacks the release binary, and measures what it costs the process and an innocent client.
//!
//! `cargo bench --bench attack`; docs/threat-model.md says what is attacked and how to read the table.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench is for who looks at it")]
#![expect(unreachable_pub, reason = "no other crate uses a bench")]

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use aem_auth_proxy::standin::{
    Options, StandIns,
    keys::{ServiceCredentials, Tls},
};
use clap::Parser;
use tokio::time::{Instant, sleep};

use self::{
    cgroup::Cgroup,
    floods::{Attack, Second},
    harness::{
        failure::{self, Context, Result},
        proxy::{Launch, Output, Stop, write_secret},
        tls_client,
        usage::Sampler,
    },
    innocent::Innocent,
    origin::Origin,
    report::Outcome,
    target::Target,
};

mod cgroup;
mod floods;
mod frames;
#[path = "../harness/mod.rs"]
mod harness;
mod innocent;
mod origin;
#[path = "../compare/release.rs"]
mod release;
mod report;
mod target;

/// Attacks the release binary, and measures what it costs the process and an innocent client.
#[derive(Debug, Parser)]
#[command(name = "attack")]
struct Arguments {
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// Run the gate's subset, each attack for a shorter time
    #[arg(long)]
    short: bool,
    /// Run these attacks only
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    only: Vec<String>,
    /// List the attacks
    #[arg(long)]
    list: bool,
    /// Run the proxy in a memory control group with the limit of the Kubernetes sample
    #[arg(long)]
    container: bool,
    /// Print the table in Markdown
    #[arg(long)]
    markdown: bool,
    /// The seconds of each attack
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// How long the proxy has to give memory back
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    settle: u64,
    /// The binary to attack, in place of the release of this tree
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// A key of the configuration, in addition to the defaults; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

fn setting(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench && !arguments.list {
        // `cargo test --benches` starts it too.
        println!("run it with `cargo bench --bench attack`");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.context("runtime").and_then(|runtime| {
        let done = runtime.block_on(run(&arguments));
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("attack: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What all attacks share.
struct Bench {
    launch: Launch,
    origin: Origin,
    standins: StandIns,
    tls: Tls,
    seconds: Duration,
    settle: Duration,
    container: Option<u64>,
}

/// False where a rule was broken.
async fn run(arguments: &Arguments) -> Result<bool> {
    let attacks = chosen(arguments)?;
    if arguments.list {
        for attack in &attacks {
            println!("{:28} {}", attack.name, attack.about);
        }
        return Ok(true);
    }
    let binary = match &arguments.binary {
        Some(binary) => binary.canonicalize().context(binary.display())?,
        None => release::build()?,
    };
    let directory = tempfile::tempdir().context("a directory for the run")?;
    let bench = Bench::new(arguments, binary, directory.path().to_owned()).await?;
    let mut outcomes = Vec::new();
    for attack in &attacks {
        let outcome = match bench.attack(attack).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::not_run(attack, error.to_string()),
        };
        println!("{}", outcome.line());
        outcomes.push(outcome);
    }
    println!("\n{}", report::table(&outcomes, arguments.markdown));
    let broken: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.broken.is_empty()).collect();
    for outcome in &broken {
        for rule in &outcome.broken {
            println!("broken by {}: {rule}", outcome.name);
        }
    }
    println!("{} attacks, {} of them break a rule", outcomes.len(), broken.len());
    // The gate runs on machines of any speed.
    Ok(if arguments.short { !outcomes.iter().any(|outcome| outcome.fails) } else { broken.is_empty() })
}

fn chosen(arguments: &Arguments) -> Result<Vec<Attack>> {
    let all = Attack::all();
    for name in &arguments.only {
        if !all.iter().any(|attack| attack.name == name) {
            return Err(failure::Failure(format!("no attack is called {name}: see --list")));
        }
    }
    let is_chosen = |attack: &Attack| {
        if arguments.only.is_empty() {
            !arguments.short || attack.is_short
        } else {
            arguments.only.iter().any(|name| attack.name == name)
        }
    };
    Ok(all.into_iter().filter(is_chosen).collect())
}

impl Bench {
    async fn new(arguments: &Arguments, binary: PathBuf, directory: PathBuf) -> Result<Self> {
        let key = include_str!("../../tests/fixtures/private_key.pem");
        let credentials = ServiceCredentials::with_key(key, "localhost").context("credentials")?;
        let options = Options { credentials: Some(credentials), ..Options::default() };
        let standins = StandIns::start(options).await.context("stand-ins")?;
        let tls = Tls::generate(&["localhost", "127.0.0.1"]).context("certificates")?;
        let origin = Origin::start(&tls)?;
        let mut launch = Launch { binary, directory, ..Launch::default() };
        let file = |name: &str| launch.directory.join(name);
        let (certificate, key) = tls.server_certificate();
        for (name, text) in [
            ("credentials.json", standins.credentials_document.to_string()),
            ("ca.pem", tls.ca_pem().to_owned()),
            ("server.pem", certificate),
            ("server.key", key),
        ] {
            write_secret(&file(name), &text)?;
        }
        let (credentials_file, ca_file) = (file("credentials.json"), file("ca.pem"));
        launch.set("upstream", format!("http://{}", origin.plain));
        launch.set("credentials_file", credentials_file.display().to_string());
        launch.set("ims_endpoint", standins.ims_endpoint.clone());
        launch.set("ca_file", ca_file.display().to_string());
        // HTTP/2 without TLS was always on before it became a setting.
        if launch.knows("http2", "true") {
            launch.set("http2", "true");
        }
        for (key, value) in &arguments.set {
            launch.set(key, value.clone());
        }
        let container = if arguments.container {
            let limit = cgroup::sample_limit()?;
            match Cgroup::create(limit) {
                Ok(_) => println!("each proxy runs in a control group with {} MiB", limit >> 20),
                Err(error) => {
                    println!("no control group with a memory limit can be made here: {error}");
                    return Err(failure::Failure("--container is not possible here".to_owned()));
                }
            }
            Some(limit)
        } else {
            None
        };
        let seconds = arguments.seconds.unwrap_or(if arguments.short { 3 } else { 10 });
        Ok(Self {
            launch,
            origin,
            standins,
            tls,
            seconds: Duration::from_secs(seconds),
            settle: Duration::from_secs(arguments.settle),
            container,
        })
    }

    /// One attack on a proxy of its own.
    async fn attack(&self, attack: &Attack) -> Result<Outcome> {
        let mut launch = self.launch.clone();
        let second = target::second_address();
        self.prepare(attack, &mut launch, second);
        (attack.setup)(&mut launch);
        let cgroup = self.container.map(Cgroup::create).transpose()?;
        let threads = match attack.limits_threads.then(Cgroup::of_threads) {
            Some(Err(error)) => return Ok(Outcome::left_out(attack, error.to_string())),
            Some(Ok(group)) => Some(group),
            None => None,
        };
        launch.cgroups = cgroup.iter().chain(&threads).map(Cgroup::procs).collect();

        let mut proxy = launch.start().await?;
        let clients = |protocol: &[u8]| tls_client(self.tls.ca_pem(), &[protocol]);
        let tls = if attack.is_tls { Some((clients(b"http/1.1")?, clients(b"h2")?)) } else { None };
        let sampler = Sampler::start(proxy.pid);
        let theirs = tls.as_ref().map(|(tls, _)| tls.clone());
        let innocent = Innocent::start(proxy.addr, proxy.admin, self.origin.plain, theirs);
        sleep(WARM_UP).await;
        innocent.reset();
        let idle = sampler.usage();
        if let Some(group) = &threads {
            group.limit_threads()?;
        }
        let limit = proxy.metric("aem_proxy_memory_limit_bytes").await.unwrap_or(LIMIT_ASSUMED);
        let exchanges_before = self.standins.ims.exchanges();

        let target = Arc::new(Target {
            pid: proxy.pid,
            addr: proxy.addr,
            admin: proxy.admin,
            second,
            tls,
            ends: Instant::now() + self.seconds,
            closed: Arc::default(),
            sent: Arc::default(),
        });
        (attack.run)(Arc::clone(&target)).await;
        let at_end = sampler.usage();

        let left = Instant::now();
        let goal = idle.rss + idle.rss / 2;
        let mut back_after = None;
        while left.elapsed() < self.settle {
            sleep(SETTLE_STEP).await;
            let usage = sampler.usage();
            if usage.is_gone {
                break;
            }
            if usage.rss <= goal {
                back_after.get_or_insert(left.elapsed());
                if left.elapsed() >= SETTLE_MIN {
                    break;
                }
            } else {
                back_after = None;
            }
        }
        let usage = sampler.usage();
        let (client, live, straight) = innocent.seen();
        drop(innocent);
        drop(sampler);
        let ended = proxy.ended();
        let (log_lines, last_words) = (proxy.log_lines(), proxy.last_words());
        let has_log = launch.output == Output::File;
        let stop = match ended {
            Some(status) => Stop::Before(status),
            None => proxy.stop().await,
        };
        let mut outcome = Outcome {
            name: attack.name,
            about: attack.about,
            idle,
            at_end,
            after: usage,
            back_after,
            limit_kib: limit / 1024.0,
            client,
            live,
            straight,
            log_lines: has_log.then_some(log_lines),
            stop: Some(stop),
            exchanges: self.standins.ims.exchanges() - exchanges_before,
            closed: target.closed.load(Relaxed),
            sent: target.sent.load(Relaxed),
            cgroup: cgroup.as_ref().map(Cgroup::seen),
            settle: self.settle,
            last_words,
            ..Outcome::default()
        };
        outcome.judge(attack);
        Ok(outcome)
    }

    fn prepare(&self, attack: &Attack, launch: &mut Launch, second: std::net::SocketAddr) {
        if attack.is_tls {
            for (key, name) in [("tls.certificate_file", "server.pem"), ("tls.key_file", "server.key")] {
                let path = launch.directory.join(name).display().to_string();
                launch.set(key, path);
            }
        }
        let upstream = match attack.second {
            Second::None => return,
            Second::Http2 => {
                format!("url = \"https://localhost:{}\"\nhttp = \"2\"", self.origin.http2.port())
            }
            Second::Unresolvable => "url = \"https://author-p1-e2.adobeaemcloud.invalid\"".to_owned(),
        };
        let http2 = if launch.keys.iter().any(|(key, _)| key == "http2") { "http2 = true\n" } else { "" };
        launch.file = Some(format!(
            "[upstreams.second]\n{upstream}\n\n[proxies.second]\nlisten = \"{second}\"\nupstream = \"second\"\n{http2}"
        ));
    }
}

/// Long enough for the innocent clients' connections to be open.
const WARM_UP: Duration = Duration::from_millis(1000);

/// What is assumed of a binary that has no `limits.memory`.
const LIMIT_ASSUMED: f64 = (64_u64 << 20) as f64;

const SETTLE_STEP: Duration = Duration::from_millis(100);

/// How long the memory has to stay low.
const SETTLE_MIN: Duration = Duration::from_secs(1);
