//! Cookies that say who the user is. The proxy says so for every request, and AEM may take a cookie before its token.
//!
//! Sources: Adobe, "Encapsulated Token Support" (`login-token`); Apache Sling, `SlingAuthenticator` (`sling.sudo`) and
//! `FormAuthenticationHandler` (`sling.formauth`). Servlet containers end a cookie at a comma, too (RFC 2109), and take
//! names in quotes; names without their case are taken by whatever stands before AEM.

use memchr::memchr2_iter;

use crate::steps;

/// A `Cookie` without such cookies: `None` where it has none of them.
pub(super) fn without_users(value: &[u8]) -> Option<Vec<u8>> {
    if !may_name_user(value) || !value.split(|byte| b";,".contains(byte)).any(is_of_user) {
        return None;
    }
    let mut kept = Vec::with_capacity(value.len());
    for part in value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
        let own: Vec<_> = part.split(|byte| *byte == b',').filter(|pair| !is_of_user(pair)).collect();
        if own.iter().all(|pair| pair.trim_ascii().is_empty()) {
            continue;
        }
        if !kept.is_empty() {
            kept.extend_from_slice(b"; ");
        }
        kept.extend(own.join(&b","[..]).trim_ascii());
    }
    Some(kept)
}

/// Whether a `Set-Cookie` sets such a cookie, alone or behind a comma.
pub(super) fn sets_user(value: &[u8]) -> bool {
    may_name_user(value) && value.split(|byte| *byte == b',').any(is_of_user)
}

/// Whether one of the names stands somewhere in a value.
fn may_name_user(value: &[u8]) -> bool {
    memchr2_iter(b'-', b'.', steps::over(value)).any(|at| {
        let begin = value.get(at.saturating_sub(PREFIX)..).unwrap_or_default();
        NAMES.iter().any(|name| begin.get(..name.len()).is_some_and(|own| own.eq_ignore_ascii_case(name)))
    })
}

/// Whether a pair has one of the names: alone, in quotes, or behind what some reader skips.
fn is_of_user(pair: &[u8]) -> bool {
    let name = pair.split(|byte| b"=;".contains(byte)).next().unwrap_or_default();
    let mut words = name.split(|byte| !is_of_name(*byte)).filter(|word| !word.is_empty());
    words.next_back().is_some_and(|word| NAMES.iter().any(|own| word.eq_ignore_ascii_case(own)))
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

const NAMES: [&[u8]; 3] = [b"login-token", b"sling.sudo", b"sling.formauth"];

/// What stands before the first `-` or `.` of each name.
const PREFIX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_users_cookie_goes_and_others_stay() {
        for (value, expected) in [
            ("a=1; login-token=secret; b=2", "a=1; b=2"),
            ("login-token=secret", ""),
            ("Login-Token=secret; LOGIN-TOKEN=x", ""),
            ("a=1;login-token=x;b=2", "a=1; b=2"),
            ("a=1; login-token", "a=1"),
            ("a=1; \tlogin-token \t= x", "a=1"),
            ("a=1, login-token=x; b=2", "a=1; b=2"),
            ("login-token=x,a=1", "a=1"),
            ("a=1; login-token=x, b=2", "a=1; b=2"),
            ("\"login-token\"=x; a=1", "a=1"),
            ("$Version=1; login-token=x; $Path=/", "$Version=1; $Path=/"),
            ("$login-token=x; a=1", "a=1"),
            ("x login-token=y; a=1", "a=1"),
            ("a=\"b; login-token=x\"; c=d", "a=\"b; c=d"),
            ("a=\"b, login-token=x\"", "a=\"b"),
            ("sling.sudo=admin; a=1", "a=1"),
            ("sling.formauth=x; a=1", "a=1"),
            ("a=1,2; login-token=x", "a=1,2"),
            ("\u{e9}login-token=x; a=1", "a=1"),
        ] {
            let kept = without_users(value.as_bytes()).expect("one of the names");
            assert_eq!(String::from_utf8_lossy(&kept), expected, "{value}");
        }
        for value in [
            "my-login-token2=x",
            "my-login-token=keep;d=4",
            "a=login-token",
            "a=b",
            "",
            "-",
            "logintoken=x; sling-sudo=y",
        ] {
            assert_eq!(without_users(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_users_cookie_is_not_set() {
        for (value, sets) in [
            ("login-token=x; Path=/; HttpOnly", true),
            ("LOGIN-token=; Max-Age=0", true),
            (" \"login-token\" = x", true),
            ("login-token", true),
            ("a=b; Path=/, login-token=x; Path=/", true),
            ("sling.sudo=-; Path=/", true),
            ("a=login-token", false),
            ("a=b; login-token=x", false),
            ("my-login-token=x", false),
            ("affinity=\"0\"; Expires=Wed, 21 Oct 2026 07:28:00 GMT", false),
        ] {
            assert_eq!(sets_user(value.as_bytes()), sets, "{value}");
        }
    }
}
