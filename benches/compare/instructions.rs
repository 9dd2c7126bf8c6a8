//! Instructions for a request: the one figure that does not depend on the machine's load.
//!
//! valgrind's callgrind counts the instructions of our process, TLS included, the kernel's not. It counts between two
//! dumps, so that the start is not in it; the difference between many requests and few takes off what a run of the load
//! costs by itself: accepting the connection, and timers.

use std::{fs, path::Path, time::Duration};

use tokio::process::Command;

use crate::{
    failure::{Context, Failure, Result},
    load,
    peers::{Programs, Proxy, Setup},
    process,
    running::{Origin, Running},
    scenarios::under_load,
};

/// Counts and prints.
///
/// # Errors
/// When valgrind is missing, or the proxy does not work under it.
pub async fn run(programs: &Programs, origin: &Origin) -> Result<()> {
    if process::find(VALGRIND).is_none() {
        return Err(Failure("valgrind is not here; install Debian's package `valgrind`".to_owned()));
    }
    let out = programs.directory.join("callgrind.out");
    let setup = Setup {
        under: [VALGRIND, "--tool=callgrind", &format!("--callgrind-out-file={}", out.display())]
            .map(str::to_owned)
            .to_vec(),
        patience: START_PATIENCE,
        ..Setup::of(Proxy::Ours, programs)
    };
    let running = Running::start(&setup, programs, origin).await?;
    let counted = count(programs, origin, &running, &out).await;
    running.stop().await;
    let [_, few, many] = counted?;
    let each = (many - few) / (MANY - FEW) as f64;
    println!(
        "\ninstructions: {each:.0} for a request (1 KiB of JSON, 1 connection, TLS included, without the kernel)"
    );
    Ok(())
}

/// The instructions of each part: warming up, few requests, many.
async fn count(programs: &Programs, origin: &Origin, running: &Running, out: &Path) -> Result<[f64; 3]> {
    let pid = running.pids.first().context("a process")?.to_string();
    let mut counted = [0.0; 3];
    for (part, requests) in [WARM_UP, FEW, MANY].into_iter().enumerate() {
        let arguments = load::Arguments::at(running.addr, &running.pids, origin.pid);
        under_load(programs, &load::Arguments { requests: Some(requests), ..arguments }).await?;
        let output = Command::new("callgrind_control").args(["--dump", &pid]).output().await;
        let output = output.context("callgrind_control")?;
        let path = format!("{}.{}", out.display(), part + 1);
        let dump = fs::read_to_string(&path).map_err(|error| {
            Failure(format!("no dump of callgrind: {error}: {}", String::from_utf8_lossy(&output.stderr)))
        })?;
        let totals = dump.lines().find_map(|line| line.strip_prefix("totals: ")).context(&path)?;
        counted[part] = totals.trim().parse().context(&path)?;
    }
    Ok(counted)
}

const VALGRIND: &str = "valgrind";

const WARM_UP: u64 = 200;
const FEW: u64 = 500;
const MANY: u64 = 2500;

/// valgrind makes everything some fifty times slower.
const START_PATIENCE: Duration = Duration::from_secs(120);
