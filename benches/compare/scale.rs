//! How memory and CPU time grow with connections: many that are idle, many that are busy, on one core and on two.

use std::time::Duration;

use crate::{
    load,
    peers::{Programs, Proxy, Setup},
    report,
    running::Origin,
    scenarios::{Times, figures, loaded},
};

/// Measures these proxies and prints tables. What fails is told of and left out.
pub async fn run(programs: &Programs, origin: &Origin, proxies: &[Proxy], times: Times) {
    for proxy in proxies {
        idle(programs, origin, *proxy).await;
        for (cores, name) in
            [(programs.cores.proxy.clone(), "one core"), (programs.cores.both(), "two cores")]
        {
            active(programs, origin, *proxy, times, &cores, name).await;
        }
    }
}

/// Memory by idle connections, each of which has had one answer.
async fn idle(programs: &Programs, origin: &Origin, proxy: Proxy) {
    let headings = ["idle connections", "RSS MiB", "KiB/connection"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    let mut base = None;
    for connections in IDLE {
        let setup = Setup::of(proxy, programs);
        let run = loaded(&setup, programs, origin, |arguments| load::Arguments {
            idle: *connections,
            seconds: BRIEFLY.as_secs_f64(),
            ..arguments
        });
        match run.await {
            Ok(run) => {
                let resident = run.report.memory.resident as f64;
                let base = *base.get_or_insert(resident);
                let more = connections - IDLE[0];
                let each =
                    if more > 0 { format!("{:.1}", (resident - base) / more as f64) } else { "-".to_owned() };
                rows.push(vec![connections.to_string(), format!("{:.1}", resident / 1024.0), each]);
            }
            Err(error) => eprintln!("{}, {connections} idle connections: {error}", proxy.name()),
        }
    }
    println!("\nscale, {}: idle connections\n{}", proxy.name(), report::aligned(&rows));
}

/// CPU time by busy connections.
async fn active(programs: &Programs, origin: &Origin, proxy: Proxy, times: Times, cores: &str, name: &str) {
    let headings =
        ["busy connections", "CPU us/request", "requests/s", "p50 us", "p99 us", "RSS MiB", "origin's core"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    for connections in ACTIVE {
        let setup = Setup { cores: cores.to_owned(), ..Setup::of(proxy, programs) };
        let run = loaded(&setup, programs, origin, |arguments| load::Arguments {
            connections: *connections,
            ..times.of(arguments)
        });
        match run.await {
            Ok(run) => {
                let sample = run.loop_sample("scale", proxy.name(), 1);
                let columns = [
                    (figures::CPU, 1),
                    (figures::RATE, 0),
                    (figures::P50, 0),
                    (figures::P99, 0),
                    (figures::MEMORY, 1),
                    (figures::ORIGIN_CORE, 2),
                ];
                let mut row = vec![connections.to_string()];
                row.extend(
                    columns.map(|(figure, decimals)| format!("{:.decimals$}", sample.figures[figure])),
                );
                row.extend(sample.notes);
                rows.push(row);
            }
            Err(error) => eprintln!("{}, {connections} connections on {name}: {error}", proxy.name()),
        }
    }
    println!("\nscale, {}: 1 KiB of JSON, {name}\n{}", proxy.name(), report::aligned(&rows));
}

const IDLE: &[usize] = &[1, 100, 1000, 5000, 10_000];
const ACTIVE: &[usize] = &[1, 8, 64, 256, 512, 1000, 2000];

/// For what does not change with time.
const BRIEFLY: Duration = Duration::from_secs(1);
