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
