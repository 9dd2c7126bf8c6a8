//! Who may ask. A proxy that lends credentials to a local port is a target for every web page that the same
//! machine shows: by DNS rebinding (a foreign `Host`) and by cross-site requests (a foreign `Origin`).

use std::net::IpAddr;

use http::{Request, header};

/// Where a connection arrived: the address that the client dialled, none for a Unix socket.
pub type Local = Option<IpAddr>;

/// The rules of one listener.
#[derive(Debug)]
pub struct Guard {
    any_host: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// No `Host`, several, or one that cannot be one (RFC 9112, section 3.2).
    #[error("Host is missing or malformed")]
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
        }
    }

    /// Whether every `Host` is let in.
    pub fn admits_any_host(&self) -> bool {
        self.any_host
    }

    /// Lets a request in, or says why not. Tells which of the allowed origins it comes from, if from one: such an answer
    /// is for a page to read.
    ///
    /// # Errors
    /// When it names another host, or comes from another site.
    pub fn admit(&self, asked: &Asked<'_>, local: Local) -> Result<Option<&str>, GuardError> {
        let host = asked.for_host()?;
        if !self.any_host && !self.is_ours(host, local) {
            return Err(GuardError::Host);
        }
        self.admit_page(asked, host.as_bytes())
    }

    /// The same for a request whose `host` is known to be the proxy's.
    pub(super) fn admit_page(&self, asked: &Asked<'_>, host: &[u8]) -> Result<Option<&str>, GuardError> {
        match asked.origin {
            Origins::None if asked.cross_site => Err(GuardError::CrossSite),
            Origins::None => Ok(None),
            // A page that came through this proxy has the proxy's own origin; all others have to be configured.
            Origins::One(origin) if is_own(origin, host) => Ok(None),
            Origins::One(origin) => self.allowed(origin).map(Some).ok_or(GuardError::Origin),
            Origins::Several => Err(GuardError::Origin),
        }
    }

    fn is_ours(&self, host: &str, local: Local) -> bool {
        let name = without_port(host);
        LOOPBACK.iter().any(|own| own.eq_ignore_ascii_case(name))
            || self
                .hosts
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(host) || allowed.eq_ignore_ascii_case(name))
            || local.is_some_and(|ip| name.trim_matches(['[', ']']).parse() == Ok(ip))
    }

    /// Whether `origin` is of a page that is let in: the proxy's own, as the client calls it, or an allowed one.
    pub(super) fn knows(&self, origin: &[u8], asked: &Asked<'_>) -> bool {
        asked.for_host().is_ok_and(|host| is_own(origin, host.as_bytes())) || self.allowed(origin).is_some()
    }

    /// The allowed origin that `origin` is, if it is one.
    fn allowed(&self, origin: &[u8]) -> Option<&str> {
        let origins = self.origins.iter().map(String::as_str);
        origins.into_iter().find(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin))
    }
}

/// Whether `origin` is what a browser calls us when it comes to `host`.
fn is_own(origin: &[u8], host: &[u8]) -> bool {
    origin.strip_prefix(b"http://").is_some_and(|own| own.eq_ignore_ascii_case(host))
}

/// What a request says of whom it is for and where it comes from. Filled field by field.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The authority of an absolute target.
    authority: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    /// More than one `Host`.
    several_hosts: bool,
    origin: Origins<'a>,
    cross_site: bool,
}

#[derive(Debug)]
enum Origins<'a> {
    None,
    One(&'a [u8]),
    /// No browser sends two.
    Several,
}

impl<'a> Asked<'a> {
    /// Nothing is known but the authority of the target, where that is an absolute URI.
    pub fn new(authority: Option<&'a [u8]>) -> Self {
        Self { authority, host: None, several_hosts: false, origin: Origins::None, cross_site: false }
    }

    /// What the head of `request` says.
    pub fn of<B>(request: &'a Request<B>) -> Self {
        let mut asked = Self::new(request.uri().authority().map(|authority| authority.as_str().as_bytes()));
        let fields = request.headers();
        fields.get_all(header::HOST).iter().for_each(|value| asked.host(value.as_bytes()));
        fields.get_all(header::ORIGIN).iter().for_each(|value| asked.origin(value.as_bytes()));
        fields.get_all("sec-fetch-site").iter().for_each(|value| asked.site(value.as_bytes()));
        asked
    }

    /// A `Host` field.
    pub fn host(&mut self, value: &'a [u8]) {
        self.several_hosts = self.host.is_some();
        self.host = Some(value);
    }

    /// An `Origin` field.
    pub fn origin(&mut self, value: &'a [u8]) {
        self.origin =
            if matches!(self.origin, Origins::None) { Origins::One(value) } else { Origins::Several };
    }

    /// A `Sec-Fetch-Site` field.
    pub fn site(&mut self, value: &[u8]) {
        self.cross_site |= value.eq_ignore_ascii_case(b"cross-site");
    }

    /// Whether `origin` is the proxy's: as the client calls it, or by another name of this machine with the same port.
    pub(super) fn is_for(&self, origin: &[u8]) -> bool {
        let Ok(host) = self.for_host() else { return false };
        let named = origin.strip_prefix(b"http://").and_then(|named| std::str::from_utf8(named).ok());
        let is_alias = |named: &str| {
            let name = without_port(named);
            LOOPBACK.iter().any(|own| own.eq_ignore_ascii_case(name))
                && named[name.len()..] == host[without_port(host).len()..]
        };
        is_own(origin, host.as_bytes()) || named.is_some_and(is_alias)
    }

    /// Whether the request is for `host`, and says so in the plainest way.
    pub(super) fn is_plainly_for(&self, host: &[u8]) -> bool {
        self.host == Some(host) && !self.several_hosts && self.authority.is_none()
    }

    /// The host that the request is for: its target's, where that is an absolute URI, and else its one `Host` field.
    pub(super) fn for_host(&self) -> Result<&'a str, GuardError> {
        let (Some(field), false) = (self.host, self.several_hosts) else { return Err(GuardError::NoHost) };
        let host = self.authority.unwrap_or(field);
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
        let host = std::str::from_utf8(host).map_err(|_| GuardError::NoHost)?;
        if host.is_empty() || !host.bytes().all(|byte| plain(&byte)) {
            Err(GuardError::NoHost)
        } else {
            Ok(host)
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The last colon of `[::1]` is no port's.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

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
        let local = Some([10, 0, 0, 7].into());
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
            "::1",
        ] {
            check(&[("host", host)], Err(GuardError::Host));
        }
        for host in ["", "localhost@evil.example", "local host", "localhost/x"] {
            check(&[("host", host)], Err(GuardError::NoHost));
        }
        check(&[], Err(GuardError::NoHost));
        check(&[("host", "localhost"), ("host", "evil.example")], Err(GuardError::NoHost));
    }

    #[test]
    fn the_host_of_an_absolute_target_counts() {
        let guard = Guard::new(&[], &[]);
        let request = Request::builder().uri("http://evil.example/x").header("host", "localhost");
        assert_eq!(guard.admit(&Asked::of(&request.body(()).unwrap()), None), Err(GuardError::Host));
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
        ] {
            check(&[host, field], expected);
        }
    }
}
