//! AEM's response head: read once, and written as the client is to see it.

use httparse::{Header, Status};

use super::{
    buffer::Buffer,
    cors,
    fields::{
        BadFraming, FIELDS_ON_STACK, Field, HeapStorage, Hop, Storage, has_strict_lines, kinds, parse_fields,
        protocol,
    },
    framing::{Encoding, Length},
    request::{line, number, via},
    rewrite::{self, Names},
    session_cookies,
    withheld::Withheld,
};

/// A head that has come whole. No `Debug`: it holds cookies.
pub(super) struct ResponseHead<'h, 'b> {
    pub status: u16,
    reason: &'b str,
    minor: u8,
    fields: &'h [Header<'b>],
    /// What they are, one by one.
    kinds: &'h [Field],
    /// Which of them `Connection` names; empty where it names none.
    named: &'h [bool],
    hop: Hop,
    /// `Content-Type`, the last one.
    pub content_type: Option<&'b [u8]>,
    /// `Content-Encoding`, or what stands for several of them.
    pub content_encoding: Option<&'b [u8]>,
    /// `Location`.
    pub location: Option<&'b [u8]>,
    /// `Retry-After`.
    pub retry_after: Option<&'b [u8]>,
    /// `X-Reason` or `X-Reason-Code`.
    pub has_reason: bool,
    /// Bytes that the head took.
    pub bytes: usize,
}

/// What AEM sent is no response that could be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadResponse {
    /// No HTTP/1.
    #[error("{0}")]
    Malformed(httparse::Error),
    /// No status that there is.
    #[error("the status is none of HTTP's")]
    Status,
    /// Its lengths contradict each other.
    #[error("nobody knows where the body ends")]
    Framing,
    /// A transfer coding beside `chunked`.
    #[error("the transfer coding is not chunked alone")]
    Coding,
    /// Too many fields.
    #[error("there are too many fields")]
    TooLarge,
    /// More of them than anybody has to say.
    #[error("there are too many interim responses")]
    Interim,
}

impl From<httparse::Error> for BadResponse {
    fn from(error: httparse::Error) -> Self {
        if error == httparse::Error::TooManyHeaders { Self::TooLarge } else { Self::Malformed(error) }
    }
}

/// What was asked, as far as it decides how an answer looks. No `Debug`: it holds the credential.
#[derive(Clone, Copy, Default)]
pub(super) struct AnswerTo<'w> {
    /// A HEAD: the answer has no body.
    pub head: bool,
    /// The client's minor version.
    pub minor: u8,
    /// The client keeps the connection.
    pub keep_alive: bool,
    /// The configured web origin that asks; none where no page of another origin does.
    pub web_origin: Option<&'w str>,
    /// No cache may keep the answer.
    pub no_store: bool,
    /// The client knows interim responses other than 100 and 101: it speaks HTTP/2, or is a browser that navigates. Others take
    /// the first response that comes for the answer.
    pub interim: bool,
    /// What the request was sent with: it does not come back.
    pub withheld: Withheld<'w>,
}

/// How a response goes on behind its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Body {
    /// As it comes from AEM.
    pub length: Length,
    /// As it goes to the client.
    pub encoding: Encoding,
    /// Its end is the end of the client's connection.
    pub closes: bool,
    /// It is renamed on its way: what AEM says of its bytes does not hold for those that the client gets.
    pub renamed: Option<Renamed>,
}

/// What is known of a renamed body when its head is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renamed {
    /// Nothing: it streams.
    Streams,
    /// It has so many bytes.
    Whole(u64),
}

impl Body {
    /// None.
    pub(super) const NONE: Self =
        Self { length: Length::Exact(0), encoding: Encoding::Identity, closes: false, renamed: None };

    /// The same, for a client that gets other bytes than AEM has sent.
    pub(super) fn renamed(self, renamed: Renamed, to: AnswerTo<'_>) -> Self {
        let unknown = renamed == Renamed::Streams && !to.head;
        let encoding = if unknown && to.minor > 0 { Encoding::Chunked } else { Encoding::Identity };
        let closes = unknown && to.minor == 0;
        Self { encoding, closes, renamed: Some(renamed), ..self }
    }
}

