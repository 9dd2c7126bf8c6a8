//! Who may ask. A proxy that lends credentials to a local port is a target for every web page that the same
//! machine shows: by DNS rebinding (a foreign `Host`) and by cross-site requests (a foreign `Origin`); and for whoever
//! else reaches the port, or the socket.

mod host;
mod secret;

use http::{Request, header};

use self::host::{Authority, ip_of};
pub use self::secret::{Known, Secret, SecretError};
pub use crate::listener::Local;
use crate::{listener::Stream, steps};

/// The rules of one listener.
#[derive(Debug)]
pub struct Guard {
    any_host: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
    /// What the listener's own origins begin with.
    scheme: &'static str,
    secret: Option<Secret>,
    /// The users who may connect to a Unix socket; empty where its mode decides alone.
    peers: Vec<u32>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// No `Host`, several, one that cannot be one (RFC 9112, section 3.2), or one that contradicts the target.
    #[error("Host is missing, malformed, or not the target's")]
    NoHost,
    /// `Host` names somebody else.
    #[error("Host is not one of this listener's names")]
    Host,
    /// `Origin` is a web origin that may not call.
    #[error("Origin may not call")]
    Origin,
    /// A browser says that another site caused the request.
    #[error("the request comes from another site")]
    CrossSite,
    /// The shared secret is missing, or another one.
    #[error("the shared secret is missing or wrong")]
    Secret,
}

impl Guard {
    /// `allowed_hosts` stand beside the listener's own names: loopback names, and the address dialled. `*` allows
    /// all. A name without a port is allowed with any: what makes rebinding is the name.
    pub fn new(allowed_hosts: &[String], allowed_origins: &[String]) -> Self {
        let lower = |texts: &[String]| {
            texts.iter().map(|text| text.trim_end_matches('/').to_ascii_lowercase()).collect()
        };
        Self {
            any_host: allowed_hosts.iter().any(|host| host == "*"),
            hosts: lower(allowed_hosts),
            origins: lower(allowed_origins),
            scheme: HTTP,
            secret: None,
            peers: Vec::new(),
        }
    }

    /// The same where every request has to show a secret, and where only these users may connect to a Unix socket.
    #[must_use]
    pub fn demanding(self, secret: Option<Secret>, peers: &[u32]) -> Self {
        Self { secret, peers: peers.to_vec(), ..self }
    }

    /// The same for a listener that speaks TLS.
    pub(super) fn over_tls(self) -> Self {
        Self { scheme: HTTPS, ..self }
    }

    /// What the listener's own origins begin with.
    pub(super) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Whether every `Host` is let in.
    pub fn admits_any_host(&self) -> bool {
        self.any_host
    }

    /// Whether the other end of a connection may ask at all. TCP does not tell whose it is.
    pub fn admits_peer(&self, stream: &Stream) -> bool {
        let Some(peer) = stream.peer_uid() else { return true };
        self.peers.is_empty() || peer.is_ok_and(|uid| self.peers.contains(&uid))
    }

    /// Lets a request in, or says why not. Tells which of the allowed origins it comes from, if from one: such an answer
    /// is for a page to read.
    ///
    /// # Errors
    /// When it names another host, or comes from another site.
    pub fn admit(&self, asked: &Asked<'_>, local: Local) -> Result<Option<&str>, GuardError> {
        let host = match asked.for_host() {
            Ok(host) => host,
            // A client that knows of no name leaves it empty (RFC 9110, section 7.2).
            Err(_) if local == Local::UnixSocket && asked.has_empty_host() => UNIX_HOST,
            Err(error) => return Err(error),
        };
        // No web page can connect to a Unix socket, by whatever name: there is no DNS rebinding.
        if !self.any_host && local != Local::UnixSocket && !self.is_ours(host, local) {
            return Err(GuardError::Host);
        }
        self.admit_page(asked, host.as_bytes())
    }

