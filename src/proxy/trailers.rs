//! Fields behind a body: those of a list pass, and no others.
//!
//! A trailer reaches the same code as a field of the head where a server or a library merges the two, after everything
//! that judged the head: the guard, the policy, the fields that are replaced. So a trailer that the proxy does not know passes
//! in neither direction (RFC 9110, section 6.5.1).

use std::fmt;

use httparse::Header;
use tracing::debug;

use super::{
    fields::{TRAILERS_MAX, is_named},
    withheld::Withheld,
};

/// What the trailers stand behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// A client's body.
    Request,
    /// AEM's body, as it came.
    Response,
    /// AEM's body, with other bytes than came: sums of it do not hold.
    RenamedResponse,
}

/// Sums of a body: RFC 9530, and RFC 3230 and RFC 1864 before it. They are known once the body has been made, and mean the
/// bytes that they stand behind and nothing else.
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// How it went: `Server-Timing` (W3C), and what gRPC's answers end with.
const OUTCOMES: [&str; 4] = ["server-timing", "grpc-status", "grpc-message", "grpc-status-details-bin"];

impl Behind {
    /// Whether the trailers are those of a request or of a response, for the log.
    fn direction(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response | Self::RenamedResponse => "response",
        }
    }

    fn passes(self, name: &str) -> bool {
        let is_one_of = |names: &[&str]| names.iter().any(|own| is_named(name, own));
        match self {
            Self::Request => is_one_of(&DIGESTS),
            Self::Response => is_one_of(&DIGESTS) || is_one_of(&OUTCOMES),
            Self::RenamedResponse => is_one_of(&OUTCOMES),
        }
    }
}

/// The fields after a chunked body that pass, one line each, and how many others hold what is `withheld`.
pub(super) fn trailers(lines: &[u8], behind: Behind, withheld: Withheld<'_>) -> (Vec<u8>, usize) {
    // Most bodies have none.
    if lines.len() <= b"\r\n".len() {
        return (Vec::new(), 0);
    }
    let mut fields = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(lines, &mut fields) else {
        return (Vec::new(), 0);
    };
    let (mut kept, mut cut, mut dropped) = (Vec::new(), 0, 0);
    for field in fields {
        if withheld.is_in(field.value) {
            cut += 1;
        } else if behind.passes(field.name) {
            for part in [field.name.as_bytes(), b": ", field.value, b"\r\n"] {
                kept.extend_from_slice(part);
            }
        } else {
            dropped += 1;
        }
    }
    if dropped > 0 {
        let names = Dropped { fields, behind, withheld };
        debug!(%names, dropped, direction = behind.direction(), "Trailers that may not pass were dropped");
    }
    (kept, cut)
}

/// The names of the trailers that do not pass, for the log: some of them, and of each its beginning.
struct Dropped<'f, 'b> {
    fields: &'f [Header<'b>],
    behind: Behind,
    withheld: Withheld<'f>,
}

impl fmt::Display for Dropped<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_dropped = |field: &&Header<'_>| {
            let holds = |part: &[u8]| self.withheld.is_in(part);
            !self.behind.passes(field.name) && !holds(field.value) && !holds(field.name.as_bytes())
        };
        for (number, field) in self.fields.iter().filter(is_dropped).take(NAMES_MAX).enumerate() {
            let separator = if number > 0 { ", " } else { "" };
            // A name is ASCII.
            let name = field.name.get(..NAME_MAX).unwrap_or(field.name);
            write!(f, "{separator}{name}")?;
        }
        Ok(())
    }
}

/// The most names in one line of the log.
const NAMES_MAX: usize = 16;

/// The most bytes of a name in the log.
const NAME_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Behind; 3] = [Behind::Request, Behind::Response, Behind::RenamedResponse];

    fn kept(lines: &str, behind: Behind) -> String {
        String::from_utf8(trailers(lines.as_bytes(), behind, Withheld::NOTHING).0).unwrap()
    }

    #[test]
    fn sums_pass_both_ways_and_outcomes_to_the_client() {
        let lines = "Content-Digest: sha-256=:x:\r\nRepr-Digest: y\r\nDigest: z\r\ncontent-md5: a\r\n\
                     Server-Timing: db;dur=5\r\ngrpc-status: 0\r\nGrpc-Message: \r\ngrpc-status-details-bin: b\r\n\r\n";
        let (digests, outcomes) = lines.trim_end().split_at(lines.find("Server").unwrap());
        let outcomes = format!("{outcomes}\r\n");
        assert_eq!(kept(lines, Behind::Request), digests);
        assert_eq!(kept(lines, Behind::Response), format!("{digests}{outcomes}"));
        assert_eq!(kept(lines, Behind::RenamedResponse), outcomes);
    }

    #[test]
    fn nothing_else_passes() {
        for name in [
            "X-HTTP-Method-Override",
            "X-AEM-Proxy-Secret",
            "X-Api-Key",
            "Range",
            "If-Match",
            "Authorization",
            "Content-Length",
            "Host",
            "Cookie",
            "Set-Cookie",
            "Strict-Transport-Security",
            "Alt-Svc",
            "Content-Security-Policy",
            "Content_Digest",
            "Content-Digests",
            "X-Sum",
        ] {
            for behind in ALL {
                assert_eq!(kept(&format!("{name}: x\r\n\r\n"), behind), "", "{name} {behind:?}");
            }
        }
        assert_eq!(kept("\r\n", Behind::Response), "");
        assert_eq!(kept("not a field\r\n\r\n", Behind::Response), "");
    }

    #[test]
    fn those_that_hold_the_credential_do_not_pass_and_are_counted() {
        let lines = b"Digest: 1\r\nX-Debug: Bearer a-token-that-is-long\r\nServer-Timing: a-token-that-is-long\r\n\r\n";
        let (kept, cut) = trailers(lines, Behind::Response, Withheld::new(b"a-token-that-is-long"));
        assert_eq!((&*kept, cut), (&b"Digest: 1\r\n"[..], 2));
    }

    proptest! {
        #[test]
        fn what_passes_is_on_the_list(name in "[a-zA-Z0-9_-]{1,24}", value in "[ -~]{0,12}") {
            for behind in ALL {
                let kept = kept(&format!("{name}: {value}\r\n\r\n"), behind).to_ascii_lowercase();
                let listed = DIGESTS.iter().chain(&OUTCOMES).any(|own| kept.starts_with(&format!("{own}: ")));
                prop_assert!(kept.is_empty() || listed, "{}", kept);
            }
        }
    }
}
