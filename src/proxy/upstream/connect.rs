//! A new connection to AEM: through the proxy on the way, if there is one, to any of the addresses of its name.

use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{HttpConnector, proxy::Tunnel};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tower::Service;

use super::{Busy, Upstream};
use crate::{
    config::Timeouts,
    egress::Hop,
    network::Cause,
    proxy::{link::Wire, session::Session},
};

/// How sockets to one AEM are had. The name is looked up for each of them, and its addresses are tried as Happy Eyeballs
/// (RFC 8305) has it: IPv6 first, IPv4 a moment later.
pub(super) struct Connector {
    tcp: HttpConnector,
    tunnel: Option<Tunnel<HttpConnector>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to AEM")]
pub(in crate::proxy) struct ConnectError {
    pub(in crate::proxy) cause: Cause,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// There was no place for one more.
    pub(in crate::proxy) busy: Option<Busy>,
}

impl Connector {
    pub(super) fn new(hop: Option<Hop>, timeouts: &Timeouts) -> Self {
        let mut tcp = HttpConnector::new();
        // Scheme and TLS are ours.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared among the addresses of a name: a dead one leaves time for the others.
        tcp.set_connect_timeout(Some(timeouts.connect));
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        let tunnel = hop.map(|hop| {
            let tunnel = Tunnel::new(hop.uri, tcp.clone());
            match hop.authorization {
                Some(authorization) => tunnel.with_auth(authorization),
                None => tunnel,
            }
        });
        Self { tcp, tunnel }
    }

    async fn socket(&self, origin: &Uri) -> Result<TcpStream, ConnectError> {
        let socket = match self.tunnel.clone() {
            Some(mut tunnel) => tunnel.call(origin.clone()).await.map_err(ConnectError::new)?,
            None => self.tcp.clone().call(origin.clone()).await.map_err(ConnectError::new)?,
        };
        Ok(socket.into_inner())
    }
}

impl Upstream {
    /// A new connection, TCP and TLS within one time limit. AEM may choose one of `protocols`, if there are any.
    ///
    /// # Errors
    /// When AEM cannot be reached, with what it died of; or when there are as many connections as may be.
    pub(in crate::proxy) async fn dial(&self, protocols: &[&[u8]]) -> Result<Wire, ConnectError> {
        let place = match &self.caps {
            Some(caps) => caps.connection().await.map_err(ConnectError::busy)?,
            None => None,
        };
        let dialled = match timeout(self.connect, self.patiently(protocols)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::again(Cause::TimedOut)),
        };
        self.metrics.connected(dialled.as_ref().err().map(|error| error.cause));
        dialled.map(|wire| wire.counted(self.metrics.connection(), place))
    }

    /// Tries again while nobody answers: an AEM that restarts is back in a moment, and nothing was sent yet.
    async fn patiently(&self, protocols: &[&[u8]]) -> Result<Wire, ConnectError> {
        let end = Instant::now() + self.reconnect;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.wire(protocols).await {
                Err(error) if error.is_of_the_moment() && Instant::now() + pause < end => {
                    sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
                result => return result,
            }
        }
    }

    async fn wire(&self, protocols: &[&[u8]]) -> Result<Wire, ConnectError> {
        let socket = self.connector.socket(&self.origin).await?;
        let Some((config, name)) = &self.tls else { return Ok(Wire::plain(socket)) };
        let session = Session::new(config.load_full(), name.clone(), protocols).map_err(ConnectError::new)?;
        Wire::secure(socket, session).await.map_err(ConnectError::new)
    }
}

impl ConnectError {
    pub(in crate::proxy) fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { cause: Cause::of(&source), source: Some(Box::new(source)), busy: None }
    }

    /// What another request, which has the error itself, died of.
    pub(in crate::proxy) fn again(cause: Cause) -> Self {
        Self { cause, source: None, busy: None }
    }

    fn busy(busy: Busy) -> Self {
        Self { cause: Cause::Other, source: None, busy: Some(busy) }
    }

    /// Whether a moment later it may be otherwise.
    fn is_of_the_moment(&self) -> bool {
        matches!(self.cause, Cause::Refused | Cause::Other | Cause::Egress)
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);

const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Keeps a long upload's connection in the tables of the firewalls on the way.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
