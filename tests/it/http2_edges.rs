//! HTTP/2 where it meets TLS 1.2 and HTTP/1.1, and what the h2 crate decides by itself.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::TLS12,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::harness::{PATIENCE, Proxy, Raw, Setup, Upstream, file, with_upstream};

/// A socket of a server's that sends what ends the handshake together with what comes first behind it, as servers do that
/// write both before they flush.
struct Together {
    stream: TcpStream,
    held: Vec<u8>,
    /// How often it is still to hold back what is written, until the server reads.
    holds: u8,
}

impl Together {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.held.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            self.held.drain(..sent);
        }
        self.holds = self.holds.saturating_sub(1);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Together {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Together {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.holds == 0 {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        self.held.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A proxy before an AEM over TLS 1.2 that speaks together with the end of its handshake.
async fn with_tls12(protocol: &[u8]) -> (Proxy, TcpListener, TlsAcceptor) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ca = file(&certified.cert.pem());
    let proxy = Setup::default()
        .upstream(format!("https://localhost:{}", listener.local_addr().unwrap().port()))
        .set("CA_FILE", ca.path().display().to_string())
        .set("UPSTREAMS__DEFAULT__HTTP", "2")
        .start()
        .await;
    (proxy, listener, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn settings_that_come_with_the_end_of_a_tls_1_2_handshake_are_read() {
    let (proxy, listener, acceptor) = with_tls12(b"h2").await;
    let mut app = proxy.connect().await;
    app.send("GET /first HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let (stream, _) = listener.accept().await.unwrap();
    let stream = acceptor.accept(Together { stream, held: Vec::new(), holds: 2 }).await.unwrap();
    let mut connection =
        h2::server::Builder::new().max_concurrent_streams(7).handshake::<_, Bytes>(stream).await.unwrap();
    let serving = tokio::spawn(async move {
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let answer = Response::builder().header("x-path", request.uri().path()).body(()).unwrap();
            respond.send_response(answer, true).unwrap();
        }
    });
    for path in ["/first", "/second"] {
        if path == "/second" {
            app.send("GET /second HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        }
        let answer = app.response().await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(path), "{answer}");
    }
    serving.abort();
    proxy.stop().await;
}

#[tokio::test]
async fn what_an_http_1_1_aem_says_with_its_handshake_is_no_answer() {
    let (proxy, listener, acceptor) = with_tls12(b"http/1.1").await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let answering = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // The proxy tries again, and reaches nothing.
        drop(listener);
        let mut stream = acceptor.accept(Together { stream, held: Vec::new(), holds: 2 }).await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nunsaid").await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "nothing is sent over such a connection");
    });
    let answer = app.response().await;
    assert!(answer.starts_with("HTTP/1.1 502") && !answer.contains("unsaid"), "{answer}");
    answering.await.unwrap();
    proxy.stop().await;
}

#[tokio::test]
async fn a_post_without_a_body_says_so_to_aem() {
    let (proxy, upstream) = with_upstream(Setup::default().set("HTTP2", "true")).await;
    for (method, says) in [("POST", true), ("PUT", true), ("PATCH", true), ("GET", false), ("DELETE", false)]
    {
        let stream = TcpStream::connect(proxy.addr).await.unwrap();
        let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::builder().method(method).uri(format!("http://{}/a", proxy.addr));
        let (response, _) = requests.send_request(request.body(()).unwrap(), true).unwrap();
        check_length(&upstream, method, says).await;
        assert_eq!(timeout(PATIENCE, response).await.unwrap().unwrap().status(), 204);
        connection.abort();

        let mut app = proxy.connect().await;
        app.send(format!("{method} /a HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        check_length(&upstream, method, says).await;
        assert!(app.until("\r\n\r\n").await.starts_with("HTTP/1.1 204"));
    }
    proxy.stop().await;
}

async fn check_length(upstream: &Upstream, method: &str, says: bool) {
    let mut aem = upstream.accept().await;
    let head = aem.until("\r\n\r\n").await.to_lowercase();
    assert!(head.starts_with(&method.to_lowercase()), "{method}");
    assert_eq!(head.matches("content-length: 0\r\n").count(), usize::from(says), "{method}");
    assert!(!head.contains("transfer-encoding"), "{method}");
    aem.send("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
}

#[tokio::test]
async fn a_connection_over_which_an_odd_body_went_is_not_used_again() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    let mut kept: Option<Raw> = None;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (method, framing) in [
        ("POST", format!("content-length: {}\r\n\r\n{smuggled}", smuggled.len())),
        ("GET", format!("content-length: {}\r\n\r\n{smuggled}", smuggled.len())),
        (
            "DELETE",
            format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len()),
        ),
        ("OPTIONS", format!("content-length: {}\r\n\r\n{smuggled}", smuggled.len())),
        ("HEAD", format!("content-length: {}\r\n\r\n{smuggled}", smuggled.len())),
        ("POST", "content-length: 2\r\n\r\nab".to_owned()),
        ("PUT", "content-length: 2\r\n\r\nab".to_owned()),
        ("GET", "\r\n".to_owned()),
        ("DELETE", "content-length: 0\r\n\r\n".to_owned()),
    ] {
        app.send(format!("{method} /a HTTP/1.1\r\nhost: localhost\r\n{framing}")).await;
        let mut aem = match kept.take() {
            Some(aem) => aem,
            None => upstream.accept().await,
        };
        let end = match framing.as_str() {
            framing if framing.contains("chunked") => "\r\n0\r\n\r\n",
            framing if framing.contains("smuggled") => "smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n",
            framing if framing.ends_with("ab") => "\r\n\r\nab",
            _ => "\r\n\r\n",
        };
        let message = aem.until(end).await;
        let is_odd = framing.contains("smuggled") && method != "POST";
        assert!(message.starts_with(method), "{method}");
        assert_eq!(message.contains("connection: close\r\n"), is_odd, "{method}");
        aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        assert!(app.until("\r\n\r\n").await.starts_with("HTTP/1.1 200"), "{method}");
        if is_odd {
            assert!(aem.is_ended().await, "{method}");
        } else {
            kept = Some(aem);
        }
    }
    proxy.stop().await;
}

/// A frame (RFC 9113, section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Fields as they are, without a table and without Huffman (RFC 7541, section 6.2.2).
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text);
        }
    }
    block
}

