//! What authenticates: each credential is made of one thing, and may have another that stands in.

use std::collections::BTreeSet;

use super::{Checker, NONE};
use crate::config::{
    Credential, CredentialSource, DEFAULT, ImsEndpoint, Secrets,
    raw::{AuthKind, Raw, RawCredential},
};

impl Checker<'_> {
    pub(super) fn credential_of(&mut self, name: String, mut raw: RawCredential, ims_endpoint: Option<&str>) {
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

    pub(super) fn ims_endpoint(&self, key: &str, text: Option<&str>) -> Option<ImsEndpoint> {
        let text = text?.to_owned();
        Some(ImsEndpoint { text, key: key.to_owned(), source: self.place(key) })
    }

    /// A fallback is another credential that gets tokens, and has none itself: one look tells who authenticates.
    pub(super) fn fallbacks(&mut self) {
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
    pub(super) fn standard_credential(&self, raw: &Raw) -> Standard {
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

    pub(super) fn has_client(&self, credential: Option<&str>) -> bool {
        let credential = self.credentials.iter().find(|known| Some(known.name.as_str()) == credential);
        credential.is_some_and(|credential| !matches!(credential.source, CredentialSource::Basic { .. }))
    }

    /// `Some(None)` for the word none.
    pub(super) fn credential_or_none(&mut self, key: &str, text: &str) -> Option<Option<String>> {
        if text == NONE { Some(None) } else { self.credential(key, text).map(Some) }
    }

    pub(super) fn credential(&mut self, key: &str, text: &str) -> Option<String> {
        let names: Vec<_> = self.credentials.iter().map(|credential| credential.name.clone()).collect();
        self.named(key, "a credential", text, &names)
    }
}

/// Scopes as a console shows them, between commas, or as OAuth's own requests have them, between spaces.
fn split(scopes: &[String]) -> Vec<String> {
    let scopes = scopes.iter().flat_map(|text| text.split(|c: char| c == ',' || c.is_whitespace()));
    scopes.filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
}

/// What a proxy sends that names no credential.
#[derive(Clone)]
pub(super) enum Standard {
    Is(Option<String>),
    Missing,
    Several,
}
