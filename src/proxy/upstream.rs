//! One AEM: where it is, how it is reached, and the connections to it that wait for the next request.

mod caps;
mod connect;
mod pool;

use std::{sync::Arc, time::Duration};

use http::Uri;
use rustls::pki_types::ServerName;

pub use self::caps::Hunger;
use self::{caps::Caps, connect::Connector};
pub(super) use self::{
    caps::{Busy, Place},
    connect::ConnectError,
    pool::Pool,
};
use super::rewrite;
use crate::{
    config::{self, HttpVersion, Timeouts},
    egress::Hop,
    metrics::UpstreamMetrics,
    tls::Trust,
};

/// What a connection may hold and how long it may wait.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest head, in bytes.
    pub head: usize,
    /// How much of a request's body is kept for a second attempt, in bytes.
    pub replay: usize,
    /// Every wait.
    pub timeouts: Timeouts,
}

/// One AEM.
pub struct Upstream {
    number: usize,
    origin: Uri,
    host: Vec<u8>,
    /// As a field has it.
    origin_text: Vec<u8>,
    /// As AEM itself writes it.
    names: Arc<rewrite::Origin>,
    tls: Option<(Trust, ServerName<'static>)>,
    connector: Connector,
    connect: Duration,
    reconnect: Duration,
    http: HttpVersion,
    /// None where nothing is capped.
    caps: Option<Caps>,
    metrics: UpstreamMetrics,
}

/// What it takes to reach an AEM.
pub struct Means<'a> {
    /// What is trusted, and shown.
    pub tls: Trust,
    /// The proxy on the way.
    pub hop: Option<Hop>,
    /// Every wait.
    pub timeouts: &'a Timeouts,
    /// What tells all threads that somebody waits for a connection.
    pub hunger: &'a Hunger,
    /// Its handles.
    pub metrics: UpstreamMetrics,
}

impl Upstream {
    /// The upstream with this number. `timeouts.connect` is for TCP and TLS together.
    ///
    /// # Errors
    /// When its URL is no origin that can be connected to.
    pub fn new(
        number: usize,
        upstream: &config::Upstream,
        means: Means<'_>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let url = &upstream.url;
        let origin_text = url.origin().ascii_serialization();
        let tls = match (url.scheme(), url.host_str()) {
            ("https", Some(name)) => {
                let name = name.trim_start_matches('[').trim_end_matches(']');
                Some((means.tls, ServerName::try_from(name.to_owned())?))
            }
            _ => None,
        };
        let timeouts = means.timeouts;
        let capped = upstream.max_in_flight.is_some() || upstream.max_connections.is_some();
        let caps = || Caps::new(upstream, timeouts.queue, means.hunger, means.metrics.clone());
        Ok(Self {
            number,
            origin: origin_text.parse()?,
            host: url.authority().as_bytes().to_vec(),
            origin_text: origin_text.into_bytes(),
            names: Arc::new(rewrite::Origin::new(url)),
            tls,
            connector: Connector::new(means.hop, timeouts),
            connect: timeouts.connect,
            reconnect: timeouts.reconnect,
            http: upstream.http,
            caps: capped.then(caps),
            metrics: means.metrics,
        })
    }

    /// Whether HTTP/2 is offered to it. Without TLS there is nothing to offer it in (RFC 9113, section 3.3).
    pub(super) fn takes_http2(&self) -> bool {
        self.http == HttpVersion::Two && self.tls.is_some()
    }

    /// A place for one more request; none where there is room for all.
    ///
    /// # Errors
    /// When there is none, and none was to be had.
    pub(super) async fn turn(&self) -> Result<Option<Place>, Busy> {
        match &self.caps {
            None => Ok(None),
            Some(caps) => caps.turn().await,
        }
    }

    /// Whether requests may have to wait for their turn.
    pub(super) fn is_capped(&self) -> bool {
        self.caps.is_some()
    }

    /// How many wait for a connection.
    pub(super) fn hungry(&self) -> usize {
        self.caps.as_ref().map_or(0, Caps::hungry)
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
        &self.origin_text
    }
}
