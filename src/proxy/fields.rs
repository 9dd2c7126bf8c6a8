//! What crosses a proxy and what does not, field by field; shared by requests and responses.
//!
//! Sources: RFC 9110, section 7.6 (hop-by-hop fields, `Via`); Adobe, "CDN in AEM as a Cloud Service" (forwarded
//! fields).

use std::{collections::HashMap, mem::MaybeUninit};

use httparse::{EMPTY_HEADER, Header, Status};
use memchr::memchr;

use super::framing::Length;
use crate::steps;

/// A head with this many fields is parsed without an allocation. `limits.fields` is never less.
pub(super) const FIELDS_ON_STACK: usize = 100;

/// The most trailers of one message.
pub(super) const TRAILERS_MAX: usize = 100;

/// Room for the fields of a head.
pub(super) struct Storage<'b> {
    pub fields: [MaybeUninit<Header<'b>>; FIELDS_ON_STACK],
    /// What the fields are: found once, and used when the head is read and when it is written.
    pub kinds: [Field; FIELDS_ON_STACK],
    /// Which fields `Connection` names, where it names any.
    pub named: [bool; FIELDS_ON_STACK],
    /// For a head with more fields, or one that httparse does not parse in one piece. Allocated when there is one.
    pub heap: Option<Box<HeapStorage<'b>>>,
    /// The most fields that a head may have: `limits.fields`.
    pub max: usize,
}

/// Room for the fields of a head that does not fit in the arrays of [`Storage`].
pub(super) struct HeapStorage<'b> {
    pub fields: Vec<Header<'b>>,
    pub kinds: Vec<Field>,
    pub named: Vec<bool>,
}

/// Empty room for heads of at most [`FIELDS_ON_STACK`] fields.
pub(super) fn storage<'b>() -> Storage<'b> {
    storage_for(FIELDS_ON_STACK)
}

/// Empty room for heads of at most `max` fields.
pub(super) fn storage_for<'b>(max: usize) -> Storage<'b> {
    let fields = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
    let kinds = [Field::Other; FIELDS_ON_STACK];
    Storage { fields, kinds, named: [false; FIELDS_ON_STACK], heap: None, max }
}

impl HeapStorage<'_> {
    /// Room for the fields of the head at the beginning of `bytes`, but for no more than `max`.
    #[cold]
    pub(super) fn for_head(bytes: &[u8], max: usize) -> Box<Self> {
        let fields = fields_for(bytes, max);
        let (kinds, named) = (vec![Field::Other; fields.len()], vec![false; fields.len()]);
        Box::new(Self { fields, kinds, named })
    }
}

/// As many empty fields as the head at the beginning of `bytes` has lines, but no more than `max`.
pub(super) fn fields_for<'b>(bytes: &[u8], max: usize) -> Vec<Header<'b>> {
    let lines = bytes.split(|byte| *byte == b'\n').take_while(|line| *steps::over(line) != *b"\r");
    vec![EMPTY_HEADER; lines.take(max).count()]
}

/// Reads the fields of a head whose first line was read, and tells the length of both. httparse's functions for whole heads have
/// one caller each on the path of every message, where they are inlined.
#[cold]
pub(super) fn parse_fields<'h, 'b>(
    bytes: &'b [u8],
    fields: &'h mut [Header<'b>],
) -> httparse::Result<(usize, &'h [Header<'b>])> {
    let Some(end) = memchr(b'\n', bytes) else { return Ok(Status::Partial) };
    let (line, rest) = (end + 1, &bytes[end + 1..]);
    Ok(match httparse::parse_headers(rest, fields)? {
        Status::Complete((length, fields)) => Status::Complete((line + length, fields)),
        Status::Partial => Status::Partial,
    })
}

/// What each of `fields` is.
pub(super) fn kinds<'h>(fields: &[Header<'_>], room: &'h mut [Field]) -> &'h [Field] {
    for (kind, field) in room.iter_mut().zip(fields) {
        steps::add(field.name.len());
        *kind = Field::of(field.name);
    }
    &room[..fields.len().min(room.len())]
}

