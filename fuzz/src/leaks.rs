//! What must not be shown.

/// Letters and digits in runs so long that no message holds them by chance.
#[derive(Default)]
pub struct Secrets {
    runs: Vec<String>,
}

impl Secrets {
    /// All of `text` is secret.
    pub fn add(&mut self, text: &str) {
        let runs = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|run| run.len() >= SHORTEST);
        self.runs.extend(runs.map(str::to_owned));
    }

    /// `text` is none, whatever else it stands in.
    pub fn remove(&mut self, text: &str) {
        self.runs.retain(|run| !text.contains(run.as_str()));
    }

    /// What people are shown holds no secret.
    pub fn check_message(&self, shown: &str) {
        let leaked = self.runs.iter().find(|run| shown.contains(run.as_str()));
        assert!(leaked.is_none(), "{leaked:?} is shown in {shown}");
    }

    /// What a type prints of itself holds no secret.
    pub fn check_debug(&self, shown: &str) {
        let leaked = self.runs.iter().filter(|run| run.len() >= SHORTEST_IN_RUST);
        let leaked = leaked.into_iter().find(|run| shown.contains(run.as_str()));
        assert!(leaked.is_none(), "{leaked:?} is printed in {shown}");
    }
}

/// Longer than any word of a message.
const SHORTEST: usize = 20;

/// Longer than the name of any variant.
const SHORTEST_IN_RUST: usize = 28;
