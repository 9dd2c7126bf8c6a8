//! Proxies with their routes: where a request goes, as whom, and with what.

use std::{collections::BTreeMap, path::PathBuf};

use http::HeaderName;

use super::{Checker, EXAMPLE, credentials::Standard};
use crate::{
    config::{
        Header, Prefix, Proxy, Route, Secret, Upstream,
        raw::{RawProxy, RawRoute},
    },
    policy::Policy,
    secret::{SecretString, is_field_value},
};

impl Checker<'_> {
    pub(super) fn proxy(
        &mut self,
        name: String,
        raw: RawProxy,
        standard: &Standard,
        policy: &Policy,
        http2: bool,
    ) -> Option<Proxy> {
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
        let policy = self.policy(&format!("proxies.{name}"), raw.policy.as_deref(), &raw.rules, policy);
        let otherwise = Route {
            path: Prefix::all(),
            upstream: upstream.unwrap_or_default(),
            credential: credential.unwrap_or_default(),
            policy,
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
        let http2 = raw.http2.unwrap_or(http2);
        Some(Proxy { name, listen: raw.listen?, listen_key, http2, otherwise, routes })
    }

    pub(super) fn route(
        &mut self,
        table: &str,
        raw: RawRoute,
        otherwise: &Route,
        before: &[Route],
    ) -> Option<Route> {
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
        let policy = self.policy(table, raw.policy.as_deref(), &raw.rules, &otherwise.policy);
        let credential = credential?;
        // A route without a client id does not inherit what needs one.
        let has_client = self.has_client(credential.as_deref());
        let route = Route {
            path: path?,
            upstream: upstream?,
            x_api_key: raw.x_api_key.unwrap_or(otherwise.x_api_key && has_client),
            x_gw_ims_org_id: raw.x_gw_ims_org_id.unwrap_or(otherwise.x_gw_ims_org_id && has_client),
            credential,
            policy,
            headers,
        };
        self.identity(table, &route);
        Some(route)
    }

    pub(super) fn path(&mut self, key: &str, path: Option<&str>, before: &[Route]) -> Option<Prefix> {
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
    pub(super) fn identity(&mut self, table: &str, route: &Route) {
        for (last, asked) in [("x_api_key", route.x_api_key), ("x_gw_ims_org_id", route.x_gw_ims_org_id)] {
            let of_own = self.source(&format!("{table}.{last}")).is_some();
            if asked && of_own && !self.has_client(route.credential.as_deref()) {
                let mend = "name a credential of Adobe's, or remove it";
                self.wrong(&format!("{table}.{last}"), "is set, but the credential has no client id", mend);
            }
        }
    }

    pub(super) fn headers(
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
            } else if matches!(&value, Secret::Given(value) if !is_field_value(value.expose_secret())) {
                self.wrong(&key, "is not a value that a field can have", "give one line of plain text");
            } else {
                headers.push(Header { name, value, key });
            }
        }
        headers
    }

    /// The upstream that `text` names, by its name or by its origin.
    pub(super) fn upstream(&mut self, key: &str, text: &str) -> Option<String> {
        if text.contains("://") {
            let url = self.origin(key, Some(text))?;
            if let Some(known) = self.upstreams.iter().find(|known| known.url == url) {
                return Some(known.name.clone());
            }
            let name = url.origin().ascii_serialization();
            self.upstreams.push(Upstream::at(name.clone(), url));
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

    pub(super) fn only_upstream(&mut self, key: &str) -> Option<String> {
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

    pub(super) fn no_credential(&mut self, key: &str, standard: &Standard) {
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
}

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