/// The fields that mean something to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Accept,
    AcceptEncoding,
    /// One of the answers to a browser's questions about other origins (`Access-Control-Allow-...` and the like).
    AccessControl,
    Authorization,
    CacheControl,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentLocation,
    /// `Content-Security-Policy`, and its form that only reports.
    ContentSecurityPolicy,
    ContentType,
    Cookie,
    /// `Destination` of WebDAV, and `X-Destination` of the Assets HTTP API.
    Destination,
    /// A name that somebody else may take for one of framing: `Content_Length`, `Transfer_Encoding`.
    Disguised,
    Expect,
    Forwarded,
    /// What an answer says of its host for all that a client asks of it later: `Strict-Transport-Security`, `Alt-Svc` and the
    /// like. Said by AEM of its own name, it does not hold for the proxy's.
    OfHost,
    Host,
    KeepAlive,
    Link,
    Location,
    Origin,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    Refresh,
    RetryAfter,
    SecFetchMode,
    SecFetchSite,
    SetCookie,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    /// Why AEM does not let a script in a browser in.
    XReason,
    /// It is between client and server.
    Other,
}

impl Field {
    /// Which field this is, whatever its case.
    pub(super) fn of(name: &str) -> Self {
        // Length and first letter tell all of them apart.
        let first = name.as_bytes().first().map_or(0, |first| first | 0x20);
        let candidate = match (name.len(), first) {
            (2, _) => ("te", Self::Te),
            (3, _) => ("nel", Self::OfHost),
            (4, b'h') => ("host", Self::Host),
            (4, _) => ("link", Self::Link),
            (6, b'a') => ("accept", Self::Accept),
            (6, b'c') => ("cookie", Self::Cookie),
            (6, b'o') => ("origin", Self::Origin),
            (6, _) => ("expect", Self::Expect),
            (7, b'r') if name.as_bytes()[4] | 0x20 == b'r' => ("referer", Self::Referer),
            (7, b'r') => ("refresh", Self::Refresh),
            (7, b't') => ("trailer", Self::Trailer),
            (7, b'a') => ("alt-svc", Self::OfHost),
            (7, _) => ("upgrade", Self::Upgrade),
            (8, _) => ("location", Self::Location),
            (9, b'e') => ("expect-ct", Self::OfHost),
            (9, b'r') => ("report-to", Self::OfHost),
            (9, _) => ("forwarded", Self::Forwarded),
            (10, b'c') => ("connection", Self::Connection),
            (10, b'u') => ("user-agent", Self::UserAgent),
            (10, b's') => ("set-cookie", Self::SetCookie),
            (10, _) => ("keep-alive", Self::KeepAlive),
            (11, b'r') => ("retry-after", Self::RetryAfter),
            (11, _) => ("destination", Self::Destination),
            (12, _) => ("content-type", Self::ContentType),
            (13, b'a') => ("authorization", Self::Authorization),
            (13, b'c') => ("cache-control", Self::CacheControl),
            (13, _) if name.as_bytes()[2] | 0x20 == b'd' => ("x-destination", Self::Destination),
            (14, b'c') => ("content-length", Self::ContentLength),
            (14, b's') if name.as_bytes()[10] | 0x20 == b'm' => ("sec-fetch-mode", Self::SecFetchMode),
            (14, b's') => ("sec-fetch-site", Self::SecFetchSite),
            (15, b'c') => ("clear-site-data", Self::OfHost),
            (15, b'p') => ("public-key-pins", Self::OfHost),
            (15, _) => ("accept-encoding", Self::AcceptEncoding),
            (16, b'c') if name.as_bytes()[8] | 0x20 == b'e' => ("content-encoding", Self::ContentEncoding),
            (16, b'c') => ("content-location", Self::ContentLocation),
            (16, _) => ("proxy-connection", Self::ProxyConnection),
            (17, _) => ("transfer-encoding", Self::TransferEncoding),
            (18, b'a') => ("alternate-protocol", Self::OfHost),
            (19, b'r') => ("reporting-endpoints", Self::OfHost),
            (19, _) => ("proxy-authorization", Self::ProxyAuthorization),
            (23, b'c') => ("content-security-policy", Self::ContentSecurityPolicy),
            (25, b's') => ("strict-transport-security", Self::OfHost),
            (27, b'p') => ("public-key-pins-report-only", Self::OfHost),
            (35, b'c') => ("content-security-policy-report-only", Self::ContentSecurityPolicy),
            _ => ("", Self::Other),
        };
        if is_named(name, candidate.0) {
            candidate.1
        } else if is_disguised(name) {
            Self::Disguised
        } else if first != b'x' && first != b'a' {
            Self::Other
        } else if begins(name, X_FORWARDED) {
            // AEM's CDN answers 403 or redirects in circles when a forwarded host is not its own.
            Self::Forwarded
        } else if begins(name, ACCESS_CONTROL) {
            Self::AccessControl
        } else if begins(name, X_REASON) {
            Self::XReason
        } else {
            Self::Other
        }
    }

