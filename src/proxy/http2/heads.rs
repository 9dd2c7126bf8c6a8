//! Heads and trailers from one version of HTTP to the other (RFC 9113, section 8.3).

use std::mem::MaybeUninit;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request,
    uri::{Authority, PathAndQuery, Scheme},
};
use httparse::{Header, Status};

use crate::proxy::{
    buffer::Buffer,
    fields::{FIELDS_ON_STACK, Field, TRAILERS_MAX, fields_for, parse_fields},
    framing::Length,
    request::line,
};

/// What cannot be said in the other version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the head cannot be said in the other version of HTTP")]
pub(super) struct Unsayable;

impl From<Unsayable> for std::io::Error {
    fn from(error: Unsayable) -> Self {
        Self::new(std::io::ErrorKind::InvalidInput, error)
    }
}

/// A head and its body's length, and how many bytes it took.
pub(super) struct Taken<T> {
    pub head: T,
    pub length: Length,
    pub bytes: usize,
}

/// A request's head, for AEM, from the bytes of one that the engine wrote. It has more fields than the client sent, and is
/// bounded by what the engine reads.
///
/// # Errors
/// When it is not whole, or not such a head.
pub(super) fn request(bytes: &[u8]) -> Result<Taken<Request<()>>, Unsayable> {
    let mut room = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
    let mut more;
    let mut head = httparse::Request::new(&mut []);
    let (bytes, parsed) = match head.parse_with_uninit_headers(bytes, &mut room) {
        Ok(Status::Complete(bytes)) => (bytes, &*head.headers),
        Err(httparse::Error::TooManyHeaders) => {
            more = fields_for(bytes, usize::MAX);
            let Ok(Status::Complete(parsed)) = parse_fields(bytes, &mut more) else { return Err(Unsayable) };
            parsed
        }
        _ => return Err(Unsayable),
    };
    let (method, target) = (head.method.ok_or(Unsayable)?, head.path.ok_or(Unsayable)?);
    let (mut host, mut length) = (None, Length::Exact(0));
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        match Field::of(field.name) {
            Field::Host => host = Some(Authority::try_from(field.value).map_err(|_| Unsayable)?),
            Field::TransferEncoding => length = Length::Chunked,
            Field::ContentLength => {
                length = Length::Exact(decimal(field.value)?);
                add(field, &mut fields)?;
            }
            Field::Te => add(field, &mut fields)?,
            // RFC 9113, section 8.2.2.
            kind if kind.is_hop_by_hop() => {}
            // Never in the table that both sides keep (RFC 7541, section 7.1.3).
            Field::Authorization => {
                let mut value = HeaderValue::from_bytes(field.value).map_err(|_| Unsayable)?;
                value.set_sensitive(true);
                fields.append(header::AUTHORIZATION, value);
            }
            _ => add(field, &mut fields)?,
        }
    }
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = host;
    uri.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| Unsayable)?);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| Unsayable)?;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Unsayable)?;
    *request.headers_mut() = fields;
    Ok(Taken { head: request, length, bytes })
}

/// Writes AEM's response as the engine reads it. `body` is whether one may follow; the answer is whether it comes in chunks.
pub(super) fn write_response(status: StatusCode, fields: &HeaderMap, body: bool, out: &mut Buffer) -> bool {
    out.push(b"HTTP/1.1 ");
    out.push(status.as_str().as_bytes());
    out.push(b" ");
    out.push(status.canonical_reason().unwrap_or_default().as_bytes());
    out.push(b"\r\n");
    write_fields(fields, out);
    let chunked = body && !fields.contains_key(header::CONTENT_LENGTH);
    if chunked {
        out.push(b"transfer-encoding: chunked\r\n");
    }
    out.push(b"\r\n");
    chunked
}

