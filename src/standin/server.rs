//! A listener that can be pulled out of the wall and plugged in again.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, extract::Request};
use http::{HeaderValue, Uri, header::HOST};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{HandshakeKind, ServerConfig};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

/// A router on a socket. Dropping it stops it too.
pub struct Server {
    addr: SocketAddr,
    service: Service,
    running: Option<Running>,
}

impl Server {
    /// Binds (port 0 takes a free one) and serves HTTP/1.1, over TLS if told so, and there HTTP/2 if the
    /// configuration offers it. Ready when it returns.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(router: Router, addr: SocketAddr, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        Ok(Self::serve(router, listener, addr, tls))
    }

    /// Serves on a socket that is bound already, at `addr`, for a router that must know its port.
    pub fn serve(
        router: Router,
        listener: TcpListener,
        addr: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let service = Service { router, tls: tls.map(TlsAcceptor::from), counts: Arc::default() };
        let running = Some(Running::start(listener, service.clone()));
        Self { addr, service, running }
    }

    /// Where it listens, or listened.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.service.counts.connections.load(Relaxed)
    }

    /// How many connections there are.
    pub fn connections_open(&self) -> usize {
        self.service.counts.open.load(Relaxed)
    }

    /// How many TLS handshakes were finished.
    pub fn tls_handshakes(&self) -> usize {
        self.service.counts.handshakes.load(Relaxed)
    }

    /// How many of them resumed an earlier session (RFC 8446, section 2.2).
    pub fn tls_resumed(&self) -> usize {
        self.service.counts.resumed.load(Relaxed)
    }

    /// Closes the listener and cuts all connections, whatever they are at. When it returns, nobody
    /// answers at this address.
    pub async fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.stop.cancel();
            // Its only error is a panic, which has been reported where it happened.
            let _ = (&mut running.task).await;
        }
    }

    /// Listens at the same address again after [`Server::stop`]. The port may have been taken meanwhile,
    /// but connections that linger do not hinder: the listener sets `SO_REUSEADDR`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.stop().await;
        let listener = TcpListener::bind(self.addr).await?;
        self.running = Some(Running::start(listener, self.service.clone()));
        Ok(())
    }
}

/// The connection that a request came on, in the request's extensions.
#[derive(Clone, Debug)]
pub struct Connection {
    secure: bool,
    closed: CancellationToken,
}

impl Connection {
    /// Whether it is TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Cuts it at once, without an answer.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Waits until someone cuts it, or the server stops; for what outlives the request, as an upgraded
    /// connection does.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(listener: TcpListener, service: Service) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(service.accept(listener, stop.clone()));
        Self { stop, task }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Over all its lives.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    open: AtomicUsize,
    handshakes: AtomicUsize,
    resumed: AtomicUsize,
}

/// One connection that is open, until it is dropped.
struct Open(Arc<Counts>);

impl Counts {
    fn connected(self: Arc<Self>) -> Open {
        self.connections.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        Open(self)
    }

    fn shook_hands(&self, kind: Option<HandshakeKind>) {
        self.handshakes.fetch_add(1, Relaxed);
        if kind == Some(HandshakeKind::Resumed) {
            self.resumed.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[derive(Clone)]
struct Service {
    router: Router,
    tls: Option<TlsAcceptor>,
    counts: Arc<Counts>,
}

impl Service {
    async fn accept(self, listener: TcpListener, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(self.clone().connection(stream, stop.child_token()));
                    }
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
            }
        }
        drop(listener);
        connections.shutdown().await;
    }

    async fn connection(self, stream: TcpStream, closed: CancellationToken) {
        let _open = Arc::clone(&self.counts).connected();
        // Small answers must not wait for an acknowledgement; a socket that refuses is gone anyway.
        let _ = stream.set_nodelay(true);
        let connection = Connection { secure: self.tls.is_some(), closed: closed.clone() };
        let serve = async {
            match &self.tls {
                None => requests(self.router, stream, connection).await,
                Some(tls) => match timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let session = stream.get_ref().1;
                        self.counts.shook_hands(session.handshake_kind());
                        if session.alpn_protocol() == Some(b"h2") {
                            requests_http2(self.router, stream, connection).await;
                        } else {
                            requests(self.router, stream, connection).await;
                        }
                    }
                    Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
                    Err(_) => debug!("TLS handshake took too long"),
                },
            }
        };
        tokio::select! {
            () = closed.cancelled() => {}
            () = serve => {}
        }
    }
}

async fn requests(
    router: Router,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Connection,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        router.clone().oneshot(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        debug!(%error, "Connection ended early");
    }
}

async fn requests_http2(
    router: Router,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Connection,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        router.clone().oneshot(as_http1(request))
    });
    let served =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        debug!(%error, "Connection ended early");
    }
}

/// With the authority where HTTP/1.1 has it (RFC 9113, section 8.3.1), so that a router need not look twice.
fn as_http1(mut request: Request<Incoming>) -> Request<Incoming> {
    let uri = std::mem::take(request.uri_mut());
    if let Some(authority) = uri.authority()
        && let Ok(host) = HeaderValue::try_from(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    *request.uri_mut() = uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    request
}

/// Of a client that connects and says nothing.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// From the end of one request to the whole head of the next. Longer than common idle timeouts of clients,
/// so that they close first.
const HEAD_MAX: Duration = Duration::from_secs(120);
/// Accepting fails when file descriptors run out: some will be freed soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
