//! The token's life: a handle for readers, a refresher that keeps it full.
//!
//! Readers look at an atomic pointer: a request never waits for IMS, takes no lock, and causes no exchange.
//! The refresher asks ahead of the end. When it fails, the token that it has serves on until it ends by the
//! wall clock.

mod cache;
mod renewal;
mod schedule;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::renewal::Renewal;
pub(crate) use self::schedule::wait_after;
pub use self::{
    cache::{Cache, Cached},
    renewal::NotRenewed,
};
use crate::{
    clock::{Clock, rfc3339},
    ims::{Exchange, Grant, ImsError, Retry},
    network,
    secret::never,
};

/// What the rest of the program sees of a token. Cheap to clone.
#[derive(Clone)]
pub struct TokenHandle {
    shared: Arc<Shared>,
    clock: Clock,
    fallback: Option<Arc<Fallback>>,
    cooldown: Duration,
}

/// A token for the time of one request, with what belongs to it.
pub struct Lease(Arc<Held>);

impl Lease {
    /// Whether both are of one token.
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The `Authorization` field value.
    pub fn authorization(&self) -> &[u8] {
        self.0.grant.authorization.as_bytes()
    }

    /// The token itself.
    pub(crate) fn token(&self) -> &[u8] {
        self.0.grant.authorization.credentials()
    }

    /// The client id that the token was issued to, as a field value.
    pub fn client_id(&self) -> Option<&[u8]> {
        self.0.client_id.as_ref().map(HeaderValue::as_bytes)
    }

    /// The organisation of the client, as a field value.
    pub fn org(&self) -> Option<&[u8]> {
        self.0.org.as_ref().map(HeaderValue::as_bytes)
    }
}

never!(Lease: std::fmt::Debug, Clone);
never!(TokenHandle: std::fmt::Debug);
never!(Held: std::fmt::Debug, Clone);

/// Another token, for when IMS refuses the credentials of this one.
struct Fallback {
    name: String,
    token: TokenHandle,
}

/// Keeps a token fresh: give [`Refresher::run`] a task.
pub struct Refresher<E> {
    exchange: E,
    shared: Arc<Shared>,
    clock: Clock,
    refresh_at: f64,
    observer: Box<dyn Observer>,
    name: Option<String>,
    fallback: Option<String>,
    /// So many times in a row IMS has spoken of an error of its own.
    internal_errors: u32,
    replacements: mpsc::Receiver<Replacement<E>>,
    replace: mpsc::Sender<Replacement<E>>,
}

/// Another exchange in place of the one in use, what it brought, and whom to tell how that went.
struct Replacement<E> {
    exchange: E,
    brought: Result<Grant, ImsError>,
    tell: oneshot::Sender<Replaced>,
}

/// How a replacement went.
#[derive(Debug)]
pub enum Replaced {
    /// The new exchange brought a token and is in use.
    Works,
    /// It brought none and is in use all the same, since the old one has no valid token either.
    TakesOver(ImsError),
    /// It brought none, and the old one stays.
    Rejected(ImsError),
}

/// Puts another exchange in place of the one in use, when the credentials have changed. Cheap to clone.
pub struct Replacer<E>(mpsc::Sender<Replacement<E>>);

/// Is told of each attempt; the metrics listen.
pub trait Observer: Send + Sync {
    /// `outcome` is `success` or an error's class.
    fn attempted(&self, outcome: &'static str);

    /// From now on requests get the fallback's token, or their own again.
    fn fell_back(&self, active: bool);
}

/// There is no token that could be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no valid token")]
pub struct NoToken {
    /// When there may be one: until the next attempt.
    pub retry_after: Duration,
}

struct Shared {
    held: ArcSwapOption<Held>,
    /// IMS refuses the credentials, and asking again changes nothing.
    refused: AtomicBool,
    progress: ArcSwap<Progress>,
    renewal: Renewal,
}

/// A grant, and how long it is sent: until a time of the wall clock, and no longer than it has left now by a clock that
/// nobody can set back.
struct Held {
    grant: Grant,
    client_id: Option<HeaderValue>,
    org: Option<HeaderValue>,
    generation: u64,
    usable_until: SystemTime,
    held_since: Instant,
    usable_for: Duration,
}

impl Held {
    fn is_usable(&self, clock: &Clock) -> bool {
        clock.now() < self.usable_until && self.held_since.elapsed() < self.usable_for
    }
}

impl Shared {
    fn is_valid(&self, clock: &Clock) -> bool {
        self.held.load().as_ref().is_some_and(|held| held.is_usable(clock))
    }
}

/// How the refresher fares.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// When it will ask next.
    pub next_attempt: Option<SystemTime>,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure, until a success.
    pub last_error: Option<LastError>,
    /// Since when IMS refuses the credentials for good.
    pub refused_since: Option<SystemTime>,
}