    /// Whether it may name AEM by its origin or its host, or mean that it speaks `https`.
    pub(super) fn names_upstream(self) -> bool {
        matches!(
            self,
            Self::ContentLocation
                | Self::ContentSecurityPolicy
                | Self::Link
                | Self::Location
                | Self::Refresh
                | Self::SetCookie
        )
    }

    /// Whether the field is between two neighbours. `Proxy-Connection` and `Keep-Alive` are no longer in the RFC's list
    /// and still sent. Framing is ours: it is written anew.
    pub(super) fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::ContentLength
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }
}

/// What the fields that are between two neighbours say.
#[derive(Debug, Default)]
pub(super) struct Hop {
    /// `Connection: close`.
    pub close: bool,
    /// `Connection: keep-alive`.
    pub keep_alive: bool,
    /// `Connection: upgrade`.
    pub upgrade: bool,
    /// `TE: trailers`.
    pub trailers: bool,
    /// `Connection` names fields that go with it.
    names: bool,
    length: Option<u64>,
    coding: Option<Coding>,
    typed: bool,
    destined: bool,
}

/// What `Transfer-Encoding` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    /// Something else before `chunked`: it would be passed on undecoded and unannounced, since the field stays here.
    Other,
}

impl Coding {
    /// The one that `value` names. `chunked` comes last and once, without parameters, or nobody knows where the body ends (RFC
    /// 9112, sections 6.1 and 7): whatever is nearly that has been read as `chunked` by one and as nothing by another.
    fn of(value: &[u8]) -> Option<Self> {
        if value.eq_ignore_ascii_case(CHUNKED) {
            return Some(Self::Chunked);
        }
        let (before, last) = value.split_at(value.iter().rposition(|byte| *byte == b',')?);
        let is_last = last[1..].trim_ascii().eq_ignore_ascii_case(CHUNKED);
        let is_other = |coding: &[u8]| {
            let coding = coding.trim_ascii();
            is_token(coding) && ![CHUNKED, IDENTITY].iter().any(|own| own.eq_ignore_ascii_case(coding))
        };
        (is_last && before.split(|byte| *byte == b',').all(is_other)).then_some(Self::Other)
    }
}

/// The framing of a message is not one that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadFraming {
    /// Nobody knows where the message ends.
    Broken,
    /// A transfer coding beside `chunked`.
    Coding,
}

