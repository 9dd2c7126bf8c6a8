//! The checks that look at more than one key, or further than a key's own form.

mod credentials;
mod listeners;
mod origins;
mod policies;
mod proxies;
mod simple;
mod upstreams;

use std::{collections::BTreeMap, path::PathBuf};

use url::Url;

use super::{
    Config, ConfigError, Credential, Limits, Listen, Problem, Proxy, Secret, Upstream, keys,
    raw::Raw,
    sources::{self, Setting, Source},
    values,
};
use crate::{
    network::{is_loopback, without_root_dot},
    secret::SecretString,
};

/// Checks what was read, and tells the source of what is wrong. All problems are gathered before any is told.
pub(super) struct Checker<'a> {
    settings: &'a [Setting],
    problems: Vec<Problem>,
    credentials: Vec<Credential>,
    upstreams: Vec<Upstream>,
    /// Keys of the simple form by those of the full form for which they stand.
    aliases: BTreeMap<&'static str, &'static str>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(settings: &'a [Setting]) -> Self {
        Self {
            settings,
            problems: Vec::new(),
            credentials: Vec::new(),
            upstreams: Vec::new(),
            aliases: BTreeMap::new(),
        }
    }

    pub(super) fn config(mut self, mut raw: Raw) -> Result<Config, ConfigError> {
        self.names(&raw);
        self.paths();
        self.unfold(&mut raw);
        for (name, credential) in std::mem::take(&mut raw.credentials) {
            self.credential_of(name, credential, raw.ims_endpoint.as_deref());
        }
        self.fallbacks();
        for (name, upstream) in std::mem::take(&mut raw.upstreams) {
            if let Some(upstream) = self.upstream_of(name, upstream) {
                self.upstreams.push(upstream);
            }
        }
        let standard = self.standard_credential(&raw);
        let policy = self.common_policy(&raw.policy, &raw.rules);
        let mut proxies = Vec::new();
        for (name, proxy) in std::mem::take(&mut raw.proxies) {
            proxies.extend(self.proxy(name, proxy, &standard, &policy, raw.http2));
        }
        self.addresses(&proxies, raw.admin.listen.on());
        self.reach(&proxies, &raw.guard, &raw.admin);
        self.guard(&proxies, &raw.guard);
        let tls = self.tls(raw.tls);
        self.refresh_at(raw.token.refresh_at);
        if values::log_filter(&raw.log.level).is_none() {
            let hint = "give info, or info,hyper=debug";
            self.wrong("log.level", "is neither a level nor a filter", hint);
        }
        self.path_length(&raw.limits);
        self.budget(raw.retry.budget);
        let egress = self.egress(&raw.egress);
        if !self.problems.is_empty() {
            return Err(ConfigError(self.problems));
        }
        Ok(Config {
            credentials: self.credentials,
            upstreams: self.upstreams,
            proxies,
            listen_reuse_port: raw.listen_reuse_port,
            ca_file: raw.ca_file,
            admin: raw.admin,
            guard: raw.guard,
            tls,
            log: raw.log,
            token: raw.token,
            watch: raw.watch,
            timeouts: raw.timeouts,
            limits: raw.limits,
            rewrite: raw.rewrite,
            retry: raw.retry,
            egress,
            secrets: raw.secrets,
            shutdown: raw.shutdown,
        })
    }

    /// What is a document or a key instead is refused before it is taken for a path: paths are shown.
    fn paths(&mut self) {
        let settings = self.settings;
        for set in settings {
            let is_path = keys::find(&set.key).is_some_and(keys::Key::is_path);
            let counts = sources::effective(settings, &set.key).is_some_and(|other| std::ptr::eq(other, set));
            if is_path && counts && values::is_no_path(&set.value) {
                let mend = match keys::in_place_of_file(&set.key) {
                    Some(other) => format!("give its path, or the text itself as `{other}`"),
                    None => "give its path".to_owned(),
                };
                self.wrong(&set.key, "is not the path of a file, but what should be in it", mend);
            }
        }
    }

    /// Names go into metrics, file names and variables.
    fn names(&mut self, raw: &Raw) {
        let named = raw.credentials.keys().map(|name| ("credentials", name));
        let named = named.chain(raw.upstreams.keys().map(|name| ("upstreams", name)));
        for (table, name) in named.chain(raw.proxies.keys().map(|name| ("proxies", name))) {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            if !plain || name.contains("__") || name.len() > NAME_MAX || name == NONE {
                let what = "is not a name that can be used";
                let mend = "give letters, digits, - and single _, and not the word none";
                self.wrong(&format!("{table}.{name}"), what, mend);
            }
        }
    }

    fn named(&mut self, key: &str, what: &str, text: &str, names: &[String]) -> Option<String> {
        let found = names.iter().find(|name| *name == text);
        let found = found.or_else(|| names.iter().find(|name| keys::is_same_word(name, text)));
        if found.is_none() {
            // Another name may be missing since it was refused, which has been told.
            let known = if names.is_empty() {
                "there is none yet".to_owned()
            } else {
                format!("there is {}", names.join(", "))
            };
            self.wrong(
                key,
                format!("names {what} that there is not"),
                format!("{known}; did you mean one of them?"),
            );
        }
        found.cloned()
    }

    /// Two listeners at one address: the second would not start.
    fn addresses(&mut self, proxies: &[Proxy], admin: Option<&Listen>) {
        let mut taken: Vec<(&Listen, &str)> = Vec::new();
        let admin = admin.map(|listen| (listen, "admin.listen"));
        for (listen, key) in
            proxies.iter().map(|proxy| (&proxy.listen, proxy.listen_key.as_str())).chain(admin)
        {
            let other =
                taken.iter().find(|(other, _)| listen.meets(other)).map(|(_, other)| (*other).to_owned());
            match other {
                Some(other) => {
                    let what = format!("is the address of `{other}` too ({})", self.place(&other));
                    self.wrong(key, what, "give each listener an address of its own");
                }
                None => taken.push((listen, key)),
            }
        }
    }

    fn secret(
        &mut self,
        (given_key, file_key): (&str, &str),
        given: Option<SecretString>,
        file: Option<PathBuf>,
    ) -> Option<Secret> {
        match (given, file) {
            (Some(secret), None) => Some(Secret::Given(secret)),
            (None, Some(file)) => Some(Secret::File(file)),
            (Some(_), Some(_)) => self.nothing(
                given_key,
                format!("is set beside {}", self.own_name(file_key)),
                "give one of the two",
            ),
            (None, None) => {
                let (given, file) = (self.own_name(given_key), self.own_name(file_key));
                let mend = format!("set {} or {file}", keys::variable(given));
                self.nothing(given_key, "is not set", mend)
            }
        }
    }

    fn origin(&mut self, key: &str, text: Option<&str>) -> Option<Url> {
        let Some(text) = text else {
            return self.nothing(
                key,
                "is not set",
                format!("give AEM's address, as in --upstream {EXAMPLE}"),
            );
        };
        let Some(url) = Url::parse(text).ok().and_then(without_root_dot) else {
            return self.nothing(key, "is not a URL", format!("write it as {EXAMPLE}"));
        };
        let wrong = match url.scheme() {
            _ if url.host_str().is_none_or(str::is_empty) => Some(("has no host", "give scheme and host")),
            "http" if !is_loopback(&url) => Some((
                "is plain http, and the token would cross the network in the clear",
                "write https://; http:// is for loopback only",
            )),
            "http" | "https" => None,
            _ => Some(("has a scheme that is neither https nor http", "write https://")),
        };
        let wrong = wrong.or_else(|| {
            (!url.username().is_empty() || url.password().is_some()).then_some((
                "carries a user or a password",
                "remove them; for a local AEM SDK set auth = \"basic\"",
            ))
        });
        let wrong = wrong.or_else(|| {
            (url.path() != "/" || url.query().is_some() || url.fragment().is_some()).then_some((
                "has a path or a query",
                "give the origin alone: the request's own path is forwarded as it is",
            ))
        });
        match wrong {
            Some((what, mend)) => self.nothing(key, what, mend),
            None => Some(url),
        }
    }

    fn refresh_at(&mut self, share: f64) {
        if share <= 0.0 || share > 0.95 || share.is_nan() {
            self.wrong("token.refresh_at", "is not a share between 0 and 0.95", "0.75 suits most");
        }
    }

    fn path_length(&mut self, limits: &Limits) {
        if limits.path > limits.head {
            let hint = "a path is a part of a head: lower limits.path, or raise limits.head";
            self.wrong("limits.path", "is more than limits.head", hint);
        }
    }

    fn source(&self, key: &str) -> Option<Source> {
        sources::effective(self.settings, self.own_name(key)).map(|set| set.source.clone())
    }

    /// The name by which the user knows a key.
    fn own_name<'k>(&self, key: &'k str) -> &'k str
    where
        'a: 'k,
    {
        self.aliases.get(key).copied().unwrap_or(key)
    }

    fn place(&self, key: &str) -> String {
        self.source(key).map_or_else(|| "not set".to_owned(), |source| source.to_string())
    }

    fn nothing<T>(&mut self, key: &str, what: impl Into<String>, mend: impl Into<String>) -> Option<T> {
        self.wrong(key, what, mend);
        None
    }

    fn wrong(&mut self, key: &str, what: impl Into<String>, mend: impl Into<String>) {
        // A table stands where its first value does.
        let key = self.own_name(key).to_owned();
        let below = format!("{key}.");
        let source = self.source(&key).or_else(|| {
            self.settings.iter().find(|set| set.key.starts_with(&below)).map(|set| set.source.clone())
        });
        self.problems.push(Problem { key, source, what: what.into(), mend: mend.into() });
    }
}

const EXAMPLE: &str = "https://author-p1-e2.adobeaemcloud.com";

/// In place of a credential's name.
const NONE: &str = "none";

/// Names are labels of metrics.
const NAME_MAX: usize = 64;