/// A failure, in words that are fit to be shown.
#[derive(Debug, Clone)]
pub struct LastError {
    /// When.
    pub at: SystemTime,
    /// Its class, from a closed set.
    pub class: &'static str,
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What is known of the token now, for `/status`; not the token.
#[derive(Debug, Clone, Default)]
pub struct TokenStatus {
    /// How many tokens there were.
    pub generation: u64,
    /// Whether it may be sent.
    pub valid: bool,
    /// When it was asked for.
    pub issued_at: Option<SystemTime>,
    /// When it ends.
    pub expires_at: Option<SystemTime>,
    /// The technical account that AEM will see, if the token says so.
    pub user_id: Option<String>,
    /// What it allows, if it says so.
    pub scopes: Vec<String>,
    /// How the refresher fares.
    pub progress: Progress,
    /// The name of the credential that takes over, and whether it has.
    pub fallback: Option<(String, bool)>,
}

/// A handle and the refresher that fills it. Nothing starts before [`Refresher::run`].
///
/// `refresh_at` is the share of a lifetime after which a token is replaced.
pub fn channel<E: Exchange>(
    exchange: E,
    clock: Clock,
    refresh_at: f64,
    observer: impl Observer + 'static,
) -> (TokenHandle, Refresher<E>) {
    let shared = Arc::new(Shared {
        held: ArcSwapOption::empty(),
        refused: AtomicBool::new(false),
        progress: ArcSwap::default(),
        renewal: Renewal::default(),
    });
    let handle = TokenHandle {
        shared: Arc::clone(&shared),
        clock: clock.clone(),
        fallback: None,
        cooldown: renewal::COOLDOWN,
    };
    let (replace, replacements) = mpsc::channel(1);
    let observer = Box::new(observer);
    (
        handle,
        Refresher {
            exchange,
            shared,
            clock,
            refresh_at,
            observer,
            name: None,
            fallback: None,
            internal_errors: 0,
            replacements,
            replace,
        },
    )
}

impl<E: Exchange> Replacer<E> {
    /// Tries `exchange`, and uses it from then on if it brings a token; if not, the one in use stays. Where that has no
    /// valid token either, the new one is used all the same and goes on trying. `None` when the refresher has stopped.
    pub async fn replace(&self, exchange: E) -> Option<Replaced> {
        // Here, not in the refresher: an IMS that hangs over the new one must not hold up the one in use.
        let brought = exchange.exchange().await;
        let (tell, told) = oneshot::channel();
        self.0.send(Replacement { exchange, brought, tell }).await.ok()?;
        told.await.ok()
    }
}

impl TokenHandle {
    /// The same, but for `token` taking over when IMS refuses the credentials of this one for good.
    #[must_use]
    pub fn with_fallback(self, name: &str, token: Self) -> Self {
        let fallback = Fallback { name: name.to_owned(), token };
        Self { fallback: Some(Arc::new(fallback)), ..self }
    }

    /// The same, but for the time in which no second token is bought because AEM refused the first.
    #[must_use]
    pub fn with_cooldown(self, cooldown: Duration) -> Self {
        Self { cooldown, ..self }
    }

    /// A token that is valid now, for one request.
    ///
    /// # Errors
    /// When there is none: never a token that has ended.
    pub fn lease(&self) -> Result<Lease, NoToken> {
        let others = match self.fallback().map(Self::lease) {
            Some(Ok(lease)) => return Ok(lease),
            Some(Err(none)) => none.retry_after,
            None => RETRY_AFTER_MAX,
        };
        let held = self.shared.held.load();
        match &*held {
            Some(held) if held.is_usable(&self.clock) => Ok(Lease(Arc::clone(held))),
            _ => Err(NoToken { retry_after: self.none().retry_after.min(others) }),
        }
    }

    /// Whether a request sent now would carry a token.
    pub fn is_valid(&self) -> bool {
        self.shared.is_valid(&self.clock) || self.fallback().is_some_and(Self::is_valid)
    }

    /// Whether there ever was a token.
    pub fn has_started(&self) -> bool {
        self.shared.held.load().is_some() || self.fallback().is_some_and(Self::has_started)
    }

    /// The token that has taken over.
    fn fallback(&self) -> Option<&Self> {
        self.fallback.as_ref().filter(|_| self.shared.refused.load(Relaxed)).map(|fallback| &fallback.token)
    }

