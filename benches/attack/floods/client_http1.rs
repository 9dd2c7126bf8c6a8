//! What clients can do over HTTP/1.1, and before it in TLS.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use crate::{
    harness,
    target::{Target, hold, swarm, swarm_again},
};

/// The kernel's buffer of a client that does not read.
const SMALL_BUFFER: Option<u32> = Some(4096);

/// What a head may hold with a margin below the default of `limits.head`.
const HEAD: usize = 60 * 1024;

pub async fn half_heads(target: Arc<Target>, count: usize) {
    swarm(&target, count, |target, _| async move {
        let mut conn = target.connect(None).await?;
        let mut head = target.head("GET", "/small");
        head.extend_from_slice(b"X-Long: ");
        head.resize(HEAD, b'a');
        target.send(&mut conn, &head).await?;
        read_all(&mut conn).await
    })
    .await;
}

pub async fn half_heads_of_fields(target: Arc<Target>, count: usize) {
    swarm(&target, count, |target, _| async move {
        let mut conn = target.connect(None).await?;
        let mut head = target.head("GET", "/small");
        while head.len() < HEAD {
            head.extend_from_slice(b"a:b\r\n");
        }
        target.send(&mut conn, &head).await?;
        read_all(&mut conn).await
    })
    .await;
}

pub async fn dripped_heads(target: Arc<Target>) {
    swarm(&target, 500, |target, _| async move {
        let mut conn = target.connect(None).await?;
        let mut head = target.head("GET", "/small");
        head.extend_from_slice(b"X-Long: ");
        head.resize(HEAD / 2, b'a');
        target.send(&mut conn, &head).await?;
        loop {
            sleep(Duration::from_millis(100)).await;
            target.send(&mut conn, b"a").await?;
        }
    })
    .await;
}

/// Asks and does not read.
pub async fn unread(target: Arc<Target>, count: usize, path: &'static str) {
    swarm(&target, count, move |target, _| async move {
        let mut conn = target.connect(SMALL_BUFFER).await?;
        target.send(&mut conn, &target.get(path)).await?;
        hold().await
    })
    .await;
}

/// Asks and reads as fast as it can.
pub async fn read(target: Arc<Target>, count: usize, path: &'static str) {
    swarm_again(&target, count, move |target, _| async move {
        let mut conn = target.connect(None).await?;
        let mut head = target.head("GET", path);
        head.extend_from_slice(b"Connection: close\r\n\r\n");
        target.send(&mut conn, &head).await?;
        read_all(&mut conn).await
    })
    .await;
}

