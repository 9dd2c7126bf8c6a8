//! Configuration: defaults, a TOML file, the environment and flags become one typed [`Config`].
//!
//! One name for one thing: the keys are listed once, in [`keys::KEYS`], and the environment variable, the
//! flag and the TOML path follow from the name. Every value remembers where it came from, so that an error
//! and `aem-auth-proxy config` can say so.

mod checks;
pub mod keys;
mod sources;
mod values;

use std::{fmt, path::PathBuf, time::Duration};

use figment::Figment;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use self::keys::KEYS;
pub use self::{
    sources::{Setting, Source, Sources},
    values::{Listen, Optional},
};

/// The effective configuration, complete and checked.
#[derive(Debug)]
pub struct Config {
    /// Where AEM is: an origin, scheme and authority without a path.
    pub upstream: Url,
    /// Where the app finds the proxy.
    pub listen: Listen,
    /// What is put into `Authorization`.
    pub auth: Auth,
    /// PEM certificates to trust beside the system's roots, for IMS and AEM.
    pub ca_file: Option<PathBuf>,
    /// Replaces the credentials' own `imsEndpoint`.
    pub ims_endpoint: Option<ImsEndpoint>,
    /// The admin listener.
    pub admin: Admin,
    /// Who may ask.
    pub guard: Guard,
    /// What is logged, and how.
    pub log: Log,
    /// The token's life.
    pub token: Token,
    /// Every wait has a limit.
    pub timeouts: Timeouts,
    /// Every buffer has a limit.
    pub limits: Limits,
    /// The way down.
    pub shutdown: Shutdown,
}

/// An IMS address that was given beside the credentials.
#[derive(Debug)]
pub struct ImsEndpoint {
    /// A host, host:port or URL.
    pub text: String,
    /// Where it stands.
    pub source: String,
}

/// What is put into `Authorization`.
#[derive(Debug)]
pub enum Auth {
    /// A bearer token from IMS, bought with these credentials.
    Bearer(CredentialsSource),
    /// User and password of a local AEM SDK.
    Basic {
        /// The user's name.
        user: String,
        /// Its password.
        password: SecretString,
    },
    /// Nothing at all, for a local AEM SDK.
    None,
}

/// Where the credentials document is.
#[derive(Debug)]
pub enum CredentialsSource {
    /// A file.
    File(PathBuf),
    /// The document itself or its base64, and the name of the setting that holds it.
    Inline(SecretString, String),
}

/// `[admin]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address of the admin listener, or `off`.
    pub listen: Optional<Listen>,
}

/// `[guard]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// `Host` values to let in beside the listener's own names.
    pub allowed_hosts: Vec<String>,
    /// Web origins that may call.
    pub allowed_origins: Vec<String>,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A level or a `tracing` filter.
    pub level: String,
    /// Text for people, JSON for machines.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[token]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The share of a token's lifetime after which it is refreshed.
    pub refresh_at: f64,
    /// Where a token outlives the process, if anywhere.
    pub cache_file: Option<PathBuf>,
}

/// `[timeouts]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// Connecting to AEM, TCP and TLS together.
    #[serde(deserialize_with = "values::limit")]
    pub connect: Duration,
    /// A client's request head, from its first byte.
    #[serde(deserialize_with = "values::limit")]
    pub request_head: Duration,
    /// AEM's response head, from the last byte of the request.
    #[serde(deserialize_with = "values::limit")]
    pub response_head: Duration,
    /// A body that does not move in either direction.
    #[serde(deserialize_with = "values::limit")]
    pub idle: Duration,
    /// A client's connection between two requests.
    #[serde(deserialize_with = "values::limit")]
    pub keep_alive: Duration,
    /// A connection to AEM between two requests.
    #[serde(deserialize_with = "values::limit")]
    pub upstream_idle: Duration,
    /// Connecting to IMS.
    #[serde(deserialize_with = "values::limit")]
    pub ims_connect: Duration,
    /// One exchange at IMS, all in all.
    #[serde(deserialize_with = "values::limit")]
    pub ims: Duration,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The largest head, request or response, in bytes.
    #[serde(deserialize_with = "values::size")]
    pub head: usize,
}

