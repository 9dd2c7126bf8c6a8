//! Who may ask, and what is a request at all.

use crate::harness::{Proxy, Setup, with_upstream};

async fn ask(proxy: &Proxy, request: &str) -> String {
    let mut app = proxy.connect().await;
    app.send(request).await;
    app.rest().await
}

#[track_caller]
fn check_problem(answer: &str, status: u16, error: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(&format!("proxy-status: aem-auth-proxy; error={error}")), "{answer}");
    assert!(answer.contains("content-type: application/problem+json"), "{answer}");
    assert!(answer.contains("\"detail\":"), "{answer}");
}

#[tokio::test]
async fn other_hosts_and_other_sites_are_refused_before_anything_happens() {
    let proxy = Proxy::start().await;
    for (field, reason) in [
        ("host: evil.example", "host"),
        ("host: localhost\r\norigin: https://evil.example", "origin"),
        ("host: localhost\r\norigin: null", "origin"),
        ("host: localhost\r\nsec-fetch-site: cross-site", "cross_site"),
    ] {
        let answer =
            ask(&proxy, &format!("GET /echo HTTP/1.1\r\n{field}\r\nconnection: close\r\n\r\n")).await;
        check_problem(&answer, 403, "http_request_denied");
        let metric = format!("aem_proxy_denied_total{{proxy=\"default\",reason=\"{reason}\"}}");
        assert!(proxy.metric(&metric).await > 0.0, "{metric}");
    }
    for head in ["", "host: localhost\r\nhost: localhost\r\n"] {
        let answer = ask(&proxy, &format!("GET /echo HTTP/1.1\r\n{head}connection: close\r\n\r\n")).await;
        check_problem(&answer, 400, "http_request_error");
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    proxy.stop().await;
}

#[tokio::test]
async fn configured_names_and_origins_are_let_in() {
    let setup = Setup::default()
        .set("GUARD__ALLOWED_HOSTS", "proxy")
        .set("GUARD__ALLOWED_ORIGINS", "http://localhost:3000");
    let proxy = setup.start().await;
    let request = "GET /api/assets.json HTTP/1.1\r\nhost: proxy:8080\r\norigin: http://localhost:3000\r\nconnection: close\r\n\r\n";
    assert!(ask(&proxy, request).await.starts_with("HTTP/1.1 200 OK"));
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_no_request_gets_a_problem_document_and_the_connection_ends() {
    let proxy = Proxy::start().await;
    for request in [
        "nonsense\r\n\r\n",
        "GET / HTTP/3.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: localhost\r\nname : spaced\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n",
    ] {
        check_problem(&ask(&proxy, request).await, 400, "http_request_error");
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    proxy.stop().await;
}

#[tokio::test]
async fn bad_bytes_after_a_good_request_leave_its_answer_whole() {
    let proxy = Proxy::start().await;
    let mut app = proxy.connect().await;
    app.send("GET /echo HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let first = app.until("HTTP/1.1\"}").await;
    assert!(first.starts_with("HTTP/1.1 200 OK"));
    app.send("nonsense\r\n\r\n").await;
    check_problem(&app.rest().await, 400, "http_request_error");
    proxy.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_or_too_slow_is_refused() {
    let proxy =
        Setup::default().set("LIMITS__HEAD", "16 KiB").set("TIMEOUTS__REQUEST_HEAD", "200ms").start().await;
    let head = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(20 * 1024));
    check_problem(&ask(&proxy, &head).await, 431, "http_request_error");
    let uri = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(20 * 1024));
    check_problem(&ask(&proxy, &uri).await, 414, "http_request_error");
    check_problem(&ask(&proxy, "GET / HTTP/1.1\r\nhost:").await, 408, "http_request_error");
    let fits = format!(
        "GET /echo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: {}\r\n\r\n",
        "a".repeat(12 * 1024)
    );
    assert!(ask(&proxy, &fits).await.starts_with("HTTP/1.1 200"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_head_after_an_answer_of_our_own_is_watched_as_any_other() {
    let proxy = Setup::default().set("TIMEOUTS__REQUEST_HEAD", "200ms").start().await;
    let mut app = proxy.connect().await;
    app.send("GET /echo HTTP/1.1\r\nhost: evil.example\r\n\r\n").await;
    check_problem(&app.response().await, 403, "http_request_denied");
    app.send("GET /echo HT").await;
    check_problem(&app.rest().await, 408, "http_request_error");
    proxy.stop().await;
}

#[tokio::test]
async fn a_head_in_many_pieces_is_a_head() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    for byte in b"GET /slow HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" {
        app.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert!(app.rest().await.ends_with("\r\n\r\nok"));
    proxy.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let proxy = Setup::default().set("TIMEOUTS__KEEP_ALIVE", "200ms").start().await;
    assert_eq!(proxy.connect().await.rest().await, "");
    proxy.stop().await;
}
