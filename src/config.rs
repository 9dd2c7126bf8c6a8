//! Configuration: defaults, a TOML file, the environment and flags become one typed [`Config`].
//!
//! One name for one thing: the keys are listed once, in [`keys::KEYS`], and the environment variable, the
//! flag and the TOML path follow from the name. Every value remembers where it came from, so that an error
//! and `aem-auth-proxy config` can say so.

mod checks;
mod describe;
mod environment;
pub(crate) mod fuzzing;
pub mod keys;
mod prefix;
mod proxy_url;
mod raw;
mod sources;
mod upstream;
mod values;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use figment::Figment;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use self::raw::Raw;
pub use self::{
    describe::describe,
    prefix::Prefix,
    proxy_url::{ProxyUrl, ProxyUrlError},
    sources::{Setting, Source, Sources, Variables},
    upstream::{ClientFiles, Egress, HttpVersion, TlsVersion, Upstream, Way},
    values::{Listen, Optional, log_filter},
};
use crate::{policy::Policy, secret::SecretString};

/// The effective configuration, complete and checked.
#[derive(Debug)]
pub struct Config {
    /// What authenticates, in the order of their names; the simple form's is called [`DEFAULT`].
    pub credentials: Vec<Credential>,
    /// Where AEM is; those given by their origin alone are called by it.
    pub upstreams: Vec<Upstream>,
    /// At least one; the simple form's is called [`DEFAULT`].
    pub proxies: Vec<Proxy>,
    /// Whether the next process can listen on the same TCP ports while this one still does.
    pub listen_reuse_port: bool,
    /// PEM certificates to trust beside the system's roots, for IMS and AEM.
    pub ca_file: Option<PathBuf>,
    /// The admin listener.
    pub admin: Admin,
    /// Who may ask.
    pub guard: Guard,
    /// TLS of the proxies' listeners, where they speak it.
    pub tls: Option<ServerFiles>,
    /// What is logged, and how.
    pub log: Log,
    /// The token's life.
    pub token: Token,
    /// How changed files are noticed.
    pub watch: Watch,
    /// Every wait has a limit.
    pub timeouts: Timeouts,
    /// Every buffer has a limit.
    pub limits: Limits,
    /// What is renamed on its way.
    pub rewrite: Rewrite,
    /// Second attempts at an AEM that is busy.
    pub retry: Retry,
    /// The ways out of this network.
    pub egress: Egress,
    /// How well the process keeps its memory to itself.
    pub secrets: Secrecy,
    /// The way down.
    pub shutdown: Shutdown,
}

/// The name of the simple form's credential, upstream and proxy.
pub const DEFAULT: &str = "default";

/// One thing that authenticates.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub source: CredentialSource,
    /// Replaces the document's own `imsEndpoint`.
    pub ims_endpoint: Option<ImsEndpoint>,
    /// In place of those of a document; empty where its own are right.
    pub scopes: Vec<String>,
    /// The name of the credential that takes over when IMS refuses this one.
    pub fallback: Option<String>,
}

impl Credential {
    /// Whether it gets access tokens, rather than being a user with a password.
    pub fn is_bearer(&self) -> bool {
        !matches!(self.source, CredentialSource::Basic { .. })
    }
}

/// What a credential is made of.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// A document in a file.
    File {
        /// The file.
        path: PathBuf,
        /// Which credential of a project that has several.
        pick: Option<String>,
    },
    /// A document, or its base64.
    Inline {
        /// The document.
        document: SecretString,
        /// The setting that holds it.
        place: String,
        /// Which credential of a project that has several.
        pick: Option<String>,
    },
    /// OAuth Server-to-Server without a document.
    Client {
        /// The client id.
        id: String,
        /// Its secrets.
        secrets: Secrets,
        /// The organisation.
        org: Option<String>,
    },
    /// User and password of a local AEM SDK.
    Basic {
        /// The user's name.
        user: String,
        /// Its password.
        password: Secret,
    },
}

/// A secret, or where it is.
#[derive(Debug, Clone)]
pub enum Secret {
    /// The secret itself.
    Given(SecretString),
    /// A file with it.
    File(PathBuf),
}

