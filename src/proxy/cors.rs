//! What browsers ask before a page of another origin may read an answer (the Fetch standard, "CORS protocol"). AEM does not
//! know the pages that are allowed here; whether it would let them in does not matter.

use super::buffer::Buffer;

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
