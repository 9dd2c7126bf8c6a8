//! Credentials that change on disk while requests flow.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use aem_auth_proxy::standin::{LOCAL_CLIENT_ID, StandIns};
use serde_json::Value;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    harness::{PATIENCE, Proxy, Setup, client},
    log,
};

pub async fn until_logged(part: &str, times: usize) {
    let logged = async {
        while log::count(part) < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, logged).await.unwrap_or_else(|_| panic!("{part:?} was not logged {times} times"));
}

/// A directory with credentials in it that change in every way in which credentials do.
struct Volume {
    dir: tempfile::TempDir,
    document: Value,
    versions: usize,
}

impl Volume {
    fn path(&self) -> PathBuf {
        self.dir.path().join("token.json")
    }

    /// The document, told from all before by its e-mail address.
    fn next(&mut self) -> (String, String) {
        self.versions += 1;
        let email = format!("v{}@techacct.adobe.com", self.versions);
        self.document["integration"]["email"] = email.clone().into();
        (self.document.to_string(), email)
    }

    /// A document that parses and that IMS refuses.
    fn refused(&mut self) -> String {
        let (_, _) = self.next();
        let mut document = self.document.clone();
        document["integration"]["technicalAccount"]["clientSecret"] = format!("p8e-{}", self.versions).into();
        document.to_string()
    }

    /// Written beside and renamed over, as careful programs do.
    fn rename(&self, text: &str) {
        let beside = self.dir.path().join(".token.json");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.path()).unwrap();
    }

    /// As the kubelet does with a Secret: `token.json -> ..data/token.json`, and `..data` is renamed over.
    fn swap(&self, text: &str) {
        let version = format!("..{}", self.versions);
        fs::create_dir(self.dir.path().join(&version)).unwrap();
        fs::write(self.dir.path().join(&version).join("token.json"), text).unwrap();
        let beside = self.dir.path().join("..data_tmp");
        symlink(&version, &beside).unwrap();
        fs::rename(beside, self.dir.path().join("..data")).unwrap();
        if !self.path().is_symlink() {
            let beside = self.dir.path().join(".token.json");
            symlink("..data/token.json", &beside).unwrap();
            fs::rename(beside, self.path()).unwrap();
        }
    }
}

