//! The checks that look at more than one key, or further than a key's own form.

use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use crate::network::is_loopback;

use super::{
    Auth, AuthKind, Config, ConfigError, CredentialsSource, ImsEndpoint, Problem, Raw, RawBasic,
    sources::{self, Setting},
};

/// Checks what was read, and tells the source of what is wrong.
pub(super) struct Checker<'a> {
    pub(super) settings: &'a [Setting],
}

impl Checker<'_> {
    pub(super) fn config(&self, raw: Raw) -> Result<Config, ConfigError> {
        let upstream = self.upstream(raw.upstream.as_deref());
        let auth = self.auth(raw.auth, raw.credentials_file, raw.credentials_json, raw.basic);
        let refresh_at = self.refresh_at(raw.token.refresh_at);
        let problems = [upstream.as_ref().err(), auth.as_ref().err(), refresh_at.as_ref().err()];
        let problems: Vec<_> = problems.into_iter().flatten().cloned().collect();
        let (Ok(upstream), Ok(auth), true) = (upstream, auth, problems.is_empty()) else {
            return Err(ConfigError(problems));
        };
        Ok(Config {
            upstream,
            listen: raw.listen,
            auth,
            ca_file: raw.ca_file,
            ims_endpoint: raw
                .ims_endpoint
                .map(|text| ImsEndpoint { text, source: self.source_of("ims_endpoint") }),
            admin: raw.admin,
            guard: raw.guard,
            log: raw.log,
            token: raw.token,
            timeouts: raw.timeouts,
            limits: raw.limits,
            shutdown: raw.shutdown,
        })
    }

    fn upstream(&self, upstream: Option<&str>) -> Result<Url, Problem> {
        const EXAMPLE: &str = "https://author-p1-e2.adobeaemcloud.com";
        let Some(text) = upstream.filter(|text| !text.is_empty()) else {
            return Err(self.problem(
                "upstream",
                "is not set",
                format!("give AEM's address, as in --upstream {EXAMPLE}"),
            ));
        };
        let url = Url::parse(text)
            .map_err(|_| self.problem("upstream", "is not a URL", format!("write it as {EXAMPLE}")))?;
        let wrong = match url.scheme() {
            _ if url.host_str().is_none_or(str::is_empty) => {
                Some(("has no host", format!("as in {EXAMPLE}")))
            }
            "http" if !is_loopback(&url) => Some((
                "is plain http, and the token would cross the network in the clear",
                "write https://; http:// is for loopback only".to_owned(),
            )),
            "http" | "https" => None,
            _ => Some(("has a scheme that is neither https nor http", format!("as in {EXAMPLE}"))),
        };
        if let Some((what, mend)) = wrong {
            return Err(self.problem("upstream", what, mend));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.problem(
                "upstream",
                "carries a user or a password",
                "remove them; for a local AEM SDK set auth = \"basic\"",
            ));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(self.problem(
                "upstream",
                "has a path or a query",
                "give the origin alone: the request's own path is forwarded as it is",
            ));
        }
        Ok(url)
    }

    fn auth(
        &self,
        kind: AuthKind,
        file: Option<PathBuf>,
        json: Option<SecretString>,
        basic: RawBasic,
    ) -> Result<Auth, Problem> {
        match (kind, file, json) {
            (AuthKind::Bearer, Some(_), Some(_)) => Err(self.problem(
                "credentials_json",
                format!("is set beside credentials_file ({})", self.source_of("credentials_file")),
                "give one of the two",
            )),
            (AuthKind::Bearer, Some(file), None) => Ok(Auth::Bearer(CredentialsSource::File(file))),
            (AuthKind::Bearer, None, Some(json)) => {
                let name = self.source_of("credentials_json");
                Ok(Auth::Bearer(CredentialsSource::Inline(json, name)))
            }
            (AuthKind::Bearer, None, None) => Err(self.problem(
                "credentials_file",
                "is not set, and so there is nothing to buy a token with",
                "give the Developer Console's JSON file; or say auth = \"none\" for a local AEM SDK",
            )),
            (_, Some(_), _) => Err(self.useless("credentials_file")),
            (_, _, Some(_)) => Err(self.useless("credentials_json")),
            (AuthKind::Basic, ..) => Ok(Auth::Basic {
                user: basic.user,
                password: self.password(basic.password, basic.password_file)?,
            }),
            (AuthKind::None, ..) => Ok(Auth::None),
        }
    }

    fn useless(&self, key: &'static str) -> Problem {
        self.problem(key, "is set, but auth is not \"bearer\"", "remove one of the two")
    }

    fn password(
        &self,
        password: Option<SecretString>,
        file: Option<PathBuf>,
    ) -> Result<SecretString, Problem> {
        match (password, file) {
            (Some(password), None) => Ok(password),
            (None, Some(file)) => match std::fs::read_to_string(&file) {
                Ok(text) => Ok(SecretString::from(text.trim_end_matches(['\r', '\n']))),
                Err(error) => Err(self.problem(
                    "basic.password_file",
                    format!("cannot be read: {}", error.kind()),
                    format!("is {} there, and may this user read it?", file.display()),
                )),
            },
            (Some(_), Some(_)) => Err(self.problem(
                "basic.password",
                "is set beside basic.password_file",
                "give one of the two",
            )),
            (None, None) => Err(self.problem(
                "basic.password",
                "is not set, but auth is \"basic\"",
                "set AEM_PROXY_BASIC__PASSWORD or basic.password_file",
            )),
        }
    }

    fn refresh_at(&self, share: f64) -> Result<(), Problem> {
        if share > 0.0 && share <= 0.95 {
            return Ok(());
        }
        Err(self.problem("token.refresh_at", "is not a share between 0 and 0.95", "0.75 suits most"))
    }

    fn source_of(&self, key: &str) -> String {
        sources::effective(self.settings, key)
            .map_or_else(|| "not set".to_owned(), |set| set.source.to_string())
    }

    fn problem(&self, key: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Problem {
        let source = sources::effective(self.settings, key).map(|set| set.source.clone());
        Problem { key: key.to_owned(), source, what: what.into(), mend: mend.into() }
    }
}
