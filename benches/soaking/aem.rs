//! An AEM that checks tokens and bodies, and is killed now and then.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aem_auth_proxy::{
    clock::Clock,
    standin::{
        ledger::{Ledger, Verdict},
        server::Server,
    },
};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fastrand::Rng;
use http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION};
use tokio::time::sleep;

use crate::{
    bodies,
    harness::{
        failure::{Context, Result},
        sha256,
    },
    record::{Record, Trouble},
};

/// AEM.
pub struct Aem {
    server: Server,
    record: Arc<Record>,
}

#[derive(Clone)]
struct Shared {
    ledger: Ledger,
    record: Arc<Record>,
    clock: Clock,
}

impl Aem {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(ledger: Ledger, record: Arc<Record>) -> Result<Self> {
        let shared = Shared { ledger, record: Arc::clone(&record), clock: Clock::system() };
        let router = Router::new().fallback(answer).with_state(shared);
        let server = Server::start(router, ([127, 0, 0, 1], 0).into(), None).await.context("AEM")?;
        Ok(Self { server, record })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Kills it every [`KILL_EVERY`], and more often in a short run.
    pub async fn keep_killing(mut self, mut chance: Rng, total: Duration) {
        let every = KILL_EVERY.min(total / 4);
        loop {
            sleep(every).await;
            self.record.begins(Trouble::Aem);
            self.server.stop().await;
            sleep(Duration::from_secs_f64(0.3 + chance.f64() * 3.0)).await;
            if let Err(error) = self.server.restart().await {
                self.record.failure(&format!("the stand-in AEM did not come back: {error}"));
                return;
            }
            self.record.ends(Trouble::Aem);
        }
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let number = |name: &str| number(&head.headers, name);
    let (Some(id), Some(length)) = (number(ID), number(ANSWER_LENGTH)) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if let Some(refusal) = shared.check_token(&head.headers, id) {
        return refusal;
    }
    let method = &head.method;
    let (sum, expected) = (text(&head.headers, SUM), number(LENGTH));
    let Ok(body) = to_bytes(body, BODY_MAX).await else {
        // It broke off: this request has no effect.
        shared.record.event("AEM: request bodies that broke off");
        return StatusCode::BAD_REQUEST.into_response();
    };
    if expected != Some(body.len() as u64) || sum.as_deref() != Some(sha256(&body).as_str()) {
        let what = format!("{method} {id}: {} bytes reached AEM, {expected:?} were sent", body.len());
        shared.record.failure(&what);
        return StatusCode::CONFLICT.into_response();
    }
    if *method == Method::POST {
        shared.record.effect(id);
    }
    let length = usize::try_from(length).unwrap_or(0);
    Body::from(bodies::bytes(id, length)).into_response()
}

impl Shared {
    /// Refuses what real AEM would refuse, and takes note of it.
    fn check_token(&self, headers: &HeaderMap, id: u64) -> Option<Response> {
        let field = text(headers, AUTHORIZATION.as_str()).unwrap_or_default();
        let token = field.strip_prefix("Bearer ").unwrap_or_default();
        match self.ledger.verdict(token) {
            Verdict::Live => return None,
            Verdict::Expired => {
                let late = self.expired_since(token);
                if late.is_some_and(|late| late <= ON_THE_WAY) {
                    self.record.event("AEM: tokens that expired on the way");
                } else {
                    self.record.failure(&format!(
                        "{id}: a token reached AEM {} ms after its end",
                        late.map_or(0, |late| late.as_millis())
                    ));
                }
            }
            verdict => self.record.failure(&format!("{id}: a token reached AEM that is {verdict:?}")),
        }
        Some((StatusCode::UNAUTHORIZED, "expired").into_response())
    }

    fn expired_since(&self, token: &str) -> Option<Duration> {
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
        let number = |name: &str| {
            let value = &claims[name];
            value.as_u64().or_else(|| value.as_str()?.parse().ok())
        };
        let end = Duration::from_millis(number("created_at")? + number("expires_in")?);
        let now = self.clock.now().duration_since(std::time::UNIX_EPOCH).ok()?;
        now.checked_sub(end)
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// A request's number.
pub const ID: &str = "x-soak-id";
/// How long its body is.
pub const LENGTH: &str = "x-soak-length";
/// What its body's sum is.
pub const SUM: &str = "x-soak-sha256";
/// How long the answer's body is to be.
pub const ANSWER_LENGTH: &str = "x-soak-answer";

/// The largest body.
pub const BODY_MAX: usize = 8 << 20;

const KILL_EVERY: Duration = Duration::from_secs(30);

/// A token that was good when the request left: the machine is busy.
const ON_THE_WAY: Duration = Duration::from_millis(150);