async fn until_in_use(proxy: &Proxy, email: &str) {
    let changed = async {
        while proxy.status().await["credentials"][0]["email"] != *email {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, changed).await.unwrap_or_else(|_| panic!("{email} is not in use"));
}

/// Clients that ask all the time and accept nothing but success; what stops them tells how often they asked.
struct Load {
    clients: JoinSet<()>,
    answers: Arc<AtomicUsize>,
}

impl Load {
    fn start(proxy: &Proxy, count: usize) -> Self {
        let answers = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..count {
            let (url, answers) = (proxy.url("/api/assets.json"), Arc::clone(&answers));
            clients.spawn(async move {
                let client = client();
                loop {
                    let answer = client.get(&url).send().await.expect("the proxy answers");
                    assert_eq!(answer.status(), 200);
                    answers.fetch_add(1, Relaxed);
                }
            });
        }
        Self { clients, answers }
    }

    fn stop(mut self) -> usize {
        assert!(self.clients.try_join_next().is_none(), "a request failed");
        self.answers.load(Relaxed)
    }
}

#[tokio::test]
async fn a_file_that_changes_a_hundred_times_under_load_fails_no_request() {
    let setup = Setup::default();
    let standins = setup.start_standins().await;
    let dir = tempfile::tempdir().unwrap();
    let mut volume = Volume { dir, document: standins.credentials_document.clone(), versions: 0 };
    let (first, _) = volume.next();
    volume.rename(&first);
    let proxy = setup
        .set("CREDENTIALS__ROTATED__FILE", volume.path().display().to_string())
        .set("WATCH__POLL", "500ms")
        .start_with(standins)
        .await;
    proxy.ready().await;
    let load = Load::start(&proxy, 8);

    let unusable = format!("{}: ", volume.path().display());
    let refused = "The new credentials brought no token, the old ones stay credential=\"rotated\"";
    let (mut broken, mut rejected) = (0, 0);
    for round in 0..100 {
        // Each broken in another place, so that it is another file. Those that bring a token are few: the proxy tries ten in a
        // row, and then one in some seconds.
        match round % 50 {
            10 => {
                let (text, email) = volume.next();
                volume.rename(&text);
                until_in_use(&proxy, &email).await;
            }
            20 => {
                let (text, email) = volume.next();
                fs::write(volume.path(), &text[..text.len() / 2 + round]).unwrap();
                broken += 1;
                until_logged(&unusable, broken).await;
                fs::write(volume.path(), &text).unwrap();
                until_in_use(&proxy, &email).await;
            }
            30 => {
                let text = volume.refused();
                volume.rename(&text);
                rejected += 1;
                until_logged(refused, rejected).await;
            }
            40 => {
                for _ in 0..2 {
                    let (text, email) = volume.next();
                    volume.swap(&text);
                    until_in_use(&proxy, &email).await;
                }
            }
            _ => {
                volume.rename(&format!("{{\"integration\": {round}"));
                broken += 1;
                until_logged(&unusable, broken).await;
            }
        }
    }
    assert_eq!((log::count(&unusable), log::count(refused)), (broken, rejected));
    assert!(load.stop() > 0, "nobody asked meanwhile");
    assert_eq!(proxy.standins.aem.refused(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_in_flight_keeps_the_credentials_that_it_began_with() {
    let setup = Setup::default();
    let standins = setup.start_standins().await;
    let dir = tempfile::tempdir().unwrap();
    let mut volume = Volume { dir, document: standins.credentials_document.clone(), versions: 0 };
    let (first, _) = volume.next();
    volume.rename(&first);
    let proxy = setup.set("CREDENTIALS_FILE", volume.path().display().to_string()).start_with(standins).await;
    proxy.ready().await;
    let url = proxy.url("/hold");
    let held = tokio::spawn(async move { client().get(url).send().await.expect("the proxy answers") });
    proxy.standins.aem.requests_reach(1).await;
    let (text, email) = volume.next();
    volume.rename(&text);
    until_in_use(&proxy, &email).await;
    proxy.standins.aem.release();
    assert_eq!(held.await.unwrap().status(), 200);
    proxy.stop().await;
}

#[tokio::test]
async fn new_credentials_that_meet_a_dead_ims_take_over_when_it_lives() {
    let setup = Setup::default();
    let standins = setup.start_standins().await;
    let dir = tempfile::tempdir().unwrap();
    let mut volume = Volume { dir, document: standins.credentials_document.clone(), versions: 0 };
    let (first, _) = volume.next();
    volume.rename(&first);
    let mut proxy = setup
        .set("CREDENTIALS__PATIENT__FILE", volume.path().display().to_string())
        .start_with(standins)
        .await;
    proxy.ready().await;
    proxy.standins.ims_server.stop().await;
    let (text, email) = volume.next();
    volume.rename(&text);
    until_logged("The new credentials brought no token, the old ones stay credential=\"patient\"", 1).await;
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    proxy.standins.ims_server.restart().await.expect("the same port");
    until_in_use(&proxy, &email).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_local_token_is_replaced_by_the_next_one_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("local_token.json");
    let setup = Setup::default();
    let standins = setup.start_standins().await;
    let document = |standins: &StandIns, seconds| {
        StandIns::local_token_document(&standins.local_token(Duration::from_secs(seconds))).to_string()
    };
    fs::write(&file, document(&standins, 240)).unwrap();
    let proxy = setup.set("CREDENTIALS__LOCAL__FILE", path(&file)).start_with(standins).await;
    proxy.ready().await;
    until_logged("The local token ends soon", 1).await;
    let before = proxy.status().await["credentials"][0]["token"]["expires_at"].clone();
    fs::write(&file, document(&proxy.standins, 86_400)).unwrap();
    let changed = async {
        while proxy.status().await["credentials"][0]["token"]["expires_at"] == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, changed).await.expect("the next token is in use");
    let answer = proxy.get("/api/assets.json").await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-standin-client"]),
        (200, &LOCAL_CLIENT_ID.parse().unwrap())
    );
    assert_eq!(log::count("minutes_left=4"), 1);
    proxy.stop().await;
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
