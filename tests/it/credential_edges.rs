//! Files of credentials at odd moments, and files that are none.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use aem_auth_proxy::{
    app::App,
    clock::Clock,
    config::{Config, Sources},
    standin::StandIns,
};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    harness::{PATIENCE, Proxy, Seen, Setup, client},
    log,
    rotation::until_logged,
};

/// The document of the stand-ins, told from others by its e-mail address.
fn document(standins: &StandIns, email: &str) -> Value {
    let mut document = standins.credentials_document.clone();
    document["integration"]["email"] = email.into();
    document
}

async fn until_in_use(proxy: &Proxy, email: &str) {
    let changed = async {
        while proxy.status().await["credentials"][0]["email"] != *email {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, changed).await.unwrap_or_else(|_| panic!("{email} is not in use"));
}

/// A proxy with credentials called `name` in a file of a directory.
async fn start(name: &str, setup: Setup, dir: &Path) -> (Proxy, PathBuf) {
    let path = dir.join("token.json");
    let standins = setup.start_standins().await;
    fs::write(&path, document(&standins, "first@techacct.adobe.com").to_string()).unwrap();
    let proxy = setup
        .set(&format!("CREDENTIALS__{name}__FILE"), path.display().to_string())
        .start_with(standins)
        .await;
    proxy.ready().await;
    (proxy, path)
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Beside it and renamed over it, so that nobody meets half of it.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn a_file_that_breaks_while_its_credentials_wait_for_ims_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut proxy, path) = start("WAITING", Setup::default(), dir.path()).await;
    proxy.standins.ims_server.stop().await;
    put(&path, &document(&proxy.standins, "second@techacct.adobe.com").to_string());
    until_logged("The new credentials brought no token, the old ones stay credential=\"waiting\"", 1).await;
    // It is tried again before this is taken for the end of the change.
    fs::write(&path, "").unwrap();
    let unusable = "The new credentials are unusable, the old ones stay credential=\"waiting\"";
    until_logged(unusable, 1).await;
    proxy.standins.ims_server.restart().await.expect("the same port");
    put(&path, &document(&proxy.standins, "third@techacct.adobe.com").to_string());
    until_in_use(&proxy, "third@techacct.adobe.com").await;
    assert_eq!(log::count(unusable), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_pipe_in_place_of_the_file_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::default().token_lifetime(Duration::from_secs(2));
    let (proxy, path) = start("PIPED", setup, dir.path()).await;
    let beside = dir.path().join("pipe");
    pipe(&beside);
    fs::rename(beside, &path).unwrap();
    // Long enough that somebody waits for what comes out of it.
    let exchanges = proxy.standins.ims.exchanges();
    timeout(PATIENCE, proxy.standins.ims.exchanges_reach(exchanges + 2)).await.expect("tokens are refreshed");
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    assert_eq!(proxy.ask("/ready").await.0, 200);
    put(&path, &document(&proxy.standins, "file@techacct.adobe.com").to_string());
    until_in_use(&proxy, "file@techacct.adobe.com").await;
    proxy.stop().await;
}

/// Password managers give a secret so, once.
#[tokio::test]
async fn a_pipe_that_is_written_once_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token.json");
    pipe(&path);
    let setup = Setup::default();
    let standins = setup.start_standins().await;
    let text = standins.credentials_document.to_string();
    let writer = std::thread::spawn({
        let path = path.clone();
        move || fs::write(path, text).unwrap()
    });
    let proxy = setup.set("CREDENTIALS_FILE", path.display().to_string()).start_with(standins).await;
    proxy.ready().await;
    writer.join().unwrap();
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    proxy.stop().await;
}

