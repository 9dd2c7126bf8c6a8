//! What an access token says of itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::pem;

/// The claims of an access token. IMS's tokens are JWTs without `exp`: `created_at` and `expires_in` are decimal
/// strings in milliseconds (Adobe's aio-lib-ims).
#[derive(Debug, Default)]
pub(crate) struct Claims {
    created_at: Option<f64>,
    expires_in: Option<f64>,
    kind: Option<String>,
    is_dated: bool,
    names_parties: bool,
    /// To whom the token was issued.
    pub(crate) client_id: Option<String>,
    /// As whom AEM will see its bearer.
    pub(crate) user_id: Option<String>,
    /// What it allows.
    pub(crate) scopes: Vec<String>,
}

impl Claims {
    /// Reads without verifying: the token came from IMS over TLS, or from the user, and only AEM has to believe it.
    /// The payload is base64url, with or without padding.
    pub(crate) fn of(token: &str) -> Option<Self> {
        let payload = pem::decode_base64(token.split('.').nth(1)?)?;
        let claims: Value = serde_json::from_slice(&payload).ok()?;
        let claims = claims.as_object()?;
        let text = |name: &str| claims.get(name)?.as_str().map(str::to_owned);
        let scopes = text("scope").unwrap_or_default();
        Some(Self {
            created_at: claims.get("created_at").and_then(number),
            expires_in: claims.get("expires_in").and_then(number),
            kind: text("type"),
            is_dated: claims.contains_key("exp"),
            names_parties: ["iss", "sub", "aud"].iter().any(|name| claims.contains_key(*name)),
            client_id: text("client_id"),
            user_id: text("user_id"),
            scopes: scopes.split([',', ' ']).filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
        })
    }

    /// When the token was made, by IMS's clock, and for how long it lives from then.
    pub(crate) fn life(&self) -> Option<(SystemTime, Duration)> {
        let created_at = self.created_at.filter(|created_at| *created_at < CREATED_MAX_MS)?;
        Some((UNIX_EPOCH.checked_add(millis(created_at)?)?, millis(self.expires_in?)?))
    }

    /// Whether it says that it is something else: a refresh token, say.
    pub(super) fn is_of_another_type(&self) -> bool {
        self.kind.as_deref().is_some_and(|kind| kind != "access_token")
    }

    /// Whether this is no access token at all, but what is exchanged for one.
    pub(super) fn is_an_assertion(&self) -> bool {
        self.created_at.is_none() && self.is_dated && self.names_parties
    }
}

/// A number, or a string that holds one: both are seen.
pub(crate) fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number: &f64| number.is_finite())
}

/// So many milliseconds; none where that is no span of time.
pub(crate) fn millis(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number / 1000.0).ok()
}

/// Of the year 5138: what is more was not counted in milliseconds.
const CREATED_MAX_MS: f64 = 1e14;

#[cfg(test)]
mod tests {
    use base64::{
        Engine,
        engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
    };
    use serde_json::json;

    use super::*;

    /// Adobe's own library stumbled over this (aio-lib-ims, before 8.1.1).
    #[test]
    fn claims_are_read_from_base64url_with_and_without_padding() {
        let claims = json!({"created_at": "1000", "expires_in": "3000", "user_id": "ÿÿ>>??~~\u{ffff}"});
        for length in 0..4 {
            let mut claims = claims.clone();
            claims["pad"] = json!("x".repeat(length));
            let padded = URL_SAFE.encode(claims.to_string());
            assert!(padded.contains('-') && padded.contains('_'), "{padded}");
            for payload in [padded, URL_SAFE_NO_PAD.encode(claims.to_string())] {
                let claims = Claims::of(&format!("e30.{payload}.c2ln")).unwrap();
                let (created_at, lifetime) = claims.life().unwrap();
                assert_eq!(created_at, UNIX_EPOCH + Duration::from_secs(1));
                assert_eq!(lifetime, Duration::from_secs(3));
                assert_eq!(claims.user_id.as_deref(), Some("ÿÿ>>??~~\u{ffff}"));
            }
        }
    }

    #[test]
    fn what_holds_no_claims_has_none() {
        for token in ["", "opaque", "a.b.c", "e30.!.c2ln", "e30.W10.c2ln", "e30.e30"] {
            assert!(Claims::of(token).is_none_or(|claims| claims.life().is_none()), "{token}");
        }
    }
}
