//! Files change while everything runs: what is read from them is read anew, and takes over once it works.

use std::{
    future::{pending, ready},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use ring::digest::{Context, Digest, SHA256};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    StartError,
    credential::{Read, cache, read},
    ends::{CERTIFICATE_STEPS, DAY, End, LOOK, Shown, TOKEN_STEPS},
};
use crate::{
    admin::Facts,
    clock::{Clock, rfc3339, unix_seconds},
    config::{self, Config},
    credentials::{self, Environment, Watch},
    ims::CredentialExchange,
    metrics::CredentialMetrics,
    tls,
    token::{Replacer, TokenHandle},
};

/// Tells of each SIGHUP.
pub(super) type Hangups = watch::Receiver<()>;

/// Looks after one credential that gets tokens: reads it again when its files change or on SIGHUP, and warns before it ends.
pub(super) struct Keeper {
    config: Arc<Config>,
    credential: config::Credential,
    clock: Clock,
    tls: tls::Current,
    replacer: Replacer<CredentialExchange>,
    token: TokenHandle,
    facts: Arc<ArcSwap<Facts>>,
    metrics: CredentialMetrics,
    files: Vec<PathBuf>,
    /// What was in the files when they were last tried.
    tried: Option<Fingerprint>,
    /// When unusable files are read again.
    retry: Option<Instant>,
    /// What was in the files of the credentials that the refresher has.
    offered: Option<Fingerprint>,
    /// Credentials that the refresher gets later, and when.
    deferred: Option<(CredentialExchange, Instant)>,
    pace: Pace,
    /// What was told of files that are unusable.
    unusable: Option<String>,
    ends: Ends,
}

/// Why the credentials are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    Changed,
    Asked,
    /// They did not work before.
    Again,
}

impl Keeper {
    #[expect(clippy::too_many_arguments, reason = "one caller, which wires")]
    pub(super) fn new(
        config: Arc<Config>,
        credential: config::Credential,
        clock: Clock,
        tls: tls::Current,
        (files, tried): (Vec<PathBuf>, Option<Fingerprint>),
        replacer: Replacer<CredentialExchange>,
        token: TokenHandle,
        (facts, metrics): (Arc<ArcSwap<Facts>>, CredentialMetrics),
    ) -> Self {
        let ends = Ends::default();
        Self {
            config,
            credential,
            clock,
            tls,
            replacer,
            token,
            facts,
            metrics,
            files,
            tried,
            retry: None,
            offered: tried,
            deferred: None,
            pace: Pace::new(),
            unusable: None,
            ends,
        }
    }

    /// Looks after the credential until `stop`.
    pub(super) async fn run(mut self, mut hangups: Hangups, stop: CancellationToken) {
        // What is in no file needs no watcher.
        let mut watch =
            (!self.files.is_empty()).then(|| Watch::new(self.files.clone(), self.config.watch.poll));
        let keeping = async {
            // What changed between the reading and the watch, the watch does not tell.
            let mut missed = self.has_changed().await;
            loop {
                let nap = self.warn_of_ends();
                let retry = self.retry;
                let deferred = self.deferred.as_ref().map(|(_, at)| *at);
                let reason = tokio::select! {
                    biased;
                    () = ready(()), if missed => Reason::Changed,
                    () = changed(&mut watch) => Reason::Changed,
                    hangup = hangups.changed() => match hangup {
                        Ok(()) => Reason::Asked,
                        Err(_) => pending().await,
                    },
                    () = sleep_until(retry) => Reason::Again,
                    () = sleep_until(deferred) => {
                        if let Some((exchange, _)) = self.deferred.take() {
                            self.offer(exchange).await;
                        }
                        continue;
                    }
                    () = tokio::time::sleep(nap) => continue,
                };
                missed = false;
                let before = self.files.clone();
                let new = self.read(reason).await;
                if let Some(watch) = watch.as_mut().filter(|_| self.files != before) {
                    watch.follow(self.files.clone());
                    missed = self.has_changed().await;
                }
                if let Some(exchange) = new {
                    self.offer_in_time(exchange).await;
                }
            }
        };
        stop.run_until_cancelled(keeping).await;
    }

