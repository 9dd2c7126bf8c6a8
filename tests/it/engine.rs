//! The engine: however bytes are cut, whatever comes early, late or too much, one request has one answer.

use std::sync::Arc;

use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::harness::{PATIENCE, Proxy, Raw, Setup, Upstream, file, with_upstream};

const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// An upstream with TLS of which the test is the other end.
struct Secure {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ca: tempfile::NamedTempFile,
}

impl Secure {
    async fn bind(version: &'static SupportedProtocolVersion) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), ca: file(&certified.cert.pem()) }
    }

    async fn proxy(&self) -> Proxy {
        let port = self.listener.local_addr().unwrap().port();
        Setup::default()
            .upstream(format!("https://localhost:{port}"))
            .set("CA_FILE", self.ca.path().display().to_string())
            .start()
            .await
    }

    async fn accept(&self) -> TlsStream<TcpStream> {
        let accepting = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            self.acceptor.accept(stream).await.unwrap()
        };
        timeout(PATIENCE, accepting).await.expect("the proxy connects")
    }
}

/// Reads a request's head and `body` bytes behind it.
async fn read_request(aem: &mut TlsStream<TcpStream>, body: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").map(|end| end + 4);
            if end.is_some_and(|end| bytes.len() >= end + body) {
                return;
            }
            assert!(aem.read_buf(&mut bytes).await.unwrap() > 0, "the request ends early");
        }
    };
    timeout(PATIENCE, reading).await.expect("the request comes");
    bytes
}

