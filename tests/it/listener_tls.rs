//! TLS with clients: what we show, what they have to show, both versions of HTTP, and files that change under load.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use aem_auth_proxy::{
    clock::Clock,
    standin::{
        keys::Tls,
        pattern::{pattern, sha256_hex},
    },
};
use http::Request;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    commands,
    harness::{PATIENCE, Proxy, Setup, Upstream, file, with_upstream},
    http2, log,
    rotation::until_logged,
};

/// The certificate that a proxy shows, and who vouches for it.
struct Shown {
    authority: Tls,
    certificate: tempfile::NamedTempFile,
    key: tempfile::NamedTempFile,
}

impl Shown {
    fn new() -> Self {
        let authority = Tls::generate(&["localhost"]).unwrap();
        let (certificate, key) = authority.server_certificate();
        Self { authority, certificate: file(&certificate), key: file(&key) }
    }

    fn setup(&self, setup: Setup) -> Setup {
        setup
            .set("TLS__CERTIFICATE_FILE", commands::path(self.certificate.path()))
            .set("TLS__KEY_FILE", commands::path(self.key.path()))
            .set("WATCH__POLL", "50ms")
    }

    /// Shows another one from now on.
    fn becomes(&self, other: &Self) {
        std::fs::copy(other.certificate.path(), self.certificate.path()).unwrap();
        std::fs::copy(other.key.path(), self.key.path()).unwrap();
    }

    /// An app that trusts it.
    fn app(&self) -> App {
        App::new(&self.authority, None, &TLS13)
    }
}

/// An app, or a browser, with what it remembers of its sessions.
#[derive(Clone)]
struct App(ClientConfig);

impl App {
    fn new(
        authority: &Tls,
        own: Option<(String, String)>,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(
            CertificateDer::pem_slice_iter(authority.ca_pem().as_bytes()).flatten(),
        );
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots);
        Self(match own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain =
                    CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
                config
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                    .unwrap()
            }
        })
    }

    fn offering(mut self, protocols: &[&str]) -> Self {
        self.0.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    async fn connect(&self, addr: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(addr).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = TlsConnector::from(Arc::new(self.0.clone())).connect(name, stream);
        timeout(PATIENCE, connecting).await.expect("the proxy goes on")
    }

    /// The answer to a GET, over a connection of its own; empty where the connection breaks off.
    async fn get(&self, proxy: &Proxy, path: &str, fields: &str) -> String {
        let Ok(mut stream) = self.connect(proxy.addr).await else { return String::new() };
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost:{}\r\n{fields}connection: close\r\n\r\n",
            proxy.addr.port()
        );
        let _ = stream.write_all(request.as_bytes()).await;
        rest(&mut stream).await
    }
}

async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection ends");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !bytes.windows(end.len()).any(|part| part == end.as_bytes()) {
            assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "ended before {end:?}");
        }
    };
    timeout(PATIENCE, reading).await.expect("the other side goes on");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits until so many handshakes are counted as failed: a client may hear of it first.
async fn until_denied(proxy: &Proxy, count: f64) {
    let counting = async {
        while proxy.metric(DENIED).await < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, counting).await.expect("all are counted");
    assert_eq!(proxy.metric(DENIED).await, count);
}

const DENIED: &str = "aem_proxy_denied_total{proxy=\"default\",reason=\"tls\"}";

