//! URLs in head fields.

use memchr::{memchr, memchr2};

use super::{Origin, strip};
use crate::{proxy::buffer::Buffer, steps};

/// `Location` or `Content-Location` as the client is to see it, at the end of `out`: with `local`, which is
/// `scheme://authority` as the client named the proxy, in place of AEM's origin.
pub(in crate::proxy) fn location(value: &[u8], origin: &Origin, local: &[u8], out: &mut Buffer) {
    if let Some(rest) = origin.rest_loosely(value) {
        out.push(local);
        out.push(rest);
    } else {
        out.push(value);
    }
}

/// `Link`: the targets of all its links, and the anchors, which are their contexts (RFC 8288, section 3).
pub(in crate::proxy) fn link(value: &[u8], origin: &Origin, local: &[u8], out: &mut Buffer) {
    let mut rest = value;
    while let Some(opening) = memchr2(b'<', b'"', rest) {
        steps::add(2 * (opening + 1));
        let (before, inside) = rest.split_at(opening + 1);
        out.push(before);
        let is_target = rest[opening] == b'<';
        let end = if is_target { memchr(b'>', inside).unwrap_or(inside.len()) } else { quoted(inside) };
        steps::add(end);
        let (text, after) = inside.split_at(end);
        if is_target || is_anchor(before) {
            location(text, origin, local, out);
        } else {
            out.push(text);
        }
        let (closing, after) = after.split_at(after.len().min(1));
        out.push(closing);
        rest = after;
    }
    out.push(rest);
}

/// `Refresh`, which has no RFC: the HTML Standard's "shared declarative refresh steps" say how it is read.
pub(in crate::proxy) fn refresh(value: &[u8], origin: &Origin, local: &[u8], out: &mut Buffer) {
    let url = behind(behind(value, |byte| byte.is_ascii_digit() || byte == b'.'), |byte| {
        byte == b';' || byte == b',' || byte.is_ascii_whitespace()
    });
    let assigned = strip(url, b"url").and_then(|rest| rest.trim_ascii_start().strip_prefix(b"="));
    let url = assigned.unwrap_or(url).trim_ascii_start();
    let (url, quote) = match url.split_first() {
        Some((quote @ (b'"' | b'\''), url)) => (url, memchr(*quote, url)),
        _ => (url, None),
    };
    let start = value.len() - url.len();
    let end = start + quote.unwrap_or(url.trim_ascii_end().len());
    out.push(&value[..start]);
    location(&value[start..end], origin, local, out);
    out.push(&value[end..]);
}

/// A URL that a client sends, as AEM is to see it: `Referer` and `Origin`, by which AEM's referrer filter knows its own
/// pages, and `X-Destination` and `Destination` of `COPY` and `MOVE`.
///
/// Where it is absolute and begins with an origin that `is_local` knows as the proxy's, `upstream` comes in that one's
/// place.
pub(in crate::proxy) fn to_upstream(
    value: &[u8],
    upstream: &[u8],
    is_local: impl Fn(&[u8]) -> bool,
    out: &mut Buffer,
) {
    let origin = local_origin(value).filter(|origin| is_local(origin)).unwrap_or_default();
    if !origin.is_empty() {
        out.push(upstream);
    }
    out.push(&value[origin.len()..]);
}

/// `scheme://authority` at the beginning of a URL. None where the authority is not a plain host with its port: what stands
/// before an `@`, or before a backslash, is not the host to everybody.
fn local_origin(value: &[u8]) -> Option<&[u8]> {
    steps::over(value);
    let rest = strip(value, b"http://").or_else(|| strip(value, b"https://"))?;
    let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
    (end > 0 && rest[..end].iter().all(plain)).then(|| &value[..value.len() - rest.len() + end])
}

/// The length of a quoted string whose opening quote is gone (RFC 9110, section 5.6.4).
fn quoted(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += found;
        if text[at] == b'"' {
            return at;
        }
        at += 2;
    }
    text.len()
}

/// Whether the quoted string that opens at the end of `before` is an anchor.
fn is_anchor(before: &[u8]) -> bool {
    let parameter = before.rsplit(|byte| *byte == b';').next().unwrap_or_default();
    let name = parameter.strip_suffix(b"\"").and_then(|rest| rest.trim_ascii_end().strip_suffix(b"="));
    name.is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"anchor"))
}

