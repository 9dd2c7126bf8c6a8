//! New credentials without a restart: SIGHUP reads them, and they have to work before they are used.

use std::{path::Path, time::Duration};

use aem_auth_proxy::standin::{StandIns, ims::Fault};
use http::StatusCode;

use crate::{
    harness::{PATIENCE, Proxy, Setup},
    log,
};

/// A proxy that reads its credentials from `file`.
async fn start(file: &Path, document: impl FnOnce(&StandIns) -> String) -> Proxy {
    let setup = Setup::default().set("CREDENTIALS_FILE", file.display().to_string());
    let standins = setup.start_standins().await;
    std::fs::write(file, document(&standins)).unwrap();
    let proxy = setup.start_with(standins).await;
    proxy.ready().await;
    proxy
}

fn right(standins: &StandIns) -> String {
    standins.credentials_document.to_string()
}

async fn until_logged(part: &str, times: usize) {
    let logged = async {
        while log::count(part) < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, logged).await.unwrap_or_else(|_| panic!("{part:?} was not logged"));
}

#[tokio::test]
async fn new_credentials_are_exchanged_and_take_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("service_token.json");
    let proxy = start(&file, right).await;
    let mut document = proxy.standins.credentials_document.clone();
    document["integration"]["email"] = "another@techacct.adobe.com".into();
    std::fs::write(&file, document.to_string()).unwrap();
    proxy.hang_up().await;
    let changed = async {
        while proxy.status().await["credentials"][0]["email"] != "another@techacct.adobe.com" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, changed).await.expect("the new credentials are in use");
    assert_eq!(proxy.status().await["credentials"][0]["token"]["generation"], 2);
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    proxy.stop().await;
}

#[tokio::test]
async fn credentials_that_do_not_work_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("service_token.json");
    let proxy = start(&file, right).await;

    std::fs::write(&file, "{\"integration\": {\"half").unwrap();
    proxy.hang_up().await;
    until_logged("The new credentials are unusable, the old ones stay", 1).await;

    std::fs::write(&file, right(&proxy.standins)).unwrap();
    proxy.standins.ims.push(Fault::refusal(StatusCode::UNAUTHORIZED, "invalid_client", ""));
    proxy.hang_up().await;
    until_logged("The new credentials brought no token", 1).await;

    let status = proxy.status().await;
    let token = &status["credentials"][0]["token"];
    assert_eq!((&token["generation"], &token["valid"]), (&1.into(), &true.into()));
    assert_eq!(token["last_error"], serde_json::Value::Null);
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    proxy.stop().await;
}

#[tokio::test]
async fn wrong_credentials_at_start_are_mended_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("service_token.json");
    let setup = Setup::default().set("CREDENTIALS_FILE", file.display().to_string());
    let standins = setup.start_standins().await;
    let mut document = standins.credentials_document.clone();
    document["integration"]["technicalAccount"]["clientSecret"] = "p8e-wrong".into();
    std::fs::write(&file, document.to_string()).unwrap();
    let proxy = setup.start_with(standins).await;
    proxy.standins.ims.attempts_reach(1).await;
    assert_eq!(proxy.ask("/ready").await.0, 503);

    std::fs::write(&file, right(&proxy.standins)).unwrap();
    proxy.hang_up().await;
    proxy.ready().await;
    proxy.stop().await;
}

/// With an email of its own, so that the file differs.
fn named(standins: &StandIns, name: &str) -> serde_json::Value {
    let mut document = standins.credentials_document.clone();
    document["integration"]["email"] = format!("{name}@techacct.adobe.com").into();
    document
}

fn wrong(standins: &StandIns) -> String {
    let mut document = named(standins, "wrong");
    document["integration"]["technicalAccount"]["clientSecret"] = "p8e-wrong".into();
    document.to_string()
}

#[tokio::test]
async fn a_token_that_is_bought_already_is_used_though_an_exchange_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("service_token.json");
    // Longer than the test waits for anything.
    let setup = Setup::default()
        .set("CREDENTIALS_FILE", file.display().to_string())
        .set("TIMEOUTS__IMS", "1h")
        .set("WATCH__POLL", "1h");
    let standins = setup.start_standins().await;
    std::fs::write(&file, right(&standins)).unwrap();
    standins.ims.push(Fault::Hang);
    let proxy = setup.start_with(standins).await;
    proxy.standins.ims.attempts_reach(1).await;
    assert_eq!(proxy.ask("/ready").await.0, 503);
    proxy.hang_up().await;
    proxy.ready().await;
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    assert_eq!(proxy.standins.ims.exchanges(), 1);

    // New credentials that hang hold up neither this token nor the next credentials.
    proxy.standins.ims.push(Fault::Hang);
    std::fs::write(&file, named(&proxy.standins, "hangs").to_string()).unwrap();
    proxy.hang_up().await;
    proxy.standins.ims.attempts_reach(3).await;
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    std::fs::write(&file, named(&proxy.standins, "works").to_string()).unwrap();
    proxy.hang_up().await;
    until_in_use(&proxy, "works").await;
    proxy.stop().await;
}

async fn until_in_use(proxy: &Proxy, name: &str) {
    let email = format!("{name}@techacct.adobe.com");
    let changed = async {
        while proxy.status().await["credentials"][0]["email"] != *email {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, changed).await.unwrap_or_else(|_| panic!("{email} is not in use"));
}

#[tokio::test]
async fn a_wrong_document_that_comes_in_an_outage_does_not_evict_the_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("service_token.json");
    let setup = Setup::default().set("CREDENTIALS_FILE", file.display().to_string());
    let standins = setup.start_standins().await;
    std::fs::write(&file, right(&standins)).unwrap();
    standins.ims.set_always(Some(Fault::internal_error()));
    let proxy = setup.start_with(standins).await;
    proxy.standins.ims.attempts_reach(1).await;
    std::fs::write(&file, wrong(&proxy.standins)).unwrap();
    proxy.hang_up().await;
    until_logged("the old ones stay and bring none either; both are tried", 1).await;
    proxy.standins.ims.set_always(None);
    let served = async {
        while proxy.get("/api/assets.json").await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.expect("the right ones bring a token");
    assert_eq!(
        proxy.status().await["credentials"][0]["email"],
        proxy.standins.credentials_document["integration"]["email"]
    );
    proxy.stop().await;
}

#[tokio::test]
async fn many_signals_buy_one_token_and_another_one_later() {
    let proxy = Proxy::start().await;
    for _ in 0..200 {
        proxy.hang_up().await;
        // Each is heard of before the next one comes.
        proxy.status().await;
    }
    proxy.standins.ims.exchanges_reach(2).await;
    for _ in 0..100 {
        proxy.status().await;
    }
    assert_eq!(proxy.standins.ims.attempts(), 2, "the first one, and one for the signals so far");
    // Those that came too early are not lost.
    let later = proxy.standins.ims.exchanges_reach(3);
    tokio::time::timeout(2 * PATIENCE, later).await.expect("IMS is asked once more");
    proxy.stop().await;
}

#[tokio::test]
async fn a_changed_file_is_tried_at_once_after_many_signals() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("service_token.json");
    let proxy = start(&file, right).await;
    for _ in 0..100 {
        proxy.hang_up().await;
    }
    std::fs::write(&file, named(&proxy.standins, "changed").to_string()).unwrap();
    proxy.hang_up().await;
    until_in_use(&proxy, "changed").await;
    proxy.stop().await;
}