    /// When the current token ends, valid or not.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.shared.held.load().as_ref().map(|held| held.grant.expires_at)
    }

    /// What is known now.
    pub fn status(&self) -> TokenStatus {
        let progress = Progress::clone(&self.shared.progress.load());
        let active = self.fallback().is_some_and(Self::is_valid);
        let fallback = self.fallback.as_ref().map(|fallback| (fallback.name.clone(), active));
        let held = self.shared.held.load();
        let Some(held) = held.as_ref() else {
            return TokenStatus { progress, fallback, ..TokenStatus::default() };
        };
        TokenStatus {
            generation: held.generation,
            valid: held.is_usable(&self.clock),
            issued_at: Some(held.grant.issued_at),
            expires_at: Some(held.grant.expires_at),
            user_id: held.grant.user_id.clone(),
            scopes: held.grant.scopes.clone(),
            progress,
            fallback,
        }
    }

    fn none(&self) -> NoToken {
        let next = self.shared.progress.load().next_attempt;
        let wait = next.and_then(|next| next.duration_since(self.clock.now()).ok()).unwrap_or_default();
        NoToken { retry_after: wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX) }
    }
}

impl<E: Exchange> Refresher<E> {
    /// Starts with a grant that was had before, from the cache file.
    pub fn start_with(&mut self, grant: Grant) {
        self.hold(grant);
    }

    /// Tells log lines of several credentials apart.
    pub fn is_called(&mut self, name: &str) {
        self.name = Some(name.to_owned());
    }

    /// Says so when the credential called `name` takes over; see [`TokenHandle::with_fallback`].
    pub fn falls_back_to(&mut self, name: &str) {
        self.fallback = Some(name.to_owned());
    }

    /// What puts another exchange in place.
    pub fn replacer(&self) -> Replacer<E> {
        Replacer(self.replace.clone())
    }