impl Secret {
    /// The file, where it is in one.
    pub fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::Given(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

/// Secrets of which each may be the right one, or where they are.
#[derive(Debug, Clone)]
pub enum Secrets {
    /// The secrets themselves, in the order in which they are tried.
    Given(Vec<SecretString>),
    /// A file with one on each line.
    File(PathBuf),
}

/// An IMS address that was given beside the credentials.
#[derive(Debug, Clone)]
pub struct ImsEndpoint {
    /// A host, host:port or URL.
    pub text: String,
    /// The key that holds it.
    pub key: String,
    /// Where it stands.
    pub source: String,
}

/// One listener with all that it does.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Its name.
    pub name: String,
    /// Where the app finds it.
    pub listen: Listen,
    /// The key that says so.
    pub listen_key: String,
    /// Whether it takes HTTP/2 with prior knowledge on connections without TLS.
    pub http2: bool,
    /// For requests of no other route.
    pub otherwise: Route,
    /// The first that is for a request's path has it.
    pub routes: Vec<Route>,
}

/// What a request gets.
#[derive(Debug, Clone)]
pub struct Route {
    /// The paths that it is for.
    pub path: Prefix,
    /// The name of the upstream.
    pub upstream: String,
    /// The name of the credential; none where nothing is sent.
    pub credential: Option<String>,
    /// What passes.
    pub policy: Arc<Policy>,
    /// Whether `X-Api-Key` is sent.
    pub x_api_key: bool,
    /// Whether `x-gw-ims-org-id` is sent.
    pub x_gw_ims_org_id: bool,
    /// Further fields.
    pub headers: Vec<Header>,
}

/// A field that every request of a route gets.
#[derive(Debug, Clone)]
pub struct Header {
    /// Its name.
    pub name: HeaderName,
    /// Its value, which may be a secret.
    pub value: Secret,
    /// The key that says so.
    pub key: String,
}

impl Proxy {
    /// All routes, the last of which is for what no other one has.
    pub fn all_routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().chain([&self.otherwise])
    }

    /// The route for a path, as it is read.
    pub fn route(&self, reading: &[u8]) -> &Route {
        self.routes.iter().find(|route| route.path.covers_reading(reading)).unwrap_or(&self.otherwise)
    }
}

impl Config {
    /// The credential called `name`.
    pub fn credential(&self, name: &str) -> Option<&Credential> {
        self.credentials.iter().find(|credential| credential.name == name)
    }

    /// The upstream called `name`.
    pub fn upstream(&self, name: &str) -> Option<&Upstream> {
        self.upstreams.iter().find(|upstream| upstream.name == name)
    }

    /// Every route of every proxy.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.proxies.iter().flat_map(Proxy::all_routes)
    }

    /// The names of the credentials that requests are sent with.
    pub fn sent(&self) -> impl Iterator<Item = &str> {
        self.routes().filter_map(|route| route.credential.as_deref())
    }
}

/// `[admin]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address of the admin listener, or `off`.
    pub listen: Optional<Listen>,
    /// Whether that address may be one that other machines reach.
    pub allow_remote: bool,
}

/// `[guard]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// `Host` values to let in beside the listener's own names.
    pub allowed_hosts: Vec<String>,
    /// Web origins that may call.
    pub allowed_origins: Vec<String>,
    /// A file with the secrets of which every request has to show one.
    pub secret_file: Option<PathBuf>,
    /// The field in which it does.
    #[serde(deserialize_with = "values::field_name")]
    pub secret_header: HeaderName,
    /// Whether listeners may have addresses that other machines reach.
    pub allow_remote: bool,
    /// Of the files of Unix sockets.
    #[serde(deserialize_with = "values::mode")]
    pub socket_mode: u32,
    /// The users who may connect to a Unix socket of a proxy; empty where its mode decides alone.
    #[serde(deserialize_with = "values::uids")]
    pub socket_uids: Vec<u32>,
}

/// What the proxies' listeners show for themselves in TLS.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of clients, who have to show a certificate then.
    pub client_ca: Option<PathBuf>,
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
    /// Between two exchanges that were caused by refused tokens.
    #[serde(deserialize_with = "values::limit")]
    pub cooldown: Duration,
}