#[tokio::test]
async fn every_version_of_tls_carries_small_and_large_bodies() {
    for version in [&TLS12, &TLS13] {
        let upstream = Secure::bind(version).await;
        let proxy = upstream.proxy().await;
        let mut app = proxy.connect().await;
        let mut aem = None;
        // Around the size of a record and of a buffer, and far beyond them.
        for size in [0, 1, 16_383, 16_384, 16_385, 65_536, 66_560, 1_000_000] {
            let body = aem_auth_proxy::standin::pattern::pattern(size);
            let head = format!("PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n");
            let asking = async {
                app.send(head.as_bytes()).await;
                app.send(&body).await;
            };
            let answering = async {
                let mut aem = match aem.take() {
                    Some(aem) => aem,
                    None => upstream.accept().await,
                };
                let seen = read_request(&mut aem, size).await;
                assert!(seen.ends_with(&body), "{size} bytes were changed on their way to AEM");
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
                aem.write_all(head.as_bytes()).await.unwrap();
                aem.write_all(&body).await.unwrap();
                aem.flush().await.unwrap();
                aem
            };
            let ((), link) = tokio::join!(asking, answering);
            aem = Some(link);
            let mut answer = Vec::new();
            let whole = async {
                let end =
                    |answer: &[u8]| answer.windows(4).position(|part| part == b"\r\n\r\n").map(|end| end + 4);
                while end(&answer).is_none_or(|end| answer.len() < end + body.len()) {
                    assert!(app.0.read_buf(&mut answer).await.unwrap() > 0, "the answer ends early");
                }
            };
            timeout(PATIENCE, whole).await.expect("the whole answer comes");
            assert!(answer.ends_with(&body), "{size} bytes were changed on their way back");
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn an_answer_without_a_length_that_nobody_ended_is_not_whole() {
    let upstream = Secure::bind(&TLS13).await;
    let proxy = upstream.proxy().await;
    for orderly in [true, false] {
        let mut app = proxy.connect().await;
        app.send(GET).await;
        let mut aem = upstream.accept().await;
        read_request(&mut aem, 0).await;
        aem.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf or whole").await.unwrap();
        aem.flush().await.unwrap();
        app.until("half or whole").await;
        if orderly {
            aem.shutdown().await.unwrap();
            app.until("0\r\n\r\n").await;
        } else {
            // Anybody on the way can end a TCP connection; only AEM can end a TLS session.
            drop(aem);
            let (rest, reset) = app.rest_or_reset().await;
            assert!(reset && !rest.contains("0\r\n\r\n"), "{rest}");
        }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_response_in_many_pieces_is_a_response() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send(GET).await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.0.set_nodelay(true).unwrap();
    for byte in
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\ndigest: 1\r\n\r\n"
    {
        aem.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    let answer = app.until("digest: 1\r\n\r\n").await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    // Cut anew, but the same when it is put together, and without the extension.
    let mut text = String::new();
    let mut rest = body;
    while let Some((size, behind)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        text.push_str(&behind[..size]);
        rest = behind[size..].strip_prefix("\r\n").unwrap();
    }
    assert_eq!(text, "hello");
    proxy.stop().await;
}

#[tokio::test]
async fn bodies_and_the_requests_behind_them_are_told_apart() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send(
        "POST /one HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nGET /\
         POST /two HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n\
         GET /three HTTP/1.1\r\nhost: localhost\r\n\r\n",
    )
    .await;
    let mut aem = upstream.accept().await;
    for (line, end) in [
        ("POST /one ", "\r\n\r\nGET /"),
        ("POST /two ", "3\r\nGET\r\n0\r\n\r\n"),
        ("GET /three ", "\r\n\r\n"),
    ] {
        let seen = aem.until(end).await;
        assert!(seen.starts_with(line) && seen.ends_with(end), "{seen}");
        aem.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        app.until("\r\n\r\nok").await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_framed_twice_is_refused() {
    let proxy = Proxy::start().await;
    for fields in [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
    ] {
        let mut app = proxy.connect().await;
        app.send(format!("POST / HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n\r\n0\r\n\r\n")).await;
        assert!(app.rest().await.starts_with("HTTP/1.1 400 "), "{fields}");
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    proxy.stop().await;
}

#[tokio::test]
async fn a_body_that_was_refused_does_not_become_the_next_request() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    let body = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    app.send(format!(
        "POST / HTTP/1.1\r\nhost: evil.example\r\ncontent-length: {}\r\n\r\n{body}GET /next HTTP/1.1\r\nhost: localhost\r\n\r\n",
        body.len()
    ))
    .await;
    assert!(app.response().await.starts_with("HTTP/1.1 403 "));
    let mut aem = upstream.accept().await;
    assert!(aem.until("\r\n\r\n").await.starts_with("GET /next "));
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    app.until("ok").await;

    // One that has not come whole ends the connection.
    app.send("POST / HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 100\r\n\r\nhalf").await;
    let answer = app.rest().await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("connection: close\r\n"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn what_aem_says_unasked_is_nobodys_answer() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    let forged = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    for (behind, later) in [(forged, ""), ("", forged)] {
        app.send(GET).await;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        aem.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{behind}")).await;
        let answer = app.until("\r\n\r\nok").await;
        assert!(!answer.contains("forged"), "{answer}");
        if !later.is_empty() {
            aem.send(later).await;
            // It has to be there before the next request: nothing else would show what becomes of it.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    app.send(GET).await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue").await;
    app.until("\r\n\r\ntrue").await;
    proxy.stop().await;
}

#[tokio::test]
async fn an_old_client_keeps_its_connection_if_it_asks_for_that() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    let mut aem = None;
    for _ in 0..2 {
        app.send("GET / HTTP/1.0\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\n").await;
        let mut link = match aem.take() {
            Some(link) => link,
            None => upstream.accept().await,
        };
        let seen: String = link.until("\r\n\r\n").await;
        assert!(seen.contains("via: 1.0 aem-auth-proxy\r\n"), "{seen}");
        link.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert!(app.until("\r\n\r\nok").await.contains("connection: keep-alive\r\n"));
        aem = Some(link);
    }
    // An answer without a length ends with the connection: it knows no chunks.
    app.send("GET / HTTP/1.0\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\n").await;
    let mut link = aem.unwrap();
    link.until("\r\n\r\n").await;
    link.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let answer = app.rest().await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn early_hints_reach_a_client_that_knows_of_them() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    for (version, mode, expected) in
        [("1.1", "navigate", true), ("1.1", "cors", false), ("1.0", "navigate", false)]
    {
        let mut app = proxy.connect().await;
        let fields = format!("host: localhost\r\nsec-fetch-mode: {mode}\r\nconnection: close\r\n");
        app.send(format!("GET / HTTP/{version}\r\n{fields}\r\n")).await;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        aem.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n")
            .await;
        aem.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
        let answer = app.rest().await;
        assert_eq!(answer.contains("HTTP/1.1 103 Early Hints\r\nlink: "), expected, "{answer}");
        assert!(!answer.contains("100 Continue") && answer.contains("HTTP/1.1 200 OK"), "{answer}");
    }
    proxy.stop().await;
}

/// What an AEM that answers too soon takes the rest of the body for, nobody knows: for a request, perhaps.
#[tokio::test]
async fn an_answer_before_the_end_of_an_upload_is_the_last_on_its_connection_to_aem() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    for framing in ["content-length: 10\r\n\r\nfirst", "transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"] {
        app.send(format!("PUT / HTTP/1.1\r\nhost: localhost\r\n{framing}")).await;
        let mut aem = upstream.accept().await;
        aem.until("first").await;
        aem.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        app.until("\r\n\r\nok").await;
        let chunked = framing.contains("chunked");
        app.send(if chunked { "5\r\n-last\r\n0\r\n\r\n" } else { "-last" }).await;
        aem.until("-last").await;
        assert!(aem.is_ended().await, "{framing}");
    }
    app.send(GET).await;
    let mut aem = upstream.accept().await;
    aem.until("GET / ").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo").await;
    app.until("\r\n\r\ntwo").await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_body_that_came_without_being_asked_for_is_not_held_back() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\nbody")
        .await;
    let mut aem = upstream.accept().await;
    aem.until("body").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert!(app.until("\r\n\r\nok").await.starts_with("HTTP/1.1 200"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_for_continue_takes_its_request_along() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    drop(app);
    assert_eq!(aem.rest().await, "");
    proxy.stop().await;
}

#[tokio::test]
async fn an_aem_that_never_says_continue_gets_the_body_all_the_same() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    assert_eq!(app.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    app.send("body").await;
    aem.until("body").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    app.until("\r\n\r\nok").await;
    proxy.stop().await;
}

#[tokio::test]
async fn an_upload_with_broken_chunks_never_looks_complete_to_aem() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("3\r\nabc\r\n").await;
    app.send("zzz\r\n").await;
    let answer = app.rest().await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("request-broken"), "{answer}");
    assert!(!aem.rest().await.contains("0\r\n\r\n"));
    proxy.stop().await;
}

#[tokio::test]
async fn connections_are_spread_and_all_are_served() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut apps = Vec::new();
    for number in 0..40 {
        let mut app = proxy.connect().await;
        app.send(format!("GET /{number} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        apps.push(app);
    }
    // All of them are in flight before one is answered, or a connection to AEM would serve several.
    let mut links: Vec<(Raw, String)> = Vec::new();
    for _ in 0..apps.len() {
        let mut link = upstream.accept().await;
        let head = link.until("\r\n\r\n").await;
        links.push((link, head));
    }
    for (link, head) in &mut links {
        let path = head.split(' ').nth(1).unwrap();
        link.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len())).await;
    }
    for (number, app) in apps.iter_mut().enumerate() {
        assert!(app.response().await.ends_with(&format!("\r\n\r\n/{number}")));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_that_aem_closes_in_idleness_is_let_go() {
    let upstream = Upstream::bind().await;
    let setup = Setup::default().upstream(upstream.origin()).set("TIMEOUTS__UPSTREAM_IDLE", "200ms");
    let proxy = setup.start().await;
    let mut app = proxy.connect().await;
    app.send(GET).await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    app.until("\r\n\r\nok").await;
    assert!(aem.is_ended().await, "an idle connection stays for ever");
    proxy.stop().await;
}
