//! The checks that look at more than one key, or further than a key's own form.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::network::is_loopback;

use super::{
    AuthKind, Config, ConfigError, Credential, CredentialSource, DEFAULT, Header, ImsEndpoint, Listen,
    Prefix, Problem, Proxy, Raw, RawBasic, RawCredential, RawProxy, RawRoute, Route, Secret, Secrets,
    Upstream, keys,
    sources::{self, Setting, Source},
    values,
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
            let key = format!("upstreams.{name}.url");
            if let Some(url) = self.origin(&key, upstream.url.as_deref()) {
                self.upstreams.push(Upstream { name, url });
            }
        }
        let standard = self.standard_credential(&raw);
        let mut proxies = Vec::new();
        for (name, proxy) in std::mem::take(&mut raw.proxies) {
            proxies.extend(self.proxy(name, proxy, &standard));
        }
        self.addresses(&proxies, raw.admin.listen.on());
        self.refresh_at(raw.token.refresh_at);
        if !self.problems.is_empty() {
            return Err(ConfigError(self.problems));
        }
        Ok(Config {
            credentials: self.credentials,
            upstreams: self.upstreams,
            proxies,
            ca_file: raw.ca_file,
            admin: raw.admin,
            guard: raw.guard,
            log: raw.log,
            token: raw.token,
            watch: raw.watch,
            timeouts: raw.timeouts,
            limits: raw.limits,
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

    /// Writes the simple form out in full: its proxy, upstream and credential are those called [`DEFAULT`].
    fn unfold(&mut self, raw: &mut Raw) {
        let url = raw.upstream.take().filter(|url| !url.is_empty());
        if url.is_none() && !raw.proxies.is_empty() {
            if keys::find("listen").and_then(|key| key.default?.parse().ok()) != Some(raw.listen.clone()) {
                let mend = "give `upstream` too, or set the `listen` of a named proxy";
                self.wrong("listen", "is set, but the proxy that it is for has no upstream", mend);
            }
        } else {
            let upstream = raw.upstreams.entry(DEFAULT.to_owned()).or_default();
            self.stands_for("upstream", "upstreams.default.url", url, &mut upstream.url);
            let proxy = raw.proxies.entry(DEFAULT.to_owned()).or_default();
            self.stands_for("listen", "proxies.default.listen", Some(raw.listen.clone()), &mut proxy.listen);
            let upstream = Some(DEFAULT.to_owned());
            self.stands_for("upstream", "proxies.default.upstream", upstream, &mut proxy.upstream);
        }
        self.unfold_credential(raw);
    }

    fn unfold_credential(&mut self, raw: &mut Raw) {
        let (file, json) = (raw.credentials_file.take(), raw.credentials_json.take());
        let (name, basic) = (raw.credentials_name.take(), std::mem::take(&mut raw.basic));
        let has_document = file.is_some() || json.is_some();
        let is_bearer = matches!(raw.auth, AuthKind::Bearer);
        for (key, given) in [("credentials_file", file.is_some()), ("credentials_json", json.is_some())] {
            if given && !is_bearer {
                self.wrong(key, "is set, but auth is not \"bearer\"", "remove one of the two");
            }
        }
        if file.is_some() && json.is_some() {
            let what = format!("is set beside credentials_file ({})", self.place("credentials_file"));
            return self.wrong("credentials_json", what, "give one of the two");
        }
        if name.is_some() && !has_document {
            let mend = "give credentials_file too";
            self.wrong("credentials_name", "is set, but there is no document to look in", mend);
        }
        if is_bearer && has_document {
            let own = raw.credentials.entry(DEFAULT.to_owned()).or_default();
            self.stands_for("credentials_file", "credentials.default.file", file, &mut own.file);
            self.stands_for("credentials_json", "credentials.default.json", json, &mut own.json);
            self.stands_for("credentials_name", "credentials.default.name", name, &mut own.name);
        }
        if matches!(raw.auth, AuthKind::Basic) {
            let RawBasic { user, password, password_file: file } = basic;
            let own = raw.credentials.entry(DEFAULT.to_owned()).or_default();
            self.stands_for("basic.user", "credentials.default.user", Some(user), &mut own.user);
            self.stands_for("basic.password", "credentials.default.password", password, &mut own.password);
            let key = "credentials.default.password_file";
            self.stands_for("basic.password_file", key, file, &mut own.password_file);
        }
    }

    /// What the simple form says goes where the full form has it, and is told of by the name that the user knows.
    fn stands_for<T>(
        &mut self,
        simple: &'static str,
        full: &'static str,
        value: Option<T>,
        place: &mut Option<T>,
    ) {
        if place.is_some() {
            if value.is_some() && self.source(simple) != Some(Source::Default) {
                self.wrong(
                    full,
                    format!("is set beside {simple} ({})", self.place(simple)),
                    "give one of the two",
                );
            }
            return;
        }
        *place = value;
        self.aliases.insert(full, simple);
    }

    fn credential_of(&mut self, name: String, mut raw: RawCredential, ims_endpoint: Option<&str>) {
        raw.scopes = split(&raw.scopes);
        if let Some(secrets) = &mut raw.client_secret {
            secrets.retain(|secret| !secret.expose_secret().trim().is_empty());
        }
        let key = |last: &str| format!("credentials.{name}.{last}");
        let ways = [
            ("file", raw.file.is_some()),
            ("json", raw.json.is_some()),
            ("client_id", raw.client_id.is_some()),
            ("user", raw.user.is_some()),
        ];
        let given: Vec<_> = ways.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect();
        let [way] = given[..] else {
            return match given.first() {
                None => self.wrong(
                    &format!("credentials.{name}"),
                    "says nothing that could authenticate",
                    "give file, json, client_id with client_secret and scopes, or user with password",
                ),
                Some(_) => {
                    let what = format!("is made of {} at once", given.join(" and "));
                    self.wrong(&format!("credentials.{name}"), what, "give one of them");
                }
            };
        };
        let belongs = [
            ("name", raw.name.is_some(), ["file", "json"].as_slice()),
            ("client_secret", raw.client_secret.is_some(), &["client_id"]),
            ("client_secret_file", raw.client_secret_file.is_some(), &["client_id"]),
            ("scopes", !raw.scopes.is_empty(), &["client_id", "file", "json"]),
            ("org_id", raw.org_id.is_some(), &["client_id"]),
            ("password", raw.password.is_some(), &["user"]),
            ("password_file", raw.password_file.is_some(), &["user"]),
            ("ims_endpoint", raw.ims_endpoint.is_some(), &["client_id", "file", "json"]),
            ("fallback", raw.fallback.is_some(), &["client_id", "file", "json"]),
        ];
        for (last, given, ways) in belongs {
            if given && !ways.contains(&way) {
                self.wrong(&key(last), format!("does not go with {way}"), "remove one of the two");
            }
        }
        let source = match (raw.file, raw.json, raw.client_id) {
            (Some(path), ..) => CredentialSource::File { path, pick: raw.name },
            (_, Some(document), _) => {
                CredentialSource::Inline { document, place: self.place(&key("json")), pick: raw.name }
            }
            (.., Some(id)) => {
                let secrets = match (raw.client_secret.unwrap_or_default(), raw.client_secret_file) {
                    (secrets, None) if !secrets.is_empty() => Secrets::Given(secrets),
                    (secrets, Some(file)) if secrets.is_empty() => Secrets::File(file),
                    (secrets, _) => {
                        let what = if secrets.is_empty() {
                            "is not set"
                        } else {
                            "is set beside client_secret_file"
                        };
                        return self.wrong(
                            &key("client_secret"),
                            what,
                            "give one of client_secret, client_secret_file",
                        );
                    }
                };
                if raw.scopes.is_empty() {
                    let mend = "give the scopes of the credential, as the Adobe Developer Console lists them";
                    self.wrong(&key("scopes"), "is not set, and IMS gives no token without scopes", mend);
                }
                CredentialSource::Client { id, secrets, org: raw.org_id }
            }
            _ => {
                let keys = (key("password"), key("password_file"));
                let password = self.secret((&keys.0, &keys.1), raw.password, raw.password_file);
                let (Some(user), Some(password)) = (raw.user, password) else { return };
                CredentialSource::Basic { user, password }
            }
        };
        let ims_endpoint = match raw.ims_endpoint {
            Some(text) => self.ims_endpoint(&key("ims_endpoint"), Some(&text)),
            None => self.ims_endpoint("ims_endpoint", ims_endpoint),
        };
        let fallback = raw.fallback;
        self.credentials.push(Credential { name, source, ims_endpoint, scopes: raw.scopes, fallback });
    }

    fn ims_endpoint(&self, key: &str, text: Option<&str>) -> Option<ImsEndpoint> {
        let text = text?.to_owned();
        Some(ImsEndpoint { text, key: key.to_owned(), source: self.place(key) })
    }

    /// A fallback is another credential that gets tokens, and has none itself: one look tells who authenticates.
    fn fallbacks(&mut self) {
        let wanted: Vec<_> = self
            .credentials
            .iter()
            .filter_map(|credential| Some((credential.name.clone(), credential.fallback.clone()?)))
            .collect();
        for (name, fallback) in wanted {
            let key = format!("credentials.{name}.fallback");
            let Some(other) = self.credential(&key, &fallback) else { continue };
            let wrong = match self.credentials.iter().find(|credential| credential.name == other) {
                Some(_) if other == name => Some("names the credential itself"),
                Some(Credential { source: CredentialSource::Basic { .. }, .. }) => {
                    Some("names a user with a password, which is no bearer token")
                }
                Some(Credential { fallback: Some(_), .. }) => {
                    Some("names a credential that has a fallback itself")
                }
                _ => None,
            };
            match wrong {
                Some(what) => self.wrong(&key, what, "name another credential"),
                None => {
                    let own = self.credentials.iter_mut().find(|credential| credential.name == name);
                    if let Some(own) = own {
                        own.fallback = Some(other);
                    }
                }
            }
        }
    }

    /// The credential of proxies that name none: that of the simple form, or the only one that there is.
    fn standard_credential(&self, raw: &Raw) -> Standard {
        if matches!(raw.auth, AuthKind::None) {
            return Standard::Is(None);
        }
        if self.credentials.iter().any(|credential| credential.name == DEFAULT) {
            return Standard::Is(Some(DEFAULT.to_owned()));
        }
        let fallbacks: BTreeSet<_> =
            self.credentials.iter().filter_map(|credential| credential.fallback.as_deref()).collect();
        let mut firsts =
            self.credentials.iter().filter(|credential| !fallbacks.contains(credential.name.as_str()));
        match (firsts.next(), firsts.next()) {
            (Some(only), None) => Standard::Is(Some(only.name.clone())),
            (None, _) => Standard::Missing,
            (Some(_), Some(_)) => Standard::Several,
        }
    }

    fn no_credential(&mut self, key: &str, standard: &Standard) {
        // What is wrong with those that there are has been told.
        let is_of_credentials = |key: &str| key.starts_with("credentials") || key.starts_with("basic");
        match standard {
            Standard::Missing if self.problems.iter().any(|problem| is_of_credentials(&problem.key)) => {}
            Standard::Several => {
                let names: Vec<_> =
                    self.credentials.iter().map(|credential| credential.name.as_str()).collect();
                let mend = format!("say which of {} it uses, or none", names.join(", "));
                self.wrong(key, "is not set, and there are several credentials", mend);
            }
            _ => self.wrong(
                // The usual way, which most have forgotten.
                if key == "proxies.default.credentials" { "credentials_file" } else { key },
                "is not set, and so there is nothing to buy a token with",
                "give Adobe's JSON document; or say auth = \"none\" for a local AEM SDK",
            ),
        }
    }

    fn proxy(&mut self, name: String, raw: RawProxy, standard: &Standard) -> Option<Proxy> {
        let key = |last: &str| format!("proxies.{name}.{last}");
        let listen_key = self.own_name(&key("listen")).to_owned();
        if raw.listen.is_none() {
            self.wrong(&listen_key, "is not set", "give the address where the app finds this proxy");
        }
        let upstream = match raw.upstream {
            Some(text) => self.upstream(&key("upstream"), &text),
            None => self.only_upstream(&key("upstream")),
        };
        let credential = match (raw.credentials, standard) {
            (Some(text), _) => self.credential_or_none(&key("credentials"), &text),
            (None, Standard::Is(credential)) => Some(credential.clone()),
            (None, standard) => {
                self.no_credential(&key("credentials"), standard);
                None
            }
        };
        let headers = self.headers(&format!("proxies.{name}"), raw.headers, raw.header_files);
        let otherwise = Route {
            path: Prefix::all(),
            upstream: upstream.unwrap_or_default(),
            credential: credential.unwrap_or_default(),
            x_api_key: raw.x_api_key.unwrap_or(false),
            x_gw_ims_org_id: raw.x_gw_ims_org_id.unwrap_or(false),
            headers,
        };
        self.identity(&format!("proxies.{name}"), &otherwise);
        let mut numbered: Vec<_> = raw
            .routes
            .into_iter()
            .filter_map(|(number, route)| Some((number.parse::<u16>().ok()?, route)))
            .collect();
        numbered.sort_by_key(|(number, _)| *number);
        let mut routes = Vec::new();
        for (number, route) in numbered {
            let table = format!("proxies.{name}.routes.{number}");
            if let Some(route) = self.route(&table, route, &otherwise, &routes) {
                routes.push(route);
            }
        }
        Some(Proxy { name, listen: raw.listen?, listen_key, otherwise, routes })
    }

    fn route(&mut self, table: &str, raw: RawRoute, otherwise: &Route, before: &[Route]) -> Option<Route> {
        let key = |last: &str| format!("{table}.{last}");
        let path = self.path(&key("path"), raw.path.as_deref(), before);
        let upstream = match raw.upstream {
            Some(text) => self.upstream(&key("upstream"), &text),
            None => Some(otherwise.upstream.clone()),
        };
        let credential = match raw.credentials {
            Some(text) => self.credential_or_none(&key("credentials"), &text),
            None => Some(otherwise.credential.clone()),
        };
        // What the proxy says of fields holds for its routes, unless they say otherwise.
        let mut headers = self.headers(table, raw.headers, raw.header_files);
        let inherited =
            otherwise.headers.iter().filter(|header| headers.iter().all(|own| own.name != header.name));
        let inherited: Vec<_> = inherited.cloned().collect();
        headers.extend(inherited);
        let credential = credential?;
        // A route without a client id does not inherit what needs one.
        let has_client = self.has_client(credential.as_deref());
        let route = Route {
            path: path?,
            upstream: upstream?,
            x_api_key: raw.x_api_key.unwrap_or(otherwise.x_api_key && has_client),
            x_gw_ims_org_id: raw.x_gw_ims_org_id.unwrap_or(otherwise.x_gw_ims_org_id && has_client),
            credential,
            headers,
        };
        self.identity(table, &route);
        Some(route)
    }

    fn path(&mut self, key: &str, path: Option<&str>, before: &[Route]) -> Option<Prefix> {
        const MEND: &str = "begin with /, as in /adobe/ or /api/assets, without a query and without %";
        let path: Prefix = match path.map(str::parse) {
            Some(Ok(path)) => path,
            Some(Err(what)) => return self.nothing(key, what, MEND),
            None => return self.nothing(key, "is not set", MEND),
        };
        if let Some(first) = before.iter().find(|first| first.path.covers(path.to_string().as_bytes())) {
            let what = format!("is never asked: the route for {} comes before and has it", first.path);
            return self.nothing(key, what, "put the longer path first");
        }
        Some(path)
    }

    /// `X-Api-Key` and the organisation come from a credential that has them.
    fn identity(&mut self, table: &str, route: &Route) {
        for (last, asked) in [("x_api_key", route.x_api_key), ("x_gw_ims_org_id", route.x_gw_ims_org_id)] {
            let of_own = self.source(&format!("{table}.{last}")).is_some();
            if asked && of_own && !self.has_client(route.credential.as_deref()) {
                let mend = "name a credential of Adobe's, or remove it";
                self.wrong(&format!("{table}.{last}"), "is set, but the credential has no client id", mend);
            }
        }
    }

    fn has_client(&self, credential: Option<&str>) -> bool {
        let credential = self.credentials.iter().find(|known| Some(known.name.as_str()) == credential);
        credential.is_some_and(|credential| !matches!(credential.source, CredentialSource::Basic { .. }))
    }

    fn headers(
        &mut self,
        table: &str,
        given: BTreeMap<String, SecretString>,
        files: BTreeMap<String, PathBuf>,
    ) -> Vec<Header> {
        let given = given.into_iter().map(|(name, value)| ("headers", name, Secret::Given(value)));
        let files = files.into_iter().map(|(name, path)| ("header_files", name, Secret::File(path)));
        let mut headers: Vec<Header> = Vec::new();
        for (last, text, value) in given.chain(files) {
            let key = format!("{table}.{last}.{text}");
            let Ok(name) = text.parse::<HeaderName>() else {
                self.wrong(&key, "is not the name of a field", "give a name such as X-Tenant");
                continue;
            };
            let ours = OURS.iter().find(|(ours, _)| {
                name == *ours || ours.ends_with('-') && text.to_lowercase().starts_with(ours)
            });
            if let Some((_, mend)) = ours {
                self.wrong(&key, "is a field that the proxy itself looks after", *mend);
            } else if headers.iter().any(|header| header.name == name) {
                self.wrong(&key, "is given twice", "give one value, in headers or in header_files");
            } else if matches!(&value, Secret::Given(value) if HeaderValue::from_str(value.expose_secret()).is_err())
            {
                self.wrong(&key, "is not a value that a field can have", "give one line of plain text");
            } else {
                headers.push(Header { name, value, key });
            }
        }
        headers
    }

    /// The upstream that `text` names, by its name or by its origin.
    fn upstream(&mut self, key: &str, text: &str) -> Option<String> {
        if text.contains("://") {
            let url = self.origin(key, Some(text))?;
            if let Some(known) = self.upstreams.iter().find(|known| known.url == url) {
                return Some(known.name.clone());
            }
            let name = url.origin().ascii_serialization();
            self.upstreams.push(Upstream { name: name.clone(), url });
            return Some(name);
        }
        // What is wrong with its address has been told.
        let url = format!("upstreams.{text}.url");
        let told = self.own_name(&url);
        if self.problems.iter().any(|problem| problem.key == told) {
            return None;
        }
        let names: Vec<_> = self.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        self.named(key, "an upstream", text, &names)
    }

    fn only_upstream(&mut self, key: &str) -> Option<String> {
        match &self.upstreams[..] {
            [only] => Some(only.name.clone()),
            _ => {
                self.wrong(
                    key,
                    "is not set",
                    format!("give the name of an upstream or AEM's origin, as in {EXAMPLE}"),
                );
                None
            }
        }
    }

    /// `Some(None)` for the word none.
    fn credential_or_none(&mut self, key: &str, text: &str) -> Option<Option<String>> {
        if text == NONE { Some(None) } else { self.credential(key, text).map(Some) }
    }

    fn credential(&mut self, key: &str, text: &str) -> Option<String> {
        let names: Vec<_> = self.credentials.iter().map(|credential| credential.name.clone()).collect();
        self.named(key, "a credential", text, &names)
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
        let Ok(url) = Url::parse(text) else {
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

/// Scopes as a console shows them, between commas, or as OAuth's own requests have them, between spaces.
fn split(scopes: &[String]) -> Vec<String> {
    let scopes = scopes.iter().flat_map(|text| text.split(|c: char| c == ',' || c.is_whitespace()));
    scopes.filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
}

/// What a proxy sends that names no credential.
#[derive(Clone)]
enum Standard {
    Is(Option<String>),
    Missing,
    Several,
}

const EXAMPLE: &str = "https://author-p1-e2.adobeaemcloud.com";

/// In place of a credential's name.
const NONE: &str = "none";

/// Names are labels of metrics.
const NAME_MAX: usize = 64;

/// Fields that have one meaning on the way to AEM, and who gives it.
const OURS: [(&str, &str); 16] = [
    ("authorization", "name a credential instead"),
    ("host", "it is the upstream's"),
    ("content-length", "it is the body's"),
    ("transfer-encoding", "it is the connection's"),
    ("connection", "it is the connection's"),
    ("keep-alive", "it is the connection's"),
    ("proxy-connection", "it is the connection's"),
    ("proxy-authorization", "it is the connection's"),
    ("te", "it is the connection's"),
    ("trailer", "it is the body's"),
    ("upgrade", "it is the connection's"),
    ("expect", "it is the app's"),
    ("via", "the proxy adds itself"),
    ("forwarded", "AEM's CDN must not see it"),
    ("x-forwarded-", "AEM's CDN must not see it"),
    ("x-api-key", "say x_api_key = true for the credential's client id"),
];
