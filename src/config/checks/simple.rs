//! The simple form, written out in full.

use super::Checker;
use crate::config::{
    DEFAULT, keys,
    raw::{AuthKind, Raw, RawBasic},
    sources::Source,
};

impl Checker<'_> {
    /// Writes the simple form out in full: its proxy, upstream and credential are those called [`DEFAULT`].
    pub(super) fn unfold(&mut self, raw: &mut Raw) {
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

    pub(super) fn unfold_credential(&mut self, raw: &mut Raw) {
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
    pub(super) fn stands_for<T>(
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
}
