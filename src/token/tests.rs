use std::{
    collections::VecDeque,
    sync::{Mutex, atomic::AtomicUsize},
    time::UNIX_EPOCH,
};

use tokio::time::sleep;

use super::*;
use crate::{ims::Answer, secret::Authorization};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);

/// Answers as scripted, then goes on with the last answer.
struct Script {
    answers: Mutex<VecDeque<Step>>,
    asked: Arc<AtomicUsize>,
    clock: Clock,
}

#[derive(Clone, Copy)]
enum Step {
    Grant(&'static str, Duration),
    Fail(Retry),
    /// IMS calls it an error of its own.
    Internal,
    Hang,
}

use Step::{Fail, Grant as Gives, Hang, Internal};

impl Exchange for Script {
    async fn exchange(&self) -> Result<Grant, ImsError> {
        self.asked.fetch_add(1, Relaxed);
        let step = {
            let mut answers = self.answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0] }
        };
        match step {
            Gives(token, lifetime) => Ok(grant(token, self.clock.now(), lifetime)),
            Fail(retry) => Err(failure(retry, self.clock.now())),
            Internal => Err(internal(self.clock.now())),
            Hang => std::future::pending().await,
        }
    }
}

fn grant(token: &str, issued_at: SystemTime, lifetime: Duration) -> Grant {
    Grant {
        authorization: Authorization::bearer(token).unwrap(),
        issued_at,
        expires_at: issued_at + lifetime,
        client_id: "cm-p1-e2".to_owned(),
        org: None,
        user_id: None,
        scopes: Vec::new(),
        renewable: true,
        clock_skew_seconds: None,
    }
}

fn failure(retry: Retry, now: SystemTime) -> ImsError {
    let answer = Answer { status: 400, debug_id: None, date: None, received_at: now };
    match retry {
        Retry::Soon => ImsError::Malformed { answer, what: "nothing" },
        Retry::After(after) => ImsError::Throttled { answer, retry_after: Some(after) },
        Retry::Slowly => ImsError::Unsigned,
        Retry::Never => ImsError::LocalTokenEnded { at: now },
    }
}

fn internal(now: SystemTime) -> ImsError {
    let answer = Answer { status: 500, debug_id: None, date: None, received_at: now };
    ImsError::Unavailable { answer, code: crate::ims::Code::InternalError, retry_after: None, hint: None }
}

