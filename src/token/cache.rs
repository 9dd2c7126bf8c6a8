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
mod tests;
