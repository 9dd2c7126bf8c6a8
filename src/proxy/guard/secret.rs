//! A secret that every request has to show, for listeners that more can reach than may.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use http::HeaderName;
use ring::{hmac, rand::SystemRandom};

use crate::text_file::trim_line;

/// The field that shows it, and what is known of it now. Cheap to clone.
#[derive(Clone)]
pub struct Secret {
    header: HeaderName,
    known: Arc<ArcSwap<Known>>,
}

/// What is known of the secrets that are let in: their HMACs with a key that nobody else has. Comparing those takes as long for
/// a secret that is nearly right as for any other of its length, and the secrets themselves are not kept.
pub struct Known {
    key: hmac::Key,
    tags: Vec<hmac::Tag>,
}

/// Why a text holds no secrets that could be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Somebody could guess it.
    #[error("holds a secret of fewer than {LENGTH_MIN} characters; make one with: openssl rand -hex 32")]
    Short,
    /// It could not be sent in a field.
    #[error(
        "holds a secret with a space or another character that is not plain ASCII; make one with: openssl rand -hex 32"
    )]
    Characters,
    /// It is something else.
    #[error("holds more than {COUNT_MAX} secrets; give one on each line: the one in use, and the next one")]
    Many,
    /// There is none.
    #[error("holds no secret; make one with: openssl rand -hex 32")]
    Empty,
    /// The system has no random numbers.
    #[error("cannot be kept safely: the system gives no random numbers")]
    Random,
}

impl Secret {
    /// Shown in `header`, and compared with what is `known` then.
    pub fn new(header: HeaderName, known: Arc<ArcSwap<Known>>) -> Self {
        Self { header, known }
    }

    /// The name of the field, in lower case.
    pub(super) fn header(&self) -> &str {
        self.header.as_str()
    }

    pub(super) fn is(&self, shown: &[u8]) -> bool {
        self.known.load().is(shown)
    }
}

impl Known {
    /// The secrets in `text`, one on each line: while one takes the place of another there are two.
    ///
    /// # Errors
    /// When there is none, or one that is none.
    pub fn of(text: &str) -> Result<Self, SecretError> {
        let key =
            hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| SecretError::Random)?;
        let mut tags = Vec::new();
        for secret in text.lines().map(trim_line).filter(|line| !line.is_empty()) {
            if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(SecretError::Characters);
            }
            if secret.len() < LENGTH_MIN {
                return Err(SecretError::Short);
            }
            tags.push(hmac::sign(&key, secret.as_bytes()));
        }
        match tags.len() {
            0 => Err(SecretError::Empty),
            1..=COUNT_MAX => Ok(Self { key, tags }),
            _ => Err(SecretError::Many),
        }
    }

    fn is(&self, shown: &[u8]) -> bool {
        // Compared in constant time: see `ring::hmac::verify`.
        self.tags.iter().any(|tag| hmac::verify(&self.key, shown, tag.as_ref()).is_ok())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known(..)")
    }
}

/// Nobody guesses so much within the life of a machine, even of hexadecimal digits.
const LENGTH_MIN: usize = 16;

/// Each is compared with each request.
const COUNT_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_secret_and_nothing_else_is() {
        let known = Known::of("0123456789abcdef\r\n\n  fedcba9876543210  \n").unwrap();
        assert!(known.is(b"0123456789abcdef") && known.is(b"fedcba9876543210"));
        for other in
            [&b""[..], b"0123456789abcde", b"0123456789abcdef0", b"0123456789ABCDEF", b"0123456789abcdef\n"]
        {
            assert!(!known.is(other));
        }
    }

    #[test]
    fn what_is_no_secret_says_why() {
        let many = "0123456789abcdef\n".repeat(COUNT_MAX + 1);
        for (text, error) in [
            ("", SecretError::Empty),
            (" \n\t\n", SecretError::Empty),
            ("0123456789abcde", SecretError::Short),
            ("0123456789abcdef\nshort", SecretError::Short),
            ("0123456789 abcdef", SecretError::Characters),
            ("0123456789abcd\u{e9}f", SecretError::Characters),
            (&many, SecretError::Many),
        ] {
            assert_eq!(Known::of(text).err(), Some(error), "{text:?}");
        }
    }

    #[test]
    fn nothing_that_holds_one_prints_it() {
        let known = Known::of("0123456789abcdef").unwrap();
        assert_eq!(format!("{known:?}"), "Known(..)");
        let secret = Secret::new(HeaderName::from_static("x"), Arc::new(ArcSwap::from_pointee(known)));
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
