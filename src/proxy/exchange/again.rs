//! When a request is sent once more: with another token, over another connection, or a moment later.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::{
    Failed, Request, Sent,
    down::{Held, Holds},
    flow::Exchange,
    unless_gone,
};
use crate::{
    metrics::{Outcome, Retried},
    proxy::{
        authorize::{Credential, Identity},
        link::LinkError,
        refusal::Refusal,
    },
    token::{Lease, NotRenewed, RequestKind, TokenHandle},
};

/// What has been tried, and what may be tried yet.
pub(super) struct Chances {
    /// How often it was sent before.
    attempts: u32,
    /// What is told of a refusal from here on; a second token is asked for only while it would be [`Outcome::Passed`].
    outcome: Outcome,
    reconnects: u32,
    waits: u32,
}

impl Chances {
    pub(super) fn new(request: &Request<'_>) -> Self {
        if let Some(retries) = &request.proxy.retries {
            retries.deposit();
        }
        Self { attempts: 0, outcome: Outcome::Passed, reconnects: 0, waits: 0 }
    }

    /// Since when AEM has been expected to answer.
    pub(super) fn since(&mut self, request: &Request<'_>) -> Instant {
        self.attempts += 1;
        if self.attempts == 1 { request.began } else { Instant::now() }
    }

    /// What the next response may be held for, and what is told where it is not.
    pub(super) fn holds(&self, request: &Request<'_>, sent: &Sent<'_>) -> (Holds, Outcome) {
        let refusals = self.outcome == Outcome::Passed && sent.token().is_some();
        let retries = request.proxy.retries.as_ref().filter(|_| request.asking.idempotent);
        let busy = retries.filter(|_| self.waits < WAITS_MAX).map(|retries| retries.max_wait);
        (Holds { refusals, busy }, self.outcome)
    }

    /// Whether a request whose connection broke off is sent over another one: doing it twice has to be doing it once, or
    /// AEM may not have begun with it (RFC 9110, section 9.2.2).
    pub(super) fn reconnect(&mut self, exchange: &Exchange<'_, '_>, error: &LinkError) -> bool {
        let request = &*exchange.request;
        let nothing_done = !exchange.has_left || exchange.link.was_unprocessed();
        let safe = request.asking.idempotent || nothing_done;
        let may = safe && self.reconnects < RECONNECTS_MAX && request.up.kept().is_some();
        if may {
            self.reconnects += 1;
            debug!(%error, attempt = self.reconnects, "The connection to AEM broke off, sending the request over another one");
            request.proxy.metrics.retried(Retried::Connection);
        }
        may
    }

    /// An AEM that is just going away needs a moment to come back.
    pub(super) async fn pause(&self, exchange: &mut Exchange<'_, '_>) -> Result<(), Failed> {
        match self.reconnects {
            0 | 1 => Ok(()),
            more => unless_gone(exchange.client, exchange.worker, sleep(PAUSE * (more - 1))).await,
        }
    }
}

/// Whether the response that is held is to be forgotten, and the request sent once more. Then everything is ready for
/// that.
pub(super) async fn is_worth_it(
    exchange: &mut Exchange<'_, '_>,
    chances: &mut Chances,
    held: Held,
) -> Result<bool, Failed> {
    match held {
        Held::Refused(refusal) => renewed(exchange, chances, refusal).await,
        Held::Busy(wait) => waited(exchange, chances, wait).await,
    }
}

async fn renewed(
    exchange: &mut Exchange<'_, '_>,
    chances: &mut Chances,
    refusal: Refusal,
) -> Result<bool, Failed> {
    let Some((token, lease)) = exchange.sent.token() else { return Ok(false) };
    let renewing = timeout(RENEWAL_MAX, token.renew(lease, exchange.sent.kind()));
    let renewed = unless_gone(exchange.client, exchange.worker, renewing).await?;
    let lease = match renewed.unwrap_or(Err(NotRenewed::Failed)) {
        Ok(lease) => lease,
        Err(error) => {
            debug!(%error, "AEM refuses the token, and its answer is passed on");
            exchange.outcome = match error {
                NotRenewed::CoolingDown => Outcome::CoolingDown,
                NotRenewed::Failed => Outcome::NoNewToken,
                NotRenewed::Fixed => Outcome::Passed,
            };
            return Ok(false);
        }
    };
    exchange.request.proxy.metrics.refused(refusal, Outcome::Replayed);
    chances.outcome = Outcome::RefusedAgain;
    exchange.sent.renew(lease, exchange.worker);
    Ok(true)
}

async fn waited(
    exchange: &mut Exchange<'_, '_>,
    chances: &mut Chances,
    wait: Duration,
) -> Result<bool, Failed> {
    let request = &*exchange.request;
    // From here on it is heard.
    let stopped = exchange.worker.stopped.notified();
    let affordable = request.proxy.retries.as_ref().is_some_and(super::super::retries::Retries::withdraw);
    if !affordable || exchange.worker.is_stopping() {
        return Ok(false);
    }
    debug!(?wait, "AEM is busy, sending the request again in a while");
    request.proxy.metrics.retried(Retried::Busy);
    chances.waits += 1;
    // A little on top, or all who were turned away come back at once.
    let wait = wait + wait.max(PAUSE).mul_f64(0.2 * fastrand::f64());
    let waited = async move {
        tokio::select! {
            () = sleep(wait) => true,
            // Better what AEM has said than nothing.
            () = stopped => false,
        }
    };
    // Few need it: not a part of every connection's task.
    Box::pin(unless_gone(exchange.client, exchange.worker, waited)).await
}

impl Sent<'_> {
    /// The token that it was sent with, and where it came from.
    pub(super) fn token(&self) -> Option<(&TokenHandle, &Lease)> {
        match (&self.route.credential, &self.identity) {
            (Credential::Bearer(token), Identity::Token(lease)) => Some((token, lease)),
            _ => None,
        }
    }

    /// What it has in common with other requests that AEM judges alike.
    pub(super) fn kind(&self) -> RequestKind {
        let head = self.head.filled();
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let target = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        RequestKind::of(self.route.upstream.host(), target)
    }

    /// From here on it is sent with this token.
    fn renew(&mut self, lease: Lease, worker: &crate::proxy::Worker) {
        self.identity = Identity::Token(lease);
        let mut head = worker.buffers.head();
        self.route.added(&self.identity, &[]).rewrite(self.head.filled(), &mut self.lines, &mut head);
        worker.buffers.take_back(std::mem::replace(&mut self.head, head));
    }
}

/// One request may meet several dead connections in a row when AEM goes down with many.
const RECONNECTS_MAX: u32 = 3;

/// How often one request comes back to an AEM that is busy.
const WAITS_MAX: u32 = 2;

const PAUSE: Duration = Duration::from_millis(100);

/// As long as an exchange at IMS takes at most with the defaults, twice.
const RENEWAL_MAX: Duration = Duration::from_secs(30);
