//! Credentials with the schedule of their exchanges, and the exchanges that are running.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{cache::Cache, schedule};
use crate::{
    clock::Clock,
    ims::{Exchange, Grant, ImsError, Retry},
};

/// One exchange with its schedule. Whatever one source meets at IMS does not slow another one down.
pub(super) struct Source<E> {
    pub(super) exchange: Arc<E>,
    /// Where its tokens are kept.
    pub(super) cache: Option<Arc<Cache>>,
    /// The oldest first. More than one only while no token is valid, see [`Source::wake`].
    running: Vec<Attempt>,
    /// When the next attempt starts, unless one is running.
    due: Due,
    /// IMS has said `Retry-After`: no attempt starts earlier, for whatever reason.
    not_before: Option<Due>,
    last_start: Option<Instant>,
    /// When another attempt starts though one is running.
    hedge_at: Option<Instant>,
    /// Failures since the last success.
    pub(super) failures: u32,
    /// Refusals of the credentials in a row.
    refusals: u32,
    /// Errors in a row that IMS calls its own.
    pub(super) internal_errors: u32,
    /// What the last failure says about the next attempt; none after a success.
    retry: Option<Retry>,
}

/// Credentials to which IMS has said `Retry-After`.
pub(super) struct Throttled<E> {
    exchange: Arc<E>,
    until: Due,
}

impl<E> Throttled<E> {
    pub(super) fn holds(&self, clock: &Clock) -> bool {
        !self.until.left(clock).is_zero()
    }
}

type Attempt = Pin<Box<dyn Future<Output = Result<Grant, ImsError>> + Send>>;

/// A time by the wall clock, and by a timer that cannot be set back. It has passed when one of them has: timers stand still
/// while a laptop sleeps, and a wall clock that is set back must not put off an attempt by hours.
#[derive(Clone, Copy)]
pub(super) struct Due {
    wall: SystemTime,
    timer: Option<Instant>,
}

impl Due {
    fn at(wall: SystemTime, clock: &Clock) -> Self {
        let wait = wall.duration_since(clock.now()).unwrap_or_default();
        Self { wall, timer: Instant::now().checked_add(wait) }
    }

    fn after(wait: Duration, clock: &Clock) -> Self {
        Self::at(clock.now() + wait, clock)
    }

    fn left(self, clock: &Clock) -> Duration {
        let by_wall = self.wall.duration_since(clock.now()).unwrap_or_default();
        match self.timer {
            Some(timer) => by_wall.min(timer.saturating_duration_since(Instant::now())),
            None => by_wall,
        }
    }
}

impl<E: Exchange> Source<E> {
    /// A source whose first attempt starts at once.
    pub(super) fn new(exchange: E, cache: Option<Cache>, clock: &Clock) -> Self {
        Self {
            exchange: Arc::new(exchange),
            cache: cache.map(Arc::new),
            running: Vec::new(),
            due: Due::after(Duration::ZERO, clock),
            not_before: None,
            last_start: None,
            hedge_at: None,
            failures: 0,
            refusals: 0,
            internal_errors: 0,
            retry: None,
        }
    }

    /// What IMS has said to these credentials, if it still holds.
    pub(super) fn throttled(&self, clock: &Clock) -> Option<Throttled<E>> {
        let until = self.not_before.filter(|_| self.is_blocked(clock))?;
        Some(Throttled { exchange: Arc::clone(&self.exchange), until })
    }

    /// Takes over what IMS has said to the same credentials: a `Retry-After` holds for them in every document.
    pub(super) fn inherit(&mut self, throttled: &Throttled<E>) {
        if self.exchange.is_same(&throttled.exchange) {
            self.block_as(Some(throttled.until));
        }
    }

    /// Whether IMS has said `Retry-After`, and it is not yet that time.
    pub(super) fn is_blocked(&self, clock: &Clock) -> bool {
        !self.blocked_for(clock).is_zero()
    }

    /// Of two times that IMS has said, the later one counts.
    fn block_as(&mut self, other: Option<Due>) {
        self.not_before = [self.not_before, other].into_iter().flatten().max_by_key(|due| due.wall);
    }

