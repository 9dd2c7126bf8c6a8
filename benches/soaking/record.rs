//! What happened when, and which failure it explains.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

/// Why a request ended as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// 200, and every byte as it should be.
    Answered,
    /// AEM was down.
    AemDown,
    /// IMS was down, so there was no token.
    ImsDown,
    /// IMS had just failed, so there was no token.
    ImsFault,
    /// The credentials in the file were wrong, so there was no token.
    BadCredentials,
    /// There was no token in use, although IMS had issued one that lived.
    Unused,
    /// None of these.
    Unknown,
}

impl Cause {
    fn words(self) -> &'static str {
        match self {
            Self::Answered => "answered, every byte right",
            Self::AemDown => "failed: AEM was down",
            Self::ImsDown => "503: no token, IMS was down",
            Self::ImsFault => "503: no token, IMS had just failed",
            Self::BadCredentials => "503: no token, the credentials file was wrong",
            Self::Unused => "503: no token, ALTHOUGH IMS HAD ISSUED ONE",
            Self::Unknown => "failed WITHOUT A CAUSE",
        }
    }
}

/// A time in which something was wrong. It began before it was recorded.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// None while it lasts.
    to: Option<Instant>,
}

/// What goes wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// AEM is down.
    Aem,
    /// IMS is down.
    Ims,
    /// The credentials file holds credentials that IMS refuses.
    Credentials,
    /// An attempt at IMS failed; the window is as long as that may keep the proxy without a token.
    Fault,
}

/// All of it.
pub struct Record {
    inner: Mutex<Inner>,
    begun: OnceLock<Instant>,
    /// The file's credentials are good, and stay so while this is wanted.
    credentials: watch::Sender<Credentials>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Credentials {
    are_good: bool,
    are_paused: bool,
}

#[derive(Default)]
struct Inner {
    windows: BTreeMap<Trouble, Vec<Window>>,
    outcomes: BTreeMap<Cause, u64>,
    events: BTreeMap<String, u64>,
    failures: Vec<String>,
    shown: BTreeMap<Cause, u32>,
    effects: BTreeMap<u64, u32>,
    retry_after: Option<Instant>,
    /// From when on each token can be used, and its end.
    tokens: Vec<(Instant, Instant)>,
}

impl Default for Record {
    fn default() -> Self {
        let credentials = watch::Sender::new(Credentials { are_good: true, are_paused: false });
        Self { inner: Mutex::default(), begun: OnceLock::new(), credentials }
    }
}

impl Record {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the proxy was started: the first call sets it.
    pub fn start(&self) -> Instant {
        *self.begun.get_or_init(Instant::now)
    }

    /// Something begins to be wrong.
    pub fn begins(&self, trouble: Trouble) {
        let window = Window { to: None };
        self.inner().windows.entry(trouble).or_default().push(window);
    }

    /// It is over.
    pub fn ends(&self, trouble: Trouble) {
        if let Some(window) = self.inner().windows.entry(trouble).or_default().last_mut() {
            window.to.get_or_insert_with(Instant::now);
        }
    }

    /// IMS failed an attempt, which explains missing tokens for this long.
    pub fn fault(&self, kind: &str, explains: Duration) {
        let now = Instant::now();
        let mut inner = self.inner();
        inner.windows.entry(Trouble::Fault).or_default().push(Window { to: Some(now + explains) });
        *inner.events.entry(format!("IMS: {kind}")).or_default() += 1;
    }

    /// IMS said when to come back.
    pub fn said_retry_after(&self, after: Duration) {
        let until = Instant::now() + after;
        let mut inner = self.inner();
        inner.retry_after = inner.retry_after.max(Some(until));
    }

