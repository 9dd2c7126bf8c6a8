//! A token that outlives the process, in a file that only its owner can read.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use crate::{
    credentials::read_limited,
    ims::{CredentialExchange, Exchange, Grant, ImsError},
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

    /// The token, if there is one that lives and belongs to these credentials. A file that others can write or read is
    /// not believed.
    pub fn load(&self, now: SystemTime) -> Option<Grant> {
        let metadata = fs::metadata(&self.path).ok()?;
        if metadata.mode() & 0o077 != 0 {
            warn!(token.cache_file = %self.path.display(), "The token cache is open to others and is not used: chmod 600");
            return None;
        }
        // A file that cannot be read or understood is as good as none: the next refresh writes it anew.
        let stored: Stored = serde_json::from_slice(&read_limited(&self.path).ok()?).ok()?;
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

    /// Writes beside and renames: nobody ever reads half a token.
    fn save(&self, grant: &Grant) -> io::Result<()> {
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
        serde_json::to_writer(&mut *text, &stored)?;
        let mut beside = self.path.clone().into_os_string();
        beside.push(format!(".{}", std::process::id()));
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&text)?;
        fs::rename(&beside, &self.path)
    }
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

/// An exchange whose grants are kept in a file, where there is one.
pub struct Cached<E> {
    inner: E,
    cache: Option<Cache>,
}

impl<E> Cached<E> {
    /// Keeps what `inner` brings in `cache`.
    pub fn new(inner: E, cache: Option<Cache>) -> Self {
        Self { inner, cache }
    }
}

impl<E: Exchange> Exchange for Cached<E> {
    async fn exchange(&self) -> Result<Grant, ImsError> {
        let grant = self.inner.exchange().await?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.save(&grant)
        {
            warn!(token.cache_file = %cache.path.display(), %error, "The token cannot be kept; it is used all the same");
        }
        Ok(grant)
    }
}

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

    #[test]
    fn a_token_is_kept_for_its_owner_and_its_credentials_until_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let kept = cache(&dir, "client");
        assert!(kept.load(now).is_none());
        kept.save(&grant(now)).unwrap();
        kept.save(&grant(now)).unwrap();
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
            let clock = crate::clock::Clock::system();
            CredentialExchange::at_ims(http, endpoint, std::sync::Arc::new(credentials), clock)
        };
        let oauth = |scopes: &str| {
            let document =
                serde_json::json!({"client_id": "c", "client_secret": "p8e-s", "scopes": scopes}).to_string();
            Cache::new(dir.path().join("token"), &exchange(&document)).unwrap()
        };
        oauth("openid,AdobeID").save(&grant(now)).unwrap();
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
