//! Another token in place of one that AEM has refused: one exchange for all who ask, and none for some time where that does not
//! help.
//!
//! A token that AEM has accepted before was revoked, and another one helps. One that AEM has never accepted is most likely of
//! the wrong kind or environment, and then so is the next one: exchanges for this reason get rarer, see [`TokenHandle::renew`].
//! Some tokens are accepted for some requests and refused for others. So the same goes for each [`RequestKind`] for which a new
//! token did not help.
//!
//! Only a request that AEM has refused comes here, so a lock is no harm.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tracing::{debug, warn};

use super::{Lease, TokenHandle};

/// Requests that AEM most likely judges alike: those to one host whose paths have the same first segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKind(u64);

impl RequestKind {
    /// The kind of a request to `host` with this target.
    pub fn of(host: &[u8], target: &[u8]) -> Self {
        let path = target.strip_prefix(b"/").unwrap_or(target);
        let segment = path.split(|byte| b"/?;".contains(byte)).next().unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        (host, segment).hash(&mut hasher);
        Self(hasher.finish())
    }

    #[cfg(test)]
    pub(super) const fn test(number: u64) -> Self {
        Self(number)
    }
}

/// Why there is no other token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotRenewed {
    /// One was bought just now for the same reason, and another one would fare no better.
    #[error("a new token was bought for the same reason just now")]
    CoolingDown,
    /// IMS gave none, or is failing anyway.
    #[error("there is no new token")]
    Failed,
    /// The credentials bring no other: a local token is what it is.
    #[error("the token cannot be renewed")]
    Fixed,
}

impl TokenHandle {
    /// A token other than the one that was `refused`: the current one if there is another by now, and else a new one,
    /// which is waited for as long as one exchange takes. However many ask, there is one exchange.
    ///
    /// None is bought while one was bought for the same reason within `token.cooldown`, and did not help: AEM has never accepted
    /// the token, or refused it to this kind of requests. The cool-down doubles each time, up to [`COOLDOWN_MAX`].
    ///
    /// # Errors
    /// When there is none to be had.
    pub async fn renew(&self, refused: &Lease, kind: RequestKind) -> Result<Lease, NotRenewed> {
        let owner = self.holder_of(refused);
        // Before the exchange is asked for, so that its end is not missed.
        let mut attempts = owner.shared.renewal.attempts.subscribe();
        loop {
            if let Some(lease) = self.other_than(refused) {
                return Ok(lease);
            }
            owner.demand(refused, kind)?;
            // The sender is in `owner`.
            let _ = attempts.changed().await;
            if let Some(lease) = self.other_than(refused) {
                return Ok(lease);
            }
            if !owner.shared.renewal.is_awaited() {
                return Err(NotRenewed::Failed);
            }
        }
    }

    /// AEM has refused a token to a request that is not sent again: the next request is to have another one, which
    /// is not waited for.
    pub fn refused(&self, refused: &Lease, kind: RequestKind) {
        if self.other_than(refused).is_none() {
            let owner = self.holder_of(refused);
            // Why there will be none is told there, where it is worth telling.
            if owner.demand(refused, kind) == Ok(Demanded::Now) {
                owner.shared.renewal.state().not_replayed(kind, refused.0.generation, self.cooldown);
            }
        }
    }

    /// AEM has refused a request again that was sent with a new token.
    pub fn refused_again(&self, refused: &Lease, kind: RequestKind) {
        let owner = self.holder_of(refused);
        let generation = refused.0.generation;
        owner.shared.renewal.state().did_not_help(kind, generation, self.cooldown);
        if refused.is_accepted() {
            debug!(
                token.generation = generation,
                "AEM refuses the new token to a request, and accepts it for others"
            );
        } else if self.other_than(refused).is_none() {
            let _ = owner.demand(refused, kind);
        }
    }

    /// AEM has accepted a request that was sent again with a new token.
    pub fn helped(&self, accepted: &Lease, kind: RequestKind) {
        self.holder_of(accepted).shared.renewal.state().unhelped.retain(|unhelped| unhelped.kind != kind);
    }

    fn other_than(&self, refused: &Lease) -> Option<Lease> {
        self.lease().ok().filter(|lease| !lease.is_same(refused))
    }

