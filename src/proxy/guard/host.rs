//! What a `Host` may look like (RFC 9112, section 3.2; RFC 3986, section 3.2.2), without anything that has two readings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host and its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub name: &'a str,
    /// Digits; none where it is the scheme's.
    pub port: Option<&'a str>,
}

impl<'a> Authority<'a> {
    /// `None` for what is none: user info, lists, spaces, escapes, an IPv6 address without brackets, a port out of range.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        let (name, rest) = if text.starts_with('[') {
            let (name, rest) = text.split_at(text.find(']')? + 1);
            let plain = |byte: u8| byte.is_ascii_hexdigit() || b":.".contains(&byte);
            name[1..name.len() - 1].bytes().all(plain).then_some((name, rest))?
        } else {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            name.bytes().all(plain).then_some((name, rest))?
        };
        let port =
            if rest.is_empty() { None } else { Some(rest.strip_prefix(':').filter(|port| is_port(port))?) };
        (!name.is_empty() && name != "[]").then_some(Self { name, port })
    }
}

/// The address that a host is, in the one form that there is of it: `127.1` and `0x7f000001` are names.
pub(super) fn ip_of(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_form() {
        for (text, name, port) in [
            ("localhost", "localhost", None),
            ("a_b.c-d:80", "a_b.c-d", Some("80")),
            ("127.0.0.1:65535", "127.0.0.1", Some("65535")),
            ("[::1]", "[::1]", None),
            ("[::ffff:127.0.0.1]:8080", "[::ffff:127.0.0.1]", Some("8080")),
        ] {
            assert_eq!(Authority::of(text), Some(Authority { name, port }), "{text}");
        }
        for text in [
            "",
            ":80",
            "[]",
            "[]:80",
            "a:",
            "a:0",
            "a:65536",
            "a:99999999999999999999",
            "a:+80",
            "a:8o",
            "a:80:80",
            "::1",
            "::1:80",
            "[::1",
            "[::1]x",
            "[::1]80",
            "[::1]:",
            "[::1%lo]",
            "[::1%25lo]",
            "[v1.x]",
            "[[::1]]",
            "]::1[",
            "a@b",
            "a b",
            "a,b",
            "a, a",
            " a",
            "a/",
            "a?",
            "a#",
            "a\\",
            "a%2e",
            "a;b",
            "\u{e4}",
            "a\0",
            "*",
        ] {
            assert_eq!(Authority::of(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_has_one_form_too() {
        assert_eq!(ip_of("10.0.0.7"), Some([10, 0, 0, 7].into()));
        assert_eq!(ip_of("[fd00::7]"), Some("fd00::7".parse().unwrap()));
        for text in [
            "10.7",
            "0x7f.1",
            "2130706433",
            "017700000001",
            "010.0.0.7",
            "fd00::7",
            "[10.0.0.7]",
            "10.0.0.7.",
        ] {
            assert_eq!(ip_of(text), None, "{text}");
        }
    }
}
