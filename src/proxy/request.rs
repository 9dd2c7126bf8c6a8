//! A client's request head: read once, and written as AEM is to see it.

use std::ops::Range;

use http::{HeaderName, HeaderValue};
use httparse::{Header, Status};

use super::{
    buffer::Buffer,
    fields::{BadFraming, Field, Hop, Storage},
    framing::Length,
    guard::Asked,
};

/// A head that has come whole. No `Debug`: it holds what the client authenticates itself with.
pub(super) struct RequestHead<'h, 'b> {
    pub method: &'b str,
    /// As the client wrote it.
    target: &'b str,
    /// The minor version: 0 or 1.
    pub minor: u8,
    fields: &'h [Header<'b>],
    hop: Hop,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
    /// `Accept` names JSON, and no page.
    accepts_json: bool,
    /// Bytes that the head took.
    pub bytes: usize,
    /// Who asks, for the guard.
    pub asked: Asked<'b>,
}

/// What AEM gets beside what the client sent. No `Debug`: it holds the token.
#[derive(Default)]
pub(super) struct Added<'a> {
    /// In place of the client's `Host`.
    pub host: &'a [u8],
    /// In place of whatever the client sent, if there is one.
    pub authorization: Option<&'a [u8]>,
    /// In place of the client's fields of the same name.
    pub fields: &'a [(HeaderName, HeaderValue)],
    /// Where the client has not sent one of its own.
    pub unless_sent: [(&'static str, Option<&'a [u8]>); 2],
}

/// What is asked for, as far as it decides whether it may be asked once more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// The answer is to be JSON.
    pub json: bool,
    /// Nothing is changed by it (RFC 9110, section 9.2.1).
    pub safe: bool,
    /// Doing it twice is doing it once (RFC 9110, section 9.2.2).
    pub idempotent: bool,
}

/// Where in a written head the lines stand that depend on the credential, and which of them are to be there.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub lines: Range<usize>,
    /// Of [`Added::unless_sent`], those that the client has not sent.
    owed: [bool; 2],
}

/// What has come is no request that could be answered as one; the status that says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRequest(pub u16);

/// The target cannot be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadTarget;

impl<'h, 'b> RequestHead<'h, 'b> {
    /// Reads a head at the beginning of `bytes`; `None` when its end has not come yet.
    ///
    /// # Errors
    /// When this is no HTTP/1 request.
    pub(super) fn parse(bytes: &'b [u8], storage: &'h mut Storage<'b>) -> Result<Option<Self>, NoRequest> {
        let mut request = httparse::Request::new(&mut []);
        let head_bytes = match request.parse_with_uninit_headers(bytes, storage) {
            Ok(Status::Complete(head_bytes)) => head_bytes,
            Ok(Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(NoRequest(431)),
            Err(_) => return Err(NoRequest(400)),
        };
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
        else {
            return Err(NoRequest(400));
        };
        if target.len() > TARGET_MAX {
            return Err(NoRequest(414));
        }
        let mut head = Self {
            method,
            target,
            minor,
            fields: request.headers,
            hop: Hop::default(),
            expects_continue: false,
            accepts_json: false,
            bytes: head_bytes,
            asked: Asked::new(authority(target)),
        };
        head.survey()?;
        Ok(Some(head))
    }

    fn survey(&mut self) -> Result<(), NoRequest> {
        for header in self.fields {
            let field = Field::of(header.name);
            match field {
                Field::Other => {}
                Field::Host => self.asked.host(header.value),
                Field::Origin => self.asked.origin(header.value),
                Field::SecFetchSite => self.asked.site(header.value),
                Field::Accept => self.accepts_json |= accepts_json(header.value),
                Field::Expect => {
                    self.expects_continue =
                        self.minor > 0 && header.value.eq_ignore_ascii_case(b"100-continue");
                }
                _ => self.hop.note(field, header.value).map_err(|_| NoRequest(400))?,
            }
        }
        // Framed twice, or coded for a version that knows no codings: who reads it otherwise sees another request in
        // it (RFC 9112, sections 6.1 and 6.3).
        let two_ways = self.hop.is_framed_twice() || (self.hop.is_coded() && self.minor == 0);
        if two_ways || self.hop.length() == Err(BadFraming::Broken) {
            return Err(NoRequest(400));
        }
        Ok(())
    }

    /// How long the body is.
    ///
    /// # Errors
    /// When it has another transfer coding than `chunked`.
    pub(super) fn length(&self) -> Result<Length, BadFraming> {
        Ok(self.hop.length()?.unwrap_or(Length::Exact(0)))
    }

    /// Whether it asks to become a WebSocket. No other upgrade is passed on: `h2c` would open a way past us on which no
    /// token is added (golang/go#80416).
    pub(super) fn is_websocket(&self) -> bool {
        self.hop.websocket && self.hop.upgrade && self.minor > 0
    }

    /// Whether the client keeps the connection after this request (RFC 9112, section 9.3).
    pub(super) fn keeps_alive(&self) -> bool {
        !self.hop.close && (self.minor > 0 || self.hop.keep_alive)
    }

    /// Path and query, for the choice of a route; as the client wrote them.
    pub(super) fn path(&self) -> &'b [u8] {
        match origin_form(self.target).unwrap_or_default() {
            query if query.starts_with('?') => b"/",
            path => path.as_bytes(),
        }
    }