#[tokio::test]
async fn a_device_without_an_end_in_place_of_the_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (proxy, path) = start("ENDLESS", Setup::default(), dir.path()).await;
    let beside = dir.path().join("link");
    std::os::unix::fs::symlink("/dev/zero", &beside).unwrap();
    fs::rename(beside, &path).unwrap();
    let unusable = "The new credentials are unusable, the old ones stay credential=\"endless\"";
    until_logged(unusable, 1).await;
    put(&path, &document(&proxy.standins, "end@techacct.adobe.com").to_string());
    until_in_use(&proxy, "end@techacct.adobe.com").await;
    assert_eq!(log::count(unusable), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_change_before_anybody_looks_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token.json");
    let standins = Setup::default().start_standins().await;
    fs::write(&path, document(&standins, "first@techacct.adobe.com").to_string()).unwrap();
    let variables = [
        ("AEM_PROXY_UPSTREAM", standins.aem_origin.clone()),
        ("AEM_PROXY_LISTEN", "127.0.0.1:0".to_owned()),
        ("AEM_PROXY_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ("AEM_PROXY_CREDENTIALS_FILE", path.display().to_string()),
    ];
    let variables = variables.map(|(name, value)| (name.into(), value.into())).into_iter().collect();
    let config = Config::load(&Sources { variables, ..Sources::default() }).unwrap();
    let app = App::bind(config, Clock::system()).await.unwrap();
    put(&path, &document(&standins, "second@techacct.adobe.com").to_string());
    let admin = app.admin_addrs()[0];
    let running = tokio::spawn(app.run(std::future::pending::<()>, std::future::pending::<()>));
    let changed = async {
        loop {
            let status = client().get(format!("http://{admin}/status")).send().await.unwrap();
            let status: Value = serde_json::from_str(&status.text().await.unwrap()).unwrap();
            if status["credentials"][0]["email"] == "second@techacct.adobe.com" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, changed).await.expect("what was written last is in use");
    running.abort();
}

/// Copied one after the other, in whichever order.
#[tokio::test]
async fn a_key_that_comes_after_the_document_which_names_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (proxy, path) = start("PARTED", Setup::default(), dir.path()).await;
    let mut document = document(&proxy.standins, "parted@techacct.adobe.com");
    let key = document["integration"]["privateKey"].take();
    document["integration"]["privateKey"] = "key.pem".into();
    put(&path, &document.to_string());
    let unusable = "The new credentials are unusable, the old ones stay credential=\"parted\"";
    until_logged(unusable, 1).await;
    put(&dir.path().join("key.pem"), key.as_str().unwrap());
    until_in_use(&proxy, "parted@techacct.adobe.com").await;
    assert_eq!(log::count(unusable), 1);
    proxy.stop().await;
}

/// Whatever takes over when: the client id belongs to the token that it is sent with.
#[tokio::test]
async fn documents_of_other_kinds_take_over_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::default()
        .set("PROXIES__AUTHOR__LISTEN", "127.0.0.1:0")
        .set("PROXIES__AUTHOR__X_API_KEY", "true")
        .set("TOKEN__CACHE_FILE", dir.path().join("cache").display().to_string());
    let standins = setup.start_standins().await;
    let path = dir.path().join("token.json");
    let jwt = standins.credentials_document.to_string();
    let kinds = [
        ("oauth", standins.oauth.aio_document().to_string()),
        ("local", standins.local_token(Duration::from_secs(3600))),
        ("jwt", jwt.clone()),
    ];
    put(&path, &jwt);
    let proxy = setup
        .set("CREDENTIALS__MANIFOLD__FILE", path.display().to_string())
        .set("PROXIES__AUTHOR__UPSTREAM", standins.aem_origin.clone())
        .start_with(standins)
        .await;
    proxy.ready().await;
    let url = proxy.url("/echo");
    let load = tokio::spawn(async move {
        let client = client();
        loop {
            let answer = client.get(&url).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let owner = answer.headers()["x-standin-client"].to_str().unwrap().to_owned();
            let seen = Seen(answer.json().await.unwrap());
            assert_eq!(seen.one("x-api-key"), Some(owner));
        }
    });
    let certificate = "aem_proxy_certificate_expiry_timestamp_seconds{credential=\"manifold\"}";
    for (kind, text) in kinds.iter().cycle().take(9) {
        put(&path, text);
        let changed = async {
            while proxy.status().await["credentials"][0]["kind"] != *kind {
                proxy.hang_up().await;
            }
        };
        timeout(PATIENCE, changed).await.unwrap_or_else(|_| panic!("{kind} is not in use"));
        assert_eq!(proxy.metric(certificate).await > 0.0, *kind == "jwt", "{kind}");
    }
    assert!(!load.is_finished(), "a request failed");
    load.abort();
    proxy.stop().await;
}
