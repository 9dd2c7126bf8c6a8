//! What `aem-auth-proxy config` prints.

use std::fmt::Write;

use super::{
    ConfigError, Setting, Sources,
    keys::{self, KEYS, Key},
    sources, values,
};

/// What is effective, key by key, as TOML with the source of each value; secrets are not shown.
///
/// # Errors
/// As [`Config::load`](super::Config::load) for sources that cannot be read; values are not checked against each other.
pub fn describe(sources: &Sources) -> Result<String, ConfigError> {
    Ok(describe_settings(&sources.settings()?))
}

pub(super) fn describe_settings(settings: &[Setting]) -> String {
    let mut text = String::new();
    let mut section = String::new();
    for key in KEYS.iter().filter(|key| !key.is_pattern()) {
        let (table, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if table != section {
            let _ = writeln!(text, "\n[{table}]");
            table.clone_into(&mut section);
        }
        let _ = match sources::effective(settings, key.name) {
            Some(set) => writeln!(text, "{}", line(key, name, set)),
            None => writeln!(text, "# {name} is not set"),
        };
    }
    // What the user has named, table by table.
    for path in sources::named(settings) {
        let Some((key, set)) = keys::find(path).zip(sources::effective(settings, path)) else { continue };
        let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
        if table != section {
            let _ = writeln!(text, "\n{}", heading(table));
            table.clone_into(&mut section);
        }
        let _ = writeln!(text, "{}", line(key, name, set));
    }
    text
}

/// One value as a line of TOML, with its source.
fn line(key: &Key, name: &str, set: &Setting) -> String {
    let name = toml_edit::Key::new(name);
    if key.secret || key.is_path() && values::is_no_path(&set.value) {
        return format!("{name} = \"{}\" # {}", values::REDACTED, set.source);
    }
    format!(
        "{name} = {} # {}",
        values::as_toml(&values::without_userinfo(&set.value, key.is_url())),
        set.source
    )
}

/// The line of TOML that begins a table. In a list of tables each has the list's own name.
fn heading(table: &str) -> String {
    let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<_> = table.split('.').collect();
    let in_list = parts.get(3).is_some_and(is_number);
    let names = parts.iter().enumerate().filter(|(depth, _)| *depth != 3 || !in_list);
    let names: Vec<_> = names.map(|(_, part)| toml_edit::Key::new(*part).to_string()).collect();
    let names = names.join(".");
    if in_list && parts.len() == 4 { format!("[[{names}]]") } else { format!("[{names}]") }
}
