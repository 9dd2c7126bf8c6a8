//! What a run leaves behind: `results.json` for machines, `results.md` and `cpu.svg` for people.

use std::{fs, path::Path, time::UNIX_EPOCH};

use aem_auth_proxy::clock::{self, Clock};
use serde::Serialize;
use tokio::process::Command;

use crate::{
    failure::{Context, Result},
    goals::{HEADINGS, Judged},
    peers::{Programs, Proxy},
    plot, report,
    scenarios::{Sample, Scenario},
};

/// Everything about a run.
#[derive(Debug, Serialize)]
pub struct Results {
    /// When it was made, in UTC.
    pub at: String,
    /// What was measured: the commit that the bench was built from.
    pub commit: &'static str,
    /// Where.
    pub machine: Machine,
    /// What each proxy says of its version, by name.
    pub versions: Vec<(&'static str, String)>,
    /// The measured seconds of each loop.
    pub seconds: f64,
    /// How often everything was measured.
    pub rounds: usize,
    /// Keys of our configuration and their values, beside the defaults.
    pub settings: Vec<(String, String)>,
    /// All that was measured.
    pub samples: Vec<Sample>,
    /// What came of the goals.
    pub goals: Vec<Judged>,
}

/// What a figure depends on beside the program.
#[derive(Debug, Serialize)]
pub struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    congestion_control: String,
}

impl Machine {
    /// As the system tells.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Self {
            cpu: value(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.div_ceil(1024 * 1024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
        }
    }

    /// In a line.
    pub fn line(&self) -> String {
        let Self { cpu, cores, memory_gib, kernel, congestion_control } = self;
        format!("{cores} cores of {cpu}, {memory_gib} GiB, Linux {kernel}, TCP {congestion_control}")
    }
}

/// Now, in UTC.
pub fn now() -> String {
    clock::rfc3339(Clock::system().now().max(UNIX_EPOCH))
}

/// What each program says of its version: its first line.
pub async fn versions(programs: &Programs, proxies: &[Proxy]) -> Vec<(&'static str, String)> {
    let mut versions = Vec::new();
    for proxy in proxies.iter().filter(|proxy| **proxy != Proxy::Relay) {
        let Some(program) = programs.find(*proxy) else { continue };
        let flag = if matches!(proxy, Proxy::Nginx | Proxy::Haproxy) { "-v" } else { "--version" };
        let Ok(output) = Command::new(program).arg(flag).output().await else { continue };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        // Envoy's line begins with its own path.
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let line = line.split_once("version: ").map_or(line, |(_, version)| version).trim();
        versions.push((proxy.name(), line.to_owned()));
    }
    versions
}

impl Results {
    /// Writes all files into `directory`.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn save(&self, directory: &Path, scenarios: &[&Scenario], proxies: &[Proxy]) -> Result<()> {
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).context(path.display())
        };
        fs::create_dir_all(directory).context(directory.display())?;
        write("results.json", &(serde_json::to_string_pretty(self).context("results")? + "\n"))?;
        write("results.md", &self.paper(scenarios, proxies))?;
        match self.picture() {
            Some(picture) => write(PICTURE, &picture),
            None => Ok(()),
        }
    }

    fn picture(&self) -> Option<String> {
        plot::cpu(&self.samples, PLOTTED)
    }

    fn paper(&self, scenarios: &[&Scenario], proxies: &[Proxy]) -> String {
        let mut text = format!(
            "# Results\n\n\
             Written by `cargo bench --bench compare -- --save docs/benchmarks`. What it means and how to repeat it is in\n\
             [benchmarks.md](../benchmarks.md).\n\n\
             - {}, commit {}\n\
             - {}\n\
             - {} rounds, {} s for each loop; medians, and in parentheses the smallest and the largest\n",
            self.at,
            self.commit,
            self.machine.line(),
            self.rounds,
            self.seconds,
        );
        for (name, version) in &self.versions {
            text.push_str(&format!("- {name}: {version}\n"));
        }
        for (key, value) in &self.settings {
            text.push_str(&format!("- ours with `{key}` = `{value}`\n"));
        }
        if self.picture().is_some() {
            text.push_str(&format!("\n![CPU time of each proxy for one request]({PICTURE})\n"));
        }
        text.push_str("\n## Goals\n\n");
        text.push_str(&markdown(&self.goal_rows()));
        for scenario in scenarios {
            let rows = report::rows(scenario, proxies, &self.samples);
            text.push_str(&format!("\n## {}\n\n{}.\n\n{}", scenario.name, scenario.about, markdown(&rows)));
            let notes = report::notes(scenario, &self.samples);
            if !notes.is_empty() {
                text.push('\n');
            }
            notes.iter().for_each(|note| text.push_str(&format!("- {note}\n")));
        }
        text
    }

    /// A table of the goals, headings first.
    pub fn goal_rows(&self) -> Vec<Vec<String>> {
        let headings = HEADINGS.map(str::to_owned).to_vec();
        std::iter::once(headings).chain(self.goals.iter().map(Judged::row)).collect()
    }
}

/// A table as Markdown has it; the first row is its heading.
fn markdown(rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        text.push_str(&line(row));
        if index == 0 {
            text.push_str(&line(&vec!["---".to_owned(); row.len()]));
        }
    }
    text
}

const PICTURE: &str = "cpu.svg";

/// The scenarios in the picture, and what they are called there.
const PLOTTED: &[(&str, &str)] =
    &[("small-64", "1 KiB answers, 64 connections"), ("small-512", "1 KiB answers, 512 connections")];
