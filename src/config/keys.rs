//! Every key of the configuration, once.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The TOML path, as in `admin.listen`.
    pub name: &'static str,
    /// What a value looks like.
    pub kind: Kind,
    /// The value where nobody gives one.
    pub default: Option<&'static str>,
    /// Whether the value is never shown.
    pub secret: bool,
    /// One line for people.
    pub about: &'static str,
}

/// What a value looks like. In the environment everything is text; this says how to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text: names, paths, addresses, durations (`30s`), sizes (`16 KiB`).
    Text,
    /// A list; comma-separated in the environment.
    List,
    /// A number between 0 and 1.
    Share,
}

impl Key {
    /// The environment variable, as in `AEM_PROXY_ADMIN__LISTEN`.
    pub fn variable(&self) -> String {
        variable(self.name)
    }
}

/// The environment variable of the key called `name`.
pub fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "__").to_uppercase())
}

/// What the names of our environment variables begin with.
pub const PREFIX: &str = "AEM_PROXY_";

/// The key called `name`.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key whose name is nearest to `name`, if one is near enough to be meant.
pub fn nearest(name: &str) -> Option<&'static Key> {
    let near = |key: &&'static Key| {
        strsim::jaro_winkler(name, key.name).max(strsim::jaro_winkler(last(name), last(key.name)) - 0.05)
    };
    KEYS.iter().max_by(|a, b| near(a).total_cmp(&near(b))).filter(|key| near(key) > 0.8)
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

const fn key(name: &'static str, kind: Kind, default: Option<&'static str>, about: &'static str) -> Key {
    Key { name, kind, default, secret: false, about }
}

const fn secret(name: &'static str, about: &'static str) -> Key {
    Key { name, kind: Kind::Text, default: None, secret: true, about }
}

/// Every key, in the order in which `config` prints them: a table's keys stand together.
pub const KEYS: &[Key] = &[
    key("upstream", Kind::Text, None, "AEM's origin, https://author-pX-eY.adobeaemcloud.com"),
    key(
        "listen",
        Kind::Text,
        Some("127.0.0.1:8080"),
        "where the app finds the proxy: IP:PORT, localhost:PORT or unix:PATH",
    ),
    key("credentials_file", Kind::Text, None, "the AEM Developer Console's JSON document"),
    secret("credentials_json", "the document itself, or its base64"),
    key("auth", Kind::Text, Some("bearer"), "bearer; none or basic for a local AEM SDK"),
    key("ca_file", Kind::Text, None, "PEM certificates to trust beside the system's roots"),
    key("ims_endpoint", Kind::Text, None, "replaces the credentials' own imsEndpoint"),
    key("basic.user", Kind::Text, Some("admin"), "user for auth = \"basic\""),
    secret("basic.password", "password for auth = \"basic\""),
    key("basic.password_file", Kind::Text, None, "file with that password"),
    key("admin.listen", Kind::Text, Some("127.0.0.1:8081"), "the admin listener, or off"),
    key("guard.allowed_hosts", Kind::List, Some(""), "Host values let in beside the listener's own names"),
    key("guard.allowed_origins", Kind::List, Some(""), "web origins that may call"),
    key("log.level", Kind::Text, Some("info"), "error, warn, info, debug, trace, or a filter per module"),
    key("log.format", Kind::Text, Some("auto"), "auto, text or json"),
    key(
        "token.refresh_at",
        Kind::Share,
        Some("0.75"),
        "share of the lifetime after which a token is refreshed",
    ),
    key("token.cache_file", Kind::Text, None, "file in which the token outlives the process"),
    key("timeouts.connect", Kind::Text, Some("10s"), "connecting to AEM, TCP and TLS together"),
    key("timeouts.request_head", Kind::Text, Some("30s"), "a client's request head, from its first byte"),
    key(
        "timeouts.response_head",
        Kind::Text,
        Some("120s"),
        "AEM's response head, from the last byte of the request",
    ),
    key("timeouts.idle", Kind::Text, Some("300s"), "a body that does not move in either direction"),
    key("timeouts.keep_alive", Kind::Text, Some("300s"), "a client's connection between two requests"),
    key("timeouts.upstream_idle", Kind::Text, Some("30s"), "a connection to AEM between two requests"),
    key("timeouts.ims_connect", Kind::Text, Some("5s"), "connecting to IMS"),
    key("timeouts.ims", Kind::Text, Some("15s"), "one exchange at IMS, all in all"),
    key("limits.head", Kind::Text, Some("64 KiB"), "the largest head of a request or a response"),
    key("shutdown.delay", Kind::Text, Some("0s"), "between /ready turning 503 and the listeners closing"),
    key("shutdown.grace", Kind::Text, Some("25s"), "how long requests in flight may go on"),
];
