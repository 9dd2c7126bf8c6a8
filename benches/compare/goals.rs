//! What the proxy is held to: `goals.toml`, judged by the samples.

use figment::{
    Figment,
    providers::{Format, Toml},
};
use serde::{Deserialize, Serialize};

use crate::{
    failure::{Context, Failure, Result},
    peers::Proxy,
    report,
    scenarios::{self, Sample, median},
};

/// One goal, as it stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    name: String,
    scenario: String,
    figure: String,
    at_most: Option<f64>,
    at_least: Option<f64>,
    /// Whose figure the limit is a multiple of.
    of: Option<String>,
    from: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    goal: Vec<Goal>,
}

/// What came of a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It does.
    Holds,
    /// It does not.
    DoesNotHold,
    /// The scenario was not run, or the peer is missing.
    NotMeasured,
}

/// A goal, judged.
#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    /// The goal in words.
    pub goal: String,
    /// Who set it.
    pub from: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Our figure.
    pub ours: Option<f64>,
    /// The peer's, where there is one.
    pub peer: Option<f64>,
    /// The limit in words: `at most 0.80 x nginx`.
    pub limit: String,
}

/// The goals of the tree.
///
/// # Errors
/// When the file names something that there is not.
pub fn read() -> Result<Vec<Goal>> {
    let file: File =
        Figment::from(Toml::string(include_str!("goals.toml"))).extract().context("goals.toml")?;
    for goal in &file.goal {
        let is_known = scenarios::ALL.iter().any(|scenario| scenario.name == goal.scenario)
            && goal.of.iter().all(|of| Proxy::ALL.iter().any(|proxy| proxy.name() == of))
            && goal.at_most.is_some() != goal.at_least.is_some();
        if !is_known {
            return Err(Failure(format!("goals.toml: {:?} cannot be judged", goal.name)));
        }
    }
    Ok(file.goal)
}

impl Goal {
    /// Judges by the medians.
    pub fn judge(&self, samples: &[Sample]) -> Judged {
        let middle = |proxy: &str| {
            let figures = report::figures_of(samples, &self.scenario, proxy, &self.figure);
            (!figures.is_empty()).then(|| median(&figures))
        };
        let ours = middle(Proxy::Ours.name());
        let peer = self.of.as_deref().and_then(middle);
        let measure = if self.of.is_some() { peer } else { Some(1.0) };
        let outcome = match (ours, measure) {
            (Some(ours), Some(measure)) if self.allows(ours / measure) => Outcome::Holds,
            (Some(_), Some(_)) => Outcome::DoesNotHold,
            _ => Outcome::NotMeasured,
        };
        Judged { goal: self.name.clone(), from: self.from.clone(), outcome, ours, peer, limit: self.limit() }
    }

    fn allows(&self, figure: f64) -> bool {
        self.at_most.is_none_or(|most| figure <= most) && self.at_least.is_none_or(|least| figure >= least)
    }

    fn limit(&self) -> String {
        let (relation, limit) = match (self.at_most, self.at_least) {
            (Some(most), _) => ("at most", most),
            (None, least) => ("at least", least.unwrap_or_default()),
        };
        match &self.of {
            Some(of) => format!("{relation} {limit:.2} x {of}"),
            None => format!("{relation} {limit:.0}"),
        }
    }
}

impl Judged {
    /// As a row of a table: goal, limit, ours, the peer's, the ratio, the outcome, who set it.
    pub fn row(&self) -> Vec<String> {
        // Seconds of CPU are small.
        let figure = |figure: Option<f64>| match figure {
            Some(figure) if figure < 1.0 => format!("{figure:.3}"),
            Some(figure) => format!("{figure:.1}"),
            None => "-".to_owned(),
        };
        let ratio = self.ours.zip(self.peer).map(|(ours, peer)| format!("{:.2}", ours / peer));
        let outcome = match self.outcome {
            Outcome::Holds => "holds",
            Outcome::DoesNotHold => "does not hold",
            Outcome::NotMeasured => "not measured",
        };
        vec![
            self.goal.clone(),
            self.limit.clone(),
            figure(self.ours),
            figure(self.peer),
            ratio.unwrap_or_else(|| "-".to_owned()),
            outcome.to_owned(),
            self.from.clone(),
        ]
    }
}

/// The headings of [`Judged::row`].
pub const HEADINGS: [&str; 7] = ["goal", "limit", "ours", "peer", "ratio", "outcome", "from"];