    /// The same for a request whose `host` is known to be the proxy's.
    pub(super) fn admit_page(&self, asked: &Asked<'_>, host: &[u8]) -> Result<Option<&str>, GuardError> {
        match asked.origin {
            Value::None => self.admit_site(asked, host).map(|()| None),
            // A page that came through this proxy has the proxy's own origin; all others have to be configured.
            Value::One(origin) if self.is_own(origin, host) => Ok(None),
            Value::One(origin) => self.allowed(origin).map(Some).ok_or(GuardError::Origin),
            Value::Several => Err(GuardError::Origin),
        }
    }

    /// A browser that sends no `Origin` (an image, a link) may say how far away the page is that it does it for.
    fn admit_site(&self, asked: &Asked<'_>, host: &[u8]) -> Result<(), GuardError> {
        match asked.site {
            Site::Untold | Site::Own => Ok(()),
            // All ports of a host are one site: which of their pages it is only `Referer` tells, and a page can leave it
            // out, but not write another's into it.
            Site::Same => {
                let origin = if let Value::One(referer) = asked.referer { origin_of(referer) } else { b"" };
                let known = self.is_own(origin, host) || self.allowed(origin).is_some();
                known.then_some(()).ok_or(GuardError::Origin)
            }
            // `Referer` is of no account here: behind a redirect of another site it still names the page.
            Site::Cross => Err(GuardError::CrossSite),
        }
    }

    /// The name of the field in which every request has to show the secret, if there is one.
    pub(super) fn secret_header(&self) -> Option<&str> {
        self.secret.as_ref().map(Secret::header)
    }

    /// Whether what a request has `shown` in that field is the secret, once.
    pub(super) fn admits_secret<'f>(
        &self,
        mut shown: impl Iterator<Item = &'f [u8]>,
    ) -> Result<(), GuardError> {
        match (&self.secret, shown.next(), shown.next()) {
            (None, ..) => Ok(()),
            (Some(secret), Some(shown), None) if secret.is(shown) => Ok(()),
            _ => Err(GuardError::Secret),
        }
    }

    /// Whether a field called `name` carries the secret, and so stays here.
    pub(super) fn keeps(&self, name: &str) -> bool {
        self.secret_header().is_some_and(|header| header.eq_ignore_ascii_case(name))
    }

    fn is_ours(&self, host: &str, local: Local) -> bool {
        let name = Authority::of(host).map_or(host, |authority| authority.name);
        LOOPBACK.iter().any(|own| own.eq_ignore_ascii_case(name))
            || self
                .hosts
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(host) || allowed.eq_ignore_ascii_case(name))
            || matches!(local, Local::Ip(ip) if ip_of(name) == Some(ip))
    }

    /// Whether `origin` is of a page that is let in: the proxy's own, which the client calls `host`, or an allowed one.
    pub(super) fn knows(&self, origin: &[u8], host: Option<&str>) -> bool {
        host.is_some_and(|host| self.is_own(origin, host.as_bytes())) || self.allowed(origin).is_some()
    }

    /// Whether `origin` is the proxy's: as the client calls it, which is `host`, or by another name of this machine with the
    /// same port.
    pub(super) fn is_for(&self, origin: &[u8], host: Option<&str>) -> bool {
        let Some(host) = host else { return false };
        let named =
            origin.strip_prefix(self.scheme.as_bytes()).and_then(|named| std::str::from_utf8(named).ok());
        let is_alias = |named: &str| match (Authority::of(named), Authority::of(host)) {
            (Some(other), Some(own)) => {
                LOOPBACK.iter().any(|own| own.eq_ignore_ascii_case(other.name)) && other.port == own.port
            }
            _ => false,
        };
        self.is_own(origin, host.as_bytes()) || named.is_some_and(is_alias)
    }

    /// The allowed origin that `origin` is, if it is one.
    fn allowed(&self, origin: &[u8]) -> Option<&str> {
        let origins = self.origins.iter().map(String::as_str);
        origins.into_iter().find(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin))
    }

    /// Whether `origin` is what a browser calls us when it comes to `host`.
    fn is_own(&self, origin: &[u8], host: &[u8]) -> bool {
        let own = origin.strip_prefix(self.scheme.as_bytes());
        own.is_some_and(|own| own.eq_ignore_ascii_case(host))
    }
}