    /// Keeps the token fresh until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.turn()).await.is_some() {}
        debug!("Refresher stopped");
    }

    /// Waits until it is time or a token was refused, and asks; or tries another exchange that has come.
    async fn turn(&mut self) {
        let due = self.shared.progress.load().next_attempt;
        let replacement = tokio::select! {
            biased;
            replacement = self.replacements.recv() => replacement,
            () = self.shared.renewal.wanted() => None,
            () = sleep_until(&self.clock, due) => None,
        };
        match replacement {
            Some(replacement) => self.replace(replacement),
            None => self.refresh().await,
        }
    }

    fn replace(&mut self, Replacement { exchange, brought, tell }: Replacement<E>) {
        let replaced = match brought {
            Ok(grant) => {
                self.observer.attempted("success");
                self.exchange = exchange;
                self.publish(grant);
                Replaced::Works
            }
            Err(error) => {
                self.observer.attempted(error.class());
                if self.shared.is_valid(&self.clock) {
                    Replaced::Rejected(error)
                } else {
                    self.exchange = exchange;
                    self.fail(&error);
                    Replaced::TakesOver(error)
                }
            }
        };
        self.shared.renewal.end(matches!(replaced, Replaced::Works));
        // Whoever asked may have gone.
        let _ = tell.send(replaced);
    }

    async fn refresh(&mut self) {
        self.shared.renewal.begin();
        let brought = self.exchange.exchange().await;
        let success = brought.is_ok();
        match brought {
            Ok(grant) => {
                self.observer.attempted("success");
                self.publish(grant);
            }
            Err(error) => {
                self.observer.attempted(error.class());
                self.fail(&error);
            }
        }
        self.shared.renewal.end(success);
    }

    fn publish(&mut self, grant: Grant) {
        let after_failures = self.shared.progress.load().failures;
        let expires_at = rfc3339(grant.expires_at);
        let (generation, due) = self.hold(grant);
        info!(
            credential = self.name,
            token.generation = generation,
            token.expires_at = expires_at,
            token.refresh_at = rfc3339(due),
            after_failures,
            "Token refreshed"
        );
    }

    /// From now on readers get this one. Tells its number and when it is to be replaced.
    fn hold(&mut self, grant: Grant) -> (u64, SystemTime) {
        self.internal_errors = 0;
        if self.shared.refused.swap(false, Relaxed)
            && let Some(fallback) = &self.fallback
        {
            info!(
                credential = self.name,
                fallback, "The credentials bring tokens again, the fallback is not needed any more"
            );
            self.observer.fell_back(false);
        }
        let due = schedule::refresh_due(&grant, self.refresh_at, fastrand::f64());
        let generation = self.shared.held.load().as_ref().map_or(0, |held| held.generation) + 1;
        let usable_until = schedule::usable_until(&grant);
        let usable_for = usable_until.duration_since(self.clock.now()).unwrap_or_default();
        let value = |text: &str| HeaderValue::from_str(text).ok().filter(|value| !value.is_empty());
        let (client_id, org) = (value(&grant.client_id), grant.org.as_deref().and_then(value));
        let held =
            Held { grant, client_id, org, generation, usable_until, held_since: Instant::now(), usable_for };
        self.shared.held.store(Some(Arc::new(held)));
        self.shared.progress.store(Arc::new(Progress { next_attempt: Some(due), ..Progress::default() }));
        (generation, due)
    }

    fn fail(&mut self, failure: &ImsError) {
        let failures = self.shared.progress.load().failures.saturating_add(1);
        let wait = wait_after(failure.retry(), failures, fastrand::f64());
        let next_attempt = Some(self.clock.now() + wait);
        let last_error = LastError {
            at: self.clock.now(),
            class: failure.class(),
            message: failure.to_string(),
            hint: failure.hint().map(|hint| hint.to_string()),
        };
        self.log(failure, &last_error, failures, wait);
        self.internal_errors = if failure.is_internal() { self.internal_errors.saturating_add(1) } else { 0 };
        let refused_since = self.give_way(failure);
        self.shared.progress.store(Arc::new(Progress {
            next_attempt,
            failures,
            last_error: Some(last_error),
            refused_since,
        }));
    }

    /// Lets the fallback take over when IMS has refused the credentials for good. Since when that is.
    fn give_way(&self, failure: &ImsError) -> Option<SystemTime> {
        let before = self.shared.progress.load().refused_since;
        // A project that was moved to OAuth answers so for ever, and so does an IMS in trouble for a while.
        let moved = self.internal_errors >= MOVED_AFTER;
        if before.is_some() || !(failure.is_permanent() || moved) {
            return before;
        }
        self.shared.refused.store(true, Relaxed);
        if let Some(fallback) = &self.fallback {
            match failure {
                ImsError::LocalTokenEnded { .. } => {
                    warn!(
                        credential = self.name,
                        fallback, "The local token has ended, the fallback takes over"
                    );
                }
                _ => {
                    warn!(
                        credential = self.name,
                        fallback, "IMS refuses the credentials, the fallback takes over"
                    );
                }
            }
            self.observer.fell_back(true);
        }
        Some(self.clock.now())
    }

    fn log(&self, failure: &ImsError, told: &LastError, failures: u32, wait: Duration) {
        let held = self.shared.held.load();
        let serves_until = held
            .as_ref()
            .filter(|held| held.is_usable(&self.clock))
            .map_or_else(|| "no token in hand".to_owned(), |held| rfc3339(held.usable_until));
        let answer = failure.answer();
        let debug_id = answer.and_then(|answer| answer.debug_id.as_deref());
        let skew = answer.and_then(crate::ims::Answer::clock_skew_seconds);
        let causes = network::causes(failure);
        let retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        macro_rules! tell {
            ($level:ident, $message:literal) => {
                $level!(
                    credential = self.name,
                    error = told.message,
                    class = told.class,
                    hint = told.hint,
                    debug_id,
                    clock_skew_s = skew,
                    causes,
                    failures,
                    retry_in_ms,
                    serves_until,
                    $message
                )
            };
        }
        // Permanent errors are loud: nothing mends itself.
        match failure.retry() {
            Retry::Slowly | Retry::Never => tell!(error, "No new token, and trying again will not help"),
            Retry::Soon | Retry::After(_) => tell!(warn, "No new token, trying again"),
        }
    }
}

/// Sleeps until `due`, in naps: timers stand still while a laptop sleeps, the wall clock does not. And no longer than it was
/// to `due` at first: the wall clock may be set back, and must not put off an attempt by hours.
async fn sleep_until(clock: &Clock, due: Option<SystemTime>) {
    let Some(due) = due else { return };
    let Ok(wait) = due.duration_since(clock.now()) else { return };
    let end = Instant::now() + wait;
    while clock.now() < due && Instant::now() < end {
        let left = due.duration_since(clock.now()).unwrap_or_default();
        let nap = left.min(end - Instant::now()).min(schedule::NAP_MAX);
        tokio::time::sleep(nap).await;
    }
}

/// So many times in a row is no accident any more.
const MOVED_AFTER: u32 = 3;

/// What clients are told when nobody knows better, and at most.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
