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

use crate::standin::server::Connection;

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
    expires_in: ExpiresIn,
    queue: VecDeque<Fault>,
    always: Option<Fault>,
    date_offset_seconds: i64,
    last_assertion_claims: Option<Value>,
    last_form_kind: Option<FormKind>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    attempts: usize,
    exchanges: usize,
}

/// How `expires_in` is written.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpiresIn {
    /// A number of milliseconds, as the JWT exchange answers.
    Milliseconds,
    /// The same as a numeric string, which Adobe's own tests send.
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

impl Switches {
    /// An IMS in good health, with tokens of this lifetime.
    pub fn new(token_lifetime: Duration) -> Self {
        let settings = Settings {
            token_lifetime,
            expires_in: ExpiresIn::Milliseconds,
            queue: VecDeque::new(),
            always: None,
            date_offset_seconds: 0,
            last_assertion_claims: None,
            last_form_kind: None,
        };
        Self(Arc::new(Inner { settings: Mutex::new(settings), counts: watch::Sender::default() }))
    }

    /// The lifetime of tokens issued from now on.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.settings().token_lifetime = lifetime;
    }

    /// How answers from now on write `expires_in`.
    pub fn set_expires_in(&self, form: ExpiresIn) {
        self.settings().expires_in = form;
    }

    /// One more attempt to go wrong, after those already queued.
    pub fn push(&self, fault: Fault) {
        self.settings().queue.push_back(fault);
    }

    /// What every attempt meets once the queue is empty; `None` is good health.
    pub fn set_always(&self, fault: Option<Fault>) {
        self.settings().always = fault;
    }

    /// How far the clock in `Date` is ahead of the real one.
    pub fn set_date_offset_seconds(&self, seconds: i64) {
        self.settings().date_offset_seconds = seconds;
    }

    /// How many exchanges were asked for.
    pub fn attempts(&self) -> usize {
        self.0.counts.borrow().attempts
    }

    /// How many tokens were given.
    pub fn exchanges(&self) -> usize {
        self.0.counts.borrow().exchanges
    }

    /// Waits for the `count`-th attempt; it may still be under way.
    pub async fn attempts_reach(&self, count: usize) {
        self.wait_for(|counts| counts.attempts >= count).await;
    }

    /// Waits for the `count`-th token; its answer may still be under way.
    pub async fn exchanges_reach(&self, count: usize) {
        self.wait_for(|counts| counts.exchanges >= count).await;
    }

    /// What the last assertion claimed, whether right or wrong.
    pub fn last_assertion_claims(&self) -> Option<Value> {
        self.settings().last_assertion_claims.clone()
    }

    /// How the last form was encoded.
    pub fn last_form_kind(&self) -> Option<FormKind> {
        self.settings().last_form_kind
    }

    pub(super) fn token_lifetime(&self) -> Duration {
        self.settings().token_lifetime
    }

    pub(super) fn expires_in(&self) -> ExpiresIn {
        self.settings().expires_in.clone()
    }

    pub(super) fn date_offset_seconds(&self) -> i64 {
        self.settings().date_offset_seconds
    }

    pub(super) fn next_fault(&self) -> Option<Fault> {
        let mut settings = self.settings();
        settings.queue.pop_front().or_else(|| settings.always.clone())
    }

    pub(super) fn attempted(&self, claims: Option<Value>, form: Option<FormKind>) {
        {
            let mut settings = self.settings();
            settings.last_assertion_claims = claims;
            settings.last_form_kind = form;
        }
        self.0.counts.send_modify(|counts| counts.attempts += 1);
    }

    pub(super) fn exchanged(&self) {
        self.0.counts.send_modify(|counts| counts.exchanges += 1);
    }

    async fn wait_for(&self, reached: impl FnMut(&Counts) -> bool) {
        // The sender is in `self`, so the channel cannot close.
        let _ = self.0.counts.subscribe().wait_for(reached).await;
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.0.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