    async fn has_changed(&self) -> bool {
        Fingerprint::taken(&self.files).await != self.tried
    }

    /// Reads the credentials again, if there is a reason.
    async fn read(&mut self, reason: Reason) -> Option<CredentialExchange> {
        let name = self.credential.name.as_str();
        if self.files.is_empty() {
            info!(
                credential = name,
                "The credentials are in no file and cannot have changed; IMS is asked all the same"
            );
        }
        let now = Fingerprint::taken(&self.files).await;
        if reason == Reason::Changed && now.is_some() && now == self.tried {
            debug!(credential = name, "The files are as they were");
            return None;
        }
        let again_at = Instant::now() + self.config.watch.poll;
        if reason == Reason::Again && now != self.tried {
            // They are just being written: the watch tells when that is over.
            self.retry = Some(again_at);
            return None;
        }
        self.retry = None;
        if reason != Reason::Again {
            self.unusable = None;
        }
        self.tried = now;
        let reading = {
            let (config, credential, files) =
                (Arc::clone(&self.config), self.credential.clone(), self.files.clone());
            let (clock, tls) = (self.clock.clone(), Arc::clone(&self.tls));
            tokio::task::spawn_blocking(move || read(&config, &credential, files, &clock, &tls)).await
        };
        let error = match reading {
            Ok(Ok(Read { exchange, files, fingerprint })) => {
                (self.files, self.tried, self.unusable) = (files, fingerprint, None);
                return Some(exchange);
            }
            Ok(Err(error)) => error.to_string(),
            // The error itself holds what the panic said.
            Err(_) => READ_PANICKED.to_owned(),
        };
        // What they need may be in files that nobody knows of yet. A pipe cannot be read again.
        self.retry = now.map(|_| again_at);
        if self.unusable.as_ref() == Some(&error) {
            debug!(credential = name, error, "The new credentials are still unusable");
        } else {
            error!(credential = name, error, "The new credentials are unusable, the old ones stay");
        }
        self.unusable = Some(error);
        None
    }

    /// Gives new credentials to the refresher, now or when the pace allows it: neither signals nor a file that changes all the
    /// time may buy tokens without end. Of those that wait the newest counts.
    async fn offer_in_time(&mut self, exchange: CredentialExchange) {
        let is_same = self.tried.is_some() && self.tried == self.offered;
        let at = self.pace.allows_at(is_same);
        if at <= Instant::now() {
            self.deferred = None;
            self.offer(exchange).await;
            return;
        }
        let (credential, retry_in_ms) = (self.credential.name.as_str(), millis_until(at));
        if self.deferred.is_some() {
            debug!(credential, retry_in_ms, "IMS is already to be asked again later");
        } else {
            info!(
                credential,
                is_same, retry_in_ms, "IMS was asked for this reason a moment ago; it is asked again later"
            );
        }
        self.deferred = Some((exchange, at));
    }

    /// Gives new credentials to the refresher. They take over when they have brought a token; until then, and if they never
    /// do, the old ones stay.
    async fn offer(&mut self, exchange: CredentialExchange) {
        let is_same = self.tried.is_some() && self.tried == self.offered;
        self.pace.note(is_same);
        self.offered = self.tried;
        let cache = cache(&self.config, &self.credential, &exchange);
        let activate = {
            let (facts, shown) = (Facts::of(&exchange), Arc::clone(&self.facts));
            let (config, name) = (Arc::clone(&self.config), self.credential.name.clone());
            let metrics = self.metrics.clone();
            move || {
                metrics.certificate_expires_at(facts.certificate_end().map(unix_seconds));
                warn_of_environments(&config, &name, &facts);
                shown.store(Arc::new(facts));
            }
        };
        self.replacer.offer(exchange, cache, &self.credential.name, activate).await;
    }

