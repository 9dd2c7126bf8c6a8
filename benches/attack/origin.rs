//! An AEM that answers whatever an attack needs, by path.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::OnceLock,
    time::Duration,
};

use aem_auth_proxy::standin::keys::Tls;
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};
use tokio_rustls::TlsAcceptor;

use crate::harness::{
    failure::{Context, Result},
    head_length,
};

/// Where the origin listens.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// HTTP/1.1.
    pub plain: SocketAddr,
    /// HTTP/2 over TLS.
    pub http2: SocketAddr,
}

impl Origin {
    /// Starts it on threads of its own, so that clients do not take its time.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(tls: &Tls) -> Result<Self> {
        let tls = tls.clone().offering_http2();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async move {
                let (Ok(plain), Ok(http2)) = (listen(), listen()) else { return };
                let (Ok(plain_addr), Ok(http2_addr)) = (plain.local_addr(), http2.local_addr()) else {
                    return;
                };
                // The bench waits for it.
                let _ = sender.send(Self { plain: plain_addr, http2: http2_addr });
                let acceptor = TlsAcceptor::from(tls.server_config());
                tokio::spawn(async move {
                    while let Ok((stream, _)) = http2.accept().await {
                        let acceptor = acceptor.clone();
                        tokio::spawn(async move {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            // An attack ends connections as it likes.
                            let _ = serve_http2(stream).await;
                        });
                    }
                });
                loop {
                    let Ok((stream, _)) = plain.accept().await else { continue };
                    // Answers come in several writes.
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(async move {
                        // The same.
                        let _ = serve(stream).await;
                    });
                }
            });
        });
        receiver.recv().context("the origin")
    }
}

/// Small send buffers: thousands of answers that are not read would fill gigabytes of the kernel's, and
/// the machine would be busy with that.
fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    socket.listen(BACKLOG)
}

/// Makes what takes long to make before an attack begins.
pub fn make_bombs() {
    gzip_bomb();
    deflate_bomb();
}

/// One connection of HTTP/1.1.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        let length = loop {
            if let Some(length) = head_length(&bytes) {
                break length;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&bytes[..length]).into_owned();
        bytes.drain(..length);
        let path = head.split(' ').nth(1).unwrap_or_default();
        let lower = head.to_ascii_lowercase();
        let body =
            crate::harness::field(&lower, "content-length").and_then(|text| text.parse::<usize>().ok());
        match path.split('?').next().unwrap_or_default() {
            "/wait" | "/no-read" => return wait(stream, path == "/wait").await,
            "/sink" => return wait(stream, true).await,
            "/reset" => return Ok(()),
            _ => {}
        }
        if let Some(body) = body {
            while bytes.len() < body {
                if stream.read_buf(&mut bytes).await? == 0 {
                    return Ok(());
                }
            }
            bytes.drain(..body);
        }
        answer(&mut stream, path).await?;
    }
}

/// Never answers. Reads or does not.
async fn wait<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, reads: bool) -> io::Result<()> {
    if reads {
        let mut buffer = vec![0; 1 << 16];
        while stream.read(&mut buffer).await? > 0 {}
        return Ok(());
    }
    // Long enough for every attack.
    tokio::time::sleep(Duration::from_secs(120)).await;
    Ok(())
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, path: &str) -> io::Result<()> {
    let endless = |head: &'static str, part: &'static [u8]| (head, part);
    let (head, part) = match path.split('?').next().unwrap_or_default() {
        "/half-head" => {
            let mut head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Long: ".to_vec();
            head.resize(60 * 1024, b'a');
            stream.write_all(&head).await?;
            stream.flush().await?;
            let mut rest = [0; 1];
            return stream.read(&mut rest).await.map(drop);
        }
        "/many-fields" => {
            let mut head = b"HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n".to_vec();
            while head.len() < 60 * 1024 {
                head.extend_from_slice(b"a:\r\n");
            }
            head.extend_from_slice(b"\r\n");
            stream.write_all(&head).await?;
            return body(stream, 4 << 20).await;
        }
        "/api/assets/gzip.json" => return coded(stream, "gzip", gzip_bomb()).await,
        "/api/assets/deflate.json" => return coded(stream, "deflate", deflate_bomb()).await,
        "/api/assets/brotli.json" => return coded(stream, "br", brotli_bomb()).await,
        "/upgrade" => {
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            endless(head, &[0x82, 0x7e, 0x00, 0x7e])
        }
        "/endless-head" => endless("HTTP/1.1 200 OK\r\nX: ", b"a: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"),
        "/endless-interim" => endless("", b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"),
        "/endless-trailers" => endless(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
            b"X-Trailer: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
        ),
        "/endless-extension" => endless(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=",
            b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
        "/tiny-chunks" => endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        "/large" => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {LARGE}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            return body(stream, LARGE).await;
        }
        "/api/assets/large.json" => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {LARGE}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            return body(stream, LARGE).await;
        }
        _ => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                SMALL.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(SMALL.as_bytes()).await?;
            return stream.flush().await;
        }
    };
    stream.write_all(head.as_bytes()).await?;
    let parts = part.repeat(1 + 4096 / part.len());
    // The proxy may take it all: then this is what it has to bear.
    loop {
        stream.write_all(&parts).await?;
        tokio::task::yield_now().await;
    }
}

