//! What an attack sees of the proxy.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{io::AsyncWriteExt, task::JoinSet, time::Instant};
use tokio_rustls::TlsConnector;

use crate::harness::{self, Conn, proxy::free_address, server_name};

/// The addresses of the proxy, and how long the attack lasts.
pub struct Target {
    /// The proxy's process.
    pub pid: u32,
    /// Its listener.
    pub addr: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
    /// Another listener, whose upstream is the one that an attack has asked for.
    pub second: SocketAddr,
    /// How to speak TLS with the listeners, where they do: HTTP/1.1 and HTTP/2.
    pub tls: Option<(TlsConnector, TlsConnector)>,
    /// When the attack ends.
    pub ends: Instant,
    /// Connections that the proxy closed or refused.
    pub closed: Arc<AtomicU64>,
    /// Bytes that clients have sent.
    pub sent: Arc<AtomicU64>,
}

impl Target {
    /// A connection for HTTP/1.1.
    pub async fn connect(&self, receive_buffer: Option<u32>) -> io::Result<Conn> {
        self.connect_to(self.addr, receive_buffer, false).await
    }

    /// A connection for HTTP/2.
    pub async fn connect_http2(&self, receive_buffer: Option<u32>) -> io::Result<Conn> {
        self.connect_to(self.addr, receive_buffer, true).await
    }

    /// A connection to one of the listeners.
    pub async fn connect_to(
        &self,
        addr: SocketAddr,
        receive_buffer: Option<u32>,
        http2: bool,
    ) -> io::Result<Conn> {
        let stream = harness::connect(addr, receive_buffer).await?;
        match &self.tls {
            Some((http1, http2_tls)) if addr != self.admin => {
                let tls = if http2 { http2_tls } else { http1 };
                Ok(Box::new(tls.connect(server_name(), stream).await?))
            }
            _ => Ok(Box::new(stream)),
        }
    }

    /// A request's head for HTTP/1.1, without its last line.
    pub fn head(&self, method: &str, path: &str) -> Vec<u8> {
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.addr).into_bytes()
    }

    /// A whole GET.
    pub fn get(&self, path: &str) -> Vec<u8> {
        let mut head = self.head("GET", path);
        head.extend_from_slice(b"\r\n");
        head
    }

    /// Sends bytes, and counts them.
    pub async fn send(&self, conn: &mut Conn, bytes: &[u8]) -> io::Result<()> {
        conn.write_all(bytes).await?;
        conn.flush().await?;
        self.sent.fetch_add(bytes.len() as u64, Relaxed);
        Ok(())
    }

    /// The same target on its second listener.
    pub fn on_second(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self {
            addr: self.second,
            tls: self.tls.clone(),
            closed: Arc::clone(&self.closed),
            sent: Arc::clone(&self.sent),
            ..**self
        })
    }
}

/// Runs `count` clients until the attack ends; one that fails is counted and not started again.
pub async fn swarm<F, R>(target: &Arc<Target>, count: usize, client: F)
where
    F: Fn(Arc<Target>, usize) -> R,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut clients = JoinSet::new();
    for index in 0..count {
        let (work, target) = (client(Arc::clone(target), index), Arc::clone(target));
        clients.spawn(async move {
            if work.await.is_err() {
                target.closed.fetch_add(1, Relaxed);
            }
        });
        // Not all at once: the backlog of the listener is not what is attacked.
        if index % CONNECT_BATCH == CONNECT_BATCH - 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    tokio::time::sleep_until(target.ends).await;
    clients.shutdown().await;
}

/// The same, but each client starts again when it has ended.
pub async fn swarm_again<F, R>(target: &Arc<Target>, count: usize, client: F)
where
    F: Fn(Arc<Target>, usize) -> R + Clone + Send + 'static,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    swarm(target, count, move |target, index| {
        let client = client.clone();
        async move {
            while Instant::now() < target.ends {
                if client(Arc::clone(&target), index).await.is_err() {
                    target.closed.fetch_add(1, Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Ok(())
        }
    })
    .await;
}

/// Waits for the end of the attack, with what is open staying open.
pub async fn hold() -> io::Result<()> {
    std::future::pending().await
}

/// Another free address.
pub fn second_address() -> SocketAddr {
    free_address().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 1)))
}

const CONNECT_BATCH: usize = 50;