    /// Says so when an end comes near, once for each step. When to look again.
    fn warn_of_ends(&mut self) -> Duration {
        let now = self.clock.now();
        let facts = self.facts.load();
        let certificate = facts.certificate_end();
        let token = self.token.expires_at().filter(|_| facts.is_local_token());
        let name = self.credential.name.as_str();
        if let Some((end, left)) = self.ends.certificate.step(certificate, now, &CERTIFICATE_STEPS) {
            let (days, at) = (left.as_secs() / DAY, rfc3339(end));
            if left.is_zero() {
                error!(
                    credential = name,
                    certificate.expires_at = at,
                    "The certificate has expired, IMS will refuse it: {RENEW}"
                );
            } else {
                warn!(
                    credential = name,
                    certificate.expires_at = at,
                    days_left = days,
                    "The certificate ends soon: {RENEW}"
                );
            }
        }
        if let Some((end, left)) = self.ends.token.step(token, now, &TOKEN_STEPS) {
            let (minutes, at) = (left.as_secs().div_ceil(60), rfc3339(end));
            if !left.is_zero() {
                warn!(
                    credential = name,
                    token.expires_at = at,
                    minutes_left = minutes,
                    "The local token ends soon: {NEXT_TOKEN}"
                );
            }
        }
        LOOK
    }
}

/// How often credentials are given to the refresher, which asks IMS with them at once.
struct Pace {
    /// When the same credentials were given last.
    same: Option<Instant>,
    /// When as many changes as there were would have been made at one per [`CHANGE_INTERVAL`]; a bucket with
    /// [`CHANGE_BURST`] places that leaks so fast.
    changes: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { same: None, changes: Instant::now() }
    }

    /// From when on credentials may be given, the same or other ones.
    fn allows_at(&self, is_same: bool) -> Instant {
        let now = Instant::now();
        if is_same {
            self.same.map_or(now, |last| last + SAME_INTERVAL)
        } else {
            let room = CHANGE_INTERVAL * (CHANGE_BURST - 1);
            now + self.changes.saturating_duration_since(now).saturating_sub(room)
        }
    }

    fn note(&mut self, is_same: bool) {
        let now = Instant::now();
        if is_same {
            self.same = Some(now);
        } else {
            self.changes = self.changes.max(now) + CHANGE_INTERVAL;
        }
    }
}

fn millis_until(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX)
}

/// Warns of credentials of one environment that are sent to another.
pub(super) fn warn_of_environments(config: &Config, name: &str, facts: &Facts) {
    let Some(own) = Environment::of(facts.client_id()) else { return };
    let mut told: Vec<&str> = Vec::new();
    for route in config.routes().filter(|route| route.credential.as_deref() == Some(name)) {
        let Some(upstream) = config.upstream(&route.upstream) else { continue };
        let host = upstream.url.host_str().unwrap_or_default();
        let Some(other) = Environment::of(host) else { continue };
        if own != other && !told.contains(&host) {
            told.push(host);
            warn!(
                credential = name,
                client_id = facts.client_id(),
                upstream = host,
                "The credentials are of {own}, the upstream is {other}: AEM will refuse the token"
            );
        }
    }
}

/// What is told already of the ends of one credential.
#[derive(Default)]
struct Ends {
    certificate: End,
    token: End,
}

/// What files hold, without holding it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of all the files; none where one cannot be read, or not twice.
    pub(super) fn of(files: &[PathBuf]) -> Option<Self> {
        let mut context = Context::new(&SHA256);
        for file in files {
            if !file.is_file() {
                return None;
            }
            let bytes = credentials::read_limited(file).ok()?;
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(&bytes);
        }
        let digest: Digest = context.finish();
        digest.as_ref().try_into().ok().map(Self)
    }

    /// The same on a thread for waiting.
    async fn taken(files: &[PathBuf]) -> Option<Self> {
        let files = files.to_vec();
        tokio::task::spawn_blocking(move || Self::of(&files)).await.ok().flatten()
    }
}

/// Values that are read from files, and read anew when those change.
pub(super) struct Values {
    files: Vec<PathBuf>,
    /// What was in the files when they were last tried.
    tried: Option<Fingerprint>,
    read: Arc<dyn Fn() -> Result<(), StartError> + Send + Sync>,
    shown: Option<Shown>,
}