fn behind(text: &[u8], skipped: impl Fn(u8) -> bool) -> &[u8] {
    let start = text.iter().position(|byte| !skipped(*byte)).unwrap_or(text.len());
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::{super::tests::origin, *};

    const LOCAL: &[u8] = b"http://localhost:8080";

    #[track_caller]
    fn check(rule: fn(&[u8], &Origin, &[u8], &mut Buffer), value: &str, expected: &str) {
        let mut out = Buffer::default();
        rule(value.as_bytes(), &origin("https://aem.example"), LOCAL, &mut out);
        assert_eq!(String::from_utf8_lossy(out.filled()), expected, "{value}");
    }

    #[test]
    fn a_location_at_aem_becomes_local() {
        for (value, expected) in [
            ("https://aem.example/a?b#c", "http://localhost:8080/a?b#c"),
            ("https://aem.example", "http://localhost:8080"),
            ("//aem.example/a", "http://localhost:8080/a"),
            ("http://aem.example/a", "http://localhost:8080/a"),
            ("/libs/granite/core/content/login.html", "/libs/granite/core/content/login.html"),
            ("", ""),
            (
                "https://other.example/?u=https://aem.example/",
                "https://other.example/?u=https://aem.example/",
            ),
            ("https://aem.example.evil.com/", "https://aem.example.evil.com/"),
            ("https://aem.example/\u{e9}", "http://localhost:8080/\u{e9}"),
        ] {
            check(location, value, expected);
        }
    }

    #[test]
    fn every_target_and_anchor_of_links_becomes_local() {
        for (value, expected) in [
            ("<https://aem.example/a>; rel=next", "<http://localhost:8080/a>; rel=next"),
            (
                "<https://aem.example/a,b>; rel=\"next\" , </c>, <https://other.example/>,<//aem.example>",
                "<http://localhost:8080/a,b>; rel=\"next\" , </c>, <https://other.example/>,<http://localhost:8080>",
            ),
            (
                "</a>; anchor=\"https://aem.example/x\"; rel=a",
                "</a>; anchor=\"http://localhost:8080/x\"; rel=a",
            ),
            ("</a>;Anchor = \"https://aem.example#x\"", "</a>;Anchor = \"http://localhost:8080#x\""),
            ("</a>; title=\"<https://aem.example/>\"", "</a>; title=\"<https://aem.example/>\""),
            ("</a>; title=\"\\\"<https://aem.example/>\"", "</a>; title=\"\\\"<https://aem.example/>\""),
            ("</a>; title=\"https://aem.example/\"", "</a>; title=\"https://aem.example/\""),
            ("</a>; xanchor=\"https://aem.example/\"", "</a>; xanchor=\"https://aem.example/\""),
            (
                "</a>; title=\"x; anchor=\"; rel=\"https://aem.example/\"",
                "</a>; title=\"x; anchor=\"; rel=\"https://aem.example/\"",
            ),
            ("<https://aem.example/a", "<http://localhost:8080/a"),
            ("</a>; title=\"open\\", "</a>; title=\"open\\"),
            ("https://aem.example/", "https://aem.example/"),
            ("\"", "\""),
            ("<", "<"),
            ("", ""),
        ] {
            check(link, value, expected);
        }
    }

    #[test]
    fn a_refresh_goes_to_the_local_origin() {
        for (value, expected) in [
            ("5; url=https://aem.example/a", "5; url=http://localhost:8080/a"),
            ("0;URL = 'https://aem.example' ", "0;URL = 'http://localhost:8080' "),
            ("1.5 , url=\"https://aem.example/a\"x", "1.5 , url=\"http://localhost:8080/a\"x"),
            ("5; https://aem.example/a", "5; http://localhost:8080/a"),
            ("5 url=https://aem.example ", "5 url=http://localhost:8080 "),
            ("5; url=//aem.example/a", "5; url=http://localhost:8080/a"),
            ("5; url='https://aem.example/a", "5; url='http://localhost:8080/a"),
            ("5; url=/a", "5; url=/a"),
            ("5", "5"),
            ("", ""),
            ("5; url=", "5; url="),
            ("5; url=\"", "5; url=\""),
            ("5; url=https://aem.example.evil.com/", "5; url=https://aem.example.evil.com/"),
            ("5; url=/?x=https://aem.example/", "5; url=/?x=https://aem.example/"),
        ] {
            check(refresh, value, expected);
        }
    }

    #[test]
    fn a_local_url_becomes_the_upstreams() {
        let is_local =
            |origin: &[u8]| [LOCAL, b"https://[::1]:8443", b"HTTP://LocalHost:8080"].contains(&origin);
        for (value, expected) in [
            ("http://localhost:8080", "https://aem.example"),
            ("http://localhost:8080/a?b", "https://aem.example/a?b"),
            ("HTTP://LocalHost:8080/a", "https://aem.example/a"),
            ("https://[::1]:8443#x", "https://aem.example#x"),
            ("http://localhost:8081/a", "http://localhost:8081/a"),
            ("http://localhost:8080@evil.com/", "http://localhost:8080@evil.com/"),
            ("http://localhost:8080\\@evil.com/", "http://localhost:8080\\@evil.com/"),
            (
                "https://other.example/?http://localhost:8080/",
                "https://other.example/?http://localhost:8080/",
            ),
            ("/content/dam/a", "/content/dam/a"),
            ("//localhost:8080/a", "//localhost:8080/a"),
            ("null", "null"),
            ("http://", "http://"),
            ("", ""),
        ] {
            let mut out = Buffer::default();
            to_upstream(value.as_bytes(), b"https://aem.example", is_local, &mut out);
            assert_eq!(String::from_utf8_lossy(out.filled()), expected, "{value}");
        }
    }

    #[test]
    fn an_authority_that_is_none_is_not_asked_about() {
        for value in ["http://a@b/", "http://a\\b/", "http:// /", "http:///", "ftp://a/", "httpx://a/"] {
            to_upstream(value.as_bytes(), b"", |_| panic!("{value}"), &mut Buffer::default());
        }
    }
}