async fn body<S: AsyncWrite + Unpin>(stream: &mut S, length: usize) -> io::Result<()> {
    let part = [b' '; 1 << 14];
    for _ in 0..length / part.len() {
        stream.write_all(&part).await?;
    }
    stream.flush().await
}

async fn coded<S: AsyncWrite + Unpin>(stream: &mut S, coding: &str, bytes: &[u8]) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: {coding}\r\n\
         Content-Length: {}\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Text that is JSON as far as it goes, and does not repeat within 16 KiB, so that a window is used.
fn bomb_text(write: &mut dyn Write) -> io::Result<()> {
    let mut block = String::from("[");
    let mut number = 1_u64;
    while block.len() < 1 << 18 {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        block.push_str(&format!("{},", number >> 40));
    }
    write.write_all(block.as_bytes())?;
    let spaces = vec![b' '; 1 << 20];
    for _ in 0..BOMB_MIB {
        write.write_all(&spaces)?;
    }
    write.write_all(b"0]")
}

fn gzip_bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        // Memory does not fail.
        let _ = bomb_text(&mut encoder);
        encoder.finish().unwrap_or_default()
    })
}

fn deflate_bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        // The same.
        let _ = bomb_text(&mut encoder);
        encoder.finish().unwrap_or_default()
    })
}

/// A few bytes that ask for a window of 16 MiB and fill it: `[`, spaces, `]`, as the reference encoder writes them.
fn brotli_bomb() -> &'static [u8] {
    b"\xcf\xff\xff\x7f\x00\x24\x41\xb6\xba\x4a\x91\xcb\x02\x79\x7b\xff\x1f\x0f"
}

/// One connection of HTTP/2: every path is as large as the windows and the reader allow.
async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> io::Result<()> {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(256);
    let mut connection = builder.handshake::<_, Bytes>(stream).await.map_err(io::Error::other)?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted.map_err(io::Error::other)?;
        tokio::spawn(async move {
            let (response, many) = match request.uri().path() {
                "/many-fields" => {
                    let mut response = http::Response::new(());
                    for _ in 0..200 {
                        response.headers_mut().append("x-field", http::HeaderValue::from_static("a"));
                    }
                    (response, true)
                }
                "/large-fields" => {
                    let mut response = http::Response::new(());
                    for _ in 0..14 {
                        response.headers_mut().append("x-field", http::HeaderValue::from_static(LONG));
                    }
                    (response, true)
                }
                "/large" => (http::Response::new(()), true),
                "/wait" => {
                    // The proxy or its client ends the stream.
                    let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                    return;
                }
                _ => (http::Response::new(()), false),
            };
            let Ok(mut body) = respond.send_response(response, false) else { return };
            if !many {
                // The client may be gone.
                let _ = body.send_data(Bytes::from_static(SMALL.as_bytes()), true);
                return;
            }
            let part = Bytes::from_static(&[b'a'; 1 << 14]);
            for _ in 0..LARGE >> 14 {
                body.reserve_capacity(part.len());
                while body.capacity() < part.len() {
                    match std::future::poll_fn(|cx| body.poll_capacity(cx)).await {
                        Some(Ok(_)) => {}
                        _ => return,
                    }
                }
                if body.send_data(part.clone(), false).is_err() {
                    return;
                }
            }
            // The same.
            let _ = body.send_data(Bytes::new(), true);
        });
    }
    Ok(())
}

/// What an innocent client gets.
pub const SMALL: &str = r#"{"class":["assets/folder"],"properties":{"name":"innocent"}}"#;

/// What a bomb becomes.
const BOMB_MIB: usize = 64;

/// A field's value that fits into the dynamic table, so that it is sent once.
const LONG: &str = match std::str::from_utf8(&[b'a'; 4000]) {
    Ok(text) => text,
    Err(_) => "",
};

const SEND_BUFFER: u32 = 64 * 1024;

const BACKLOG: u32 = 4096;

/// More than any buffer on the way takes.
const LARGE: usize = 16 << 20;
