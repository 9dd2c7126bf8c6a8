//! What no answer may hold: the credential that its request was sent with.
//!
//! An AEM, or something before it, that repeats what it was sent (an echo, a debug header, a cookie made of the token) would
//! give it to the app, and whatever that writes into its log.

use memchr::memmem;

use crate::{secret::never, steps};

/// The credential of one request, without its scheme. No `Debug`.
#[derive(Clone, Copy, Default)]
pub(super) struct Withheld<'s> {
    secret: &'s [u8],
    /// The last bytes: of a token they are its signature, and no other token has them.
    end: &'s [u8],
}

never!(Withheld<'_>: std::fmt::Debug);

impl<'s> Withheld<'s> {
    /// No credential.
    pub(super) const NOTHING: Self = Self { secret: b"", end: b"" };

    /// One that is short is not looked for: it may stand anywhere.
    pub(super) fn new(credential: &'s [u8]) -> Self {
        // In a URL the padding of base64 is written otherwise, if at all.
        let padding = credential.iter().rev().take_while(|byte| **byte == b'=').count();
        let secret = &credential[..credential.len() - padding];
        if secret.len() < LEAST {
            return Self::NOTHING;
        }
        Self { secret, end: &secret[secret.len().saturating_sub(END)..] }
    }

    /// Whether it stands in `value`. Most values are shorter than a token, and not looked at.
    #[inline]
    pub(super) fn is_in(self, value: &[u8]) -> bool {
        value.len() >= self.secret.len() && !self.secret.is_empty() && self.is_found_in(value)
    }

    #[cold]
    fn is_found_in(self, value: &[u8]) -> bool {
        let mut ends = memmem::find_iter(steps::over(value), self.end).map(|at| at + self.end.len());
        ends.any(|end| value[..end].ends_with(steps::over(self.secret)))
    }
}

/// As long as `admin:admin` in base64, without its padding, and longer than words that are no secrets.
const LEAST: usize = 15;

/// Long enough to be rare; to look for the whole of a token takes longer.
const END: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_found_wherever_it_stands() {
        let token = format!("eyJ0.{}.c2ln", "x".repeat(1000));
        let withheld = Withheld::new(token.as_bytes());
        for value in
            [token.clone(), format!("Bearer {token}"), format!("a={token}; b"), format!("{token}{token}x")]
        {
            assert!(withheld.is_in(value.as_bytes()));
        }
        let other = format!("eyJ1.{}.c2ln", "x".repeat(1000));
        for value in
            ["", "x", &token[1..], &token[..token.len() - 1], &other, &format!("{other}{}", &token[1..])]
        {
            assert!(!withheld.is_in(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn a_password_is_found_without_the_padding_that_urls_write_otherwise() {
        let withheld = Withheld::new(b"YWRtaW46YWRtaW4=");
        for value in ["Basic YWRtaW46YWRtaW4=", "/?a=YWRtaW46YWRtaW4%3D", "YWRtaW46YWRtaW4"] {
            assert!(withheld.is_in(value.as_bytes()), "{value}");
        }
        assert!(!withheld.is_in(b"YWRtaW46YWRtaW"));
    }

    #[test]
    fn what_is_short_or_not_there_is_in_nothing() {
        for credential in [&b""[..], b"====", b"dTpw", b"YTphYmNkZWZnaA=="] {
            assert!(!Withheld::new(credential).is_in(b""));
            assert!(!Withheld::new(credential).is_in(b"YTphYmNkZWZnaA== dTpw"));
        }
        assert!(!Withheld::NOTHING.is_in(b"anything"));
    }
}
