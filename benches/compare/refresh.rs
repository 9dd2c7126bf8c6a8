//! What a refresh of the token costs a request that meets it: tokens that live for seconds beside one for all day.

use std::time::Duration;

use crate::{
    failure::Result,
    load,
    peers::{Programs, Proxy, Setup},
    report,
    running::Origin,
    scenarios::{Times, figures, loaded},
};

/// Measures both and prints a table.
///
/// # Errors
/// When an origin does not start.
pub async fn run(programs: &Programs, rounds: usize, times: Times) -> Result<()> {
    let times = Times { measured: times.measured.max(LONG_ENOUGH), ..times };
    let mut samples = Vec::new();
    let mut exchanges = Vec::new();
    for round in 1..=rounds {
        for (name, lifetime, renew) in KINDS {
            let origin = Origin::start(programs, *lifetime, *renew).await?;
            let setup = Setup::of(Proxy::Ours, programs);
            let run = loaded(&setup, programs, &origin, |arguments| load::Arguments {
                connections: CONNECTIONS,
                ..times.of(arguments)
            });
            match run.await {
                Ok(run) => {
                    samples.push(run.loop_sample(NAME, name, round));
                    exchanges.push((*name, origin.exchanges().await?.count as f64));
                }
                Err(error) => eprintln!("round {round}, {name}: {error}"),
            }
            origin.stop().await;
        }
        eprintln!("round {round} of {rounds}");
    }

    let headings = ["", "exchanges", "p50 us", "p99 us", "p99.9 us", "longest us", "CPU us/request"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    for (name, ..) in KINDS {
        let of = |figure| report::figures_of(&samples, NAME, name, figure);
        let its: Vec<f64> = exchanges.iter().filter(|(of, _)| of == name).map(|(_, count)| *count).collect();
        let mut row = vec![(*name).to_owned(), report::spread(&its, 0)];
        let latencies = [figures::P50, figures::P99, figures::P999, figures::LONGEST];
        row.extend(latencies.iter().map(|figure| report::spread(&of(figure), 0)));
        row.push(report::spread(&of(figures::CPU), 1));
        rows.push(row);
    }
    println!(
        "\nrefresh: 1 KiB of JSON, {CONNECTIONS} connections, {:.0} s\n{}",
        times.measured.as_secs_f64(),
        report::aligned(&rows)
    );
    report::print_disturbed(&samples);
    Ok(())
}

/// What they are called, how long tokens live, and whether each exchange gives a new one.
const KINDS: &[(&str, Duration, bool)] = &[
    ("24 h tokens", Duration::from_secs(24 * 3600), false),
    ("2.5 s tokens", Duration::from_millis(2500), true),
];

const NAME: &str = "refresh";
const CONNECTIONS: usize = 64;

/// Time for several refreshes, and for more requests than a thousand a refresh.
const LONG_ENOUGH: Duration = Duration::from_secs(10);
