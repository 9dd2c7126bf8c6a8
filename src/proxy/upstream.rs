//! One AEM: where it is, how it is reached, how much is asked of it at once, and the connections to it that wait for the
//! next request.

mod connect;
mod connections;
mod lease;
mod limit;
mod pool;
mod tunnel;

use std::{sync::Arc, time::Duration};

use rustls::ClientConfig;
use tokio::{sync::Notify, time::Instant};

use self::{
    connect::Connector,
    connections::{Connections, Offer, Slot},
    limit::Queue,
    tunnel::TunnelError,
};
pub(super) use self::{
    lease::Lease,
    limit::{Busy, Turn, Turns},
    pool::Pool,
};
use super::{
    buffer::Buffers,
    error::ProxyError,
    link::{Detached, Wire},
    rewrite,
};
use crate::{
    config::{self, HttpVersion, ProxyUrl, Timeouts},
    metrics::{Turned, UpstreamMetrics},
    network::{
        Cause,
        descriptors::{Descriptors, Exhausted},
        is_temporary,
    },
};

/// What a connection may hold and how long it may wait.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest head, in bytes.
    pub head: usize,
    /// The most fields of a head.
    pub fields: usize,
    /// The longest path that is judged, in bytes.
    pub path: usize,
    /// How much of a request's body is kept for a second attempt, in bytes.
    pub replay: usize,
    /// What a client has to send or take while it is waited for, in bytes a second.
    pub min_rate: usize,
    /// Every wait.
    pub timeouts: Timeouts,
}

/// One AEM.
pub struct Upstream {
    number: usize,
    host: Vec<u8>,
    /// As a field has it.
    origin: Vec<u8>,
    /// As AEM itself writes it.
    names: Arc<rewrite::Origin>,
    http: HttpVersion,
    connector: Connector,
    age: Duration,
    turns: Option<Turns>,
    connections: Option<Arc<Connections>>,
    told: Arc<Notify>,
    descriptors: Arc<Descriptors>,
    metrics: UpstreamMetrics,
}

/// What an upstream gets from whoever wires it.
pub struct Parts {
    /// What is spoken with it; of no use without TLS.
    pub tls: Arc<ClientConfig>,
    /// The proxy on the way to it.
    pub egress: Option<ProxyUrl>,
    /// Its handles.
    pub metrics: UpstreamMetrics,
    /// Tells all threads that connections are wanted; one for all upstreams.
    pub told: Arc<Notify>,
    /// The account of the process; it uses the same `told`.
    pub descriptors: Arc<Descriptors>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to AEM")]
pub(super) struct ConnectError {
    pub(super) why: Why,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The same as far as others are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It was not tried.
    Busy(Busy),
    /// It was tried.
    Unreachable(Cause),
}

impl Upstream {
    /// The upstream with this number.
    ///
    /// # Errors
    /// When its URL is no origin that can be connected to.
    pub fn new(
        number: usize,
        config: &config::Upstream,
        timeouts: &Timeouts,
        parts: Parts,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let Parts { tls, egress, metrics, told, descriptors } = parts;
        let url = &config.url;
        let connector =
            Connector::new(url, tls, egress, timeouts, (metrics.clone(), Arc::clone(&descriptors)))?;
        let queue = Arc::new(Queue::new(config.max_queued, timeouts.queue, metrics.clone()));
        // Those that requests share are of one thread.
        let movable = config.http == HttpVersion::One;
        let connections = config
            .max_connections
            .map(|max| Arc::new(Connections::new(max, movable, Arc::clone(&queue), Arc::clone(&told))));
        Ok(Self {
            number,
            host: url.authority().as_bytes().to_vec(),
            origin: url.origin().ascii_serialization().into_bytes(),
            names: Arc::new(rewrite::Origin::new(url)),
            http: config.http,
            connector,
            age: timeouts.upstream_max_age,
            turns: config.max_in_flight.map(|max| Turns::new(max, queue)),
            connections,
            told,
            descriptors,
            metrics,
        })
    }

    /// Whether HTTP/2 is offered to it. Without TLS there is nothing to offer it in (RFC 9113, section 3.3).
    pub(super) fn takes_http2(&self) -> bool {
        self.http == HttpVersion::Two && self.connector.is_secure()
    }

    /// Its place among the upstreams of the process.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The value of `Host`.
    pub(super) fn host(&self) -> &[u8] {
        &self.host
    }

