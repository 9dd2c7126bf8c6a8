//! The admin listener: probes, metrics, status. No secrets, and GET changes nothing.

mod page;
mod status;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Json},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tracing::debug;

pub use self::status::{CredentialView, Facts, ProxyView, RouteView};
use crate::{
    clock::{Clock, unix_seconds},
    listener::Stream,
    metrics::Metrics,
    proxy::{Asked, Guard, Local},
};

/// What the admin listener shows. Cheap to clone.
#[derive(Clone)]
pub struct Admin(Arc<Inner>);

struct Inner {
    guard: Guard,
    metrics: Metrics,
    clock: Clock,
    started_at: SystemTime,
    proxies: Vec<ProxyView>,
    credentials: Vec<CredentialView>,
    draining: AtomicBool,
}

impl Admin {
    /// Shows these proxies and credentials.
    pub fn new(
        guard: Guard,
        metrics: Metrics,
        clock: Clock,
        proxies: Vec<ProxyView>,
        credentials: Vec<CredentialView>,
    ) -> Self {
        let started_at = clock.now();
        let draining = AtomicBool::new(false);
        Self(Arc::new(Inner { guard, metrics, clock, started_at, proxies, credentials, draining }))
    }

    /// From now on `/ready` says no.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Serves one connection of the admin listener.
    pub async fn serve(self, stream: Stream) {
        let local = stream.local();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router(local)));
        if let Err(error) = connection.await {
            debug!(%error, "Admin connection ended early");
        }
    }

    fn router(self, local: Local) -> Router {
        let guarded = self.clone();
        // A page of another site must not read the status by DNS rebinding.
        let guard = middleware::from_fn(move |request: Request, next: Next| {
            let refused = guarded.0.guard.admit(&Asked::of(&request), local).err();
            async move {
                match refused {
                    None => next.run(request).await,
                    Some(error) => {
                        (StatusCode::FORBIDDEN, format!("{error}; see guard.allowed_hosts\n")).into_response()
                    }
                }
            }
        });
        Router::new()
            .route("/live", get(live))
            .route("/startup", get(startup))
            .route("/ready", get(ready))
            .route("/status", get(status))
            .route("/metrics", get(metrics))
            .route("/", get(page))
            .layer(guard)
            .with_state(self)
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// A valid token in hand, or none needed; AEM being slow never changes it, or one hiccup would take out every pod
    /// at once.
    fn is_ready(&self) -> bool {
        !self.is_draining() && self.sent().all(|credential| credential.token.is_valid())
    }

    /// The credentials without which requests fail. A fallback that does not work is in the status alone.
    fn sent(&self) -> impl Iterator<Item = &CredentialView> {
        self.0.credentials.iter().filter(|credential| credential.is_sent)
    }
}

/// 200 while the process turns.
async fn live() -> &'static str {
    "live\n"
}

/// 200 once every credential has had a first token.
async fn startup(State(admin): State<Admin>) -> impl IntoResponse {
    let started = admin.sent().all(|credential| credential.token.has_started());
    verdict(started, "started\n", "no first token yet, see /status\n")
}

/// 200 with a valid token in hand and not draining.
async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    let no = if admin.is_draining() { "draining\n" } else { "no valid token, see /status\n" };
    verdict(admin.is_ready(), "ready\n", no)
}

fn verdict(yes: bool, text: &'static str, otherwise: &'static str) -> (StatusCode, &'static str) {
    if yes { (StatusCode::OK, text) } else { (StatusCode::SERVICE_UNAVAILABLE, otherwise) }
}

async fn status(State(admin): State<Admin>) -> impl IntoResponse {
    Json(admin.status())
}

async fn page(State(admin): State<Admin>) -> impl IntoResponse {
    Html(page::render(&admin.status()))
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    for credential in &admin.0.credentials {
        credential.metrics.token_expires_at(credential.token.expires_at().map_or(0, unix_seconds));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.0.metrics.render())
}

/// What a connection may hold, in bytes: a head from a browser fits.
const BUFFER: usize = 16 * 1024;

/// A prober sends its head at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
