//! The way down: what is in flight ends well, nothing new begins.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::harness::{PATIENCE, Proxy, Setup, client, with_upstream};

#[tokio::test]
async fn requests_in_flight_finish_and_new_ones_are_refused() {
    let (mut proxy, upstream) = with_upstream(Setup::default()).await;
    let mut slow = proxy.connect().await;
    slow.send("GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    let mut idle = proxy.connect().await;
    let mut unfinished = proxy.connect().await;
    unfinished.send("GET /unfinished HT").await;

    proxy.ask_to_stop().await;
    proxy.until("/ready", 503).await;
    assert!(idle.is_ended().await, "an idle connection holds nobody up");
    assert!(unfinished.is_ended().await, "nor does one whose request is not there yet");
    until_closed(&proxy).await;
    assert_eq!(proxy.ask("/live").await.0, 200);

    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
    let answer = slow.rest().await;
    assert!(answer.contains("connection: close") && answer.ends_with("\r\n\r\ndone"), "{answer}");
    proxy.ended().await.expect("an orderly end");
}

#[tokio::test]
async fn a_request_that_waits_for_a_busy_aem_gets_what_aem_has_said() {
    let setup = Setup::default().set("RETRY__BUDGET", "1").set("RETRY__MAX_WAIT", "2h");
    let (mut proxy, upstream) = with_upstream(setup).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 503 Busy\r\nretry-after: 3600\r\ncontent-length: 4\r\n\r\nbusy").await;
    let waiting = async {
        while proxy.metric("aem_proxy_upstream_retries_total{proxy=\"default\",reason=\"busy\"}").await < 1.0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the request waits");
    proxy.ask_to_stop().await;
    let answer = app.rest().await;
    assert!(answer.starts_with("HTTP/1.1 503 Busy") && answer.ends_with("busy"), "{answer}");
    proxy.ended().await.expect("an orderly end");
}

#[tokio::test]
async fn requests_that_outlast_the_grace_are_closed() {
    let (mut proxy, upstream) = with_upstream(Setup::default().set("SHUTDOWN__GRACE", "100ms")).await;
    let mut slow = proxy.connect().await;
    slow.send("GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    proxy.ask_to_stop().await;
    proxy.ended().await.expect("an end all the same");
    drop(slow);
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let (mut proxy, upstream) = with_upstream(Setup::default().set("SHUTDOWN__GRACE", "1h")).await;
    let mut slow = proxy.connect().await;
    slow.send("GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    proxy.ask_to_stop().await;
    proxy.until("/ready", 503).await;
    proxy.ask_to_stop().await;
    proxy.ended().await.expect("an end");
}

#[tokio::test]
async fn a_delay_keeps_the_listener_open_while_ready_says_no() {
    let mut proxy = Setup::default().set("SHUTDOWN__DELAY", "1h").start().await;
    proxy.ask_to_stop().await;
    proxy.until("/ready", 503).await;
    assert_eq!(proxy.status().await["draining"], true);
    assert_eq!(client().get(proxy.url("/api/assets.json")).send().await.unwrap().status(), 200);
    proxy.ask_to_stop().await;
    proxy.ended().await.expect("an end");
}

#[tokio::test]
async fn an_upload_in_flight_finishes_too() {
    let (mut proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nfirst").await;
    let mut aem = upstream.accept().await;
    aem.until("first").await;
    proxy.ask_to_stop().await;
    proxy.until("/ready", 503).await;
    until_closed(&proxy).await;
    app.send("-last").await;
    aem.until("-last").await;
    aem.send("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").await;
    assert!(app.rest().await.starts_with("HTTP/1.1 201"));
    proxy.ended().await.expect("an orderly end");
}

/// Waits until nobody listens any more.
async fn until_closed(proxy: &Proxy) {
    let closing = async {
        while TcpStream::connect(proxy.addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closing).await.expect("the listener closes");
}
