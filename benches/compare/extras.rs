//! What single settings cost: ours with one switch of `extras.toml` at a time, in turns with the defaults.

use std::collections::BTreeMap;

use figment::{
    Figment,
    providers::{Format, Toml},
};
use serde::Deserialize;

use crate::{
    failure::{Context, Result},
    load, origin,
    peers::{Programs, Proxy, Setup},
    report,
    running::Origin,
    scenarios::{Times, figures, loaded, median},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    switch: Vec<Switch>,
}

/// One setting.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    name: String,
    #[serde(default)]
    keys: BTreeMap<String, String>,
    #[serde(default)]
    open: bool,
    #[serde(default)]
    http2: bool,
    #[serde(default)]
    large: bool,
}

impl Switch {
    /// The same load with the answers that it is for.
    fn of(&self, arguments: load::Arguments) -> load::Arguments {
        if !self.large {
            return arguments;
        }
        load::Arguments {
            path: origin::LARGE.to_owned(),
            body_bytes: origin::LARGE_BYTES as u64,
            ..arguments
        }
    }
}

/// Measures all switches and prints a table.
///
/// # Errors
/// When the file cannot be read.
pub async fn run(programs: &Programs, origin: &Origin, rounds: usize, times: Times) -> Result<()> {
    let File { switch: mut switches } =
        Figment::from(Toml::string(include_str!("extras.toml"))).extract().context("extras.toml")?;
    switches.insert(0, Switch { name: DEFAULTS.to_owned(), ..Switch::default() });
    let mut samples = Vec::new();
    for round in 1..=rounds {
        for switch in &switches {
            let keys = programs.settings.iter().cloned().chain(switch.keys.clone()).collect();
            let setup = Setup {
                keys,
                is_open: switch.open,
                is_http2: switch.http2,
                ..Setup::of(Proxy::Ours, programs)
            };
            let run = loaded(&setup, programs, origin, |arguments| load::Arguments {
                connections: CONNECTIONS,
                ..switch.of(times.of(arguments))
            });
            match run.await {
                Ok(run) => samples.push(run.loop_sample(NAME, &switch.name, round)),
                Err(error) => eprintln!("round {round}, {}: {error}", switch.name),
            }
        }
        eprintln!("round {round} of {rounds}");
    }

    let of = |switch: &Switch, name| report::figures_of(&samples, NAME, &switch.name, name);
    let headings = ["", "CPU us/request", "against the defaults", "requests/s", "p99 us", "RSS MiB"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    let defaults = median(&of(&switches[0], figures::CPU));
    for switch in &switches {
        let more = (median(&of(switch, figures::CPU)) / defaults - 1.0) * 100.0;
        let more = if more.is_nan() { "-".to_owned() } else { format!("{more:+.1} %") };
        rows.push(vec![
            switch.name.clone(),
            report::spread(&of(switch, figures::CPU), 1),
            more,
            report::spread(&of(switch, figures::RATE), 0),
            report::spread(&of(switch, figures::P99), 0),
            report::spread(&of(switch, figures::MEMORY), 1),
        ]);
    }
    println!(
        "\nsettings: 1 KiB of JSON where nothing else is said, {CONNECTIONS} connections\n{}",
        report::aligned(&rows)
    );
    report::print_disturbed(&samples);
    Ok(())
}

const NAME: &str = "extras";
const DEFAULTS: &str = "defaults";
const CONNECTIONS: usize = 64;
