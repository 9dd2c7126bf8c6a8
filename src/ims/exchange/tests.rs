use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::*;
use crate::{
    ims::{DEFAULT_ENDPOINT, Hint, Limits, Retry},
    standin::{
        Options, StandIns,
        ims::{ExpiresIn, Fault, GrantKind},
        keys::tests::credentials,
        ledger::Look,
        oauth::NAME,
    },
    tls,
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

async fn standins() -> StandIns {
    tls::install();
    let options = Options { credentials: Some(credentials("elsewhere")), ..Options::default() };
    StandIns::start(options).await.unwrap()
}

fn parse(document: &Value) -> Credentials {
    Credentials::parse(document.to_string().as_bytes(), Some(NAME)).unwrap()
}

fn exchange(document: &Value) -> CredentialExchange {
    let credentials = parse(document);
    let endpoint: Endpoint = credentials.ims_endpoint().unwrap_or(DEFAULT_ENDPOINT).parse().unwrap();
    CredentialExchange::at_ims(http(), endpoint, Arc::new(credentials), Clock::system())
}

fn http() -> Http {
    let tls = tls::client_config(tls::roots(None).unwrap()).unwrap();
    Http::new(tls::current(tls), Limits { connect: MINUTE, total: MINUTE }, None).unwrap()
}

fn local(token: &str, clock: &Clock) -> CredentialExchange {
    match Credentials::parse(token.as_bytes(), None) {
        Ok(Credentials::LocalToken(token)) => CredentialExchange::of_local_token(token, clock.clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_document_of_an_oauth_credential_is_exchanged_for_its_token() {
    let standins = standins().await;
    let oauth = &standins.oauth;
    for document in [
        oauth.project_document(),
        oauth.aio_document(),
        oauth.upper_case_document(),
        oauth.camel_case_document(),
    ] {
        let exchange = exchange(&document);
        let grant = exchange.exchange().await.unwrap();
        assert_eq!(
            (grant.client_id.as_str(), grant.org.as_deref()),
            (oauth.client_id(), exchange.credentials().org())
        );
        assert_eq!(grant.user_id.as_deref(), Some(oauth.technical_account_id()));
        assert_eq!(grant.scopes, oauth.scopes());
        assert!(grant.renewable && grant.clock_skew_seconds.is_none());
        assert_eq!(grant.lifetime().as_secs(), 86_399);
    }
    assert_eq!((standins.ims.oauth_exchanges(), standins.ims.attempts()), (4, 4));
    assert_eq!(standins.ims.last_scope(), Some(oauth.scopes().join(",")));
}

#[tokio::test]
async fn a_credential_without_scopes_asks_for_none_in_particular() {
    let standins = standins().await;
    let mut document = standins.oauth.aio_document();
    document["scopes"] = json!([]);
    assert_eq!(exchange(&document).exchange().await.unwrap().scopes, standins.oauth.scopes());
    assert_eq!(standins.ims.last_scope(), None);
}

#[tokio::test]
async fn a_dead_secret_costs_one_attempt_and_the_one_that_works_is_remembered() {
    let standins = standins().await;
    let (ims, secrets) = (&standins.ims, standins.oauth.client_secrets());
    let exchange = exchange(&standins.oauth.aio_document());
    exchange.exchange().await.unwrap();
    assert_eq!(ims.oauth_attempts(), 1);

    ims.set_oauth_secrets(&secrets[1..]);
    exchange.exchange().await.unwrap();
    assert_eq!(ims.oauth_attempts(), 3);
    exchange.exchange().await.unwrap();
    assert_eq!(ims.oauth_attempts(), 4);

    ims.set_oauth_secrets(&secrets[..1]);
    exchange.exchange().await.unwrap();
    assert_eq!(ims.oauth_attempts(), 6);

    ims.set_oauth_secrets(&[]);
    let error = exchange.exchange().await.unwrap_err();
    assert_eq!((error.retry(), error.hint()), (Retry::Slowly, Some(Hint::OAuthSecretWrong)));
    assert_eq!(ims.oauth_attempts(), 8);
}

#[tokio::test]
async fn only_a_refused_client_is_a_reason_to_try_another_secret() {
    let standins = standins().await;
    let exchange = exchange(&standins.oauth.aio_document());
    for fault in [
        Fault::throttled(Some(7)),
        Fault::internal_error(),
        Fault::refusal(http::StatusCode::BAD_REQUEST, "invalid_scope", ""),
        Fault::Close,
    ] {
        standins.ims.push(fault);
        exchange.exchange().await.unwrap_err();
    }
    assert_eq!(standins.ims.oauth_attempts(), 4);
    // The outage in between is what counts, not the refusal before it.
    standins.ims.set_oauth_secrets(&standins.oauth.client_secrets()[1..]);
    standins.ims.push(Fault::Delay(Duration::ZERO));
    standins.ims.push(Fault::internal_error());
    assert_eq!(exchange.exchange().await.unwrap_err().retry(), Retry::Soon);
}

#[tokio::test]
async fn what_is_wrong_with_an_oauth_credential_is_said_in_words_of_its_own() {
    let standins = standins().await;
    let document = standins.oauth.aio_document();
    let with = |name: &str, value: Value| {
        let mut document = document.clone();
        document[name] = value;
        document
    };
    for (document, hint) in [
        (with("client_id", json!("another")), Hint::OAuthClientUnknown),
        (with("client_secrets", json!(["p8e-wrong"])), Hint::OAuthSecretWrong),
        (with("scopes", json!("openid,not_held")), Hint::OAuthScopeNotHeld),
    ] {
        let error = exchange(&document).exchange().await.unwrap_err();
        assert_eq!((error.class(), error.hint()), ("refused", Some(hint)));
    }
}

#[tokio::test]
async fn an_answer_without_token_type_is_taken() {
    let standins = standins().await;
    standins.ims.set_token_type(false);
    for document in [standins.oauth.aio_document(), standins.credentials_document.clone()] {
        exchange(&document).exchange().await.unwrap();
    }
}

#[tokio::test]
async fn each_kind_counts_in_its_own_unit_where_the_token_tells_nothing() {
    let standins = standins().await;
    standins.ims.set_look(Look::Opaque);
    let oauth = exchange(&standins.oauth.aio_document());
    let jwt = exchange(&standins.credentials_document);
    assert_eq!(oauth.exchange().await.unwrap().lifetime(), Duration::from_secs(86_399));
    assert_eq!(jwt.exchange().await.unwrap().lifetime(), Duration::from_millis(86_399_999));
    standins.ims.set_expires_in_for(GrantKind::OAuth, ExpiresIn::Milliseconds);
    assert_eq!(oauth.exchange().await.unwrap().lifetime(), Duration::from_millis(86_399_999));
}

#[tokio::test]
async fn a_clock_that_is_off_is_told_with_the_grant() {
    let standins = standins().await;
    standins.ims.set_date_offset_seconds(-600);
    let grant = exchange(&standins.oauth.aio_document()).exchange().await.unwrap();
    assert!((550..=650).contains(&grant.clock_skew_seconds.unwrap()), "{:?}", grant.clock_skew_seconds);
}

#[tokio::test]
async fn a_local_token_is_its_own_grant_until_it_ends() {
    let standins = standins().await;
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let clock = Clock::paused_at(start);
    let exchange = local(&standins.local_token_of(start - HOUR * 20, HOUR * 24), &clock);
    let grant = exchange.exchange().await.unwrap();
    assert_eq!((grant.issued_at, grant.expires_at), (start - HOUR * 20, start + HOUR * 4));
    assert!(!grant.renewable && grant.org.is_none() && grant.clock_skew_seconds.is_none());
    assert_eq!(grant.user_id.as_deref(), Some("ABCDEF0123456789ABCDEF01@AdobeID"));
    assert_eq!(grant.client_id, crate::standin::LOCAL_CLIENT_ID);
    assert!(exchange.endpoint().is_none() && exchange.credentials().kind() == "local");

    clock.skip(HOUR * 4);
    match exchange.exchange().await {
        Err(ImsError::LocalTokenEnded { at }) => assert_eq!(at, start + HOUR * 4),
        other => panic!("{other:?}"),
    }
    assert_eq!(standins.ims.attempts(), 0);
}

#[tokio::test]
async fn a_local_token_is_sent_to_no_ims_even_if_there_is_one() {
    tls::install();
    let standins = standins().await;
    let clock = Clock::system();
    let token = standins.local_token(HOUR);
    let endpoint: Endpoint = standins.ims_endpoint.parse().unwrap();
    let credentials = Arc::new(Credentials::parse(token.as_bytes(), None).unwrap());
    let exchange = CredentialExchange::at_ims(http(), endpoint, credentials, clock);
    exchange.exchange().await.unwrap();
    assert!(exchange.endpoint().is_none());
    assert_eq!(standins.ims.attempts(), 0);
}

#[test]
fn a_local_token_that_does_not_say_whose_it_is_is_nobody_s() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let clock = Clock::system();
    let now = clock.now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let claims = json!({"created_at": now.to_string(), "expires_in": "60000"});
    let exchange = local(&format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string())), &clock);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let grant = runtime.block_on(exchange.exchange()).unwrap();
    assert_eq!((grant.client_id.as_str(), grant.user_id), ("", None));
    assert!(!format!("{exchange:?}").contains("e30."));
}
