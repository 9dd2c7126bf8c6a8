//! The token's life: a handle for readers, a refresher that keeps it full.
//!
//! Readers look at an atomic pointer: a request never waits for IMS, takes no lock, and causes no exchange.
//! The refresher asks ahead of the end. When it fails, the token that it has serves on until it ends by the
//! wall clock.

mod cache;
mod renewal;
mod schedule;
mod source;

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

pub use self::{
    cache::Cache,
    renewal::{NotRenewed, RequestKind},
};
use self::{
    cache::Writer,
    renewal::Renewal,
    source::{Source, Throttled},
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

    /// AEM has answered a request with this token, and not with a refusal.
    pub fn accept(&self) {
        // Most often it is known, and a store would take the cache line from the other threads.
        if !self.0.accepted.load(Relaxed) {
            self.0.accepted.store(true, Relaxed);
        }
    }

    /// Whether AEM has ever accepted the token.
    fn is_accepted(&self) -> bool {
        self.0.accepted.load(Relaxed)
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
    /// The credentials in use: the last ones that brought a token, or those of the start.
    current: Source<E>,
    /// The newest credentials, which have brought no token yet.
    candidate: Option<Candidate<E>>,
    /// Credentials that are not in use any more, and that IMS may not be asked with if they come back.
    throttled: Vec<Throttled<E>>,
    shared: Arc<Shared>,
    clock: Clock,
    refresh_at: f64,
    observer: Box<dyn Observer>,
    name: Option<String>,
    fallback: Option<String>,
    writer: Writer,
    replacements: mpsc::Receiver<Candidate<E>>,
    replace: mpsc::Sender<Candidate<E>>,
}

/// Credentials that take the place of the current ones once they bring a token.
struct Candidate<E> {
    source: Source<E>,
    /// The credential's name, for the log.
    name: String,
    /// Called when they have taken over.
    activate: Box<dyn FnOnce() + Send>,
}

/// Offers new credentials to a refresher. Cheap to clone.
pub struct Replacer<E> {
    candidates: mpsc::Sender<Candidate<E>>,
    clock: Clock,
}

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
    /// A request has found no valid token, and the refresher has been woken for it.
    awaited: AtomicBool,
    wake: Notify,
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
    /// AEM has answered a request with it, and not with a refusal.
    accepted: AtomicBool,
}

impl Held {
    fn is_usable(&self, clock: &Clock, now: Instant) -> bool {
        clock.now() < self.usable_until && now.saturating_duration_since(self.held_since) < self.usable_for
    }
}

impl Shared {
    fn is_valid(&self, clock: &Clock) -> bool {
        self.held.load().as_ref().is_some_and(|held| held.is_usable(clock, Instant::now()))
    }

    /// Wakes the refresher for a request that finds no valid token: once, however many requests do.
    fn wake_refresher(&self) {
        if !self.awaited.load(Relaxed) && !self.awaited.swap(true, Relaxed) {
            self.wake.notify_one();
        }
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
    /// Whether a request that finds no token makes it ask earlier.
    pub can_start_early: bool,
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
        awaited: AtomicBool::new(false),
        wake: Notify::new(),
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
            current: Source::new(exchange, None, &clock),
            candidate: None,
            throttled: Vec::new(),
            shared,
            clock,
            refresh_at,
            observer,
            name: None,
            fallback: None,
            writer: Writer::default(),
            replacements,
            replace,
        },
    )
}

impl<E: Exchange> Replacer<E> {
    /// Offers `exchange`, whose tokens `cache` keeps. It is asked at once and then by a schedule of its own, until it brings a
    /// token and takes the place of the one in use, or another one is offered. Until then the one in use goes on, and brings
    /// tokens when it can: a document that does not work evicts nothing.
    ///
    /// `name` is the credential's, for the log. `activate` is called when the exchange has taken over.
    pub async fn offer(
        &self,
        exchange: E,
        cache: Option<Cache>,
        name: &str,
        activate: impl FnOnce() + Send + 'static,
    ) {
        let source = Source::new(exchange, cache, &self.clock);
        let candidate = Candidate { source, name: name.to_owned(), activate: Box::new(activate) };
        // A refresher that has stopped needs no credentials.
        let _ = self.candidates.send(candidate).await;
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
        self.lease_at(Instant::now())
    }

    /// The same for a caller that has just asked what time it is.
    ///
    /// # Errors
    /// As [`TokenHandle::lease`].
    pub fn lease_at(&self, now: Instant) -> Result<Lease, NoToken> {
        let others = match self.fallback().map(|fallback| fallback.lease_at(now)) {
            Some(Ok(lease)) => return Ok(lease),
            Some(Err(none)) => none.retry_after,
            None => RETRY_AFTER_MAX,
        };
        let held = self.shared.held.load();
        match &*held {
            Some(held) if held.is_usable(&self.clock, now) => Ok(Lease(Arc::clone(held))),
            _ => {
                self.shared.wake_refresher();
                Err(NoToken { retry_after: self.none().retry_after.min(others) })
            }
        }
    }