    /// What is asked for.
    pub(super) fn asking(&self) -> Asking {
        let safe = SAFE.contains(&self.method);
        let idempotent = safe || ["PUT", "DELETE"].contains(&self.method);
        Asking { json: self.accepts_json || is_json_path(self.path()), safe, idempotent }
    }

    /// Whether it asks for one of the tokens that AEM takes from browsers with a write. They are short-lived, and one's own
    /// (Adobe, "CSRF protection").
    pub(super) fn is_for_csrf_token(&self) -> bool {
        self.path().strip_prefix(CSRF_TOKEN).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"?"))
    }

    /// Whether a field called `name` goes on to AEM.
    fn sends(&self, name: &str) -> bool {
        let own = self.fields.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        own.is_some_and(|own| !self.hop.holds_back(own.name, self.fields))
    }

    /// Writes the head as AEM is to see it: what is `added`, nothing that is between the client and us, nothing that
    /// AEM's CDN must not see.
    ///
    /// # Errors
    /// When the target is of no form that can be forwarded.
    pub(super) fn write(
        &self,
        added: &Added<'_>,
        length: Length,
        out: &mut Buffer,
    ) -> Result<Identity, BadTarget> {
        let target = origin_form(self.target).ok_or(BadTarget)?;
        out.push(self.method.as_bytes());
        out.push(b" ");
        if target.starts_with('?') {
            out.push(b"/");
        }
        out.push(target.as_bytes());
        out.push(b" HTTP/1.1\r\nhost: ");
        out.push(added.host);
        out.push(b"\r\n");
        for header in self.fields {
            let field = Field::of(header.name);
            match field {
                Field::Host | Field::Forwarded | Field::ProxyAuthorization => {}
                Field::Authorization if added.authorization.is_some() => {}
                field if field.is_hop_by_hop() => {}
                _ if self.hop.holds_back(header.name, self.fields) => {}
                _ if added.fields.iter().any(|(name, _)| header.name.eq_ignore_ascii_case(name.as_str())) => {
                }
                Field::Cookie => cookie(header, out),
                _ => line(header.name, header.value, out),
            }
        }
        match length {
            Length::Exact(_) => {
                if let Some(said) = self.hop.said() {
                    number("content-length", said, out);
                }
            }
            // A GET without a length would be taken for one without a body.
            Length::Chunked | Length::UntilClose => out.push(b"transfer-encoding: chunked\r\n"),
        }
        if self.is_websocket() {
            out.push(b"connection: upgrade\r\nupgrade: websocket\r\n");
        } else if self.hop.trailers {
            out.push(b"connection: te\r\nte: trailers\r\n");
        }
        for (name, value) in added.fields {
            line(name.as_str(), value.as_bytes(), out);
        }
        let owed = added.unless_sent.map(|(name, value)| {
            value.is_some() && !self.sends(name) && !added.fields.iter().any(|(fixed, _)| fixed == name)
        });
        let begin = out.len();
        added.write_identity(owed, out);
        let identity = Identity { lines: begin..out.len(), owed };
        out.push(via(self.minor));
        out.push(b"\r\n");
        Ok(identity)
    }
}

impl Added<'_> {
    /// The lines that depend on the credential.
    fn write_identity(&self, owed: [bool; 2], out: &mut Buffer) {
        for ((name, value), _) in self.unless_sent.into_iter().zip(owed).filter(|(_, owed)| *owed) {
            line(name, value.unwrap_or_default(), out);
        }
        if let Some(authorization) = self.authorization {
            line("authorization", authorization, out);
        }
    }

    /// Writes a `head` that was written before once more, now for this credential.
    pub(super) fn rewrite(&self, head: &[u8], identity: &mut Identity, out: &mut Buffer) {
        let Identity { lines, owed } = identity;
        out.push(&head[..lines.start]);
        self.write_identity(*owed, out);
        let rest = lines.end;
        lines.end = out.len();
        out.push(&head[rest..]);
    }
}

/// Whether a JSON document is what the client wants, rather than a page.
fn accepts_json(accept: &[u8]) -> bool {
    let has = |word: &[u8]| accept.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    has(b"json") && !has(b"html")
}