impl Hop {
    /// Takes note of a field.
    ///
    /// # Errors
    /// When it is said twice, or could be read in two ways.
    pub(super) fn note(&mut self, field: Field, value: &[u8]) -> Result<(), BadFraming> {
        match field {
            Field::Connection => self.connection(value),
            Field::Te => {
                self.trailers |= members(value).any(|member| member.eq_ignore_ascii_case(b"trailers"));
            }
            Field::ContentLength => {
                let length = decimal(value).filter(|_| self.length.is_none()).ok_or(BadFraming::Broken)?;
                self.length = Some(length);
            }
            Field::TransferEncoding => {
                let coding = Coding::of(value).filter(|_| self.coding.is_none());
                self.coding = Some(coding.ok_or(BadFraming::Broken)?);
            }
            Field::Disguised => return Err(BadFraming::Broken),
            // Of two the one may be taken here, and the other there.
            Field::ContentType => once(&mut self.typed)?,
            Field::Destination => once(&mut self.destined)?,
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for member in members(value) {
            if member.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if member.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if member.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.names = true;
            }
        }
    }

    /// What the fields say of the body's length; `None` when they say nothing.
    ///
    /// # Errors
    /// When the coding is one that is not taken.
    pub(super) fn length(&self) -> Result<Option<Length>, BadFraming> {
        match self.coding {
            Some(Coding::Chunked) => Ok(Some(Length::Chunked)),
            Some(Coding::Other) => Err(BadFraming::Coding),
            None => Ok(self.length.map(Length::Exact)),
        }
    }

    /// Whether both `Content-Length` and `Transfer-Encoding` are there: the makings of request smuggling.
    pub(super) fn is_framed_twice(&self) -> bool {
        self.length.is_some() && self.coding.is_some()
    }

    /// Whether there is a transfer coding.
    pub(super) fn is_coded(&self) -> bool {
        self.coding.is_some()
    }

    /// The length that was said, whether or not a body follows.
    pub(super) fn said(&self) -> Option<u64> {
        self.length
    }

    /// Which of `fields` stay here because `Connection` names them, by their numbers; empty where it names none.
    pub(super) fn named<'h>(
        &self,
        fields: &[Header<'_>],
        kinds: &[Field],
        room: &'h mut [bool],
    ) -> &'h [bool] {
        if !self.names {
            return &[];
        }
        let length = fields.len().min(room.len());
        let room = &mut room[..length];
        let connection = fields.iter().zip(kinds).filter(|(_, kind)| **kind == Field::Connection);
        let members = connection.flat_map(|(field, _)| members(field.value));
        mark_named(fields, members, room);
        room
    }
}

/// Marks the fields that `members` name. Many members are looked up in a map of the names, since a head may have tens of
/// thousands of them.
fn mark_named<'b>(fields: &[Header<'_>], mut members: impl Iterator<Item = &'b [u8]>, marks: &mut [bool]) {
    let few: [_; FEW] = std::array::from_fn(|_| members.next());
    let few = few.into_iter().flatten();
    let Some(next) = members.next() else {
        for (mark, field) in marks.iter_mut().zip(fields) {
            steps::add(field.name.len());
            *mark = few.clone().any(|member| member.eq_ignore_ascii_case(field.name.as_bytes()));
        }
        return;
    };
    let lower = |name: &[u8]| steps::over(name).to_ascii_lowercase();
    let names = fields.iter().map(|field| (lower(field.name.as_bytes()), false));
    let mut named: HashMap<_, _> = names.collect();
    let mut name = Vec::new();
    for member in few.chain([next]).chain(members) {
        name.clear();
        name.extend(steps::over(member).iter().map(u8::to_ascii_lowercase));
        if let Some(named) = named.get_mut(&name) {
            *named = true;
        }
    }
    for (mark, field) in marks.iter_mut().zip(fields) {
        *mark = named.get(&lower(field.name.as_bytes())).copied().unwrap_or_default();
    }
}

