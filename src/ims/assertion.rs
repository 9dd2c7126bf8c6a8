//! The JWT that is exchanged (RFC 7519, signed with RS256).

use jsonwebtoken::{Algorithm, Header};
use serde_json::{Map, Value, json};

use super::{Endpoint, ImsError};
use crate::{clock::Clock, credentials::JwtCredentials, secret::SecretString};

/// Signs an assertion of who we are: a new one for each exchange, short-lived, as Adobe advises.
///
/// Source: Adobe Developer Console, "JWT Authentication", tables of required claims.
pub(super) fn sign(
    credentials: &JwtCredentials,
    endpoint: &Endpoint,
    clock: &Clock,
) -> Result<SecretString, ImsError> {
    let claims = claims(credentials, endpoint, clock.unix_seconds());
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &credentials.private_key.signing_key())
        .map(SecretString::from)
        .map_err(|_| ImsError::Unsigned)
}

/// The claims; all times are whole seconds, since IMS refuses any other number. There is no `jti`: IMS takes
/// only integers there, and `exp` is short enough.
fn claims(credentials: &JwtCredentials, endpoint: &Endpoint, now: u64) -> Map<String, Value> {
    let ims = format!("https://{}", endpoint.authority());
    let mut claims = Map::new();
    claims.insert("iss".to_owned(), json!(credentials.org));
    claims.insert("sub".to_owned(), json!(credentials.technical_account_id));
    claims.insert("aud".to_owned(), json!(format!("{ims}/c/{}", credentials.client_id)));
    claims.insert("iat".to_owned(), json!(now.saturating_sub(ISSUED_BEFORE_SECONDS)));
    claims.insert("exp".to_owned(), json!(now + EXPIRES_AFTER_SECONDS));
    for metascope in &credentials.metascopes {
        // One that is a URL already is taken as it is, as Adobe's jwt-auth does.
        let claim =
            if metascope.contains("https") { metascope.clone() } else { format!("{ims}/s/{metascope}") };
        claims.insert(claim, json!(true));
    }
    claims
}

/// Whether a clock that is ahead of IMS's by so many seconds (behind, if negative) makes an assertion from the future, or
/// one that has expired.
pub(super) fn is_spoilt_by(skew_seconds: i64) -> bool {
    let skew = skew_seconds.unsigned_abs();
    if skew_seconds > 0 { skew > ISSUED_BEFORE_SECONDS } else { skew > EXPIRES_AFTER_SECONDS }
}

/// A few minutes, as Adobe advises: enough for a clock that is a little slow, short enough for a leak.
const EXPIRES_AFTER_SECONDS: u64 = 300;

/// A clock that is a little fast must not sign an assertion from the future.
const ISSUED_BEFORE_SECONDS: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Credentials;

    fn credentials() -> JwtCredentials {
        let document = include_bytes!("../../tests/fixtures/service_token.json");
        match Credentials::parse(document, None) {
            Ok(Credentials::Jwt(credentials)) => credentials,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn claims_are_those_that_ims_asks_for() {
        let mut credentials = credentials();
        credentials.metascopes =
            vec!["ent_aem_cloud_api".to_owned(), "https://ims.example/s/ent_whole".to_owned()];
        let endpoint = "ims-na1.adobelogin.com".parse().unwrap();
        let claims = claims(&credentials, &endpoint, 1_700_000_000);
        assert_eq!(
            Value::Object(claims),
            json!({
                "iss": credentials.org,
                "sub": credentials.technical_account_id,
                "aud": format!("https://ims-na1.adobelogin.com/c/{}", credentials.client_id),
                "iat": 1_699_999_940,
                "exp": 1_700_000_300,
                "https://ims-na1.adobelogin.com/s/ent_aem_cloud_api": true,
                "https://ims.example/s/ent_whole": true,
            })
        );
    }

    #[test]
    fn an_assertion_is_signed_with_rs256_and_verifies_with_the_certificate() {
        crate::jwt::install();
        let credentials = credentials();
        let endpoint = "ims-na1.adobelogin.com".parse().unwrap();
        let jwt = sign(&credentials, &endpoint, &Clock::system()).unwrap();
        let key =
            jsonwebtoken::DecodingKey::from_rsa_der(credentials.certificate.as_ref().unwrap().public_key());
        let mut validation = jsonwebtoken::Validation::new(Algorithm::RS256);
        validation.set_audience(&[format!("https://ims-na1.adobelogin.com/c/{}", credentials.client_id)]);
        let token = { jsonwebtoken::decode::<Value>(jwt.expose_secret(), &key, &validation).unwrap() };
        assert_eq!(token.header.typ.as_deref(), Some("JWT"));
        assert_eq!(token.header.kid, None);
    }
}