    /// Whether both exchange the same credentials.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.exchange.is_same(&other.exchange)
    }

    /// Exchanges these from now on, at the time of the earlier schedule. For the same credentials in another document.
    pub(super) fn take_document_of(&mut self, other: Self, clock: &Clock) {
        (self.exchange, self.cache) = (other.exchange, other.cache);
        self.block_as(other.not_before);
        if other.due.left(clock) < self.due.left(clock) {
            self.due = other.due;
        }
    }

    /// Starts an attempt if it is time for one. Returns whether it did.
    pub(super) fn start_if_due(&mut self, clock: &Clock, token_is_valid: bool) -> bool {
        if token_is_valid {
            self.hedge_at = None;
        }
        if !self.blocked_for(clock).is_zero() {
            return false;
        }
        let is_due = if self.running.is_empty() {
            self.due.left(clock).is_zero()
        } else {
            self.hedge_at.is_some_and(|at| at <= Instant::now())
        };
        if is_due {
            self.start();
        }
        is_due
    }

    /// Starts an attempt now, if none is running and IMS has not said `Retry-After`. Returns whether one is running.
    pub(super) fn start_now(&mut self, clock: &Clock) -> bool {
        if self.running.is_empty() && self.blocked_for(clock).is_zero() {
            self.start();
        }
        self.is_running()
    }

    fn start(&mut self) {
        if self.running.len() >= RUNNING_MAX {
            drop(self.running.remove(0));
        }
        let exchange = Arc::clone(&self.exchange);
        self.running.push(Box::pin(async move { exchange.exchange().await }));
        self.last_start = Some(Instant::now());
        self.hedge_at = None;
    }

    pub(super) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// The result of an attempt that has ended.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<Grant, ImsError>> {
        for place in 0..self.running.len() {
            if let Poll::Ready(result) = self.running[place].as_mut().poll(cx) {
                drop(self.running.remove(place));
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    }

    /// A request has found no valid token: the next attempt starts [`EARLY`] after the last one has, instead of at the end of
    /// the back-off, and does not wait for one that hangs. Refused credentials are not tried earlier, since each refusal
    /// counts against the client at IMS; nor are those for which IMS has said `Retry-After`.
    pub(super) fn wake(&mut self, clock: &Clock) {
        if !self.can_start_early(clock) {
            return;
        }
        let at = self.last_start.map_or_else(Instant::now, |start| start + EARLY);
        if self.is_running() {
            self.hedge_at = Some(at);
        } else if at.saturating_duration_since(Instant::now()) < self.due.left(clock) {
            self.due = Due::after(at.saturating_duration_since(Instant::now()), clock);
        }
    }

    /// Whether a request may cause an attempt before its time.
    pub(super) fn can_start_early(&self, clock: &Clock) -> bool {
        let transient = match self.retry {
            None => self.is_running(),
            Some(Retry::Soon | Retry::After(_)) => true,
            Some(Retry::Slowly | Retry::Never) => false,
        };
        transient && self.blocked_for(clock).is_zero()
    }

    /// The next attempt is at `due`.
    pub(super) fn succeeded(&mut self, due: SystemTime, clock: &Clock) {
        self.running.clear();
        self.due = Due::at(due, clock);
        (self.not_before, self.hedge_at, self.retry) = (None, None, None);
        (self.failures, self.refusals, self.internal_errors) = (0, 0, 0);
    }

    /// Returns how long it is to the next attempt.
    pub(super) fn failed(&mut self, failure: &ImsError, clock: &Clock) -> Duration {
        let retry = failure.retry();
        self.failures = self.failures.saturating_add(1);
        self.refusals = if retry == Retry::Slowly { self.refusals.saturating_add(1) } else { 0 };
        self.internal_errors = if failure.is_internal() { self.internal_errors.saturating_add(1) } else { 0 };
        self.retry = Some(retry);
        let in_a_row = if retry == Retry::Slowly { self.refusals } else { self.failures };
        let roll = fastrand::f64();
        if let Retry::After(after) = retry {
            self.not_before = Some(Due::after(schedule::not_before(after, roll), clock));
        }
        let wait = schedule::wait_after(retry, in_a_row, roll).max(self.blocked_for(clock));
        self.due = Due::after(wait, clock);
        wait
    }

    /// How long it is to the next start of an attempt, if none is running or another one is to start all the same.
    pub(super) fn starts_in(&self, clock: &Clock) -> Option<Duration> {
        let wait = if self.is_running() {
            self.hedge_at?.saturating_duration_since(Instant::now())
        } else {
            self.due.left(clock)
        };
        Some(wait.max(self.blocked_for(clock)))
    }

    /// When the next attempt is due, by the wall clock.
    pub(super) fn next_attempt(&self, clock: &Clock) -> SystemTime {
        self.due.wall.max(clock.now() + self.blocked_for(clock))
    }

    /// How long `Retry-After` still holds.
    fn blocked_for(&self, clock: &Clock) -> Duration {
        self.not_before.map_or(Duration::ZERO, |due| due.left(clock))
    }
}

/// How often a request that finds no token causes an attempt.
pub(super) const EARLY: Duration = Duration::from_secs(5);

/// As many as begin while one takes all its time (`timeouts.ims`, 15 s by default) and requests wait: an IMS that is well
/// again is asked within [`EARLY`], though the attempts from before hang. Then the oldest is given up.
const RUNNING_MAX: usize = 3;
