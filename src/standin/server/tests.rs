use axum::routing::get;
use http_body_util::BodyExt;
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::WantsClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::standin::keys::Tls;

const ANY_PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

async fn ask(addr: SocketAddr) -> io::Result<String> {
    exchange(&mut TcpStream::connect(addr).await?).await
}

/// A client that trusts this authority, and keeps its sessions.
fn trusting(tls: &Tls) -> ClientConfig {
    trust(tls).with_no_client_auth()
}

fn trust(tls: &Tls) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(tls.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    config.unwrap().with_root_certificates(roots)
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

async fn connect(server: &Server, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.addr()).await?;
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await
}

#[tokio::test]
async fn http2_is_spoken_with_who_wants_it_where_it_is_offered() {
    let tls = Tls::generate(&["localhost"]).unwrap();
    let shown = async |request: Request| {
        format!("{:?} {} {:?}", request.version(), request.uri(), request.headers().get(HOST))
    };
    let router = Router::new().route("/a", get(shown));
    let [plain, both] = [tls.clone(), tls.clone().offering_http2()];
    let wanting = |protocols: &[&[u8]]| {
        let mut config = trusting(&tls);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config
    };
    let server = Server::start(router.clone(), ANY_PORT.into(), Some(plain.server_config())).await.unwrap();
    let stream = connect(&server, wanting(&[b"h2", b"http/1.1"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));

    let server = Server::start(router, ANY_PORT.into(), Some(both.server_config())).await.unwrap();
    for protocols in [&[&b"http/1.1"[..]][..], &[]] {
        let mut stream = connect(&server, wanting(protocols)).await.unwrap();
        assert!(exchange(&mut stream).await.unwrap().starts_with("HTTP/1.1 404"));
    }
    let stream = connect(&server, wanting(&[b"http/1.1", b"h2"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let client = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut requests, connection) = client.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://localhost:1/a?b").body(axum::body::Body::empty()).unwrap();
    let answer = requests.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.to_bytes(), r#"HTTP/2.0 /a?b Some("localhost:1")"#);
}

#[tokio::test]
async fn who_has_no_certificate_of_the_authority_is_not_let_in_where_one_is_asked_for() {
    let [tls, other] = [(); 2].map(|()| Tls::generate(&["localhost"]).unwrap());
    let guarded = tls.clone().requiring_client_certificates().unwrap();
    let router = Router::new().route("/", get(|| async { "here" }));
    let server = Server::start(router, ANY_PORT.into(), Some(guarded.server_config())).await.unwrap();
    // The client has finished its handshake before the server has seen its certificate.
    let ask = async |config: ClientConfig| match connect(&server, config).await {
        Ok(mut stream) => exchange(&mut stream).await.is_ok_and(|answer| answer.ends_with("here")),
        Err(_) => false,
    };
    assert!(!ask(trusting(&tls)).await);
    assert!(!ask(identified(&tls, &other)).await);
    assert!(ask(identified(&tls, &tls)).await);
}

/// A client of `tls` with a certificate of another authority.
fn identified(tls: &Tls, authority: &Tls) -> ClientConfig {
    let (certificate, key) = authority.client_certificate().unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    trust(tls).with_client_auth_cert(vec![certificate], key).unwrap()
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
    let mut server = Server::start(Router::new().route("/", get(hang)), ANY_PORT.into(), None).await.unwrap();
    let asking = tokio::spawn(ask(server.addr()));
    arrivals.recv().await.unwrap();
    assert_eq!(server.connections_open(), 1);
    server.stop().await;
    assert_eq!(server.connections_open(), 0);
    assert!(!matches!(asking.await.unwrap(), Ok(answer) if !answer.is_empty()));
}
