//! What an attack did, which rules it broke, and the table.

use std::time::Duration;

use crate::{
    cgroup,
    floods::Attack,
    harness::{proxy::Stop, usage::Usage},
    innocent::Seen,
};

/// The figures of one attack.
#[derive(Debug, Default)]
pub struct Outcome {
    pub name: &'static str,
    pub about: &'static str,
    /// Before the attack, with the innocent clients connected.
    pub idle: Usage,
    /// At the end of the attack.
    pub at_end: Usage,
    /// After all attackers have left.
    pub after: Usage,
    /// When memory was back at 1.5 times the idle memory, and stayed there.
    pub back_after: Option<Duration>,
    /// The budget, in KiB.
    pub limit_kib: f64,
    pub client: Seen,
    pub live: Seen,
    /// AEM without the proxy.
    pub straight: Seen,
    /// None where the log did not go to a file.
    pub log_lines: Option<usize>,
    pub stop: Option<Stop>,
    /// Exchanges at IMS during the attack.
    pub exchanges: usize,
    /// Connections of the attackers that the proxy closed or refused.
    pub closed: u64,
    /// Bytes of the attackers, without framing and TLS.
    pub sent: u64,
    pub cgroup: Option<cgroup::Seen>,
    pub settle: Duration,
    pub last_words: String,
    /// Why the attack was left out.
    pub left_out: Option<String>,
    /// The rules that do not hold, in words.
    pub broken: Vec<String>,
    /// Whether one of them is about the process itself: its peak, `/live`, its end. The others are about how fast it is itself
    /// again, and depend on the machine's load.
    pub fails: bool,
}

impl Outcome {
    /// An attack that could not begin, which breaks a rule of its own.
    pub fn not_run(attack: &Attack, why: String) -> Self {
        Self {
            name: attack.name,
            about: attack.about,
            broken: vec![format!("not run: {why}")],
            fails: true,
            ..Self::default()
        }
    }

    /// An attack that cannot be run on this machine.
    pub fn left_out(attack: &Attack, why: String) -> Self {
        Self { name: attack.name, about: attack.about, left_out: Some(why), ..Self::default() }
    }

    /// Applies the rules.
    pub fn judge(&mut self, attack: &Attack) {
        let (mut broken, mut fails) = (Vec::new(), false);
        let mut rule = |holds: bool, words: String| {
            if !holds {
                let of_recovery =
                    ["RSS", "innocent client", "peak"].iter().any(|begin| words.starts_with(begin));
                fails |= !of_recovery || words.ends_with("never had an answer of 200");
                broken.push(words);
            }
        };
        let peak = self.peak();
        let allowed = self.idle.rss as f64 + PEAK_SHARE * self.limit_kib;
        rule(
            peak as f64 <= allowed,
            format!("peak RSS {} MiB, at most {} MiB", mib(peak), mib(allowed as u64)),
        );
        rule(
            self.back_after.is_some(),
            format!(
                "RSS {} MiB after {} s, at most 1.5 x {} MiB",
                mib(self.after.rss),
                self.settle.as_secs(),
                mib(self.idle.rss)
            ),
        );
        for (who, seen, refusals_count) in
            [("innocent client", &self.client, !attack.may_refuse), ("/live", &self.live, true)]
        {
            // Where AEM itself is slow, it is the machine that is; a proxy waits for its turn more often.
            let slowest = SLOWEST + self.straight.slowest * 3;
            rule(
                seen.slowest <= slowest,
                format!("{who} waited {} ms, at most {}", seen.slowest.as_millis(), slowest.as_millis()),
            );
            rule(
                seen.failed == 0,
                format!(
                    "{who} failed {} times: {}",
                    seen.failed,
                    seen.first_failure.clone().unwrap_or_default()
                ),
            );
            rule(
                seen.refused == 0 || !refusals_count,
                format!("{who} was answered 503 {} times", seen.refused),
            );
            rule(seen.answered > 0, format!("{who} never had an answer of 200"));
        }
        match self.stop {
            Some(Stop::Before(status)) => rule(false, format!("the process ended: {status}")),
            Some(Stop::Asked(status, _)) => rule(status.success(), format!("SIGTERM ended it with {status}")),
            Some(Stop::Never) => rule(false, "SIGTERM did not end it within 30 s".to_owned()),
            None => {}
        }
        if let Some(max) = attack.exchanges_max {
            rule(self.exchanges <= max, format!("{} exchanges at IMS, at most {max}", self.exchanges));
        }
        if let (Some(max), Some(lines)) = (attack.log_lines_max, self.log_lines) {
            rule(lines <= max, format!("{lines} lines in the log, at most {max}"));
        }
        if let Some(seen) = self.cgroup {
            rule(seen.killed == 0, format!("killed for memory in the control group {} times", seen.killed));
        }
        let far_over = peak as f64 > self.idle.rss as f64 + GATE_SHARE * self.limit_kib;
        (self.broken, self.fails) = (broken, fails || far_over);
    }