/// The origin at the beginning of a URL.
fn origin_of(url: &[u8]) -> &[u8] {
    let Some(scheme) = memchr::memmem::find(steps::over(url), b"://") else { return b"" };
    let rest = &url[scheme + 3..];
    let end = rest.iter().position(|byte| b"/?#\\".contains(byte)).unwrap_or(rest.len());
    &url[..scheme + 3 + end]
}

/// What a request says of whom it is for and where it comes from. Filled field by field.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The authority of an absolute target.
    authority: Option<&'a [u8]>,
    host: Value<'a>,
    origin: Value<'a>,
    referer: Value<'a>,
    site: Site,
}

/// The value of a field that is there once at most.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    None,
    One(&'a [u8]),
    /// No browser sends two.
    Several,
}

impl<'a> Value<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = if matches!(self, Self::None) { Self::One(value) } else { Self::Several };
    }
}

/// How far away the page is that a browser asks for; the farthest where several are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Site {
    /// It is no browser, or an old one, or the proxy has a name that browsers do not trust.
    Untold,
    /// There is no other page: it is of the proxy's own origin, or a person typed the address.
    Own,
    /// It is of another origin at the same host, or at a host beside it.
    Same,
    Cross,
}

impl<'a> Asked<'a> {
    /// Nothing is known but the authority of the target, where that is an absolute URI.
    pub fn new(authority: Option<&'a [u8]>) -> Self {
        Self { authority, host: Value::None, origin: Value::None, referer: Value::None, site: Site::Untold }
    }

    /// What the head of `request` says.
    pub fn of<B>(request: &'a Request<B>) -> Self {
        let mut asked = Self::new(request.uri().authority().map(|authority| authority.as_str().as_bytes()));
        let fields = request.headers();
        fields.get_all(header::HOST).iter().for_each(|value| asked.host(value.as_bytes()));
        fields.get_all(header::ORIGIN).iter().for_each(|value| asked.origin(value.as_bytes()));
        fields.get_all(header::REFERER).iter().for_each(|value| asked.referer(value.as_bytes()));
        fields.get_all("sec-fetch-site").iter().for_each(|value| asked.site(value.as_bytes()));
        asked
    }

    /// A `Host` field.
    pub fn host(&mut self, value: &'a [u8]) {
        self.host.add(value);
    }

    /// An `Origin` field.
    pub fn origin(&mut self, value: &'a [u8]) {
        self.origin.add(value);
    }

    /// A `Referer` field.
    pub fn referer(&mut self, value: &'a [u8]) {
        self.referer.add(value);
    }

    /// A `Sec-Fetch-Site` field. A word that nobody knows yet is taken for the worst.
    pub fn site(&mut self, value: &[u8]) {
        let site = match value {
            b"same-origin" | b"none" => Site::Own,
            b"same-site" => Site::Same,
            _ => Site::Cross,
        };
        self.site = self.site.max(site);
    }

    /// Whether the request is for `host`, and says so in the plainest way.
    pub(super) fn is_plainly_for(&self, host: &[u8]) -> bool {
        self.authority.is_none() && matches!(self.host, Value::One(own) if own == host)
    }

    /// Whether there is one `Host`, which is empty, and no other name.
    fn has_empty_host(&self) -> bool {
        self.authority.is_none() && matches!(self.host, Value::One(b""))
    }