    /// How much of that is left at this time.
    pub fn retry_after_from(&self, now: Instant) -> Duration {
        self.inner().retry_after.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// IMS has issued a token, for which it was asked then.
    pub fn issued(&self, asked: Instant, lifetime: Duration) {
        // The proxy counts a token's life from when it began to ask, and withholds it for the last tenth of a short life.
        let until = asked + lifetime.mul_f64(0.9) - CLOCKS;
        self.inner().tokens.push((Instant::now() + DELIVERY, until));
    }

    /// Counts something.
    pub fn event(&self, what: impl Into<String>) {
        *self.inner().events.entry(what.into()).or_default() += 1;
    }

    /// Something that must not happen.
    pub fn failure(&self, what: &str) {
        self.fail(&mut self.inner(), what);
    }

    /// With its time, so that it can be found in the proxy's log.
    fn fail(&self, inner: &mut Inner, what: &str) {
        inner.failures.push(format!("{:7.2} s  {what}", self.start().elapsed().as_secs_f64()));
    }

    /// A write took effect at AEM.
    pub fn effect(&self, id: u64) {
        let mut inner = self.inner();
        let times = inner.effects.entry(id).or_default();
        *times += 1;
        let times = *times;
        if times > 1 {
            let what = format!("POST {id} took effect {times} times");
            self.fail(&mut inner, &what);
        }
    }

    /// Whether a write took effect.
    pub fn has_effect(&self, id: u64) -> bool {
        self.inner().effects.contains_key(&id)
    }

    /// How a request ended. What has no cause is a failure.
    pub fn outcome_of(&self, cause: Cause, words: impl FnOnce() -> String) {
        let mut inner = self.inner();
        *inner.outcomes.entry(cause).or_default() += 1;
        if matches!(cause, Cause::Unknown | Cause::Unused) {
            let failed = inner.shown.entry(cause).or_default();
            *failed += 1;
            // Hundreds of requests may fail for one reason.
            if *failed <= SHOWN {
                let words = format!("{}: {}", cause.words(), words());
                self.fail(&mut inner, &words);
            }
        }
    }

    /// Why a request without an answer of AEM's failed that began at this time and has just ended.
    pub fn why_no_answer(&self, begun: Instant) -> Cause {
        if self.had(Trouble::Aem, begun, AEM_SLACK) { Cause::AemDown } else { Cause::Unknown }
    }

    /// Why there was no token for it.
    ///
    /// There is no excuse while a token lives that IMS has issued: the proxy has it.
    pub fn why_no_token(&self, begun: Instant) -> Cause {
        let now = Instant::now();
        let had_one = self.inner().tokens.iter().rev().any(|(from, to)| *from <= begun && now <= *to);
        if had_one {
            Cause::Unused
        } else if self.had(Trouble::Ims, begun, IMS_SLACK) {
            Cause::ImsDown
        } else if self.had(Trouble::Credentials, begun, CREDENTIALS_SLACK) {
            Cause::BadCredentials
        } else if self.had(Trouble::Fault, begun, Duration::ZERO) {
            Cause::ImsFault
        } else {
            Cause::Unknown
        }
    }

    /// Whether something was wrong at any time since `begun`, or so shortly before it.
    fn had(&self, trouble: Trouble, begun: Instant, slack: Duration) -> bool {
        let inner = self.inner();
        let windows = inner.windows.get(&trouble).map(Vec::as_slice).unwrap_or_default();
        windows.iter().rev().any(|window| window.to.is_none_or(|to| to + slack >= begun))
    }

    /// The file's credentials are good, or not.
    pub fn credentials_changed(&self, are_good: bool) {
        self.credentials.send_modify(|credentials| credentials.are_good = are_good);
    }

    /// The file is to hold good credentials and to stay so.
    pub fn pause_credentials(&self, are_paused: bool) {
        self.credentials.send_modify(|credentials| credentials.are_paused = are_paused);
    }

    /// Whether that is so.
    pub fn credentials_are_paused(&self) -> bool {
        self.credentials.borrow().are_paused
    }

    /// Waits for good credentials.
    pub async fn credentials_are_good(&self) {
        let mut receiver = self.credentials.subscribe();
        // The sender lives as long as this.
        let _ = receiver.wait_for(|credentials| credentials.are_good).await;
    }

    /// How many requests ended so.
    pub fn outcome(&self, cause: Cause) -> u64 {
        self.inner().outcomes.get(&cause).copied().unwrap_or(0)
    }

    /// All outcomes, in words.
    pub fn outcomes(&self) -> Vec<(&'static str, u64)> {
        self.inner().outcomes.iter().map(|(cause, count)| (cause.words(), *count)).collect()
    }

    /// All events.
    pub fn events(&self) -> Vec<(String, u64)> {
        let inner = self.inner();
        let mut events: Vec<(String, u64)> =
            inner.events.iter().map(|(what, count)| (what.clone(), *count)).collect();
        let windows = |trouble: Trouble| inner.windows.get(&trouble).map_or(0, Vec::len) as u64;
        events.push(("AEM was killed".to_owned(), windows(Trouble::Aem)));
        events.push(("IMS was down".to_owned(), windows(Trouble::Ims)));
        events.push(("writes took effect".to_owned(), inner.effects.len() as u64));
        events
    }

    /// What must not happen and did.
    pub fn failures(&self) -> Vec<String> {
        self.inner().failures.clone()
    }
}

/// How many failed requests of one kind are shown.
const SHOWN: u32 = 20;

/// How long a token may take from IMS into use.
const DELIVERY: Duration = Duration::from_millis(500);

/// By how much the judgements of a token's end may differ on a busy machine.
const CLOCKS: Duration = Duration::from_millis(250);

/// A request that was on its way when AEM came back.
const AEM_SLACK: Duration = Duration::from_millis(1500);

/// With requests arriving the proxy is ready this soon after IMS is well: 5 s, the exchange, and a busy machine.
const IMS_SLACK: Duration = Duration::from_millis(7000);

/// After the file is good again: it is noticed, and an exchange is due.
const CREDENTIALS_SLACK: Duration = Duration::from_millis(7000);