struct Unobserved;
impl Observer for Unobserved {
    fn attempted(&self, _: &'static str) {}
    fn fell_back(&self, _: bool) {}
}

/// A running refresher: what it hands out, how often it asked, and its clock.
struct Running {
    handle: TokenHandle,
    asked: Arc<AtomicUsize>,
    clock: Clock,
    _stop: tokio_util::sync::DropGuard,
}

async fn start(steps: &[Step]) -> Running {
    let clock = Clock::paused_at(UNIX_EPOCH + HOUR);
    let asked = Arc::new(AtomicUsize::new(0));
    let script = Script {
        answers: Mutex::new(steps.iter().copied().collect()),
        asked: Arc::clone(&asked),
        clock: clock.clone(),
    };
    let (handle, refresher) = channel(script, clock.clone(), 0.75, Unobserved);
    let stop = CancellationToken::new();
    tokio::spawn(refresher.run(stop.clone()));
    sleep(MOMENT).await;
    Running { handle, asked, clock, _stop: stop.drop_guard() }
}

impl Running {
    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    #[track_caller]
    fn check(&self, expected: Option<&str>) {
        let lease = self.handle.lease().ok();
        let found = lease.as_ref().map(|lease| str::from_utf8(lease.authorization()).unwrap());
        assert_eq!(found.map(|value| value.trim_start_matches("Bearer ")), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_replaced_at_three_quarters_of_its_life_less_jitter() {
    let token = start(&[Gives("one", HOUR), Gives("two", HOUR)]).await;
    token.check(Some("one"));
    sleep(HOUR.mul_f64(0.67)).await;
    token.check(Some("one"));
    sleep(HOUR.mul_f64(0.09)).await;
    token.check(Some("two"));
    assert_eq!(token.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_of_three_seconds_works_as_one_of_a_day_does() {
    let token = start(&[Gives("short", Duration::from_secs(3))]).await;
    for _ in 0..600 {
        token.check(Some("short"));
        sleep(Duration::from_millis(100)).await;
    }
    assert!((26..=31).contains(&token.asked()), "{} exchanges in a minute", token.asked());
}

#[tokio::test(start_paused = true)]
async fn an_outage_at_refresh_time_keeps_the_old_token_until_it_expires() {
    let token = start(&[Gives("one", HOUR), Fail(Retry::Soon)]).await;
    sleep(HOUR - Duration::from_secs(2)).await;
    token.check(Some("one"));
    sleep(Duration::from_secs(2)).await;
    token.check(None);
    let retry_after = token.handle.lease().err().unwrap().retry_after;
    assert!((Duration::from_secs(1)..=MINUTE).contains(&retry_after), "{retry_after:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_at_start_ends_by_itself() {
    let token = start(&[Fail(Retry::Soon), Fail(Retry::Soon), Fail(Retry::Soon), Gives("one", HOUR)]).await;
    token.check(None);
    assert!(!token.handle.has_started());
    sleep(Duration::from_secs(8)).await;
    token.check(Some("one"));
    assert!(token.handle.has_started());
    assert_eq!(token.handle.status().progress.failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_is_asked_about_once_a_minute_at_most_on_average_twice() {
    let token = start(&[Fail(Retry::Soon)]).await;
    sleep(HOUR).await;
    assert!((60..=240).contains(&token.asked()), "{} attempts in an hour", token.asked());
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_kept_to() {
    let token = start(&[Fail(Retry::After(MINUTE * 10)), Gives("one", HOUR)]).await;
    sleep(MINUTE * 10 - MOMENT * 2).await;
    assert_eq!(token.asked(), 1);
    sleep(MINUTE + Duration::from_secs(1)).await;
    token.check(Some("one"));
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_is_retried_slowly_and_heals() {
    let mut steps = vec![Fail(Retry::Slowly); 12];
    steps.push(Gives("healed", HOUR));
    let token = start(&steps).await;
    sleep(MINUTE * 3).await;
    assert_eq!(token.asked(), 1);
    sleep(MINUTE * 60).await;
    token.check(Some("healed"));
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_leaves_the_old_token_in_place() {
    let token = start(&[Gives("one", HOUR), Fail(Retry::Slowly)]).await;
    sleep(HOUR.mul_f64(0.9)).await;
    token.check(Some("one"));
    let status = token.handle.status();
    assert!(status.valid);
    assert_eq!(status.progress.last_error.unwrap().class, "unsigned");
}

#[tokio::test(start_paused = true)]
async fn a_laptop_that_slept_past_the_end_sends_no_dead_token_and_recovers_within_a_minute() {
    let token = start(&[Gives("one", HOUR * 24), Gives("two", HOUR * 24)]).await;
    sleep(MINUTE * 10).await;
    token.clock.skip(HOUR * 48);
    token.check(None);
    sleep(MINUTE + MOMENT).await;
    token.check(Some("two"));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_keeps_no_dead_token_alive_and_puts_nothing_off() {
    let token = start(&[Gives("one", HOUR), Fail(Retry::Soon)]).await;
    token.clock.set_back(HOUR * 2);
    sleep(HOUR).await;
    token.check(None);

    let token = start(&[Fail(Retry::Slowly), Gives("one", HOUR)]).await;
    token.clock.set_back(HOUR * 2);
    sleep(MINUTE * 5).await;
    token.check(Some("one"));
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_hangs_holds_up_no_reader() {
    let token = start(&[Gives("one", HOUR), Hang]).await;
    sleep(HOUR.mul_f64(0.9)).await;
    token.check(Some("one"));
    sleep(HOUR).await;
    token.check(None);
}

#[tokio::test(start_paused = true)]
async fn a_cached_grant_serves_before_the_first_exchange() {
    let clock = Clock::paused_at(UNIX_EPOCH + HOUR);
    let asked = Arc::new(AtomicUsize::new(0));
    let answers = Mutex::new(VecDeque::from([Gives("new", HOUR)]));
    let script = Script { answers, asked: Arc::clone(&asked), clock: clock.clone() };
    let (handle, mut refresher) = channel(script, clock.clone(), 0.75, Unobserved);
    refresher.start_with(grant("cached", clock.now(), HOUR));
    assert!(handle.is_valid() && handle.has_started());
    let stop = CancellationToken::new();
    tokio::spawn(refresher.run(stop.clone()));
    sleep(MINUTE).await;
    assert_eq!(asked.load(Relaxed), 0);
    sleep(HOUR).await;
    assert_eq!(handle.lease().unwrap().authorization(), b"Bearer new");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_shown_holds_the_token() {
    let token = start(&[Gives("very-secret", HOUR)]).await;
    assert!(!format!("{:?}", token.handle.status()).contains("very-secret"));
}

#[tokio::test(start_paused = true)]
async fn an_internal_error_among_others_is_no_migration() {
    let other = Fail(Retry::Soon);
    let running = start(&[other, other, other, Internal, other, Internal, other]).await;
    sleep(HOUR).await;
    assert_eq!(running.handle.status().progress.refused_since, None);
    let moved = start(&[other, Internal, Internal, Internal, other]).await;
    sleep(HOUR).await;
    assert!(moved.handle.status().progress.refused_since.is_some());
}

/// Both are asked for: whichever brings a token first ends the wait.
#[tokio::test(start_paused = true)]
async fn without_any_token_the_next_attempt_of_either_counts() {
    let refused = start(&[Fail(Retry::Slowly)]).await;
    let other = start(&[Fail(Retry::After(10 * SECOND))]).await;
    let both = refused.handle.clone().with_fallback("other", other.handle.clone());
    let wait = both.lease().err().unwrap().retry_after;
    assert!(wait <= 11 * SECOND, "{wait:?}");
}

const SECOND: Duration = Duration::from_secs(1);

async fn renew(token: &Running) -> Result<String, NotRenewed> {
    let lease = token.handle.lease().unwrap();
    let renewed = token.handle.renew(&lease).await?;
    Ok(str::from_utf8(renewed.authorization()).unwrap().trim_start_matches("Bearer ").to_owned())
}

#[tokio::test(start_paused = true)]
async fn many_who_were_refused_cause_one_exchange() {
    let token = start(&[Gives("one", HOUR), Gives("two", HOUR), Gives("three", HOUR)]).await;
    let lease = token.handle.lease().unwrap();
    let mut all: tokio::task::JoinSet<_> = (0..64)
        .map(|_| {
            let (handle, lease) = (token.handle.clone(), Lease(Arc::clone(&lease.0)));
            async move { handle.renew(&lease).await.map(|lease| lease.authorization().to_vec()) }
        })
        .collect();
    while let Some(renewed) = all.join_next().await {
        assert_eq!(renewed.unwrap().unwrap(), b"Bearer two");
    }
    // Who is late finds the new one.
    assert_eq!(token.handle.renew(&lease).await.unwrap().authorization(), b"Bearer two");
    assert_eq!(token.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_when_it_is_new_is_not_replaced_before_the_cooldown_is_over() {
    let token = start(&[Gives("one", HOUR), Gives("two", HOUR), Gives("three", HOUR)]).await;
    assert_eq!(renew(&token).await.as_deref(), Ok("two"));
    for _ in 0..29 {
        assert_eq!(renew(&token).await, Err(NotRenewed::CoolingDown));
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(token.asked(), 2);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(renew(&token).await.as_deref(), Ok("three"));
    assert_eq!(token.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_ims_in_trouble_is_not_asked_more_often_because_of_refusals() {
    let token = start(&[Gives("one", HOUR), Fail(Retry::Slowly)]).await;
    assert_eq!(renew(&token).await, Err(NotRenewed::Failed));
    sleep(MINUTE).await;
    for _ in 0..10 {
        assert_eq!(renew(&token).await, Err(NotRenewed::Failed));
    }
    assert_eq!(token.asked(), 2);
    token.check(Some("one"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_while_a_refresh_is_under_way_waits_for_that_one() {
    let token = start(&[Gives("one", HOUR), Hang]).await;
    let lease = token.handle.lease().unwrap();
    sleep(HOUR.mul_f64(0.76)).await;
    assert_eq!(token.asked(), 2, "a refresh is under way");
    let waiting = tokio::time::timeout(MINUTE, token.handle.renew(&lease)).await;
    assert!(waiting.is_err(), "no second exchange, and no answer before there is one");
    assert_eq!(token.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_has_taken_over_is_renewed_in_place_of_the_refused_credential() {
    let first = start(&[Fail(Retry::Slowly)]).await;
    let second = start(&[Gives("oauth one", HOUR), Gives("oauth two", HOUR)]).await;
    let both = first.handle.clone().with_fallback("oauth", second.handle.clone());
    let lease = both.lease().unwrap();
    assert_eq!(both.renew(&lease).await.unwrap().authorization(), b"Bearer oauth two");
    assert_eq!((first.asked(), second.asked()), (1, 2));
}
