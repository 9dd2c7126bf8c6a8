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
        print!("{}", aligned(&rows(scenario, proxies, samples)));
        notes(scenario, samples).iter().for_each(|note| println!("  {note}"));
    }
}

/// A scenario's table: headings first, then a row for each proxy.
pub fn rows(scenario: &Scenario, proxies: &[Proxy], samples: &[Sample]) -> Vec<Vec<String>> {
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
    rows
}

/// What a reader has to know of a scenario's samples.
pub fn notes(scenario: &Scenario, samples: &[Sample]) -> Vec<String> {
    let its = samples.iter().filter(|sample| sample.scenario == scenario.name);
    its.flat_map(|sample| {
        sample.notes.iter().map(|note| format!("{}, round {}: {note}", sample.proxy, sample.round))
    })
    .collect()
}

/// Says so, where others disturbed some of these samples.
pub fn print_disturbed(samples: &[Sample]) {
    let disturbed = samples.iter().filter(|sample| sample.is_disturbed()).count();
    if disturbed > 0 {
        println!("  {disturbed} of {} runs were disturbed by others on this machine", samples.len());
    }
}

/// The median, and the smallest and the largest where they differ.
pub fn spread(figures: &[f64], decimals: usize) -> String {
    if figures.is_empty() {
        return "-".to_owned();
    }
    let middle = format!("{:.decimals$}", median(figures));
    let least = format!("{:.decimals$}", figures.iter().copied().fold(f64::INFINITY, f64::min));
    let most = format!("{:.decimals$}", figures.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    if least == most { middle } else { format!("{middle} ({least}..{most})") }
}

/// Columns as wide as their longest cell: words to the left, figures to the right.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let widths: Vec<usize> =
        (0..columns).map(|column| cells(column).map(String::len).max().unwrap_or(0)).collect();
    let is_figure =
        |cell: &String| cell.starts_with(|first: char| first.is_ascii_digit() || "+-".contains(first));
    let are_figures: Vec<bool> = (0..columns).map(|column| cells(column).skip(1).all(is_figure)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths.iter().zip(&are_figures)).map(|(cell, (width, is_figure))| {
            if *is_figure { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(&format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end()));
    }
    text
}
