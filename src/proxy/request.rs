//! A client's request head: read once, and written as AEM is to see it.

mod target;

use std::{cell::LazyCell, ops::Range};

use http::HeaderName;
use httparse::{Header, Status};
use memchr::{memchr, memchr_iter, memchr2};

use self::target::{Line, authority, form_for};
use super::{
    buffer::Buffer,
    fields::{
        BadFraming, FIELDS_ON_STACK, Field, HeapStorage, Hop, Storage, has_strict_lines, kinds, members,
        parse_fields, protocol,
    },
    framing::Length,
    guard::{Asked, Guard},
    rewrite, session_cookies,
};
use crate::{secret::SecretString, steps};

/// A head that has come whole. No `Debug`: it holds what the client authenticates itself with.
pub(super) struct RequestHead<'h, 'b> {
    pub method: &'b str,
    /// Path and query as the client wrote them, or `*`.
    target: &'b [u8],
    /// The minor version: 0 or 1.
    pub minor: u8,
    fields: &'h [Header<'b>],
    /// What they are, one by one.
    kinds: &'h [Field],
    /// Which of them `Connection` names; empty where it names none.
    named: &'h [bool],
    hop: Hop,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
    /// A browser opens a page: such requests take early hints (the HTML standard, "process early hints").
    pub navigates: bool,
    /// `Accept` names JSON, and perhaps pages too.
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
    /// AEM's origin, in place of those that `guard` lets in.
    pub origin: &'a [u8],
    /// Tells which origins are the proxy's own, and which belong to its pages.
    pub guard: Option<&'a Guard>,
    /// In place of the client's `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// Of the content codings that the client takes, only those of this list; `None` where that is all.
    pub codings: Option<&'static [u8]>,
    /// In place of whatever the client sent, if there is one.
    pub authorization: Option<&'a [u8]>,
    /// In place of the client's fields of the same name.
    pub fields: &'a [(HeaderName, SecretString)],
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
    /// It ends a session: a login page comes next, whatever token was sent.
    pub logs_out: bool,
    /// It has a body that its method gives no meaning: AEM, or what stands before it, may leave the body unread and take it
    /// for the next request.
    pub unexpected_body: bool,
}

/// Where in a written head the lines stand that depend on the credential, and which of them are to be there.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub lines: Range<usize>,
    /// Of [`Added::unless_sent`], those that the client has not sent.
    owed: [bool; 2],
}

/// Why what has come is no request that could be answered as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRequest {
    /// It is not HTTP/1.1.
    Malformed,
    /// Its version is another one.
    Version,
    /// Its target is none for a server.
    Target,
    /// It could be read in two ways.
    Ambiguous(Ambiguity),
    /// It has a transfer coding beside `chunked`.
    Coding,
    /// It expects what nobody knows.
    Expectation,
    /// Its request line is too long.
    LineTooLong,
    /// Its head is too large.
    HeadTooLarge,
    /// Its head does not come to its end.
    TooSlow,
    /// There are too many connections.
    TooMany,
    /// The memory budget is used up.
    NoMemory,
}

/// What could be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ambiguity {
    /// `Content-Length` is there twice, or is no number.
    ContentLength,
    /// `Transfer-Encoding` is there twice, or is not written as it has to be.
    TransferEncoding,
    /// Both are there.
    FramedTwice,
    /// A name that a server may take for one of these.
    Lookalike,
    /// There are several of `Content-Type`.
    ContentType,
    /// There are several of `Destination`.
    Destination,
    /// The target is for another host than `Host`.
    Host,
}

impl Ambiguity {
    /// Of a field that [`Hop::note`] refuses.
    fn of(field: Field) -> Self {
        match field {
            Field::ContentLength => Self::ContentLength,
            Field::TransferEncoding => Self::TransferEncoding,
            Field::ContentType => Self::ContentType,
            Field::Destination => Self::Destination,
            _ => Self::Lookalike,
        }
    }
}

impl<'h, 'b> RequestHead<'h, 'b> {
    /// Reads a head at the beginning of `bytes`; `None` when its end has not come yet.
    ///
    /// # Errors
    /// When this is no HTTP/1 request.
    pub(super) fn parse(bytes: &'b [u8], storage: &'h mut Storage<'b>) -> Result<Option<Self>, NoRequest> {
        let head = Self::parse_leniently(bytes, storage);
        let read = match &head {
            Ok(Some(head)) => &bytes[..head.bytes],
            Ok(None) => bytes,
            Err(error) => return Err(*error),
        };
        // An empty line before it is for the connection to skip.
        let begins = !matches!(bytes.first(), Some(b'\r' | b'\n'));
        if begins && has_strict_lines(read) { head } else { Err(NoRequest::Malformed) }
    }

