//! The token's life under load: nobody notices a refresh.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use aem_auth_proxy::standin::ims::ExpiresIn;
use tokio::task::JoinSet;

use crate::harness::{Proxy, Setup, kept};

/// Tokens of 3 s, and some refreshes; `AEM_PROXY_TEST_SECONDS=60` goes on for that long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_notice_no_refresh() {
    let seconds = std::env::var("AEM_PROXY_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    let refreshes = seconds.map_or(3, |seconds: usize| seconds * 10 / 45);
    let proxy = Arc::new(Setup::default().tls().token_lifetime(Duration::from_secs(6)).start().await);
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..64 {
        let (proxy, stop, sent) = (proxy.clone(), stop.clone(), sent.clone());
        clients.spawn(async move {
            let mut app = proxy.connect().await;
            while !stop.load(Relaxed) {
                app.send("GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
                let answer = app.response().await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                sent.fetch_add(1, Relaxed);
            }
        });
    }
    let exchanges = proxy.standins.ims.exchanges();
    tokio::time::timeout(Duration::from_secs(120), proxy.standins.ims.exchanges_reach(exchanges + refreshes))
        .await
        .expect("the token is refreshed");
    stop.store(true, Relaxed);
    while let Some(client) = clients.join_next().await {
        client.expect("no request fails");
    }
    let (ims, aem) = (&proxy.standins.ims, &proxy.standins.aem);
    assert_eq!((aem.expired_seen(), aem.refused()), (0, 0));
    assert_eq!(aem.requests(), sent.load(Relaxed));
    assert_eq!(ims.attempts(), ims.exchanges());
    let generation = proxy.status().await["credentials"][0]["token"]["generation"].as_u64().unwrap();
    assert!(ims.exchanges() as u64 - generation <= 1, "one exchange for each refresh");
    println!("{} requests over {} tokens", sent.load(Relaxed), ims.exchanges());
}

#[tokio::test]
async fn every_form_of_expires_in_gives_the_same_end() {
    for form in [
        ExpiresIn::Milliseconds,
        ExpiresIn::Text,
        ExpiresIn::Omitted,
        ExpiresIn::Raw(serde_json::json!(86_399)),
    ] {
        let setup = Setup::default();
        let standins = setup.start_standins().await;
        standins.ims.set_expires_in(form);
        let proxy = setup.start_with(standins).await;
        proxy.ready().await;
        let status = proxy.status().await;
        let token = &status["credentials"][0]["token"];
        let time = |name: &str| humantime::parse_rfc3339(token[name].as_str().unwrap()).unwrap();
        let lifetime = time("expires_at").duration_since(time("issued_at")).unwrap();
        assert!((86_300..=86_401).contains(&lifetime.as_secs()), "{lifetime:?}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_cached_token_saves_the_exchange_of_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("token");
    let setup = || Setup::default().set("TOKEN__CACHE_FILE", cache.display().to_string());
    let standins = setup().start_standins().await;
    let document = standins.credentials_document.to_string();
    let first = setup().start_with(standins).await;
    first.ready().await;
    assert!(!kept(&cache).await.is_empty());

    // The same credentials in a second process: no exchange, and AEM takes the token.
    let second = Setup::default()
        .set("TOKEN__CACHE_FILE", cache.display().to_string())
        .set("CREDENTIALS_JSON", document)
        .upstream(&first.standins.aem_origin)
        .start()
        .await;
    assert_eq!(second.get("/api/assets.json").await.status(), 200);
    assert_eq!((first.standins.ims.attempts(), second.standins.ims.attempts()), (1, 0));
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn claims_are_short_lived_and_hold_what_ims_asks_for() {
    let proxy = Proxy::start().await;
    let claims = proxy.standins.ims.last_assertion_claims().unwrap();
    let (iat, exp) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert_eq!(exp - iat, 360);
    assert!(claims.get("jti").is_none() && claims.get("nbf").is_none());
    proxy.stop().await;
}