/// The protocol that `Upgrade` names: a single one, none of a list, and none that is HTTP or carries it. `h2c` would open a
/// way past us on which no token is added (golang/go#80416).
pub(super) fn protocol<'b>(fields: &[Header<'b>]) -> Option<&'b [u8]> {
    let mut named = fields.iter().filter(|field| Field::of(field.name) == Field::Upgrade);
    let (Some(field), None) = (named.next(), named.next()) else { return None };
    let protocol = field.value;
    let single = protocol.split(|byte| *byte == b'/').all(is_token);
    let carries_http =
        |name: &[u8]| protocol.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
    (single && ![&b"http"[..], b"h2", b"h3", b"tls"].into_iter().any(carries_http)).then_some(protocol)
}

/// The members of a comma-separated list (RFC 9110, section 5.6.1).
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    steps::over(value).split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Whether `text` is a token: a name or a method (RFC 9110, section 5.6.2).
pub(super) fn is_token(text: &[u8]) -> bool {
    let may = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(may)
}

/// Digits and nothing else: no sign, no space, no list. None with a zero before them, which some take for octal; none that a
/// signed number cannot hold, which is what Java has.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit) && (value == b"0" || !value.starts_with(b"0"));
    let number: u64 = std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()?;
    (number <= LENGTH_MAX).then_some(number)
}

fn once(seen: &mut bool) -> Result<(), BadFraming> {
    if std::mem::replace(seen, true) { Err(BadFraming::Broken) } else { Ok(()) }
}

/// Whether every line of a head ends with CRLF. A bare LF ends one for some (RFC 9112, section 2.2), and for others does not;
/// httparse takes it. A CR that stands alone it does not take.
pub(super) fn has_strict_lines(head: &[u8]) -> bool {
    // Without a branch: the compiler looks at many bytes at once.
    let is_bare = |bare: bool, (before, byte): (&u8, &u8)| bare | ((*byte == b'\n') & (*before != b'\r'));
    steps::over(head);
    head.first() != Some(&b'\n') && !head.iter().zip(head.iter().skip(1)).fold(false, is_bare)
}

/// Whether `line` is a field line (RFC 9112, section 5), without its end.
pub(super) fn is_field_line(line: &[u8]) -> bool {
    let Some(colon) = memchr(b':', line) else { return false };
    is_token(&line[..colon]) && line[colon + 1..].iter().all(|byte| is_text(*byte))
}

/// Whether a byte may stand in a value: no control character but a tab (RFC 9110, section 5.5).
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether a field's name is this one, which is of small letters and hyphens: in a name each of them has one other form at
/// most, which differs by one bit.
pub(super) fn is_named(name: &str, own: &str) -> bool {
    let differ = |differs: u8, (a, b): (u8, u8)| differs | ((a | 0x20) ^ b);
    name.len() == own.len() && name.bytes().zip(own.bytes()).fold(0, differ) == 0
}

/// Whether a name is one of framing's once hyphens and underscores are the same, as they are where fields become variables.
fn is_disguised(name: &str) -> bool {
    let is_same = |own: &str| {
        let same = |(a, b): (u8, u8)| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b'-');
        name.len() == own.len() && name.bytes().zip(own.bytes()).all(same)
    };
    is_same("content-length") || is_same("transfer-encoding")
}

fn begins(name: &str, with: &[u8]) -> bool {
    name.as_bytes().get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with))
}

/// As many as a client names that has no bad intent: `TE`, `HTTP2-Settings`.
const FEW: usize = 4;

const CHUNKED: &[u8] = b"chunked";
const IDENTITY: &[u8] = b"identity";
/// `Long.MAX_VALUE`.
pub(super) const LENGTH_MAX: u64 = i64::MAX as u64;

