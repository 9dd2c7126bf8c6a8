//! Values that cannot be printed, in memory that is theirs alone, in a process that nobody else looks into.

mod pages;
pub mod process;

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

pub(crate) use self::pages::Sealed;

/// A text that is a secret: a token, a password, a key, a whole document.
///
/// It stands in locked memory (see [`process`]), is copied by nobody who clones it, and is wiped when the last holder lets go
/// of it. It has no `Display` and no `Serialize`, and its `Debug` shows nothing:
///
/// ```
/// let secret = aem_auth_proxy::secret::SecretString::from("open sesame");
/// assert_eq!(format!("{secret:?}"), "(redacted)");
/// ```
/// ```compile_fail,E0277
/// let secret = aem_auth_proxy::secret::SecretString::from("open sesame");
/// println!("{secret}");
/// ```
/// ```compile_fail,E0277
/// let secret = aem_auth_proxy::secret::SecretString::from("open sesame");
/// let _ = serde_json::to_string(&secret);
/// ```
/// ```compile_fail,E0277
/// let secret = aem_auth_proxy::secret::SecretString::from("open sesame");
/// let _: String = secret.into();
/// ```
#[derive(Clone)]
pub struct SecretString(Arc<Sealed>);

impl SecretString {
    /// The `parts`, one behind the other.
    pub fn concat(parts: &[&str]) -> Self {
        let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
        Self(Arc::new(Sealed::of(&parts)))
    }

    /// The secret itself: whoever asks for it has to know where it goes.
    pub fn expose_secret(&self) -> &str {
        // It was text when it came.
        std::str::from_utf8(self.0.bytes()).unwrap_or_default()
    }

