//! What was tried, in order.

use std::fmt::{Display, Write};

use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Report {
    ok: bool,
    checks: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    name: &'static str,
    /// The credential or the proxy that it is about; empty where there is only one.
    #[serde(skip_serializing_if = "String::is_empty")]
    subject: String,
    ok: bool,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Default for Report {
    fn default() -> Self {
        Self { ok: true, checks: Vec::new() }
    }
}

impl Report {
    pub(super) fn is_ok(&self) -> bool {
        self.ok
    }

    pub(super) fn right(&mut self, name: &'static str, subject: &str, message: impl Display) {
        self.push(name, subject, message, true, None);
    }

    /// It works, and needs somebody's care all the same.
    pub(super) fn warn(&mut self, name: &'static str, subject: &str, message: impl Display, hint: &str) {
        self.push(name, subject, message, true, Some(hint.to_owned()));
    }

    pub(super) fn wrong(
        &mut self,
        name: &'static str,
        subject: &str,
        message: impl Display,
        hint: Option<String>,
    ) {
        self.push(name, subject, message, false, hint);
    }

    pub(super) fn push(
        &mut self,
        name: &'static str,
        subject: &str,
        message: impl Display,
        ok: bool,
        hint: Option<String>,
    ) {
        self.ok &= ok;
        let (subject, message) = (subject.to_owned(), message.to_string());
        self.checks.push(Finding { name, subject, ok, message, hint });
    }

    /// For people: what is to be done stands below what is wrong.
    pub(super) fn text(&self) -> String {
        let width = self.checks.iter().map(|check| check.subject.len()).max().unwrap_or(0);
        let width = if width == 0 { 0 } else { width + 1 };
        let mut text = String::new();
        for check in &self.checks {
            let mark = match (check.ok, &check.hint) {
                (true, None) => "ok   ",
                (true, Some(_)) => "note ",
                (false, _) => "WRONG",
            };
            let _ = writeln!(text, "{mark}  {:<14} {:<width$}{}", check.name, check.subject, check.message);
            if let Some(hint) = &check.hint {
                let _ = writeln!(text, "{:indent$} -> {hint}", "", indent = 22 + width);
            }
        }
        text
    }

    pub(super) fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
