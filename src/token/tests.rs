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
    answers: Arc<Mutex<VecDeque<Step>>>,
    asked: Arc<AtomicUsize>,
    clock: Clock,
    /// What it asks with; none is the same as no other one.
    credentials: Option<&'static str>,
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

    fn is_same(&self, other: &Self) -> bool {
        self.credentials.is_some() && self.credentials == other.credentials
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
    replacer: Replacer<Script>,
    answers: Arc<Mutex<VecDeque<Step>>>,
    asked: Arc<AtomicUsize>,
    clock: Clock,
    ended: tokio::task::JoinHandle<()>,
    stop: tokio_util::sync::DropGuard,
}

async fn start(steps: &[Step]) -> Running {
    let clock = Clock::paused_at(UNIX_EPOCH + HOUR);
    let asked = Arc::new(AtomicUsize::new(0));
    let answers = Arc::new(Mutex::new(steps.iter().copied().collect()));
    let script = Script {
        answers: Arc::clone(&answers),
        asked: Arc::clone(&asked),
        clock: clock.clone(),
        credentials: Some("first"),
    };
    let (handle, refresher) = channel(script, clock.clone(), 0.75, Unobserved);
    let stop = CancellationToken::new();
    let replacer = refresher.replacer();
    let ended = tokio::spawn(refresher.run(stop.clone()));
    sleep(MOMENT).await;
    Running { handle, replacer, answers, asked, clock, ended, stop: stop.drop_guard() }
}

impl Running {
    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    /// From now on IMS answers so.
    fn answer(&self, step: Step) {
        *self.answers.lock().unwrap() = VecDeque::from([step]);
    }

    /// Offers other credentials. Returns how often they were asked for, and whether they have taken over.
    async fn offer(&self, steps: &[Step]) -> (Arc<AtomicUsize>, Arc<AtomicBool>) {
        self.offer_as(None, steps).await
    }

    async fn offer_as(
        &self,
        credentials: Option<&'static str>,
        steps: &[Step],
    ) -> (Arc<AtomicUsize>, Arc<AtomicBool>) {
        let (asked, active) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let script = Script {
            answers: Arc::new(Mutex::new(steps.iter().copied().collect())),
            asked: Arc::clone(&asked),
            clock: self.clock.clone(),
            credentials,
        };
        let activate = {
            let active = Arc::clone(&active);
            move || active.store(true, Relaxed)
        };
        self.replacer.offer(script, None, "tested", activate).await;
        sleep(MOMENT).await;
        (asked, active)
    }

    /// A request each 100 ms for so long, or until one finds a token. How long that took, if one did.
    async fn requests_for(&self, time: Duration) -> Option<Duration> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            if self.handle.lease().is_ok() {
                return Some(begin.elapsed());
            }
            sleep(Duration::from_millis(100)).await;
        }
        None
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
    for (at_seconds, asked) in [(11, 1), (16, 2), (46, 3), (106, 4), (226, 5), (420, 5), (527, 6)] {
        sleep(
            Duration::from_secs(at_seconds)
                .saturating_sub(token.clock.now().duration_since(UNIX_EPOCH + HOUR).unwrap()),
        )
        .await;
        assert_eq!(token.asked(), asked, "after {at_seconds} s");
    }
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
    let answers = Arc::new(Mutex::new(VecDeque::from([Gives("new", HOUR)])));
    let script = Script { answers, asked: Arc::clone(&asked), clock: clock.clone(), credentials: None };
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
const KIND: RequestKind = RequestKind::test(1);
const OTHER_KIND: RequestKind = RequestKind::test(2);

async fn renew(token: &Running) -> Result<String, NotRenewed> {
    let lease = token.handle.lease().unwrap();
    let renewed = token.handle.renew(&lease, KIND).await?;
    Ok(str::from_utf8(renewed.authorization()).unwrap().trim_start_matches("Bearer ").to_owned())
}

