//! HTTP/2 to AEM: what the client sees is what it sees over HTTP/1.1, and AEM has fewer connections.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use aem_auth_proxy::standin::pattern::{pattern, sha256_hex};
use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Barrier, Notify, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::harness::{PATIENCE, Proxy, Setup, client, file};

/// An AEM over TLS that offers protocols, and of which the test is the other end.
pub struct Aem {
    listener: TcpListener,
    addr: SocketAddr,
    acceptor: TlsAcceptor,
    ca: tempfile::NamedTempFile,
    connections: Arc<AtomicUsize>,
}

/// What AEM is asked over HTTP/2, and how it answers.
pub struct Asked {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
}

impl Aem {
    pub async fn offering(protocols: &[&[u8]]) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            addr: listener.local_addr().unwrap(),
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            ca: file(&certified.cert.pem()),
            connections: Arc::default(),
        }
    }

    /// One that answers every request with `answer`, and the proxy before it.
    pub async fn answering<F: Future<Output = ()> + Send + 'static>(
        setup: Setup,
        answer: impl Fn(Asked) -> F + Clone + Send + Sync + 'static,
    ) -> (Proxy, Arc<AtomicUsize>) {
        let aem = Self::offering(&[b"h2"]).await;
        let (proxy, connections) = (aem.proxy(setup).await, Arc::clone(&aem.connections));
        tokio::spawn(async move {
            loop {
                let (stream, _) = aem.listener.accept().await.unwrap();
                aem.connections.fetch_add(1, Relaxed);
                let (acceptor, answer) = (aem.acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(answer(Asked { request, respond }));
                    }
                });
            }
        });
        (proxy, connections)
    }

    pub async fn proxy(&self, setup: Setup) -> Proxy {
        setup
            .upstream(format!("https://localhost:{}", self.addr.port()))
            .set("CA_FILE", self.ca.path().display().to_string())
            .set("UPSTREAMS__DEFAULT__HTTP", "2")
            .start()
            .await
    }

    pub async fn accept(&self) -> TlsStream<TcpStream> {
        let accepting = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            self.acceptor.accept(stream).await.unwrap()
        };
        timeout(PATIENCE, accepting).await.expect("the proxy connects")
    }
}

impl Asked {
    /// The whole body, and what stands behind it.
    async fn body(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        read(self.request.body_mut()).await
    }

