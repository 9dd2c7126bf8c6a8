//! The bridge from JWT to OAuth: another credential takes over when IMS refuses one for good.

use std::time::Duration;

use aem_auth_proxy::standin::ims::{Fault, GrantKind};
use http::StatusCode;

use crate::{
    harness::{PATIENCE, Proxy, Setup},
    log,
    named::both,
};

/// `main` with the fallback `open-api`. `name` takes the place of `main`, so that its log lines can be told from others.
async fn start(name: &str, prepare: impl FnOnce(&aem_auth_proxy::standin::StandIns)) -> Proxy {
    let setup = Setup::default().token_lifetime(Duration::from_secs(2));
    let standins = setup.start_standins().await;
    prepare(&standins);
    let mut setup = both(setup, &standins);
    for (variable, _) in &mut setup.variables {
        *variable = variable.replace("__MAIN__", &format!("__{name}__"));
    }
    setup
        .set(&format!("CREDENTIALS__{name}__FALLBACK"), "open-api")
        .set("PROXIES__AUTHOR__LISTEN", "127.0.0.1:0")
        .set("PROXIES__AUTHOR__UPSTREAM", standins.aem_origin.clone())
        .start_with(standins)
        .await
}

/// Asks until AEM gets a token of `client`; no request fails meanwhile.
async fn until_sent(proxy: &Proxy, client: &str) {
    let asking = async {
        loop {
            let answer = proxy.get("/api/assets.json").await;
            assert_eq!(answer.status(), 200);
            if answer.headers()["x-standin-client"] == *client {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{client} does not come"));
}

fn jwt(proxy: &Proxy) -> String {
    let document = &proxy.standins.credentials_document["integration"];
    document["technicalAccount"]["clientId"].as_str().unwrap().to_owned()
}

fn unknown_certificate() -> Fault {
    let description = "Could not match JWT signature to any of the bindings";
    Fault::refusal(StatusCode::BAD_REQUEST, "invalid_token", description)
}

#[tokio::test]
async fn the_fallback_takes_over_when_the_first_is_refused_and_gives_way_when_it_is_not() {
    let proxy = start("BRIDGED", |_| {}).await;
    proxy.ready().await;
    let (jwt, oauth) = (jwt(&proxy), proxy.standins.oauth.client_id().to_owned());
    let metric = "aem_proxy_credential_fallback_active{credential=\"bridged\",fallback=\"open-api\"}";
    until_sent(&proxy, &jwt).await;
    assert_eq!(proxy.metric(metric).await, 0.0);
    assert_eq!(proxy.status().await["credentials"][0]["fallback"]["active"], false);

    proxy.standins.ims.set_always_for(GrantKind::Jwt, Some(unknown_certificate()));
    until_sent(&proxy, &oauth).await;
    assert_eq!(proxy.metric(metric).await, 1.0);
    let status = proxy.status().await;
    let fallback = &status["credentials"][0]["fallback"];
    assert_eq!((&fallback["name"], &fallback["active"]), (&"open-api".into(), &true.into()));
    assert!(fallback["since"].is_string(), "{status}");
    assert_eq!(proxy.ask("/ready").await.0, 200);
    // The own token has ended meanwhile: only the fallback's is there.
    let ended = async {
        while proxy.status().await["credentials"][0]["token"]["valid"] == true {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the token ends");
    until_sent(&proxy, &oauth).await;
    assert_eq!(proxy.ask("/ready").await.0, 200);
    let told =
        "IMS refuses the credentials, the fallback takes over credential=\"bridged\" fallback=\"open-api\"";
    assert_eq!(log::count(told), 1);

    // A person mends it, and says so.
    proxy.standins.ims.set_always_for(GrantKind::Jwt, None);
    proxy.hang_up().await;
    until_sent(&proxy, &jwt).await;
    assert_eq!(proxy.metric(metric).await, 0.0);
    assert_eq!(proxy.status().await["credentials"][0]["fallback"]["active"], false);
    proxy.stop().await;
}

#[tokio::test]
async fn the_fallback_is_there_from_the_start() {
    let proxy = start("DEAD", |standins| {
        standins.ims.set_always_for(GrantKind::Jwt, Some(unknown_certificate()));
    })
    .await;
    proxy.ready().await;
    assert_eq!(proxy.ask("/startup").await.0, 200);
    until_sent(&proxy, proxy.standins.oauth.client_id()).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_project_that_was_moved_answers_internal_errors_for_ever_and_the_fallback_takes_over() {
    let proxy = start("MOVED", |standins| {
        standins.ims.set_always_for(GrantKind::Jwt, Some(Fault::internal_error()));
    })
    .await;
    proxy.ready().await;
    assert!(proxy.standins.ims.jwt_attempts() >= 3);
    until_sent(&proxy, proxy.standins.oauth.client_id()).await;
    proxy.stop().await;
}

#[tokio::test]
async fn an_ims_that_is_down_is_no_refusal() {
    let proxy = start("DOWN", |standins| {
        standins.ims.set_always_for(GrantKind::Jwt, Some(Fault::throttled(Some(1))));
    })
    .await;
    proxy.standins.ims.attempts_reach(3).await;
    assert_eq!(proxy.ask("/ready").await.0, 503);
    assert_eq!(proxy.status().await["credentials"][0]["fallback"]["active"], false);
    proxy.stop().await;
}

#[tokio::test]
async fn a_fallback_that_does_not_work_keeps_nobody_from_being_ready() {
    let proxy = start("ALONE", |standins| {
        let refused = Fault::refusal(StatusCode::UNAUTHORIZED, "invalid_client", "");
        standins.ims.set_always_for(GrantKind::OAuth, Some(refused));
    })
    .await;
    proxy.ready().await;
    until_sent(&proxy, &jwt(&proxy)).await;
    proxy.stop().await;
}