    /// The same as bytes, for a request's head.
    pub(crate) fn expose_bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// A copy as other libraries take it; empty where [`is_field_value`] would not have it. It is marked sensitive, and nobody
    /// wipes it: only for requests that are made once.
    pub fn header(&self) -> HeaderValue {
        let mut value =
            HeaderValue::from_bytes(self.expose_bytes()).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

impl From<&str> for SecretString {
    fn from(text: &str) -> Self {
        Self::concat(&[text])
    }
}

/// What is given away is wiped.
impl From<String> for SecretString {
    fn from(mut text: String) -> Self {
        let secret = Self::from(text.as_str());
        text.zeroize();
        secret
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

impl<'de> Deserialize<'de> for SecretString {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = SecretString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretString, E> {
                Ok(text.into())
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<SecretString, E> {
                Ok(text.into())
            }
        }
        from.deserialize_str(Text)
    }
}

/// A value for the `Authorization` field, built once per refresh so that a request copies bytes and cannot fail.
///
/// ```compile_fail,E0277
/// let basic = aem_auth_proxy::secret::Authorization::basic("admin", &"admin".into());
/// println!("{basic}");
/// ```
#[derive(Clone)]
pub struct Authorization {
    value: SecretString,
    /// The length of the scheme and the space behind it.
    scheme: usize,
}

/// The text has bytes that no header field may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no header field can carry it")]
pub struct NotAFieldValue;

impl Authorization {
    /// `Bearer` with an access token (RFC 6750, section 2.1).
    ///
    /// # Errors
    /// When the token holds bytes that no header may carry.
    pub fn bearer(token: &str) -> Result<Self, NotAFieldValue> {
        if !is_field_value(token) {
            return Err(NotAFieldValue);
        }
        Ok(Self { value: SecretString::concat(&[BEARER, token]), scheme: BEARER.len() })
    }

    /// `Basic` with a user and a password (RFC 7617), for a local AEM SDK.
    pub fn basic(user: &str, password: &SecretString) -> Self {
        Self::basic_of(user.as_bytes(), password.expose_bytes())
    }

    /// The same of bytes, for egress proxies, whose passwords may be in any character encoding.
    pub(crate) fn basic_of(user: &[u8], password: &[u8]) -> Self {
        let mut pair = Zeroizing::new(Vec::with_capacity(user.len() + 1 + password.len()));
        for part in [user, b":", password] {
            pair.extend_from_slice(part);
        }
        let coded = Zeroizing::new(STANDARD.encode(&pair));
        Self { value: SecretString::concat(&[BASIC, &coded]), scheme: BASIC.len() }
    }

    /// The bytes of the field value, to be written into a request.
    pub fn as_bytes(&self) -> &[u8] {
        self.value.expose_bytes()
    }

    /// What stands behind the scheme: of `Bearer` it is the token.
    pub fn expose_credentials(&self) -> &str {
        &self.value.expose_secret()[self.scheme..]
    }

    /// The same as bytes.
    pub(crate) fn credentials(&self) -> &[u8] {
        &self.as_bytes()[self.scheme..]
    }

    /// See [`SecretString::header`].
    pub fn header(&self) -> HeaderValue {
        self.value.header()
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(..)")
    }
}

/// Whether a field may have this value: one line of plain text (RFC 9110, section 5.5).
pub fn is_field_value(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
}

/// Overwrites bytes that were a secret's, in memory that lives on. The compiler would leave out what it thinks that nobody
/// reads.
pub(crate) fn wipe(bytes: &mut [u8]) {
    // `zeroize` writes byte by byte, which is too slow for each request.
    bytes.fill(0);
    std::hint::black_box(bytes);
}

/// Wipes every text of a document, as deep as it goes: parsers limit that to 128 levels.
pub(crate) fn wipe_json(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe_json),
        Value::Object(object) => object.values_mut().for_each(wipe_json),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A compile-time proof: `never!(Type: Trait, ...)` does not compile when the type has one of the traits.
///
/// A type with the trait has `proof` twice, and nobody could tell which one is meant.
macro_rules! never {
    ($type:ty: $($unwanted:path),+) => {
        const _: fn() = || {
            $({
                trait Proof<Any> {
                    fn proof() {}
                }
                impl<T: ?Sized> Proof<()> for T {}
                #[allow(dead_code)]
                struct Unwanted;
                impl<T: ?Sized + $unwanted> Proof<Unwanted> for T {}
                let _ = <$type as Proof<_>>::proof;
            })+
        };
    };
}
pub(crate) use never;

never!(Sealed: fmt::Debug, fmt::Display, serde::Serialize, Clone);
never!(SecretString: fmt::Display, serde::Serialize, AsRef<str>, AsRef<[u8]>, std::ops::Deref);
never!(Authorization: fmt::Display, serde::Serialize, AsRef<str>, AsRef<[u8]>, std::ops::Deref);

const BEARER: &str = "Bearer ";
const BASIC: &str = "Basic ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_cannot_be_printed() {
        let secret = SecretString::from("very-secret-token");
        let bearer = Authorization::bearer("very-secret-token").unwrap();
        let basic = Authorization::basic("admin", &SecretString::from("very-secret-password"));
        for shown in [
            format!("{secret:?} {:?} {:#?}", Some(&secret), [&secret]),
            format!("{bearer:?} {basic:?}"),
            format!("{:?} {:?}", bearer.header(), basic.header()),
        ] {
            assert!(!shown.contains("secret-") && !shown.contains("YWRtaW46"), "{shown}");
        }
    }

    #[test]
    fn a_field_value_is_what_it_is_to_be() {
        let bearer = Authorization::bearer("very-secret-token").unwrap();
        assert_eq!(bearer.as_bytes(), b"Bearer very-secret-token");
        assert_eq!(bearer.header(), "Bearer very-secret-token");
        assert_eq!(bearer.expose_credentials(), "very-secret-token");
        let basic = Authorization::basic("admin", &SecretString::from("admin"));
        assert_eq!(basic.header(), "Basic YWRtaW46YWRtaW4=");
        assert_eq!(basic.expose_credentials(), "YWRtaW46YWRtaW4=");
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused() {
        for token in ["two\nlines", "nul\0", "ümlaut", "del\x7f"] {
            assert!(Authorization::bearer(token).is_err(), "{token:?}");
        }
    }

    #[test]
    fn a_secret_is_read_from_a_document_and_from_nothing_but_text() {
        let secret: SecretString = serde_json::from_str(r#""line\nend""#).unwrap();
        assert_eq!(secret.expose_secret(), "line\nend");
        assert!(serde_json::from_str::<SecretString>("7").is_err());
    }

    #[test]
    fn what_is_wiped_is_zero() {
        let mut bytes = *b"secret";
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 6]);
    }
}
