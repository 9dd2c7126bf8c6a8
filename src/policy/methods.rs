//! Methods, as rules and `Allow` name them.

use std::fmt;

/// Some of the methods that AEM's APIs have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods(u16);

impl Methods {
    /// Those that `pass`; `None` where that is none.
    pub(super) fn those(pass: impl Fn(&str) -> bool) -> Option<Self> {
        let passing = KNOWN.iter().enumerate().filter(|(_, method)| pass(method));
        let bits = passing.fold(0, |bits, (at, _)| bits | 1 << at);
        (bits != 0).then_some(Self(bits))
    }
}

impl fmt::Display for Methods {
    /// As in `Allow` (RFC 9110, section 10.2.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = KNOWN.iter().enumerate().filter(|(at, _)| self.0 & 1 << at != 0);
        for (number, (_, method)) in own.enumerate() {
            f.write_str(if number > 0 { ", " } else { "" })?;
            f.write_str(method)?;
        }
        Ok(())
    }
}

/// Whether nothing is changed by it. WebDAV's reading methods are for other doors of AEM's.
pub(super) fn is_read(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// Whether the answer is the request, with the token in it (RFC 9110, section 9.3.8: no credentials in a TRACE).
pub(super) fn echoes(method: &str) -> bool {
    method.eq_ignore_ascii_case("TRACE")
}

/// What AEM's HTTP APIs take.
const KNOWN: [&str; 9] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "COPY", "MOVE"];
