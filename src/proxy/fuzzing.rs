//! Heads, bodies and links without sockets, for [`crate::fuzzing`].

use std::{rc::Rc, sync::Arc};

use http::HeaderName;
use url::Url;

use super::{
    buffer::Buffer,
    fields::storage,
    framing::{Decoder, Encoding, Length},
    guard::{Guard, Local},
    request::{Added, RequestHead},
    response::{AnswerTo, Body, Renamed, ResponseHead},
    rewrite::{Links, Members, Names, Origin},
    trailers,
    withheld::Withheld,
};
use crate::secret::{SecretString, is_field_value};

/// What became of a request's head.
pub struct Forwarded {
    /// So many bytes were the head.
    pub bytes: usize,
    /// Whether the guard of a listener without further names lets it in.
    pub admitted: bool,
    /// How it is framed.
    pub framed: Framed,
    /// As AEM gets it.
    pub written: Vec<u8>,
    /// The same once more, for another credential.
    pub again: Vec<u8>,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framed {
    /// After so many bytes.
    Exact(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

impl From<Length> for Framed {
    fn from(length: Length) -> Self {
        match length {
            Length::Exact(bytes) => Self::Exact(bytes),
            Length::Chunked => Self::Chunked,
            Length::UntilClose => Self::UntilClose,
        }
    }
}

/// What a request gets beside its own.
#[derive(Clone, Copy)]
pub struct Route<'a> {
    /// AEM's authority.
    pub host: &'a str,
    /// `Authorization`, and that of the second attempt.
    pub authorization: [&'a str; 2],
    /// A field that stands in place of the client's.
    pub field: (&'a str, &'a str),
    /// `X-Api-Key`, unless the client sends one.
    pub api_key: &'a str,
}

/// Reads a request's head and writes it for AEM. `None` when its end has not come.
///
/// # Errors
/// The status, when it is no request.
pub fn forwarded(bytes: &[u8], route: Route<'_>) -> Result<Option<Forwarded>, u16> {
    let mut storage = storage();
    let Some(head) = RequestHead::parse(bytes, &mut storage).map_err(|refused| refused.status().as_u16())?
    else {
        return Ok(None);
    };
    let guard = Guard::new(&[], &[]);
    let origin = format!("https://{}", route.host);
    let field = [field(route.field)];
    let added = |authorization| Added {
        host: route.host.as_bytes(),
        origin: origin.as_bytes(),
        guard: Some(&guard),
        codings: Some(b"gzip, deflate"),
        authorization: Some(authorization),
        fields: &field,
        unless_sent: [("x-api-key", Some(route.api_key.as_bytes())), ("x-gw-ims-org-id", None)],
        ..Added::default()
    };
    let length = head.length();
    let (mut out, mut again) = (Buffer::default(), Buffer::default());
    let [first, second] = route.authorization.map(str::as_bytes);
    let mut identity = head.write(&added(first), length, &mut out);
    added(second).rewrite(out.filled(), &mut identity, &mut again);
    Ok(Some(Forwarded {
        bytes: head.bytes,
        admitted: guard.admit(&head.asked, Local::Unknown).is_ok(),
        framed: length.into(),
        written: out.filled().to_vec(),
        again: again.filled().to_vec(),
    }))
}

fn field((name, value): (&str, &str)) -> (HeaderName, SecretString) {
    let name = HeaderName::from_bytes(name.as_bytes()).unwrap_or(HeaderName::from_static("x-none"));
    (name, SecretString::from(if is_field_value(value) { value } else { "" }))
}

/// To what an answer is one.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// A HEAD.
    pub head: bool,
    /// The client's minor version.
    pub minor: u8,
    /// The client keeps the connection.
    pub keep_alive: bool,
    /// The web origin that asks.
    pub web_origin: Option<&'a str>,
    /// The body is renamed while it streams, if there is one.
    pub renamed: bool,
    /// AEM.
    pub upstream: &'a str,
    /// The proxy, as the client calls it.
    pub local: &'a str,
}

/// What became of a response's head.
pub struct Answered {
    /// So many bytes were the head.
    pub bytes: usize,
    /// The status.
    pub status: u16,
    /// How AEM frames the body.
    pub framed: Framed,
    /// The body goes to the client in chunks.
    pub chunked: bool,
    /// The client's connection ends with it.
    pub closes: bool,
    /// Other bytes go to the client than come from AEM.
    pub renamed: bool,
    /// As the client gets it.
    pub written: Vec<u8>,
}

/// Reads a response's head and writes it for the client. `None` when its end has not come.
///
/// # Errors
/// Why it is not one that is passed on.
pub fn answered(bytes: &[u8], question: Question<'_>) -> Result<Option<Answered>, String> {
    let mut storage = storage();
    let Some(head) = ResponseHead::parse(bytes, &mut storage).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let to = AnswerTo {
        head: question.head,
        minor: question.minor,
        keep_alive: question.keep_alive,
        web_origin: question.web_origin,
        no_store: false,
        interim: true,
        withheld: Withheld::NOTHING,
    };
    let mut body = head.body(to).map_err(|error| error.to_string())?;
    if question.renamed && body != Body::NONE {
        body = body.renamed(Renamed::Streams, to);
    }
    let origin = Arc::new(origin(question.upstream));
    let names = Names { origin: &origin, local: Rc::from(question.local.as_bytes()) };
    let mut out = Buffer::default();
    head.write(body, to, Some(&names), body.closes, &mut out);
    Ok(Some(Answered {
        bytes: head.bytes,
        status: head.status,
        framed: body.length.into(),
        chunked: body.encoding == Encoding::Chunked,
        closes: body.closes,
        renamed: body.renamed.is_some(),
        written: out.filled().to_vec(),
    }))
}

/// The fields behind a client's chunked body, as they go on.
pub fn trailers(lines: &[u8]) -> Vec<u8> {
    trailers::trailers(lines, trailers::Behind::Request, Withheld::NOTHING).0
}

/// A chunked body without its chunks.
#[derive(Debug, PartialEq, Eq)]
pub struct Unchunked {
    /// What was in the chunks.
    pub data: Vec<u8>,
    /// So many of the bytes that came were the body.
    pub used: usize,
    /// The fields behind it, once its end has come.
    pub trailers: Option<Vec<u8>>,
}

/// Takes chunks apart that come in `pieces`; `None` where they are no chunks.
pub fn unchunked<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Option<Unchunked> {
    let mut decoder = Decoder::new(Length::Chunked, TRAILERS_MAX);
    let (mut data, mut used) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() && !decoder.is_done() {
            let (taken, found) = decoder.decode(&piece[at..]).ok()?;
            data.extend_from_slice(found);
            at += taken;
        }
        used += at;
    }
    let trailers = decoder.is_done().then(|| decoder.trailers().to_vec());
    Some(Unchunked { data, used, trailers })
}

/// Renames AEM's URLs in the JSON that answers a request for `path`, and comes in `pieces`.
pub fn renamed<'p>(
    path: &str,
    (upstream, local): (&str, &str),
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Vec<u8> {
    let members = Members::of(path.as_bytes(), true);
    let mut links = Links::new(members, Arc::new(origin(upstream)), local.as_bytes());
    let mut renamed = Vec::new();
    let mut out = |bytes: &[u8]| renamed.extend_from_slice(bytes);
    for piece in pieces {
        links.push(piece, &mut out);
    }
    links.end(&mut out);
    renamed
}

/// Whether AEM's host stands in `data`: where it does not, nothing is to be renamed.
pub fn names(upstream: &str, data: &[u8]) -> bool {
    origin(upstream).occurs_in(data)
}

fn origin(url: &str) -> Origin {
    let url = Url::parse(url);
    Origin::new(&url.unwrap_or_else(|_| unreachable!("the callers' own")))
}

const TRAILERS_MAX: usize = 16 * 1024;