#[tokio::test(start_paused = true)]
async fn many_who_were_refused_cause_one_exchange() {
    let token = start(&[Gives("one", HOUR), Gives("two", HOUR), Gives("three", HOUR)]).await;
    let lease = token.handle.lease().unwrap();
    let mut all: tokio::task::JoinSet<_> = (0..64)
        .map(|_| {
            let (handle, lease) = (token.handle.clone(), Lease(Arc::clone(&lease.0)));
            async move { handle.renew(&lease, KIND).await.map(|lease| lease.authorization().to_vec()) }
        })
        .collect();
    while let Some(renewed) = all.join_next().await {
        assert_eq!(renewed.unwrap().unwrap(), b"Bearer two");
    }
    // Who is late finds the new one.
    assert_eq!(token.handle.renew(&lease, KIND).await.unwrap().authorization(), b"Bearer two");
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
    let asked = token.asked();
    for _ in 0..10 {
        assert_eq!(renew(&token).await, Err(NotRenewed::Failed));
    }
    assert_eq!(token.asked(), asked);
    token.check(Some("one"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_while_a_refresh_is_under_way_waits_for_that_one() {
    let token = start(&[Gives("one", HOUR), Hang]).await;
    let lease = token.handle.lease().unwrap();
    sleep(HOUR.mul_f64(0.76)).await;
    assert_eq!(token.asked(), 2, "a refresh is under way");
    let waiting = timeout(MINUTE, token.handle.renew(&lease, KIND)).await;
    assert!(waiting.is_err(), "no second exchange, and no answer before there is one");
    assert_eq!(token.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_has_taken_over_is_renewed_in_place_of_the_refused_credential() {
    let first = start(&[Fail(Retry::Slowly)]).await;
    let second = start(&[Gives("oauth one", HOUR), Gives("oauth two", HOUR)]).await;
    let both = first.handle.clone().with_fallback("oauth", second.handle.clone());
    let lease = both.lease().unwrap();
    assert_eq!(both.renew(&lease, KIND).await.unwrap().authorization(), b"Bearer oauth two");
    assert_eq!((first.asked(), second.asked()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_other_credentials_bring_is_used_while_an_exchange_hangs() {
    for before in [&[Hang][..], &[Gives("one", HOUR), Hang]] {
        let token = start(before).await;
        sleep(HOUR.mul_f64(0.8)).await;
        let (_, active) = token.offer(&[Gives("other", HOUR)]).await;
        token.check(Some("other"));
        assert!(active.load(Relaxed));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_a_new_token_get_that_of_other_credentials() {
    let token = start(&[Gives("one", HOUR), Hang]).await;
    let lease = token.handle.lease().unwrap();
    let handle = token.handle.clone();
    let waiting =
        tokio::spawn(
            async move { handle.renew(&lease, KIND).await.map(|lease| lease.authorization().to_vec()) },
        );
    sleep(SECOND).await;
    assert_eq!(token.asked(), 2, "an exchange hangs");
    token.offer(&[Gives("other", HOUR)]).await;
    assert_eq!(waiting.await.unwrap().unwrap(), b"Bearer other");
    assert_eq!(token.handle.status().generation, 2);
}

#[tokio::test(start_paused = true)]
async fn other_credentials_whose_exchange_hangs_hold_up_neither_the_current_nor_newer_ones() {
    let token = start(&[Gives("one", HOUR), Gives("two", HOUR), Gives("three", HOUR)]).await;
    let (asked, active) = token.offer(&[Hang]).await;
    assert_eq!(asked.load(Relaxed), 1);
    sleep(HOUR.mul_f64(0.8)).await;
    token.check(Some("two"));
    token.offer(&[Gives("newer", HOUR)]).await;
    token.check(Some("newer"));
    assert!(!active.load(Relaxed));
}

#[tokio::test(start_paused = true)]
async fn the_late_result_of_an_exchange_of_old_credentials_changes_nothing() {
    let token = start(&[Gives("one", HOUR), Hang]).await;
    sleep(HOUR.mul_f64(0.8)).await;
    token.offer(&[Gives("other", HOUR)]).await;
    sleep(HOUR.mul_f64(0.5)).await;
    token.check(Some("other"));
    assert_eq!(token.asked(), 2, "the old credentials are not asked for any more");
}

#[tokio::test(start_paused = true)]
async fn an_end_does_not_wait_for_an_exchange_that_hangs() {
    let token = start(&[Hang]).await;
    token.offer(&[Hang]).await;
    drop(token.stop);
    timeout(SECOND, token.ended).await.expect("it stops").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_document_that_does_not_work_evicts_nothing_while_no_token_is_valid() {
    let down = Fail(Retry::Soon);
    let token = start(&[down, down, down, Gives("good", HOUR)]).await;
    let (asked, active) = token.offer(&[Fail(Retry::Slowly)]).await;
    sleep(8 * SECOND).await;
    token.check(Some("good"));
    sleep(MINUTE * 10).await;
    assert!(!active.load(Relaxed) && asked.load(Relaxed) >= 6, "it is tried again by its own schedule");
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_of_the_current_credentials_does_not_slow_down_newer_ones() {
    let down = Fail(Retry::Soon);
    let token = start(&[Fail(Retry::Slowly)]).await;
    let (_, active) = token.offer(&[down, down, down, Gives("other", HOUR)]).await;
    let wait = token.handle.lease().err().unwrap().retry_after;
    assert!(wait <= 5 * SECOND, "clients hear of the next attempt of either: {wait:?}");
    sleep(8 * SECOND).await;
    token.check(Some("other"));
    assert!(active.load(Relaxed));
}

#[tokio::test(start_paused = true)]
async fn of_several_documents_that_wait_the_newest_and_the_current_one_are_tried() {
    let token = start(&[Fail(Retry::Soon)]).await;
    let (first, _) = token.offer(&[Fail(Retry::Soon)]).await;
    let (second, active) = token.offer(&[Fail(Retry::Soon), Gives("second", HOUR)]).await;
    let asked = first.load(Relaxed);
    sleep(2 * SECOND).await;
    token.check(Some("second"));
    assert_eq!(first.load(Relaxed), asked);
    assert!(second.load(Relaxed) == 2 && active.load(Relaxed));
}

#[tokio::test(start_paused = true)]
async fn requests_make_a_token_come_within_five_seconds_after_ims_is_well() {
    for trouble in [Fail(Retry::Soon), Hang, Fail(Retry::After(Duration::ZERO)), Internal] {
        for outage_seconds in [0, 3, 30, 299] {
            let token = start(&[trouble]).await;
            assert_eq!(token.requests_for(outage_seconds * SECOND).await, None);
            token.answer(Gives("one", HOUR));
            let wait = token.requests_for(HOUR).await.unwrap();
            assert!(wait <= 5 * SECOND + 200 * MOMENT, "{wait:?} after {outage_seconds} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_make_a_token_of_newer_credentials_come_early_too() {
    let token = start(&[Fail(Retry::Slowly)]).await;
    let mut down = vec![Fail(Retry::Soon); 20];
    down.push(Gives("other", HOUR));
    token.offer(&down).await;
    let wait = token.requests_for(HOUR).await.unwrap();
    assert!(wait <= 20 * 5 * SECOND + SECOND, "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn however_many_requests_wait_they_cause_one_attempt_in_five_seconds() {
    for trouble in [Fail(Retry::Soon), Hang] {
        let token = start(&[trouble]).await;
        // The first attempts of the back-off are closer to each other.
        token.requests_for(MINUTE).await;
        let asked = token.asked();
        for _ in 0..50 {
            for _ in 0..100 {
                assert!(token.handle.lease().is_err());
            }
            token.requests_for(2 * SECOND).await;
        }
        let asked = token.asked() - asked;
        assert!((19..=30).contains(&asked), "{asked} attempts in 100 s");
    }
}

#[tokio::test(start_paused = true)]
async fn no_request_causes_an_attempt_against_retry_after() {
    let token = start(&[Fail(Retry::After(HOUR)), Gives("one", HOUR)]).await;
    assert_eq!(token.requests_for(HOUR - SECOND).await, None);
    assert_eq!(token.asked(), 1);
    let wait = token.requests_for(HOUR).await.unwrap();
    assert!(wait <= HOUR / 10 + 2 * SECOND, "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hung_does_not_end_a_retry_after_that_came_later() {
    let token = start(&[Hang, Fail(Retry::After(HOUR)), Gives("one", HOUR)]).await;
    token.requests_for(10 * MINUTE).await;
    assert_eq!(token.asked(), 2);
    token.check(None);
}

#[tokio::test(start_paused = true)]
async fn requests_do_not_make_refused_credentials_be_tried_earlier() {
    let token = start(&[Fail(Retry::Slowly)]).await;
    token.requests_for(MINUTE).await;
    assert!((3..=4).contains(&token.asked()), "{}", token.asked());
}

#[tokio::test(start_paused = true)]
async fn requests_do_not_make_a_local_token_be_asked_for_again() {
    let token = start(&[Fail(Retry::Never)]).await;
    token.requests_for(MINUTE * 10).await;
    assert_eq!(token.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_request_after_a_suspend_makes_a_token_come_at_once() {
    let token = start(&[Gives("one", HOUR * 24), Gives("two", HOUR * 24)]).await;
    sleep(MINUTE * 10).await;
    token.clock.skip(HOUR * 25);
    token.check(None);
    sleep(MOMENT).await;
    token.check(Some("two"));
}

#[tokio::test(start_paused = true)]
async fn without_requests_ims_is_asked_at_least_once_a_minute() {
    let token = start(&[Fail(Retry::Soon)]).await;
    sleep(HOUR).await;
    token.answer(Gives("one", HOUR));
    sleep(MINUTE + SECOND).await;
    assert!(token.handle.is_valid());
}

#[tokio::test(start_paused = true)]
async fn the_same_credentials_in_another_document_are_not_tried_against_retry_after() {
    for same_again in [1, 3] {
        let token = start(&[Fail(Retry::After(HOUR)), Gives("one", HOUR)]).await;
        for _ in 0..same_again {
            let (asked, active) = token.offer_as(Some("first"), &[Gives("other", HOUR)]).await;
            sleep(MINUTE).await;
            assert_eq!((asked.load(Relaxed), token.asked()), (0, 1));
            assert!(active.load(Relaxed), "the document is in use: its credentials are");
        }
        // Other credentials are another matter.
        token.offer_as(Some("second"), &[Gives("second", HOUR)]).await;
        token.check(Some("second"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_waits_for_retry_after_is_not_asked_earlier_in_another_document() {
    let token = start(&[Gives("one", HOUR)]).await;
    token.offer_as(Some("second"), &[Fail(Retry::After(HOUR))]).await;
    let (asked, _) = token.offer_as(Some("second"), &[Gives("two", HOUR)]).await;
    sleep(MINUTE).await;
    assert_eq!(asked.load(Relaxed), 0);
    sleep(MINUTE * 70).await;
    assert_eq!(asked.load(Relaxed), 1, "it is not lost");
    token.check(Some("two"));
}

#[tokio::test(start_paused = true)]
async fn credentials_that_come_and_go_are_not_tried_against_retry_after() {
    let token = start(&[Gives("one", 10 * HOUR)]).await;
    token.offer_as(Some("second"), &[Fail(Retry::After(HOUR))]).await;
    token.offer_as(Some("third"), &[Gives("three", 10 * HOUR)]).await;
    token.check(Some("three"));
    let (asked, _) = token.offer_as(Some("second"), &[Gives("two", 10 * HOUR)]).await;
    sleep(HOUR - SECOND).await;
    assert_eq!(asked.load(Relaxed), 0);
    sleep(HOUR / 10 + SECOND).await;
    token.check(Some("two"));
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_a_signal_asks_for_is_tried_again_if_it_fails() {
    let token = start(&[Gives("one", HOUR)]).await;
    let (asked, active) = token.offer_as(Some("first"), &[Fail(Retry::Soon), Gives("two", HOUR)]).await;
    assert_eq!((asked.load(Relaxed), active.load(Relaxed)), (1, true));
    sleep(2 * SECOND).await;
    token.check(Some("two"));
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_came_while_retry_after_holds_is_not_lost() {
    let token = start(&[Gives("one", 10 * HOUR)]).await;
    token.offer_as(Some("first"), &[Fail(Retry::After(MINUTE))]).await;
    let (asked, _) = token.offer_as(Some("first"), &[Gives("two", 10 * HOUR)]).await;
    sleep(MINUTE - SECOND).await;
    assert_eq!(asked.load(Relaxed), 0);
    sleep(MINUTE / 10 + SECOND).await;
    token.check(Some("two"));
}

#[tokio::test(start_paused = true)]
async fn the_same_credentials_are_not_tried_twice_in_an_outage() {
    let token = start(&[Fail(Retry::Soon)]).await;
    let (asked, _) = token.offer_as(Some("first"), &[Fail(Retry::Soon)]).await;
    sleep(HOUR).await;
    assert!((60..=240).contains(&asked.load(Relaxed)), "{}", asked.load(Relaxed));
    assert!(token.asked() < 5);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_aem_is_no_reason_to_ask_against_retry_after() {
    let token = start(&[Gives("one", HOUR), Hang, Fail(Retry::After(HOUR))]).await;
    let lease = token.handle.lease().unwrap();
    // An exchange is asked for while one is running that ends with Retry-After.
    token.answer(Fail(Retry::After(HOUR)));
    token.handle.refused(&lease, KIND);
    sleep(MINUTE).await;
    for _ in 0..10 {
        token.handle.refused(&lease, KIND);
        sleep(MINUTE).await;
    }
    assert_eq!(token.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_accepted_and_then_revoked_is_replaced_at_once_each_time() {
    let token =
        start(&[Gives("one", HOUR), Gives("two", HOUR), Gives("three", HOUR), Gives("four", HOUR)]).await;
    for expected in ["two", "three", "four"] {
        token.handle.lease().unwrap().accept();
        assert_eq!(renew(&token).await.as_deref(), Ok(expected));
        token.handle.helped(&token.handle.lease().unwrap(), KIND);
    }
}

#[tokio::test(start_paused = true)]
async fn the_cooldown_of_tokens_that_aem_never_accepts_grows_to_half_an_hour_and_starts_over_with_an_accepted_one()
 {
    let token = start(&[Gives("new", 100 * HOUR)]).await;
    let mut exchanges = Vec::new();
    for second in 0..4 * 3600_u64 {
        if renew(&token).await.is_ok() {
            exchanges.push(second);
        }
        sleep(SECOND).await;
    }
    let gaps: Vec<_> = exchanges.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, expected) in gaps.iter().zip([30, 60, 120, 240, 480, 960, 1800, 1800]) {
        assert!(gap.abs_diff(expected) <= 2, "{gaps:?}");
    }
    assert!(gaps.len() >= 8, "{gaps:?}");

    token.handle.lease().unwrap().accept();
    assert!(renew(&token).await.is_ok(), "the accepted token was revoked");
    assert_eq!(renew(&token).await, Err(NotRenewed::CoolingDown));
    sleep(31 * SECOND).await;
    assert!(renew(&token).await.is_ok());
}

/// As when OAuth tokens are asked for below one path, and the others are taken everywhere else.
#[tokio::test(start_paused = true)]
async fn requests_that_no_token_helps_buy_fewer_and_fewer_though_others_are_accepted() {
    let token = start(&[Gives("new", 100 * HOUR)]).await;
    let mut asked = token.asked();
    let mut gaps = vec![0];
    for second in 0..4 * 3600_u64 {
        let lease = token.handle.lease().unwrap();
        // Others are accepted all the time.
        lease.accept();
        if let Ok(lease) = token.handle.renew(&lease, KIND).await {
            lease.accept();
            token.handle.refused_again(&lease, KIND);
        }
        if token.asked() > asked {
            asked = token.asked();
            gaps.push(second);
        }
        sleep(SECOND).await;
    }
    assert!((8..=16).contains(&gaps.len()), "{gaps:?}");
    // The token is revoked: the others do not wait for anything.
    let lease = token.handle.lease().unwrap();
    assert!(token.handle.renew(&lease, OTHER_KIND).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn requests_that_cannot_be_sent_again_buy_no_token_each_either() {
    let token = start(&[Gives("new", 100 * HOUR)]).await;
    for _ in 0..600 {
        let lease = token.handle.lease().unwrap();
        lease.accept();
        token.handle.refused(&lease, KIND);
        sleep(SECOND).await;
    }
    assert!((3..=9).contains(&token.asked()), "{}", token.asked());
}

#[tokio::test(start_paused = true)]
async fn as_many_kinds_of_requests_as_a_client_thinks_of_buy_no_token_each() {
    for replayed in [true, false] {
        let token = start(&[Gives("new", 100 * HOUR)]).await;
        for kind in 10..600 {
            let lease = token.handle.lease().unwrap();
            lease.accept();
            let kind = RequestKind::test(kind);
            if !replayed {
                token.handle.refused(&lease, kind);
            } else if let Ok(lease) = token.handle.renew(&lease, kind).await {
                token.handle.refused_again(&lease, kind);
            }
            sleep(SECOND).await;
        }
        // Three in each cool-down.
        assert!(token.asked() <= 65, "{}", token.asked());
    }
}

#[tokio::test]
async fn a_disk_that_hangs_keeps_no_token_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let answers = Arc::new(Mutex::new(VecDeque::from([Gives("one", HOUR)])));
    let script = Script { answers, asked: Arc::default(), clock: clock.clone(), credentials: None };
    let (handle, mut refresher) = channel(script, clock, 0.75, Unobserved);
    let path = dir.path().join("token");
    refresher.keep_in(Some(Cache::test(path.clone())));
    // All threads for waiting are busy, as with a file system that does not answer.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let hanging: Vec<_> = (0..512)
        .map(|_| {
            let held = Arc::clone(&held);
            tokio::task::spawn_blocking(move || held.lock().unwrap().recv())
        })
        .collect();
    let stop = CancellationToken::new();
    let ended = tokio::spawn(refresher.run(stop.clone()));
    timeout(20 * SECOND, async {
        while !handle.is_valid() {
            sleep(MOMENT).await;
        }
    })
    .await
    .expect("the token is used");
    assert!(!path.exists());
    drop(release);
    timeout(20 * SECOND, async {
        while !path.exists() {
            sleep(MOMENT).await;
        }
    })
    .await
    .expect("the token is kept");
    stop.cancel();
    ended.await.unwrap();
    for thread in hanging {
        assert!(thread.await.unwrap().is_err(), "the sender is gone");
    }
}
