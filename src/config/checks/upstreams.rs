//! Upstreams: where AEM is and how it is spoken to; and the proxies on the way.

use super::Checker;
use crate::{
    config::{
        ClientFiles, Egress, HttpVersion, ProxyUrlError, TlsVersion, Upstream, Way,
        raw::{RawEgress, RawUpstream},
    },
    secret::SecretString,
};

impl Checker<'_> {
    pub(super) fn upstream_of(&mut self, name: String, raw: RawUpstream) -> Option<Upstream> {
        let key = |last: &str| format!("upstreams.{name}.{last}");
        let url = self.origin(&key("url"), raw.url.as_deref());
        let client = match (raw.client_certificate_file, raw.client_key_file) {
            (Some(certificate), Some(file)) => Some(ClientFiles { certificate, key: file }),
            (None, None) => None,
            (Some(_), None) => {
                let mend = "give client_key_file too";
                self.nothing(&key("client_certificate_file"), "is set, but not the key to it", mend)
            }
            (None, Some(_)) => {
                let mend = "give client_certificate_file too";
                self.nothing(&key("client_key_file"), "is set, but not the certificate to it", mend)
            }
        };
        let url = url?;
        if url.scheme() == "http" {
            let of_tls = [
                ("http", raw.http == HttpVersion::Two),
                ("ca_file", raw.ca_file.is_some()),
                ("client_certificate_file", client.is_some()),
                ("min_tls", raw.min_tls != TlsVersion::default()),
            ];
            for (last, _) in of_tls.into_iter().filter(|(_, given)| *given) {
                self.wrong(
                    &key(last),
                    "is set, but the upstream is plain http",
                    "remove it, or write https://",
                );
            }
        }
        if raw.max_queued.is_some() && raw.max_in_flight.is_none() && raw.max_connections.is_none() {
            let mend = "give max_in_flight or max_connections too";
            self.wrong(&key("max_queued"), "is set, but nothing lets requests wait", mend);
        }
        let standard = Upstream::at(String::new(), url.clone());
        Some(Upstream {
            http: raw.http,
            ca_file: raw.ca_file,
            client,
            min_tls: raw.min_tls,
            max_in_flight: raw.max_in_flight,
            max_queued: raw.max_queued.unwrap_or(standard.max_queued),
            max_connections: raw.max_connections,
            name,
            url,
        })
    }

    pub(super) fn egress(&mut self, raw: &RawEgress) -> Egress {
        Egress {
            aem: self.way("egress.aem_proxy", raw.aem_proxy.as_ref()),
            ims: self.way("egress.ims_proxy", raw.ims_proxy.as_ref()),
        }
    }

    fn way(&mut self, key: &str, given: Option<&SecretString>) -> Way {
        const HINT: &str = "write http://HOST:PORT, with USER:PASSWORD@ before it where the proxy asks for them (each \
                            special character percent-encoded), or off";
        let Some(secret) = given else { return Way::Environment };
        let text = secret.expose_secret();
        if text == "off" {
            return Way::Direct;
        }
        match text.parse() {
            Ok(proxy) => Way::Proxy(proxy),
            Err(error) => {
                self.wrong(key, ProxyUrlError::to_string(&error), HINT);
                Way::Environment
            }
        }
    }

    pub(super) fn budget(&mut self, share: f64) {
        if !(0.0..=1.0).contains(&share) {
            self.wrong("retry.budget", "is not a share between 0 and 1", "0.1 suits most, 0 is none");
        }
    }
}
