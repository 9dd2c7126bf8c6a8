//! The data path: HTTP/1.1 from a client to AEM and back, in one task for each client connection.
//!
//! A request's head is read in place, written once as AEM is to see it, and sealed into the connection; the answer comes
//! back the same way. No task is woken for another, nothing is boxed; what is allocated for a request are rustls'
//! records. Bodies stream through buffers that belong to the thread. Each thread is a [`Worker`] with connections to AEM of its own, so that no
//! request takes a lock.

mod authorize;
mod buffer;
mod client;
mod clients;
mod connection;
mod cors;
mod error;
mod exchange;
mod fields;
mod framing;
pub(crate) mod fuzzing;
mod guard;
mod http2;
#[doc(hidden)]
pub mod layers;
#[cfg(test)]
mod linear;
mod link;
mod partial;
mod permit;
mod refusal;
mod request;
mod response;
mod retries;
mod rewrite;
mod route;
mod sealed;
mod session;
mod session_cookies;
mod socket;
mod streams;
mod trailers;
mod tunnel;
mod under_way;
mod upstream;
mod withheld;

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior},
};
use tracing::debug;

pub use self::{
    authorize::Credential,
    clients::Place,
    guard::{Asked, Guard, GuardError, Known, Local, Secret, SecretError},
    refusal::Refusal,
    retries::Retries,
    route::{Fields, Route},
    upstream::{Limits, Parts, Upstream},
};
use self::{buffer::Buffers, clients::Clients, under_way::UnderWay, upstream::Pool};
use crate::{
    config::{Rewrite, UserAgent},
    listener::Stream,
    memory::Memory,
    metrics::ProxyMetrics,
    tls::Serving,
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
    tls: Option<Serving>,
    /// Whether HTTP/2 is taken without TLS, from clients that know (RFC 9113, section 3.3).
    http2: bool,
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
        Self {
            guard,
            routes,
            otherwise,
            rewrite,
            limits,
            retries,
            metrics,
            draining,
            tls: None,
            http2: false,
        }
    }

    /// The same, taking HTTP/2 with prior knowledge on connections without TLS.
    #[must_use]
    pub fn with_http2(self) -> Self {
        Self { http2: true, ..self }
    }

    /// The same, speaking TLS with its clients.
    #[must_use]
    pub fn over_tls(self, tls: Serving) -> Self {
        Self { guard: self.guard.over_tls(), tls: Some(tls), ..self }
    }

    fn all_routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().chain([&self.otherwise])
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
    buffers: Rc<Buffers>,
    clients: Clients,
    under_way: UnderWay,
    stopping: Cell<bool>,
    stopped: Arc<Notify>,
}

impl Worker {
    /// A worker of `proxies`, whose upstreams are numbered from 0 on, with so many connections of clients at most; and so many
    /// more that are told that there is no place for them. All grow within the budget of `memory`.
    pub fn new(proxies: Arc<[Proxy]>, connections: (usize, usize), memory: Memory) -> Rc<Self> {
        let mut pools = Vec::new();
        for Route { upstream, .. } in proxies.iter().flat_map(Proxy::all_routes) {
            if pools.len() <= upstream.number() {
                pools.resize_with(upstream.number() + 1, Pool::default);
            }
            pools[upstream.number()] = upstream.pool();
        }
        Rc::new(Self {
            proxies,
            pools,
            buffers: Rc::new(Buffers::within(memory)),
            clients: Clients::new(connections),
            under_way: UnderWay::default(),
            stopping: Cell::new(false),
            stopped: Arc::new(Notify::new()),
        })
    }

    /// Whether whoever has made this connection may ask the proxy with this number at all; counted where not.
    pub fn admits(&self, stream: &Stream, proxy: usize) -> bool {
        let Some(proxy) = self.proxies.get(proxy) else { return false };
        let admitted = proxy.guard.admits_peer(stream);
        if !admitted {
            proxy.metrics.denied("peer");
            debug!("A user who is not one of guard.socket_uids has connected, closing the connection");
        }
        admitted
    }

    /// Idle connections end now, the others with the answer that they are waiting for.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.stopped.notify_waiters();
        for pool in &self.pools {
            pool.shared.close();
        }
    }

    /// Closes connections to AEM that have waited too long for a request or are old, and gives up those that are wanted, for
    /// ever.
    pub async fn sweep(self: Rc<Self>) {
        let Some(proxy) = self.proxies.first() else { return };
        let (idle, age) = (proxy.limits.timeouts.upstream_idle, proxy.limits.timeouts.upstream_max_age);
        let told = proxy.otherwise.upstream.told();
        let mut look = tokio::time::interval((idle.min(age) / 4).clamp(SWEEP_MIN, SWEEP_MAX));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // From here on it is heard.
            let wanted = told.notified();
            self.pools.iter().for_each(|pool| pool.make_room(&self.buffers));
            tokio::select! {
                () = wanted => continue,
                _ = look.tick() => {}
            }
            for pool in &self.pools {
                pool.sweep(idle, &self.buffers);
                pool.shared.sweep(idle, age);
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// A connection to `upstream` that is there: one that requests share, unless this one is to be `alone`.
    fn at_hand(&self, upstream: &Upstream, alone: bool, now: Instant) -> Option<link::Link> {
        let pool = self.pool(upstream);
        let shared = if alone { None } else { pool.shared.take() };
        shared.or_else(|| pool.take(now, &self.buffers))
    }

    /// Whether requests to `upstream` share a connection, unless this one is to be `alone`.
    fn shares_connections(&self, upstream: &Upstream, alone: bool) -> bool {
        !alone && upstream.takes_http2() && !self.pool(upstream).shared.has_declined()
    }

    /// A new connection to `upstream`, or a place on one that another request has made.
    async fn connect(&self, upstream: &Upstream, alone: bool) -> Result<link::Link, upstream::ConnectError> {
        if alone || !upstream.takes_http2() {
            return upstream.dial(&[], &self.buffers).await.map(|wire| link::Link::Wire(Box::new(wire)));
        }
        let head_max = self.proxies.first().map_or(0, |proxy| proxy.limits.head);
        // Few need it: not a part of every connection's task.
        Box::pin(self.pool(upstream).shared.connect(upstream, &self.buffers, head_max)).await
    }

    /// The idle connections to `upstream`.
    fn pool(&self, upstream: &Upstream) -> &Pool {
        &self.pools[upstream.number()]
    }
}

/// Whatever the limits are, this is a thread for requests.
const SWEEP_MIN: std::time::Duration = std::time::Duration::from_millis(10);

/// A connection that AEM has closed is noticed by then.
const SWEEP_MAX: std::time::Duration = std::time::Duration::from_secs(5);