const X_FORWARDED: &[u8] = b"x-forwarded-";
const ACCESS_CONTROL: &[u8] = b"access-control-";
/// `X-Reason` and `X-Reason-Code` of Apache Sling's authentication.
const X_REASON: &[u8] = b"x-reason";

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(fields: &[(Field, &str)]) -> Result<Hop, BadFraming> {
        let mut hop = Hop::default();
        for (field, value) in fields {
            hop.note(*field, value.as_bytes())?;
        }
        Ok(hop)
    }

    fn length(fields: &[(Field, &str)]) -> Result<Option<Length>, BadFraming> {
        hop(fields)?.length()
    }

    #[test]
    fn fields_are_known_whatever_their_case() {
        for (name, field) in [
            ("TE", Field::Te),
            ("Host", Field::Host),
            ("Cookie", Field::Cookie),
            ("ORIGIN", Field::Origin),
            ("expect", Field::Expect),
            ("Trailer", Field::Trailer),
            ("Upgrade", Field::Upgrade),
            ("Forwarded", Field::Forwarded),
            ("X-Forwarded-Host", Field::Forwarded),
            ("x-forwarded-anything", Field::Forwarded),
            ("X-Forwarded-", Field::Forwarded),
            ("Connection", Field::Connection),
            ("Keep-Alive", Field::KeepAlive),
            ("Authorization", Field::Authorization),
            ("Content-Length", Field::ContentLength),
            ("Sec-Fetch-Mode", Field::SecFetchMode),
            ("Sec-Fetch-Site", Field::SecFetchSite),
            ("Proxy-Connection", Field::ProxyConnection),
            ("Transfer-Encoding", Field::TransferEncoding),
            ("Proxy-Authorization", Field::ProxyAuthorization),
            ("Accept", Field::Accept),
            ("Accept-Encoding", Field::AcceptEncoding),
            ("access-control-allow-origin", Field::AccessControl),
            ("Cache-Control", Field::CacheControl),
            ("Content-Encoding", Field::ContentEncoding),
            ("Content-Location", Field::ContentLocation),
            ("Content-Type", Field::ContentType),
            ("Destination", Field::Destination),
            ("X-Destination", Field::Destination),
            ("Link", Field::Link),
            ("Location", Field::Location),
            ("Referer", Field::Referer),
            ("Refresh", Field::Refresh),
            ("Retry-After", Field::RetryAfter),
            ("Set-Cookie", Field::SetCookie),
            ("User-Agent", Field::UserAgent),
            ("X-Reason", Field::XReason),
            ("x-reason-code", Field::XReason),
            ("Strict-Transport-Security", Field::OfHost),
            ("ALT-SVC", Field::OfHost),
            ("Alternate-Protocol", Field::OfHost),
            ("Public-Key-Pins", Field::OfHost),
            ("Public-Key-Pins-Report-Only", Field::OfHost),
            ("Expect-CT", Field::OfHost),
            ("NEL", Field::OfHost),
            ("Report-To", Field::OfHost),
            ("Reporting-Endpoints", Field::OfHost),
            ("Clear-Site-Data", Field::OfHost),
            ("Content-Security-Policy", Field::ContentSecurityPolicy),
            ("content-security-policy-report-only", Field::ContentSecurityPolicy),
            ("X-Forwarded", Field::Other),
            ("Accepts", Field::Other),
            ("", Field::Other),
            ("Hose", Field::Other),
        ] {
            assert_eq!(Field::of(name), field, "{name}");
        }
    }

    #[test]
    fn a_length_is_one_number() {
        use Field::ContentLength as Said;
        assert_eq!(length(&[]), Ok(None));
        for (said, expected) in [("0", 0), ("5", 5), ("9223372036854775807", LENGTH_MAX)] {
            assert_eq!(length(&[(Said, said)]), Ok(Some(Length::Exact(expected))));
        }
        for bad in [
            "-1",
            "+1",
            "",
            "5, 5",
            "5,5",
            "0x5",
            " 5",
            "5 5",
            "5_0",
            "05",
            "00",
            "5.0",
            "1e1",
            "٥",
            "9223372036854775808",
            "99999999999999999999",
        ] {
            assert_eq!(length(&[(Said, bad)]), Err(BadFraming::Broken), "{bad}");
        }
        for again in ["5", "6"] {
            assert_eq!(length(&[(Said, "5"), (Said, again)]), Err(BadFraming::Broken));
        }
    }

    #[test]
    fn a_coding_is_chunked_alone() {
        use Field::{ContentLength as Said, TransferEncoding as Coded};
        assert_eq!(length(&[(Coded, "Chunked")]), Ok(Some(Length::Chunked)));
        for known in ["gzip, chunked", "gzip,deflate,chunked", "x-foo ,chunked"] {
            assert_eq!(length(&[(Coded, known)]), Err(BadFraming::Coding), "{known}");
        }
        for broken in [
            "gzip",
            "chunked, gzip",
            "chunked, chunked",
            "gzip, chunked, chunked",
            "identity",
            "identity, chunked",
            "xchunked",
            "chunkedx",
            "",
            ",",
            ", chunked",
            "chunked,",
            "chunked ,",
            "chunked;q=1",
            "gzip;q=1, chunked",
            "\"chunked\"",
            "chunked chunked",
            "gzip chunked",
            "chunked\t\tx",
            "chun\u{212a}ed",
        ] {
            assert_eq!(length(&[(Coded, broken)]), Err(BadFraming::Broken), "{broken}");
        }
        for twice in ["chunked", "gzip", "gzip, chunked"] {
            assert_eq!(length(&[(Coded, "chunked"), (Coded, twice)]), Err(BadFraming::Broken), "{twice}");
        }
        assert!(hop(&[(Said, "5"), (Coded, "chunked")]).unwrap().is_framed_twice());
    }

    #[test]
    fn what_may_be_taken_for_framing_or_stands_there_twice_is_refused() {
        for name in ["Content_Length", "transfer_encoding", "TRANSFER_ENCODING"] {
            assert_eq!(Field::of(name), Field::Disguised, "{name}");
        }
        for name in ["content-lengths", "x_content_length", "accept_charset", "transfer.encoding"] {
            assert_eq!(Field::of(name), Field::Other, "{name}");
        }
        assert!(hop(&[(Field::Disguised, "5")]).is_err());
        for field in [Field::ContentType, Field::Destination] {
            assert!(hop(&[(field, "a")]).is_ok() && hop(&[(field, "a"), (field, "a")]).is_err());
        }
    }

    #[test]
    fn lines_end_with_cr_and_lf() {
        assert!(has_strict_lines(b"GET / HTTP/1.1\r\na: b\r\n\r\n") && has_strict_lines(b"GET"));
        for loose in [&b"\n"[..], b"a\n", b"a\r\n\n", b"a\n\r\n", b"a\r\nb: c\n\r\n"] {
            assert!(!has_strict_lines(loose), "{}", loose.escape_ascii());
        }
        for line in [&b"a:"[..], b"a: b", b"a:\tb\xff ", b"a::"] {
            assert!(is_field_line(line), "{}", line.escape_ascii());
        }
        for line in [&b""[..], b"a", b":", b": b", b"a : b", b" a: b", b"a: b\x00", b"a: b\rc", b"a: \x7f"] {
            assert!(!is_field_line(line), "{}", line.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn the_fields_that_connection_names_are_marked(
            names in proptest::collection::vec("[a-cA-C]{1,3}", 0..40),
            members in proptest::collection::vec("[a-cA-C]{1,3}", 0..40),
        ) {
            let fields: Vec<_> = names.iter().map(|name| Header { name, value: b"" }).collect();
            let mut marks = [true; FIELDS_ON_STACK];
            mark_named(&fields, members.iter().map(String::as_bytes), &mut marks[..fields.len()]);
            let is_named = |name: &String| members.iter().any(|member| member.eq_ignore_ascii_case(name));
            let expected: Vec<_> = names.iter().map(is_named).collect();
            proptest::prop_assert_eq!(&marks[..fields.len()], expected.as_slice());
        }
    }
}
