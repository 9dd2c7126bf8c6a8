//! A token that outlives the process, in a file that only its owner can read.
//!
//! The path is the operator's, its directory perhaps not the proxy's alone. So the file is read and replaced only if it is a
//! regular file of this user's, and never through a symbolic link in its place. Links on the way to its directory are followed.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    future::pending,
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, geteuid, test_kill_process},
};
use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use crate::{
    clock::Clock,
    ims::{CredentialExchange, Grant},
    secret::{Authorization, SecretString, never},
};

/// The file, and whose token it may hold.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    client_id: String,
    ims: String,
    /// What an OAuth credential asks for; a token for less must not outlive a change of the list.
    asked: Vec<String>,
    org: Option<String>,
}

/// What the file holds. Times are milliseconds of Unix time.
#[derive(Deserialize)]
struct Stored {
    client_id: String,
    ims: String,
    /// None in files of before there was OAuth.
    #[serde(default)]
    asked: Vec<String>,
    issued_at_ms: u64,
    expires_at_ms: u64,
    user_id: Option<String>,
    scopes: Vec<String>,
    access_token: SecretString,
}

/// The same on its way into the file, which is the one place where a token is written down.
#[derive(Serialize)]
struct Storing<'a> {
    client_id: &'a str,
    ims: &'a str,
    asked: &'a [String],
    issued_at_ms: u64,
    expires_at_ms: u64,
    user_id: Option<&'a str>,
    scopes: &'a [String],
    access_token: &'a str,
}

never!(Stored: std::fmt::Debug, Serialize);

impl Cache {
    /// The cache of `exchange`'s tokens at `path`; none for a local token, whose own file is one.
    pub fn new(path: PathBuf, exchange: &CredentialExchange) -> Option<Self> {
        let (credentials, endpoint) = (exchange.credentials(), exchange.endpoint()?);
        let is_oauth = credentials.kind() == "oauth";
        Some(Self {
            path,
            client_id: credentials.client_id()?.to_owned(),
            ims: endpoint.authority().to_owned(),
            asked: if is_oauth { credentials.scopes().to_vec() } else { Vec::new() },
            org: credentials.org().map(str::to_owned),
        })
    }

    #[cfg(test)]
    pub(super) fn test(path: PathBuf) -> Self {
        let (client_id, ims) = (String::new(), String::new());
        Self { path, client_id, ims, asked: Vec::new(), org: None }
    }

    /// The token, if there is one that lives and belongs to these credentials. A file of another user is not believed, nor
    /// one that others can write or read, nor what is no regular file: a pipe is not waited for.
    pub fn load(&self, now: SystemTime) -> Option<Grant> {
        let text = match self.read() {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(token.cache_file = %self.path.display(), %error, "The token cache is not used");
                return None;
            }
        };
        // A file that cannot be understood is as good as none: the next refresh replaces it.
        let stored: Stored = serde_json::from_slice(&text).ok()?;
        if stored.client_id != self.client_id || stored.ims != self.ims || stored.asked != self.asked {
            debug!("The token cache belongs to other credentials");
            return None;
        }
        let grant = stored.grant(self.org.clone())?;
        // A span of years is no token's: the file is not ours, or was tampered with.
        let lives = grant.issued_at <= now && now < grant.expires_at && grant.lifetime() <= LIFETIME_MAX;
        lives.then(|| {
            info!(token.cache_file = %self.path.display(), "Token taken from the cache");
            grant
        })
    }

    fn read(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        // What it is is asked of the open file: a path may lead to another one a moment later.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&self.path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::LOOP) => return Err(io::Error::other(LINK)),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        check(&metadata).map_err(io::Error::other)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(io::Error::other("it is open to others: chmod 600"));
        }
        let mut text = Zeroizing::new(Vec::with_capacity(USUAL_BYTES));
        file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(text)
    }

    /// What is written for `grant`.
    pub(super) fn encode(&self, grant: &Grant) -> Option<Zeroizing<Vec<u8>>> {
        let stored = Storing {
            client_id: &self.client_id,
            ims: &self.ims,
            asked: &self.asked,
            issued_at_ms: millis(grant.issued_at),
            expires_at_ms: millis(grant.expires_at),
            user_id: grant.user_id.as_deref(),
            scopes: &grant.scopes,
            access_token: grant.authorization.expose_credentials(),
        };
        let mut text = Zeroizing::new(Vec::with_capacity(USUAL_BYTES));
        serde_json::to_writer(&mut *text, &stored).ok()?;
        Some(text)
    }

    /// Replaces the file. Blocks.
    fn write(&self, text: &[u8]) {
        self.remove_leftovers();
        let mut written = self.replace(text);
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // A proxy in another container, which shares the directory and sees other process ids, has taken the new file
            // for a leftover.
            written = self.replace(text);
        }
        if let Err(error) = written {
            warn!(token.cache_file = %self.path.display(), %error, "The token cannot be kept; it is used all the same");
        }
    }

    /// Writes a new file and renames it over the old one: a reader finds a whole token, after a crash too.
    fn replace(&self, text: &[u8]) -> io::Result<()> {
        self.check_replaceable()?;
        let new = NewFile::create(self.path.with_file_name(self.new_name()))?;
        (&new.file).write_all(text)?;
        new.file.sync_all()?;
        // It may have been put there meanwhile.
        self.check_replaceable()?;
        new.rename_to(&self.path)?;
        // The new name is on disk once its directory is. Not every file system can be asked for that.
        if let Err(error) = File::open(self.directory()).and_then(|directory| directory.sync_all()) {
            debug!(%error, "The token cache's directory cannot be synced");
        }
        Ok(())
    }

    /// Only a file that this user owns is replaced, never a device, a socket or a link.
    fn check_replaceable(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) => check(&metadata).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes what processes have left that were killed while they wrote: it holds a token.
    fn remove_leftovers(&self) {
        let Ok(files) = fs::read_dir(self.directory()) else { return };
        for file in files.flatten() {
            let Some(pid) = self.writer_of(&file.file_name()) else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            let age = metadata.modified().ok().and_then(|at| Clock::system().now().duration_since(at).ok());
            let is_old = age.is_some_and(|age| age > LEFTOVER_AGE);
            if check(&metadata).is_ok() && (is_old || !is_running(pid)) {
                let _ = fs::remove_file(file.path());
            }
        }
    }

    /// `NAME.PID.RANDOM.new`.
    fn new_name(&self) -> OsString {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.{:016x}.new", process::id(), fastrand::u64(..)));
        name
    }

    /// The process that has made the file, if it is one of [`Cache::new_name`].
    fn writer_of(&self, name: &OsStr) -> Option<Pid> {
        let own = self.path.file_name()?.as_bytes();
        let rest = name.as_bytes().strip_prefix(own)?.strip_prefix(b".")?.strip_suffix(b".new")?;
        let (pid, random) = std::str::from_utf8(rest).ok()?.split_once('.')?;
        let is_random = random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
        Pid::from_raw(pid.parse().ok()?).filter(|_| is_random)
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }
}