impl<'h, 'b> ResponseHead<'h, 'b> {
    /// Reads a head at the beginning of `bytes`; `None` when its end has not come yet.
    ///
    /// # Errors
    /// When this is no HTTP/1 response, or one that could be read in two ways.
    pub(super) fn parse(bytes: &'b [u8], storage: &'h mut Storage<'b>) -> Result<Option<Self>, BadResponse> {
        let head = Self::parse_leniently(bytes, storage)?;
        let read = head.as_ref().map_or(bytes, |head| &bytes[..head.bytes]);
        // Nothing stands before a response.
        let begins = !matches!(bytes.first(), Some(b'\r' | b'\n'));
        if !begins || !has_strict_lines(read) {
            return Err(BadResponse::Malformed(httparse::Error::NewLine));
        }
        Ok(head)
    }

    /// The same for lines that end with LF alone.
    fn parse_leniently(bytes: &'b [u8], storage: &'h mut Storage<'b>) -> Result<Option<Self>, BadResponse> {
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut storage.fields);
        let (status, minor) = (response.code, response.version);
        // The head is built in one place: what is built in two is copied once more.
        let (head_bytes, fields, room, named) = match parsed {
            Ok(Status::Complete(head_bytes)) => {
                (head_bytes, &*response.headers, &mut storage.kinds[..], &mut storage.named[..])
            }
            Ok(Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) if storage.max > FIELDS_ON_STACK => {
                // The status line was read.
                match parse_many_fields(bytes, storage.max, &mut storage.heap)? {
                    Some(parsed) => parsed,
                    None => return Ok(None),
                }
            }
            Err(error) => return Err(error.into()),
        };
        let (Some(status), Some(minor)) = (status, minor) else {
            return Err(BadResponse::Status);
        };
        if !(100..1000).contains(&status) {
            return Err(BadResponse::Status);
        }
        let mut head = Self {
            status,
            reason: response.reason.unwrap_or_default(),
            minor,
            fields,
            kinds: kinds(fields, room),
            named: &[],
            hop: Hop::default(),
            content_type: None,
            content_encoding: None,
            location: None,
            retry_after: None,
            has_reason: false,
            bytes: head_bytes,
        };
        head.survey()?;
        head.named = head.hop.named(head.fields, head.kinds, named);
        Ok(Some(head))
    }

    fn survey(&mut self) -> Result<(), BadResponse> {
        for (header, field) in self.fields.iter().zip(self.kinds) {
            match *field {
                Field::Other => {}
                Field::ContentType => self.content_type = Some(header.value),
                Field::ContentEncoding => {
                    // Of several fields each says a part: no single one tells how the body is coded.
                    let first = self.content_encoding.is_none();
                    self.content_encoding = Some(if first { header.value } else { SEVERAL });
                }
                Field::Location => self.location = Some(header.value),
                Field::RetryAfter => self.retry_after = Some(header.value),
                Field::XReason => self.has_reason = true,
                field => self.hop.note(field, header.value).map_err(|_| BadResponse::Framing)?,
            }
        }
        if self.is_contradictory() { Err(BadResponse::Framing) } else { Ok(()) }
    }

    /// Whether it says two things about its length, or one that its version or its status does not know: the next reader takes
    /// the other one (RFC 9112, sections 6.1 and 6.2). Some say of no body that it has no bytes.
    fn is_contradictory(&self) -> bool {
        let bodiless = matches!(self.status, 100..200 | 204);
        let coded = self.hop.is_coded() && (bodiless || self.minor == 0);
        self.hop.is_framed_twice() || coded || (bodiless && self.hop.said().is_some_and(|bytes| bytes > 0))
    }

    /// What AEM goes on in, if it is a protocol that could have been asked for.
    pub(super) fn protocol(&self) -> Option<&'b [u8]> {
        (self.status == 101).then(|| protocol(self.fields)).flatten()
    }

    /// Whether AEM keeps the connection after this response.
    pub(super) fn keeps_alive(&self) -> bool {
        !self.hop.close && (self.minor > 0 || self.hop.keep_alive)
    }

    /// Where the body ends, and how it is framed for the client (RFC 9112, section 6.3).
    ///
    /// # Errors
    /// When it is framed in a way that is not taken.
    pub(super) fn body(&self, to: AnswerTo<'_>) -> Result<Body, BadResponse> {
        let length = match self.hop.length() {
            Ok(length) => length.unwrap_or(Length::UntilClose),
            Err(BadFraming::Coding) => return Err(BadResponse::Coding),
            Err(BadFraming::Broken) => return Err(BadResponse::Framing),
        };
        if to.head || matches!(self.status, 100..200 | 204 | 304) {
            return Ok(Body::NONE);
        }
        let known = matches!(length, Length::Exact(_));
        let chunks = !known && to.minor > 0;
        let encoding = if chunks { Encoding::Chunked } else { Encoding::Identity };
        Ok(Body { length, encoding, closes: !known && !chunks, renamed: None })
    }

    /// Writes the head as the client is to see it: without what is between AEM and us, and without fields that hold what the
    /// request was sent with; how many those are is the answer. `close` when the connection ends with this answer.
    pub(super) fn write(
        &self,
        body: Body,
        to: AnswerTo<'_>,
        names: Option<&Names<'_>>,
        close: bool,
        out: &mut Buffer,
    ) -> usize {
        let status = [
            b'0' + (self.status / 100) as u8,
            b'0' + (self.status / 10 % 10) as u8,
            b'0' + (self.status % 10) as u8,
        ];
        out.push(b"HTTP/1.1 ");
        out.push(&status);
        out.push(b" ");
        let mut cut = 0;
        if to.withheld.is_in(self.reason.as_bytes()) {
            cut += 1;
        } else {
            out.push(self.reason.as_bytes());
        }
        out.push(b"\r\n");
        for (number, (header, field)) in self.fields.iter().zip(self.kinds).enumerate() {
            if self.named.get(number).copied().unwrap_or_default() {
                continue;
            }
            match *field {
                Field::AccessControl if to.web_origin.is_some() => {}
                Field::CacheControl if to.no_store => {}
                field if field.is_hop_by_hop() => {}
                _ if body.renamed.is_some() && is_of_bytes(header.name) => {}
                _ if to.withheld.is_in(header.value) => cut += 1,
                Field::OfHost => {}
                Field::SetCookie if session_cookies::sets_user(header.value) => {}
                field if field.names_upstream() => renamed(header, field, names, out),
                _ => line(header.name, header.value, out),
            }
        }
        self.write_in_place(to, out);
        // 1xx and 204 say nothing of a body, whatever was asked (RFC 9112, section 6.1; RFC 9110, section 8.6).
        let may_say = !matches!(self.status, 100..200 | 204);
        if body.encoding == Encoding::Chunked || (self.hop.is_coded() && to.head && to.minor > 0 && may_say) {
            out.push(b"transfer-encoding: chunked\r\n");
        } else if let (Some(said), true, false) = (self.hop.said(), may_say, body.renamed.is_some()) {
            number("content-length", said, out);
        }
        if let Some(Renamed::Whole(bytes)) = body.renamed {
            number("content-length", bytes, out);
        }
        if let Some(protocol) = self.protocol() {
            out.push(b"connection: upgrade\r\n");
            line("upgrade", protocol, out);
        } else {
            connection(to, close, out);
        }
        out.push(via(self.minor));
        out.push(b"\r\n");
        cut
    }

    /// What stands in place of AEM's own fields.
    fn write_in_place(&self, to: AnswerTo<'_>, out: &mut Buffer) {
        if let Some(origin) = to.web_origin {
            let all = self.fields.iter().zip(self.kinds);
            let passed = all.filter(|(_, field)| {
                !field.is_hop_by_hop() && !matches!(field, Field::AccessControl | Field::OfHost)
            });
            cors::answer(origin, passed.map(|(header, _)| header.name), out);
        }
        if to.no_store {
            out.push(b"cache-control: no-store\r\n");
        }
    }

    /// Writes an interim response, which has no framing and no connection of its own.
    pub(super) fn write_interim(
        &self,
        to: AnswerTo<'_>,
        names: Option<&Names<'_>>,
        out: &mut Buffer,
    ) -> usize {
        let AnswerTo { head, withheld, .. } = to;
        let to = AnswerTo { head, withheld, minor: 1, keep_alive: true, ..AnswerTo::default() };
        self.write(Body::NONE, to, names, false, out)
    }
}