    /// The same for lines that end with LF alone.
    fn parse_leniently(bytes: &'b [u8], storage: &'h mut Storage<'b>) -> Result<Option<Self>, NoRequest> {
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut storage.fields) {
            Ok(Status::Complete(head_bytes)) => {
                let line = Line::of_parsed(request.method, request.path, request.version)?;
                let kinds = kinds(request.headers, &mut storage.kinds);
                Self::new(line, request.headers, kinds, &mut storage.named, head_bytes).map(Some)
            }
            Ok(Status::Partial) => Ok(None),
            Err(httparse::Error::Token) => {
                let heap = HeapStorage::for_head(bytes, storage.max);
                Self::parse_other_bytes(bytes, storage.heap.insert(heap))
            }
            Err(httparse::Error::TooManyHeaders) if storage.max > FIELDS_ON_STACK => {
                let heap = HeapStorage::for_head(bytes, storage.max);
                // The request line was read.
                let line = Line::of_parsed(request.method, request.path, request.version)?;
                Self::parse_many_fields(line, bytes, storage.heap.insert(heap))
            }
            Err(httparse::Error::Version) => target::other_version(bytes),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a head that has more fields than there is room for on the stack.
    #[cold]
    fn parse_many_fields(
        line: Line<'b>,
        bytes: &'b [u8],
        heap: &'h mut HeapStorage<'b>,
    ) -> Result<Option<Self>, NoRequest> {
        match parse_fields(bytes, &mut heap.fields)? {
            Status::Complete((head_bytes, fields)) => {
                let kinds = kinds(fields, &mut heap.kinds);
                Self::new(line, fields, kinds, &mut heap.named, head_bytes).map(Some)
            }
            Status::Partial => Ok(None),
        }
    }

    /// Reads a head whose target is not UTF-8: AEM is to judge it.
    fn parse_other_bytes(bytes: &'b [u8], heap: &'h mut HeapStorage<'b>) -> Result<Option<Self>, NoRequest> {
        let Some(line) = Line::of_other_bytes(bytes)? else { return Ok(None) };
        Self::parse_many_fields(line, bytes, heap)
    }

    fn new(
        line: Line<'b>,
        fields: &'h [Header<'b>],
        kinds: &'h [Field],
        named: &'h mut [bool],
        bytes: usize,
    ) -> Result<Self, NoRequest> {
        let Line { method, target, minor } = line;
        if target.len() > TARGET_MAX {
            return Err(NoRequest::LineTooLong);
        }
        if method.len() > METHOD_MAX {
            return Err(NoRequest::Malformed);
        }
        let mut head = Self {
            method,
            target: form_for(method, target).ok_or(NoRequest::Target)?,
            minor,
            fields,
            kinds,
            named: &[],
            hop: Hop::default(),
            expects_continue: false,
            navigates: false,
            accepts_json: false,
            bytes,
            asked: Asked::new(authority(target)),
        };
        head.survey(authority(target))?;
        head.named = head.hop.named(fields, kinds, named);
        Ok(head)
    }