    /// Whose token it is: ours, or that of the one who has taken over.
    fn holder_of(&self, lease: &Lease) -> &Self {
        self.fallback().filter(|fallback| fallback.holds(lease)).unwrap_or(self)
    }

    fn holds(&self, lease: &Lease) -> bool {
        self.shared.held.load().as_ref().is_some_and(|held| std::sync::Arc::ptr_eq(held, &lease.0))
    }

    /// Asks the refresher for another token, unless that was done already.
    fn demand(&self, refused: &Lease, kind: RequestKind) -> Result<Demanded, NotRenewed> {
        if !refused.0.grant.renewable {
            return Err(NotRenewed::Fixed);
        }
        let mut state = self.shared.renewal.state();
        if state.stage != Stage::Idle {
            return Ok(Demanded::Before);
        }
        if self.shared.progress.load().failures > 0 {
            // The refresher is at it, and an IMS in trouble is not asked more often.
            return Err(NotRenewed::Failed);
        }
        let generation = refused.0.generation;
        let was_accepted = refused.is_accepted();
        if was_accepted {
            state.never_accepted = 0;
        } else if state.last.is_some_and(|last| last.elapsed() < grown(self.cooldown, state.never_accepted)) {
            if state.told.replace(generation) != Some(generation) {
                warn!(
                    token.generation = generation,
                    cooldown = ?grown(self.cooldown, state.never_accepted),
                    "AEM refuses a token that IMS has just given. Is the credential one of this environment's, and for this API?"
                );
            }
            return Err(NotRenewed::CoolingDown);
        }
        if state.is_cooling_down(kind, self.cooldown) {
            return Err(NotRenewed::CoolingDown);
        }
        warn!(token.generation = generation, "AEM refuses the token, asking IMS for another");
        if !was_accepted && state.last.is_some() {
            state.never_accepted = state.never_accepted.saturating_add(1);
        }
        state.stage = Stage::Wanted;
        state.last = Some(Instant::now());
        drop(state);
        self.shared.renewal.wanted.notify_one();
        Ok(Demanded::Now)
    }
}

/// Which request has asked for another token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demanded {
    /// This one.
    Now,
    /// Another one, and the exchange has not ended yet.
    Before,
}

/// `cooldown`, doubled `times` times, up to [`COOLDOWN_MAX`].
fn grown(cooldown: Duration, times: u32) -> Duration {
    cooldown.saturating_mul(2_u32.saturating_pow(times)).min(COOLDOWN_MAX.max(cooldown))
}

/// What those who want another token and the refresher have in common.
#[derive(Default)]
pub(super) struct Renewal {
    state: Mutex<State>,
    wanted: Notify,
    /// Counts the attempts at IMS that have ended.
    attempts: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    stage: Stage,
    /// When another token was wanted last.
    last: Option<Instant>,
    /// How many tokens in a row were bought because AEM refused one that it had never accepted.
    never_accepted: u32,
    /// The number of the token of which the log knows that it was refused when it was new.
    told: Option<u64>,
    /// Kinds of requests for which a new token did not help, or may not have.
    unhelped: Vec<Unhelped>,
}

/// A kind of requests for which a token was bought.
struct Unhelped {
    kind: RequestKind,
    /// How many new tokens did not help.
    times: u32,
    /// The number of the last token that was refused.
    generation: u64,
    since: Instant,
}

impl State {
    /// Whether no token is bought for this kind now. Nor for a kind that was not seen before, where new tokens did not help
    /// several kinds just now: there may be as many kinds as clients think of.
    fn is_cooling_down(&self, kind: RequestKind, cooldown: Duration) -> bool {
        match self.unhelped.iter().find(|unhelped| unhelped.kind == kind) {
            Some(Unhelped { times: 0, .. }) => false,
            Some(unhelped) => unhelped.since.elapsed() < grown(cooldown, unhelped.times - 1),
            None => {
                let is_recent = |unhelped: &&Unhelped| unhelped.since.elapsed() < cooldown;
                self.unhelped.iter().filter(is_recent).count() >= NEW_KINDS
            }
        }
    }

