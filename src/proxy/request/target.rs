//! What a request is for, byte for byte: the request line and its target (RFC 9112, section 3).

use std::str;

use super::{super::fields::is_token, NoRequest};

/// A request line.
pub(super) struct Line<'b> {
    pub method: &'b str,
    pub target: &'b [u8],
    /// The minor version: 0 or 1.
    pub minor: u8,
}

impl<'b> Line<'b> {
    /// A request line whose target is not UTF-8, and its length; `None` when its end has not come yet. httparse takes none,
    /// but Node sends what stands in a path as Latin-1, and curl as the terminal has it.
    ///
    /// # Errors
    /// For any other line.
    pub(super) fn of_other_bytes(bytes: &'b [u8]) -> Result<Option<(Self, usize)>, NoRequest> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let mut parts = bytes[..end.unwrap_or(bytes.len())].splitn(3, |byte| *byte == b' ');
        let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoRequest(400));
        };
        let is_target =
            target.iter().all(|byte| *byte > b' ' && *byte != 0x7f) && str::from_utf8(target).is_err();
        let method =
            str::from_utf8(method).ok().filter(|_| is_token(method) && is_target).ok_or(NoRequest(400))?;
        let minor = match (version.strip_suffix(b"\r").unwrap_or(version), end) {
            (b"HTTP/1.1", Some(_)) => 1,
            (b"HTTP/1.0", Some(_)) => 0,
            (begun, None) if b"HTTP/1.".starts_with(begun) || begun.starts_with(b"HTTP/1.") => {
                return Ok(None);
            }
            _ => return Err(NoRequest(400)),
        };
        Ok(end.map(|end| (Self { method, target, minor }, end + 1)))
    }
}

/// The authority of an absolute target.
pub(super) fn authority(target: &[u8]) -> Option<&[u8]> {
    absolute(target).map(|rest| &rest[..path_at(rest).unwrap_or(rest.len())])
}

/// Path and query, byte for byte; `*` stays. `None` for what is no target for a server, among them the authority form,
/// which is CONNECT's alone (RFC 9112, section 3.2), and a fragment, which is the client's own.
pub(in crate::proxy) fn origin_form(target: &[u8]) -> Option<&[u8]> {
    let form = match absolute(target) {
        Some(rest) => match path_at(rest) {
            Some(at) => &rest[at..],
            None => b"/",
        },
        None => target,
    };
    let begins = matches!(form.first(), Some(b'/' | b'?')) && form != b"?";
    let taken = (begins || target == b"*") && !form.contains(&b'#');
    taken.then_some(form)
}

/// What is behind the scheme of an absolute target.
fn absolute(target: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let begins = target.get(..scheme.len())?.eq_ignore_ascii_case(scheme);
        begins.then(|| &target[scheme.len()..])
    })
}

/// Where the path begins, or the query where there is none.
fn path_at(rest: &[u8]) -> Option<usize> {
    rest.iter().position(|byte| b"/?".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_target_becomes_path_and_query() {
        for (target, expected) in [
            (&b"/"[..], Some(&b"/"[..])),
            (b"/a//b;c?d=%2f|{}", Some(b"/a//b;c?d=%2f|{}")),
            (b"/caf\xe9?\xff", Some(b"/caf\xe9?\xff")),
            (b"*", Some(b"*")),
            (b"http://localhost/abs?x=1", Some(b"/abs?x=1")),
            (b"HTTP://localhost", Some(b"/")),
            (b"https://localhost?q=1", Some(b"?q=1")),
            (b"localhost:443", None),
            (b"ftp://localhost/", None),
            (b"/a#b", None),
            (b"?", None),
        ] {
            assert_eq!(origin_form(target), expected, "{}", target.escape_ascii());
        }
        assert_eq!(authority(b"http://evil.example/x"), Some(&b"evil.example"[..]));
        assert_eq!(authority(b"http://evil\xe9"), Some(&b"evil\xe9"[..]));
        assert_eq!(authority(b"/x?u=http://evil.example/"), None);
    }

    #[test]
    fn only_a_line_with_a_target_that_is_no_text_is_read_here() {
        let line = |text: &'static [u8]| Line::of_other_bytes(text);
        let (read, end) = line(b"GET /caf\xe9 HTTP/1.0\r\nhost: x\r\n").unwrap().unwrap();
        assert_eq!((read.method, read.target, read.minor, end), ("GET", &b"/caf\xe9"[..], 0, 20));
        for begun in [&b"GET /caf\xe9 "[..], b"GET /caf\xe9 HT", b"GET /caf\xe9 HTTP/1.1\r"] {
            assert!(line(begun).unwrap().is_none(), "{}", begun.escape_ascii());
        }
        for other in [
            &b"\x16\x03\x01\xe9 \xe9 "[..],
            b"GET /caf\xe9",
            b"GET /caf\xe9 FTP",
            b"GET /caf\xc3\xa9 HTTP/1.1\n",
            b"GET /caf\xe9 /x HTTP/1.1\n",
            b"GET  /caf\xe9 HTTP/1.1\n",
            b" /caf\xe9 HTTP/1.1\n",
            b"G\xe9T /caf\xe9 HTTP/1.1\n",
            b"GET /caf\xe9\x00 HTTP/1.1\n",
            b"GET /caf\xe9 HTTP/1.1\r\r\n",
            b"GET /caf\xe9 HTTP/2.0\n",
            b"GET /caf\xe9\n",
        ] {
            assert!(line(other).is_err(), "{}", other.escape_ascii());
        }
    }
}