/// Whether the path has the extension of JSON, with a suffix, parameters or a query behind it or not.
fn is_json_path(path: &[u8]) -> bool {
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    let ends = |rest: &[u8]| rest.first().is_none_or(|byte| b"/;".contains(byte));
    path.windows(JSON.len()).enumerate().any(|(at, part)| part == JSON && ends(&path[at + JSON.len()..]))
}

pub(super) fn line(name: &str, value: &[u8], out: &mut Buffer) {
    out.push(name.as_bytes());
    out.push(b": ");
    out.push(value);
    out.push(b"\r\n");
}

pub(super) fn number(name: &str, number: u64, out: &mut Buffer) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    line(name, &digits[at..], out);
}

pub(super) fn via(minor: u8) -> &'static [u8] {
    if minor == 0 { b"via: 1.0 aem-auth-proxy\r\n" } else { b"via: 1.1 aem-auth-proxy\r\n" }
}

/// The authority of an absolute target.
fn authority(target: &str) -> Option<&str> {
    absolute(target).map(|rest| &rest[..rest.find(['/', '?']).unwrap_or(rest.len())])
}

/// What is behind the scheme of an absolute target.
fn absolute(target: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let begins = target.get(..scheme.len())?.eq_ignore_ascii_case(scheme);
        begins.then(|| &target[scheme.len()..])
    })
}

/// Path and query, byte for byte; `*` stays. `None` for what is no target for a server, among them the authority form,
/// which is CONNECT's alone (RFC 9112, section 3.2), and a fragment, which is the client's own.
fn origin_form(target: &str) -> Option<&str> {
    let form = match absolute(target) {
        Some(rest) => match rest.find(['/', '?']) {
            Some(at) => &rest[at..],
            None => "/",
        },
        None => target,
    };
    let taken = (form.starts_with(['/', '?']) && form != "?" || target == "*") && !form.contains('#');
    taken.then_some(form)
}

/// A browser's `login-token` is another identity, and may win over ours.
fn cookie(header: &Header<'_>, out: &mut Buffer) {
    if !header.value.windows(LOGIN_TOKEN.len()).any(|part| part == LOGIN_TOKEN) {
        return line(header.name, header.value, out);
    }
    let pairs = header.value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is_login_token =
        |pair: &[u8]| pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii() == LOGIN_TOKEN;
    let kept: Vec<_> = pairs.filter(|pair| !pair.is_empty() && !is_login_token(pair)).collect();
    if !kept.is_empty() {
        line(header.name, &kept.join(&b"; "[..]), out);
    }
}

const CSRF_TOKEN: &[u8] = b"/libs/granite/csrf/token.json";

const LOGIN_TOKEN: &[u8] = b"login-token";

const JSON: &[u8] = b".json";

/// The safe methods of HTTP, and those of WebDAV that read.
const SAFE: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT"];

/// As long as the longest that browsers and servers are known to take; the contract's answer is 414.
const TARGET_MAX: usize = 65_534;

#[cfg(test)]
mod tests {
    use super::{super::fields::storage, *};

    /// The head that AEM sees of one with `fields`, without its first two lines and `Via`.
    fn written(fields: &str) -> String {
        let text = format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let mut storage = storage();
        let head = RequestHead::parse(text.as_bytes(), &mut storage).unwrap().unwrap();
        assert_eq!(head.bytes, text.len());
        let mut out = Buffer::default();
        let added = Added { host: b"aem.example", authorization: Some(b"Bearer x"), ..Added::default() };
        head.write(&added, head.length().unwrap(), &mut out).unwrap();
        let written = std::str::from_utf8(out.filled()).unwrap();
        let rest = written.strip_prefix("GET /x HTTP/1.1\r\nhost: aem.example\r\n").expect(written);
        let rest = rest.strip_suffix("authorization: Bearer x\r\nvia: 1.1 aem-auth-proxy\r\n\r\n");
        rest.expect(written).to_owned()
    }

    #[track_caller]
    fn check(fields: &str, expected: &str) {
        assert_eq!(written(fields), expected, "{fields}");
    }

    fn status(text: &str) -> Option<u16> {
        let mut storage = storage();
        RequestHead::parse(text.as_bytes(), &mut storage).err().map(|NoRequest(status)| status)
    }