/// `[watch]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// How often files are looked at where the system does not tell that they have changed.
    #[serde(deserialize_with = "values::limit")]
    pub poll: Duration,
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
    /// How far a client may be behind `limits.min_rate`.
    #[serde(deserialize_with = "values::limit")]
    pub slow_client: Duration,
    /// A client's connection between two requests.
    #[serde(deserialize_with = "values::limit")]
    pub keep_alive: Duration,
    /// A connection to AEM between two requests.
    #[serde(deserialize_with = "values::limit")]
    pub upstream_idle: Duration,
    /// A connection to AEM, from its beginning: what DNS says now is heard by then.
    #[serde(deserialize_with = "values::limit")]
    pub upstream_max_age: Duration,
    /// How long connecting is tried again when nobody answers.
    #[serde(deserialize_with = "values::duration")]
    pub reconnect: Duration,
    /// A request that waits for its turn.
    #[serde(deserialize_with = "values::limit")]
    pub queue: Duration,
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
    /// The most fields of a head, request or response.
    #[serde(deserialize_with = "values::fields")]
    pub fields: usize,
    /// The longest path of a request that is judged, in bytes.
    #[serde(deserialize_with = "values::size")]
    pub path: usize,
    /// How much of a request's body is kept for a second attempt, in bytes.
    #[serde(deserialize_with = "values::replay")]
    pub replay: usize,
    /// What a client has to send or take while it is waited for, in bytes a second; 0 is nothing.
    #[serde(deserialize_with = "values::rate")]
    pub min_rate: usize,
    /// How many connections clients have at once.
    #[serde(deserialize_with = "values::connections")]
    pub connections: usize,
    /// How much of the heap may be in use, in bytes: what all buffers and libraries of the process hold.
    #[serde(deserialize_with = "values::memory")]
    pub memory: usize,
}

/// `[rewrite]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// AEM's origin in the links of JSON.
    pub links: bool,
    /// In `_publishUrl` and `_authorUrl` too.
    pub graphql_urls: bool,
    /// What AEM sees as `User-Agent`.
    pub user_agent: UserAgent,
}

/// What AEM sees as `User-Agent`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum UserAgent {
    /// The app's own.
    Keep,
    /// This one instead.
    Instead(HeaderValue),
}

impl TryFrom<String> for UserAgent {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "keep" => Ok(Self::Keep),
            "" => Err("is empty; write keep, or what AEM is to see"),
            text => HeaderValue::from_str(text)
                .map(Self::Instead)
                .map_err(|_| "is not a value that a field can have; give one line of plain text"),
        }
    }
}

/// `[retry]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Second attempts as a share of all requests; 0 is none.
    pub budget: f64,
    /// The longest `Retry-After` that is waited for.
    #[serde(deserialize_with = "values::limit")]
    pub max_wait: Duration,
}

/// `[secrets]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrecy {
    /// Core dumps may be written, and debuggers of the same user attach.
    pub core_dumps: bool,
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

impl Config {
    /// Reads every source and checks the whole.
    ///
    /// # Errors
    /// All problems found at once, each with the key, its source and the mend; never with a secret.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let (settings, problems) = sources.read();
        load_settings(settings, problems)
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

/// The configuration that `settings` are, or all that is wrong with them; `problems` are those of reading them.
fn load_settings(mut settings: Vec<Setting>, mut problems: Vec<Problem>) -> Result<Config, ConfigError> {
    // A source that cannot be read may hold everything.
    if problems.iter().any(|problem| problem.key.is_empty()) {
        return Err(ConfigError(problems));
    }
    let raw = loop {
        match extract::<Raw>(&settings, None) {
            Ok(raw) => break raw,
            // The deserializer ends at the first value that is wrong: the others are seen without it.
            Err(ConfigError(found)) => {
                let is_wrong = |setting: &Setting| {
                    setting.source != Source::Default
                        && found.iter().any(|problem| problem.key == setting.key)
                };
                let before = settings.len();
                settings.retain(|setting| !is_wrong(setting));
                problems.extend(found);
                if settings.len() == before {
                    return Err(ConfigError(problems));
                }
            }
        }
    };
    let result = checks::Checker::new(&settings).config(raw);
    if problems.is_empty() {
        return result;
    }
    let more = result.err().map(|error| error.0).unwrap_or_default();
    let more: Vec<_> = more.into_iter().filter(|problem| !follows(problem, &problems)).collect();
    problems.extend(more);
    Err(ConfigError(problems))
}

/// Whether a problem may be there only because a value was left out, which is `reported` already.
fn follows(problem: &Problem, reported: &[Problem]) -> bool {
    let names = |text: &str, key: &str| text.split('`').any(|word| word == key);
    let is_of_credentials = ["credentials", "basic"].iter().any(|begin| problem.key.starts_with(begin));
    problem.what.starts_with("is not set")
        || reported.iter().any(|earlier| earlier.key == problem.key || names(&problem.what, &earlier.key))
        || is_of_credentials && reported.iter().any(|earlier| earlier.key == "auth")
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
