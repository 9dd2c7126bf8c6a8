//! Values that cannot be printed.

use std::fmt;

use http::header::{HeaderValue, InvalidHeaderValue};
use secrecy::{ExposeSecret, SecretString};

/// A value for the `Authorization` field, built once per refresh so that a request clones a
/// reference-counted header and cannot fail. Marked sensitive: HTTP/2 does not index it, `Debug`
/// does not show it.
#[derive(Clone)]
pub struct Authorization(HeaderValue);

impl Authorization {
    /// `Bearer` with an access token (RFC 6750, section 2.1).
    ///
    /// # Errors
    /// When the token holds bytes that no header may carry.
    pub fn bearer(token: &SecretString) -> Result<Self, InvalidHeaderValue> {
        Self::sensitive(&format!("Bearer {}", token.expose_secret()))
    }

    /// `Basic` with a user and a password (RFC 7617), for a local AEM SDK.
    ///
    /// # Errors
    /// Never in practice: base64 is always a valid field value.
    pub fn basic(user: &str, password: &SecretString) -> Result<Self, InvalidHeaderValue> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let pair = format!("{user}:{}", password.expose_secret());
        Self::sensitive(&format!("Basic {}", STANDARD.encode(pair)))
    }

    fn sensitive(value: &str) -> Result<Self, InvalidHeaderValue> {
        let mut value = HeaderValue::try_from(value)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The field value, to be put into a request.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// Its bytes, to be written into one.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authorization_cannot_be_printed() {
        let token = SecretString::from("very-secret-token");
        let bearer = Authorization::bearer(&token).unwrap();
        let basic = Authorization::basic("admin", &SecretString::from("very-secret-password")).unwrap();
        for shown in
            [format!("{bearer:?}"), format!("{:?}", bearer.header()), format!("{:?}", basic.header())]
        {
            assert!(!shown.contains("secret-") && !shown.contains("YWRtaW46"), "{shown}");
        }
        assert_eq!(bearer.header().to_str().unwrap(), "Bearer very-secret-token");
        assert_eq!(
            Authorization::basic("admin", &SecretString::from("admin")).unwrap().header(),
            "Basic YWRtaW46YWRtaW4="
        );
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused() {
        assert!(Authorization::bearer(&SecretString::from("two\nlines")).is_err());
    }
}
