//! The data path: HTTP/1.1 from a client to AEM and back, in one task for each client connection.
//!
//! A request's head is read in place, written once as AEM is to see it, and sealed into the connection; the answer comes
//! back the same way. No task is woken for another, nothing is boxed; what is allocated for a request are rustls'
//! records. Bodies stream through buffers that belong to the thread. Each thread is a [`Worker`] with connections to AEM of its own, so that no
//! request takes a lock.

mod authorize;
mod buffer;
mod client;
mod connection;
mod cors;
mod error;
mod exchange;
mod fields;
mod framing;
mod guard;
#[doc(hidden)]
pub mod layers;
mod link;
mod refusal;
mod request;
mod response;
mod retries;
mod rewrite;
mod route;
mod session;
mod tunnel;
mod upstream;

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

pub use self::{
    authorize::Credential,
    guard::{Asked, Guard, GuardError, Local},
    refusal::Refusal,
    retries::Retries,
    route::{Fields, Route},
    upstream::{Limits, Upstream},
};
use self::{buffer::Buffers, upstream::Pool};
use crate::{
    config::{Rewrite, UserAgent},
    metrics::ProxyMetrics,
};

/// One proxy: a guard, and routes with their credentials and upstreams. Shared by all threads.
pub struct Proxy {
    guard: Guard,
    routes: Vec<Route>,
    otherwise: Route,
    rewrite: Rewrite,
    limits: Limits,
    retries: Option<Retries>,
    metrics: ProxyMetrics,
    draining: AtomicBool,
}

impl Proxy {
    /// Puts a proxy together: the first of `routes` that covers a path has it, and `otherwise` the rest. Nothing is
    /// bound or started.
    pub fn new(
        guard: Guard,
        routes: Vec<Route>,
        otherwise: Route,
        rewrite: Rewrite,
        limits: Limits,
        retries: Option<Retries>,
        metrics: ProxyMetrics,
    ) -> Self {
        let draining = AtomicBool::new(false);
        Self { guard, routes, otherwise, rewrite, limits, retries, metrics, draining }
    }

    fn route(&self, path: &[u8]) -> &Route {
        self.routes.iter().find(|route| route.path.covers(path)).unwrap_or(&self.otherwise)
    }

    /// What AEM sees as `User-Agent` in place of the client's, if anything.
    fn user_agent(&self) -> Option<&[u8]> {
        match &self.rewrite.user_agent {
            UserAgent::Keep => None,
            UserAgent::Instead(value) => Some(value.as_bytes()),
        }
    }

    /// From now on requests are refused; those in flight go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// What one thread keeps for the connections of all proxies: nothing in it is shared, so nothing in it is locked.
pub struct Worker {
    proxies: Arc<[Proxy]>,
    /// By the numbers of the upstreams.
    pools: Vec<Pool>,
    buffers: Buffers,
    stopping: Cell<bool>,
    stopped: Arc<Notify>,
}

impl Worker {
    /// A worker of `proxies`, whose upstreams are numbered from 0 on.
    pub fn new(proxies: Arc<[Proxy]>) -> Rc<Self> {
        let routes = proxies.iter().flat_map(|proxy| proxy.routes.iter().chain([&proxy.otherwise]));
        let upstreams = routes.map(|route| route.upstream.number() + 1).max().unwrap_or(0);
        Rc::new(Self {
            proxies,
            pools: (0..upstreams).map(|_| Pool::default()).collect(),
            buffers: Buffers::default(),
            stopping: Cell::new(false),
            stopped: Arc::new(Notify::new()),
        })
    }

    /// Idle connections end now, the others with the answer that they are waiting for.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.stopped.notify_waiters();
    }

    /// Closes connections to AEM that have waited too long for a request, for ever.
    pub async fn sweep(self: Rc<Self>) {
        let Some(limit) = self.proxies.first().map(|proxy| proxy.limits.timeouts.upstream_idle) else {
            return;
        };
        loop {
            tokio::time::sleep((limit / 4).min(SWEEP_MAX)).await;
            for pool in &self.pools {
                pool.sweep(limit, &self.buffers);
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// The idle connections to `upstream`.
    fn pool(&self, upstream: &Upstream) -> &Pool {
        &self.pools[upstream.number()]
    }
}

/// A connection that AEM has closed is noticed by then.
const SWEEP_MAX: std::time::Duration = std::time::Duration::from_secs(5);
