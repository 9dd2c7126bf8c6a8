//! What others have read wrongly in Adobe's answers and documents, each as the bug that it would be here.
//!
//! Most of them are known from Adobe's own libraries and samples. All go through a whole proxy and a real exchange.

use std::time::{Duration, SystemTime};

use aem_auth_proxy::{
    clock::Clock,
    standin::{
        StandIns,
        ims::{ExpiresIn, Fault, GrantKind},
        ledger::{Look, Verdict},
    },
};
use base64::{
    Engine,
    engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Proxy, Setup, kept};

const HOUR: Duration = Duration::from_secs(3600);

/// A proxy with these credentials, in front of stand-ins that `prepare` may change before it starts.
async fn start(setup: Setup, credentials: impl FnOnce(&StandIns) -> String) -> Proxy {
    let standins = setup.start_standins().await;
    let credentials = credentials(&standins);
    setup.set("CREDENTIALS_JSON", credentials).start_with(standins).await
}

fn jwt(standins: &StandIns) -> String {
    standins.credentials_document.to_string()
}

fn oauth(standins: &StandIns) -> String {
    standins.oauth.lone_project_document().to_string()
}

/// The token of `/status`.
async fn token(proxy: &Proxy) -> Value {
    proxy.status().await["credentials"][0]["token"].take()
}

fn time(token: &Value, name: &str) -> SystemTime {
    humantime::parse_rfc3339(token[name].as_str().expect("a time is told")).unwrap()
}

/// How long `/status` says that the token lives, in whole seconds; one more or less is rounding.
async fn told_lifetime(proxy: &Proxy) -> u64 {
    proxy.ready().await;
    let token = token(proxy).await;
    time(&token, "expires_at").duration_since(time(&token, "issued_at")).unwrap().as_secs()
}

#[track_caller]
fn assert_a_day(seconds: u64) {
    assert!((86_300..=86_401).contains(&seconds), "{seconds} s");
}

/// aio-lib-java adds `expires_in` as milliseconds for every grant.
#[tokio::test]
async fn an_oauth_token_is_not_taken_to_live_86_seconds() {
    let opaque = |standins: &StandIns| {
        standins.ims.set_look(Look::Opaque);
        oauth(standins)
    };
    let proxy = start(Setup::default(), opaque).await;
    assert_a_day(told_lifetime(&proxy).await);
    proxy.stop().await;
}

/// Community code takes a value for milliseconds only beyond ten years of seconds.
#[tokio::test]
async fn a_jwt_token_is_not_taken_to_live_a_thousand_days() {
    let opaque = |standins: &StandIns| {
        standins.ims.set_look(Look::Opaque);
        jwt(standins)
    };
    let proxy = start(Setup::default().token_lifetime(HOUR), opaque).await;
    let seconds = told_lifetime(&proxy).await;
    assert!((3500..=3601).contains(&seconds), "{seconds} s");
    proxy.stop().await;
}

/// aem-headless returns whatever number came, in either unit.
#[tokio::test]
async fn both_kinds_tell_the_same_unit() {
    for look in [Look::Claims, Look::Opaque] {
        let mut told = Vec::new();
        for document in [jwt, oauth] {
            let proxy = start(Setup::default().token_lifetime(HOUR), |standins| {
                standins.ims.set_look(look);
                document(standins)
            })
            .await;
            told.push(told_lifetime(&proxy).await);
            let gauge =
                proxy.metric("aem_proxy_token_expiry_timestamp_seconds{credential=\"default\"}").await;
            let expires_at = time(&token(&proxy).await, "expires_at");
            let expected = expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
            assert!((gauge - expected).abs() <= 1.0, "{gauge} {expected}");
            proxy.stop().await;
        }
        assert!(told[0].abs_diff(told[1]) <= 1, "{look:?}: {told:?}");
    }
}