    /// The host that the request is for: that of its one `Host` field, which is its target's too where that is an absolute
    /// URI (RFC 9112, section 3.2.2). Two different ones would be two readings of one request.
    pub(super) fn for_host(&self) -> Result<&'a str, GuardError> {
        let Value::One(host) = self.host else { return Err(GuardError::NoHost) };
        if self.authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host)) {
            return Err(GuardError::NoHost);
        }
        let host = std::str::from_utf8(steps::over(host)).map_err(|_| GuardError::NoHost)?;
        Authority::of(host).map(|_| host).ok_or(GuardError::NoHost)
    }
}

/// What stands for the proxy in links where the client has no name for it.
pub(super) const UNIX_HOST: &str = "localhost";

const HTTP: &str = "http://";

const HTTPS: &str = "https://";

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[(&str, &str)], expected: Result<(), GuardError>) {
        let guard = Guard::new(
            &["proxy".to_owned(), "only.example:8080".to_owned()],
            &["http://localhost:3000".to_owned()],
        );
        let mut request = Request::builder().uri("/content.json");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let local = Local::Ip([10, 0, 0, 7].into());
        let admitted = guard.admit(&Asked::of(&request.body(()).unwrap()), local);
        assert_eq!(admitted.map(|_| ()), expected, "{fields:?}");
    }

    #[test]
    fn the_listeners_own_names_and_configured_ones_are_let_in() {
        for host in [
            "localhost",
            "localhost:8080",
            "LOCALHOST:9",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:8080",
            "10.0.0.7:8080",
            "proxy",
            "proxy:1234",
            "only.example:8080",
        ] {
            check(&[("host", host)], Ok(()));
        }
    }

    #[test]
    fn foreign_and_lookalike_hosts_are_refused() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notlocalhost",
            "127.0.0.2",
            "only.example",
            "only.example:81",
            "10.0.0.8",
            "localhost.",
            "127.0.0.1.",
            "127.evil",
            "127.1",
            "127.0.0.01",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0",
            "0.0.0.0",
            "[::]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:10.0.0.7]",
            "localhost.localdomain",
            "proxy.evil.example",
            "evil-proxy",
        ] {
            check(&[("host", host)], Err(GuardError::Host));
        }
        for host in [
            "",
            "localhost@evil.example",
            "evil.example@localhost",
            "local host",
            "localhost/x",
            "localhost, localhost",
            "localhost,evil.example",
            "localhost:",
            "localhost:0",
            "localhost:65536",
            "localhost:8080:8080",
            "::1",
            "[::1%lo]",
            "[10.0.0.7",
            "10.0.0.7]",
            "*",
        ] {
            check(&[("host", host)], Err(GuardError::NoHost));
        }
        check(&[], Err(GuardError::NoHost));
        check(&[("host", "localhost"), ("host", "evil.example")], Err(GuardError::NoHost));
    }

    #[test]
    fn the_host_of_an_absolute_target_counts() {
        let guard = Guard::new(&[], &[]);
        for (target, host, expected) in [
            ("http://localhost/x", "localhost", Ok(None)),
            ("http://LOCALHOST:8080/x", "localhost:8080", Ok(None)),
            ("http://evil.example/x", "evil.example", Err(GuardError::Host)),
            ("http://evil.example/x", "localhost", Err(GuardError::NoHost)),
            ("http://localhost/x", "evil.example", Err(GuardError::NoHost)),
            ("http://localhost/x", "127.0.0.1", Err(GuardError::NoHost)),
            ("http://localhost/x", "localhost:8080", Err(GuardError::NoHost)),
        ] {
            let request = Request::builder().uri(target).header("host", host).body(()).unwrap();
            assert_eq!(guard.admit(&Asked::of(&request), Local::Unknown), expected, "{target} {host}");
        }
    }

    #[test]
    fn an_image_of_another_page_on_this_machine_is_told_by_its_referer() {
        let same = ("sec-fetch-site", "same-site");
        let host = ("host", "localhost:8080");
        for (referer, expected) in [
            ("http://localhost:3000/", Ok(())),
            ("http://localhost:3000", Ok(())),
            ("http://localhost:3000/a?b#c", Ok(())),
            ("http://localhost:8080/content.html", Ok(())),
            ("http://localhost:3001/", Err(GuardError::Origin)),
            ("http://localhost:3000@localhost:3001/", Err(GuardError::Origin)),
            ("http://localhost:30001/http://localhost:3000/", Err(GuardError::Origin)),
            ("https://localhost:3000/", Err(GuardError::Origin)),
            ("/http://localhost:3000/", Err(GuardError::Origin)),
            ("", Err(GuardError::Origin)),
        ] {
            check(&[host, same, ("referer", referer)], expected);
        }
        check(&[host, same], Err(GuardError::Origin));
        let allowed = ("referer", "http://localhost:3000/");
        check(&[host, same, allowed, allowed], Err(GuardError::Origin));
        check(&[host, ("sec-fetch-site", "cross-site"), allowed], Err(GuardError::CrossSite));
        // Tools say what they like.
        check(&[host, ("referer", "https://author.example/")], Ok(()));
    }

    #[test]
    fn over_tls_the_listener_has_other_origins() {
        let guard = Guard::new(&[], &[]).over_tls();
        for (origin, expected) in
            [("https://localhost:8443", Ok(None)), ("http://localhost:8443", Err(GuardError::Origin))]
        {
            let request = Request::builder().header("host", "localhost:8443").header("origin", origin);
            assert_eq!(
                guard.admit(&Asked::of(&request.body(()).unwrap()), Local::Unknown),
                expected,
                "{origin}"
            );
        }
    }

    #[test]
    fn the_secret_is_shown_once_and_stays_here() {
        let known =
            std::sync::Arc::new(arc_swap::ArcSwap::from_pointee(Known::of("0123456789abcdef").unwrap()));
        let secret = Secret::new(http::HeaderName::from_static("x-secret"), known);
        let guard = Guard::new(&[], &[]).demanding(Some(secret), &[]);
        for (shown, expected) in [
            (&[&b"0123456789abcdef"[..]][..], Ok(())),
            (&[], Err(GuardError::Secret)),
            (&[b"0123456789abcdeg"], Err(GuardError::Secret)),
            (&[b"0123456789abcdef", b"0123456789abcdef"], Err(GuardError::Secret)),
        ] {
            let admitted = guard.admits_secret(shown.iter().copied());
            assert_eq!(admitted, expected);
        }
        assert_eq!(guard.secret_header(), Some("x-secret"));
        assert!(guard.keeps("X-Secret") && !guard.keeps("x-secrets"));
        let without = Guard::new(&[], &[]);
        assert_eq!(without.admits_secret(std::iter::empty()), Ok(()));
        assert!(!without.keeps("x-secret"));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let host = ("host", "localhost:8080");
        for (field, expected) in [
            (("origin", "http://localhost:8080"), Ok(())),
            (("origin", "http://localhost:3000"), Ok(())),
            (("origin", "http://localhost:3001"), Err(GuardError::Origin)),
            (("origin", "https://localhost:8080"), Err(GuardError::Origin)),
            (("origin", "http://localhost:3000.evil.example"), Err(GuardError::Origin)),
            (("origin", "null"), Err(GuardError::Origin)),
            (("origin", "https://evil.example"), Err(GuardError::Origin)),
            (("sec-fetch-site", "cross-site"), Err(GuardError::CrossSite)),
            (("sec-fetch-site", "same-origin"), Ok(())),
            (("sec-fetch-site", "none"), Ok(())),
            (("sec-fetch-site", "same-site"), Err(GuardError::Origin)),
            (("sec-fetch-site", "Cross-Site"), Err(GuardError::CrossSite)),
            (("sec-fetch-site", "same-origin, cross-site"), Err(GuardError::CrossSite)),
            (("sec-fetch-site", ""), Err(GuardError::CrossSite)),
        ] {
            check(&[host, field], expected);
        }
    }
}