    /// Answers with a status and fields, and no body.
    fn end(mut self, status: u16, fields: &[(&'static str, &str)]) {
        self.respond.send_response(response(status, fields), true).unwrap();
    }

    /// Answers with a status and fields; a body follows.
    fn begin(&mut self, status: u16, fields: &[(&'static str, &str)]) -> SendStream<Bytes> {
        self.respond.send_response(response(status, fields), false).unwrap()
    }
}

fn response(status: u16, fields: &[(&'static str, &str)]) -> Response<()> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap()
}

pub async fn read(stream: &mut RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.expect("the body goes on");
        stream.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    (body, stream.trailers().await.expect("the body ends"))
}

/// Sends all of `data`, as the other side takes it.
pub async fn write(stream: &mut SendStream<Bytes>, data: &[u8], end: bool) {
    let mut rest = BytesMut::from(data);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let capacity = match stream.capacity() {
            0 => poll_fn(|cx| stream.poll_capacity(cx)).await.expect("the stream is open").unwrap(),
            capacity => capacity,
        };
        let part = rest.split_to(capacity.min(rest.len())).freeze();
        stream.send_data(part, end && rest.is_empty()).unwrap();
    }
}

#[tokio::test]
async fn aem_sees_a_request_of_http_2_with_our_token() {
    let (seen, mut asked) = mpsc::channel(1);
    let (proxy, _) = Aem::answering(Setup::default(), move |asked| {
        let seen = seen.clone();
        async move {
            let (head, _) = asked.request.into_parts();
            seen.send(head).await.unwrap();
            let mut respond = asked.respond;
            let mut body = respond.send_response(response(200, &[("content-length", "2")]), false).unwrap();
            write(&mut body, b"ok", true).await;
        }
    })
    .await;
    let mut app = proxy.connect().await;
    app.send(
        "GET /a%2Fb;v=1//c?q=%C3%A4&{x} HTTP/1.1\r\nhost: localhost\r\nX-Own: 1\r\nTE: trailers\r\n\
         keep-alive: timeout=5\r\nconnection: te, x-hop\r\nx-hop: 1\r\n\r\n",
    )
    .await;
    let answer = app.until("\r\n\r\nok").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n"), "{answer}");
    let head = asked.recv().await.unwrap();
    assert_eq!(head.version, Version::HTTP_2);
    assert_eq!(head.uri.scheme_str(), Some("https"));
    assert_eq!(head.uri.authority().unwrap().host(), "localhost");
    assert_eq!(head.uri.path_and_query().unwrap(), "/a%2Fb;v=1//c?q=%C3%A4&{x}");
    assert_eq!(
        (&head.headers["x-own"], &head.headers["te"]),
        (&"1".parse().unwrap(), &"trailers".parse().unwrap())
    );
    for name in ["host", "connection", "keep-alive", "x-hop", "transfer-encoding"] {
        assert!(!head.headers.contains_key(name), "{name}");
    }
    assert!(head.headers["authorization"].as_bytes().starts_with(b"Bearer "));
    proxy.stop().await;
}

#[tokio::test]
async fn the_token_is_in_no_table_of_the_connection() {
    let aem = Aem::offering(&[b"h2"]).await;
    let proxy = aem.proxy(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut stream = aem.accept().await;
    let mut bytes = Vec::new();
    let reading = async {
        // `authorization` of the static table, never indexed (RFC 7541, section 6.2.3).
        while !bytes.windows(2).any(|part| part == [0x1f, 23 - 15]) {
            assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
        }
    };
    timeout(PATIENCE, reading).await.expect("the token comes so");
    proxy.stop().await;
}

#[tokio::test]
async fn a_body_keeps_its_length_or_its_chunks_and_what_is_behind_them() {
    let (proxy, _) = Aem::answering(Setup::default(), |mut asked| async move {
        let length = asked.request.headers().get("content-length").cloned();
        let (body, trailers) = asked.body().await;
        let sum = trailers.and_then(|trailers| trailers.get("digest").cloned());
        let mut answer = asked.begin(200, &[]);
        write(&mut answer, format!("{length:?} {}", String::from_utf8(body).unwrap()).as_bytes(), false)
            .await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-other", HeaderValue::from_static("1"));
        trailers.insert("server-timing", sum.unwrap_or_else(|| HeaderValue::from_static("none")));
        answer.send_trailers(trailers).unwrap();
    })
    .await;
    let mut app = proxy.connect().await;
    app.send("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\nabc").await;
    let answer = app.until("server-timing: none\r\n\r\n").await;
    assert!(answer.contains("transfer-encoding: chunked") && answer.contains("Some(\"3\") abc"), "{answer}");
    app.send(
        "PUT / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nrange: bytes=0-1\r\ndigest: 7\r\n\r\n",
    )
    .await;
    let answer = app.until("server-timing: 7\r\n\r\n").await;
    assert!(answer.contains("None abc") && answer.contains("\r\n0\r\nserver-timing: 7\r\n\r\n"), "{answer}");
    app.send("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await;
    assert!(app.until("server-timing: none\r\n\r\n").await.contains("Some(\"0\") \r\n"));
    proxy.stop().await;
}

#[tokio::test]
async fn large_bodies_arrive_whole() {
    let (proxy, _) = Aem::answering(Setup::default(), |mut asked| async move {
        let (body, _) = asked.body().await;
        let sum = sha256_hex(&body);
        let length = body.len().to_string();
        let known: &[_] =
            if asked.request.uri().query().is_some() { &[] } else { &[("content-length", &*length)] };
        let mut fields = vec![("x-sum", &*sum)];
        fields.extend(known);
        let mut answer = asked.begin(200, &fields);
        write(&mut answer, &body, true).await;
    })
    .await;
    for (path, bytes) in [("/", 20 * 1024 * 1024), ("/?chunked", 1024 * 1024)] {
        let body = pattern(bytes);
        let sum = sha256_hex(&body);
        let answer = client().put(proxy.url(path)).body(body).send().await.unwrap();
        assert_eq!(answer.headers()["x-sum"], *sum);
        assert_eq!(answer.content_length().is_none(), path.contains("chunked"));
        assert_eq!(sha256_hex(&answer.bytes().await.unwrap()), sum);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn many_requests_at_once_share_a_connection() {
    let all = Arc::new(Barrier::new(MANY));
    let (proxy, connections) = Aem::answering(Setup::default(), move |asked| {
        let all = Arc::clone(&all);
        async move {
            // Nobody is answered before all have asked.
            all.wait().await;
            asked.end(204, &[]);
        }
    })
    .await;
    let asking = (0..MANY).map(|_| {
        let url = proxy.url("/");
        tokio::spawn(async move { client().get(url).send().await.unwrap().status() })
    });
    for asked in asking.collect::<Vec<_>>() {
        assert_eq!(asked.await.unwrap(), StatusCode::NO_CONTENT);
    }
    let threads = std::thread::available_parallelism().unwrap().get();
    assert!(connections.load(Relaxed) <= threads, "{} connections", connections.load(Relaxed));
    proxy.stop().await;
}

#[tokio::test]
async fn answers_without_a_body_and_interim_ones_are_as_over_http_1() {
    let (proxy, _) = Aem::answering(Setup::default(), |mut asked| async move {
        match asked.request.uri().path() {
            "/hints" => {
                let hints = response(103, &[("link", "</a.css>")]);
                asked.respond.send_informational(hints).unwrap();
                asked.end(200, &[]);
            }
            "/204" => asked.end(204, &[("x-a", "1")]),
            "/304" => asked.end(304, &[("etag", "\"x\"")]),
            // Not every server says at once that nothing follows.
            "/late" => write(&mut asked.begin(200, &[("content-length", "0")]), b"", true).await,
            _ => {
                assert_eq!(asked.request.method(), Method::HEAD);
                asked.end(200, &[("content-length", "1234")]);
            }
        }
    })
    .await;
    let mut app = proxy.connect().await;
    for (request, expected) in [
        ("GET /hints", "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n"),
        ("GET /204", "HTTP/1.1 204 No Content\r\nx-a: 1\r\n"),
        ("GET /304", "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n"),
        ("GET /late", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"),
        ("HEAD /", "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n"),
    ] {
        app.send(format!("{request} HTTP/1.1\r\nhost: localhost\r\nsec-fetch-mode: navigate\r\n\r\n")).await;
        let end = if request.contains("hints") {
            "content-length: 0\r\nvia: 1.1 aem-auth-proxy\r\n\r\n"
        } else {
            "\r\n\r\n"
        };
        let head = app.until(end).await;
        assert!(head.starts_with(expected), "{head}");
        assert_eq!(head.contains("\r\n\r\nHTTP/1.1 200 OK\r\n"), request.contains("hints"), "{head}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_aem_that_chooses_http_1_is_spoken_to_in_it() {
    for protocols in [&[&b"http/1.1"[..]][..], &[]] {
        let aem = Aem::offering(protocols).await;
        let proxy = aem.proxy(Setup::default()).await;
        let mut app = proxy.connect().await;
        let mut kept = None;
        for _ in 0..2 {
            app.send("GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => aem.accept().await,
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut head).await.unwrap() > 0);
            }
            assert!(head.starts_with(b"GET /x HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            stream.flush().await.unwrap();
            app.until("\r\n\r\nok").await;
            kept = Some(stream);
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_stream_that_aem_resets_is_a_bad_gateway_or_cut() {
    let arrived = Arc::new(Notify::new());
    let (proxy, connections) = Aem::answering(Setup::default(), {
        let arrived = Arc::clone(&arrived);
        move |mut asked| {
            let arrived = Arc::clone(&arrived);
            async move {
                let path = asked.request.uri().path_and_query().unwrap().to_string();
                if path == "/" {
                    return asked.respond.send_reset(Reason::INTERNAL_ERROR);
                }
                let known = path.contains("length").then_some(("content-length", "100"));
                let mut body = asked.begin(200, known.as_slice());
                write(&mut body, b"half", false).await;
                arrived.notified().await;
                // No error is no end.
                let calm = path.contains("calm");
                body.send_reset(if calm { Reason::NO_ERROR } else { Reason::INTERNAL_ERROR });
            }
        }
    })
    .await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let answer = app.until("}\n").await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("error=connection_terminated"), "{answer}");
    for path in ["/half", "/half?length", "/half?calm"] {
        let mut app = proxy.connect().await;
        app.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        app.until("half").await;
        arrived.notify_one();
        let (answer, reset) = app.rest_or_reset().await;
        assert!(reset && !answer.contains("\r\n0\r\n"), "{path}: {answer}");
    }
    let threads = std::thread::available_parallelism().unwrap().get();
    assert!(connections.load(Relaxed) <= threads, "the connection is as good as before");
    proxy.stop().await;
}

#[tokio::test]
async fn a_write_without_a_body_that_aem_gave_up_is_not_sent_again() {
    let asks = Arc::new(AtomicUsize::new(0));
    let (proxy, _) = Aem::answering(Setup::default(), {
        let asks = Arc::clone(&asks);
        move |mut asked| {
            asks.fetch_add(1, Relaxed);
            async move { asked.respond.send_reset(Reason::INTERNAL_ERROR) }
        }
    })
    .await;
    for (number, head) in ["POST /x", "MOVE /x", "COPY /x"].into_iter().enumerate() {
        let mut app = proxy.connect().await;
        app.send(format!("{head} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        assert!(app.until("}\n").await.starts_with("HTTP/1.1 502"), "{head}");
        assert_eq!(asks.load(Relaxed), number + 1, "{head}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_that_aem_takes_leave_of_serves_no_other_request() {
    let aem = Aem::offering(&[b"h2"]).await;
    let proxy = aem.proxy(Setup::default()).await;
    let mut app = proxy.connect().await;
    for _ in 0..3 {
        app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut connection = h2::server::handshake(aem.accept().await).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        connection.graceful_shutdown();
        let answering = async {
            // It ends when the proxy has heard of it and has its answer.
            let mut body = respond.send_response(response(200, &[]), false).unwrap();
            write(&mut body, b"last", true).await;
        };
        let (_, end) = tokio::join!(answering, connection.accept());
        assert!(end.is_none_or(|end| end.is_err()), "no other request came");
        assert!(app.until("0\r\n\r\n").await.contains("last"));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_websocket_has_a_connection_of_its_own() {
    let aem = Aem::offering(&[b"h2", b"http/1.1"]).await;
    let proxy = aem.proxy(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send(
        "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n",
    )
    .await;
    let mut stream = aem.accept().await;
    assert_ne!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut head).await.unwrap() > 0);
    }
    assert!(String::from_utf8_lossy(&head).contains("upgrade: websocket\r\n"));
    let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi";
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    app.until("hi").await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let (told, mut resets) = mpsc::channel(1);
    let (proxy, _) = Aem::answering(Setup::default(), move |mut asked| {
        let told = told.clone();
        async move {
            if asked.request.uri().path() == "/stays" {
                return asked.end(204, &[]);
            }
            let mut body = asked.begin(200, &[]);
            write(&mut body, b"first", false).await;
            let reset = poll_fn(|cx| body.poll_reset(cx)).await.unwrap();
            told.send(reset).await.unwrap();
        }
    })
    .await;
    let mut app = proxy.connect().await;
    app.send("GET /leaves HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    app.until("first").await;
    drop(app);
    let reset = timeout(PATIENCE, resets.recv()).await.expect("AEM hears of it");
    assert_eq!(reset, Some(Reason::CANCEL));
    assert_eq!(proxy.get("/stays").await.status(), 204);
    proxy.stop().await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_looks_whole() {
    let (told, mut ends) = mpsc::channel(1);
    let (proxy, _) = Aem::answering(Setup::default(), move |mut asked| {
        let told = told.clone();
        async move {
            let body = asked.request.body_mut();
            let first = body.data().await.unwrap().unwrap();
            told.send(String::from_utf8(first.to_vec()).unwrap()).await.unwrap();
            let end = body.data().await;
            told.send(format!("{:?}", end.map(|end| end.unwrap_err().reason()))).await.unwrap();
        }
    })
    .await;
    for framing in ["content-length: 10", "transfer-encoding: chunked"] {
        let mut app = proxy.connect().await;
        app.send(format!("PUT / HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n")).await;
        app.send(if framing.contains("chunked") { "5\r\nfirst\r\n" } else { "first" }).await;
        let first = timeout(PATIENCE, ends.recv()).await.expect("AEM has the beginning");
        assert_eq!(first.as_deref(), Some("first"));
        drop(app);
        let end = timeout(PATIENCE, ends.recv()).await.expect("AEM hears of it").unwrap();
        assert_eq!(end, format!("{:?}", Some(Some(Reason::CANCEL))), "{framing}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_aem_that_takes_nothing_is_not_waited_for_for_ever() {
    let (proxy, _) = Aem::answering(Setup::default().set("TIMEOUTS__IDLE", "300ms"), |asked| async move {
        // It keeps what came, and its window closes.
        let _asked = asked;
        std::future::pending::<()>().await;
    })
    .await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10000000\r\n\r\n").await;
    let (mut reading, mut writing) = app.0.into_split();
    let sending = tokio::spawn(async move {
        // As far as it gets.
        let _ = writing.write_all(&vec![0; 10_000_000]).await;
    });
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, reading.read_to_end(&mut answer)).await.expect("an end");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request-stalled"), "{answer}");
    sending.abort();
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_ends_when_nobody_uses_it() {
    let aem = Aem::offering(&[b"h2"]).await;
    let proxy = aem.proxy(Setup::default().set("TIMEOUTS__UPSTREAM_IDLE", "100ms")).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut connection = h2::server::handshake(aem.accept().await).await.unwrap();
    let (_, mut respond) = connection.accept().await.unwrap().unwrap();
    respond.send_response(response(204, &[]), true).unwrap();
    drop(respond);
    let end = timeout(PATIENCE, connection.accept()).await.expect("the proxy says good-bye");
    assert!(end.is_none());
    app.until("\r\n\r\n").await;
    proxy.stop().await;
}

#[tokio::test]
async fn an_old_connection_serves_no_other_request_and_ends_with_its_last() {
    let held = Arc::new(Notify::new());
    let setup =
        Setup::default().set("TIMEOUTS__UPSTREAM_MAX_AGE", "100ms").set("TIMEOUTS__UPSTREAM_IDLE", "2s");
    let (proxy, connections) = Aem::answering(setup, {
        let held = Arc::clone(&held);
        move |asked| {
            let held = Arc::clone(&held);
            async move {
                if asked.request.uri().path() == "/held" {
                    held.notified().await;
                }
                asked.end(204, &[]);
            }
        }
    })
    .await;
    let mut app = proxy.connect().await;
    app.send("GET /held HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    // Always in use: age alone can make the proxy want another one than each thread has.
    let threads = std::thread::available_parallelism().unwrap().get();
    let asking = async {
        while connections.load(Relaxed) <= threads + 1 {
            assert_eq!(proxy.get("/").await.status(), 204);
        }
    };
    timeout(PATIENCE, asking).await.expect("another connection");
    held.notify_one();
    assert!(app.until("\r\n\r\n").await.starts_with("HTTP/1.1 204"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_target_that_http_2_cannot_carry_goes_over_http_1() {
    for target in [&b"/a<b>`c"[..], b"/a?q=\"b\"", b"/caf\xe9", b"/a?q=\xfc"] {
        let aem = Aem::offering(&[b"h2", b"http/1.1"]).await;
        let proxy = aem.proxy(Setup::default()).await;
        let mut app = proxy.connect().await;
        let line = [b"GET ", target, b" HTTP/1.1\r\n"].concat();
        app.send([&line[..], b"host: localhost\r\n\r\n"].concat()).await;
        let mut stream = aem.accept().await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut head).await.unwrap() > 0, "{}", target.escape_ascii());
        }
        assert!(head.starts_with(&line), "{}", head.escape_ascii());
        proxy.stop().await;
    }
}

#[tokio::test]
async fn what_aem_says_of_its_own_host_does_not_pass_over_http2_either() {
    let (proxy, _) = Aem::answering(Setup::default(), |mut asked: Asked| async move {
        let fields = [
            ("strict-transport-security", "max-age=31536000"),
            ("alt-svc", "h3=\":443\""),
            ("nel", "{}"),
            ("set-cookie", "login-token=x"),
            ("content-security-policy", "upgrade-insecure-requests; default-src 'self'"),
            ("x-kept", "1"),
        ];
        let mut body = asked.begin(200, &fields);
        body.send_data(Bytes::from_static(b"ok"), false).unwrap();
        let trailers = [("alt-svc", "clear"), ("server-timing", "a")];
        let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        body.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
    })
    .await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    let got = app.rest().await;
    assert!(got.ends_with("0\r\nserver-timing: a\r\n\r\n"), "{got}");
    assert!(
        got.contains("content-security-policy:  default-src 'self'\r\n") && got.contains("x-kept: 1"),
        "{got}"
    );
    for gone in ["strict-", "alt-svc", "nel:", "login-token", "upgrade-insecure"] {
        assert!(!got.contains(gone), "{got}");
    }
    proxy.stop().await;
}

/// Fewer than every server takes at once.
const MANY: usize = 50;

#[tokio::test]
async fn a_token_that_comes_back_over_http2_is_cut_from_heads_and_trailers() {
    let (proxy, _) = Aem::answering(Setup::default(), |mut asked: Asked| async move {
        let token = asked.request.headers()["authorization"].clone();
        let interim = Response::builder().status(103).header("x-hint", &token).body(()).unwrap();
        asked.respond.send_informational(interim).unwrap();
        let head = Response::builder().header("x-echo", &token).header("x-kept", "1").body(()).unwrap();
        let mut body = asked.respond.send_response(head, false).unwrap();
        body.send_data(Bytes::from_static(b"ok"), false).unwrap();
        let trailers = [("x-trail", &token), ("digest", &HeaderValue::from_static("1"))];
        let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), value.clone()));
        body.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
    })
    .await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\nsec-fetch-mode: navigate\r\nconnection: close\r\n\r\n")
        .await;
    let got = app.rest().await;
    assert!(got.contains("x-kept: 1\r\n") && got.ends_with("ok\r\n0\r\ndigest: 1\r\n\r\n"), "{got}");
    assert!(!got.contains("eyJ") && !got.contains("x-echo") && !got.contains("x-trail"), "{got}");
    assert_eq!(proxy.metric("aem_proxy_token_echoes_total{proxy=\"default\"}").await, 3.0);
    proxy.stop().await;
}