    /// The larger of what was sampled and what the kernel says.
    fn peak(&self) -> u64 {
        self.after.peak_rss.max(self.after.high_water)
    }

    /// One line, as soon as the attack is over.
    pub fn line(&self) -> String {
        if let Some(why) = &self.left_out {
            return format!("{:24} left out: {why}", self.name);
        }
        let verdict = if self.broken.is_empty() { "holds".to_owned() } else { self.broken.join("; ") };
        let sent = self.sent >> 10;
        let cpu = (self.at_end.cpu_ticks.saturating_sub(self.idle.cpu_ticks)) as f64 / 100.0;
        let words = match self.stop {
            Some(Stop::Before(_)) => format!("\n    {}", self.last_words.replace('\n', "\n    ")),
            _ => String::new(),
        };
        format!(
            "{:24} {} -> {} -> {} MiB, {} descriptors, {} threads, {cpu:.1} s CPU, {} KiB sent, {} closed: {verdict}{words}",
            self.name,
            mib(self.idle.rss),
            mib(self.peak()),
            mib(self.after.rss),
            self.after.descriptors,
            self.after.threads,
            sent,
            self.closed,
        )
    }

    fn cells(&self) -> Vec<String> {
        let seen = |seen: &Seen| {
            let mut text = format!("{} ms", seen.slowest.as_millis());
            if seen.refused > 0 {
                text.push_str(&format!(", {} x 503", seen.refused));
            }
            if seen.failed > 0 {
                text.push_str(&format!(", {} failed", seen.failed));
            }
            text
        };
        let mut cells = vec![
            self.name.to_owned(),
            self.about.to_owned(),
            mib(self.idle.rss),
            mib(self.peak()),
            match self.back_after {
                Some(after) => format!("{} ({:.1} s)", mib(self.after.rss), after.as_secs_f64()),
                None => mib(self.after.rss),
            },
            self.after.descriptors.to_string(),
            self.after.threads.to_string(),
            seen(&self.client),
            seen(&self.live),
            seen(&self.straight),
            self.log_lines.map_or_else(|| "-".to_owned(), |lines| lines.to_string()),
        ];
        if let Some(seen) = self.cgroup {
            cells.push(mib(seen.peak >> 10));
            cells.push(seen.at_limit.to_string());
            cells.push(seen.killed.to_string());
        }
        let verdict = match (&self.left_out, self.broken.is_empty()) {
            (Some(_), _) => "left out",
            (None, true) => "holds",
            (None, false) => "BROKEN",
        };
        cells.push(verdict.to_owned());
        cells
    }
}

/// All attacks, aligned or in Markdown.
pub fn table(outcomes: &[Outcome], markdown: bool) -> String {
    let mut header = vec![
        "attack",
        "what it does",
        "idle",
        "peak",
        "after",
        "fds",
        "threads",
        "innocent client",
        "/live",
        "straight",
        "log lines",
    ];
    if outcomes.iter().any(|outcome| outcome.cgroup.is_some()) {
        header.extend(["group peak", "at limit", "killed"]);
    }
    header.push("rules");
    let header: Vec<String> = header.into_iter().map(str::to_owned).collect();
    let mut rows = vec![header.clone()];
    rows.extend(outcomes.iter().map(|outcome| {
        let mut cells = outcome.cells();
        while cells.len() < header.len() {
            cells.insert(cells.len() - 1, String::new());
        }
        cells
    }));
    if markdown {
        let mut text = String::new();
        for (index, row) in rows.iter().enumerate() {
            text.push_str(&format!("| {} |\n", row.join(" | ")));
            if index == 0 {
                text.push_str(&format!("|{}\n", "---|".repeat(row.len())));
            }
        }
        return text;
    }
    // What an attack does is long: the table is for a terminal.
    for row in &mut rows {
        row.remove(1);
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// KiB as MiB.
fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

/// How much of the budget the peak may be above the idle memory: allocators round up, and the kernel
/// counts whole pages.
const PEAK_SHARE: f64 = 1.2;

/// The same where it fails the gate, whose machine may be busy with other things.
const GATE_SHARE: f64 = 1.5;

/// How long an innocent client may wait.
const SLOWEST: Duration = Duration::from_secs(1);
