//! A local development token: an access token that a developer takes from the AEM Developer Console.

use std::time::{Duration, SystemTime};

use super::{Claims, CredentialsError, document::Fields, is_blank, pem};
use crate::secret::Authorization;

/// An access token of a developer, valid for at most a day and renewed by nobody.
///
/// The AEM Developer Console gives it under Integrations, Local token, as `{accessToken}` (Adobe's page "Local
/// Development Access Token"); many keep the bare token.
#[derive(Debug, Clone)]
pub struct LocalToken {
    authorization: Authorization,
    created_at: SystemTime,
    expires_at: SystemTime,
    client_id: Option<String>,
    user_id: Option<String>,
    scopes: Vec<String>,
}

/// Why a text is not a token that could be sent to AEM. No message shows anything of it.
#[derive(Debug, thiserror::Error)]
pub enum LocalTokenError {
    /// Not three parts of base64url, or no claims in the second one.
    #[error(
        "is not an access token, or not a whole one: copy all of it from the AEM Developer Console \
         (Integrations, Local token), three parts with dots between"
    )]
    NotAToken,
    /// What is exchanged for a token was taken for one.
    #[error(
        "is not an access token, but a signed JWT such as is exchanged for one: give the service credentials \
         that it was made of, or the token of Integrations, Local token in the AEM Developer Console"
    )]
    Assertion,
    /// `type` says so.
    #[error(
        "is a token of another type than `access_token`, such as a refresh token: give the one of \
         Integrations, Local token in the AEM Developer Console"
    )]
    OtherType,
    /// Adobe's tokens say when they were made and how long they live.
    #[error(
        "does not say when it ends (`created_at` and `expires_in` in milliseconds): give the token of \
         Integrations, Local token in the AEM Developer Console"
    )]
    NoEnd,
}

impl LocalToken {
    /// Reads a token of which is not known yet whether it is one. One that has ended is read as well.
    ///
    /// # Errors
    /// When it is none, or does not say when it ends.
    pub fn parse(token: &str) -> Result<Self, LocalTokenError> {
        let token = bare(token).ok_or(LocalTokenError::NotAToken)?;
        let claims = Claims::of(token).ok_or(LocalTokenError::NotAToken)?;
        if claims.is_of_another_type() {
            return Err(LocalTokenError::OtherType);
        }
        if claims.is_an_assertion() {
            return Err(LocalTokenError::Assertion);
        }
        let (created_at, lifetime) = claims.life().ok_or(LocalTokenError::NoEnd)?;
        let expires_at = created_at.checked_add(lifetime.min(LIFETIME_MAX)).ok_or(LocalTokenError::NoEnd)?;
        Ok(Self {
            authorization: Authorization::bearer(token).map_err(|_| LocalTokenError::NotAToken)?,
            created_at,
            expires_at,
            client_id: claims.client_id,
            user_id: claims.user_id,
            scopes: claims.scopes,
        })
    }

    pub(super) fn read(top: &Fields<'_>) -> Result<Self, CredentialsError> {
        let name = "accessToken";
        Self::parse(top.text(name)?)
            .map_err(|problem| CredentialsError::AccessToken { field: top.path(name), problem })
    }

    /// The value of the `Authorization` field; the token is a part of it.
    pub fn authorization(&self) -> &Authorization {
        &self.authorization
    }

    /// When it was made, by IMS's clock.
    pub fn created_at(&self) -> SystemTime {
        self.created_at
    }

    /// When it ends, by IMS's clock: counted from when it was made, not from when it is read.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// The client that it was issued to, if it says so.
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// The developer as AEM sees them, if it says so.
    pub fn user_id(&self) -> Option<&str> {
        self.user_id.as_deref()
    }

    /// What it allows, if it says so.
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }
}