/// `[shutdown]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// Between `/ready` turning 503 and the listeners closing.
    #[serde(deserialize_with = "values::duration")]
    pub delay: Duration,
    /// How long requests in flight may go on.
    #[serde(deserialize_with = "values::duration")]
    pub grace: Duration,
}

/// The shape of the sources, before the checks that concern more than one key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    upstream: Option<String>,
    listen: Listen,
    credentials_file: Option<PathBuf>,
    credentials_json: Option<SecretString>,
    auth: AuthKind,
    basic: RawBasic,
    ca_file: Option<PathBuf>,
    ims_endpoint: Option<String>,
    admin: Admin,
    guard: Guard,
    log: Log,
    token: Token,
    timeouts: Timeouts,
    limits: Limits,
    shutdown: Shutdown,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum AuthKind {
    Bearer,
    Basic,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBasic {
    user: String,
    password: Option<SecretString>,
    password_file: Option<PathBuf>,
}

impl Config {
    /// Reads every source and checks the whole.
    ///
    /// # Errors
    /// All problems found at once, each with the key, its source and the mend; never with a secret.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let settings = sources.settings()?;
        let raw: Raw = extract(&settings, None)?;
        checks::Checker { settings: &settings }.config(raw)
    }

    /// Only the part below `section`, for commands that need no more (`health` asks for `admin`).
    ///
    /// # Errors
    /// As [`Config::load`], for unknown keys anywhere and wrong values in this part.
    pub fn section<T: serde::de::DeserializeOwned>(
        sources: &Sources,
        section: &str,
    ) -> Result<T, ConfigError> {
        extract(&sources.settings()?, Some(section))
    }
}

/// What is effective, key by key, as TOML with the source of each value; secrets are not shown.
///
/// # Errors
/// As [`Config::load`] for sources that cannot be read; values are not checked against each other.
pub fn describe(sources: &Sources) -> Result<String, ConfigError> {
    use fmt::Write;
    let settings = sources.settings()?;
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        let (table, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if table != section {
            let _ = writeln!(text, "\n[{table}]");
            section = table;
        }
        let _ = match sources::effective(&settings, key.name) {
            Some(set) if key.secret => writeln!(text, "{name} = \"(redacted)\" # {}", set.source),
            Some(set) => writeln!(
                text,
                "{name} = {} # {}",
                values::as_toml(&values::without_userinfo(&set.value)),
                set.source
            ),
            None => writeln!(text, "# {name} is not set"),
        };
    }
    Ok(text)
}

fn extract<T: serde::de::DeserializeOwned>(
    settings: &[Setting],
    section: Option<&str>,
) -> Result<T, ConfigError> {
    let mut figment = Figment::new();
    for setting in settings {
        figment = figment.merge(setting);
    }
    let result = match section {
        Some(section) => figment.extract_inner(section),
        None => figment.extract(),
    };
    result.map_err(|error| {
        ConfigError(error.into_iter().map(|error| sources::problem_of(settings, &error)).collect())
    })
}

/// Everything that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Vec<Problem>);

impl ConfigError {
    /// The problems, in the order of the sources.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong: the key, where it stands, what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's name; empty where a whole source cannot be read.
    pub key: String,
    /// Where the value stands.
    pub source: Option<Source>,
    /// What is wrong; never quotes a secret.
    pub what: String,
    /// What to do.
    pub mend: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, self.key.as_str()) {
            (Some(source), "") => write!(f, "{source} {}", self.what)?,
            (Some(source), key) => write!(f, "`{key}` ({source}) {}", self.what)?,
            (None, key) => write!(f, "`{key}` {}", self.what)?,
        }
        write!(f, ": {}", self.mend)
    }
}

#[cfg(test)]
mod tests;
