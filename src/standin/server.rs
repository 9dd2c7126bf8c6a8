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
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
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
    /// Binds (port 0 takes a free one) and serves HTTP/1.1, over TLS if told so. Ready when it returns.
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
                        self.counts.shook_hands(stream.get_ref().1.handshake_kind());
                        requests(self.router, stream, connection).await;
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

/// Of a client that connects and says nothing.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// From the end of one request to the whole head of the next. Longer than common idle timeouts of clients,
/// so that they close first.
const HEAD_MAX: Duration = Duration::from_secs(120);
/// Accepting fails when file descriptors run out: some will be freed soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, pem::PemObject},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::mpsc,
    };
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::standin::keys::Tls;

    const ANY_PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

    async fn ask(addr: SocketAddr) -> io::Result<String> {
        exchange(&mut TcpStream::connect(addr).await?).await
    }

    /// A client that trusts this authority, and keeps its sessions.
    fn trusting(tls: &Tls) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(tls.ca_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        config.unwrap().with_root_certificates(roots).with_no_client_auth()
    }

    async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<String> {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_stopped_server_answers_nobody_until_it_is_restarted_at_the_same_address() {
        let router = Router::new().route("/", get(|| async { "here" }));
        let mut server = Server::start(router, ANY_PORT.into(), None).await.unwrap();
        assert!(ask(server.addr()).await.unwrap().ends_with("here"));
        server.stop().await;
        assert!(ask(server.addr()).await.is_err());
        server.restart().await.unwrap();
        assert!(ask(server.addr()).await.unwrap().ends_with("here"));
        assert_eq!((server.connections(), server.tls_handshakes()), (2, 0));
    }

    #[tokio::test]
    async fn connections_and_resumed_handshakes_are_counted() {
        let tls = Tls::generate(&["localhost"]).unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        let server = Server::start(router, ANY_PORT.into(), Some(tls.server_config())).await.unwrap();
        let connector = TlsConnector::from(Arc::new(trusting(&tls)));
        for _ in 0..3 {
            let stream = TcpStream::connect(server.addr()).await.unwrap();
            let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
            assert!(exchange(&mut stream).await.unwrap().ends_with("here"));
        }
        let plain = ask(server.addr()).await;
        assert!(!matches!(plain, Ok(answer) if answer.ends_with("here")), "answered without TLS");
        assert_eq!((server.connections(), server.tls_handshakes(), server.tls_resumed()), (4, 3, 2));
    }

    #[tokio::test]
    async fn stopping_cuts_requests_in_flight() {
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let hang = move || {
            let arrived = arrived.clone();
            async move {
                arrived.send(()).unwrap();
                std::future::pending::<()>().await;
            }
        };
        let mut server =
            Server::start(Router::new().route("/", get(hang)), ANY_PORT.into(), None).await.unwrap();
        let asking = tokio::spawn(ask(server.addr()));
        arrivals.recv().await.unwrap();
        server.stop().await;
        assert!(!matches!(asking.await.unwrap(), Ok(answer) if !answer.is_empty()));
    }
}
