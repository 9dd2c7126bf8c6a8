//! What a request is for, byte for byte: the request line and its target (RFC 9112, section 3).

use std::str;

use memchr::{memchr, memchr2, memrchr};

use super::{super::fields::is_token, NoRequest};

/// A request line.
pub(super) struct Line<'b> {
    pub method: &'b str,
    pub target: &'b [u8],
    /// The minor version: 0 or 1.
    pub minor: u8,
}

impl<'b> Line<'b> {
    /// A request line as httparse has read it.
    ///
    /// # Errors
    /// When it was not read whole.
    #[inline(always)]
    pub(super) fn of_parsed(
        method: Option<&'b str>,
        target: Option<&'b str>,
        minor: Option<u8>,
    ) -> Result<Self, NoRequest> {
        let (Some(method), Some(target), Some(minor)) = (method, target, minor) else {
            return Err(NoRequest::Malformed);
        };
        Ok(Self { method, target: target.as_bytes(), minor })
    }

    /// A request line whose target is not UTF-8; `None` when its end has not come yet. httparse takes none,
    /// but Node sends what stands in a path as Latin-1, and curl as the terminal has it.
    ///
    /// # Errors
    /// For any other line.
    pub(super) fn of_other_bytes(bytes: &'b [u8]) -> Result<Option<Self>, NoRequest> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let mut parts = bytes[..end.unwrap_or(bytes.len())].splitn(3, |byte| *byte == b' ');
        let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoRequest::Malformed);
        };
        let is_target =
            target.iter().all(|byte| *byte > b' ' && *byte != 0x7f) && str::from_utf8(target).is_err();
        let method = str::from_utf8(method).ok().filter(|_| is_token(method) && is_target);
        let method = method.ok_or(NoRequest::Malformed)?;
        let minor = match (version.strip_suffix(b"\r").unwrap_or(version), end) {
            (b"HTTP/1.1", Some(_)) => 1,
            (b"HTTP/1.0", Some(_)) => 0,
            (begun, None) if b"HTTP/1.".starts_with(begun) || begun.starts_with(b"HTTP/1.") => {
                return Ok(None);
            }
            _ => return other_version(bytes),
        };
        Ok(end.map(|_| Self { method, target, minor }))
    }
}

/// The authority of an absolute target.
pub(super) fn authority(target: &[u8]) -> Option<&[u8]> {
    absolute(target).map(|rest| &rest[..path_at(rest).unwrap_or(rest.len())])
}

/// What becomes of a request line whose version is not one of ours: `None` while it may still become one (RFC 9112, section 2.3).
///
/// # Errors
/// Once it cannot.
pub(super) fn other_version<T>(bytes: &[u8]) -> Result<Option<T>, NoRequest> {
    let end = memchr(b'\n', bytes);
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let version = &line[memrchr(b' ', line).map_or(0, |at| at + 1)..];
    let fits = |(pattern, byte): (&u8, &u8)| pattern == byte || (*pattern == b'0' && byte.is_ascii_digit());
    let is_version = VERSION.iter().zip(version).all(fits);
    match end {
        Some(_) if is_version && version.len() == VERSION.len() => Err(NoRequest::Version),
        None if is_version && version.len() <= VERSION.len() => Ok(None),
        _ => Err(NoRequest::Malformed),
    }
}

/// A version, with its line end; `0` is any digit.
const VERSION: &[u8] = b"HTTP/0.0\r";

/// Path and query of the target, byte for byte; `*` stays. `None` for what is no target of this method: the authority form is
/// CONNECT's alone, and `*` that of OPTIONS (RFC 9112, section 3.2).
pub(super) fn form_for<'b>(method: &str, target: &'b [u8]) -> Option<&'b [u8]> {
    if method == "CONNECT" {
        return is_authority(target).then_some(target);
    }
    if target == b"*" {
        return (method == "OPTIONS").then_some(target);
    }
    let form = match absolute(target) {
        Some(rest) => match path_at(rest) {
            Some(at) => &rest[at..],
            None => b"/",
        },
        None if target.starts_with(b"/") => target,
        None => return None,
    };
    // A fragment is the client's own.
    (memchr(b'#', target).is_none()).then_some(form)
}

