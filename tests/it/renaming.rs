//! What comes back and names AEM names the proxy, as the client has named it.

use crate::harness::{Proxy, Setup, Upstream, with_upstream};

/// The head of the proxy's answer to `GET path`, for which the client came to `host` and AEM answered with `fields`.
async fn head(proxy: &Proxy, upstream: &Upstream, host: &str, fields: &str) -> String {
    let mut app = proxy.connect().await;
    app.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send(format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n")).await;
    app.rest().await
}

#[tokio::test]
async fn fields_that_name_aem_name_the_proxy_as_the_client_came_to_it() {
    let (proxy, upstream) =
        with_upstream(Setup::default().set("GUARD__ALLOWED_HOSTS", "proxy.example")).await;
    let aem = upstream.origin();
    for host in ["localhost:1234", "127.0.0.1", "Proxy.Example:8443"] {
        let fields = format!(
            "Location: {aem}/a?b\r\ncontent-location: {aem}/c\r\nlink: <{aem}/d>; rel=next, </e>\r\n\
             refresh: 5; url={aem}/f\r\nx-other: {aem}/g\r\n"
        );
        let seen = head(&proxy, &upstream, host, &fields).await;
        for line in [
            format!("Location: http://{host}/a?b\r\n"),
            format!("content-location: http://{host}/c\r\n"),
            format!("link: <http://{host}/d>; rel=next, </e>\r\n"),
            format!("refresh: 5; url=http://{host}/f\r\n"),
            format!("x-other: {aem}/g\r\n"),
        ] {
            assert!(seen.contains(&line), "{line} in {seen}");
        }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_redirect_to_another_host_stays_one() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let fields = "location: https://other.example/x\r\n";
    assert!(head(&proxy, &upstream, "localhost", fields).await.contains(fields));
    proxy.stop().await;
}

#[tokio::test]
async fn each_of_several_cookies_is_one_that_a_browser_takes_from_the_proxy() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let fields = "set-cookie: affinity=\"1\"; Path=/; HttpOnly\r\n\
                  Set-Cookie: a=1; Domain=aem.example; Path=/; Secure\r\n\
                  set-cookie: b=2; Secure; SameSite=None\r\n";
    let seen = head(&proxy, &upstream, "localhost", fields).await;
    let cookies: Vec<_> =
        seen.lines().filter(|line| line.to_ascii_lowercase().starts_with("set-cookie")).collect();
    assert_eq!(
        cookies,
        ["set-cookie: affinity=\"1\"; Path=/; HttpOnly", "Set-Cookie: a=1; Path=/", "set-cookie: b=2"]
    );
    proxy.stop().await;
}

#[tokio::test]
async fn early_hints_name_the_proxy_too() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send(format!("HTTP/1.1 103 Early Hints\r\nlink: <{}/x>; rel=preload\r\n\r\n", upstream.origin()))
        .await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert!(app.rest().await.contains("link: <http://localhost/x>; rel=preload"));
    proxy.stop().await;
}