    #[test]
    fn what_is_ours_to_add_is_added_once_whatever_a_connection_field_names() {
        let fields = [(HeaderName::from_static("x-gw-ims-org-id"), HeaderValue::from_static("fixed"))];
        let added = Added {
            host: b"aem.example",
            authorization: Some(b"Bearer x"),
            fields: &fields,
            unless_sent: [("x-api-key", Some(b"client")), ("x-gw-ims-org-id", Some(b"org"))],
        };
        let text = "GET /x HTTP/1.1\r\nhost: a\r\nconnection: x-api-key, x-gw-ims-org-id, authorization\r\n\
                    x-api-key: own\r\nx-gw-ims-org-id: own\r\nauthorization: own\r\n\r\n";
        let mut storage = storage();
        let head = RequestHead::parse(text.as_bytes(), &mut storage).unwrap().unwrap();
        let mut out = Buffer::default();
        head.write(&added, head.length().unwrap(), &mut out).unwrap();
        assert_eq!(
            std::str::from_utf8(out.filled()).unwrap(),
            "GET /x HTTP/1.1\r\nhost: aem.example\r\nx-gw-ims-org-id: fixed\r\nx-api-key: client\r\n\
             authorization: Bearer x\r\nvia: 1.1 aem-auth-proxy\r\n\r\n"
        );
    }

    #[test]
    fn a_target_without_a_path_is_of_the_root() {
        for (target, path) in [("http://a?x", "/"), ("http://a", "/"), ("http://a/b?x", "/b?x"), ("/b", "/b")]
        {
            let text = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
            let mut storage = storage();
            let head = RequestHead::parse(text.as_bytes(), &mut storage).unwrap().unwrap();
            assert_eq!(std::str::from_utf8(head.path()).unwrap(), path, "{target}");
        }
    }

    #[test]
    fn hop_by_hop_fields_and_those_named_by_connection_go() {
        check(
            "Connection: close, X-Private\r\nconnection: authorization\r\nx-private: 1\r\nAuthorization: Basic x\r\n\
             keep-alive: timeout=5\r\nproxy-connection: close\r\nTE: gzip\r\nupgrade: h2c\r\n\
             proxy-authorization: Basic y\r\nAccept: */*\r\n",
            "Accept: */*\r\n",
        );
    }

    #[test]
    fn the_length_of_a_body_is_not_up_to_connection() {
        check("connection: content-length\r\ncontent-length: 3\r\n", "content-length: 3\r\n");
        check("content-length: 3\r\ncontent-length: 3\r\n", "content-length: 3\r\n");
    }

    #[test]
    fn a_client_that_takes_trailers_says_so_to_aem() {
        check("te: trailers, deflate\r\n", "connection: te\r\nte: trailers\r\n");
    }

    #[test]
    fn forwarded_fields_go_and_an_earlier_via_stays() {
        check(
            "Forwarded: for=1.2.3.4\r\nX-Forwarded-Host: evil\r\nx-forwarded-for: 1.2.3.4\r\n\
             x-forwarded-for: 5.6.7.8\r\nvia: 1.1 other\r\n",
            "via: 1.1 other\r\n",
        );
    }

    #[test]
    fn the_login_token_goes_and_other_cookies_stay() {
        check("cookie: a=1; login-token=secret; b=2\r\n", "cookie: a=1; b=2\r\n");
        check("cookie: login-token=secret\r\n", "");
        check("cookie: login-token=x\r\ncookie: c=3\r\n", "cookie: c=3\r\n");
        check("cookie: my-login-token=keep;d=4\r\n", "cookie: my-login-token=keep; d=4\r\n");
        check("cookie: a=1;b=2\r\n", "cookie: a=1;b=2\r\n");
    }

    #[test]
    fn only_a_websocket_upgrade_is_passed_on() {
        check(
            "connection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n",
            "connection: upgrade\r\nupgrade: websocket\r\n",
        );
        check("connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n", "");
        check("connection: close\r\nupgrade: websocket\r\n", "");
        check("connection: upgrade\r\nupgrade: websocket, h2c\r\n", "");
    }

    #[test]
    fn every_form_of_target_becomes_path_and_query() {
        for (target, expected) in [
            ("/", Some("/")),
            ("/a//b;c?d=%2f|{}", Some("/a//b;c?d=%2f|{}")),
            ("*", Some("*")),
            ("http://localhost/abs?x=1", Some("/abs?x=1")),
            ("HTTP://localhost", Some("/")),
            ("https://localhost?q=1", Some("?q=1")),
            ("localhost:443", None),
            ("ftp://localhost/", None),
            ("/a#b", None),
        ] {
            assert_eq!(origin_form(target), expected, "{target}");
        }
        assert_eq!(authority("http://evil.example/x"), Some("evil.example"));
        assert_eq!(authority("/x?u=http://evil.example/"), None);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: x\r\n folded: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nhost : x\r\n\r\n",
        ] {
            assert_eq!(status(text), Some(400), "{text}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert_eq!(status(&many), Some(431));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(TARGET_MAX));
        assert_eq!(status(&long), Some(414));
    }

    #[test]
    fn a_head_that_has_not_ended_is_waited_for() {
        let text = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        for end in 0..text.len() {
            assert!(RequestHead::parse(&text.as_bytes()[..end], &mut storage()).unwrap().is_none());
        }
    }
}