/// A file on its way to its place. Removed if it does not get there.
struct NewFile {
    path: PathBuf,
    file: File,
    is_in_place: bool,
}

impl NewFile {
    fn create(path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?);
        Ok(Self { path, file, is_in_place: false })
    }

    fn rename_to(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.is_in_place = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_in_place {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a file is a regular one of this user's.
fn check(metadata: &Metadata) -> Result<(), &'static str> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        Err(LINK)
    } else if kind.is_dir() {
        Err("it is a directory")
    } else if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
        Err("it is a pipe, a socket or a device, not a regular file")
    } else if metadata.uid() != geteuid().as_raw() {
        Err("it belongs to another user")
    } else {
        Ok(())
    }
}

/// Whether there may be such a process.
fn is_running(pid: Pid) -> bool {
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

impl Stored {
    fn grant(self, org: Option<String>) -> Option<Grant> {
        Some(Grant {
            authorization: Authorization::bearer(self.access_token.expose_secret()).ok()?,
            issued_at: UNIX_EPOCH.checked_add(Duration::from_millis(self.issued_at_ms))?,
            expires_at: UNIX_EPOCH.checked_add(Duration::from_millis(self.expires_at_ms))?,
            client_id: self.client_id,
            org,
            user_id: self.user_id,
            scopes: self.scopes,
            renewable: true,
            clock_skew_seconds: None,
        })
    }
}

fn millis(time: SystemTime) -> u64 {
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX)
}

/// Writes cache files, one after the other, on a thread where a disk that hangs keeps nothing waiting.
#[derive(Default)]
pub(super) struct Writer {
    running: Option<JoinHandle<()>>,
    /// What is written next: the newest, where several have come meanwhile.
    next: Option<(Arc<Cache>, Zeroizing<Vec<u8>>)>,
}

impl Writer {
    /// Writes `text` when what is being written now has been.
    pub(super) fn write(&mut self, cache: Arc<Cache>, text: Zeroizing<Vec<u8>>) {
        self.next = Some((cache, text));
        self.start();
    }

    fn start(&mut self) {
        if self.running.is_none()
            && let Some((cache, text)) = self.next.take()
        {
            self.running = Some(spawn_blocking(move || cache.write(&text)));
        }
    }

    /// Ready each time that a file has been written.
    pub(super) async fn written(&mut self) {
        match &mut self.running {
            Some(running) => {
                if let Err(error) = running.await {
                    warn!(%error, "The token cannot be kept; it is used all the same");
                }
                self.running = None;
                self.start();
            }
            None => pending().await,
        }
    }

    /// Ready when everything has been written.
    pub(super) async fn finish(&mut self) {
        while self.running.is_some() {
            self.written().await;
        }
    }
}

const LINK: &str = "it is a symbolic link, which is not followed";

/// Longer than any write takes.
const LEFTOVER_AGE: Duration = Duration::from_secs(600);

/// A token has below 2 KB.
const MAX_BYTES: u64 = 64 << 10;

/// More than a file has: what grows leaves copies behind.
const USUAL_BYTES: usize = 16 << 10;

/// No IMS access token lives beyond about a day.
const LIFETIME_MAX: Duration = Duration::from_secs(48 * 3600);

#[cfg(test)]
mod tests {
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
            if kind == "directory" { fs::remove_dir(&kept.path) } else { fs::remove_file(&kept.path) }
                .unwrap();
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
}
