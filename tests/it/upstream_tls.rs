//! TLS to AEM: what we show, what we demand, what is remembered, and files that change.

use std::{path::Path, sync::Arc, time::Duration};

use aem_auth_proxy::standin::keys::Tls;
use rustls::{
    HandshakeKind, ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    commands,
    harness::{PATIENCE, Proxy, Setup, file},
    log,
};

/// An AEM that speaks one version of TLS, answers once on each connection, and tells of each handshake.
struct Aem {
    origin: String,
    authority: Tls,
    ca: tempfile::NamedTempFile,
    handshakes: mpsc::UnboundedReceiver<Option<HandshakeKind>>,
}

impl Aem {
    /// `asks` for a certificate of its own authority.
    async fn start(version: &'static SupportedProtocolVersion, asks: bool) -> Self {
        let authority = Tls::generate(&["localhost"]).unwrap();
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let config = config.with_protocol_versions(&[version]).unwrap();
        let config = if asks {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            config.with_no_client_auth()
        };
        let config = config.with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (tell, handshakes) = mpsc::unbounded_channel();
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), tell));
        Self { origin, authority, ca: file(&certified.cert.pem()), handshakes }
    }

    fn setup(&self) -> Setup {
        Setup::default().upstream(self.origin.clone()).set("CA_FILE", commands::path(self.ca.path()))
    }

    async fn handshake(&mut self) -> Option<HandshakeKind> {
        timeout(PATIENCE, self.handshakes.recv()).await.expect("the proxy connects").expect("AEM goes on")
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    tell: mpsc::UnboundedSender<Option<HandshakeKind>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, tell) = (acceptor.clone(), tell.clone());
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                let _ = tell.send(None);
                return;
            };
            let _ = tell.send(stream.get_ref().1.handshake_kind());
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\n") && matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {}
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        });
    }
}

/// With a certificate and its key for the upstream.
fn showing(setup: Setup, certificate: &Path, key: &Path) -> Setup {
    setup
        .set("UPSTREAMS__DEFAULT__CLIENT_CERTIFICATE_FILE", commands::path(certificate))
        .set("UPSTREAMS__DEFAULT__CLIENT_KEY_FILE", commands::path(key))
}

fn pair(authority: &Tls) -> (tempfile::NamedTempFile, tempfile::NamedTempFile) {
    let (certificate, key) = authority.client_certificate().unwrap();
    (file(&certificate), file(&key))
}

/// A certificate that no authority vouches for.
fn stranger() -> (tempfile::NamedTempFile, tempfile::NamedTempFile) {
    let certified = rcgen::generate_simple_self_signed(["somebody".to_owned()]).unwrap();
    (file(&certified.cert.pem()), file(&certified.signing_key.serialize_pem()))
}

async fn check_refused(proxy: &Proxy, error: &str, name: &str) {
    let response = proxy.get("/").await;
    assert_eq!(response.status(), 502);
    assert_eq!(response.headers()["proxy-status"], format!("aem-auth-proxy; error={error}"));
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!(problem["type"], format!("urn:aem-auth-proxy:problem:{name}"));
}

