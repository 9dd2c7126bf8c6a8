//! Documents of every kind in place of service credentials: the proxy takes them as they are.

use std::time::Duration;

use aem_auth_proxy::standin::{LOCAL_CLIENT_ID, StandIns};
use serde_json::Value;

use crate::{
    harness::{PATIENCE, Proxy, Setup},
    log,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A proxy in front of stand-ins, with what `credentials` makes of them in the variable.
async fn start(credentials: impl FnOnce(&StandIns) -> String) -> Proxy {
    let setup = Setup::default();
    let standins = setup.start_standins().await;
    let credentials = credentials(&standins);
    setup.set("CREDENTIALS_JSON", credentials).start_with(standins).await
}

/// Whose token AEM got.
async fn client(proxy: &Proxy) -> String {
    let answer = proxy.get("/api/assets.json").await;
    assert_eq!(answer.status(), 200);
    answer.headers()["x-standin-client"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_shape_of_an_oauth_credential_gets_into_aem() {
    let documents: [fn(&StandIns) -> Value; 4] = [
        |standins| standins.oauth.lone_project_document(),
        |standins| standins.oauth.aio_document(),
        |standins| standins.oauth.upper_case_document(),
        |standins| standins.oauth.camel_case_document(),
    ];
    for document in documents {
        let proxy = start(|standins| document(standins).to_string()).await;
        proxy.ready().await;
        assert_eq!(client(&proxy).await, proxy.standins.oauth.client_id());
        let status = proxy.status().await;
        let credential = &status["credentials"][0];
        assert_eq!(credential["kind"], "oauth");
        assert_eq!(credential["client_id"], proxy.standins.oauth.client_id());
        assert_eq!(credential["certificate_expires_at"], Value::Null);
        assert_eq!((proxy.standins.ims.oauth_attempts(), proxy.standins.ims.jwt_attempts()), (1, 0));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_local_token_gets_into_aem_without_ims() {
    let forms: [fn(&str) -> String; 2] =
        [|token| StandIns::local_token_document(token).to_string(), |token| format!("{token}\n")];
    for form in forms {
        let proxy = start(|standins| form(&standins.local_token(HOUR))).await;
        proxy.ready().await;
        assert_eq!(client(&proxy).await, LOCAL_CLIENT_ID);
        let status = proxy.status().await;
        assert_eq!(status["credentials"][0]["kind"], "local");
        let token = &status["credentials"][0]["token"];
        assert_eq!(token["next_refresh"], token["expires_at"]);
        assert_eq!(proxy.standins.ims.attempts(), 0);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_local_token_that_has_ended_is_told_and_not_sent() {
    let proxy = start(|standins| {
        let yesterday = aem_auth_proxy::clock::Clock::system().now() - HOUR * 25;
        StandIns::local_token_document(&standins.local_token_of(yesterday, HOUR * 24)).to_string()
    })
    .await;
    let name = "aem_proxy_token_refreshes_total{credential=\"default\",outcome=\"expired\"}";
    let told = async {
        while proxy.metric(name).await < 1.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("the end is told");
    assert_eq!(proxy.ask("/ready").await.0, 503);
    let error = &proxy.status().await["credentials"][0]["token"]["last_error"];
    assert_eq!(error["class"], "expired");
    assert!(error["hint"].as_str().unwrap().contains("Integrations, Local token"), "{error}");
    assert_eq!(proxy.get("/api/assets.json").await.status(), 503);
    assert_eq!((proxy.standins.aem.requests(), proxy.standins.ims.attempts()), (0, 0));
    proxy.stop().await;
}

#[tokio::test]
async fn while_secrets_are_rotated_the_one_that_lives_is_used_and_the_other_told_once() {
    let setup = Setup::default().token_lifetime(Duration::from_secs(2));
    let standins = setup.start_standins().await;
    standins.ims.set_oauth_secrets(&standins.oauth.client_secrets()[1..]);
    let document = standins.oauth.aio_document().to_string();
    let client_id = standins.oauth.client_id().to_owned();
    let proxy = setup.set("CREDENTIALS_JSON", document).start_with(standins).await;
    proxy.ready().await;
    let ims = &proxy.standins.ims;
    ims.exchanges_reach(2).await;
    assert_eq!(client(&proxy).await, client_id);
    assert_eq!(ims.oauth_attempts(), ims.oauth_exchanges() + 1);
    let told =
        format!("Secret 1 of 2 was refused, secret 2 works: remove the old one client_id=\"{client_id}\"");
    assert_eq!(log::count(&told), 1);
    proxy.stop().await;
}
