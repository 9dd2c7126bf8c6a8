//! Every key of the configuration, once.
//!
//! Where a part of a name is chosen by the user, the table has a placeholder: `NAME` for the name of a credential, an
//! upstream or a proxy, `N` for the number of a route, counted from 0, and `FIELD` for the name of an HTTP field.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The TOML path, as in `admin.listen` or `credentials.NAME.file`.
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
    /// `true` or `false`.
    Flag,
}

impl Key {
    /// The environment variable, as in `AEM_PROXY_ADMIN__LISTEN`.
    pub fn variable(&self) -> String {
        variable(self.name)
    }

    /// Whether a part of the name is chosen by the user.
    pub fn is_pattern(&self) -> bool {
        self.name.split('.').any(is_placeholder)
    }

    /// Whether it names a file.
    pub(super) fn is_path(&self) -> bool {
        self.name.ends_with("file") || self.name.contains("_files.")
    }

    /// Whether its values are URLs or hosts.
    pub(super) fn is_url(&self) -> bool {
        let last = self.name.rsplit('.').next().unwrap_or_default();
        ["upstream", "url", "ims_endpoint", "allowed_hosts", "allowed_origins"].contains(&last)
    }

    /// Whether it is the key at `path`, such as `credentials.main.file`.
    pub(super) fn is_at(&self, path: &str) -> bool {
        self.name.split('.').count() == path.split('.').count() && self.begins_with(path)
    }

    /// Whether `path` is this key or a table on the way to it.
    fn begins_with(&self, path: &str) -> bool {
        let mut parts = self.name.split('.');
        path.split('.').all(|part| parts.next().is_some_and(|own| fits(own, part)))
    }

    /// The name with the user's own words of `path` in place of the placeholders.
    fn filled(&self, path: &str) -> String {
        let mut words = path.split('.');
        let parts: Vec<_> = self
            .name
            .split('.')
            .map(|own| words.next().filter(|word| is_placeholder(own) && fits(own, word)).unwrap_or(own))
            .collect();
        parts.join(".")
    }
}

/// The environment variable of the key called `name`.
pub fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "__").replace('-', "_").to_uppercase())
}

/// What the names of our environment variables begin with.
pub const PREFIX: &str = "AEM_PROXY_";

/// The key at `path`, such as `admin.listen` or `credentials.main.file`.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.is_at(path))
}

/// The key in which stands what the file named by `path` holds, if there is one.
pub(super) fn in_place_of_file(path: &str) -> Option<String> {
    let suffixes = [("_file", "_json"), (".file", ".json"), ("_file", "")];
    let siblings = suffixes.iter().filter_map(|(file, own)| Some(path.strip_suffix(file)?.to_owned() + own));
    let field = path.replacen(".header_files.", ".headers.", 1);
    siblings.chain([field]).find(|other| other != path && find(other).is_some())
}

/// Whether there are keys below `path`.
pub(super) fn is_table(path: &str) -> bool {
    path.is_empty() || KEYS.iter().any(|key| key.begins_with(path) && !key.is_at(path))
}

/// Whether the keys below `path` stand in numbered tables.
pub(super) fn is_list_of_tables(path: &str) -> bool {
    let depth = path.split('.').count();
    KEYS.iter().any(|key| key.begins_with(path) && key.name.split('.').nth(depth) == Some("N"))
}

/// The name of the key that is nearest to `path`, if one is near enough to be meant.
pub fn nearest(path: &str) -> Option<String> {
    let near = |name: &String| {
        strsim::jaro_winkler(path, name).max(strsim::jaro_winkler(last(path), last(name)) - 0.05)
    };
    let names = KEYS.iter().map(|key| key.filled(path));
    names.max_by(|a, b| near(a).total_cmp(&near(b))).filter(|name| near(name) > 0.8)
}

/// `path` as it came from a variable, which knows neither capitals nor hyphens, with the user's words spelled as in one
/// of the `known` paths, if they are there.
pub(super) fn spelled_as_known<'a>(path: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let Some(key) = find(path) else { return path.to_owned() };
    let mut spelled: Vec<String> = Vec::new();
    for (own, word) in key.name.split('.').zip(path.split('.')) {
        let alike = known.clone().find_map(|known| {
            let mut words = known.split('.');
            let same_way = spelled.iter().all(|before| words.next() == Some(before.as_str()));
            words.next().filter(|known| same_way && is_same_word(known, word))
        });
        spelled.push(match alike {
            Some(known) if is_placeholder(own) => known.to_owned(),
            None if own == "FIELD" => word.replace('_', "-"),
            _ => word.to_owned(),
        });
    }
    spelled.join(".")
}

