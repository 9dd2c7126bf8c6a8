//! The tokens that live: IMS writes them down, AEM looks them up.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{random_bytes, random_hex};
use crate::clock::Clock;

/// What was issued and until when it lives. Clones share one book.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    clock: Clock,
    holder: Holder,
    book: Mutex<Book>,
}

/// For whom a token is made, and what it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The client that asks for it.
    pub client_id: String,
    /// As whom AEM sees its bearer.
    pub user_id: String,
    /// The scopes, with commas between.
    pub scope: String,
}

/// How a token looks from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// IMS's format, whose claims tell all there is to know.
    #[default]
    Claims,
    /// A word that tells nothing, so that only the answer says how long it lives.
    Opaque,
}

#[derive(Default)]
struct Book {
    entries: HashMap<String, Entry>,
    last: Option<String>,
    issued: usize,
}

struct Entry {
    end: SystemTime,
    revoked: bool,
    holder: Holder,
}

/// What the ledger knows of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Issued, and not yet at its end.
    Live,
    /// Issued, and past its end.
    Expired,
    /// Issued, and taken back before its end.
    Revoked,
    /// Never issued, or ended long ago.
    Unknown,
}

impl Ledger {
    /// An empty book; where nobody says otherwise, tokens in it are for this client and this technical account.
    pub fn new(clock: Clock, client_id: &str, user_id: &str) -> Self {
        let holder =
            Holder { client_id: client_id.to_owned(), user_id: user_id.to_owned(), scope: SCOPE.to_owned() };
        Self(Arc::new(Inner { clock, holder, book: Mutex::default() }))
    }

    /// A new access token in IMS's format. Older ones stay valid: overlapping is officially fine.
    pub fn issue(&self, lifetime: Duration) -> String {
        self.issue_to(self.0.holder.clone(), lifetime, Look::Claims)
    }

    /// The same for another holder, and with another look.
    pub fn issue_to(&self, holder: Holder, lifetime: Duration, look: Look) -> String {
        self.issue_at(self.0.clock.now(), holder, lifetime, look)
    }

    /// A token that was made at another time than now, and lives from then.
    pub fn issue_at(&self, created_at: SystemTime, holder: Holder, lifetime: Duration, look: Look) -> String {
        let token = match look {
            Look::Claims => signed(&claims(&holder, created_at, lifetime)),
            Look::Opaque => format!("p8e-opaque-{}", random_hex(32)),
        };
        let now = self.0.clock.now();
        let mut book = self.book();
        book.entries.retain(|_, entry| entry.end + REMEMBERED > now);
        book.entries.insert(token.clone(), Entry { end: created_at + lifetime, revoked: false, holder });
        book.last = Some(token.clone());
        book.issued += 1;
        token
    }

    /// For whom a token was made, unless it is unknown.
    pub fn holder(&self, token: &str) -> Option<Holder> {
        self.book().entries.get(token).map(|entry| entry.holder.clone())
    }

    /// Whether this token lives.
    pub fn verdict(&self, token: &str) -> Verdict {
        match self.book().entries.get(token) {
            None => Verdict::Unknown,
            Some(entry) if entry.revoked => Verdict::Revoked,
            Some(entry) if self.0.clock.now() < entry.end => Verdict::Live,
            Some(_) => Verdict::Expired,
        }
    }

    /// Takes back one token, long before its end. Only its answers tell its bearer.
    pub fn revoke(&self, token: &str) {
        if let Some(entry) = self.book().entries.get_mut(token) {
            entry.revoked = true;
        }
    }

    /// Takes back all tokens, as if someone had revoked the certificate. Those to come live.
    pub fn revoke_all(&self) {
        self.book().entries.values_mut().for_each(|entry| entry.revoked = true);
    }

    /// Every token that is remembered: what nobody else may show.
    pub fn tokens(&self) -> Vec<String> {
        self.book().entries.keys().cloned().collect()
    }

    /// The newest token.
    pub fn last_issued(&self) -> Option<String> {
        self.book().last.clone()
    }