/// Writes a client's request as the engine reads it: with one request on its connection. The answer is whether its body comes
/// in chunks.
pub(super) fn write_request(head: &request::Parts, body: bool, out: &mut Buffer) -> bool {
    let target = head.uri.path_and_query().map(PathAndQuery::as_str);
    let authority = head.uri.authority().map(Authority::as_str);
    // A few bytes of HPACK may stand for a head of any size: it gets its memory at once, since memory that grows leaves gaps.
    let fields: usize =
        head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + LINE).sum();
    let lengths = [target, authority, authority].map(|part| part.map_or(0, str::len));
    out.room(fields + lengths.iter().sum::<usize>() + head.method.as_str().len() + FRAME);
    out.push(head.method.as_str().as_bytes());
    out.push(b" ");
    if let (Some(scheme), Some(authority)) = (head.uri.scheme().filter(|own| !is_http(own)), authority) {
        // The engine refuses that. `https` is what somebody before us may have taken off.
        [scheme.as_str(), "://", authority].into_iter().for_each(|part| out.push(part.as_bytes()));
    }
    out.push(if head.method == Method::CONNECT { authority } else { target }.unwrap_or("/").as_bytes());
    out.push(b" HTTP/1.1\r\n");
    if let Some(authority) = authority {
        line("host", authority.as_bytes(), out);
    }
    for (name, value) in &head.headers {
        // One that says the same is superfluous, any other makes two (RFC 9113, section 8.3.1).
        let again = *name == header::HOST && authority.is_some_and(|authority| authority == value);
        if *name != header::COOKIE && !again {
            line(name.as_str(), value.as_bytes(), out);
        }
    }
    // HTTP/2 may cut it in pieces (RFC 9113, section 8.2.3).
    let cookies: Vec<_> = head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if !cookies.is_empty() {
        line("cookie", &cookies.join(&b"; "[..]), out);
    }
    let chunked = body && !head.headers.contains_key(header::CONTENT_LENGTH);
    if chunked {
        out.push(b"transfer-encoding: chunked\r\n");
    }
    out.push(b"connection: close\r\n\r\n");
    chunked
}

/// What a field's line has in addition to name and value.
const LINE: usize = 4;

/// What a request's head has in addition to its target, authority and fields.
const FRAME: usize = 128;

fn is_http(scheme: &Scheme) -> bool {
    *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS
}

/// A response's head, for a client, from the bytes of one that the engine wrote; `None` when its end has not come yet. `asked`
/// is the request's method.
///
/// # Errors
/// When it is not such a head.
pub(super) fn response(bytes: &[u8], asked: &Method) -> Result<Option<Taken<Response<()>>>, Unsayable> {
    let mut room = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
    let mut more;
    let mut head = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = match config.parse_response_with_uninit_headers(&mut head, bytes, &mut room) {
        Ok(Status::Complete(bytes)) => Ok(Status::Complete((bytes, &*head.headers))),
        Ok(Status::Partial) => Ok(Status::Partial),
        Err(httparse::Error::TooManyHeaders) => {
            more = fields_for(bytes, usize::MAX);
            parse_fields(bytes, &mut more)
        }
        Err(error) => Err(error),
    };
    let (bytes, parsed) = match parsed {
        Ok(Status::Complete(parsed)) => parsed,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(Unsayable),
    };
    let status = head.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Unsayable)?;
    let mut length = Length::UntilClose;
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        match Field::of(field.name) {
            Field::TransferEncoding => length = Length::Chunked,
            Field::ContentLength => {
                length = Length::Exact(decimal(field.value)?);
                add(field, &mut fields)?;
            }
            kind if kind.is_hop_by_hop() => {}
            _ => add(field, &mut fields)?,
        }
    }
    if asked == Method::HEAD || matches!(status.as_u16(), 100..200 | 204 | 304) {
        length = Length::Exact(0);
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    Ok(Some(Taken { head: response, length, bytes }))
}

/// Writes fields as lines.
pub(super) fn write_fields(fields: &HeaderMap, out: &mut Buffer) {
    for (name, value) in fields {
        line(name.as_str(), value.as_bytes(), out);
    }
}

/// Writes the end of a body in chunks, with what stands behind it.
pub(super) fn write_trailers(fields: Option<&HeaderMap>, out: &mut Buffer) {
    out.push(b"0\r\n");
    if let Some(fields) = fields {
        write_fields(fields, out);
    }
    out.push(b"\r\n");
}

/// The fields behind a body in chunks: lines, and the empty one.
///
/// # Errors
/// When they are none.
pub(super) fn trailers(lines: &[u8]) -> Result<HeaderMap, Unsayable> {
    let mut storage = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    let Ok(Status::Complete((_, fields))) = httparse::parse_headers(lines, &mut storage) else {
        return Err(Unsayable);
    };
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        add(field, &mut map)?;
    }
    Ok(map)
}

fn add(field: &Header<'_>, fields: &mut HeaderMap) -> Result<(), Unsayable> {
    let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Unsayable)?;
    let value = HeaderValue::from_bytes(field.value).map_err(|_| Unsayable)?;
    fields.try_append(name, value).map_err(|_| Unsayable)?;
    Ok(())
}

fn decimal(digits: &[u8]) -> Result<u64, Unsayable> {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Unsayable)
}
