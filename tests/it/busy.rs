//! An AEM that is busy says when to come back, and those who may come back once do so then.

use crate::harness::{Proxy, Setup, Upstream, with_upstream};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn busy(status: u16, retry_after: &str) -> String {
    format!("HTTP/1.1 {status} Busy\r\nretry-after: {retry_after}\r\ncontent-length: 4\r\n\r\nbusy")
}

async fn patient(budget: &str) -> (Proxy, Upstream) {
    with_upstream(Setup::default().set("RETRY__BUDGET", budget).set("RETRY__MAX_WAIT", "2s")).await
}

#[tokio::test]
async fn a_request_comes_back_when_aem_says_so() {
    for status in [429, 503] {
        let (proxy, upstream) = patient("0.1").await;
        let mut app = proxy.connect().await;
        app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        aem.send(busy(status, "0")).await;
        aem.until("\r\n\r\n").await;
        aem.send(OK).await;
        assert!(app.response().await.starts_with("HTTP/1.1 200 OK"));
        let metric = "aem_proxy_upstream_retries_total{proxy=\"default\",reason=\"busy\"}";
        assert_eq!(proxy.metric(metric).await, 1.0);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn the_app_hears_it_where_it_may_not_be_repeated_or_would_take_too_long() {
    for (budget, head, retry_after) in
        [("0", "GET", "0"), ("0.1", "POST", "0"), ("0.1", "GET", "3"), ("0.1", "GET", "soon")]
    {
        let (proxy, upstream) = patient(budget).await;
        let mut app = proxy.connect().await;
        app.send(format!("{head} / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")).await;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        aem.send(busy(503, retry_after)).await;
        let answer = app.response().await;
        assert!(answer.starts_with("HTTP/1.1 503 Busy") && answer.ends_with("busy"), "{answer}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_date_is_a_time_to_come_back_too() {
    let (proxy, upstream) = patient("0.1").await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send(busy(503, "Thu, 01 Jan 1970 00:00:00 GMT")).await;
    aem.until("\r\n\r\n").await;
    aem.send(OK).await;
    assert!(app.response().await.starts_with("HTTP/1.1 200 OK"));
    proxy.stop().await;
}

#[tokio::test]
async fn an_aem_that_stays_busy_is_not_asked_for_ever() {
    let (proxy, upstream) = patient("1").await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    for _ in 0..3 {
        aem.until("\r\n\r\n").await;
        aem.send(busy(503, "0")).await;
    }
    assert!(app.response().await.starts_with("HTTP/1.1 503 Busy"));
    proxy.stop().await;
}
