//! An AEM that sends the credential back does not get it to the app.

use crate::{
    harness::{Proxy, Raw, Setup, Upstream, with_upstream},
    log,
};

const ECHOES: &str = "aem_proxy_token_echoes_total{proxy=\"default\"}";

/// Asks for `path`, and gives AEM's end of it with what the request was sent with.
async fn asked(proxy: &Proxy, upstream: &Upstream) -> (Raw, Raw, String) {
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\nsec-fetch-mode: navigate\r\nconnection: close, te\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    let head = aem.until("\r\n\r\n").await;
    let field = head.lines().find_map(|line| line.strip_prefix("authorization: ")).expect("it is sent");
    let credential = field.split_once(' ').expect("a scheme").1.to_owned();
    (app, aem, credential)
}

/// What the app gets of an answer in which every `TOKEN` is the credential.
async fn answered(proxy: &Proxy, upstream: &Upstream, answer: &str) -> (String, String) {
    let (mut app, mut aem, credential) = asked(proxy, upstream).await;
    aem.send(answer.replace("TOKEN", &credential)).await;
    drop(aem);
    (app.rest().await, credential)
}

#[tokio::test]
async fn a_token_that_comes_back_in_a_head_is_cut_counted_and_warned_of_without_it() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let warned = log::count("AEM sends the credential back in its answers' heads");
    let answer = "HTTP/1.1 302 Found\r\nX-Debug: Bearer TOKEN\r\nlocation: https://other.example/?access_token=TOKEN&x=1\r\n\
                  Set-Cookie: login-token=TOKEN; Path=/; HttpOnly\r\nSet-Cookie: a=b\r\nETag: \"kept\"\r\nContent-Length: 0\r\n\r\n";
    let (got, token) = answered(&proxy, &upstream, answer).await;
    assert!(!got.contains(&token), "the token came through");
    assert!(!got.contains("X-Debug") && !got.to_lowercase().contains("location"), "{got}");
    assert!(got.starts_with("HTTP/1.1 302 Found\r\n"), "{got}");
    assert!(got.contains("Set-Cookie: a=b\r\n") && got.contains("ETag: \"kept\"\r\n"), "{got}");
    assert_eq!(proxy.metric(ECHOES).await, 3.0);
    assert!(log::count("AEM sends the credential back in its answers' heads") > warned);
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_that_comes_back_in_a_reason_an_interim_answer_or_a_trailer_is_cut_too() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Hint: TOKEN\r\n\r\n\
                  HTTP/1.1 200 TOKEN\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nDigest: 1\r\nX-Echo: TOKEN\r\n\r\n";
    let (got, token) = answered(&proxy, &upstream, answer).await;
    assert!(!got.contains(&token), "the token came through");
    assert!(got.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n"), "{got}");
    assert!(got.contains("HTTP/1.1 200 \r\n") && got.ends_with("2\r\nok\r\n0\r\nDigest: 1\r\n\r\n"), "{got}");
    assert_eq!(proxy.metric(ECHOES).await, 3.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_body_is_not_looked_at_and_what_is_no_credential_of_ours_passes() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let answer = "HTTP/1.1 200 OK\r\nX-Cut: Bearer\r\nX-Token: eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl\r\n\
                  Connection: close\r\n\r\n{\"token\":\"TOKEN\"}";
    let (got, token) = answered(&proxy, &upstream, answer).await;
    assert!(got.contains("X-Token: eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl\r\n"), "{got}");
    assert!(got.contains(&format!("{{\"token\":\"{token}\"}}")), "a body is AEM's");
    assert_eq!(proxy.metric(ECHOES).await, 0.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_password_that_comes_back_is_cut_also_where_a_url_holds_it() {
    let setup = Setup::default().set("AUTH", "basic").set("BASIC__PASSWORD", "open-sesame");
    let (proxy, upstream) = with_upstream(setup).await;
    let answer = "HTTP/1.1 401 Unauthorized\r\nX-Received: Basic TOKEN\r\nWWW-Authenticate: Basic realm=\"AEM\"\r\n\
                  Content-Length: 0\r\n\r\n";
    let (got, credential) = answered(&proxy, &upstream, answer).await;
    assert!(credential.ends_with('='), "{credential}");
    assert!(!got.contains(&credential) && got.contains("WWW-Authenticate: Basic realm=\"AEM\"\r\n"), "{got}");
    let in_url = credential.replace('=', "%3D");
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: /login?with={in_url}\r\nContent-Length: 0\r\n\r\n");
    let (got, _) = answered(&proxy, &upstream, &answer).await;
    assert!(!got.to_lowercase().contains("location"), "{got}");
    assert_eq!(proxy.metric(ECHOES).await, 2.0);
    proxy.stop().await;
}

#[tokio::test]
async fn after_a_refresh_it_is_the_token_of_the_request_that_is_looked_for() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let (mut app, mut aem, old) = asked(&proxy, &upstream).await;
    // The next token is there before AEM answers.
    proxy.hang_up().await;
    proxy.standins.ims.exchanges_reach(2).await;
    while proxy.status().await["credentials"][0]["token"]["generation"] != 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    aem.send(format!("HTTP/1.1 200 OK\r\nX-Echo: {old}\r\nContent-Length: 0\r\n\r\n")).await;
    let got = app.rest().await;
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && !got.contains(&old), "{got}");
    assert_eq!(proxy.metric(ECHOES).await, 1.0);
    proxy.stop().await;
}