    /// How many tokens there have been.
    pub fn issued(&self) -> usize {
        self.book().issued
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As a JWT, with a signature that nobody checks.
fn signed(claims: &Value) -> String {
    let header = json!({"alg": "RS256", "x5u": "ims_na1-key-1.cer", "kid": "ims_na1-key-1", "itt": "at"});
    let signature = URL_SAFE_NO_PAD.encode(random_bytes::<SIGNATURE_BYTES>());
    format!("{}.{}.{signature}", part(&header), part(claims))
}

/// The claims of a decoded IMS token: times are decimal strings in milliseconds, and there is no standard `exp` or
/// `iat`.
fn claims(holder: &Holder, created_at: SystemTime, lifetime: Duration) -> Value {
    let created_at = created_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "id": format!("{}_{}", created_at.as_millis(), random_hex(16)),
        "type": "access_token",
        "client_id": holder.client_id,
        "user_id": holder.user_id,
        "as": "ims-na1",
        "aa_id": holder.user_id,
        "ctp": 0,
        "fg": random_hex(15).to_uppercase(),
        "sid": random_hex(16),
        "moi": random_hex(4),
        "pba": "MedSecNoEV,LowSec",
        "oc": random_hex(24),
        "scope": holder.scope,
        "created_at": created_at.as_millis().to_string(),
        "expires_in": lifetime.as_millis().to_string(),
    })
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("issued", &self.issued()).finish_non_exhaustive()
    }
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// As in tokens for AEM that were exchanged for a JWT.
pub(super) const SCOPE: &str = "read_pc.dma_aem_ams,openid,AdobeID,read_organizations,\
     additional_info.projectedProductContext,additional_info.roles,ent_aem_cloud_api";
/// Of RSA 2048.
const SIGNATURE_BYTES: usize = 256;
/// Long enough to tell "expired" from "unknown" while someone looks, short enough for a demo that runs for
/// days with tokens of seconds.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn ledger(clock: &Clock) -> Ledger {
        Ledger::new(clock.clone(), "cm-p1-e2-integration-0", "ABC@techacct.adobe.com")
    }

    #[test]
    fn a_token_looks_like_one_of_ims() {
        let token = ledger(&Clock::system()).issue(Duration::from_millis(86_399_999));
        assert!((1100..=1600).contains(&token.len()), "{}", token.len());
        let parts: Vec<Vec<u8>> =
            token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        assert_eq!(parts.len(), 3);
        let header: Value = serde_json::from_slice(&parts[0]).unwrap();
        assert_eq!((&header["alg"], &header["itt"]), (&json!("RS256"), &json!("at")));
        let claims: Value = serde_json::from_slice(&parts[1]).unwrap();
        assert_eq!(claims["expires_in"], "86399999");
        assert!(claims["created_at"].as_str().unwrap().parse::<u64>().is_ok());
        assert!(claims["exp"].is_null());
    }

    #[test]
    fn a_token_is_its_holder_s_and_lives_from_when_it_was_made() {
        let clock = Clock::system();
        let ledger = ledger(&clock);
        let holder = Holder {
            client_id: "other".to_owned(),
            user_id: "X@AdobeID".to_owned(),
            scope: "openid,AdobeID".to_owned(),
        };
        let made = clock.now() - HOUR;
        let ended = ledger.issue_at(made, holder.clone(), HOUR, Look::Claims);
        let opaque = ledger.issue_at(made, holder.clone(), HOUR * 2, Look::Opaque);
        assert_eq!((ledger.verdict(&ended), ledger.verdict(&opaque)), (Verdict::Expired, Verdict::Live));
        assert_eq!((ledger.holder(&ended), ledger.holder("none")), (Some(holder), None));
        assert_eq!(ledger.holder(&ledger.issue(HOUR)).unwrap().client_id, "cm-p1-e2-integration-0");
        assert!(opaque.starts_with("p8e-") && !opaque.contains('.'));
        let claims = URL_SAFE_NO_PAD.decode(ended.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!((&claims["client_id"], &claims["user_id"]), (&json!("other"), &json!("X@AdobeID")));
        assert_eq!(claims["scope"], "openid,AdobeID");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_lives_until_its_end_and_is_forgotten_later() {
        let clock = Clock::paused_at(UNIX_EPOCH);
        let ledger = ledger(&clock);
        let token = ledger.issue(HOUR);
        assert_eq!(ledger.verdict(&token), Verdict::Live);
        assert_eq!(ledger.last_issued().as_ref(), Some(&token));
        clock.skip(HOUR);
        assert_eq!(ledger.verdict(&token), Verdict::Expired);
        clock.skip(REMEMBERED);
        let next = ledger.issue(HOUR);
        assert_eq!(ledger.verdict(&token), Verdict::Unknown);

        assert_eq!((ledger.verdict(&next), ledger.issued()), (Verdict::Live, 2));
        assert!(!format!("{ledger:?}").contains(&next));
    }

    #[test]
    fn a_revoked_token_is_dead_from_then_on_and_others_are_not() {
        let ledger = ledger(&Clock::system());
        let [first, second] = [HOUR, HOUR].map(|lifetime| ledger.issue(lifetime));
        ledger.revoke(&first);
        ledger.revoke("never issued");
        assert_eq!((ledger.verdict(&first), ledger.verdict(&second)), (Verdict::Revoked, Verdict::Live));
        ledger.revoke_all();
        assert_eq!(ledger.verdict(&second), Verdict::Revoked);
        assert_eq!(ledger.verdict(&ledger.issue(HOUR)), Verdict::Live);
        assert_eq!(ledger.verdict("never issued"), Verdict::Unknown);
    }
}
