//! Upgrades: WebSocket passes, and other protocols that are not HTTP in disguise.

use crate::harness::{Proxy, Setup, with_upstream};

const ASK: &str = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n";

#[tokio::test]
async fn a_websocket_becomes_a_tunnel_with_our_token() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send(ASK).await;
    let mut aem = upstream.accept().await;
    let head = aem.until("\r\n\r\n").await;
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer "));
    aem.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst")
        .await;
    let answer = app.until("first").await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("upgrade: websocket\r\n"), "{answer}");
    app.send("ping").await;
    aem.until("ping").await;
    aem.send("pong").await;
    app.until("pong").await;
    // More than any head may have, and what looks like an answer of hyper's own: all of it passes.
    let long = "0123456789".repeat(20_000);
    app.send(&long).await;
    app.send("end").await;
    assert_eq!(aem.until("end").await, format!("{long}end"));
    aem.send("HTTP/1.1 400 Bad Request").await;
    assert_eq!(app.until("Request").await, "HTTP/1.1 400 Bad Request");
    let in_flight = "aem_proxy_requests_in_flight{proxy=\"default\"}";
    assert_eq!(proxy.metric(in_flight).await, 1.0);
    drop(app);
    assert!(aem.is_ended().await);
    proxy.stop().await;
}

#[tokio::test]
async fn a_tunnel_that_aem_closes_is_closed_for_the_client() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send(ASK).await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nbye")
        .await;
    app.until("bye").await;
    drop(aem);
    assert!(app.is_ended().await);
    proxy.stop().await;
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_is_closed() {
    let (proxy, upstream) = with_upstream(Setup::default().set("TIMEOUTS__IDLE", "200ms")).await;
    let mut app = proxy.connect().await;
    app.send(ASK).await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    app.until("\r\n\r\n").await;
    assert!(app.is_ended().await && aem.is_ended().await);
    proxy.stop().await;
}

#[tokio::test]
async fn a_websocket_that_aem_declines_is_an_ordinary_answer() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send(ASK).await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    assert!(app.until("\r\n\r\nno").await.starts_with("HTTP/1.1 403"));
    proxy.stop().await;
}

#[tokio::test]
async fn any_other_protocol_becomes_a_tunnel_too() {
    let proxy = Proxy::start().await;
    let mut app = proxy.connect().await;
    app.send("GET /upgrade HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: Foo/2\r\n\r\nping")
        .await;
    let answer = app.until("ping").await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("upgrade: Foo/2\r\n"), "{answer}");
    drop(app);
    for list in ["foo, bar", "foo\r\nupgrade: bar", "TLS/1.3", "HTTP/2.0"] {
        let mut app = proxy.connect().await;
        app.send(format!("GET /upgrade HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, close\r\nupgrade: {list}\r\n\r\n")).await;
        // The stand-in AEM has not heard of an upgrade.
        assert!(app.rest().await.starts_with("HTTP/1.1 426"), "{list}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn h2c_and_unasked_upgrades_do_not_pass() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    let head = aem.until("\r\n\r\n").await;
    assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
    aem.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n").await;
    let answer = app.until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("http_upgrade_failed"), "{answer}");

    // Nor does an upgrade to something else than was asked for.
    let mut app = proxy.connect().await;
    app.send(ASK).await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n").await;
    assert!(app.until("\r\n\r\n").await.starts_with("HTTP/1.1 502"));
    let mut app = proxy.connect().await;
    app.send(ASK).await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n").await;
    assert!(app.until("\r\n\r\n").await.starts_with("HTTP/1.1 502"));
    proxy.stop().await;
}
