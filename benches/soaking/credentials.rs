//! The credentials file, which changes every few seconds.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aem_auth_proxy::standin::keys::ServiceCredentials;
use fastrand::Rng;
use tokio::time::sleep;

use crate::{
    harness::{
        failure::{Context, Result},
        proxy::write_secret,
    },
    ims::Ims,
    record::{Record, Trouble},
};

/// The file, and what may be in it.
#[derive(Clone)]
pub struct Files {
    path: PathBuf,
    good: String,
    bad: String,
}

impl Files {
    /// The file in a directory.
    ///
    /// # Errors
    /// When no credentials can be made.
    pub fn new(directory: &Path, ims: &Ims) -> Result<Self> {
        // Another key: IMS does not know it.
        let bad = ServiceCredentials::generate(&ims.endpoint()).context("credentials")?;
        let path = directory.join("credentials.json");
        Ok(Self { path, good: ims.good.document().to_string(), bad: bad.document().to_string() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the good ones.
    ///
    /// # Errors
    /// When that fails.
    pub fn good(&self) -> Result<()> {
        // By a rename, as Kubernetes and editors do.
        let next = self.path.with_extension("next");
        write_secret(&next, &self.good)?;
        fs::rename(&next, &self.path).context(self.path.display())
    }

    /// Every [`EVERY`] something else: good, then bad, half-written, gone, or good again.
    pub async fn keep_changing(self, mut chance: Rng, record: Arc<Record>) {
        loop {
            sleep(EVERY).await;
            if record.credentials_are_paused() {
                continue;
            }
            let what = chance.u8(0..4);
            let done = match what {
                0 => {
                    record.begins(Trouble::Credentials);
                    record.credentials_changed(false);
                    write_secret(&self.path, &self.bad)
                }
                // The credentials that the proxy has stay in use: no trouble.
                1 => {
                    record.credentials_changed(false);
                    write_secret(&self.path, &self.good[..self.good.len() / 2])
                }
                2 => {
                    record.credentials_changed(false);
                    fs::remove_file(&self.path).context(self.path.display())
                }
                _ => self.good(),
            };
            record.event(
                ["credentials: bad", "credentials: half", "credentials: gone", "credentials: good"]
                    [usize::from(what)],
            );
            sleep(EVERY).await;
            let back = self.good();
            record.event("credentials: back");
            record.ends(Trouble::Credentials);
            record.credentials_changed(true);
            if let Err(error) = done.and(back) {
                record.failure(&format!("the credentials file: {error}"));
            }
        }
    }
}

const EVERY: Duration = Duration::from_secs(5);