/// What ends a request over HTTP/2.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Status line's place: the answer's head came.
    Answered,
    /// RST_STREAM, with its code.
    Reset(u32),
    /// GOAWAY, with its code: the connection ends.
    GoAway(u32),
    /// The connection ended without one.
    Ended,
}

/// Sends `frames` as the first ones of a connection behind the preface, and reads until something is decided.
async fn outcome(proxy: &Proxy, frames: &[Vec<u8>]) -> Outcome {
    let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
    let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[]), &frames.concat()].concat();
    stream.write_all(&begin).await.unwrap();
    let reading = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return Outcome::Ended;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            if stream.read_exact(&mut payload).await.is_err() {
                return Outcome::Ended;
            }
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match head[3] {
                1 => return Outcome::Answered,
                3 => return Outcome::Reset(code(0)),
                7 => return Outcome::GoAway(code(4)),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("something is decided")
}

const PROTOCOL_ERROR: u32 = 1;

#[tokio::test]
async fn what_the_h2_crate_refuses_by_itself_never_reaches_aem() {
    let proxy = Setup::default().set("HTTP2", "true").start().await;
    let authority = proxy.addr.to_string();
    let with = |more: &[(&'static [u8], &'static [u8])]| {
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", authority.as_bytes()),
            (b":path", b"/api/assets.json"),
        ];
        fields.extend_from_slice(more);
        block(&fields)
    };
    let without = |name: &[u8]| {
        let all: [(&[u8], &[u8]); 4] = [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", authority.as_bytes()),
            (b":path", b"/api/assets.json"),
        ];
        let fields: Vec<_> = all.into_iter().filter(|(own, _)| *own != name).collect();
        block(&fields)
    };
    let mut others = Vec::new();
    for (what, block, expected) in [
        ("a capital in a name", with(&[(b"X-A", b"1")]), Outcome::GoAway(PROTOCOL_ERROR)),
        ("a blank in a name", with(&[(b"x a", b"1")]), Outcome::GoAway(PROTOCOL_ERROR)),
        ("a colon in a name", with(&[(b"x:a", b"1")]), Outcome::GoAway(PROTOCOL_ERROR)),
        ("no name", with(&[(b"", b"1")]), Outcome::GoAway(PROTOCOL_ERROR)),
        ("LF in a value", with(&[(b"x-a", b"1\nx-b: 2")]), Outcome::GoAway(PROTOCOL_ERROR)),
        ("CR in a value", with(&[(b"x-a", b"1\rx")]), Outcome::GoAway(PROTOCOL_ERROR)),
        ("NUL in a value", with(&[(b"x-a", b"1\0x")]), Outcome::GoAway(PROTOCOL_ERROR)),
        (
            "a pseudo-field behind others",
            with(&[(b"x-a", b"1"), (b":path", b"/crx")]),
            Outcome::Reset(PROTOCOL_ERROR),
        ),
        ("a pseudo-field twice", with(&[(b":path", b"/crx")]), Outcome::Reset(PROTOCOL_ERROR)),
        ("a pseudo-field of a response", with(&[(b":status", b"200")]), Outcome::Reset(PROTOCOL_ERROR)),
        ("an unknown pseudo-field", with(&[(b":x", b"1")]), Outcome::GoAway(PROTOCOL_ERROR)),
        ("Connection", with(&[(b"connection", b"close")]), Outcome::Reset(PROTOCOL_ERROR)),
        ("Transfer-Encoding", with(&[(b"transfer-encoding", b"chunked")]), Outcome::Reset(PROTOCOL_ERROR)),
        ("Upgrade", with(&[(b"upgrade", b"websocket")]), Outcome::Reset(PROTOCOL_ERROR)),
        ("TE other than trailers", with(&[(b"te", b"gzip")]), Outcome::Reset(PROTOCOL_ERROR)),
        ("no method", without(b":method"), Outcome::Reset(PROTOCOL_ERROR)),
        ("no path", without(b":path"), Outcome::Reset(PROTOCOL_ERROR)),
        ("no scheme", without(b":scheme"), Outcome::Reset(PROTOCOL_ERROR)),
        (
            "a method that is none",
            block(&[
                (b":method", b"G T"),
                (b":scheme", b"http"),
                (b":authority", authority.as_bytes()),
                (b":path", b"/"),
            ]),
            Outcome::GoAway(PROTOCOL_ERROR),
        ),
        (
            "a path with a blank",
            block(&[
                (b":method", b"GET"),
                (b":scheme", b"http"),
                (b":authority", authority.as_bytes()),
                (b":path", b"/a b"),
            ]),
            Outcome::Reset(PROTOCOL_ERROR),
        ),
        ("a block that is none", vec![0xff, 0xff, 0xff, 0xff], Outcome::GoAway(PROTOCOL_ERROR)),
    ] {
        let got = outcome(&proxy, &[frame(1, 5, 1, &block)]).await;
        if got != expected {
            others.push(format!("{what}: {got:?}, not {expected:?}"));
        }
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    // More, or less, than the length that was said: AEM may have the beginning by then, and never the end.
    for (what, length, data) in [("more", b"1", &b"ab"[..]), ("less", b"3", b"ab")] {
        let head = [with(&[]), block(&[(b"content-length", length)])].concat();
        let got = outcome(&proxy, &[frame(1, 4, 1, &head), frame(0, 1, 1, data)]).await;
        if got != Outcome::Reset(PROTOCOL_ERROR) {
            others.push(format!("{what}: {got:?}"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
    proxy.stop().await;
}

#[tokio::test]
async fn pseudo_fields_in_trailers_never_reach_aem() {
    let (proxy, upstream) = with_upstream(Setup::default().set("HTTP2", "true")).await;
    let authority = proxy.addr.to_string();
    let head = block(&[
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", authority.as_bytes()),
        (b":path", b"/a"),
    ]);
    let trailers =
        block(&[(b":path", b"/crx"), (b":method", b"DELETE"), (b"digest", b"1"), (b"x-api-key", b"k")]);
    let frames = [frame(1, 4, 1, &head), frame(0, 0, 1, b"ab"), frame(1, 5, 1, &trailers)];
    let answering = async {
        let mut aem = upstream.accept().await;
        let seen = aem.until("digest: 1\r\n\r\n").await;
        aem.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        (seen, aem)
    };
    let (outcome, (seen, _aem)) = tokio::join!(outcome(&proxy, &frames), answering);
    assert_eq!(outcome, Outcome::Answered);
    assert!(
        seen.starts_with("POST /a HTTP/1.1\r\n") && seen.ends_with("2\r\nab\r\n0\r\ndigest: 1\r\n\r\n"),
        "{seen}"
    );
    proxy.stop().await;
}
