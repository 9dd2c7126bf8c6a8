//! The stand-in IMS, which fails by chance.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aem_auth_proxy::{
    clock::Clock,
    standin::{
        ims::{self, Switches},
        keys::ServiceCredentials,
        ledger::Ledger,
        oauth::OAuthCredential,
        server::{Connection, Server},
    },
};
use axum::{
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use fastrand::Rng;
use http::{StatusCode, header::RETRY_AFTER};
use tokio::time::{Instant, sleep};

use crate::{
    harness::failure::{Context, Result},
    record::{Record, Trouble},
};

/// IMS, and the credentials that it takes.
pub struct Ims {
    /// The tokens that live.
    pub ledger: Ledger,
    /// What belongs into the credentials file.
    pub good: ServiceCredentials,
    server: Arc<tokio::sync::Mutex<Server>>,
    state: Faulty,
}

#[derive(Clone)]
struct Faulty {
    chance: Arc<Mutex<Rng>>,
    record: Arc<Record>,
    switches: Switches,
    mode: Arc<Mutex<Mode>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One attempt of five fails.
    Faulty,
    /// All attempts fail.
    Down,
    /// None does.
    Well,
}

impl Ims {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot listen, or there are no credentials.
    pub async fn start(chance: Rng, record: Arc<Record>) -> Result<Self> {
        let addr = crate::harness::proxy::free_address()?;
        let endpoint = format!("http://{addr}");
        let key = include_str!("../../tests/fixtures/private_key.pem");
        let good = ServiceCredentials::with_key(key, &endpoint).context("credentials")?;
        let oauth = OAuthCredential::generate(&endpoint);
        let clock = Clock::system();
        let ledger = Ledger::new(clock.clone(), good.client_id(), good.id());
        let switches = Switches::new(LIFETIME_MIN);
        let state = Faulty {
            chance: Arc::new(Mutex::new(chance)),
            record,
            switches: switches.clone(),
            mode: Arc::new(Mutex::new(Mode::Faulty)),
        };
        let router = ims::router(good.clone(), oauth, ledger.clone(), switches, clock);
        let router = router.layer(from_fn_with_state(state.clone(), meet));
        let server = Server::start(router, addr, None).await.context("IMS")?;
        Ok(Self { ledger, good, server: Arc::new(tokio::sync::Mutex::new(server)), state })
    }

    /// For `ims_endpoint`.
    pub fn endpoint(&self) -> String {
        self.good.ims_endpoint().to_owned()
    }

    /// IMS is down for this long: no connection, 500, or connections that break. Then it is well, without
    /// faults until [`Ims::end_outage`].
    pub async fn outage(&self, mut chance: Rng, down: Duration) {
        self.state.record.begins(Trouble::Ims);
        self.state.set(Mode::Down);
        let begun = Instant::now();
        while begun.elapsed() < down {
            let refuses = chance.bool();
            let part =
                Duration::from_secs_f64(1.0 + chance.f64() * 4.0).min(down - begun.elapsed().min(down));
            if refuses {
                self.server.lock().await.stop().await;
            }
            sleep(part).await;
            if refuses && let Err(error) = self.server.lock().await.restart().await {
                self.state.record.failure(&format!("the stand-in IMS did not come back: {error}"));
            }
        }
        self.state.set(Mode::Well);
        self.state.record.ends(Trouble::Ims);
    }

    /// Faults by chance again.
    pub fn end_outage(&self) {
        self.state.set(Mode::Faulty);
    }
}

impl Faulty {
    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chance(&self) -> std::sync::MutexGuard<'_, Rng> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one attempt meets.
async fn meet(State(state): State<Faulty>, request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<Connection>().cloned();
    let (fault, lifetime) = {
        let mut chance = state.chance();
        let lifetime = LIFETIME_MIN + LIFETIME_MORE.mul_f64(chance.f64());
        let fault = (chance.f64() < FAULTS).then(|| chance.u8(0..5));
        (fault, lifetime)
    };
    let fault = match state.mode() {
        Mode::Faulty => fault,
        Mode::Well => None,
        Mode::Down => {
            state.record.event("IMS: attempts while it was down");
            if state.chance().bool() {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
            return close(connection).await;
        }
    };
    let record = &state.record;
    match fault {
        Some(0) => {
            record.fault("500", AFTER_FAULT);
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Some(1) => {
            let seconds = state.chance().u64(1..=3);
            let after = Duration::from_secs(seconds);
            record.said_retry_after(after);
            record.fault("429 with Retry-After", after.mul_f64(1.1) + AFTER_FAULT);
            (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds.to_string())]).into_response()
        }
        Some(2) => {
            record.fault("no answer", IMS_TIMEOUT + AFTER_FAULT);
            std::future::pending().await
        }
        Some(3) => {
            record.fault("broken JSON", AFTER_FAULT);
            ([("content-type", "application/json")], "{\"access_token\":\"ey").into_response()
        }
        Some(_) => {
            record.fault("connection closed", AFTER_FAULT);
            close(connection).await
        }
        None => {
            let asked = Instant::now();
            state.switches.set_token_lifetime(lifetime);
            let response = next.run(request).await;
            if response.status() == StatusCode::OK {
                record.event("IMS: tokens issued");
                record.issued(asked, lifetime);
            } else {
                record.event("IMS: credentials refused");
            }
            response
        }
    }
}

async fn close(connection: Option<Connection>) -> Response {
    if let Some(connection) = connection {
        connection.close();
    }
    std::future::pending().await
}

/// The share of attempts that fail.
const FAULTS: f64 = 0.2;

/// Tokens live for 1 to 3 s.
const LIFETIME_MIN: Duration = Duration::from_secs(1);
const LIFETIME_MORE: Duration = Duration::from_secs(2);

/// How long a fault may keep the proxy without a token: what was left of the old one does not help, and
/// with requests arriving there is an early attempt every 5 s.
const AFTER_FAULT: Duration = Duration::from_millis(6000);

/// `timeouts.ims` of this proxy: with the default of 15 s it would be without a token most of the time.
pub const IMS_TIMEOUT: Duration = Duration::from_secs(3);
