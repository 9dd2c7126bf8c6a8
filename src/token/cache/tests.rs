use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::credentials::Credentials;

fn cache(dir: &tempfile::TempDir, client_id: &str) -> Cache {
    Cache {
        path: dir.path().join("token"),
        client_id: client_id.to_owned(),
        ims: "ims.example".to_owned(),
        asked: Vec::new(),
        org: Some("A@AdobeOrg".to_owned()),
    }
}

fn grant(now: SystemTime) -> Grant {
    Grant {
        authorization: Authorization::bearer("kept-token").unwrap(),
        issued_at: now,
        expires_at: now + Duration::from_secs(60),
        client_id: "client".to_owned(),
        org: None,
        user_id: None,
        scopes: vec!["a".to_owned()],
        renewable: true,
        clock_skew_seconds: None,
    }
}

fn save(cache: &Cache, grant: &Grant) -> io::Result<()> {
    cache.replace(&cache.encode(grant).unwrap())
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000)
}

fn names(dir: &tempfile::TempDir) -> Vec<String> {
    let files = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
    let mut names: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn pipe(path: &Path) {
    assert!(process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn what_is_no_regular_file_is_neither_read_nor_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let kept = cache(&dir, "client");
    let other = Cache { path: dir.path().join("other"), ..cache(&dir, "client") };
    save(&other, &grant(now())).unwrap();
    for kind in ["pipe", "socket", "directory", "link", "dangling link", "link to a device"] {
        match kind {
            "pipe" => pipe(&kept.path),
            "socket" => drop(std::os::unix::net::UnixListener::bind(&kept.path).unwrap()),
            "directory" => fs::create_dir(&kept.path).unwrap(),
            "link" => std::os::unix::fs::symlink(&other.path, &kept.path).unwrap(),
            "dangling link" => std::os::unix::fs::symlink("nowhere", &kept.path).unwrap(),
            _ => std::os::unix::fs::symlink("/dev/zero", &kept.path).unwrap(),
        }
        let before = fs::symlink_metadata(&kept.path).unwrap();
        // Where it waited for a writer of the pipe, the test would not end.
        assert!(kept.load(now()).is_none(), "{kind}");
        assert!(save(&kept, &grant(now())).is_err(), "{kind}");
        let after = fs::symlink_metadata(&kept.path).unwrap();
        assert_eq!((after.ino(), after.file_type()), (before.ino(), before.file_type()), "{kind}");
        assert_eq!(names(&dir), ["other", "token"], "{kind}");
        if kind == "directory" { fs::remove_dir(&kept.path) } else { fs::remove_file(&kept.path) }.unwrap();
    }
    let device = Cache { path: "/dev/null".into(), ..cache(&dir, "client") };
    assert!(device.load(now()).is_none() && save(&device, &grant(now())).is_err());
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[test]
fn a_file_of_another_user_is_neither_read_nor_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let kept = cache(&dir, "client");
    save(&kept, &grant(now())).unwrap();
    // Only root can give a file away.
    if std::os::unix::fs::chown(&kept.path, Some(12_345), None).is_ok() {
        assert!(kept.load(now()).is_none());
        assert!(save(&kept, &grant(now())).is_err());
        assert_eq!(fs::metadata(&kept.path).unwrap().uid(), 12_345);
        assert_eq!(names(&dir), ["token"]);
    }
}

#[test]
fn a_write_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let kept = cache(&dir, "client");
    let new = NewFile::create(dir.path().join(kept.new_name())).unwrap();
    (&new.file).write_all(b"half").unwrap();
    assert!(new.rename_to(&dir.path().join("missing/token")).is_err());
    assert_eq!(names(&dir), [""; 0]);
    let nowhere = Cache { path: dir.path().join("missing/token"), ..cache(&dir, "client") };
    assert!(save(&nowhere, &grant(now())).is_err());
    nowhere.write(b"x");
}

#[test]
fn what_killed_processes_have_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let kept = cache(&dir, "client");
    let mut ended = process::Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let of = |pid: u32, name: &str| {
        let path = dir.path().join(format!("{name}.{pid}.0123456789abcdef.new"));
        fs::write(&path, "half").unwrap();
        path
    };
    let (dead, other, own) =
        (of(ended.id(), "token"), of(ended.id(), "token.other"), of(process::id(), "token"));
    fs::write(dir.path().join("token.bak"), "").unwrap();
    kept.write(&kept.encode(&grant(now())).unwrap());
    assert!(!dead.exists() && other.exists() && own.exists());
    assert!(dir.path().join("token.bak").exists());
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    File::options().write(true).open(&own).unwrap().set_modified(old).unwrap();
    kept.write(&kept.encode(&grant(now())).unwrap());
    assert!(!own.exists() && kept.load(now()).is_some());
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let kept = cache(&dir, "client");
    save(&kept, &grant(now())).unwrap();
    let text = fs::read_to_string(&kept.path).unwrap();
    fs::write(&kept.path, format!("{text}{}", " ".repeat(MAX_BYTES as usize))).unwrap();
    assert!(kept.load(now()).is_none());
}