    /// Whether a token that was leased before may be sent now.
    pub fn is_usable(&self, lease: &Lease) -> bool {
        lease.0.is_usable(&self.clock, Instant::now())
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
            valid: held.is_usable(&self.clock, Instant::now()),
            issued_at: Some(held.grant.issued_at),
            expires_at: Some(held.grant.expires_at),
            user_id: held.grant.user_id.clone(),
            scopes: held.grant.scopes.clone(),
            progress,
            fallback,
        }
    }

    fn none(&self) -> NoToken {
        let progress = self.shared.progress.load();
        let left = |next: SystemTime| next.duration_since(self.clock.now()).ok();
        let wait = progress.next_attempt.and_then(left).unwrap_or_default();
        let longest = if progress.can_start_early { source::EARLY } else { RETRY_AFTER_MAX };
        NoToken { retry_after: wait.clamp(RETRY_AFTER_MIN, longest) }
    }
}

impl<E: Exchange> Refresher<E> {
    /// Starts with a grant that was had before, from the cache file.
    pub fn start_with(&mut self, grant: Grant) {
        let (_, due) = self.hold(grant);
        self.current.succeeded(due, &self.clock);
    }

    /// Keeps each token in `cache`.
    pub fn keep_in(&mut self, cache: Option<Cache>) {
        self.current.cache = cache.map(Arc::new);
    }

    /// Tells log lines of several credentials apart.
    pub fn is_called(&mut self, name: &str) {
        self.name = Some(name.to_owned());
    }

    /// Says so when the credential called `name` takes over; see [`TokenHandle::with_fallback`].
    pub fn falls_back_to(&mut self, name: &str) {
        self.fallback = Some(name.to_owned());
    }

    /// What offers new credentials to it.
    pub fn replacer(&self) -> Replacer<E> {
        Replacer { candidates: self.replace.clone(), clock: self.clock.clone() }
    }

