//! Another token in place of one that AEM has refused: one exchange for all who ask, and none for some time after it.
//!
//! Only a request that AEM has refused comes here, so a lock is no harm.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tracing::{debug, warn};

use super::{Lease, TokenHandle};

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
    /// # Errors
    /// When there is none to be had.
    pub async fn renew(&self, refused: &Lease) -> Result<Lease, NotRenewed> {
        let owner = self.holder_of(refused);
        // Before the exchange is asked for, so that its end is not missed.
        let mut attempts = owner.shared.renewal.attempts.subscribe();
        loop {
            if let Some(lease) = self.other_than(refused) {
                return Ok(lease);
            }
            owner.demand(refused)?;
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

    /// AEM has refused a token: the next request is to have another one. Nobody waits for it.
    pub fn refused(&self, refused: &Lease) {
        if self.other_than(refused).is_none() {
            // Why there will be none is told there, where it is worth telling.
            let _ = self.holder_of(refused).demand(refused);
        }
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
    fn demand(&self, refused: &Lease) -> Result<(), NotRenewed> {
        if !refused.0.grant.renewable {
            return Err(NotRenewed::Fixed);
        }
        let mut state = self.shared.renewal.state();
        if state.stage != Stage::Idle {
            return Ok(());
        }
        if self.shared.progress.load().failures > 0 {
            // The refresher is at it, and an IMS in trouble is not asked more often.
            return Err(NotRenewed::Failed);
        }
        let generation = refused.0.generation;
        if state.last.is_some_and(|last| last.elapsed() < self.cooldown) {
            if state.told.replace(generation) != Some(generation) {
                warn!(
                    token.generation = generation,
                    cooldown = ?self.cooldown,
                    "AEM refuses a token that IMS has just given. Is the credential one of this environment's, and for this API?"
                );
            }
            return Err(NotRenewed::CoolingDown);
        }
        warn!(token.generation = generation, "AEM refuses the token, asking IMS for another");
        *state = State { stage: Stage::Wanted, last: Some(Instant::now()), told: state.told };
        drop(state);
        self.shared.renewal.wanted.notify_one();
        Ok(())
    }
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
    /// The number of the token of which the log knows that it was refused when it was new.
    told: Option<u64>,
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

    fn is_awaited(&self) -> bool {
        self.state().stage != Stage::Idle
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long no other token is bought, where nobody says otherwise.
pub(super) const COOLDOWN: Duration = Duration::from_secs(30);