    /// A new token was refused to a request to which the last one had been.
    fn did_not_help(&mut self, kind: RequestKind, generation: u64, cooldown: Duration) {
        let unhelped = self.unhelped(kind, cooldown);
        // Many requests are refused with the same token.
        if unhelped.generation != generation {
            *unhelped =
                Unhelped { kind, times: unhelped.times.saturating_add(1), generation, since: Instant::now() };
        }
    }

    /// A token is bought for a request that will not be sent again. If the new one is refused as well within the cool-down, it
    /// has not helped.
    fn not_replayed(&mut self, kind: RequestKind, generation: u64, cooldown: Duration) {
        let unhelped = self.unhelped(kind, cooldown);
        if unhelped.generation == generation {
            return;
        }
        let is_first = unhelped.generation == NO_GENERATION
            || (unhelped.times == 0 && unhelped.since.elapsed() > cooldown);
        let times = if is_first { 0 } else { unhelped.times.saturating_add(1) };
        *unhelped = Unhelped { kind, times, generation, since: Instant::now() };
    }

    fn unhelped(&mut self, kind: RequestKind, cooldown: Duration) -> &mut Unhelped {
        // One that was helped by time is forgotten, and so is the oldest where there are too many.
        self.unhelped.retain(|unhelped| {
            unhelped.kind == kind || unhelped.since.elapsed() < grown(cooldown, unhelped.times) * 2
        });
        let place = self.unhelped.iter().position(|unhelped| unhelped.kind == kind).unwrap_or_else(|| {
            if self.unhelped.len() >= KINDS_MAX {
                self.unhelped.remove(0);
            }
            let new = Unhelped { kind, times: 0, generation: NO_GENERATION, since: Instant::now() };
            self.unhelped.push(new);
            self.unhelped.len() - 1
        });
        &mut self.unhelped[place]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Idle,
    /// The refresher is to ask.
    Wanted,
    /// It does.
    Running,
}

impl Renewal {
    /// Ready when another token is wanted.
    pub(super) async fn wanted(&self) {
        loop {
            self.wanted.notified().await;
            if self.state().stage == Stage::Wanted {
                return;
            }
            debug!("The other token is there already");
        }
    }

    /// An attempt begins: it is the one that was wanted.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        if state.stage == Stage::Wanted {
            state.stage = Stage::Running;
        }
    }

    /// An attempt has ended. A new token is what everybody waits for, whatever it was bought for.
    pub(super) fn end(&self, success: bool) {
        let mut state = self.state();
        if success || state.stage == Stage::Running {
            state.stage = Stage::Idle;
        }
        drop(state);
        self.attempts.send_modify(|attempts| *attempts += 1);
    }

    /// AEM has accepted the token that is replaced now: the next one that is refused when it is new is the first one again.
    pub(super) fn accepted(&self) {
        self.state().never_accepted = 0;
    }

    fn is_awaited(&self) -> bool {
        self.state().stage != Stage::Idle
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long no other token is bought, where nobody says otherwise.
pub(super) const COOLDOWN: Duration = Duration::from_secs(30);

/// How long no other token is bought at most, unless `token.cooldown` is longer.
const COOLDOWN_MAX: Duration = Duration::from_secs(30 * 60);

/// So many kinds of requests for which a token did not help are remembered.
const KINDS_MAX: usize = 64;

/// So many kinds of requests may have a token bought within a cool-down, and it does not help them.
const NEW_KINDS: usize = 3;

/// The first token has the number 1.
const NO_GENERATION: u64 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_a_host_and_the_first_segment_of_a_path() {
        let kind = |host: &str, target: &str| RequestKind::of(host.as_bytes(), target.as_bytes());
        let assets = kind("author", "/adobe/assets/1?x");
        for same in ["/adobe", "/adobe/", "/adobe?x=/y", "/adobe;v=1/x"] {
            assert_eq!(kind("author", same), assets, "{same}");
        }
        for other in ["/", "", "/api/assets.json", "/adobe.json", "//adobe"] {
            assert_ne!(kind("author", other), assets, "{other}");
        }
        assert_ne!(kind("publish", "/adobe"), assets);
    }
}
