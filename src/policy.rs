//! What may pass: rules by method and path, a list of what is closed unless a rule opens it, and presets.
//!
//! A path is judged by what AEM may take it for, not by how it is spelled: [`Path`] reads it as Jetty and Apache Sling do. What
//! can be read in several ways is refused, or, under [`Preset::Full`], passes if no reading of it is denied. Pure
//! functions; nothing here knows of sockets or of the configuration.

mod closed;
mod decode;
mod methods;
mod normal;
mod outline;
mod pattern;
mod presets;
mod query;
mod rules;
mod selectors;
mod sequences;
mod words;

use self::{
    closed::Possible,
    outline::Outline,
    sequences::{Found, Sequences},
};

pub use self::{
    methods::Methods,
    normal::{Path, Reading, without_query},
    presets::{Preset, UnknownPreset},
    query::Asks,
    rules::{Rule, RuleError},
};

/// What one route lets through: its own rules are asked first, then what is closed by default, then the preset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    preset: Preset,
    rules: Vec<Rule>,
    /// How many names of a path they look at.
    depth: usize,
    /// The words of every rule, by its number.
    words: Sequences,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A rule of the operator's denies it.
    #[error("a rule denies the path")]
    Rule,
    /// It is one of the consoles and the like that are closed by default.
    #[error("the path is closed by default")]
    Closed,
    /// The preset does not let it through.
    #[error("the preset does not let the path through")]
    Preset,
    /// With one of these methods it would pass.
    #[error("the policy does not let the method through")]
    Method(Methods),
    /// It can be read in more than one way.
    #[error("the path can be read in more than one way")]
    Ambiguous,
    /// It names another method or operation beside its method.
    #[error("the request names another method or operation beside its method")]
    Override,
    /// It names another user than the credential's.
    #[error("the request names another user")]
    User,
    /// It would write to a place that the policy closes.
    #[error("the policy does not let the destination through")]
    Destination,
}

impl Policy {
    /// The rules in the order in which they are asked, and the preset for what none of them is for.
    pub fn new(preset: Preset, rules: Vec<Rule>) -> Self {
        let depths = rules.iter().map(Rule::depth).chain([preset.depth()]);
        let depth = depths.max().unwrap_or_default();
        let words = Sequences::new(rules.iter().map(Rule::denied_words));
        Self { preset, rules, depth, words }
    }

    /// The preset.
    pub fn preset(&self) -> Preset {
        self.preset
    }

    /// The rules, in the order in which they are asked.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether it is the one that holds where nothing is said.
    pub fn is_default(&self) -> bool {
        self.preset == Preset::Full && self.rules.is_empty()
    }

    /// Judges one reading of a path: the first rule that is for it decides.
    ///
    /// # Errors
    /// When it is denied.
    pub fn judge(&self, method: &str, reading: Reading<'_>) -> Result<(), Refused> {
        self.judge_outline(method, &self.outline(reading))
    }

    fn outline<'r>(&self, reading: Reading<'r>) -> Outline<'r> {
        Outline::of(reading, self.depth)
    }

    fn judge_outline(&self, method: &str, outline: &Outline<'_>) -> Result<(), Refused> {
        if methods::echoes(method) {
            return Err(Refused::Preset);
        }
        if let Some(rule) = self.rules.iter().find(|rule| rule.covers(method, outline)) {
            return if rule.is_allow() { Ok(()) } else { Err(Refused::Rule) };
        }
        if outline.is_closed(method) {
            return Err(Refused::Closed);
        }
        if self.preset.allows(method, outline) { Ok(()) } else { Err(Refused::Preset) }
    }

    /// Judges one reading of a persisted query that has others. No rule allows such a path.
    fn judge_persisted(&self, method: &str, outline: &Outline<'_>) -> Result<(), Refused> {
        if self.rules.iter().any(|rule| rule.may_deny(method) && rule.covers(method, outline)) {
            return Err(Refused::Rule);
        }
        let passes = !outline.is_closed(method) && self.preset.allows(method, outline);
        if passes { Ok(()) } else { Err(Refused::Preset) }
    }

    /// Whether a rule may deny a path that can be read in more than one way, by the words in it, if they are known. No rule allows
    /// such a path.
    fn may_deny(&self, method: &str, found: Option<&Found>) -> bool {
        let mut numbered = self.rules.iter().enumerate();
        numbered.any(|(number, rule)| rule.may_deny(method) && found.is_none_or(|found| found.holds(number)))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new(Preset::Full, Vec::new())
    }
}