    /// Its origin, in all the ways in which AEM's answers have it.
    pub(super) fn names(&self) -> &Arc<rewrite::Origin> {
        &self.names
    }

    /// Its origin, as a browser writes it.
    pub(super) fn origin(&self) -> &[u8] {
        &self.origin
    }

    /// The turns of its requests, where there may be only so many at once.
    pub(super) fn turns(&self) -> Option<&Turns> {
        self.turns.as_ref()
    }

    /// Tells that connections are wanted, of this upstream or another one.
    pub(super) fn told(&self) -> &Arc<Notify> {
        &self.told
    }

    /// The account of the process's descriptors.
    pub(super) fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    /// A request is refused since there is no descriptor for its connection.
    pub(super) fn out_of_descriptors(&self) -> Busy {
        self.metrics.turned_away(Turned::Descriptors);
        Busy::Descriptors
    }

    /// A thread's place for idle connections.
    pub(super) fn pool(&self) -> Pool {
        Pool::new(self.connections.clone(), Arc::clone(&self.descriptors))
    }

    /// New connections go by this one; those that there are go on until they are old.
    pub fn renew_tls(&self, config: Arc<ClientConfig>) {
        self.connector.renew_tls(config);
    }

    /// A connection, TCP and TLS within one time limit; or one that another request has done with, where there may be only
    /// so many. AEM may choose one of `protocols`, if there are any.
    ///
    /// # Errors
    /// When AEM cannot be reached, with what it died of, or when too much is asked of it.
    pub(super) async fn dial(&self, protocols: &[&[u8]], buffers: &Buffers) -> Result<Wire, ConnectError> {
        loop {
            let slot = match &self.connections {
                None => None,
                Some(connections) => match connections.acquire().await.map_err(ConnectError::busy)? {
                    Offer::Slot(slot) => Some(slot),
                    Offer::Wire(wire) => match taken_over(*wire, buffers) {
                        Ok(wire) => return Ok(wire),
                        Err(None) => continue,
                        Err(slot) => slot,
                    },
                },
            };
            return self.wire(protocols, slot).await;
        }
    }

    async fn wire(&self, protocols: &[&[u8]], slot: Option<Slot>) -> Result<Wire, ConnectError> {
        // Before the socket, and for as long as there is one.
        let permit = self.descriptors.upstream().await;
        let permit = permit.map_err(|Exhausted| ConnectError::busy(self.out_of_descriptors()))?;
        let wire = self.connector.connect(protocols).await?;
        Ok(wire.leased(Lease::new(self.age, slot, permit, self.metrics.clone())))
    }
}

/// A connection of another request; its place alone, where it is of no use any more.
fn taken_over(wire: Detached, buffers: &Buffers) -> Result<Wire, Option<Slot>> {
    let mut wire = wire.attach().ok_or(None)?;
    if wire.is_old(Instant::now()) || !wire.is_fresh(buffers) {
        return Err(wire.end_lease(buffers).and_then(Lease::into_slot));
    }
    Ok(wire)
}

impl ConnectError {
    pub(super) fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { why: Why::Unreachable(Cause::of(&source)), source: Some(Box::new(source)) }
    }

    fn of_tunnel(source: TunnelError) -> Self {
        Self { why: Why::Unreachable(source.cause()), source: Some(Box::new(source)) }
    }

    fn busy(busy: Busy) -> Self {
        Self::again(Why::Busy(busy))
    }

    /// What another request, which has the error itself, died of.
    pub(super) fn again(why: Why) -> Self {
        Self { why, source: None }
    }

    fn cause(&self) -> Cause {
        match self.why {
            Why::Unreachable(cause) => cause,
            Why::Busy(_) => Cause::Other,
        }
    }

    /// Whether it may be over in a moment: nobody answers, or what answers breaks off, as while a server restarts.
    fn is_passing(&self) -> bool {
        match self.cause() {
            Cause::Refused | Cause::Other | Cause::EgressUnreachable | Cause::EgressFailed => true,
            Cause::Dns => self.source.as_ref().is_some_and(|source| is_temporary(&**source)),
            _ => false,
        }
    }
}

impl From<ConnectError> for ProxyError {
    fn from(error: ConnectError) -> Self {
        match error.why {
            Why::Busy(busy) => Self::Busy(busy),
            Why::Unreachable(cause) => Self::Unreachable(cause, Box::new(error)),
        }
    }
}