/// Host and port.
fn is_authority(target: &[u8]) -> bool {
    let Some(colon) = memrchr(b':', target) else { return false };
    let (host, port) = (&target[..colon], &target[colon + 1..]);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
    !host.is_empty() && host.iter().all(plain) && !port.is_empty() && port.iter().all(u8::is_ascii_digit)
}

/// What is behind the scheme of an absolute target. A resource of `https` is not to be had over a connection that is not
/// secured (RFC 9110, section 7.4).
fn absolute(target: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = target.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(rest)
}

const SCHEME: &[u8] = b"http://";

/// Where the path begins, or the query where there is none.
fn path_at(rest: &[u8]) -> Option<usize> {
    memchr2(b'/', b'?', rest)
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
            (b"http://localhost/abs?x=1", Some(b"/abs?x=1")),
            (b"HTTP://localhost", Some(b"/")),
            (b"http://localhost?q=1", Some(b"?q=1")),
            (b"https://localhost/", None),
            (b"http:/localhost/", None),
            (b"http:", None),
            (b"localhost:443", None),
            (b"ftp://localhost/", None),
            (b"/a#b", None),
            (b"http://localhost#b", None),
            (b"?", None),
            (b"?q=1", None),
            (b"a", None),
            (b"*", None),
            (b"*/", None),
        ] {
            assert_eq!(form_for("GET", target), expected, "{}", target.escape_ascii());
        }
        assert_eq!(form_for("OPTIONS", b"*"), Some(&b"*"[..]));
        for (target, is_one) in [
            (&b"localhost:443"[..], true),
            (b"[::1]:443", true),
            (b"localhost", false),
            (b"localhost:", false),
            (b":443", false),
            (b"/", false),
            (b"*", false),
            (b"http://localhost:443", false),
            (b"user@localhost:443", false),
        ] {
            assert_eq!(form_for("CONNECT", target).is_some(), is_one, "{}", target.escape_ascii());
        }
        assert_eq!(authority(b"http://evil.example/x"), Some(&b"evil.example"[..]));
        assert_eq!(authority(b"http://evil\xe9"), Some(&b"evil\xe9"[..]));
        assert_eq!(authority(b"/x?u=http://evil.example/"), None);
    }

    #[test]
    fn only_a_line_with_a_target_that_is_no_text_is_read_here() {
        let line = |text: &'static [u8]| Line::of_other_bytes(text);
        let read = line(b"GET /caf\xe9 HTTP/1.0\r\nhost: x\r\n").unwrap().unwrap();
        assert_eq!((read.method, read.target, read.minor), ("GET", &b"/caf\xe9"[..], 0));
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

    #[test]
    fn another_version_is_told_from_none_at_all_once_the_line_is_there() {
        for (line, expected) in [
            (&b"GET / HTTP/2.0\r\n"[..], Err(NoRequest::Version)),
            (b"GET / HTTP/0.9\r\n", Err(NoRequest::Version)),
            (b"GET / HTTP/1.2\r\nhost: x\r\n", Err(NoRequest::Version)),
            (b"GET / HTTP/2", Ok(None)),
            (b"GET / HTTP/2.0\r", Ok(None)),
            (b"GET / HTTP/2.0\n", Err(NoRequest::Malformed)),
            (b"GET / HTTP/2.0 \r\n", Err(NoRequest::Malformed)),
            (b"GET / HTTP/2.0x", Err(NoRequest::Malformed)),
            (b"GET / HTTP/11.1\r\n", Err(NoRequest::Malformed)),
            (b"GET / http/1.1\r\n", Err(NoRequest::Malformed)),
            (b"GET / HTTP/\r\n", Err(NoRequest::Malformed)),
            (b"GET / h", Err(NoRequest::Malformed)),
        ] {
            assert_eq!(other_version::<()>(line), expected, "{}", line.escape_ascii());
        }
    }
}
