//! What browsers ask before a page of another origin may read an answer (the Fetch standard, "CORS protocol"). AEM does not
//! know the pages that are allowed here; whether it would let them in does not matter.

use super::{
    buffer::Buffer,
    fields::{is_token, members},
    request::{RequestHead, line},
    response::{AnswerTo, connection},
};
use crate::clock::Clock;

/// The answer to a browser that asks whether a page may send a request: it may, as an allowed origin may send all. AEM is not
/// asked, and no token is needed.
#[derive(Debug)]
pub(super) struct Preflight(Vec<u8>);

impl Preflight {
    /// The answer for a page of `origin`, if this is such a question.
    pub(super) fn of(head: &RequestHead<'_, '_>, origin: &str) -> Option<Self> {
        let method = head.field("access-control-request-method").filter(|_| head.method == "OPTIONS")?;
        let mut fields = Buffer::default();
        allow(origin, &mut fields);
        if is_token(method) {
            line("access-control-allow-methods", method, &mut fields);
        }
        // No longer than the question, for which `limits.head` is the limit.
        if let Some(names) = head.field("access-control-request-headers")
            && members(names).all(is_token)
        {
            line("access-control-allow-headers", names, &mut fields);
        }
        if head.field("access-control-request-private-network").is_some_and(|value| value == b"true") {
            fields.push(b"access-control-allow-private-network: true\r\n");
        }
        Some(Self(fields.filled().to_vec()))
    }

    /// Writes the answer; tells its status, and whether the connection is to end with it. It has no body, and so no length (RFC 9110, section 8.6).
    pub(super) fn write(&self, to: AnswerTo<'_>, close: bool, out: &mut Buffer) -> (u16, bool) {
        out.push(b"HTTP/1.1 204 No Content\r\n");
        line("date", httpdate::fmt_http_date(Clock::system().now()).as_bytes(), out);
        out.push(&self.0);
        line("access-control-max-age", MAX_AGE, out);
        line("vary", VARY, out);
        connection(to, close, out);
        out.push(b"\r\n");
        (204, close)
    }
}

/// Lets a page of `origin` read an answer whose fields are called `fields`: all of them, as one of AEM's own would.
pub(super) fn answer<'n>(origin: &str, fields: impl IntoIterator<Item = &'n str>, out: &mut Buffer) {
    allow(origin, out);
    out.push(b"vary: Origin\r\naccess-control-expose-headers: ");
    for (at, name) in fields.into_iter().enumerate() {
        if at > 0 {
            out.push(b", ");
        }
        out.push(name.as_bytes());
    }
    out.push(b"\r\n");
}

/// Cookies are allowed too: the one of sticky routing has to come back. With them, `*` stands for nothing.
fn allow(origin: &str, out: &mut Buffer) {
    out.push(b"access-control-allow-origin: ");
    out.push(origin.as_bytes());
    out.push(b"\r\naccess-control-allow-credentials: true\r\n");
}

/// Seconds for which a browser does not ask again. Browsers have limits of their own; the proxy may be started with other
/// origins sooner.
const MAX_AGE: &[u8] = b"600";

const VARY: &[u8] = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