pub async fn slow_readers(target: Arc<Target>) {
    swarm(&target, 500, |target, _| async move {
        let mut conn = target.connect(SMALL_BUFFER).await?;
        target.send(&mut conn, &target.get("/large")).await?;
        let mut part = [0; 150];
        loop {
            conn.read_exact(&mut part).await?;
            sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
}

pub async fn pipelined(target: Arc<Target>) {
    swarm(&target, 100, |target, _| async move {
        let mut conn = target.connect(SMALL_BUFFER).await?;
        let batch = target.get("/small").repeat(1000);
        target.send(&mut conn, &batch).await?;
        hold().await
    })
    .await;
}

pub async fn kept_bodies(target: Arc<Target>, count: usize) {
    swarm(&target, count, |target, _| async move {
        let mut conn = target.connect(None).await?;
        let mut bytes = target.head("POST", "/sink");
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", 60 * 1024).as_bytes());
        bytes.resize(bytes.len() + 60 * 1024, b'a');
        target.send(&mut conn, &bytes).await?;
        read_all(&mut conn).await
    })
    .await;
}

pub async fn endless_uploads(target: Arc<Target>, count: usize, path: &'static str) {
    swarm(&target, count, move |target, _| async move {
        upload(&target, path, b"10000\r\n", &[b'a'; 1 << 16], b"\r\n").await
    })
    .await;
}

pub async fn tiny_chunks(target: Arc<Target>) {
    swarm_again(&target, 50, |target, _| async move {
        let part = b"1\r\na\r\n".repeat(2000);
        upload(&target, "/sink", b"", &part, b"").await
    })
    .await;
}

pub async fn chunk_extensions(target: Arc<Target>) {
    swarm_again(&target, 50, |target, _| async move {
        upload_after(&target, "/sink", b"1\r\na\r\n1;a=", &[b'a'; 1 << 14]).await
    })
    .await;
}

pub async fn trailers(target: Arc<Target>) {
    swarm_again(&target, 50, |target, _| async move {
        let part = b"X-Trailer: aaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(400);
        upload_after(&target, "/sink", b"1\r\na\r\n0\r\n", &part).await
    })
    .await;
}

/// An upload in chunks, without end.
async fn upload(target: &Target, path: &str, before: &[u8], data: &[u8], after: &[u8]) -> io::Result<()> {
    upload_after(target, path, b"", &[before, data, after].concat()).await
}

/// The same, which begins with something else.
async fn upload_after(target: &Target, path: &str, first: &[u8], part: &[u8]) -> io::Result<()> {
    let mut conn = target.connect(None).await?;
    let mut head = target.head("POST", path);
    head.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    head.extend_from_slice(first);
    target.send(&mut conn, &head).await?;
    loop {
        target.send(&mut conn, part).await?;
        tokio::task::yield_now().await;
    }
}

pub async fn churn(target: Arc<Target>) {
    swarm_again(&target, 50, |target, _| async move {
        let stream = harness::connect(target.addr, None).await?;
        stream.set_zero_linger()?;
        let mut stream = stream;
        stream.write_all(&target.get("/small")).await
    })
    .await;
}

pub async fn idle(target: Arc<Target>, count: usize) {
    swarm(&target, count, |target, _| async move {
        let mut conn = target.connect(None).await?;
        read_all(&mut conn).await
    })
    .await;
}

pub async fn waiting(target: Arc<Target>) {
    swarm(&target, 1500, |target, _| async move {
        let mut conn = target.connect(None).await?;
        target.send(&mut conn, &target.get("/wait")).await?;
        read_all(&mut conn).await
    })
    .await;
}

pub async fn websockets(target: Arc<Target>) {
    swarm(&target, 500, |target, _| async move {
        let mut conn = target.connect(SMALL_BUFFER).await?;
        let mut head = target.head("GET", "/upgrade");
        head.extend_from_slice(
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        target.send(&mut conn, &head).await?;
        hold().await
    })
    .await;
}

pub async fn connection_members(target: Arc<Target>) {
    swarm_again(&target, 50, |target, _| async move {
        let mut conn = target.connect(None).await?;
        let mut head = target.head("GET", "/small");
        head.extend_from_slice(b"Connection: close");
        head.extend_from_slice(&b",a".repeat(31_000));
        head.extend_from_slice(b"\r\n\r\n");
        target.send(&mut conn, &head).await?;
        read_all(&mut conn).await
    })
    .await;
}

/// A record that says 16 KiB, of which 10 come.
pub async fn half_hello(target: Arc<Target>) {
    swarm(&target, 500, |target, _| async move {
        let mut stream = harness::connect(target.addr, None).await?;
        let mut bytes = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3];
        bytes.resize(10_000, 0);
        stream.write_all(&bytes).await?;
        let mut rest = [0; 64];
        while stream.read(&mut rest).await? > 0 {}
        Ok(())
    })
    .await;
}

/// A whole ClientHello, and nothing after the server's answer.
pub async fn unfinished_handshakes(target: Arc<Target>) {
    swarm(&target, 500, |target, _| async move {
        let Some((tls, _)) = &target.tls else { return Ok(()) };
        let mut stream = harness::connect(target.addr, None).await?;
        let config = Arc::clone(tls.config());
        let client = rustls::ClientConnection::new(config, harness::server_name());
        let mut hello = Vec::new();
        client.map_err(io::Error::other)?.write_tls(&mut hello)?;
        stream.write_all(&hello).await?;
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        Ok(())
    })
    .await;
}

pub async fn handshakes(target: Arc<Target>) {
    swarm_again(&target, 50, |target, _| async move { target.connect(None).await.map(drop) }).await;
}

/// Reads what comes until the proxy closes.
pub async fn read_all(conn: &mut harness::Conn) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 14];
    while conn.read(&mut buffer).await? > 0 {}
    Err(io::ErrorKind::UnexpectedEof.into())
}