/// The token in a text that has the form of one: three parts of base64url, of which the first is a JSON object. White
/// space, quotes and `Bearer` in front are what copying leaves.
pub(super) fn bare(text: &str) -> Option<&str> {
    let around = |c: char| is_blank(c) || c == '"' || c == '\'';
    let text = text.trim_matches(around);
    let token = match text.split_at_checked(BEARER.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(BEARER) => token.trim_matches(around),
        _ => text,
    };
    let (header, rest) = token.split_once('.')?;
    let (payload, signature) = rest.split_once('.')?;
    let is_base64url = |part: &str| !part.is_empty() && part.bytes().all(is_base64url);
    let is_json = || pem::decode_base64(header).is_some_and(|header| header.first() == Some(&b'{'));
    ([header, payload, signature].into_iter().all(is_base64url) && is_json()).then_some(token)
}

/// RFC 4648, section 5; padding is not usual in tokens, but harmless.
fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_=".contains(&byte)
}

const BEARER: &str = "Bearer ";

/// Adobe: "valid for up to 24 hours".
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use base64::{
        Engine,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::credentials::Credentials;

    const CREATED: u64 = 1_700_000_000_000;
    const DAY_MS: u64 = 86_400_000;

    fn token(claims: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","itt":"at"}"#);
        format!("{header}.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn claims() -> Value {
        json!({
            "type": "access_token",
            "client_id": "console",
            "user_id": "A@AdobeID",
            "scope": "openid,AdobeID",
            "created_at": CREATED.to_string(),
            "expires_in": DAY_MS.to_string(),
        })
    }

    fn with(name: &str, value: Value) -> String {
        let mut claims = claims();
        claims[name] = value;
        token(&claims)
    }

    #[track_caller]
    fn check(name: &str, parsed: Result<Credentials, CredentialsError>) {
        match parsed {
            Ok(Credentials::LocalToken(read)) => {
                assert_eq!(read.authorization().expose_credentials(), token(&claims()), "{name}");
                assert_eq!(read.created_at(), UNIX_EPOCH + Duration::from_millis(CREATED), "{name}");
                assert_eq!(read.expires_at(), UNIX_EPOCH + Duration::from_millis(CREATED + DAY_MS), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    #[track_caller]
    fn check_refused(name: &str, parsed: Result<Credentials, CredentialsError>, expected: &str) {
        let error = parsed.expect_err(name).to_string();
        assert!(error.starts_with(expected), "{name}: {error}");
        assert!(error.contains(": ") && !error.contains("eyJ"), "{name}: {error}");
    }

    #[test]
    fn a_local_token_is_read_in_every_form_in_which_it_is_kept() {
        let token = token(&claims());
        let document = json!({"accessToken": token}).to_string();
        for (name, text) in [
            ("the console's", json!({"ok": true, "accessToken": token, "statusCode": 200}).to_string()),
            ("alone in its object", document.clone()),
            ("no integration", json!({"accessToken": token, "integration": null}).to_string()),
            ("with Bearer", json!({"accessToken": format!("Bearer {token}")}).to_string()),
            ("bare", token.clone()),
            ("with a line end", format!("\u{feff}{token}\r\n")),
            ("in quotes", format!("\"{token}\"\n")),
            ("in quotes of a shell", format!("'Bearer {token}'")),
            ("in a field", format!("bearer  {token}")),
        ] {
            check(name, Credentials::parse(text.as_bytes(), None));
            check(name, Credentials::parse_json_or_base64(&text, Some("any")));
            check(name, Credentials::parse_json_or_base64(&STANDARD.encode(&text), None));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{token}\n")).unwrap();
        check("a file", Credentials::read(file.path(), None));
    }

    #[test]
    fn a_local_token_tells_whose_it_is_and_nothing_of_a_technical_account() {
        let credentials = Credentials::parse(token(&claims()).as_bytes(), None).unwrap();
        assert_eq!((credentials.kind(), credentials.client_id()), ("local", Some("console")));
        assert_eq!(credentials.scopes(), ["openid", "AdobeID"]);
        assert!(credentials.org().is_none() && credentials.technical_account_id().is_none());
        assert!(credentials.ims_endpoint().is_none() && credentials.expires_at().is_none());
        assert!(credentials.email().is_none() && credentials.files().is_empty());
        let Credentials::LocalToken(token) = credentials else { panic!("another kind") };
        assert_eq!(token.user_id(), Some("A@AdobeID"));
    }

    /// Whether it has is for the exchange to say, again and again.
    #[test]
    fn a_token_that_has_ended_is_read_all_the_same() {
        let ended = LocalToken::parse(&with("created_at", json!("1000"))).unwrap();
        assert_eq!(ended.expires_at(), UNIX_EPOCH + Duration::from_millis(1000 + DAY_MS));
    }

    #[test]
    fn times_are_milliseconds_as_text_or_as_numbers_and_no_life_is_beyond_a_day() {
        for (value, expected_ms) in [
            (json!("3600000"), 3_600_000),
            (json!(3_600_000), 3_600_000),
            (json!(" 3600000 "), 3_600_000),
            (json!(DAY_MS * 1000), DAY_MS),
        ] {
            let read = LocalToken::parse(&with("expires_in", value)).unwrap();
            assert_eq!(read.expires_at(), UNIX_EPOCH + Duration::from_millis(CREATED + expected_ms));
        }
    }

    #[test]
    fn what_is_no_access_token_is_refused_in_words_of_its_own() {
        let assertion =
            json!({"iss": "A@AdobeOrg", "sub": "B", "aud": "https://ims/c/x", "exp": 1_700_000_300});
        let whole = token(&claims());
        for (name, token, expected) in [
            ("an assertion", token(&assertion), "is not an access token, but a signed JWT"),
            ("a refresh token", with("type", json!("refresh_token")), "is a token of another type"),
            (
                "an authorization code",
                with("type", json!("authorization_code")),
                "is a token of another type",
            ),
            ("no claims of time", token(&json!({"user_id": "x"})), "does not say when it ends"),
            ("exp alone", token(&json!({"exp": 1_700_000_300})), "does not say when it ends"),
            ("no created_at", with("created_at", Value::Null), "does not say when it ends"),
            ("no expires_in", with("expires_in", Value::Null), "does not say when it ends"),
            ("beyond all time", with("created_at", json!(1e22)), "does not say when it ends"),
            ("microseconds", with("created_at", json!(CREATED * 1000)), "does not say when it ends"),
            ("below all time", with("expires_in", json!("-1")), "does not say when it ends"),
            (
                "claims that are cut off",
                whole.replacen(".", ".e", 1),
                "is not an access token, or not a whole",
            ),
        ] {
            check_refused(name, Credentials::parse(token.as_bytes(), None), expected);
            check_refused(name, Credentials::parse_json_or_base64(&token, None), expected);
            let document = json!({"accessToken": token}).to_string();
            let expected = format!("`accessToken` {expected}");
            check_refused(name, Credentials::parse(document.as_bytes(), None), &expected);
        }
        for (value, expected) in [
            (json!("token"), "`accessToken` is not an access token"),
            (json!(whole.split_at(60).0), "`accessToken` is not an access token"),
            (json!("a.b.c"), "`accessToken` is not an access token"),
            (json!(format!("{whole}.x")), "`accessToken` is not an access token"),
            (json!(1), "`accessToken` is not a string"),
            (json!(" "), "`accessToken` is empty"),
        ] {
            let document = json!({"accessToken": value}).to_string();
            check_refused(expected, Credentials::parse(document.as_bytes(), None), expected);
        }
    }

    #[test]
    fn a_local_token_cannot_be_printed() {
        let credentials = Credentials::parse(token(&claims()).as_bytes(), None).unwrap();
        assert!(!format!("{credentials:?} {credentials:#?}").contains("eyJ"));
    }
}
