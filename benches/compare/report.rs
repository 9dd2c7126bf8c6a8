//! What a person reads: tables of medians, with the smallest and the largest figure behind them.

use crate::{
    peers::Proxy,
    scenarios::{Sample, Scenario, figures, median},
};

/// The columns of the tables, where a scenario has such figures: name, heading, decimals.
const COLUMNS: &[(&str, &str, usize)] = &[
    (figures::CPU, "CPU us/request", 1),
    (figures::TRANSFER_CPU, "CPU s", 2),
    (figures::SYSTEM, "in kernel", 2),
    (figures::RATE, "requests/s", 0),
    (figures::P50, "p50 us", 0),
    (figures::P99, "p99 us", 0),
    (figures::TRANSFER, "seconds", 2),
    (figures::PEAK, "peak above idle MiB", 1),
    (figures::MEMORY, "RSS MiB", 1),
    (figures::START, "start ms", 1),
    (figures::START_BEYOND_EXCHANGE, "less exchange ms", 1),
    (figures::IDLE, "idle RSS MiB", 1),
    (figures::IDLE_PROPORTIONAL, "idle PSS MiB", 1),
    (figures::PROXY_CORE, "its core", 2),
    (figures::ORIGIN_CORE, "origin's core", 2),
];

/// All figures of one proxy in one scenario that are called `name`, one for each round.
pub fn figures_of(samples: &[Sample], scenario: &str, proxy: &str, name: &str) -> Vec<f64> {
    let its = samples.iter().filter(|sample| sample.scenario == scenario && sample.proxy == proxy);
    its.filter_map(|sample| sample.figures.get(name).copied()).collect()
}

/// A table for each scenario.
pub fn print(scenarios: &[&Scenario], proxies: &[Proxy], samples: &[Sample]) {
    for scenario in scenarios {
        println!("\n{}: {}", scenario.name, scenario.about);
        println!("{}", table(scenario, proxies, samples));
    }
}

fn table(scenario: &Scenario, proxies: &[Proxy], samples: &[Sample]) -> String {
    let of = |proxy: &Proxy, name: &str| figures_of(samples, scenario.name, proxy.name(), name);
    let columns: Vec<_> =
        COLUMNS.iter().filter(|(name, ..)| proxies.iter().any(|proxy| !of(proxy, name).is_empty())).collect();
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(columns.iter().map(|(_, heading, _)| (*heading).to_owned()));
    for proxy in proxies {
        let mut row = vec![proxy.name().to_owned()];
        row.extend(columns.iter().map(|(name, _, decimals)| spread(&of(proxy, name), *decimals)));
        rows.push(row);
    }
    let mut text = aligned(&rows);
    for sample in samples.iter().filter(|sample| sample.scenario == scenario.name) {
        for note in &sample.notes {
            text.push_str(&format!("  {}, round {}: {note}\n", sample.proxy, sample.round));
        }
    }
    text
}

/// The median, and the smallest and the largest where they differ.
fn spread(figures: &[f64], decimals: usize) -> String {
    if figures.is_empty() {
        return "-".to_owned();
    }
    let middle = format!("{:.decimals$}", median(figures));
    let least = format!("{:.decimals$}", figures.iter().copied().fold(f64::INFINITY, f64::min));
    let most = format!("{:.decimals$}", figures.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    if least == most { middle } else { format!("{middle} ({least}..{most})") }
}

/// Columns as wide as their longest cell; names to the left, figures to the right.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(&format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end()));
    }
    text
}