    fn survey(&mut self, authority: Option<&[u8]>) -> Result<(), NoRequest> {
        for (header, field) in self.fields.iter().zip(self.kinds) {
            match *field {
                Field::Other => {}
                Field::Host => {
                    // They are the same (RFC 9112, section 3.2), or it is for two hosts.
                    if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(header.value)) {
                        return Err(NoRequest::Ambiguous(Ambiguity::Host));
                    }
                    self.asked.host(header.value);
                }
                Field::Origin => self.asked.origin(header.value),
                Field::Referer => self.asked.referer(header.value),
                Field::SecFetchSite => self.asked.site(header.value),
                Field::SecFetchMode => self.navigates = header.value == b"navigate",
                Field::Accept => self.accepts_json |= accepts_json(header.value),
                Field::Expect => self.expect(header.value)?,
                field => self
                    .hop
                    .note(field, header.value)
                    .map_err(|_| NoRequest::Ambiguous(Ambiguity::of(field)))?,
            }
        }
        // Framed twice, or coded for a version that knows no codings: who reads it otherwise sees another request in
        // it (RFC 9112, sections 6.1 and 6.3).
        if self.hop.is_framed_twice() {
            return Err(NoRequest::Ambiguous(Ambiguity::FramedTwice));
        }
        if self.hop.is_coded() && self.minor == 0 {
            return Err(NoRequest::Ambiguous(Ambiguity::TransferEncoding));
        }
        self.hop.length().map(drop).map_err(|_: BadFraming| NoRequest::Coding)
    }

    /// An expectation: there is only one, and HTTP/1.0 has none (RFC 9110, section 10.1.1).
    fn expect(&mut self, value: &[u8]) -> Result<(), NoRequest> {
        if self.minor == 0 {
            return Ok(());
        }
        if self.expects_continue || !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(NoRequest::Expectation);
        }
        self.expects_continue = true;
        Ok(())
    }

    /// Whether the method has small letters. To HTTP `get` is another method than `GET` (RFC 9110, section 9.1); not so to every
    /// server, or to every list of what is forbidden.
    pub(super) fn has_lower_case_method(&self) -> bool {
        self.method.bytes().any(|byte| byte.is_ascii_lowercase())
    }

    /// How long the body is.
    pub(super) fn length(&self) -> Length {
        // What could not be framed was refused.
        self.hop.length().ok().flatten().unwrap_or(Length::Exact(0))
    }

    /// What it asks to go on in, if it does: a WebSocket, or another protocol that HTTP does not know how to speak
    /// (RFC 9110, section 7.8). Not with a body, which the other protocol might be taken for.
    pub(super) fn protocol(&self) -> Option<&'b [u8]> {
        let asks = self.hop.upgrade && self.minor > 0 && self.length() == Length::Exact(0);
        asks.then(|| protocol(self.fields)).flatten()
    }

    /// Whether the client keeps the connection after this request (RFC 9112, section 9.3).
    pub(super) fn keeps_alive(&self) -> bool {
        !self.hop.close && (self.minor > 0 || self.hop.keep_alive)
    }

    /// Path and query, for the choice of a route; as the client wrote them.
    pub(super) fn path(&self) -> &'b [u8] {
        if self.target.starts_with(b"?") { b"/" } else { self.target }
    }

    /// The query, also of an absolute target that has no path.
    pub(super) fn query(&self) -> &'b [u8] {
        memchr(b'?', steps::over(self.target)).map_or(&[], |at| &self.target[at + 1..])
    }

    /// What is asked for.
    pub(super) fn asking(&self) -> Asking {
        let safe = SAFE.contains(&self.method);
        let idempotent = safe || ["PUT", "DELETE"].contains(&self.method);
        let path = self.path();
        let logs_out = path.starts_with(LOGOUT);
        let json = (self.accepts_json && !self.all("accept").any(accepts_pages)) || is_json_path(path);
        Asking { json, safe, idempotent, logs_out, unexpected_body: self.has_unexpected_body() }
    }

    /// Whether it has a body that its method gives no meaning (RFC 9110, section 9.3).
    fn has_unexpected_body(&self) -> bool {
        self.length() != Length::Exact(0) && !WITH_CONTENT.contains(&self.method)
    }

    /// Every field: its name, what it is, its value.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'b str, Field, &'b [u8])> {
        self.fields.iter().zip(self.kinds).map(|(header, field)| (header.name, *field, header.value))
    }

    /// The first field called `name`.
    pub(super) fn field(&self, name: &str) -> Option<&'b [u8]> {
        self.fields.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// All fields called `name`.
    pub(super) fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'b [u8]> + use<'h, 'b, 'n> {
        let fields = self.fields.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        fields.map(|header| header.value)
    }

    /// Whether it asks for one of the tokens that AEM takes from browsers with a write. They are short-lived, and one's own
    /// (Adobe, "CSRF protection").
    pub(super) fn is_for_csrf_token(&self) -> bool {
        self.path().strip_prefix(CSRF_TOKEN).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"?"))
    }

    /// Whether a field called `name` goes on to AEM.
    fn sends(&self, name: &str) -> bool {
        let own = self.fields.iter().position(|header| header.name.eq_ignore_ascii_case(name));
        own.is_some_and(|number| !self.is_named(number))
    }

    /// Whether `Connection` names the field with this number.
    fn is_named(&self, number: usize) -> bool {
        self.named.get(number).copied().unwrap_or_default()
    }

    /// Writes the head as AEM is to see it: what is `added`, nothing that is between the client and us, nothing that
    /// AEM's CDN must not see.
    pub(super) fn write(&self, added: &Added<'_>, length: Length, out: &mut Buffer) -> Identity {
        let path = if self.target.starts_with(b"?") { &b"/"[..] } else { b"" };
        let method = self.method.as_bytes();
        out.push_all(&[method, b" ", path, self.target, b" HTTP/1.1\r\nhost: ", added.host, b"\r\n"]);
        // Fields that name the proxy may be many, and its name long.
        let host = LazyCell::new(|| self.asked.for_host().ok());
        for (number, (header, field)) in self.fields.iter().zip(self.kinds).enumerate() {
            if !self.is_named(number) {
                self.write_field(header, *field, added, &|| *host, out);
            }
        }
        self.write_connection(length, out);
        let identity = self.write_added(added, out);
        out.push(via(self.minor));
        out.push(b"\r\n");
        identity
    }

    /// Writes a field of the client's, unless it stays here or is replaced.
    fn write_field(
        &self,
        header: &Header<'_>,
        field: Field,
        added: &Added<'_>,
        host: &dyn Fn() -> Option<&'b str>,
        out: &mut Buffer,
    ) {
        let Header { name, value } = *header;
        match field {
            Field::Host | Field::Forwarded | Field::ProxyAuthorization => {}
            Field::Expect if !self.expects_continue => {}
            Field::Authorization if added.authorization.is_some() => {}
            Field::UserAgent if added.user_agent.is_some() => {}
            field if field.is_hop_by_hop() => {}
            _ if added.sets(name) => {}
            _ if added.guard.is_some_and(|guard| guard.keeps(name)) => {}
            Field::Cookie => cookie(header, out),
            Field::Origin | Field::Referer => {
                let lets_in = |origin: &[u8]| added.guard.is_some_and(|guard| guard.knows(origin, host()));
                renamed(name, value, added.origin, lets_in, out);
            }
            Field::Destination => {
                let is_for = |origin: &[u8]| added.guard.is_some_and(|guard| guard.is_for(origin, host()));
                renamed(name, value, added.origin, is_for, out);
            }
            Field::AcceptEncoding => match added.codings {
                Some(codings) => accept_encoding(name, value, codings, out),
                None => line(name, value, out),
            },
            _ => line(name, value, out),
        }
    }

    /// Writes what is between us and AEM: where the body ends, and what the connection is to be.
    fn write_connection(&self, length: Length, out: &mut Buffer) {
        match length {
            Length::Exact(_) => {
                // HTTP/2 says by the end of the stream that there is no body. Of these methods servers want to hear it (RFC 9110,
                // section 8.6).
                let said = self.hop.said().or(ANTICIPATES_CONTENT.contains(&self.method).then_some(0));
                if let Some(said) = said {
                    number("content-length", said, out);
                }
            }
            // A GET without a length would be taken for one without a body.
            Length::Chunked | Length::UntilClose => out.push(b"transfer-encoding: chunked\r\n"),
        }
        if let Some(protocol) = self.protocol() {
            out.push(b"connection: upgrade\r\n");
            line("upgrade", protocol, out);
            return;
        }
        // Who leaves the body unread reads nothing behind it, either.
        match (self.hop.trailers, self.has_unexpected_body()) {
            (true, false) => out.push(b"connection: te\r\nte: trailers\r\n"),
            (true, true) => out.push(b"connection: te, close\r\nte: trailers\r\n"),
            (false, true) => out.push(b"connection: close\r\n"),
            (false, false) => {}
        }
    }

    fn write_added(&self, added: &Added<'_>, out: &mut Buffer) -> Identity {
        for (name, value) in added.fields {
            line(name.as_str(), value.expose_bytes(), out);
        }
        if let Some(user_agent) = added.user_agent
            && !added.sets("user-agent")
        {
            line("user-agent", user_agent, out);
        }
        let owed = added.unless_sent.map(|(name, _)| !self.sends(name) && !added.sets(name));
        let begin = out.len();
        added.write_identity(owed, out);
        Identity { lines: begin..out.len(), owed }
    }
}

