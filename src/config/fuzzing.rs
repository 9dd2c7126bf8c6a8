//! The configuration without files, for [`crate::fuzzing`].

use std::path::PathBuf;

use figment::value::Value;

use super::{Config, ConfigError, Sources, describe::describe_settings, keys, load_settings};

/// What became of a configuration.
pub struct Loaded {
    /// As [`Config::load`] gives it.
    pub config: Result<Config, ConfigError>,
    /// As [`describe`](super::describe) gives it.
    pub described: Result<String, ConfigError>,
    /// Everything that was set, defaults too.
    pub settings: Vec<Told>,
}

/// A value of a key.
pub struct Told {
    /// The key's path.
    pub key: String,
    /// The texts of the value.
    pub texts: Vec<String>,
    /// Whether the key is one for secrets.
    pub secret: bool,
}

/// Reads a file that holds `toml`, if there is one, and environment `variables`.
pub fn load(toml: Option<&str>, variables: &[(String, String)]) -> Loaded {
    let sources = Sources {
        file: None,
        variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        flags: Vec::new(),
    };
    let (settings, problems) = sources.read_with(toml.map(|text| (PathBuf::from(FILE), Ok(text.to_owned()))));
    let described = if problems.is_empty() {
        Ok(describe_settings(&settings))
    } else {
        Err(ConfigError(problems.clone()))
    };
    let told = settings.iter().map(|setting| Told {
        key: setting.key.clone(),
        texts: texts(&setting.value),
        secret: keys::find(&setting.key).is_some_and(|key| key.secret),
    });
    let told = told.collect();
    Loaded { config: load_settings(settings, problems), described, settings: told }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(_, text) => vec![text.clone()],
        Value::Array(_, items) => items.iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

const FILE: &str = "proxy.toml";
