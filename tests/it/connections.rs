//! How connections to AEM begin and end: tried again while nobody answers, and not for ever in use.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::harness::{PATIENCE, Proxy, Raw, Setup, with_upstream};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers each request on each connection, and counts the connections.
fn serve(listener: TcpListener) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Relaxed);
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                    if bytes.ends_with(b"\r\n\r\n") {
                        bytes.clear();
                        stream.write_all(OK.as_bytes()).await.expect("the proxy reads");
                    }
                }
            });
        }
    });
    count
}

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn attempts(outcome: &str) -> String {
    format!("aem_proxy_upstream_connects_total{{outcome=\"{outcome}\",upstream=\"default\"}}")
}

async fn until_metric(proxy: &Proxy, name: &str, at_least: f64) {
    let reaching = async {
        while proxy.metric(name).await < at_least {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, reaching).await.unwrap_or_else(|_| panic!("{name} does not reach {at_least}"));
}

#[tokio::test]
async fn a_busy_connection_is_replaced_when_it_is_old_and_no_request_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let count = serve(listener);
    let setup = Setup::default().upstream(origin).set("TIMEOUTS__UPSTREAM_MAX_AGE", "200ms");
    let proxy = setup.start().await;
    let mut app = proxy.connect().await;
    let asking = async {
        while count.load(Relaxed) < 3 {
            app.send("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await;
            let answer = app.response().await;
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
    };
    timeout(PATIENCE, asking).await.expect("new connections are made");
    assert_eq!(proxy.metric("aem_proxy_upstream_connections{upstream=\"default\"}").await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn an_idle_connection_ends_when_it_is_old() {
    let (proxy, upstream) = with_upstream(Setup::default().set("TIMEOUTS__UPSTREAM_MAX_AGE", "200ms")).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send(OK).await;
    app.response().await;
    assert!(aem.is_ended().await);
    let open = "aem_proxy_upstream_connections{upstream=\"default\"}";
    let closed = async { while proxy.metric(open).await > 0.0 {} };
    timeout(PATIENCE, closed).await.expect("it is counted no more");
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_is_tried_again_while_nobody_answers_whatever_the_method() {
    let addr = nobody().await;
    let setup = Setup::default().upstream(format!("http://{addr}")).set("TIMEOUTS__RECONNECT", "1m");
    let proxy = setup.set("TIMEOUTS__CONNECT", "1m").start().await;
    let mut app = proxy.connect().await;
    app.send("POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello").await;
    until_metric(&proxy, &attempts("refused"), 2.0).await;
    let aem = TcpListener::bind(addr).await.unwrap();
    let (stream, _) = timeout(PATIENCE, aem.accept()).await.expect("it is tried again").unwrap();
    let mut aem = Raw(stream);
    assert!(aem.until("hello").await.starts_with("POST /x "));
    aem.send(OK).await;
    assert!(app.response().await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(proxy.metric(&attempts("ok")).await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_handshake_that_breaks_off_is_begun_again_and_a_certificate_is_not_looked_at_twice() {
    let other = Setup::default().tls().start_standins().await;
    let behind = other.aem_origin.strip_prefix("https://").unwrap().to_owned();
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://localhost:{}", front.local_addr().unwrap().port());
    tokio::spawn(async move {
        for _ in 0..2 {
            drop(front.accept().await);
        }
        while let Ok((mut stream, _)) = front.accept().await {
            let mut aem = TcpStream::connect(&behind).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut aem).await });
        }
    });
    // That AEM's authority is not trusted here.
    let setup = Setup::default().upstream(origin).set("TIMEOUTS__RECONNECT", "1m");
    let proxy = setup.set("TIMEOUTS__CONNECT", "1m").start().await;
    let response = proxy.get("/").await;
    assert_eq!(response.headers()["proxy-status"], "aem-auth-proxy; error=tls_certificate_error");
    assert_eq!(proxy.metric(&attempts("broken_off")).await, 2.0);
    assert_eq!(proxy.metric(&attempts("certificate")).await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn without_patience_a_connection_is_tried_once() {
    let origin = format!("http://{}", nobody().await);
    let proxy = Setup::default().upstream(origin).set("TIMEOUTS__RECONNECT", "0s").start().await;
    assert_eq!(proxy.get("/").await.status(), 502);
    assert_eq!(proxy.metric(&attempts("refused")).await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_attempts_for_it() {
    let addr = nobody().await;
    let setup = Setup::default().upstream(format!("http://{addr}")).set("TIMEOUTS__RECONNECT", "1m");
    let proxy = setup.set("TIMEOUTS__CONNECT", "1m").start().await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    until_metric(&proxy, &attempts("refused"), 1.0).await;
    drop(app);
    let in_flight = "aem_proxy_requests_in_flight{proxy=\"default\"}";
    let over = async { while proxy.metric(in_flight).await > 0.0 {} };
    timeout(PATIENCE, over).await.expect("nobody waits for it");
    proxy.stop().await;
}

#[tokio::test]
async fn an_upstream_that_listens_at_one_of_two_families_is_found() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        eprintln!("SKIPPED: there is no IPv6 here");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let looked_up = tokio::net::lookup_host(("localhost", port)).await.unwrap();
    if !looked_up.into_iter().any(|addr| addr.is_ipv6()) {
        eprintln!("SKIPPED: localhost has no IPv6 address here");
        return;
    }
    serve(listener);
    let proxy = Setup::default().upstream(format!("http://localhost:{port}")).start().await;
    assert_eq!(proxy.get("/").await.status(), 200);
    proxy.stop().await;
}