/// One request on a connection that stays.
async fn next(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(b"GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let answer = until(stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut rest = vec![0; length.parse::<usize>().unwrap() - body.len()];
    stream.read_exact(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_page_may_send_its_requests_by_https_where_the_proxy_speaks_it() {
    let shown = Shown::new();
    let (proxy, upstream) = with_upstream(shown.setup(Setup::default())).await;
    let app = shown.app();
    let answering = async {
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        aem.send(
            "HTTP/1.1 200 OK\r\nContent-Security-Policy: upgrade-insecure-requests; a\r\n\
             Strict-Transport-Security: max-age=1\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
        aem
    };
    let (answer, _aem) = tokio::join!(app.get(&proxy, "/", ""), answering);
    assert!(answer.contains("Content-Security-Policy: upgrade-insecure-requests; a\r\n"), "{answer}");
    assert!(!answer.contains("Strict-Transport-Security"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn requests_are_served_over_tls_and_the_proxys_own_origin_is_https() {
    let shown = Shown::new();
    let proxy = shown.setup(Setup::default()).start().await;
    for version in [&TLS12, &TLS13] {
        let app = App::new(&shown.authority, None, version).offering(&["http/1.1"]);
        let stream = app.connect(proxy.addr).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert!(app.get(&proxy, "/api/assets.json", "").await.starts_with("HTTP/1.1 200 OK"));
    }
    assert_eq!(proxy.status().await["proxies"][0]["tls"], true);
    let (app, own) = (shown.app(), format!("https://localhost:{}", proxy.addr.port()));
    let redirect = app.get(&proxy, "/redirect", "").await;
    assert!(redirect.contains(&format!("location: {own}/")), "{redirect}");
    let cookies = app.get(&proxy, "/set-cookies", "").await.to_lowercase();
    assert!(cookies.contains("; secure") && !cookies.contains("domain="), "{cookies}");
    let admitted = app.get(&proxy, "/api/assets.json", &format!("origin: {own}\r\n")).await;
    assert!(admitted.starts_with("HTTP/1.1 200 OK"), "{admitted}");
    let refused = app.get(&proxy, "/", &format!("origin: {}\r\n", own.replace("https", "http"))).await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    let refused = app.get(&proxy, "/", "sec-fetch-site: cross-site\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    proxy.stop().await;
}

#[tokio::test]
async fn whoever_knows_http_2_gets_it() {
    let shown = Shown::new();
    let mut proxy = shown.setup(Setup::default()).start().await;
    let stream = shown.app().offering(&["http/1.1", "h2"]).connect(proxy.addr).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let uri = |path: &str| format!("https://localhost:{}{path}", proxy.addr.port());
    let request = Request::get(uri("/redirect")).body(()).unwrap();
    let response = requests.send_request(request, true).unwrap().0.await.unwrap();
    assert!(response.headers()["location"].to_str().unwrap().starts_with(&uri("/")));
    let body = pattern(1_000_000);
    let request = Request::put(uri("/upload")).body(()).unwrap();
    let (response, mut up) = requests.send_request(request, false).unwrap();
    http2::write(&mut up, &body, true).await;
    let mut response = timeout(PATIENCE, response).await.unwrap().unwrap();
    let seen: serde_json::Value = serde_json::from_slice(&http2::read(response.body_mut()).await.0).unwrap();
    assert_eq!(seen["sha256"], *sha256_hex(&body));
    let request = Request::get(uri("/download/1000000")).body(()).unwrap();
    let mut response = requests.send_request(request, true).unwrap().0.await.unwrap();
    assert_eq!(sha256_hex(&http2::read(response.body_mut()).await.0), sha256_hex(&body));
    let request = Request::get("https://evil.example/").body(()).unwrap();
    assert_eq!(requests.send_request(request, true).unwrap().0.await.unwrap().status(), 403);
    proxy.ask_to_stop().await;
    let _ = timeout(PATIENCE, connection).await.expect("an end");
    let refused = std::future::poll_fn(|cx| requests.poll_ready(cx)).await.unwrap_err();
    assert!(refused.is_go_away() && refused.is_remote(), "{refused}");
    proxy.ended().await.unwrap();
}

#[tokio::test]
async fn a_panic_on_a_stream_resets_that_stream_alone() {
    let shown = Shown::new();
    let upstream = Upstream::bind().await;
    let origin = upstream.origin();
    let (certificate, key) = (commands::path(shown.certificate.path()), commands::path(shown.key.path()));
    let mut args = vec!["--auth", "none", "--upstream", &origin];
    args.extend(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let variables = [
        ("AEM_PROXY_TLS__CERTIFICATE_FILE", certificate),
        ("AEM_PROXY_TLS__KEY_FILE", key),
        ("AEM_AUTH_PROXY_PANIC_IN", "response"),
    ];
    let running = commands::Running::start(&args, &variables).await;
    let addr: SocketAddr = running.proxy.parse().unwrap();
    let stream = shown.app().offering(&["h2"]).connect(addr).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    for panics in [true, false] {
        let request = Request::get(format!("https://localhost:{}/", addr.port())).body(()).unwrap();
        let response = requests.send_request(request, true).unwrap().0;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        aem.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
        match timeout(PATIENCE, response).await.expect("the stream ends") {
            Err(error) => assert!(panics && error.is_reset(), "{error}"),
            Ok(response) => assert!(!panics && response.status() == 200),
        }
    }
    drop(requests);
    running.signal("-TERM").await;
    let _ = timeout(PATIENCE, connection).await.expect("an end");
    assert_eq!(running.ended().await.0, Some(0));
}

#[tokio::test]
async fn large_bodies_arrive_whole_both_ways_also_where_the_client_reads_slowly() {
    let shown = Shown::new();
    let proxy = shown.setup(Setup::default()).start().await;
    let body = pattern(3_000_000);
    let mut stream = shown.app().connect(proxy.addr).await.unwrap();
    let head = format!("PUT /upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    assert!(until(&mut stream, "}").await.contains(&sha256_hex(&body)));
    // More than all sockets on the way take: each of them stands still now and then. The connection stays, so that its end cannot
    // drive out what is left.
    let body = pattern(DOWNLOAD);
    let request = format!("GET /download/{DOWNLOAD} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let begun =
        async { while proxy.metric("aem_proxy_requests_in_flight{proxy=\"default\"}").await < 1.0 {} };
    timeout(PATIENCE, begun).await.expect("it begins");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let mut answer = vec![0; DOWNLOAD];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("the answer goes on").unwrap();
    assert_eq!(sha256_hex(&answer), sha256_hex(&body));
    next(&mut stream).await;
    proxy.stop().await;
}

const DOWNLOAD: usize = 30_000_000;

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    let shown = Shown::new();
    let (proxy, upstream) = with_upstream(shown.setup(Setup::default())).await;
    let mut stream = shown.app().connect(proxy.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    until(&mut stream, "half").await;
    drop(aem);
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end");
    // Not every client minds that TLS has not ended in order.
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    proxy.stop().await;
}

#[tokio::test]
async fn a_websocket_becomes_a_tunnel_there_too() {
    let shown = Shown::new();
    let (proxy, upstream) = with_upstream(shown.setup(Setup::default())).await;
    let mut stream = shown.app().offering(&["http/1.1"]).connect(proxy.addr).await.unwrap();
    let ask = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst")
        .await;
    until(&mut stream, "first").await;
    let long = "0123456789".repeat(20_000);
    stream.write_all(format!("{long}end").as_bytes()).await.unwrap();
    assert_eq!(aem.until("end").await, format!("{long}end"));
    aem.send(format!("{long}END")).await;
    assert_eq!(until(&mut stream, "END").await, format!("{long}END"));
    proxy.stop().await;
}

#[tokio::test]
async fn only_who_shows_a_certificate_of_the_right_authority_is_let_in() {
    let (shown, clients) = (Shown::new(), Tls::generate(&["clients"]).unwrap());
    let ca = file(clients.ca_pem());
    let setup = shown.setup(Setup::default()).set("TLS__CLIENT_CA_FILE", commands::path(ca.path()));
    let proxy = setup.start().await;
    for version in [&TLS12, &TLS13] {
        let app = |own| App::new(&shown.authority, own, version);
        let right = app(Some(clients.client_certificate().unwrap()));
        assert!(right.get(&proxy, "/api/assets.json", "").await.starts_with("HTTP/1.1 200 OK"));
        let requests = proxy.standins.aem.requests();
        let before = proxy.metric(DENIED).await;
        // None, one of the authority that vouches for the proxy alone, and one that is a server's.
        for own in
            [None, Some(shown.authority.client_certificate().unwrap()), Some(clients.server_certificate())]
        {
            assert_eq!(app(own).get(&proxy, "/api/assets.json", "").await, "");
        }
        assert_eq!(proxy.standins.aem.requests(), requests, "something reached AEM");
        until_denied(&proxy, before + 3.0).await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn sessions_are_resumed_but_not_after_a_change_of_who_is_let_in() {
    let (shown, clients, others) =
        (Shown::new(), Tls::generate(&["a"]).unwrap(), Tls::generate(&["b"]).unwrap());
    let ca = file(clients.ca_pem());
    let setup = shown.setup(Setup::default()).set("TLS__CLIENT_CA_FILE", commands::path(ca.path()));
    let proxy = setup.start().await;
    let mut apps = Vec::new();
    for version in [&TLS12, &TLS13] {
        let app = App::new(&shown.authority, Some(clients.client_certificate().unwrap()), version);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let mut stream = app.connect(proxy.addr).await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
            next(&mut stream).await;
        }
        apps.push(app);
    }
    std::fs::write(ca.path(), others.ca_pem()).unwrap();
    let stranger = App::new(&shown.authority, Some(others.client_certificate().unwrap()), &TLS13);
    let asking = async { while stranger.get(&proxy, "/api/assets.json", "").await.is_empty() {} };
    timeout(PATIENCE, asking).await.expect("the new authority is read");
    for app in apps {
        assert_eq!(app.get(&proxy, "/api/assets.json", "").await, "", "an old session opens the door");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_under_load_and_a_bad_one_is_not() {
    for hang_up in [false, true] {
        let (shown, second) = (Shown::new(), Shown::new());
        let setup = shown.setup(Setup::default());
        let proxy = if hang_up { setup.set("WATCH__POLL", "1h") } else { setup }.start().await;
        let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (old, new) = (shown.app(), second.app());
        let load = async {
            let mut kept = old.connect(proxy.addr).await.unwrap();
            while !stop.load(Relaxed) {
                next(&mut kept).await;
                // Whichever of the two is shown, somebody takes it.
                let answers = [
                    old.get(&proxy, "/api/assets.json", "").await,
                    new.get(&proxy, "/api/assets.json", "").await,
                ];
                assert!(answers.iter().any(|answer| answer.starts_with("HTTP/1.1 200 OK")), "{answers:?}");
                served.fetch_add(1, Relaxed);
            }
        };
        let rotate = async {
            while served.load(Relaxed) < 3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            shown.becomes(&second);
            if hang_up {
                proxy.hang_up().await;
            }
            let taken_up = async { while new.connect(proxy.addr).await.is_err() {} };
            timeout(PATIENCE, taken_up).await.expect("the new one is shown");
            assert!(old.connect(proxy.addr).await.is_err(), "the old one is not");

            // A certificate without its key.
            std::fs::write(shown.certificate.path(), Shown::new().authority.server_certificate().0).unwrap();
            if hang_up {
                proxy.hang_up().await;
            }
            let told = format!("is not the key of the certificate in {}", shown.certificate.path().display());
            let logged = async {
                while log::count(&told) == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, logged).await.expect("it is told");
            let then = served.load(Relaxed);
            while served.load(Relaxed) < then + 3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(new.connect(proxy.addr).await.is_ok(), "what was read before stays");
            assert!(log::count(&told) <= 2, "once for each look at it");
            stop.store(true, Relaxed);
        };
        tokio::join!(load, rotate);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn an_end_that_comes_near_is_told_of_for_each_certificate_that_is_shown() {
    let (shown, key) = (Shown::new(), KeyPair::generate().unwrap());
    std::fs::write(shown.key.path(), key.serialize_pem()).unwrap();
    let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
    let ends_in = |days_left| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let until = Clock::system().now() + days(days_left) + Duration::from_secs(60);
        (params.not_before, params.not_after) = ((until - days(365)).into(), until.into());
        std::fs::write(shown.certificate.path(), params.self_signed(&key).unwrap().pem()).unwrap();
    };
    ends_in(6);
    let proxy = shown.setup(Setup::default()).start().await;
    let file = shown.certificate.path().display();
    let told = format!(
        "The certificate that is shown ends soon: put the next one in place of the file, with its key \
         key=\"tls.certificate_file\" file={file}"
    );
    until_logged(&told, 1).await;
    ends_in(20);
    until_logged(&told, 2).await;
    proxy.stop().await;
}

#[tokio::test]
async fn handshakes_that_stand_still_or_fail_stop_nobody_else_and_end() {
    let shown = Shown::new();
    let proxy = shown.setup(Setup::default()).set("TIMEOUTS__REQUEST_HEAD", "500ms").start().await;
    let mut stuck = Vec::new();
    for number in 0..60 {
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        match number % 3 {
            0 => {}
            // The beginning of a ClientHello.
            1 => stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap(),
            _ => stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap(),
        }
        stuck.push(stream);
    }
    for _ in 0..10 {
        assert!(shown.app().get(&proxy, "/api/assets.json", "").await.starts_with("HTTP/1.1 200 OK"));
    }
    assert_eq!(proxy.standins.aem.requests(), 10);
    for mut stream in stuck {
        let answer = rest(&mut stream).await;
        assert!(!answer.contains("HTTP"), "{answer}");
    }
    // Plain HTTP is counted, silence is not.
    until_denied(&proxy, 20.0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_handshake_that_stands_still_does_not_hold_up_the_end() {
    let shown = Shown::new();
    let setup =
        shown.setup(Setup::default()).set("TIMEOUTS__REQUEST_HEAD", "1h").set("SHUTDOWN__GRACE", "1h");
    let mut proxy = setup.start().await;
    let _stuck = TcpStream::connect(proxy.addr).await.unwrap();
    // It is accepted before this one.
    assert!(shown.app().get(&proxy, "/api/assets.json", "").await.starts_with("HTTP/1.1 200 OK"));
    proxy.ask_to_stop().await;
    proxy.ended().await.unwrap();
}

#[tokio::test]
async fn a_protocol_that_nobody_speaks_here_is_refused() {
    let shown = Shown::new();
    let proxy = shown.setup(Setup::default()).start().await;
    assert!(shown.app().offering(&["ftp"]).connect(proxy.addr).await.is_err());
    proxy.stop().await;
}

#[tokio::test]
async fn the_admin_listener_stays_as_it_is() {
    let shown = Shown::new();
    let proxy = shown.setup(Setup::default()).start().await;
    assert_eq!(proxy.ask("/live").await.0, 200);
    proxy.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_at_the_start_and_in_check() {
    let (one, two, junk) = (Shown::new(), Shown::new(), file("junk"));
    let path = |file: &tempfile::NamedTempFile| commands::path(file.path()).to_owned();
    for (certificate, key, ca, words) in [
        (path(&junk), path(&one.key), String::new(), "tls.certificate_file"),
        (path(&one.certificate), path(&junk), String::new(), "tls.key_file"),
        (path(&one.certificate), path(&two.key), String::new(), "is not the key of the certificate"),
        (path(&one.certificate), path(&one.key), path(&junk), "tls.client_ca_file"),
        ("/nowhere".to_owned(), path(&one.key), String::new(), "/nowhere cannot be read"),
        (path(&one.certificate), String::new(), String::new(), "give tls.key_file too"),
        (String::new(), path(&one.key), String::new(), "give tls.certificate_file too"),
        (String::new(), String::new(), path(&one.certificate), "the listeners speak no TLS"),
    ] {
        let variables = [
            ("AEM_PROXY_UPSTREAM", "http://localhost:1"),
            ("AEM_PROXY_AUTH", "none"),
            ("AEM_PROXY_TLS__CERTIFICATE_FILE", certificate.as_str()),
            ("AEM_PROXY_TLS__KEY_FILE", key.as_str()),
            ("AEM_PROXY_TLS__CLIENT_CA_FILE", ca.as_str()),
        ];
        let (code, _, err) = commands::text(&commands::run(&[], &variables).await);
        assert!(code == 78 && err.contains(words), "{words}: {code} {err}");
        let (code, out, _) = commands::text(&commands::run(&["check", "--offline"], &variables).await);
        assert!(code == 1 && out.contains(words), "{words}: {code} {out}");
    }
}

#[tokio::test]
async fn handshakes_that_stand_still_make_room_for_those_who_come() {
    let shown = Shown::new();
    let setup =
        shown.setup(Setup::default()).set("TIMEOUTS__REQUEST_HEAD", "1h").set("LIMITS__CONNECTIONS", "8");
    let proxy = setup.start().await;
    let mut stuck = Vec::new();
    for _ in 0..40 {
        stuck.push(TcpStream::connect(proxy.addr).await.unwrap());
    }
    for _ in 0..10 {
        assert!(shown.app().get(&proxy, "/api/assets.json", "").await.starts_with("HTTP/1.1 200 OK"));
    }
    assert_eq!(rest(&mut stuck[0]).await, "", "the oldest makes room first");
    proxy.stop().await;
}
