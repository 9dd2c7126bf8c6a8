//! Who reaches the listeners, and what they are asked for.

use super::Checker;
use crate::config::{Admin, Guard, Listen, Proxy, ServerFiles, keys, raw::RawTls};

impl Checker<'_> {
    /// Another address than loopback's is never an accident: it takes a word of its own.
    pub(super) fn reach(&mut self, proxies: &[Proxy], guard: &Guard, admin: &Admin) {
        for proxy in proxies.iter().filter(|proxy| !guard.allow_remote && !proxy.listen.is_loopback()) {
            let what = "is an address that other machines reach, and whoever reaches it acts with the proxy's credentials";
            self.wrong(&proxy.listen_key, what, if_meant("guard.allow_remote", "127.0.0.1"));
        }
        let listen = admin.listen.on().filter(|listen| !listen.is_loopback());
        if listen.is_some() && !admin.allow_remote && !guard.allow_remote {
            let what = "is an address that other machines reach, and whoever reaches it reads the proxy's status and metrics";
            self.wrong("admin.listen", what, if_meant("admin.allow_remote", "127.0.0.1"));
        }
    }

    pub(super) fn guard(&mut self, proxies: &[Proxy], guard: &Guard) {
        self.hosts(&guard.allowed_hosts);
        self.web_origins(&guard.allowed_origins);
        let header = "guard.secret_header";
        let usual = keys::find(header).and_then(|key| key.default);
        let is_usual = usual.is_some_and(|usual| usual.eq_ignore_ascii_case(guard.secret_header.as_str()));
        if guard.secret_file.is_none() && !is_usual {
            self.wrong(header, "is set, but there is no secret to show in it", "give guard.secret_file too");
        }
        if OURS.contains(&guard.secret_header.as_str()) {
            let mend = "give a name of its own, such as X-AEM-Proxy-Secret";
            self.wrong(header, "is a field that means something else on the way to AEM", mend);
        }
        let is_socket = |proxy: &Proxy| matches!(proxy.listen, Listen::Unix(_));
        if !guard.socket_uids.is_empty() && !proxies.iter().any(is_socket) {
            let mend = "listen at unix:PATH, or remove it";
            self.wrong("guard.socket_uids", "is set, but TCP does not tell which user connects", mend);
        }
    }

    pub(super) fn tls(&mut self, raw: RawTls) -> Option<ServerFiles> {
        const CERTIFICATE: &str = "tls.certificate_file";
        const KEY: &str = "tls.key_file";
        match (raw.certificate_file, raw.key_file) {
            (Some(certificate), Some(key)) => {
                return Some(ServerFiles { certificate, key, client_ca: raw.client_ca_file });
            }
            (Some(_), None) => {
                self.wrong(CERTIFICATE, "is set, but the key is missing", "give tls.key_file too");
            }
            (None, Some(_)) => {
                self.wrong(KEY, "is set, but the certificate is missing", "give tls.certificate_file too");
            }
            (None, None) if raw.client_ca_file.is_some() => {
                let mend = "give tls.certificate_file and tls.key_file too";
                self.wrong("tls.client_ca_file", "is set, but the listeners speak no TLS", mend);
            }
            (None, None) => {}
        }
        None
    }

    /// Each as it stands in `Host`.
    fn hosts(&mut self, hosts: &[String]) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        for host in hosts.iter().filter(|host| *host != "*") {
            if host.is_empty() || !host.bytes().all(plain) {
                let mend = "give a name, or a name and a port, as in aem-proxy or aem-proxy:8080; only * stands for others";
                self.wrong("guard.allowed_hosts", "has what is no host", mend);
            }
        }
    }
}

fn if_meant(word: &str, other: &str) -> String {
    format!(
        "if that is meant, say so with {word} = true ({}=true); else listen at {other}",
        keys::variable(word)
    )
}

/// Fields that somebody reads, in lower case.
const OURS: [&str; 18] = [
    "accept",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
