//! `Content-Security-Policy` and its form that only reports, for a listener without TLS.

use memchr::memchr2_iter;

use crate::{proxy::buffer::Buffer, steps};

/// Whether a value holds the directive `upgrade-insecure-requests`, which sends a page's requests to the proxy's address
/// by `https`: where the proxy speaks `http` none of them arrives.
pub(in crate::proxy) fn upgrades(value: &[u8]) -> bool {
    memchr2_iter(b'u', b'U', steps::over(value)).any(|at| begins(&value[at..]))
}

/// The policies of a value without that directive, at the end of `out`. Policies stand between commas, their directives between
/// semicolons (CSP 3, sections 2.2 and 4.1). `false` where nothing is left.
pub(in crate::proxy) fn without_upgrade(value: &[u8], out: &mut Buffer) -> bool {
    let mut is_empty = true;
    for policy in steps::over(value).split(|byte| *byte == b',') {
        let directives = policy.split(|byte| *byte == b';');
        let mut kept = directives.filter(|directive| !is_upgrade(directive)).peekable();
        if kept.clone().all(|directive| directive.trim_ascii().is_empty()) {
            continue;
        }
        if !is_empty {
            out.push(b",");
        }
        is_empty = false;
        while let Some(directive) = kept.next() {
            out.push(directive);
            if kept.peek().is_some() {
                out.push(b";");
            }
        }
    }
    !is_empty
}

/// Whether a directive has that name, whatever its value.
fn is_upgrade(directive: &[u8]) -> bool {
    let name = directive.trim_ascii();
    begins(name) && name.get(UPGRADE.len()).is_none_or(u8::is_ascii_whitespace)
}

fn begins(text: &[u8]) -> bool {
    text.get(..UPGRADE.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(UPGRADE))
}

const UPGRADE: &[u8] = b"upgrade-insecure-requests";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directive_goes_and_all_others_stay() {
        for (value, expected) in [
            ("upgrade-insecure-requests", None),
            ("upgrade-insecure-requests;", None),
            (" Upgrade-Insecure-Requests 1 ; ", None),
            ("default-src 'self'; upgrade-insecure-requests", Some("default-src 'self'")),
            (
                "upgrade-insecure-requests; default-src 'self'; img-src *",
                Some(" default-src 'self'; img-src *"),
            ),
            ("a; UPGRADE-insecure-requests; b;", Some("a; b;")),
            ("upgrade-insecure-requests, frame-ancestors 'none'", Some(" frame-ancestors 'none'")),
            ("a; upgrade-insecure-requests, b; upgrade-insecure-requests ;c", Some("a, b;c")),
            (
                "a upgrade-insecure-requests; upgrade-insecure-requestsx",
                Some("a upgrade-insecure-requests; upgrade-insecure-requestsx"),
            ),
        ] {
            let mut out = Buffer::default();
            assert!(upgrades(value.as_bytes()), "{value}");
            let is_left = without_upgrade(value.as_bytes(), &mut out);
            assert_eq!(is_left.then(|| str::from_utf8(out.filled()).unwrap()), expected, "{value}");
        }
        assert!(!upgrades(b"default-src 'unsafe-inline'; upgrade-insecure-request"));
    }
}
