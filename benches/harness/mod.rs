//! What the benches `attack` and `soak` share: the proxy as a process, and clients and an origin of
//! their own whose bytes are written by the bench.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpSocket,
};
use tokio_rustls::TlsConnector;

#[path = "../compare/failure.rs"]
pub mod failure;
pub mod proxy;
pub mod usage;

/// A byte stream, over TLS or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A byte stream of any kind.
pub type Conn = Box<dyn Stream>;

/// Connects over TCP. A `receive_buffer` fixes the size of the kernel's receive buffer: a client that
/// does not read then stalls the proxy after a few KiB.
pub async fn connect(addr: SocketAddr, receive_buffer: Option<u32>) -> io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// TLS clients that trust `ca_pem` and offer `protocols`.
pub fn tls_client(ca_pem: &str, protocols: &[&[u8]]) -> failure::Result<TlsConnector> {
    use failure::Context;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(ca_pem.as_bytes()).flatten());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.context("TLS")?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name that the stand-ins' certificates are for.
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into())
}

/// Sends one GET and reads the answer: its status, and whether the connection may be used again.
pub async fn get(conn: &mut Conn, addr: SocketAddr, path: &str) -> Result<(u16, bool), GetError> {
    exchange(conn, &format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n")).await
}

/// The same for any request.
pub async fn exchange(conn: &mut Conn, request: &str) -> Result<(u16, bool), GetError> {
    conn.write_all(request.as_bytes()).await.map_err(|_| GetError { began: false })?;
    let mut bytes = Vec::with_capacity(4096);
    loop {
        match conn.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(GetError { began: !bytes.is_empty() }),
            Ok(_) => {}
        }
        let Some(head) = head_length(&bytes) else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length = field(&text, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let chunked = text.contains("transfer-encoding: chunked");
        let whole = if chunked { bytes.ends_with(b"\r\n0\r\n\r\n") } else { bytes.len() - head >= length };
        if whole {
            let status = text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
            return Ok((status, !text.contains("connection: close")));
        }
    }
}

/// The connection ended before the answer did.
#[derive(Debug, Clone, Copy)]
pub struct GetError {
    /// Whether a part of the answer came.
    pub began: bool,
}

/// The length of a head with its empty line.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// A field's value in a head in lower case.
pub fn field<'t>(head: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = head.split("\r\n").skip(1);
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// A sum in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// How long one request of a probe may take before it counts as failed.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(10);
