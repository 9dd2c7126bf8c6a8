//! What passes: presets and rules.

use std::sync::Arc;

use super::Checker;
use crate::policy::{Policy, Preset, Rule, UnknownPreset};

impl Checker<'_> {
    /// The policy at the top, for proxies that say nothing of it.
    pub(super) fn common_policy(&mut self, policy: &str, rules: &[String]) -> Arc<Policy> {
        self.policy("", Some(policy), rules, &Policy::default())
    }

    /// What a table says of its policy, and for the rest `outer`, the one around it. Its own rules are asked first, so that it
    /// may open what is closed around it, and none is lost.
    pub(super) fn policy(
        &mut self,
        table: &str,
        policy: Option<&str>,
        rules: &[String],
        outer: &Policy,
    ) -> Arc<Policy> {
        let key = |last: &str| if table.is_empty() { last.to_owned() } else { format!("{table}.{last}") };
        let preset = policy.map_or(Some(outer.preset()), |name| self.preset(&key("policy"), name));
        let mut all = Vec::new();
        for (number, text) in rules.iter().enumerate() {
            match text.parse::<Rule>() {
                Ok(rule) => all.push(rule),
                Err(error) => {
                    let what = format!("has a line, the {}, that {error}", ordinal(number + 1));
                    self.wrong(&key("rules"), what, error.mend());
                }
            }
        }
        all.extend_from_slice(outer.rules());
        // Another one stands there until all problems are told.
        Arc::new(Policy::new(preset.unwrap_or(outer.preset()), all))
    }

    fn preset(&mut self, key: &str, name: &str) -> Option<Preset> {
        match name.parse() {
            Ok(preset) => Some(preset),
            Err(UnknownPreset(Some(nearest))) => {
                self.nothing(key, "names a policy that there is not", format!("did you mean {nearest}?"))
            }
            Err(UnknownPreset(None)) => {
                let names = Preset::ALL.map(Preset::name).join(", ");
                self.nothing(key, "names a policy that there is not", format!("give one of {names}"))
            }
        }
    }
}

fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}