impl Added<'_> {
    /// Whether a route's field called `name` stands in place of the client's.
    fn sets(&self, name: &str) -> bool {
        self.fields.iter().any(|(fixed, _)| name.eq_ignore_ascii_case(fixed.as_str()))
    }

    /// The lines that depend on the credential.
    fn write_identity(&self, owed: [bool; 2], out: &mut Buffer) {
        for ((name, value), owed) in self.unless_sent.into_iter().zip(owed) {
            if let Some(value) = value.filter(|_| owed) {
                line(name, value, out);
            }
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

impl From<httparse::Error> for NoRequest {
    fn from(error: httparse::Error) -> Self {
        if error == httparse::Error::TooManyHeaders { Self::HeadTooLarge } else { Self::Malformed }
    }
}

/// Whether a JSON document is among what the client takes.
fn accepts_json(accept: &[u8]) -> bool {
    steps::over(accept).windows(4).any(|part| part == b"json")
}

/// Whether a page is among what the client takes: by its name, or since anything is (`*/*`, `text/*`). Scripts ask so for JSON
/// (`application/json, text/plain, */*`), and for pages.
fn accepts_pages(accept: &[u8]) -> bool {
    accept.windows(2).any(|part| part == b"/*")
        || accept.windows(4).any(|part| part.eq_ignore_ascii_case(b"html"))
}

/// Whether the path has the extension of JSON, with a suffix, parameters or a query behind it or not. A page whose suffix looks
/// like one is a page (Sling: the extension comes before the suffix).
fn is_json_path(path: &[u8]) -> bool {
    let path = &path[..memchr2(b'?', b';', path).unwrap_or(path.len())];
    steps::over(path);
    let ends = |rest: &[u8]| rest.first().is_none_or(|byte| *byte == b'/');
    let is = |extension: &[u8], rest: &[u8]| rest.strip_prefix(extension).is_some_and(ends);
    let mut json = false;
    for at in memchr_iter(b'.', path) {
        let rest = &path[at + 1..];
        match rest.first() {
            Some(b'j') => json |= is(JSON, rest),
            Some(b'h') if PAGES.iter().any(|page| is(page, rest)) => return false,
            _ => {}
        }
    }
    json
}

/// One field. Its place is made once, since a head has many.
pub(super) fn line(name: &str, value: &[u8], out: &mut Buffer) {
    let bytes = name.len() + value.len() + 4;
    steps::add(bytes);
    let room = &mut out.room(bytes)[..bytes];
    let (own, rest) = room.split_at_mut(name.len());
    own.copy_from_slice(name.as_bytes());
    let (colon, rest) = rest.split_at_mut(2);
    colon.copy_from_slice(b": ");
    let (own, end) = rest.split_at_mut(value.len());
    own.copy_from_slice(value);
    end.copy_from_slice(b"\r\n");
    out.fill(bytes);
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

/// A field with a URL: AEM's filters take its own origin for a page's, and its `MOVE` knows no other.
fn renamed(name: &str, value: &[u8], upstream: &[u8], is_local: impl Fn(&[u8]) -> bool, out: &mut Buffer) {
    out.push(name.as_bytes());
    out.push(b": ");
    rewrite::to_upstream(value, upstream, is_local, out);
    out.push(b"\r\n");
}

/// The members of `value` that `codings` has too, with their weights. Without any it says `identity`: no field at all would
/// say that every coding is welcome (RFC 9110, section 12.5.3).
fn accept_encoding(name: &str, value: &[u8], codings: &[u8], out: &mut Buffer) {
    let is_known = |member: &&[u8]| {
        let coding = member.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        members(codings).chain([IDENTITY]).any(|known| known.eq_ignore_ascii_case(coding))
    };
    out.push(name.as_bytes());
    let mut separator = &b": "[..];
    for member in members(value).filter(is_known) {
        out.push(separator);
        out.push(member);
        separator = b", ";
    }
    if separator == b": " {
        out.push(separator);
        out.push(IDENTITY);
    }
    out.push(b"\r\n");
}

/// A `Cookie`, without those that say who the user is.
fn cookie(header: &Header<'_>, out: &mut Buffer) {
    match session_cookies::without_users(header.value) {
        None => line(header.name, header.value, out),
        Some(kept) if kept.is_empty() => {}
        Some(kept) => line(header.name, &kept, out),
    }
}

const CSRF_TOKEN: &[u8] = b"/libs/granite/csrf/token.json";

/// Where Sling's sessions end.
const LOGOUT: &[u8] = b"/system/sling/logout";

const IDENTITY: &[u8] = b"identity";

const JSON: &[u8] = b"json";

const PAGES: [&[u8]; 2] = [b"html", b"htm"];

/// The safe methods of HTTP, and those of WebDAV that read.
const SAFE: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT"];

/// Methods whose content has a meaning: those of HTTP, of WebDAV (RFC 4918, 3253, 5323), and QUERY.
const WITH_CONTENT: [&str; 10] =
    ["POST", "PUT", "PATCH", "PROPFIND", "PROPPATCH", "MKCOL", "LOCK", "REPORT", "SEARCH", "QUERY"];

/// Methods of which a server expects content (RFC 9110, section 9.3).
const ANTICIPATES_CONTENT: [&str; 3] = ["POST", "PUT", "PATCH"];

/// Twice as long as any that is registered.
const METHOD_MAX: usize = 32;

/// As long as the longest that browsers and servers are known to take; the contract's answer is 414.
const TARGET_MAX: usize = 65_534;

#[cfg(test)]
mod tests;
