//! What may pass: rules by method and path, a list of what is closed unless a rule opens it, and presets.
//!
//! A path is judged by what AEM may take it for, not by how it is spelled: [`Path`] reads it as Jetty and Apache Sling do. What
//! can be read in several ways is refused, or, under [`Preset::Full`], passes if no reading of it is denied. Pure
//! functions; nothing here knows of sockets or of the configuration.

mod closed;
mod decode;
mod methods;
mod normal;
mod pattern;
mod presets;
mod query;
mod rules;
mod words;

pub use self::{
    methods::Methods,
    normal::{Path, Reading},
    presets::{Preset, UnknownPreset},
    query::names_operation,
    rules::{Rule, RuleError},
};

/// What one route lets through: its own rules are asked first, then what is closed by default, then the preset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    preset: Preset,
    rules: Vec<Rule>,
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
    /// It would write to a place that the policy closes.
    #[error("the policy does not let the destination through")]
    Destination,
}

impl Policy {
    /// The rules in the order in which they are asked, and the preset for what none of them is for.
    pub fn new(preset: Preset, rules: Vec<Rule>) -> Self {
        Self { preset, rules }
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
        if methods::echoes(method) {
            return Err(Refused::Preset);
        }
        if let Some(rule) = self.rules.iter().find(|rule| rule.covers(method, reading)) {
            return if rule.is_allow() { Ok(()) } else { Err(Refused::Rule) };
        }
        if closed::covers(method, reading.path) {
            return Err(Refused::Closed);
        }
        if self.preset.allows(method, reading) { Ok(()) } else { Err(Refused::Preset) }
    }

    /// Judges a path that can be read in more than one way, by the words that stand in it. No rule allows such a path.
    fn judge_ambiguous(&self, method: &str, words: Option<&[u8]>) -> Result<(), Refused> {
        let Some(words) = words.filter(|_| self.preset == Preset::Full && !methods::echoes(method)) else {
            return Err(Refused::Ambiguous);
        };
        let denied = self.rules.iter().any(|rule| rule.may_deny(method, words));
        if denied || closed::may_cover(method, words) { Err(Refused::Ambiguous) } else { Ok(()) }
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
    let judged = |method: &str| {
        path.readings().try_for_each(|reading| of(reading.path).judge(method, reading))?;
        match path {
            Path::Ambiguous { words, .. } => {
                all().try_for_each(|policy| policy.judge_ambiguous(method, words.as_deref()))
            }
            _ => Ok(()),
        }
    };
    judged(method).map_err(|refused| match Methods::those(|method| judged(method).is_ok()) {
        Some(methods) if refused != Refused::Ambiguous => Refused::Method(methods),
        _ => refused,
    })
}

#[cfg(test)]
mod tests;