#[tokio::test]
async fn files_are_written_one_after_the_other_and_the_newest_last() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Arc::new(cache(&dir, "client"));
    let mut writer = Writer::default();
    for second in 0..20 {
        let grant = grant(now() + Duration::from_secs(second));
        writer.write(Arc::clone(&kept), kept.encode(&grant).unwrap());
    }
    writer.finish().await;
    let loaded = kept.load(now() + Duration::from_secs(30)).unwrap();
    assert_eq!(loaded.issued_at, now() + Duration::from_secs(19));
    assert_eq!(names(&dir), ["token"]);
}

#[test]
fn a_token_is_kept_for_its_owner_and_its_credentials_until_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
    let kept = cache(&dir, "client");
    assert!(kept.load(now).is_none());
    save(&kept, &grant(now)).unwrap();
    save(&kept, &grant(now)).unwrap();
    assert_eq!(fs::metadata(&kept.path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let loaded = kept.load(now + Duration::from_secs(59)).unwrap();
    assert_eq!(loaded.authorization.header(), "Bearer kept-token");
    assert!(kept.load(now + Duration::from_secs(60)).is_none());
    assert_eq!(loaded.org.as_deref(), Some("A@AdobeOrg"));
    assert!(cache(&dir, "another").load(now).is_none());
    let for_more = Cache { asked: vec!["openid".to_owned()], ..cache(&dir, "client") };
    assert!(for_more.load(now).is_none());

    fs::set_permissions(&kept.path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(kept.load(now).is_none());
}

#[test]
fn a_token_is_kept_for_what_an_oauth_credential_asks() {
    let dir = tempfile::tempdir().unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
    let exchange = |document: &str| {
        crate::tls::install();
        let credentials = Credentials::parse(document.as_bytes(), None).unwrap();
        let endpoint = "ims.example".parse().unwrap();
        let tls = crate::tls::client_config(crate::tls::roots(None).unwrap()).unwrap();
        let day = Duration::from_secs(86_400);
        let limits = crate::ims::Limits { connect: day, total: day };
        let http = crate::ims::Http::new(crate::tls::current(tls), limits, None).unwrap();
        let clock = Clock::system();
        CredentialExchange::at_ims(http, endpoint, Arc::new(credentials), clock)
    };
    let oauth = |scopes: &str| {
        let document =
            serde_json::json!({"client_id": "c", "client_secret": "p8e-s", "scopes": scopes}).to_string();
        Cache::new(dir.path().join("token"), &exchange(&document)).unwrap()
    };
    save(&oauth("openid,AdobeID"), &grant(now)).unwrap();
    assert!(oauth("openid AdobeID").load(now).is_some());
    assert!(oauth("openid").load(now).is_none());
    // {"created_at":"1","expires_in":"1"}
    let local = "e30.eyJjcmVhdGVkX2F0IjoiMSIsImV4cGlyZXNfaW4iOiIxIn0.c2ln";
    assert!(Cache::new(dir.path().join("token"), &exchange(local)).is_none());
}

#[test]
fn a_broken_file_is_as_good_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let kept = cache(&dir, "client");
    fs::write(&kept.path, "{\"client_id\": \"cli").unwrap();
    fs::set_permissions(&kept.path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(kept.load(SystemTime::UNIX_EPOCH).is_none());
}
