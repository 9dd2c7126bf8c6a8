//! One AEM: where it is, how it is reached, and the connections to it that wait for the next request.

use std::{cell::RefCell, collections::VecDeque, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::ServerName;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tower::Service;
use url::Url;

use super::{
    buffer::Buffers,
    http2::Shared,
    link::{Link, Wire},
    rewrite,
    session::Session,
};
use crate::{
    config::{HttpVersion, Timeouts},
    network::Cause,
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
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    tcp: HttpConnector,
    limit: Duration,
    http: HttpVersion,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to AEM")]
pub(super) struct ConnectError {
    pub(super) cause: Cause,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Upstream {
    /// The upstream with this number, at the origin of `url`. `timeouts.connect` is for TCP and TLS together.
    ///
    /// # Errors
    /// When `url` is no origin that can be connected to.
    pub fn new(
        number: usize,
        url: &Url,
        tls: Arc<rustls::ClientConfig>,
        timeouts: &Timeouts,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let origin_text = url.origin().ascii_serialization();
        let origin: Uri = origin_text.parse()?;
        let host = url.authority().as_bytes().to_vec();
        let tls = match (url.scheme(), url.host_str()) {
            ("https", Some(name)) => {
                let name = name.trim_start_matches('[').trim_end_matches(']');
                Some((tls, ServerName::try_from(name.to_owned())?))
            }
            _ => None,
        };
        let mut tcp = HttpConnector::new();
        // Scheme and TLS are ours.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared among the addresses of a name: a dead one leaves time for the others.
        tcp.set_connect_timeout(Some(timeouts.connect));
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        Ok(Self {
            number,
            origin,
            host,
            origin_text: origin_text.into_bytes(),
            names: Arc::new(rewrite::Origin::new(url)),
            tls,
            tcp,
            limit: timeouts.connect,
            http: HttpVersion::default(),
        })
    }

    /// The same, spoken to in this version where AEM offers it.
    #[must_use]
    pub fn speaking(self, http: HttpVersion) -> Self {
        Self { http, ..self }
    }

    /// Whether HTTP/2 is offered to it. Without TLS there is nothing to offer it in (RFC 9113, section 3.3).
    pub(super) fn takes_http2(&self) -> bool {
        self.http == HttpVersion::Two && self.tls.is_some()
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

    /// A new connection, TCP and TLS within one time limit. AEM may choose one of `protocols`, if there are any.
    ///
    /// # Errors
    /// When AEM cannot be reached, with what it died of.
    pub(super) async fn dial(&self, protocols: &[&[u8]]) -> Result<Wire, ConnectError> {
        match timeout(self.limit, self.wire(protocols)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError { cause: Cause::TimedOut, source: None }),
        }
    }

    async fn wire(&self, protocols: &[&[u8]]) -> Result<Wire, ConnectError> {
        let socket = self.socket().await?;
        let Some((config, name)) = &self.tls else { return Ok(Wire::plain(socket)) };
        let session = Session::new(Arc::clone(config), name.clone(), protocols).map_err(ConnectError::new)?;
        Wire::secure(socket, session).await.map_err(ConnectError::new)
    }

    async fn socket(&self) -> Result<TcpStream, ConnectError> {
        let mut tcp = self.tcp.clone();
        std::future::poll_fn(|cx| tcp.poll_ready(cx)).await.map_err(ConnectError::new)?;
        let socket = tcp.call(self.origin.clone()).await.map_err(ConnectError::new)?;
        Ok(socket.into_inner())
    }
}

impl ConnectError {
    pub(super) fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { cause: Cause::of(&source), source: Some(Box::new(source)) }
    }

    /// What another request, which has the error itself, died of.
    pub(super) fn again(cause: Cause) -> Self {
        Self { cause, source: None }
    }
}

/// A thread's connections to AEM that wait for the next request, the one used last at the end.
#[derive(Default)]
pub(super) struct Pool {
    idle: RefCell<VecDeque<(Wire, Instant)>>,
    /// Those that requests share.
    pub(super) shared: Shared,
}

impl Pool {
    /// The connection that was used last, unless AEM has something to say on it, or has gone.
    pub(super) fn take(&self, buffers: &Buffers) -> Option<Link> {
        self.take_wire(buffers).map(Link::Wire)
    }

    fn take_wire(&self, buffers: &Buffers) -> Option<Wire> {
        loop {
            let (mut link, _) = self.idle.borrow_mut().pop_back()?;
            if link.is_fresh(buffers) {
                return Some(link);
            }
            link.close(buffers);
        }
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, link: Link, now: Instant, buffers: &Buffers) {
        let Link::Wire(wire) = link else { return };
        let mut idle = self.idle.borrow_mut();
        idle.push_back((wire, now));
        if idle.len() > IDLE_MAX
            && let Some((oldest, _)) = idle.pop_front()
        {
            oldest.close(buffers);
        }
    }

    /// Closes what has waited for longer than `limit`, and what AEM has closed.
    pub(super) fn sweep(&self, limit: Duration, buffers: &Buffers) {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        for _ in 0..idle.len() {
            let Some((mut link, since)) = idle.pop_front() else { break };
            if now - since < limit && link.is_fresh(buffers) {
                idle.push_back((link, since));
            } else {
                link.close(buffers);
            }
        }
    }
}

/// As many as a busy app may have in use at once: fewer, and every burst would end in handshakes. They end by themselves
/// when idle.
const IDLE_MAX: usize = 4096;

/// Keeps a long upload's connection in the tables of the firewalls on the way.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
