//! A new connection to one AEM: a place for it, an address, the way out, TLS; and again while nobody answers.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};
use tower::Service;
use url::Url;

use super::{
    ConnectError, Why,
    tunnel::{self, TunnelError},
};
use crate::{
    config::{ProxyUrl, Timeouts},
    metrics::UpstreamMetrics,
    network::{
        Cause, bound_unsent,
        descriptors::Descriptors,
        resolver::{self, ProcessResolver},
    },
    proxy::{link::Wire, session::Session},
};

/// Makes connections to one AEM.
pub(super) struct Connector {
    origin: Uri,
    tls: Option<Tls>,
    tcp: HttpConnector<ProcessResolver>,
    /// The same with one socket at a time.
    tcp_in_turn: HttpConnector<ProcessResolver>,
    descriptors: Arc<Descriptors>,
    egress: Option<ProxyUrl>,
    /// For all attempts together.
    limit: Duration,
    /// For how long there are further ones.
    reconnect: Duration,
    metrics: UpstreamMetrics,
}

struct Tls {
    config: ArcSwap<ClientConfig>,
    name: ServerName<'static>,
}

impl Connector {
    /// What connects to the origin of `url`.
    ///
    /// # Errors
    /// When `url` is no origin that can be connected to.
    pub(super) fn new(
        url: &Url,
        tls: Arc<ClientConfig>,
        egress: Option<ProxyUrl>,
        timeouts: &Timeouts,
        (metrics, descriptors): (UpstreamMetrics, Arc<Descriptors>),
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let tls = match (url.scheme(), url.host_str()) {
            ("https", Some(name)) => {
                let name = name.trim_start_matches('[').trim_end_matches(']');
                Some(Tls { config: ArcSwap::new(tls), name: ServerName::try_from(name.to_owned())? })
            }
            _ => None,
        };
        // Asks for the addresses of a name each time, and tries all of them: those of one family in turn, and the other
        // family too where the first one is slow (RFC 8305).
        let mut tcp = HttpConnector::new_with_resolver(ProcessResolver);
        // Scheme and TLS are ours.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared among the addresses of a name: a dead one leaves time for the others.
        tcp.set_connect_timeout(Some(timeouts.connect));
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        let mut tcp_in_turn = tcp.clone();
        tcp_in_turn.set_happy_eyeballs_timeout(None);
        let origin = url.origin().ascii_serialization().parse()?;
        let (limit, reconnect) = (timeouts.connect, timeouts.reconnect);
        Ok(Self { origin, tls, tcp, tcp_in_turn, descriptors, egress, limit, reconnect, metrics })
    }

    /// Whether what is sent goes through TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// New connections go by this one.
    pub(super) fn renew_tls(&self, config: Arc<ClientConfig>) {
        if let Some(tls) = &self.tls {
            tls.config.store(config);
        }
    }

    /// Tries until there is a connection, or something that time does not mend, or no time. No byte of a request has been
    /// sent yet: this is as good for one method as for another.
    pub(super) async fn connect(&self, protocols: &[&[u8]]) -> Result<Wire, ConnectError> {
        let began = Instant::now();
        let deadline = began + self.limit;
        let mut pause = PAUSE_MIN;
        let mut last = None;
        loop {
            let Ok(result) = timeout_at(deadline, self.attempt(protocols)).await else {
                self.forget_addresses();
                self.metrics.connected(Err(Cause::TimedOut));
                // What it died of before says more.
                return Err(last.unwrap_or_else(|| ConnectError::again(Why::Unreachable(Cause::TimedOut))));
            };
            let error = match result {
                Ok(wire) => {
                    self.metrics.connected(Ok(()));
                    return Ok(wire);
                }
                Err(error) => error,
            };
            self.metrics.connected(Err(error.cause()));
            if error.cause() != Cause::Dns {
                self.forget_addresses();
            }
            // Those who wait together do not come back together.
            let wait = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            if !error.is_passing() || Instant::now() + wait >= deadline.min(began + self.reconnect) {
                return Err(error);
            }
            last = Some(error);
            sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// None of the addresses leads anywhere: the next attempt looks the name up, whatever is kept of it.
    fn forget_addresses(&self) {
        let uri = self.egress.as_ref().map_or(&self.origin, ProxyUrl::uri);
        if let Some(host) = uri.host() {
            resolver::process().forget(host);
        }
    }

    async fn attempt(&self, protocols: &[&[u8]]) -> Result<Wire, ConnectError> {
        let socket = match &self.egress {
            None => self.socket(&self.origin).await.map_err(ConnectError::new)?,
            Some(egress) => Box::pin(self.through(egress)).await.map_err(ConnectError::of_tunnel)?,
        };
        let wire = match &self.tls {
            None => Wire::plain(socket),
            Some(Tls { config, name }) => {
                let session = Session::new(config.load_full(), name.clone(), protocols);
                Wire::secure(socket, session.map_err(ConnectError::new)?).await.map_err(ConnectError::new)?
            }
        };
        wire.expect_silence().await.map_err(ConnectError::new)
    }

    async fn through(&self, egress: &ProxyUrl) -> Result<TcpStream, TunnelError> {
        let socket = self.socket(egress.uri()).await;
        let socket = socket.map_err(|error| TunnelError::Unreachable(egress.to_string(), error.into()))?;
        tunnel::open(socket, egress, &self.origin).await
    }

    async fn socket(
        &self,
        to: &Uri,
    ) -> Result<TcpStream, <HttpConnector<ProcessResolver> as Service<Uri>>::Error> {
        // Two addresses at once are two sockets.
        let second = self.descriptors.second_attempt();
        let mut tcp = if second.is_some() { self.tcp.clone() } else { self.tcp_in_turn.clone() };
        std::future::poll_fn(|cx| tcp.poll_ready(cx)).await?;
        let socket = tcp.call(to.clone()).await?.into_inner();
        bound_unsent(&socket);
        Ok(socket)
    }
}

/// Between two attempts, doubling: a restart is over soon, and a server that comes back is not to be overrun.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Keeps a long upload's connection in the tables of the firewalls on the way.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
