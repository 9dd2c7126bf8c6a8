//! A connection to AEM that turns out dead costs nobody a request that can be sent again safely, and no write is sent
//! twice.

use crate::harness::{Proxy, Raw, Setup, Upstream, with_upstream};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A connection to AEM that has served one request and waits for the next one.
async fn used(setup: Setup) -> (Proxy, Upstream, Raw, Raw) {
    let (proxy, upstream) = with_upstream(setup).await;
    let mut app = proxy.connect().await;
    app.send("GET /first HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send(OK).await;
    app.response().await;
    (proxy, upstream, app, aem)
}

#[tokio::test]
async fn what_is_safe_to_repeat_is_sent_over_another_connection() {
    for (head, body) in
        [("GET /x", ""), ("PUT /x", "hello"), ("DELETE /x", ""), ("HEAD /x", ""), ("PROPFIND /x", "")]
    {
        let (proxy, upstream, mut app, mut aem) = used(Setup::default()).await;
        let length = body.len();
        app.send(format!("{head} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}"))
            .await;
        let end = if body.is_empty() { "\r\n\r\n" } else { body };
        let first = aem.until(end).await;
        drop(aem);
        let mut again = upstream.accept().await;
        assert_eq!(again.until(end).await, first);
        again.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        assert!(app.response().await.starts_with("HTTP/1.1 200 OK"), "{head}");
        let metric = "aem_proxy_upstream_retries_total{proxy=\"default\",reason=\"connection\"}";
        assert_eq!(proxy.metric(metric).await, 1.0);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_write_of_which_something_has_left_is_not_sent_again() {
    for head in ["POST /x", "PATCH /x", "MOVE /x", "LOCK /x"] {
        let (proxy, _upstream, mut app, mut aem) = used(Setup::default()).await;
        app.send(format!("{head} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello")).await;
        aem.until("hello").await;
        drop(aem);
        let answer = app.response().await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{head}: {answer}");
        assert!(answer.contains("error=connection_terminated"), "{answer}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_connection_that_aem_has_closed_is_not_used_even_for_a_write() {
    let (proxy, upstream, mut app, aem) = used(Setup::default()).await;
    drop(aem);
    app.send("POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello").await;
    let mut again = upstream.accept().await;
    again.until("hello").await;
    again.send(OK).await;
    assert!(app.response().await.starts_with("HTTP/1.1 200 OK"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_half_answer_is_never_asked_for_again() {
    let (proxy, _upstream, mut app, mut aem) = used(Setup::default()).await;
    app.send("GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    drop(aem);
    let (answer, reset) = app.rest_or_reset().await;
    assert!(answer.ends_with("half") && reset, "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_body_that_is_not_kept_is_not_sent_again() {
    let (proxy, _upstream, mut app, mut aem) = used(Setup::default().set("LIMITS__REPLAY", "4")).await;
    app.send("PUT /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello").await;
    aem.until("hello").await;
    drop(aem);
    assert!(app.response().await.starts_with("HTTP/1.1 502 "));
    proxy.stop().await;
}
