use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;
use crate::ims::{Retry, error::http_date};

/// A token with the claims given, signed by nobody.
fn token(claims: &Value) -> String {
    format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn jwt() -> Credentials {
    Credentials::parse(include_bytes!("../../../tests/fixtures/service_token.json"), None).unwrap()
}

fn oauth() -> Credentials {
    let document = json!({"client_id": "client", "client_secret": "p8e-made-up", "org_id": "A@AdobeOrg"});
    Credentials::parse(document.to_string().as_bytes(), None).unwrap()
}

fn read(status: u16, body: &str) -> Result<Grant, ImsError> {
    read_at(status, body, "Sun, 06 Nov 1994 08:49:37 GMT")
}

/// Reads an answer to a JWT exchange that came at 08:49:37, with `date` as IMS's clock.
fn read_at(status: u16, body: &str, date: &str) -> Result<Grant, ImsError> {
    read_for(&jwt(), status, body, date)
}

fn read_oauth(status: u16, body: &Value) -> Result<Grant, ImsError> {
    read_for(&oauth(), status, &body.to_string(), "Sun, 06 Nov 1994 08:49:37 GMT")
}

fn read_for(credentials: &Credentials, status: u16, body: &str, date: &str) -> Result<Grant, ImsError> {
    let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    Answered {
        answer: Answer { status, debug_id: None, date: http_date(date), received_at: now },
        retry_after: None,
        body: body.as_bytes(),
        asked_at: now,
        credentials,
        now,
    }
    .read()
}

#[track_caller]
fn check_lifetime(body: &Value, expected: Duration) {
    let grant = read(200, &body.to_string()).unwrap();
    assert_eq!(grant.lifetime(), expected, "{body}");
}

const CREATED: u64 = 784_111_777_000;
const DAY_MS: u64 = 86_400_000;
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_tokens_own_claims_decide_its_life_whatever_expires_in_says() {
    let claims = json!({"created_at": CREATED.to_string(), "expires_in": DAY_MS.to_string()});
    for expires_in in [json!(86_399_999), json!(86_399), json!("x"), json!(null), json!(1e300)] {
        check_lifetime(&json!({"access_token": token(&claims), "expires_in": expires_in}), HOUR * 24);
    }
    let numbers = json!({"created_at": CREATED, "expires_in": 3000});
    check_lifetime(&json!({"access_token": token(&numbers)}), Duration::from_secs(3));
}

#[test]
fn without_claims_the_jwt_exchange_counts_in_milliseconds() {
    for (expires_in, expected) in [
        (json!(86_399_999), Duration::from_millis(86_399_999)),
        (json!("86399999"), Duration::from_millis(86_399_999)),
        (json!(3000), Duration::from_secs(3)),
    ] {
        check_lifetime(&json!({"access_token": "opaque", "expires_in": expires_in}), expected);
        check_lifetime(&json!({"access_token": "a.b.c", "expires_in": expires_in}), expected);
    }
}

#[test]
fn without_claims_the_token_endpoint_counts_in_seconds_unless_no_token_lives_so_long() {
    for (expires_in, expected) in [
        (json!(86_399), Duration::from_secs(86_399)),
        (json!("86399"), Duration::from_secs(86_399)),
        (json!(3), Duration::from_secs(3)),
        // More than the cap, yet not milliseconds: an hour's worth of those would be cut to nothing.
        (json!(864_000), HOUR * 24),
        (json!(864_001), Duration::from_millis(864_001)),
        (json!(86_399_999), Duration::from_millis(86_399_999)),
    ] {
        let grant = read_oauth(200, &json!({"access_token": "opaque", "expires_in": expires_in})).unwrap();
        assert_eq!(grant.lifetime(), expected, "{expires_in}");
    }
    let claims = json!({"created_at": CREATED.to_string(), "expires_in": DAY_MS.to_string()});
    let grant = read_oauth(200, &json!({"access_token": token(&claims), "expires_in": 86})).unwrap();
    assert_eq!(grant.lifetime(), HOUR * 24);
}

#[test]
fn a_life_that_no_token_has_is_cut_to_a_day() {
    check_lifetime(&json!({"access_token": "opaque", "expires_in": 86_399_999_000_u64}), HOUR * 24);
}

#[test]
fn a_token_made_earlier_ends_earlier_by_the_clock_of_ims() {
    let claims = json!({"created_at": (CREATED - 7_200_000).to_string(), "expires_in": DAY_MS.to_string()});
    check_lifetime(&json!({"access_token": token(&claims)}), HOUR * 22);

    // This machine is an hour ahead: the token is new all the same.
    let claims = json!({"created_at": (CREATED - 3_600_000).to_string(), "expires_in": DAY_MS.to_string()});
    let body = json!({"access_token": token(&claims)}).to_string();
    let grant = read_at(200, &body, "Sun, 06 Nov 1994 07:49:37 GMT").unwrap();
    assert_eq!(grant.lifetime(), HOUR * 24);
}

#[test]
fn claims_beyond_all_time_are_no_claims() {
    let claims = json!({"created_at": 1e22, "expires_in": DAY_MS});
    check_lifetime(&json!({"access_token": token(&claims), "expires_in": 5000}), Duration::from_secs(5));
}

#[test]
fn a_token_that_ended_by_the_clock_of_ims_is_no_token() {
    let claims = json!({"created_at": CREATED - 2 * DAY_MS, "expires_in": DAY_MS});
    let error = read(200, &json!({"access_token": token(&claims)}).to_string()).unwrap_err();
    assert!(error.to_string().contains("has ended already"), "{error}");
}

#[test]
fn a_certificate_is_judged_by_the_clock_of_ims() {
    // This machine's clock is a century ahead of IMS's: the certificate is not what is wrong.
    let now = http_date("Mon, 06 Nov 2130 08:49:37 GMT").unwrap();
    let credentials = jwt();
    let hint = |date: Option<&str>| {
        let answer = Answer { status: 400, debug_id: None, date: date.and_then(http_date), received_at: now };
        let body = json!({"error": "invalid_token"}).to_string();
        let answered = Answered {
            answer,
            retry_after: None,
            body: body.as_bytes(),
            asked_at: now,
            credentials: &credentials,
            now,
        };
        answered.read().unwrap_err().hint()
    };
    assert!(matches!(hint(Some("Wed, 06 Nov 2030 08:49:37 GMT")), Some(Hint::ClockSkew(1..))));
    assert_eq!(hint(None), Some(Hint::CertificateExpired));
}

#[test]
fn a_grant_tells_account_and_scopes() {
    let claims =
        json!({"created_at": CREATED, "expires_in": 3000, "user_id": "A@techacct.adobe.com", "scope": "a,b"});
    let grant =
        read(200, &json!({"access_token": token(&claims), "token_type": "bearer"}).to_string()).unwrap();
    assert_eq!(grant.user_id.as_deref(), Some("A@techacct.adobe.com"));
    assert_eq!(grant.scopes, ["a", "b"]);
}

#[test]
fn a_grant_tells_client_organisation_and_a_clock_that_is_off() {
    let body = json!({"access_token": "opaque", "expires_in": 3600});
    let grant = read_oauth(200, &body).unwrap();
    assert_eq!((grant.client_id.as_str(), grant.org.as_deref()), ("client", Some("A@AdobeOrg")));
    assert!(grant.renewable && grant.clock_skew_seconds.is_none());
    let grant = read_for(&oauth(), 200, &body.to_string(), "Sun, 06 Nov 1994 08:59:37 GMT").unwrap();
    assert_eq!(grant.clock_skew_seconds, Some(-600));
}

#[test]
fn a_200_that_holds_no_usable_token_is_asked_again_soon() {
    for (body, what) in [
        ("", "something that is not JSON"),
        ("<html>log in</html>", "something that is not JSON"),
        ("[]", "something that is not JSON"),
        ("{\"access_token\":\"ab", "something that is not JSON"),
        ("{}", "no access_token"),
        ("{\"access_token\":\"\"}", "no access_token"),
        ("{\"access_token\":7}", "no access_token"),
        ("{\"access_token\":\"a\"}", "a token without an end"),
        ("{\"access_token\":\"a\",\"expires_in\":-5}", "a token without an end"),
        ("{\"access_token\":\"a\",\"expires_in\":0}", "a token that has ended already"),
        ("{\"access_token\":\"a\\nb\",\"expires_in\":5000}", "a token that no header can carry"),
    ] {
        let error = read(200, body).unwrap_err();
        assert!(
            matches!(&error, ImsError::Malformed { what: found, .. } if *found == what),
            "{body}: {error}"
        );
        assert_eq!(error.retry(), Retry::Soon);
    }
}

/// The table of `Adobe Developer Console, JWT Authentication`, and what is seen beside it.
#[test]
fn every_refusal_is_permanent_and_says_what_it_means() {
    for (status, error, description, hint) in [
        (400, "invalid_client", "", Hint::ClientUnknown),
        (401, "invalid_client", "", Hint::SecretWrong),
        (400, "invalid_token", "anything", Hint::AssertionRefused),
        (
            400,
            "invalid_token",
            "Could not match JWT signature to any of the bindings",
            Hint::CertificateUnknown,
        ),
        (400, "invalid_signature", "", Hint::CertificateUnknown),
        (400, "invalid_scope", "", Hint::MetascopeUnknown),
        (400, "bad_request", "", Hint::FieldMalformed),
        (403, "some_new_word", "", Hint::AssertionRefused),
        (200, "invalid_token", "", Hint::AssertionRefused),
    ] {
        let body = json!({"error": error, "error_description": description}).to_string();
        let error = read(status, &body).unwrap_err();
        assert_eq!((error.retry(), error.hint()), (Retry::Slowly, Some(hint)), "{status} {body}");
    }
}

#[test]
fn every_refusal_of_an_oauth_credential_has_words_of_its_own() {
    for (status, error, hint, words) in [
        (400, "invalid_client", Hint::OAuthClientUnknown, "check client_id"),
        (401, "invalid_client", Hint::OAuthSecretWrong, "add a new one"),
        (400, "invalid_scope", Hint::OAuthScopeNotHeld, "compare scopes"),
        (400, "unauthorized_client", Hint::OAuthRefused, "product profile"),
        (403, "access_denied", Hint::OAuthRefused, "deleted or disabled"),
        (400, "invalid_token", Hint::OAuthRefused, "product profile"),
        (400, "bad_request", Hint::OAuthRefused, "product profile"),
    ] {
        let body = json!({"error": error, "error_description": "Could not match JWT signature"});
        let error = read_oauth(status, &body).unwrap_err();
        assert_eq!((error.retry(), error.hint()), (Retry::Slowly, Some(hint)), "{status} {body}");
        assert!(error.is_permanent() && hint.to_string().contains(words), "{hint}");
    }
}

#[test]
fn trouble_at_ims_does_not_send_an_oauth_credential_to_be_migrated() {
    let error = read_oauth(500, &json!({"error": "internal_error"})).unwrap_err();
    assert_eq!((error.retry(), error.hint()), (Retry::Soon, Some(Hint::Unavailable)));
    assert!(!error.is_permanent());
}

#[test]
fn a_refused_assertion_on_a_machine_with_a_wrong_clock_says_so() {
    let body = json!({"error": "invalid_token"}).to_string();
    let error = read_at(400, &body, "Sun, 06 Nov 1994 08:59:37 GMT").unwrap_err();
    assert_eq!(error.hint(), Some(Hint::ClockSkew(-600)));
    assert!(Hint::ClockSkew(-600).to_string().contains("600 s behind"));
}

#[test]
fn trouble_at_ims_is_transient() {
    for (status, body, retry) in [
        (500, "{\"error\":\"internal_error\"}", Retry::Soon),
        (500, "", Retry::Soon),
        (503, "<html>", Retry::Soon),
        (429, "", Retry::Soon),
        // A gateway's own refusals, without IMS's word: not the credentials' fault.
        (403, "<html>blocked</html>", Retry::Soon),
        (404, "{}", Retry::Soon),
        (302, "", Retry::Soon),
    ] {
        let error = read(status, body).unwrap_err();
        assert_eq!(error.retry(), retry, "{status} {body}: {error}");
    }
    assert_eq!(read(500, "{\"error\":\"internal_error\"}").unwrap_err().hint(), Some(Hint::Migrated));
}

#[test]
fn a_word_that_is_a_secret_is_no_error_code() {
    let document = json!({"client_id": "client", "client_secret": "open_sesame_please"});
    let credentials = Credentials::parse(document.to_string().as_bytes(), None).unwrap();
    for word in ["open_sesame_please", "is_open_sesame_please_known", "sesame_please"] {
        for status in [400, 500] {
            let body = json!({"error": word}).to_string();
            let error = read_for(&credentials, status, &body, "Sun, 06 Nov 1994 08:49:37 GMT").unwrap_err();
            assert!(!format!("{error} {error:?}").contains("sesame"), "{word}");
        }
    }
    let body = json!({"error": "open_sesame"}).to_string();
    let error = read_oauth(400, &serde_json::from_str(&body).unwrap()).unwrap_err();
    assert!(error.to_string().contains("open_sesame"), "what is no secret is told");
}

#[test]
fn nothing_of_a_body_gets_into_an_error() {
    let secret = "eyJSECRETSECRETSECRET";
    for (status, body) in [
        (200, format!("{{\"access_token\": [\"{secret}\"]}}")),
        (200, format!("{{\"access_token\": \"{secret}")),
        (400, format!("{{\"error\": \"{secret}\", \"error_description\": \"{secret}\"}}")),
        (400, format!("{{\"error\": \"invalid_token\", \"error_description\": \"{secret}\"}}")),
        (500, secret.to_owned()),
    ] {
        let error = read(status, &body).unwrap_err();
        let hint = error.hint().map(|hint| hint.to_string());
        assert!(!format!("{error} {error:?} {hint:?}").contains("SECRET"), "{error:?}");
    }
}