    /// Keeps the token fresh until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.step()).await.is_some() {}
        // The write is on a thread of its own: this only keeps the process from leaving half of it behind.
        let _ = timeout(WRITE_WAIT, self.writer.finish()).await;
        debug!("Refresher stopped");
    }

    /// Starts the attempts that are due, and handles the next event. Everything is waited for at once: an exchange that hangs
    /// keeps nothing waiting, neither a token that other credentials have brought nor new credentials.
    async fn step(&mut self) {
        self.start_attempts();
        let nap = self.nap();
        let Self { current, candidate, shared, replacements, writer, .. } = self;
        let event = tokio::select! {
            biased;
            event = attempt_ended(current, candidate.as_mut()) => event,
            Some(candidate) = replacements.recv() => Event::Offered(candidate),
            () = shared.renewal.wanted() => Event::Refused,
            () = shared.wake.notified() => Event::Awaited,
            () = writer.written() => Event::Nothing,
            () = sleep(nap) => Event::Slept,
        };
        match event {
            Event::Ended(Ok(grant)) => self.refreshed(grant),
            Event::Ended(Err(error)) => self.refresh_failed(&error),
            Event::CandidateEnded(Ok(grant)) => self.replace(grant),
            Event::CandidateEnded(Err(error)) => self.candidate_failed(&error),
            Event::Offered(candidate) => self.consider(candidate),
            Event::Refused => self.renew(),
            Event::Awaited => self.wake(),
            // After a suspend the next request is to wake the refresher, whatever it did before.
            Event::Slept => self.shared.awaited.store(false, Relaxed),
            Event::Nothing => {}
        }
    }

    fn start_attempts(&mut self) {
        let is_valid = self.shared.is_valid(&self.clock);
        let mut started = false;
        if self.current.start_if_due(&self.clock, is_valid) {
            self.shared.renewal.begin();
            started = true;
        }
        if let Some(candidate) = &mut self.candidate {
            started |= candidate.source.start_if_due(&self.clock, is_valid);
        }
        if started {
            // Where it hangs, the next request is to cause another one.
            self.shared.awaited.store(false, Relaxed);
            self.show_next_attempt();
        }
    }

    /// How long to sleep: not beyond [`schedule::NAP_MAX`], since timers stand still while a laptop sleeps.
    fn nap(&self) -> Duration {
        let of_candidate =
            self.candidate.as_ref().and_then(|candidate| candidate.source.starts_in(&self.clock));
        let next = self.current.starts_in(&self.clock).into_iter().chain(of_candidate).min();
        next.unwrap_or(schedule::NAP_MAX).min(schedule::NAP_MAX)
    }

    /// A request has found no valid token.
    fn wake(&mut self) {
        if self.shared.is_valid(&self.clock) {
            self.shared.awaited.store(false, Relaxed);
            return;
        }
        self.current.wake(&self.clock);
        if let Some(candidate) = &mut self.candidate {
            candidate.source.wake(&self.clock);
        }
        self.show_next_attempt();
    }

    /// AEM has refused the token. An IMS that is failing, or that has said when to come back, is not asked for another one.
    fn renew(&mut self) {
        if self.current.failures == 0 && self.current.start_now(&self.clock) {
            self.shared.renewal.begin();
        } else {
            self.shared.renewal.end(false);
        }
    }

    fn refreshed(&mut self, grant: Grant) {
        self.observer.attempted("success");
        self.publish(grant);
        self.shared.renewal.end(true);
    }

    fn refresh_failed(&mut self, error: &ImsError) {
        self.observer.attempted(error.class());
        self.fail(error);
        if !self.current.is_running() {
            self.shared.renewal.end(false);
        }
    }

    /// New credentials have come. They take the place of those that came before and have brought no token yet.
    fn consider(&mut self, mut candidate: Candidate<E>) {
        if let Some(before) = self.candidate.take() {
            self.remember(&before.source);
        }
        for throttled in self.throttled.iter().chain(&self.current.throttled(&self.clock)) {
            candidate.source.inherit(throttled);
        }
        if candidate.source.is_blocked(&self.clock) {
            info!(
                credential = candidate.name,
                retry_in_ms = millis(candidate.source.starts_in(&self.clock).unwrap_or_default()),
                "IMS has said when it may be asked with these credentials again; it is asked then"
            );
        }
        if candidate.source.is_same(&self.current) && self.current.is_blocked(&self.clock) {
            self.current.take_document_of(candidate.source, &self.clock);
            (candidate.activate)();
        } else {
            self.candidate = Some(candidate);
        }
        self.show_next_attempt();
    }

    /// Keeps in mind what IMS has said to credentials that are given up.
    fn remember(&mut self, given_up: &Source<E>) {
        self.throttled.retain(|throttled| throttled.holds(&self.clock));
        if let Some(throttled) = given_up.throttled(&self.clock) {
            if self.throttled.len() >= THROTTLED_MAX {
                self.throttled.remove(0);
            }
            self.throttled.push(throttled);
        }
    }

    /// The candidate has brought a token: it takes over.
    fn replace(&mut self, grant: Grant) {
        self.observer.attempted("success");
        let Some(Candidate { source, name, activate }) = self.candidate.take() else { return };
        // What the others are still asking for is not waited for.
        let before = std::mem::replace(&mut self.current, source);
        self.remember(&before);
        self.publish(grant);
        activate();
        info!(credential = name, "The credentials were read anew and are in use");
        self.shared.renewal.end(true);
    }

    fn candidate_failed(&mut self, error: &ImsError) {
        self.observer.attempted(error.class());
        let token_is_valid = self.shared.is_valid(&self.clock);
        let Some(candidate) = &mut self.candidate else { return };
        let wait = candidate.source.failed(error, &self.clock);
        let (credential, hint) = (candidate.name.as_str(), error.hint().map(|hint| hint.to_string()));
        let (failures, retry_in_ms) = (candidate.source.failures, millis(wait));
        if failures > 1 {
            debug!(credential, %error, failures, retry_in_ms, "The new credentials still bring no token");
        } else if token_is_valid {
            error!(credential, %error, hint, retry_in_ms, "The new credentials brought no token, the old ones stay");
        } else {
            error!(
                credential,
                %error,
                hint,
                retry_in_ms,
                "The new credentials brought no token, the old ones stay and bring none either; both are tried"
            );
        }
        if candidate.source.is_same(&self.current)
            && !candidate.source.is_running()
            && let Some(Candidate { source, activate, .. }) = self.candidate.take()
        {
            // Two documents with the same credentials are not tried side by side.
            self.current.take_document_of(source, &self.clock);
            activate();
        }
        self.shared.awaited.store(false, Relaxed);
        self.show_next_attempt();
    }

    fn publish(&mut self, grant: Grant) {
        let after_failures = self.current.failures;
        let expires_at = rfc3339(grant.expires_at);
        let kept =
            self.current.cache.as_ref().and_then(|cache| Some((Arc::clone(cache), cache.encode(&grant)?)));
        let (generation, due) = self.hold(grant);
        self.current.succeeded(due, &self.clock);
        self.show_next_attempt();
        info!(
            credential = self.name,
            token.generation = generation,
            token.expires_at = expires_at,
            token.refresh_at = rfc3339(due),
            after_failures,
            "Token refreshed"
        );
        // Last: a token that has been bought is used at once, however slow the disk is.
        if let Some((cache, text)) = kept {
            self.writer.write(cache, text);
        }
    }

    /// Shows when the next attempt starts, of whichever credentials.
    fn show_next_attempt(&self) {
        let sources =
            || [Some(&self.current), self.candidate.as_ref().map(|candidate| &candidate.source)].into_iter();
        let next_attempt = sources().flatten().map(|source| source.next_attempt(&self.clock)).min();
        let can_start_early = sources().flatten().any(|source| source.can_start_early(&self.clock));
        let progress = Progress::clone(&self.shared.progress.load());
        self.shared.progress.store(Arc::new(Progress { next_attempt, can_start_early, ..progress }));
    }

    /// From now on readers get this one. Tells its number and when it is to be replaced.
    fn hold(&mut self, grant: Grant) -> (u64, SystemTime) {
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
        let before = self.shared.held.load();
        let generation = before.as_ref().map_or(0, |held| held.generation) + 1;
        if before.as_ref().is_some_and(|held| held.accepted.load(Relaxed)) {
            self.shared.renewal.accepted();
        }
        let usable_until = schedule::usable_until(&grant);
        let usable_for = usable_until.duration_since(self.clock.now()).unwrap_or_default();
        let value = |text: &str| HeaderValue::from_str(text).ok().filter(|value| !value.is_empty());
        let (client_id, org) = (value(&grant.client_id), grant.org.as_deref().and_then(value));
        let held = Held {
            grant,
            client_id,
            org,
            generation,
            usable_until,
            held_since: Instant::now(),
            usable_for,
            accepted: AtomicBool::new(false),
        };
        self.shared.held.store(Some(Arc::new(held)));
        self.shared.awaited.store(false, Relaxed);
        self.shared.progress.store(Arc::new(Progress { next_attempt: Some(due), ..Progress::default() }));
        (generation, due)
    }

    fn fail(&mut self, failure: &ImsError) {
        let wait = self.current.failed(failure, &self.clock);
        let failures = self.current.failures;
        let last_error = LastError {
            at: self.clock.now(),
            class: failure.class(),
            message: failure.to_string(),
            hint: failure.hint().map(|hint| hint.to_string()),
        };
        self.log(failure, &last_error, failures, wait);
        let refused_since = self.give_way(failure);
        self.shared.progress.store(Arc::new(Progress {
            failures,
            last_error: Some(last_error),
            refused_since,
            ..Progress::default()
        }));
        self.shared.awaited.store(false, Relaxed);
        self.show_next_attempt();
    }

    /// Lets the fallback take over when IMS has refused the credentials for good. Since when that is.
    fn give_way(&self, failure: &ImsError) -> Option<SystemTime> {
        let before = self.shared.progress.load().refused_since;
        // A project that was moved to OAuth answers so for ever, and so does an IMS in trouble for a while.
        let moved = self.current.internal_errors >= MOVED_AFTER;
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
            .filter(|held| held.is_usable(&self.clock, Instant::now()))
            .map_or_else(|| "no token in hand".to_owned(), |held| rfc3339(held.usable_until));
        let answer = failure.answer();
        let debug_id = answer.and_then(|answer| answer.debug_id.as_deref());
        let skew = answer.and_then(crate::ims::Answer::clock_skew_seconds);
        let causes = network::causes(failure);
        let retry_in_ms = millis(wait);
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

/// What the refresher waits for.
enum Event<E> {
    /// An attempt of the credentials in use.
    Ended(Result<Grant, ImsError>),
    CandidateEnded(Result<Grant, ImsError>),
    /// New credentials.
    Offered(Candidate<E>),
    /// AEM has refused the token.
    Refused,
    /// A request has found no valid token.
    Awaited,
    Slept,
    Nothing,
}

/// The next attempt that ends. The newest credentials first: if both bring a token at once, theirs is used.
async fn attempt_ended<E: Exchange>(
    current: &mut Source<E>,
    mut candidate: Option<&mut Candidate<E>>,
) -> Event<E> {
    poll_fn(|cx| {
        if let Some(candidate) = &mut candidate
            && let Poll::Ready(result) = candidate.source.poll_ended(cx)
        {
            return Poll::Ready(Event::CandidateEnded(result));
        }
        current.poll_ended(cx).map(Event::Ended)
    })
    .await
}

/// A nap of no length gives way to other tasks: a due attempt that may not start yet must not keep the thread.
async fn sleep(nap: Duration) {
    tokio::time::sleep(nap.max(NAP_MIN)).await;
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Of so many credentials it is remembered that IMS has said `Retry-After`.
const THROTTLED_MAX: usize = 16;

const NAP_MIN: Duration = Duration::from_millis(1);

/// How long the end of the process waits for the cache file.
const WRITE_WAIT: Duration = Duration::from_millis(500);

/// So many times in a row is no accident any more.
const MOVED_AFTER: u32 = 3;

/// What clients are told when nobody knows better, and at most.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