#[tokio::test]
async fn an_aem_that_asks_for_a_certificate_gets_it() {
    for version in [&TLS12, &TLS13] {
        let aem = Aem::start(version, true).await;
        let (certificate, key) = pair(&aem.authority);
        let proxy = showing(aem.setup(), certificate.path(), key.path()).start().await;
        assert_eq!(proxy.get("/").await.status(), 200);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_certificate_that_is_missing_or_of_another_authority_has_its_own_problem_document() {
    for version in [&TLS12, &TLS13] {
        let aem = Aem::start(version, true).await;
        let proxy = aem.setup().start().await;
        check_refused(&proxy, "tls_alert_received", "client-certificate").await;
        // In TLS 1.3 the handshake is over for us before AEM has looked.
        let made = "aem_proxy_upstream_connects_total{outcome=\"ok\",upstream=\"default\"}";
        assert!(proxy.metric(made).await <= 1.0, "another connection would not be better");
        proxy.stop().await;

        let (certificate, key) = stranger();
        let proxy = showing(aem.setup(), certificate.path(), key.path()).start().await;
        check_refused(&proxy, "tls_alert_received", "client-certificate").await;
        proxy.stop().await;
    }
}

#[tokio::test]
async fn an_aem_that_speaks_too_old_a_tls_is_not_spoken_to() {
    for (version, answers) in [(&TLS12, false), (&TLS13, true)] {
        let aem = Aem::start(version, false).await;
        let proxy = aem.setup().set("UPSTREAMS__DEFAULT__MIN_TLS", "1.3").start().await;
        if answers {
            assert_eq!(proxy.get("/").await.status(), 200);
        } else {
            check_refused(&proxy, "tls_alert_received", "tls-alert").await;
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_session_is_resumed_by_whichever_thread() {
    for version in [&TLS12, &TLS13] {
        let mut aem = Aem::start(version, false).await;
        let proxy = aem.setup().start().await;
        let mut apps = Vec::new();
        for round in 0..4 {
            // Each on the thread that has the fewest.
            let mut app = proxy.connect().await;
            app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
            assert!(app.response().await.starts_with("HTTP/1.1 200 OK"));
            apps.push(app);
            let expected = if round == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(aem.handshake().await, Some(expected), "{version:?}, round {round}");
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn an_authority_of_one_upstream_is_trusted_by_it_alone() {
    let (one, two) = (Aem::start(&TLS13, false).await, Aem::start(&TLS13, false).await);
    let proxy = Setup::default()
        .set("AUTH", "none")
        .set("PROXIES__ONE__LISTEN", "127.0.0.1:0")
        .set("PROXIES__ONE__UPSTREAM", "one")
        .set("PROXIES__TWO__LISTEN", "127.0.0.1:0")
        .set("PROXIES__TWO__UPSTREAM", "two")
        .set("UPSTREAMS__ONE__URL", one.origin.clone())
        .set("UPSTREAMS__ONE__CA_FILE", commands::path(one.ca.path()))
        .set("UPSTREAMS__TWO__URL", two.origin.clone())
        .start()
        .await;
    for (addr, status) in proxy.addrs.iter().zip([200, 502]) {
        let answer = crate::harness::client().get(format!("http://{addr}/")).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    proxy.stop().await;
}

/// Asks until AEM answers so.
async fn until_status(proxy: &Proxy, status: u16) {
    let asking = async {
        while proxy.get("/").await.status() != status {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("no answer becomes {status}"));
}

#[tokio::test]
async fn a_new_client_certificate_is_taken_up_and_a_bad_one_is_not() {
    let aem = Aem::start(&TLS13, true).await;
    let (certificate, key) = stranger();
    let setup = showing(aem.setup(), certificate.path(), key.path()).set("WATCH__POLL", "50ms");
    let proxy = setup.start().await;
    check_refused(&proxy, "tls_alert_received", "client-certificate").await;

    let (right, its_key) = aem.authority.client_certificate().unwrap();
    std::fs::write(certificate.path(), &right).unwrap();
    std::fs::write(key.path(), &its_key).unwrap();
    until_status(&proxy, 200).await;

    // Half of a change, and then none at all.
    std::fs::write(certificate.path(), aem.authority.client_certificate().unwrap().0).unwrap();
    let told = format!("is not the key of the certificate in {}", certificate.path().display());
    let logged = async {
        while log::count(&told) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, logged).await.expect("it is told");
    assert_eq!(proxy.get("/").await.status(), 200, "what was read before stays");
    proxy.stop().await;
}

#[tokio::test]
async fn a_new_authority_is_trusted_for_aem_and_ims_without_a_restart() {
    for hang_up in [false, true] {
        let ca = file(Tls::generate(&["localhost"]).unwrap().ca_pem());
        let poll = if hang_up { "1h" } else { "50ms" };
        let setup = Setup::default().tls().set("CA_FILE", commands::path(ca.path())).set("WATCH__POLL", poll);
        let proxy = setup.start_without_token().await;
        proxy.standins.ims.attempts();
        assert_eq!(proxy.ask("/ready").await.0, 503);
        std::fs::write(ca.path(), proxy.standins.ca_pem.as_ref().unwrap()).unwrap();
        if hang_up {
            proxy.hang_up().await;
        }
        proxy.ready().await;
        until_status(&proxy, 404).await;
        assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_at_the_start() {
    let authority = Tls::generate(&["localhost"]).unwrap();
    let ((certificate, key), (_, other)) = (pair(&authority), pair(&authority));
    let junk = file("junk");
    let path = |file: &tempfile::NamedTempFile| commands::path(file.path()).to_owned();
    for (ca, certificate, key, words) in [
        (path(&junk), path(&certificate), path(&key), "upstreams.default.ca_file"),
        ("/nowhere".to_owned(), path(&certificate), path(&key), "/nowhere cannot be read"),
        (path(&certificate), path(&junk), path(&key), "upstreams.default.client_certificate_file"),
        (path(&certificate), path(&certificate), path(&junk), "holds no usable key"),
        (path(&certificate), path(&certificate), path(&other), "is not the key of the certificate"),
    ] {
        let variables = [
            ("AEM_PROXY_UPSTREAM", "https://localhost:1"),
            ("AEM_PROXY_AUTH", "none"),
            ("AEM_PROXY_UPSTREAMS__DEFAULT__CA_FILE", ca.as_str()),
            ("AEM_PROXY_UPSTREAMS__DEFAULT__CLIENT_CERTIFICATE_FILE", certificate.as_str()),
            ("AEM_PROXY_UPSTREAMS__DEFAULT__CLIENT_KEY_FILE", key.as_str()),
        ];
        let (code, _, err) = commands::text(&commands::run(&[], &variables).await);
        assert!(code == 78 && err.contains(words), "{words}: {code} {err}");
    }
}

#[tokio::test]
async fn check_shows_the_same_certificate() {
    let aem = Aem::start(&TLS13, true).await;
    let (certificate, key) = pair(&aem.authority);
    let mut variables = vec![
        ("AEM_PROXY_UPSTREAM", aem.origin.as_str()),
        ("AEM_PROXY_AUTH", "none"),
        ("AEM_PROXY_CA_FILE", commands::path(aem.ca.path())),
    ];
    let (code, out, _) = commands::text(&commands::run(&["check"], &variables).await);
    assert!(code == 1 && out.contains("it wants a client certificate"), "{out}");
    variables.extend([
        ("AEM_PROXY_UPSTREAMS__DEFAULT__CLIENT_CERTIFICATE_FILE", commands::path(certificate.path())),
        ("AEM_PROXY_UPSTREAMS__DEFAULT__CLIENT_KEY_FILE", commands::path(key.path())),
    ]);
    let (code, out, _) = commands::text(&commands::run(&["check"], &variables).await);
    assert!(code == 0 && out.contains("answered 200"), "{out}");
    assert!(out.contains(&format!("{} is good for 363 days, until ", certificate.path().display())), "{out}");
}
