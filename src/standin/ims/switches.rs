//! What can be made to go wrong at the stand-in IMS, and what it has seen.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use crate::{
    secret::SecretString,
    standin::{ledger::Look, server::Connection},
};

/// Fault switches and counters. Clones share them.
#[derive(Clone, Debug)]
pub struct Switches(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Mutex<Settings>,
    counts: watch::Sender<Counts>,
}

#[derive(Debug)]
struct Settings {
    token_lifetime: Duration,
    look: Look,
    token_type: bool,
    /// For any grant, and for each kind of its own.
    faults: Faults,
    jwt: OfGrant,
    oauth: OfGrant,
    live_secrets: Vec<SecretString>,
    date_offset_seconds: i64,
    last_assertion: Option<String>,
    last_assertion_claims: Option<Value>,
    last_scope: Option<String>,
    last_form_kind: Option<FormKind>,
}

#[derive(Debug)]
struct OfGrant {
    expires_in: ExpiresIn,
    faults: Faults,
}

#[derive(Debug, Default)]
struct Faults {
    queue: VecDeque<Fault>,
    always: Option<Fault>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    jwt: Count,
    oauth: Count,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    attempts: usize,
    exchanges: usize,
}

impl Counts {
    fn attempts(&self) -> usize {
        self.jwt.attempts + self.oauth.attempts
    }

    fn exchanges(&self) -> usize {
        self.jwt.exchanges + self.oauth.exchanges
    }

    fn of(&mut self, grant: GrantKind) -> &mut Count {
        match grant {
            GrantKind::Jwt => &mut self.jwt,
            GrantKind::OAuth => &mut self.oauth,
        }
    }
}

/// What is exchanged for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantKind {
    /// A signed assertion, at `/ims/exchange/jwt`.
    Jwt,
    /// `client_credentials`, at `/ims/token/v3` or `v2`.
    OAuth,
}

/// How `expires_in` is written.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpiresIn {
    /// A number of milliseconds, as the JWT exchange answers.
    Milliseconds,
    /// A number of seconds, as the token endpoint answers.
    Seconds,
    /// Milliseconds as a numeric string, which Adobe's own tests send.
    Text,
    /// Not at all.
    Omitted,
    /// As given.
    Raw(Value),
}

impl ExpiresIn {
    pub(super) fn value(&self, lifetime: Duration) -> Option<Value> {
        let milliseconds = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Milliseconds => Some(json!(milliseconds)),
            Self::Seconds => Some(json!(lifetime.as_secs())),
            Self::Text => Some(json!(milliseconds.to_string())),
            Self::Omitted => None,
            Self::Raw(value) => Some(value.clone()),
        }
    }
}

/// The encoding of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormKind {
    /// `application/x-www-form-urlencoded`.
    UrlEncoded,
    /// `multipart/form-data`.
    Multipart,
}

/// What happens in place of an exchange.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This answer, whatever was asked.
    Answer {
        /// Its status.
        status: StatusCode,
        /// Its fields; those that no header may carry are left out.
        headers: Vec<(String, String)>,
        /// Its body.
        body: String,
    },
    /// The usual answer, later.
    Delay(Duration),
    /// No answer, on a connection that stays open.
    Hang,
    /// No answer, and the connection is closed.
    Close,
}

impl Fault {
    /// A JSON answer.
    pub fn json(status: StatusCode, body: &Value) -> Self {
        Self::raw(status, "application/json;charset=UTF-8", &body.to_string())
    }

    /// Any bytes: HTML of a captive portal, JSON that breaks off, nothing.
    pub fn raw(status: StatusCode, content_type: &str, body: &str) -> Self {
        let headers = vec![(CONTENT_TYPE.to_string(), content_type.to_owned())];
        Self::Answer { status, headers, body: body.to_owned() }
    }

    /// One of IMS's refusals.
    pub fn refusal(status: StatusCode, error: &str, error_description: &str) -> Self {
        Self::json(status, &json!({"error": error, "error_description": error_description}))
    }

