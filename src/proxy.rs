//! The data path: what happens to a request, in one place and in order.
//!
//! The head passes through plain functions; the bodies stream past them untouched. Functions rather than a stack
//! of tower layers: the order is one screen of code, nothing is boxed on the way, and each step is tested
//! without a service around it.

mod activity;
mod authorize;
mod body;
mod connection;
mod connector;
mod error;
mod forward;
mod guard;
mod headers;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::{Request, Response, StatusCode, Version};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use self::{
    activity::Activity,
    body::{RequestBody, ResponseBody},
    error::ProxyError,
};
pub use self::{
    authorize::Credential,
    connector::Connector,
    forward::{Limits, Upstream},
    guard::{Guard, GuardError, Local},
};
use crate::metrics::{InFlight, ProxyMetrics};

/// One proxy: a guard, a credential and an upstream. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

struct Inner {
    guard: Guard,
    credential: Credential,
    upstream: Upstream,
    limits: Limits,
    metrics: ProxyMetrics,
    draining: AtomicBool,
}

/// Both ends of an upgraded connection, until it is a tunnel.
struct Tunnel {
    client: OnUpgrade,
    upstream: OnUpgrade,
    /// Counts the request when the tunnel ends.
    in_flight: InFlight,
}

/// What AEM answered, ready for the client, and both ends of what is to be a tunnel.
struct Passed {
    response: Response<Incoming>,
    upgrade: Option<(OnUpgrade, OnUpgrade)>,
}

impl Proxy {
    /// Puts a proxy together. Nothing is bound or started.
    pub fn new(
        guard: Guard,
        credential: Credential,
        upstream: Upstream,
        limits: Limits,
        metrics: ProxyMetrics,
    ) -> Self {
        let draining = AtomicBool::new(false);
        Self { inner: Arc::new(Inner { guard, credential, upstream, limits, metrics, draining }) }
    }

    /// From now on requests are refused; those in flight go on.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// Answers one request: with AEM's answer, or with a problem document of our own.
    async fn answer(
        self,
        request: Request<Incoming>,
        activity: Arc<Activity>,
        local: Local,
    ) -> Response<ResponseBody> {
        let mut in_flight = self.inner.metrics.start(request.method());
        let request = request.map(|body| RequestBody::new(body, Arc::clone(&activity)));
        match self.pass(request, &activity, local).await {
            Ok(Passed { response, upgrade: None }) => {
                in_flight.answered(response.status());
                response.map(|body| ResponseBody::upstream(body, activity, in_flight))
            }
            Ok(Passed { response, upgrade: Some((client, upstream)) }) => {
                in_flight.answered(response.status());
                activity.hold_tunnel(Tunnel { client, upstream, in_flight });
                response.map(|_| ResponseBody::empty(activity))
            }
            Err(error) => {
                error.log();
                if let Some(reason) = error.denied() {
                    self.inner.metrics.denied(reason);
                }
                let response = error.response();
                in_flight.answered(response.status());
                response.map(|text| ResponseBody::own(text, activity, in_flight))
            }
        }
    }

    /// The way of a request. Hop-by-hop fields go before ours is set, or a client's `Connection: authorization`
    /// would remove what we add (golang/go#50580).
    async fn pass(
        &self,
        mut request: Request<RequestBody>,
        activity: &Activity,
        local: Local,
    ) -> Result<Passed, ProxyError> {
        let inner = &*self.inner;
        if inner.draining.load(Ordering::Relaxed) {
            return Err(ProxyError::Draining);
        }
        if activity.head_bytes() > inner.limits.head as u64 && headers::size(&request) > inner.limits.head {
            return Err(ProxyError::RequestHeadTooLarge);
        }
        inner.guard.admit(&request, local)?;
        if headers::is_coded_otherwise(request.headers()) {
            return Err(ProxyError::RequestCoding);
        }
        let upgrade = headers::websocket(&request).then(|| hyper::upgrade::on(&mut request));
        let version = request.version();
        headers::strip_request(request.headers_mut(), version, upgrade.is_some());
        inner.credential.authorize(request.headers_mut())?;
        let mut response = inner.upstream.send(request, activity).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            inner.metrics.upstream_unauthorized();
        }
        let upgrade = upgraded(&mut response, upgrade)?;
        if headers::is_coded_otherwise(response.headers()) {
            return Err(ProxyError::ResponseCoding);
        }
        let version = std::mem::replace(response.version_mut(), Version::HTTP_11);
        headers::strip_response(response.headers_mut(), version, upgrade.is_some());
        Ok(Passed { response, upgrade })
    }
}

/// Both ends of a connection that AEM has made a WebSocket, if it has and was asked to.
fn upgraded(
    response: &mut Response<Incoming>,
    asked: Option<OnUpgrade>,
) -> Result<Option<(OnUpgrade, OnUpgrade)>, ProxyError> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(None);
    }
    match asked {
        Some(client) if headers::names_websocket(response.headers()) => {
            Ok(Some((client, hyper::upgrade::on(response))))
        }
        _ => Err(ProxyError::UnaskedUpgrade),
    }
}
