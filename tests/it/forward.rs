//! What AEM gets to see, and what the app gets back.

use crate::harness::{Proxy, Setup, Upstream, client, with_upstream};

#[tokio::test]
async fn a_request_without_a_token_is_answered_by_aem_and_straight_it_is_not() {
    let proxy = Proxy::start().await;
    let response = proxy.get("/api/assets.json").await;
    assert_eq!(response.status(), 200);
    assert!(response.text().await.unwrap().contains("assets/folder"));
    let straight =
        client().get(format!("{}/api/assets.json", proxy.standins.aem_origin)).send().await.unwrap();
    assert_eq!(straight.status(), 401);
    proxy.stop().await;
}

#[tokio::test]
async fn ims_and_aem_are_reached_over_tls_with_the_ca_that_was_given() {
    let proxy = Setup::default().tls().start().await;
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    assert_eq!(
        proxy.echo(&[]).await.one("host").unwrap(),
        proxy.standins.aem_origin.trim_start_matches("https://")
    );
    proxy.stop().await;
}

#[tokio::test]
async fn our_bearer_replaces_whatever_came_and_cannot_be_stripped() {
    let proxy = Proxy::start().await;
    for fields in [
        &[("authorization", "Basic aemsync")][..],
        &[("connection", "authorization")],
        &[("connection", "close, Authorization"), ("authorization", "Bearer forged")],
        &[("connection", "host, via"), ("proxy-authorization", "Basic x")],
    ] {
        let seen = proxy.echo(fields).await;
        assert_eq!(seen.one("authorization").as_deref(), Some("Bearer (live)"), "{fields:?}");
        assert_eq!(seen.one("proxy-authorization"), None);
        assert_eq!(seen.one("host").unwrap(), proxy.standins.aem_origin.trim_start_matches("http://"));
        assert_eq!(seen.one("via").as_deref(), Some("1.1 aem-auth-proxy"));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn forwarded_fields_and_the_login_token_stay_here() {
    let proxy = Proxy::start().await;
    let seen = proxy
        .echo(&[
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "host=evil.example"),
            ("cookie", "login-token=another; affinity=ab"),
            ("x-custom", "kept"),
        ])
        .await;
    for name in ["x-forwarded-host", "x-forwarded-for", "x-forwarded-proto", "forwarded"] {
        assert_eq!(seen.one(name), None);
    }
    assert_eq!(seen.one("cookie").as_deref(), Some("affinity=ab"));
    assert_eq!(seen.one("x-custom").as_deref(), Some("kept"));
    proxy.stop().await;
}

#[tokio::test]
async fn path_and_query_reach_aem_byte_for_byte() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let long = format!("/q?{}", "a".repeat(16 * 1024));
    for target in [
        "/graphql/execute.json/wknd/adventures%3Bslug%3Dbali;",
        "/a;k=v/b%2Fc//d/./../e",
        "/content.json?",
        "/?a=%ff&b=ü",
        "/%7Euser?q=[1]|{2}",
        &long,
    ] {
        let mut app = proxy.connect().await;
        app.send(format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await;
        let mut aem = upstream.accept().await;
        let head = aem.until("\r\n\r\n").await;
        assert_eq!(head.lines().next().unwrap(), format!("GET {target} HTTP/1.1"));
        aem.send("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
        assert!(app.rest().await.starts_with("HTTP/1.1 204 No Content\r\n"));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn every_form_of_target_and_every_method_passes_but_connect() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    for (line, expected) in [
        ("GET http://localhost/abs?x=1 HTTP/1.1", "GET /abs?x=1 HTTP/1.1"),
        ("GET http://localhost HTTP/1.1", "GET / HTTP/1.1"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("COPY /content/dam/a HTTP/1.1", "COPY /content/dam/a HTTP/1.1"),
        ("PROPFIND / HTTP/1.1", "PROPFIND / HTTP/1.1"),
        ("GET /old HTTP/1.0", "GET /old HTTP/1.1"),
    ] {
        let mut app = proxy.connect().await;
        app.send(format!("{line}\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await;
        let mut aem = upstream.accept().await;
        let head = aem.until("\r\n\r\n").await;
        assert_eq!(head.lines().next(), Some(expected));
        aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        assert!(app.rest().await.contains(" 200 OK\r\n"), "{line}");
    }
    let mut app = proxy.connect().await;
    app.send("CONNECT localhost:443 HTTP/1.1\r\nhost: localhost:443\r\n\r\n").await;
    let answer = app.until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("http_request_denied"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_between_aem_and_the_proxy_does_not_reach_the_app() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send(
        "HTTP/1.1 200 Fine By Me\r\nconnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
         set-cookie: a=1; Path=/\r\nset-cookie: b=2; HttpOnly\r\netag: \"x\"\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let answer = app.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 Fine By Me\r\n"), "{answer}");
    assert!(!answer.contains("x-hop") && !answer.contains("keep-alive"), "{answer}");
    assert!(answer.contains("set-cookie: a=1; Path=/\r\nset-cookie: b=2; HttpOnly\r\n"), "{answer}");
    assert!(answer.contains("via: 1.1 aem-auth-proxy\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_redirect_is_handed_to_the_app() {
    let proxy = Proxy::start().await;
    let response = proxy.get("/redirect").await;
    assert_eq!(response.status(), 302);
    assert!(response.headers().contains_key("location"));
    assert_eq!(proxy.standins.aem.requests(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn connections_are_kept_on_both_sides_and_requests_may_be_pipelined() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("GET /one HTTP/1.1\r\nhost: localhost\r\n\r\nGET /two HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    let mut aem = upstream.accept().await;
    for name in ["/one", "/two", "/three"] {
        assert!(aem.until("\r\n\r\n").await.starts_with(&format!("GET {name} ")));
        aem.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len())).await;
        assert!(app.until(name).await.starts_with("HTTP/1.1 200 OK"));
        if name == "/two" {
            app.send("GET /three HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_kept_connection_that_aem_has_closed_is_not_used_again() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    for round in 0..3 {
        let mut app = proxy.connect().await;
        app.send("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        drop(aem);
        assert!(app.rest().await.starts_with("HTTP/1.1 200"), "round {round}");
        // The close has to arrive before the next request: a look at the pool comes with each of them.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_keeps_a_request_from_aem_has_its_own_problem_document() {
    let nobody = Upstream::bind().await;
    let origin = nobody.origin();
    drop(nobody);
    let refused = Setup::default().upstream(origin).set("TIMEOUTS__RECONNECT", "0s").start().await;
    check_problem(&refused, 502, "connection_refused", "connection-refused").await;

    let setup = Setup::default().upstream("https://no-such-host.invalid");
    check_problem(&setup.start().await, 502, "dns_error", "dns").await;

    // Another CA than the one that AEM's certificate is from.
    let other = Setup::default().tls().start_standins().await;
    let setup = Setup::default().upstream(&other.aem_origin);
    check_problem(&setup.start().await, 502, "tls_certificate_error", "tls-certificate-issuer").await;

    let plain = Setup::default().start_standins().await;
    let setup = Setup::default().upstream(plain.aem_origin.replace("http://127.0.0.1", "https://localhost"));
    check_problem(&setup.start().await, 502, "tls_protocol_error", "tls-none").await;
}

#[tokio::test]
async fn an_upstream_that_talks_nonsense_or_says_nothing_is_told_apart() {
    for (says, error) in [
        ("", "connection_terminated"),
        ("nonsense\r\n\r\n", "http_protocol_error"),
        ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "http_protocol_error"),
        (
            &format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(200_000)),
            "http_response_header_section_size",
        ),
    ] {
        let (proxy, upstream) = with_upstream(Setup::default()).await;
        // Whoever says nothing at all is asked again, up to a bound.
        let times = if says.is_empty() { 4 } else { 1 };
        let answering = async {
            for _ in 0..times {
                let mut aem = upstream.accept().await;
                aem.until("\r\n\r\n").await;
                aem.send(says).await;
            }
        };
        let (response, ()) = tokio::join!(proxy.get("/"), answering);
        assert_eq!(response.status(), 502);
        let status = response.headers()["proxy-status"].to_str().unwrap();
        assert_eq!(status, format!("aem-auth-proxy; error={error}"));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_a_504_and_its_request_ends() {
    let (proxy, upstream) = with_upstream(Setup::default().set("TIMEOUTS__RESPONSE_HEAD", "100ms")).await;
    let answering = async {
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        assert!(aem.is_ended().await, "the request is not given up");
    };
    let (response, ()) = tokio::join!(proxy.get("/"), answering);
    assert_eq!(response.status(), 504);
    assert_eq!(response.headers()["proxy-status"], "aem-auth-proxy; error=http_response_timeout");
    proxy.stop().await;
}

#[tokio::test]
async fn a_local_sdk_gets_basic_or_nothing() {
    let setup = Setup::default().set("AUTH", "basic").set("BASIC__PASSWORD", "admin");
    let (proxy, upstream) = with_upstream(setup).await;
    assert!(see_head(&proxy, &upstream).await.contains("authorization: Basic YWRtaW46YWRtaW4=\r\n"));
    assert_eq!(proxy.ask("/ready").await.0, 200);
    proxy.stop().await;

    let (proxy, upstream) = with_upstream(Setup::default().set("AUTH", "none")).await;
    assert!(!see_head(&proxy, &upstream).await.contains("authorization"));
    assert_eq!(proxy.status().await["credentials"], serde_json::json!([]));
    proxy.stop().await;
}

async fn see_head(proxy: &Proxy, upstream: &Upstream) -> String {
    let answering = async {
        let mut aem = upstream.accept().await;
        let head = aem.until("\r\n\r\n").await;
        aem.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        head
    };
    tokio::join!(proxy.get("/"), answering).1
}

async fn check_problem(proxy: &Proxy, status: u16, error: &str, name: &str) {
    let response = proxy.get("/some/path?with=query").await;
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(
        response.headers()["proxy-status"].to_str().unwrap(),
        format!("aem-auth-proxy; error={error}")
    );
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], format!("urn:aem-auth-proxy:problem:{name}"));
    assert!(problem["detail"].as_str().unwrap().len() > 20);
}