/// Whether two names are one where there are neither capitals nor hyphens.
pub(super) fn is_same_word(a: &str, b: &str) -> bool {
    let plain = |word: &str| word.to_ascii_lowercase().replace('-', "_");
    plain(a) == plain(b)
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn is_placeholder(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Whether a part of a key's name can be `word` in a path.
fn fits(part: &str, word: &str) -> bool {
    match part {
        "N" => !word.is_empty() && word.len() <= 3 && word.bytes().all(|byte| byte.is_ascii_digit()),
        "NAME" | "FIELD" => !word.is_empty(),
        _ => part == word,
    }
}

const fn key(name: &'static str, kind: Kind, default: Option<&'static str>, about: &'static str) -> Key {
    Key { name, kind, default, secret: false, about }
}

const fn list(name: &'static str, about: &'static str) -> Key {
    Key { name, kind: Kind::List, default: None, secret: false, about }
}

const fn flag(name: &'static str, about: &'static str) -> Key {
    Key { name, kind: Kind::Flag, default: None, secret: false, about }
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
    Key {
        default: Some("false"),
        ..flag("listen_reuse_port", "let the next process listen on the same TCP ports (SO_REUSEPORT)")
    },
    Key {
        default: Some("false"),
        ..flag("http2", "take HTTP/2 without TLS (prior knowledge); over TLS it is always negotiated")
    },
    key(
        "credentials_file",
        Kind::Text,
        None,
        "Adobe's JSON document: service credentials, OAuth, or a local token",
    ),
    secret("credentials_json", "the document itself, or its base64"),
    key("credentials_name", Kind::Text, None, "which credential of a project that has several"),
    key("auth", Kind::Text, Some("bearer"), "bearer; none or basic for a local AEM SDK"),
    key("ca_file", Kind::Text, None, "PEM certificates to trust beside the system's roots"),
    key("ims_endpoint", Kind::Text, None, "replaces the credentials' own imsEndpoint"),
    key(
        "policy",
        Kind::Text,
        Some("full"),
        "read-only, graphql-persisted, assets-read, assets-write or full",
    ),
    Key {
        default: Some(""),
        ..list("rules", "allow METHOD... /path and deny METHOD... /path; the first decides")
    },
    key("basic.user", Kind::Text, Some("admin"), "user for auth = \"basic\""),
    secret("basic.password", "password for auth = \"basic\""),
    key("basic.password_file", Kind::Text, None, "file with that password"),
    key("admin.listen", Kind::Text, Some("127.0.0.1:8081"), "the admin listener, or off"),
    Key {
        default: Some("false"),
        ..flag("admin.allow_remote", "the admin listener may be reached from other machines")
    },
    key("guard.allowed_hosts", Kind::List, Some(""), "Host values let in beside the listener's own names"),
    key("guard.allowed_origins", Kind::List, Some(""), "web origins that may call"),
    key("guard.secret_file", Kind::Text, None, "file with the secret that every request has to show"),
    key("guard.secret_header", Kind::Text, Some("X-AEM-Proxy-Secret"), "the field in which it does"),
    Key {
        default: Some("false"),
        ..flag("guard.allow_remote", "the proxies may be reached from other machines")
    },
    key("guard.socket_mode", Kind::Text, Some("0600"), "mode of the files of Unix sockets"),
    key(
        "guard.socket_uids",
        Kind::List,
        Some(""),
        "numbers of the users who may connect to a proxy's Unix socket; without one its mode decides",
    ),
    key("tls.certificate_file", Kind::Text, None, "PEM certificate with which the proxies speak TLS"),
    key("tls.key_file", Kind::Text, None, "PEM key of that certificate"),
    key(
        "tls.client_ca_file",
        Kind::Text,
        None,
        "PEM certificates of the authorities whose clients are let in, and no others",
    ),
    key("log.level", Kind::Text, Some("info"), "error, warn, info, debug, trace, or a filter per module"),
    key("log.format", Kind::Text, Some("auto"), "auto, text or json"),
    key(
        "token.refresh_at",
        Kind::Share,
        Some("0.75"),
        "share of the lifetime after which a token is refreshed",
    ),
    key("token.cache_file", Kind::Text, None, "file in which the token outlives the process"),
    key(
        "token.cooldown",
        Kind::Text,
        Some("30s"),
        "how long no further token is bought at first, where a new one did not help",
    ),
    key("timeouts.connect", Kind::Text, Some("10s"), "connecting to AEM, TCP and TLS together"),
    key("timeouts.request_head", Kind::Text, Some("30s"), "a client's request head, from its first byte"),
    key(
        "timeouts.response_head",
        Kind::Text,
        Some("120s"),
        "AEM's response head, from the last byte of the request",
    ),
    key("timeouts.idle", Kind::Text, Some("300s"), "a body that does not move in either direction"),
    key("timeouts.slow_client", Kind::Text, Some("60s"), "how far a client may be behind limits.min_rate"),
    key("timeouts.keep_alive", Kind::Text, Some("300s"), "a client's connection between two requests"),
    key("timeouts.upstream_idle", Kind::Text, Some("30s"), "a connection to AEM between two requests"),
    key("timeouts.upstream_max_age", Kind::Text, Some("300s"), "a connection to AEM, from its beginning"),
    key(
        "timeouts.reconnect",
        Kind::Text,
        Some("2s"),
        "how long connecting is tried again when nobody answers at AEM's address",
    ),
    key("timeouts.queue", Kind::Text, Some("10s"), "a request that waits for its turn at AEM"),
    key("timeouts.ims_connect", Kind::Text, Some("5s"), "connecting to IMS"),
    key("timeouts.ims", Kind::Text, Some("15s"), "one exchange at IMS, all in all"),
    key("limits.head", Kind::Text, Some("64 KiB"), "the largest head of a request or a response"),
    key("limits.fields", Kind::Text, Some("100"), "the most fields in the head of a request or a response"),
    key("limits.path", Kind::Text, Some("8 KiB"), "the longest path of a request, without its query"),
    key(
        "limits.replay",
        Kind::Text,
        Some("64 KiB"),
        "how much of a request's body is kept for a second attempt",
    ),
    key(
        "limits.min_rate",
        Kind::Text,
        Some("240 B"),
        "what a client has to send or take in a second while it is waited for; 0 is nothing",
    ),
    key(
        "limits.connections",
        Kind::Text,
        Some("10000"),
        "how many connections clients have at once; beyond it idle ones are closed",
    ),
    key(
        "limits.memory",
        Kind::Text,
        Some("64 MiB"),
        "how much memory the process may hold for all buffers and connections",
    ),
    Key {
        default: Some("true"),
        ..flag("rewrite.links", "rename AEM's origin in JSON that is known to hold links to follow")
    },
    Key {
        default: Some("false"),
        ..flag("rewrite.graphql_urls", "in _publishUrl and _authorUrl of GraphQL's answers, too")
    },
    key("rewrite.user_agent", Kind::Text, Some("keep"), "what AEM sees as User-Agent; keep is the app's own"),
    key(
        "retry.budget",
        Kind::Share,
        Some("0"),
        "second attempts after 429 and 503, as a share of all requests; 0 is none",
    ),
    key("retry.max_wait", Kind::Text, Some("10s"), "the longest Retry-After that is waited for"),
    secret("egress.aem_proxy", "http://USER:PASSWORD@HOST:PORT on the way to AEM, or off"),
    secret("egress.ims_proxy", "the same on the way to IMS"),
    key(
        "watch.poll",
        Kind::Text,
        Some("2s"),
        "how often credential files are looked at where the system tells nothing",
    ),
    Key {
        default: Some("false"),
        ..flag("secrets.core_dumps", "let core dumps be written, and debuggers of the same user attach")
    },
    key("shutdown.delay", Kind::Text, Some("0s"), "between /ready turning 503 and the listeners closing"),
    key("shutdown.grace", Kind::Text, Some("25s"), "how long requests in flight may go on"),
    key("credentials.NAME.file", Kind::Text, None, "Adobe's JSON document, or a bare local token"),
    secret("credentials.NAME.json", "the document itself, or its base64"),
    key("credentials.NAME.name", Kind::Text, None, "which credential of a project that has several"),
    key(
        "credentials.NAME.client_id",
        Kind::Text,
        None,
        "OAuth Server-to-Server without a document: the client id",
    ),
    Key {
        name: "credentials.NAME.client_secret",
        kind: Kind::List,
        default: None,
        secret: true,
        about: "its secret; two while one replaces the other",
    },
    key(
        "credentials.NAME.client_secret_file",
        Kind::Text,
        None,
        "file with the secret, or with one on each line",
    ),
    list("credentials.NAME.scopes", "its scopes; in place of those of a document"),
    key("credentials.NAME.org_id", Kind::Text, None, "the organisation, ...@AdobeOrg"),
    key("credentials.NAME.user", Kind::Text, None, "user of a local AEM SDK"),
    secret("credentials.NAME.password", "that user's password"),
    key("credentials.NAME.password_file", Kind::Text, None, "file with that password"),
    key("credentials.NAME.ims_endpoint", Kind::Text, None, "replaces the document's own imsEndpoint"),
    key(
        "credentials.NAME.fallback",
        Kind::Text,
        None,
        "the credential that takes over when IMS refuses this one",
    ),
    key("upstreams.NAME.url", Kind::Text, None, "AEM's origin"),
    key("upstreams.NAME.http", Kind::Text, None, "1.1; or 2, where AEM offers it"),
    key("upstreams.NAME.ca_file", Kind::Text, None, "PEM certificates to trust for this one alone"),
    key("upstreams.NAME.client_certificate_file", Kind::Text, None, "PEM certificate to show to AEM"),
    key("upstreams.NAME.client_key_file", Kind::Text, None, "PEM key of that certificate"),
    key("upstreams.NAME.min_tls", Kind::Text, None, "1.2 or 1.3"),
    key("upstreams.NAME.max_in_flight", Kind::Text, None, "how many requests are at AEM at once"),
    key("upstreams.NAME.max_queued", Kind::Text, None, "how many wait for their turn beside them"),
    key("upstreams.NAME.max_connections", Kind::Text, None, "how many connections there are to AEM at once"),
    key("proxies.NAME.listen", Kind::Text, None, "where the app finds this proxy"),
    flag("proxies.NAME.http2", "take HTTP/2 without TLS, or not, whatever `http2` says"),
    key("proxies.NAME.upstream", Kind::Text, None, "name of an upstream, or AEM's origin"),
    key("proxies.NAME.credentials", Kind::Text, None, "name of a credential, or none"),
    key("proxies.NAME.policy", Kind::Text, None, "another policy"),
    list("proxies.NAME.rules", "rules that are asked before those at the top"),
    flag("proxies.NAME.x_api_key", "send X-Api-Key, the client id, unless the app does"),
    flag("proxies.NAME.x_gw_ims_org_id", "send x-gw-ims-org-id, the organisation, unless the app does"),
    secret("proxies.NAME.headers.FIELD", "a field that every request gets"),
    key("proxies.NAME.header_files.FIELD", Kind::Text, None, "file with the value of such a field"),
    key("proxies.NAME.routes.N.path", Kind::Text, None, "prefix of the paths that this route is for"),
    key("proxies.NAME.routes.N.upstream", Kind::Text, None, "another upstream"),
    key("proxies.NAME.routes.N.credentials", Kind::Text, None, "another credential, or none"),
    key("proxies.NAME.routes.N.policy", Kind::Text, None, "another policy"),
    list("proxies.NAME.routes.N.rules", "rules that are asked before the proxy's"),
    flag("proxies.NAME.routes.N.x_api_key", "send X-Api-Key, the client id, unless the app does"),
    flag(
        "proxies.NAME.routes.N.x_gw_ims_org_id",
        "send x-gw-ims-org-id, the organisation, unless the app does",
    ),
    secret("proxies.NAME.routes.N.headers.FIELD", "a field that every request of this route gets"),
    key("proxies.NAME.routes.N.header_files.FIELD", Kind::Text, None, "file with the value of such a field"),
];
