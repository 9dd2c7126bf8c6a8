//! What comes back names AEM, and is to name the proxy: the rules for it, without sockets.
//!
//! A client that follows an absolute URL of AEM's goes around the proxy and arrives without a token. So where AEM's origin
//! stands at the beginning of a URL in a place where AEM puts URLs, the proxy's own comes in its place. All else keeps
//! every byte: an origin in the middle of a text may be signed, compared, or shown.

mod coding;
mod cookie;
mod csp;
mod head;
mod json;
mod members;

use std::{rc::Rc, sync::Arc};

use memchr::memmem::Finder;
use url::Url;

pub(super) use self::{
    coding::{Coding, CodingError, Progress, Rewriter},
    csp::without_upgrade,
    head::to_upstream,
    json::Links,
    members::{Members, is_json},
};
use self::{
    cookie::cookie,
    head::{link, location, refresh},
};
use super::{buffer::Buffer, fields::Field};

/// The origin of an AEM (RFC 6454), in every way in which its URLs begin.
pub(super) struct Origin {
    scheme: &'static [u8],
    /// In lower case, as the URL Standard serialises it.
    host: Box<[u8]>,
    /// The port in digits, also where it is the scheme's.
    port: Box<[u8]>,
    /// The port is the scheme's and may be left out.
    implied: bool,
    finder: Finder<'static>,
}

impl Origin {
    /// The origin of `url`, which is `http` or `https` and so has a host.
    pub(super) fn new(url: &Url) -> Self {
        let (scheme, implied): (&[u8], u16) =
            if url.scheme() == "https" { (HTTPS, HTTPS_PORT) } else { (HTTP, HTTP_PORT) };
        let host = url.host_str().unwrap_or_default().as_bytes();
        let port = url.port().unwrap_or(implied);
        Self {
            scheme,
            host: host.into(),
            port: port.to_string().into_bytes().into(),
            implied: port == implied,
            finder: Finder::new(host).into_owned(),
        }
    }

    /// What follows the origin where `text` begins with it. Scheme and host have no case (RFC 3986, section 6.2.2.1).
    ///
    /// The authority has to end behind it. A backslash is no end: to a browser it is a slash, to others a part of the name.
    pub(super) fn rest<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        let text = strip(strip(text, self.scheme)?, b"://")?;
        self.behind_authority(text, &self.port, self.implied)
    }

    /// The same for what AEM says in head fields. There it also leaves out the scheme (RFC 3986, section 4.2), and says
    /// `http` behind its CDN, which speaks `https` for it.
    pub(super) fn rest_loosely<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        if let Some(text) = text.strip_prefix(b"//") {
            return self.behind_authority(text, &self.port, self.implied);
        }
        let behind_cdn = || {
            let text = strip(text, b"http://").filter(|_| self.scheme == HTTPS && self.implied)?;
            self.behind_authority(text, b"80", true)
        };
        self.rest(text).or_else(behind_cdn)
    }

    /// Whether the host stands somewhere in `data`: if not, no body of JSON is changed that is `data` undecoded.
    ///
    /// In lower case, and not by letters in JSON's `\u` spelling: [`Links`] knows no other.
    pub(super) fn occurs_in(&self, data: &[u8]) -> bool {
        self.finder.find(data).is_some()
    }

    fn behind_authority<'t>(&self, text: &'t [u8], port: &[u8], implied: bool) -> Option<&'t [u8]> {
        let rest = strip(text, &self.host)?;
        let rest = match rest.strip_prefix(b":") {
            Some(rest) => rest.strip_prefix(port)?,
            None if implied => rest,
            None => return None,
        };
        matches!(rest.first(), None | Some(b'/' | b'?' | b'#')).then_some(rest)
    }
}

/// What one AEM is called: by itself, and by a client that comes to us for it.
#[derive(Clone)]
pub(super) struct Names<'w> {
    pub(super) origin: &'w Arc<Origin>,
    /// `scheme://authority`.
    pub(super) local: Rc<[u8]>,
}

impl Names<'_> {
    /// Whether the client speaks `https` with the proxy.
    fn is_secure(&self) -> bool {
        self.local.starts_with(b"https:")
    }

    /// Whether a field of AEM's may be another one for the client.
    pub(super) fn changes(&self, field: Field, value: &[u8]) -> bool {
        field != Field::ContentSecurityPolicy || !self.is_secure() && csp::upgrades(value)
    }

    /// Writes a field of AEM's as the client is to see it.
    pub(super) fn field(&self, field: Field, value: &[u8], out: &mut Buffer) {
        match field {
            Field::Location | Field::ContentLocation => location(value, self.origin, &self.local, out),
            Field::Link => link(value, self.origin, &self.local, out),
            Field::Refresh => refresh(value, self.origin, &self.local, out),
            Field::SetCookie => cookie(value, self.is_secure(), out),
            _ => out.push(value),
        }
    }
}

/// What follows `prefix`, whatever its case.
fn strip<'t>(text: &'t [u8], prefix: &[u8]) -> Option<&'t [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

const HTTPS: &[u8] = b"https";

const HTTP: &[u8] = b"http";

const HTTPS_PORT: u16 = 443;

const HTTP_PORT: u16 = 80;

#[cfg(test)]
mod tests;