    /// 429: too many tokens were asked for.
    pub fn throttled(retry_after_seconds: Option<u64>) -> Self {
        let fault = Self::refusal(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "");
        match retry_after_seconds {
            Some(seconds) => fault.with_header(RETRY_AFTER.as_str(), &seconds.to_string()),
            None => fault,
        }
    }

    /// 500 as IMS words it, seen also for credentials that have been migrated to OAuth.
    pub fn internal_error() -> Self {
        Self::refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Please try again later")
    }

    /// The same with one more field; only an answer has fields.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The answer, or `None` where the usual one follows.
    pub(super) async fn act(self, connection: Option<Connection>) -> Option<Response> {
        match self {
            Self::Answer { status, headers, body } => Some(answer(status, headers, body)),
            Self::Delay(by) => {
                sleep(by).await;
                None
            }
            Self::Hang => pending().await,
            Self::Close => {
                if let Some(connection) = connection {
                    connection.close();
                }
                pending().await
            }
        }
    }
}

fn answer(status: StatusCode, headers: Vec<(String, String)>, body: String) -> Response {
    let mut response = (status, Body::from(body)).into_response();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

impl Settings {
    fn of(&mut self, grant: GrantKind) -> &mut OfGrant {
        match grant {
            GrantKind::Jwt => &mut self.jwt,
            GrantKind::OAuth => &mut self.oauth,
        }
    }
}

impl Switches {
    /// An IMS in good health, with tokens of this lifetime.
    pub fn new(token_lifetime: Duration) -> Self {
        let of_grant = |expires_in| OfGrant { expires_in, faults: Faults::default() };
        let settings = Settings {
            token_lifetime,
            look: Look::Claims,
            token_type: true,
            faults: Faults::default(),
            jwt: of_grant(ExpiresIn::Milliseconds),
            oauth: of_grant(ExpiresIn::Seconds),
            live_secrets: Vec::new(),
            date_offset_seconds: 0,
            last_assertion: None,
            last_assertion_claims: None,
            last_scope: None,
            last_form_kind: None,
        };
        Self(Arc::new(Inner { settings: Mutex::new(settings), counts: watch::Sender::default() }))
    }

    /// The lifetime of tokens issued from now on.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.settings().token_lifetime = lifetime;
    }

    /// How answers to JWT exchanges from now on write `expires_in`.
    pub fn set_expires_in(&self, form: ExpiresIn) {
        self.set_expires_in_for(GrantKind::Jwt, form);
    }

    /// How answers to one kind of grant from now on write `expires_in`.
    pub fn set_expires_in_for(&self, grant: GrantKind, form: ExpiresIn) {
        self.settings().of(grant).expires_in = form;
    }

    /// How tokens from now on look.
    pub fn set_look(&self, look: Look) {
        self.settings().look = look;
    }

    /// Whether answers from now on have a `token_type`, which Adobe sometimes leaves out.
    pub fn set_token_type(&self, told: bool) {
        self.settings().token_type = told;
    }

    /// The OAuth secrets that are taken from now on; all others are refused.
    pub fn set_oauth_secrets(&self, live: &[SecretString]) {
        self.settings().live_secrets = live.to_vec();
    }

    /// One more attempt to go wrong, after those already queued.
    pub fn push(&self, fault: Fault) {
        self.settings().faults.queue.push_back(fault);
    }

    /// One more attempt with this grant to go wrong, before those that are queued for any.
    pub fn push_for(&self, grant: GrantKind, fault: Fault) {
        self.settings().of(grant).faults.queue.push_back(fault);
    }

    /// What every attempt meets once the queue is empty; `None` is good health.
    pub fn set_always(&self, fault: Option<Fault>) {
        self.settings().faults.always = fault;
    }

    /// What every attempt with this grant meets, as when Adobe has switched one of them off.
    pub fn set_always_for(&self, grant: GrantKind, fault: Option<Fault>) {
        self.settings().of(grant).faults.always = fault;
    }

    /// How far the clock in `Date` is ahead of the real one.
    pub fn set_date_offset_seconds(&self, seconds: i64) {
        self.settings().date_offset_seconds = seconds;
    }

    /// How many exchanges were asked for.
    pub fn attempts(&self) -> usize {
        self.0.counts.borrow().attempts()
    }

    /// How many of them were of JWTs.
    pub fn jwt_attempts(&self) -> usize {
        self.0.counts.borrow().jwt.attempts
    }

    /// How many of them were of OAuth credentials.
    pub fn oauth_attempts(&self) -> usize {
        self.0.counts.borrow().oauth.attempts
    }

    /// How many tokens were given.
    pub fn exchanges(&self) -> usize {
        self.0.counts.borrow().exchanges()
    }

    /// How many of them for JWTs.
    pub fn jwt_exchanges(&self) -> usize {
        self.0.counts.borrow().jwt.exchanges
    }

    /// How many of them for OAuth credentials.
    pub fn oauth_exchanges(&self) -> usize {
        self.0.counts.borrow().oauth.exchanges
    }

    /// Waits for the `count`-th attempt; it may still be under way.
    pub async fn attempts_reach(&self, count: usize) {
        self.wait_for(|counts| counts.attempts() >= count).await;
    }

    /// Waits for the `count`-th token; its answer may still be under way.
    pub async fn exchanges_reach(&self, count: usize) {
        self.wait_for(|counts| counts.exchanges() >= count).await;
    }

    /// The last assertion, whether right or wrong.
    pub fn last_assertion(&self) -> Option<String> {
        self.settings().last_assertion.clone()
    }

    /// What the last assertion claimed, whether right or wrong.
    pub fn last_assertion_claims(&self) -> Option<Value> {
        self.settings().last_assertion_claims.clone()
    }

    /// The client secrets that OAuth exchanges are taken with.
    pub fn oauth_secrets(&self) -> Vec<SecretString> {
        self.settings().live_secrets.clone()
    }

    /// The last `scope` that was asked for, whether right or wrong.
    pub fn last_scope(&self) -> Option<String> {
        self.settings().last_scope.clone()
    }

    /// How the last form was encoded.
    pub fn last_form_kind(&self) -> Option<FormKind> {
        self.settings().last_form_kind
    }

    pub(super) fn token_lifetime(&self) -> Duration {
        self.settings().token_lifetime
    }

    pub(super) fn expires_in(&self, grant: GrantKind) -> ExpiresIn {
        self.settings().of(grant).expires_in.clone()
    }

    pub(super) fn look(&self) -> Look {
        self.settings().look
    }

    pub(super) fn tells_token_type(&self) -> bool {
        self.settings().token_type
    }

    pub(super) fn is_live(&self, secret: &str) -> bool {
        self.settings().live_secrets.iter().any(|live| live.expose_secret() == secret)
    }

    pub(super) fn date_offset_seconds(&self) -> i64 {
        self.settings().date_offset_seconds
    }

    pub(super) fn next_fault(&self, grant: GrantKind) -> Option<Fault> {
        let mut settings = self.settings();
        let queued = settings.of(grant).faults.queue.pop_front();
        let queued = queued.or_else(|| settings.faults.queue.pop_front());
        queued.or_else(|| {
            let own = settings.of(grant).faults.always.clone();
            own.or_else(|| settings.faults.always.clone())
        })
    }

    pub(super) fn jwt_attempted(
        &self,
        assertion: Option<String>,
        claims: Option<Value>,
        form: Option<FormKind>,
    ) {
        {
            let mut settings = self.settings();
            settings.last_assertion = assertion;
            settings.last_assertion_claims = claims;
            settings.last_form_kind = form;
        }
        self.attempted(GrantKind::Jwt);
    }

    pub(super) fn oauth_attempted(&self, scope: Option<String>) {
        self.settings().last_scope = scope;
        self.attempted(GrantKind::OAuth);
    }

    fn attempted(&self, grant: GrantKind) {
        self.0.counts.send_modify(|counts| counts.of(grant).attempts += 1);
    }

    pub(super) fn exchanged(&self, grant: GrantKind) {
        self.0.counts.send_modify(|counts| counts.of(grant).exchanges += 1);
    }

    async fn wait_for(&self, reached: impl FnMut(&Counts) -> bool) {
        // The sender is in `self`, so the channel cannot close.
        let _ = self.0.counts.subscribe().wait_for(reached).await;
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.0.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