/// The token's own claims are the source that is in milliseconds always.
#[tokio::test]
async fn an_answer_in_the_wrong_unit_does_not_count_against_the_token_s_own_claims() {
    for (grant, form, document) in [
        (GrantKind::OAuth, ExpiresIn::Raw(json!(86)), oauth as fn(&StandIns) -> String),
        (GrantKind::OAuth, ExpiresIn::Raw(json!("86399999")), oauth),
        (GrantKind::Jwt, ExpiresIn::Seconds, jwt),
    ] {
        let proxy = start(Setup::default(), |standins| {
            standins.ims.set_expires_in_for(grant, form);
            document(standins)
        })
        .await;
        assert_a_day(told_lifetime(&proxy).await);
        proxy.stop().await;
    }
}

/// A shared client of Adobe's keeps its service token without ever looking at its end.
#[tokio::test]
async fn a_cached_token_past_its_end_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("token");
    let setup = || Setup::default().set("TOKEN__CACHE_FILE", cache.display().to_string());
    for document in [jwt, oauth] {
        let first = start(setup(), document).await;
        first.ready().await;
        let mut stored: Value = serde_json::from_str(&kept(&cache).await).unwrap();
        for name in ["issued_at_ms", "expires_at_ms"] {
            stored[name] = json!(stored[name].as_u64().unwrap() - 25 * 3_600_000);
        }
        // In place: the file keeps its mode, without which it would not be believed.
        std::fs::write(&cache, stored.to_string()).unwrap();
        let again = document(&first.standins);
        first.standins.ims.set_always(Some(Fault::internal_error()));
        let second = Setup::default()
            .set("TOKEN__CACHE_FILE", cache.display().to_string())
            .set("CREDENTIALS_JSON", again)
            .upstream(&first.standins.aem_origin)
            .start_without_token()
            .await;
        first.standins.ims.attempts_reach(2).await;
        assert_eq!(second.get("/api/assets.json").await.status(), 503);
        assert_eq!(first.standins.aem.requests(), 0);
        second.stop().await;
        first.stop().await;
        // The next one is to be that of other credentials.
        std::fs::remove_file(&cache).unwrap();
    }
}