impl Values {
    /// Values of `files`, which had the fingerprint `tried` before they were read; none where there are no files.
    pub(super) fn of(
        files: Vec<PathBuf>,
        tried: Option<Fingerprint>,
        read: impl Fn() -> Result<(), StartError> + Send + Sync + 'static,
    ) -> Option<Self> {
        (!files.is_empty()).then(|| Self { files, tried, read: Arc::new(read), shown: None })
    }

    /// Warns before the end of a certificate that one of the files holds.
    pub(super) fn warning_of(mut self, shown: Option<Shown>) -> Self {
        self.shown = shown;
        self
    }

    /// Reads the values when their files change or the process is asked to, until `stop`.
    pub(super) async fn run(
        mut self,
        poll: Duration,
        clock: Clock,
        mut hangups: Hangups,
        stop: CancellationToken,
    ) {
        let mut watch = Watch::new(self.files.clone(), poll);
        let keeping = async {
            let mut missed = Fingerprint::taken(&self.files).await != self.tried;
            loop {
                let look = self.shown.as_mut().map(|shown| {
                    shown.warn_of_end(clock.now());
                    Instant::now() + LOOK
                });
                let asked = tokio::select! {
                    biased;
                    () = ready(()), if missed => false,
                    () = watch.changed() => false,
                    () = sleep_until(look) => continue,
                    hangup = hangups.changed() => match hangup {
                        Ok(()) => true,
                        Err(_) => pending().await,
                    },
                };
                missed = false;
                let now = Fingerprint::taken(&self.files).await;
                if !asked && now.is_some() && now == self.tried {
                    continue;
                }
                self.tried = now;
                let read = Arc::clone(&self.read);
                let shown = self.shown.clone();
                match tokio::task::spawn_blocking(move || read().map(|()| shown.map(Shown::anew))).await {
                    Ok(Ok(shown)) => {
                        self.shown = shown;
                        info!(files = ?self.files, "Read anew and in use");
                    }
                    Ok(Err(error)) => error!(%error, "Unusable, what was read before stays"),
                    Err(_) => error!(error = READ_PANICKED, "Not read, what was read before stays"),
                }
            }
        };
        stop.run_until_cancelled(keeping).await;
    }
}

async fn changed(files: &mut Option<Watch>) {
    match files {
        Some(files) => files.changed().await,
        None => pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

const READ_PANICKED: &str = "the reading has panicked";
/// How often SIGHUP buys a token with credentials that have not changed.
const SAME_INTERVAL: Duration = Duration::from_secs(30);

/// How often credentials that change all the time are tried.
const CHANGE_INTERVAL: Duration = Duration::from_secs(5);

/// As many changes are tried at once, after a time without any: a person corrects a document several times in a row.
const CHANGE_BURST: u32 = 10;

const RENEW: &str =
    "add a new one in the AEM Developer Console and put the new document in place of the file";

const NEXT_TOKEN: &str = "get the next one in the AEM Developer Console, Integrations, Local token, and put it in place of the file";

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    /// How many of a thousand reasons, ten in a second, are reasons for an exchange.
    async fn given(is_same: bool) -> u32 {
        let (mut pace, mut given) = (Pace::new(), 0);
        for _ in 0..1000 {
            if pace.allows_at(is_same) <= Instant::now() {
                pace.note(is_same);
                given += 1;
            }
            advance(Duration::from_millis(100)).await;
        }
        given
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_signals_in_a_hundred_seconds_are_four_exchanges() {
        assert_eq!(given(true).await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_changes_in_a_hundred_seconds_are_a_burst_and_one_in_five_seconds() {
        assert_eq!(given(false).await, 29);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_waits_for_no_signal_and_a_signal_for_no_change() {
        let mut pace = Pace::new();
        pace.note(true);
        assert!(pace.allows_at(false) <= Instant::now());
        assert!(pace.allows_at(true) > Instant::now());
        for _ in 0..CHANGE_BURST {
            pace.note(false);
        }
        assert_eq!(pace.allows_at(false), Instant::now() + CHANGE_INTERVAL);
        sleep(SAME_INTERVAL).await;
        assert!(pace.allows_at(true) <= Instant::now());
    }
}