/// Judges a path in all its readings, each by the policy of the route that would have it, which `of` tells; where nobody
/// knows which route that is, by `all`.
///
/// # Errors
/// When one of them is denied. If it would pass with another method, that is the reason.
pub fn judge<'p, P: Iterator<Item = &'p Policy>>(
    method: &str,
    path: &Path<'_>,
    of: impl Fn(&[u8]) -> &'p Policy,
    all: impl Fn() -> P,
) -> Result<(), Refused> {
    Case::of(path, of, all).judge(method)
}

/// A path with the policies that judge it. The path is looked through once, for however many methods it is judged.
pub struct Case<'c, 'p>(Kind<'c, 'p>);

enum Kind<'c, 'p> {
    /// It passes if all its readings do.
    Readings(Vec<(&'p Policy, Outline<'c>)>),
    /// It can be read in more than one way: it passes if none of its words is of something that is denied.
    Words(Possible, Vec<(&'p Policy, Found)>),
    /// A persisted query whose values can be read in more than one way: it passes if all its readings
    /// do, and if no rule may deny it by its words. `None` if these are not known.
    Persisted(Box<Persisted<'c, 'p>>),
    /// It can be read in more than one way, and passes for no method.
    Refused,
}

/// The readings, and the words for each policy that judges them.
struct Persisted<'c, 'p> {
    readings: Vec<(&'p Policy, Outline<'c>)>,
    found: Vec<(&'p Policy, Option<Found>)>,
}

impl<'c, 'p> Case<'c, 'p> {
    /// Looks through a path. See [`judge`] for the policies.
    pub fn of<P: Iterator<Item = &'p Policy>>(
        path: &'c Path<'_>,
        of: impl Fn(&[u8]) -> &'p Policy,
        all: impl Fn() -> P,
    ) -> Self {
        let outlined = |reading: Reading<'c>| {
            let policy = of(reading.path);
            (policy, policy.outline(reading))
        };
        Self(match path {
            Path::Ambiguous { words: Some(words), .. }
                if all().all(|policy| policy.preset == Preset::Full) =>
            {
                let found = all().map(|policy| (policy, policy.words.find(words))).collect();
                Kind::Words(Possible::of(words), found)
            }
            Path::Ambiguous { words, persisted: Some(readings), .. } => {
                Kind::persisted(readings.each().map(outlined).collect(), words.as_deref())
            }
            Path::Ambiguous { .. } => Kind::Refused,
            _ => Kind::Readings(path.readings().map(outlined).collect()),
        })
    }

    /// Judges it for a method.
    ///
    /// # Errors
    /// As [`judge`].
    pub fn judge(&self, method: &str) -> Result<(), Refused> {
        self.passes(method).map_err(|refused| {
            let others = || Methods::those(|method| self.passes(method).is_ok());
            if refused == Refused::Ambiguous { refused } else { others().map_or(refused, Refused::Method) }
        })
    }

    fn passes(&self, method: &str) -> Result<(), Refused> {
        match &self.0 {
            Kind::Readings(readings) => {
                readings.iter().try_for_each(|(policy, outline)| policy.judge_outline(method, outline))
            }
            Kind::Words(possible, found) => {
                let is_denied = methods::echoes(method)
                    || possible.covers(method)
                    || found.iter().any(|(policy, found)| policy.may_deny(method, Some(found)));
                if is_denied { Err(Refused::Ambiguous) } else { Ok(()) }
            }
            Kind::Persisted(persisted) => {
                let Persisted { readings, found } = &**persisted;
                if found.iter().any(|(policy, found)| policy.may_deny(method, found.as_ref())) {
                    return Err(Refused::Ambiguous);
                }
                let mut readings = readings.iter();
                readings.try_for_each(|(policy, outline)| policy.judge_persisted(method, outline))
            }
            Kind::Refused => Err(Refused::Ambiguous),
        }
    }
}

impl<'c, 'p> Kind<'c, 'p> {
    /// Refused unless every reading is for a policy with the preset for persisted queries.
    fn persisted(readings: Vec<(&'p Policy, Outline<'c>)>, words: Option<&[u8]>) -> Self {
        if readings.iter().any(|(policy, _)| policy.preset != Preset::GraphqlPersisted) {
            return Self::Refused;
        }
        let mut found: Vec<(&Policy, Option<Found>)> = Vec::new();
        for (policy, _) in &readings {
            if !found.iter().any(|(known, _)| std::ptr::eq(*known, *policy)) {
                found.push((policy, words.map(|words| policy.words.find(words))));
            }
        }
        Self::Persisted(Box::new(Persisted { readings, found }))
    }
}

#[cfg(test)]
mod linear;
#[cfg(test)]
mod tests;
