//! Cookies that AEM sets, for a proxy's origin.

use crate::{proxy::buffer::Buffer, steps};

/// A `Set-Cookie` value as the client is to see it, at the end of `out`.
///
/// `Domain` names a host of AEM's, so that no browser would take the cookie from the proxy: without it the cookie is the
/// proxy's own. Where the client speaks `http`, `Secure` goes, and with it what browsers take only beside it: `Partitioned`
/// and `SameSite=None`. All other bytes stay, also of attributes that nobody knows.
///
/// A `;` ends the name and value even between quotes: a quote is no special character to a browser (RFC 6265, section
/// 5.2).
///
/// What stays closed: browsers refuse a cookie without `Secure` whose name begins with `__Secure-` or `__Host-`, and its
/// name is not ours to change, since AEM asks for it. A client that needs one has to come by `https`.
pub(in crate::proxy) fn cookie(value: &[u8], local_is_secure: bool, out: &mut Buffer) {
    for (number, part) in steps::over(value).split(|byte| *byte == b';').enumerate() {
        if number == 0 {
            out.push(part);
        } else if stays(part, local_is_secure) {
            out.push(b";");
            out.push(part);
        }
    }
}

fn stays(attribute: &[u8], local_is_secure: bool) -> bool {
    let end = attribute.iter().position(|byte| *byte == b'=').unwrap_or(attribute.len());
    let (name, value) = attribute.split_at(end);
    let is = |expected: &[u8]| name.trim_ascii().eq_ignore_ascii_case(expected);
    let is_none = || value.get(1..).unwrap_or_default().trim_ascii().eq_ignore_ascii_case(b"none");
    let needs_secure = || is(b"secure") || is(b"partitioned") || (is(b"samesite") && is_none());
    !is(b"domain") && (local_is_secure || !needs_secure())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, http: &str, https: &str) {
        for (local_is_secure, expected) in [(false, http), (true, https)] {
            let mut out = Buffer::default();
            cookie(value.as_bytes(), local_is_secure, &mut out);
            assert_eq!(String::from_utf8_lossy(out.filled()), expected, "{value}");
        }
    }

    #[test]
    fn a_cookie_loses_its_domain() {
        for (value, expected) in [
            ("a=b; Domain=.aem.example; Path=/", "a=b; Path=/"),
            ("a=b;domain=aem.example", "a=b"),
            ("a=b; DOMAIN", "a=b"),
            ("a=b; Path=/ ;  Domain\t= x ; HttpOnly", "a=b; Path=/ ; HttpOnly"),
            ("a=b; Domain=x; Domain=y; Max-Age=1", "a=b; Max-Age=1"),
        ] {
            check(value, expected, expected);
        }
    }

    #[test]
    fn over_http_a_cookie_loses_what_needs_https() {
        check(
            "affinity=x; Path=/; Domain=x; Secure; HttpOnly; SameSite=None; Partitioned",
            "affinity=x; Path=/; HttpOnly",
            "affinity=x; Path=/; Secure; HttpOnly; SameSite=None; Partitioned",
        );
        check("a=b;SECURE=;samesite = NONE ;x", "a=b;x", "a=b;SECURE=;samesite = NONE ;x");
        check("__Host-a=b; Secure; Path=/", "__Host-a=b; Path=/", "__Host-a=b; Secure; Path=/");
    }

    #[test]
    fn all_else_of_a_cookie_stays() {
        for value in [
            "affinity=\"0123abcd\"; Path=/; HttpOnly",
            "a=b; SameSite=Lax",
            "a=b; SameSite=Strict; Expires=Wed, 21 Oct 2026 07:28:00 GMT",
            "a=b; SameSite",
            "a=b; SecureX; XSecure; Domains=x; Path=Domain",
            "a=Domain=x",
            "Domain=x",
            "Secure",
            "a=b;; ;",
            "a=\u{fc}",
            "",
        ] {
            check(value, value, value);
        }
    }

    #[test]
    fn quotes_hide_no_attribute() {
        check("a=\"b; Secure; Domain=x\"", "a=\"b", "a=\"b; Secure");
    }
}
