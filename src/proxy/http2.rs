//! HTTP/2 on both sides of an engine that speaks HTTP/1.1.
//!
//! To AEM a [`Stream`] of a connection that requests share stands in the place of a connection of their own; from a client
//! each stream is served as a connection with one request. What the engine writes and reads stays HTTP/1.1: so the guard, the
//! routes and the token are the same for all, and there is one place for each of them.

mod channel;
mod connection;
mod flow;
mod frames;
mod heads;
mod inbound;
mod pool;
mod serve;
mod stream;

pub(super) use self::{
    inbound::Inbound,
    pool::Shared,
    serve::{Beginning, serve},
    stream::Stream,
};

/// What AEM may choose of in the TLS handshake (RFC 7301; RFC 9113, section 3.2).
pub(super) const OFFERED: [&[u8]; 2] = [HTTP_2, b"http/1.1"];

/// The name of HTTP/2 over TLS.
pub(super) const HTTP_2: &[u8] = b"h2";

/// Whether a request with this head could go over HTTP/2 byte for byte: `http::Uri` takes no target with one of these, and
/// none that is not UTF-8.
pub(super) fn carries(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    !line.iter().any(|byte| matches!(byte, b'<' | b'>' | b'`' | b'"')) && std::str::from_utf8(line).is_ok()
}

/// As much of a stream's outgoing body as is kept until the connection takes it.
const SEND_BUFFER: usize = 64 * 1024;

fn io_error(error: h2::Error) -> std::io::Error {
    let kind = error.get_io().map_or(std::io::ErrorKind::ConnectionReset, std::io::Error::kind);
    std::io::Error::new(kind, error)
}