/// The length of a head, its fields, and room for what they are and for which of them `Connection` names.
type Parsed<'h, 'b> = (usize, &'h [Header<'b>], &'h mut [Field], &'h mut [bool]);

/// Reads a head that has more fields than there is room for on the stack.
#[cold]
#[inline(never)]
fn parse_many_fields<'h, 'b>(
    bytes: &'b [u8],
    max: usize,
    heap: &'h mut Option<Box<HeapStorage<'b>>>,
) -> Result<Option<Parsed<'h, 'b>>, BadResponse> {
    let HeapStorage { fields, kinds, named } = &mut **heap.insert(HeapStorage::for_head(bytes, max));
    Ok(match parse_fields(bytes, fields)? {
        Status::Complete((head_bytes, fields)) => Some((head_bytes, fields, kinds, named)),
        Status::Partial => None,
    })
}

/// Whether a field is about the very bytes of a body: how they are coded, what their sum is, which of them may be had.
fn is_of_bytes(name: &str) -> bool {
    OF_BYTES.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// No coding that there is.
const SEVERAL: &[u8] = b",";

const OF_BYTES: [&str; 6] =
    ["content-encoding", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"];

/// A field that names AEM, with the client's name for it.
fn renamed(header: &Header<'_>, field: Field, names: Option<&Names<'_>>, out: &mut Buffer) {
    let Some(names) = names.filter(|names| names.changes(field, header.value)) else {
        return line(header.name, header.value, out);
    };
    if field == Field::ContentSecurityPolicy {
        let mut kept = Buffer::default();
        if rewrite::without_upgrade(header.value, &mut kept) {
            line(header.name, kept.filled(), out);
        }
        return;
    }
    out.push(header.name.as_bytes());
    out.push(b": ");
    names.field(field, header.value, out);
    out.push(b"\r\n");
}

/// What becomes of the connection, where that is not what the client's version takes for granted.
pub(super) fn connection(to: AnswerTo<'_>, close: bool, out: &mut Buffer) {
    if close || !to.keep_alive {
        out.push(b"connection: close\r\n");
    } else if to.minor == 0 {
        out.push(b"connection: keep-alive\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fields::storage, *};

    const GET: AnswerTo<'_> = AnswerTo {
        head: false,
        minor: 1,
        keep_alive: true,
        web_origin: None,
        no_store: false,
        interim: true,
        withheld: Withheld::NOTHING,
    };
    const HEAD: AnswerTo<'_> = AnswerTo { head: true, ..GET };
    const OLD: AnswerTo<'_> = AnswerTo { minor: 0, ..GET };

    #[track_caller]
    fn check(head: &str, to: AnswerTo<'_>, expected: &str, length: Length) {
        let text = format!("HTTP/1.1 {head}\r\n\r\n");
        let mut storage = storage();
        let head = ResponseHead::parse(text.as_bytes(), &mut storage).unwrap().unwrap();
        let body = head.body(to).unwrap();
        let mut out = Buffer::default();
        head.write(body, to, None, body.closes, &mut out);
        let expected = format!("HTTP/1.1 {expected}\r\nvia: 1.1 aem-auth-proxy\r\n\r\n");
        assert_eq!((std::str::from_utf8(out.filled()).unwrap(), body.length), (&*expected, length));
    }

    fn error(head: &str) -> BadResponse {
        let text = format!("HTTP/1.1 {head}\r\n\r\n");
        let mut storage = storage();
        match ResponseHead::parse(text.as_bytes(), &mut storage) {
            Ok(head) => head.unwrap().body(GET).unwrap_err(),
            Err(error) => error,
        }
    }

    #[test]
    fn a_length_passes_and_what_is_between_neighbours_does_not() {
        check(
            "200 Fine By Me\r\nConnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nETag: \"x\"\r\n\
             Content-Length: 2",
            GET,
            "200 Fine By Me\r\nETag: \"x\"\r\ncontent-length: 2",
            Length::Exact(2),
        );
    }

    #[test]
    fn a_body_of_unknown_length_is_chunked_for_those_who_know_chunks() {
        for head in ["200 OK", "200 OK\r\ntransfer-encoding: chunked"] {
            let length = if head.contains("chunked") { Length::Chunked } else { Length::UntilClose };
            check(head, GET, "200 OK\r\ntransfer-encoding: chunked", length);
            check(head, OLD, "200 OK\r\nconnection: close", length);
        }
    }

    #[test]
    fn answers_without_a_body_have_none() {
        let none = Length::Exact(0);
        check("200 OK\r\ncontent-length: 1234", HEAD, "200 OK\r\ncontent-length: 1234", none);
        check("200 OK\r\ntransfer-encoding: chunked", HEAD, "200 OK\r\ntransfer-encoding: chunked", none);
        check("304 Not Modified\r\ncontent-length: 77", GET, "304 Not Modified\r\ncontent-length: 77", none);
        check("204 No Content\r\ncontent-length: 0", GET, "204 No Content", none);
    }

    #[test]
    fn an_old_client_that_stays_is_told_that_it_may() {
        check(
            "200 OK\r\ncontent-length: 1",
            OLD,
            "200 OK\r\ncontent-length: 1\r\nconnection: keep-alive",
            Length::Exact(1),
        );
    }

    #[test]
    fn a_page_of_an_allowed_origin_reads_all_of_the_answer_whatever_aem_thinks_of_it() {
        let to = AnswerTo { web_origin: Some("http://localhost:3000"), ..GET };
        check(
            "204 No Content\r\nAccess-Control-Allow-Origin: https://other.example\r\nETag: \"x\"\r\nvary: Accept",
            to,
            "204 No Content\r\nETag: \"x\"\r\nvary: Accept\r\n\
             access-control-allow-origin: http://localhost:3000\r\naccess-control-allow-credentials: true\r\n\
             vary: Origin\r\naccess-control-expose-headers: ETag, vary",
            Length::Exact(0),
        );
        let own = "204 No Content\r\nAccess-Control-Allow-Origin: https://other.example";
        check(own, GET, own, Length::Exact(0));
    }

    #[test]
    fn what_no_cache_may_keep_says_so_once() {
        let to = AnswerTo { no_store: true, ..GET };
        let expected = "204 No Content\r\ncache-control: no-store";
        check("204 No Content", to, expected, Length::Exact(0));
        check("204 No Content\r\nCache-Control: max-age=60, public", to, expected, Length::Exact(0));
    }

    #[test]
    fn what_the_request_was_sent_with_does_not_come_back() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJjcmVhdGVkX2F0IjoiMSJ9.signature";
        let text = format!(
            "HTTP/1.1 302 {token}\r\nX-Debug: Bearer {token}\r\nLocation: https://aem.example/?t={token}#x\r\n\
             Set-Cookie: login-token={token}; Path=/\r\nX-Part: {}\r\nETag: \"x\"\r\ncontent-length: 0\r\n\r\n",
            &token[1..]
        );
        let mut storage = storage();
        let head = ResponseHead::parse(text.as_bytes(), &mut storage).unwrap().unwrap();
        let to = AnswerTo { withheld: Withheld::new(token.as_bytes()), ..GET };
        let rest = format!("X-Part: {}\r\nETag: \"x\"\r\n", &token[1..]);
        let mut out = Buffer::default();
        assert_eq!(head.write(Body::NONE, to, None, false, &mut out), 4);
        let expected = format!("HTTP/1.1 302 \r\n{rest}content-length: 0\r\nvia: 1.1 aem-auth-proxy\r\n\r\n");
        assert_eq!(std::str::from_utf8(out.filled()).unwrap(), expected);
        out.clear();
        assert_eq!(head.write_interim(to, None, &mut out), 4);
        assert!(!out.filled().windows(token.len()).any(|part| part == token.as_bytes()));
        assert_eq!(head.write(Body::NONE, GET, None, false, &mut out), 0);
    }

    #[test]
    fn what_cannot_be_framed_is_refused() {
        assert_eq!(error("200 OK\r\ntransfer-encoding: gzip, chunked"), BadResponse::Coding);
        assert_eq!(error("200 OK\r\ntransfer-encoding: gzip"), BadResponse::Framing);
        for contradictory in [
            "200 OK\r\ncontent-length: 1\r\ncontent-length: 2",
            "200 OK\r\ncontent-length: 1\r\ncontent-length: 1",
            "200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
            "200 OK\r\ncontent_length: 1",
            "204 No Content\r\ntransfer-encoding: chunked",
            "204 No Content\r\ncontent-length: 1",
            "103 Early Hints\r\ncontent-length: 1",
        ] {
            assert_eq!(error(contradictory), BadResponse::Framing, "{contradictory}");
        }
        assert_eq!(error("200 OK\r\nname : x"), BadResponse::Malformed(httparse::Error::HeaderName));
        assert_eq!(error("200 OK\nname: x"), BadResponse::Malformed(httparse::Error::NewLine));
        assert_eq!(error("099 No"), BadResponse::Status);
        for (bytes, refused) in
            [(&b"\r\nHTTP/1.1 200 OK\r\n\r\n"[..], true), (b"HTTP/1.1 200\n", true), (b"HTTP/1.1 ", false)]
        {
            assert_eq!(
                ResponseHead::parse(bytes, &mut storage()).is_err(),
                refused,
                "{}",
                bytes.escape_ascii()
            );
        }
    }
}
