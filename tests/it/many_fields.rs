//! Heads with more than 100 fields: `limits.fields` lets them pass, and every filter holds for the last of their fields too.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response};
use tokio::sync::mpsc;

use crate::{
    h2c::{App, answer, text},
    harness::{Proxy, Setup, Upstream, with_upstream},
    http2::{Aem, Asked, write},
};

/// So many fields, each with a name of its own.
fn numbered(count: usize) -> Vec<(String, String)> {
    (0..count).map(|number| (format!("x-{number}"), number.to_string())).collect()
}

/// Fields as lines.
fn lines(fields: &[(String, String)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// `fields` in place of the last ones of `all`.
fn with_last(mut all: Vec<(String, String)>, fields: &[(&str, &str)]) -> Vec<(String, String)> {
    all.truncate(all.len() - fields.len());
    all.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    all
}

/// What is beyond field 100 of a response, and must not reach a client.
const NOT_FOR_CLIENTS: [(&str, &str); 5] = [
    ("Connection", "keep-alive, x-7, x-140"),
    ("keep-alive", "timeout=5"),
    ("Set-Cookie", "login-token=taken; Path=/"),
    ("Strict-Transport-Security", "max-age=1"),
    ("proxy-connection", "close"),
];

/// What is beyond field 100 of a request, and must not reach AEM.
const NOT_FOR_AEM: [(&str, &str); 5] = [
    ("Authorization", "Bearer of-the-client"),
    ("cookie", "login-token=taken"),
    ("X-Forwarded-Host", "evil.example"),
    ("connection", "x-7, x-140, authorization"),
    ("proxy-authorization", "Basic eA=="),
];

fn setup(fields: &str) -> Setup {
    Setup::default().set("HTTP2", "true").set("LIMITS__FIELDS", fields)
}

/// AEM answers the next request with `fields`, over HTTP/1.1.
async fn aem_answers(upstream: &Upstream, fields: &[(String, String)]) {
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", lines(fields));
    // A head that comes in two parts is read twice.
    let (first, second) = head.split_at(head.len() * 2 / 3);
    aem.send(first).await;
    aem.send(second).await;
}

/// What a client gets over HTTP/1.1: everything up to the end of the connection.
async fn over_http1(proxy: &Proxy) -> String {
    let mut app = proxy.connect().await;
    app.send("GET /a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    app.rest().await
}

async fn over_http2(proxy: &Proxy) -> Response<h2::RecvStream> {
    let mut app = App::of(proxy).await;
    app.ask(app.request("GET", "/a")).await
}

/// That of `names` those that begin with `x-` are the numbered ones, without `missing`.
#[track_caller]
fn assert_numbered<'a>(names: impl Iterator<Item = &'a str>, count: usize, missing: &[usize]) {
    let mut seen: Vec<usize> = names.filter_map(|name| name.strip_prefix("x-")?.parse().ok()).collect();
    seen.sort_unstable();
    let expected: Vec<_> = (0..count).filter(|number| !missing.contains(number)).collect();
    assert_eq!(seen, expected);
}

fn names_of(head: &str) -> impl Iterator<Item = &str> {
    head.lines().filter_map(|line| Some(line.split_once(": ")?.0))
}

#[tokio::test]
async fn a_response_with_as_many_fields_as_the_limit_passes_whole() {
    let (proxy, upstream) = with_upstream(setup("300")).await;
    for count in [100, 101, 250, 300] {
        let fields = with_last(numbered(count), &[("content-length", "0")]);
        let (seen, ()) = tokio::join!(over_http1(&proxy), aem_answers(&upstream, &fields));
        assert!(seen.starts_with("HTTP/1.1 200 OK\r\nx-0: 0\r\n"), "{count}: {seen}");
        assert_numbered(names_of(&seen), count - 1, &[]);
        let (response, ()) = tokio::join!(over_http2(&proxy), aem_answers(&upstream, &fields));
        assert_eq!(response.status(), 200, "{count}");
        assert_numbered(response.headers().keys().map(HeaderName::as_str), count - 1, &[]);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_default_takes_100_fields_and_no_more() {
    let (proxy, upstream) = with_upstream(Setup::default().set("HTTP2", "true")).await;
    let fields = with_last(numbered(100), &[("content-length", "0")]);
    let (seen, ()) = tokio::join!(over_http1(&proxy), aem_answers(&upstream, &fields));
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{seen}");
    // The proxy adds a field of its own.
    let (response, ()) = tokio::join!(over_http2(&proxy), aem_answers(&upstream, &fields));
    assert_eq!(response.status(), 200);
    check_too_many(&proxy, &upstream, 101).await;
    let mut app = proxy.connect().await;
    app.send(format!("GET /a HTTP/1.1\r\nhost: localhost\r\n{}\r\n", lines(&numbered(100)))).await;
    check_refused(&app.rest().await, 431);
    proxy.stop().await;
}

#[tokio::test]
async fn a_response_with_more_fields_than_the_limit_is_refused_with_the_name_of_the_key() {
    let (proxy, upstream) = with_upstream(setup("300")).await;
    check_too_many(&proxy, &upstream, 301).await;
    proxy.stop().await;
}

async fn check_too_many(proxy: &Proxy, upstream: &Upstream, count: usize) {
    let fields = with_last(numbered(count), &[("content-length", "0")]);
    let (seen, ()) = tokio::join!(over_http1(proxy), aem_answers(upstream, &fields));
    check_refused(&seen, 502);
    let (mut response, ()) = tokio::join!(over_http2(proxy), aem_answers(upstream, &fields));
    assert_eq!(response.status(), 502);
    assert!(text(&mut response).await.contains("limits.fields"));
}

#[track_caller]
fn check_refused(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains("limits.fields"), "{answer}");
}

#[tokio::test]
async fn the_filters_of_a_response_hold_beyond_field_100() {
    let (proxy, upstream) = with_upstream(setup("300")).await;
    let fields = with_last(numbered(250), &NOT_FOR_CLIENTS);
    let fields = [&[("content-length".to_owned(), "0".to_owned())][..], &fields].concat();
    let (seen, ()) = tokio::join!(over_http1(&proxy), aem_answers(&upstream, &fields));
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{seen}");
    assert_numbered(names_of(&seen), 245, &[7, 140]);
    let seen = seen.to_lowercase();
    for (name, _) in NOT_FOR_CLIENTS.iter().skip(1) {
        assert!(!seen.contains(&name.to_lowercase()), "{name}: {seen}");
    }
    let (response, ()) = tokio::join!(over_http2(&proxy), aem_answers(&upstream, &fields));
    check_response(response.headers(), 245, &[7, 140]);
    // One that is framed twice, once at the end.
    let twice = [fields, vec![("content-length".to_owned(), "5".to_owned())]].concat();
    let (seen, ()) = tokio::join!(over_http1(&proxy), aem_answers(&upstream, &twice));
    assert!(seen.starts_with("HTTP/1.1 502 "), "{seen}");
    proxy.stop().await;
}

#[track_caller]
fn check_response(fields: &HeaderMap, count: usize, missing: &[usize]) {
    assert_numbered(fields.keys().map(HeaderName::as_str), count, missing);
    for (name, _) in NOT_FOR_CLIENTS {
        assert!(!fields.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn a_response_over_http2_has_the_same_limit() {
    let (proxy, _) = Aem::answering(setup("300"), |mut asked: Asked| async move {
        let count = asked.request.uri().path().trim_start_matches('/').parse().unwrap();
        let last = [NOT_FOR_CLIENTS[2], NOT_FOR_CLIENTS[3], ("content-length", "2")];
        let mut response = Response::new(());
        for (name, value) in with_last(numbered(count), &last) {
            response
                .headers_mut()
                .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let mut body = asked.respond.send_response(response, false).unwrap();
        write(&mut body, b"ok", true).await;
    })
    .await;
    let mut app = App::of(&proxy).await;
    let mut raw = proxy.connect().await;
    for count in [101, 250, 300] {
        let response = app.ask(app.request("GET", &format!("/{count}"))).await;
        assert_eq!(response.status(), 200, "{count}");
        check_response(response.headers(), count - 3, &[]);
        raw.send(format!("GET /{count} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        let seen = raw.until("\r\n\r\nok").await;
        assert_numbered(names_of(&seen), count - 3, &[]);
        assert!(!seen.contains("login-token"), "{seen}");
    }
    let mut refused = app.ask(app.request("GET", "/301")).await;
    assert_eq!(refused.status(), 502);
    assert!(text(&mut refused).await.contains("limits.fields"));
    assert_eq!(app.ask(app.request("GET", "/101")).await.status(), 200, "the next request is not affected");
    proxy.stop().await;
}

/// What AEM gets of a request with `fields`, sent over HTTP/1.1 for `target`.
async fn received(proxy: &Proxy, upstream: &Upstream, target: &[u8], fields: &[(String, String)]) -> String {
    let mut app = proxy.connect().await;
    let fields = lines(fields);
    app.send([b"GET ", target, b" HTTP/1.1\r\nhost: localhost\r\n", fields.as_bytes(), b"\r\n"].concat())
        .await;
    let mut aem = upstream.accept().await;
    let seen = aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(app.until("\r\n\r\n").await.starts_with("HTTP/1.1 204"));
    seen
}

#[track_caller]
fn check_request(seen: &str, count: usize, missing: &[usize]) {
    assert_numbered(names_of(seen), count, missing);
    let authorization: Vec<_> = names_of(seen).filter(|name| *name == "authorization").collect();
    assert_eq!(authorization.len(), 1, "{seen}");
    for part in ["of-the-client", "taken", "evil.example", "proxy-authorization"] {
        assert!(!seen.to_lowercase().contains(part), "{part}: {seen}");
    }
}

#[tokio::test]
async fn the_filters_of_a_request_hold_beyond_field_100() {
    let (proxy, upstream) = with_upstream(setup("300")).await;
    let fields = with_last(numbered(250), &NOT_FOR_AEM);
    // The second target is not UTF-8.
    for target in [&b"/a"[..], b"/a\xff"] {
        let seen = received(&proxy, &upstream, target, &fields).await;
        check_request(&seen, 245, &[7, 140]);
    }
    let mut app = App::of(&proxy).await;
    let mut request = app.request("GET", "/a");
    for (name, value) in with_last(numbered(250), &NOT_FOR_AEM[..3]) {
        request = request.header(name, value);
    }
    let (response, _) = app.requests.send_request(request.body(()).unwrap(), true).unwrap();
    let mut aem = upstream.accept().await;
    check_request(&aem.until("\r\n\r\n").await, 247, &[]);
    aem.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(answer(response).await.unwrap().status(), 204);
    // A framing that is not clear is refused, wherever it is.
    for last in [("Content_Length", "5"), ("content-length", "05"), ("transfer-encoding", "gzip")] {
        let mut raw = proxy.connect().await;
        let fields = lines(&with_last(numbered(250), &[last]));
        raw.send(format!("POST /a HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")).await;
        assert!(raw.rest().await.starts_with("HTTP/1.1 400 "), "{last:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_with_more_fields_than_the_limit_is_refused_with_the_name_of_the_key() {
    let (proxy, upstream) = with_upstream(setup("300")).await;
    for target in [&b"/a"[..], b"/a\xff"] {
        let seen = received(&proxy, &upstream, target, &numbered(299)).await;
        assert_numbered(names_of(&seen), 299, &[]);
        let mut app = proxy.connect().await;
        let fields = lines(&numbered(300));
        app.send([b"GET ", target, b" HTTP/1.1\r\nhost: localhost\r\n", fields.as_bytes(), b"\r\n"].concat())
            .await;
        check_refused(&app.rest().await, 431);
    }
    let mut app = App::of(&proxy).await;
    let mut request = app.request("GET", "/a");
    for (name, value) in numbered(301) {
        request = request.header(name, value);
    }
    let mut refused = app.ask(request).await;
    assert_eq!(refused.status(), 431);
    assert!(text(&mut refused).await.contains("limits.fields"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_with_as_many_fields_as_the_limit_reaches_an_aem_over_http2() {
    for (limit, count) in [("100", 99), ("300", 250)] {
        let (seen, mut asked) = mpsc::channel::<Request<()>>(1);
        let (proxy, _) = Aem::answering(setup(limit), move |asked: Asked| {
            let seen = seen.clone();
            async move {
                let Asked { request, mut respond } = asked;
                seen.send(request.map(drop)).await.unwrap();
                respond
                    .send_response(Response::new(()), false)
                    .unwrap()
                    .send_data(Bytes::new(), true)
                    .unwrap();
            }
        })
        .await;
        let mut app = proxy.connect().await;
        let fields = with_last(numbered(count), &NOT_FOR_AEM[..3]);
        app.send(format!("GET /a HTTP/1.1\r\nhost: localhost\r\n{}\r\n", lines(&fields))).await;
        let answer = app.until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{limit}: {answer}");
        let seen = asked.recv().await.unwrap();
        let names: Vec<_> = seen.headers().keys().map(HeaderName::as_str).collect();
        assert_numbered(names.into_iter(), count - 3, &[]);
        let authorization = seen.headers().get_all("authorization").iter().collect::<Vec<_>>();
        assert!(authorization.len() == 1 && authorization[0] != "Bearer of-the-client");
        assert!(!seen.headers().contains_key("cookie") && !seen.headers().contains_key("x-forwarded-host"));
        proxy.stop().await;
    }
}