#[tokio::test]
async fn a_token_in_memory_past_its_end_is_not_used() {
    let proxy = start(Setup::default().token_lifetime(Duration::from_secs(1)), oauth).await;
    proxy.ready().await;
    proxy.standins.ims.set_always_for(GrantKind::OAuth, Some(Fault::internal_error()));
    let ended = async {
        while proxy.get("/api/assets.json").await.status() != 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the token ends");
    assert_eq!((proxy.standins.aem.expired_seen(), proxy.standins.aem.refused()), (0, 0));
    proxy.stop().await;
}

/// umapi-client asks for the next token when the last one has ended.
#[tokio::test]
async fn a_token_is_refreshed_before_its_end_and_not_at_it() {
    for document in [jwt, oauth] {
        let proxy = start(Setup::default().token_lifetime(Duration::from_secs(4)), document).await;
        proxy.ready().await;
        let first = proxy.standins.ledger.last_issued().unwrap();
        proxy.standins.ims.exchanges_reach(2).await;
        assert_eq!(proxy.standins.ledger.verdict(&first), Verdict::Live);
        proxy.stop().await;
    }
}

/// aem-headless-client-nodejs reports 24 h for any such file.
#[tokio::test]
async fn a_local_token_downloaded_hours_ago_is_not_given_24_hours() {
    let now = Clock::system().now();
    let proxy = start(Setup::default(), |standins| {
        StandIns::local_token_document(&standins.local_token_of(now - HOUR * 20, HOUR * 24)).to_string()
    })
    .await;
    proxy.ready().await;
    let left = time(&token(&proxy).await, "expires_at").duration_since(now).unwrap();
    assert!((HOUR * 4 - Duration::from_secs(2)..=HOUR * 4).contains(&left), "{left:?}");
    proxy.stop().await;
}

/// aio-lib-ims read them as plain base64 until 8.1.1.
#[tokio::test]
async fn claims_with_the_letters_of_base64url_are_read() {
    let user = "ÿÿ>>??~~\u{ffff}@techacct.adobe.com";
    let created_at = Clock::system().now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let claims =
        json!({"created_at": created_at.to_string(), "expires_in": "7200000", "user_id": user}).to_string();
    for payload in [URL_SAFE_NO_PAD.encode(&claims), URL_SAFE.encode(&claims)] {
        assert!(payload.contains('-') && payload.contains('_'), "{payload}");
        let answer = json!({"access_token": format!("e30.{payload}.c2ln"), "expires_in": 60});
        for document in [jwt, oauth] {
            let proxy = start(Setup::default(), |standins| {
                standins.ims.push(Fault::json(StatusCode::OK, &answer));
                document(standins)
            })
            .await;
            assert!((7100..=7201).contains(&told_lifetime(&proxy).await));
            assert_eq!(token(&proxy).await["user_id"], user);
            proxy.stop().await;
        }
    }
}

/// A community tool forgets to split them and makes one claim that no IMS knows.
#[tokio::test]
async fn metascopes_joined_by_commas_become_one_claim_each() {
    let proxy = start(Setup::default(), |standins| {
        let mut document = standins.credentials_document.clone();
        document["integration"]["metascopes"] = "ent_aem_cloud_api, ent_cloudmgr_sdk".into();
        document.to_string()
    })
    .await;
    proxy.standins.ims.attempts_reach(1).await;
    let claims = proxy.standins.ims.last_assertion_claims().unwrap();
    let scopes: Vec<_> =
        claims.as_object().unwrap().iter().filter(|(name, _)| name.contains("/s/")).collect();
    assert_eq!(scopes.len(), 2, "{claims}");
    for (scope, asked) in scopes {
        assert!(scope.ends_with("/s/ent_aem_cloud_api") || scope.ends_with("/s/ent_cloudmgr_sdk"), "{scope}");
        assert_eq!(asked, &Value::Bool(true));
    }
    proxy.stop().await;
}

/// IMS refuses what spaces separate.
#[tokio::test]
async fn scopes_are_sent_with_commas_however_they_were_written() {
    let proxy = start(Setup::default(), |standins| {
        let mut document = standins.oauth.aio_document();
        document["scopes"] = "openid AdobeID,  read_pc.dma_aem_cloud ".into();
        document.to_string()
    })
    .await;
    proxy.ready().await;
    assert_eq!(proxy.standins.ims.last_scope().as_deref(), Some("openid,AdobeID,read_pc.dma_aem_cloud"));
    proxy.stop().await;
}

/// IMS takes a `jti` only if it is an integer, so a UUID there breaks the exchange; and `exp` in whole seconds only.
#[tokio::test]
async fn an_assertion_holds_no_jti_but_an_integer_and_no_fraction_of_a_second() {
    let proxy = Proxy::start().await;
    let claims = proxy.standins.ims.last_assertion_claims().unwrap();
    assert!(claims.get("jti").is_none_or(Value::is_u64), "{claims}");
    assert!(claims["exp"].is_u64() && claims["iat"].is_u64(), "{claims}");
    proxy.stop().await;
}

/// A sample of Adobe's asks IMS for a token with each request.
#[tokio::test]
async fn a_request_does_not_cost_an_exchange() {
    for (document, exchanges) in
        [(jwt as fn(&StandIns) -> String, 1), (oauth, 1), (|standins| standins.local_token(HOUR), 0)]
    {
        let proxy = start(Setup::default(), document).await;
        proxy.ready().await;
        for _ in 0..30 {
            assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
        }
        assert_eq!((proxy.standins.aem.requests(), proxy.standins.ims.attempts()), (30, exchanges));
        proxy.stop().await;
    }
}
