//! HTTP/2 from clients, without TLS and without asking first: the same rules, the same answers.

use std::{future::poll_fn, net::SocketAddr};

use aem_auth_proxy::standin::pattern::{pattern, sha256_hex};
use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    harness::{PATIENCE, Proxy, Raw, Setup, with_upstream},
    http2::{read, write},
};

/// How long an upload that goes on does not stand still.
const STILL: std::time::Duration = std::time::Duration::from_millis(300);

/// A proxy that takes HTTP/2 without TLS.
fn setup() -> Setup {
    Setup::default().set("HTTP2", "true")
}

/// An app that speaks HTTP/2.
pub struct App {
    pub requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
    addr: SocketAddr,
}

impl App {
    pub async fn of(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(proxy.addr).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        Self { requests, connection: tokio::spawn(connection), addr: proxy.addr }
    }

    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.addr))
    }

    /// Sends a head; a body follows.
    fn send(&mut self, request: http::request::Builder) -> (ResponseFuture, SendStream<Bytes>) {
        self.requests.send_request(request.body(()).unwrap(), false).unwrap()
    }

    /// The answer to a request without a body.
    pub async fn ask(&mut self, request: http::request::Builder) -> Response<RecvStream> {
        let (response, _) = self.requests.send_request(request.body(()).unwrap(), true).unwrap();
        answer(response).await.unwrap()
    }

    async fn get(&mut self, path: &str) -> Response<RecvStream> {
        self.ask(self.request("GET", path)).await
    }

    /// Waits for the end of the connection, which the app would go on using: a good-bye, and not only silence.
    async fn until_good_bye(mut self) {
        timeout(PATIENCE, self.connection).await.expect("an end").unwrap().expect("an orderly end");
        let refused = poll_fn(|cx| self.requests.poll_ready(cx)).await.unwrap_err();
        assert!(refused.is_go_away() && refused.is_remote(), "{refused}");
    }
}

pub async fn answer(response: ResponseFuture) -> Result<Response<RecvStream>, h2::Error> {
    timeout(PATIENCE, response).await.expect("an answer")
}

pub async fn text(response: &mut Response<RecvStream>) -> String {
    String::from_utf8(read(response.body_mut()).await.0).unwrap()
}

#[tokio::test]
async fn requests_are_served_as_over_http_1_and_counted_once() {
    let proxy = setup().tls().start().await;
    let mut app = App::of(&proxy).await;
    let mut response =
        app.ask(app.request("GET", "/echo").header("cookie", "a=1").header("cookie", "b=2")).await;
    assert_eq!(response.status(), 200);
    let seen: serde_json::Value = serde_json::from_str(&text(&mut response).await).unwrap();
    let seen = crate::harness::Seen(seen);
    assert!(seen.one("authorization").unwrap().starts_with("Bearer "));
    assert!(seen.one("host").unwrap().starts_with("localhost:"), "AEM's own");
    assert_eq!(seen.one("cookie").unwrap(), "a=1; b=2");
    assert_eq!((seen.one("connection"), seen.one("transfer-encoding")), (None, None));
    for name in ["connection", "transfer-encoding", "keep-alive"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    assert_eq!(app.get("/api/assets.json").await.status(), 200);
    let counted = "aem_proxy_requests_total{method=\"GET\",proxy=\"default\",status_class=\"2xx\"}";
    assert_eq!(proxy.metric(counted).await, 2.0);
    proxy.stop().await;
}

#[tokio::test]
async fn who_may_not_ask_is_told_so_and_the_connection_stays() {
    let proxy = setup().start().await;
    let mut app = App::of(&proxy).await;
    let asked = Request::builder().uri("http://evil.example/");
    assert_eq!(app.ask(asked).await.status(), 403);
    let asked = app.request("GET", "/").header("origin", "https://evil.example");
    assert_eq!(app.ask(asked).await.status(), 403);
    // Two names for one request are one too many.
    let asked = app.request("GET", "/").header("host", "evil.example");
    assert_eq!(app.ask(asked).await.status(), 400);
    let asked = Request::builder().method("CONNECT").uri("localhost:80");
    assert_eq!(app.ask(asked).await.status(), 405);
    let asked = app.request("GET", "/").header("x-large", "x".repeat(70_000));
    let mut refused = app.ask(asked).await;
    assert_eq!(refused.status(), 431);
    assert!(text(&mut refused).await.contains("limits.head"));
    assert_eq!(app.get("/api/assets.json").await.status(), 200);
    proxy.stop().await;
}

#[tokio::test]
async fn a_path_longer_than_its_limit_is_refused_and_the_connection_stays() {
    let proxy = setup().start().await;
    let mut app = App::of(&proxy).await;
    let mut refused = app.get(&format!("/{}", "a/".repeat(4096))).await;
    assert_eq!(refused.status(), StatusCode::URI_TOO_LONG);
    assert_eq!(refused.headers()["proxy-status"], "aem-auth-proxy; error=http_request_error");
    assert!(text(&mut refused).await.contains("limits.path"));
    let query = format!("/api/assets.json?{}", "q".repeat(20_000));
    assert_eq!(app.get(&query).await.status(), 200);
    assert_eq!(proxy.standins.aem.requests(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn without_a_token_nothing_is_forwarded() {
    let setup = setup();
    let mut standins = setup.start_standins().await;
    standins.ims_server.stop().await;
    let proxy = setup.start_with(standins).await;
    let mut app = App::of(&proxy).await;
    let mut response = app.get("/").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    assert!(text(&mut response).await.contains("no-token"));
    assert_eq!(proxy.standins.aem.requests(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn large_bodies_arrive_whole_both_ways() {
    let proxy = setup().start().await;
    let mut app = App::of(&proxy).await;
    let body = pattern(3_000_000);
    let (response, mut up) = app.send(app.request("PUT", "/upload").header("content-length", body.len()));
    write(&mut up, &body, true).await;
    let mut response = answer(response).await.unwrap();
    let seen: serde_json::Value = serde_json::from_str(&text(&mut response).await).unwrap();
    assert_eq!(seen["sha256"], *sha256_hex(&body));
    for path in ["/download/3000000", "/download/3000000?chunked=1"] {
        let mut response = app.get(path).await;
        assert_eq!(response.headers().contains_key("content-length"), !path.contains("chunked"));
        assert_eq!(sha256_hex(&read(response.body_mut()).await.0), sha256_hex(&body));
    }
    assert_eq!(
        app.ask(app.request("HEAD", "/download/3000000")).await.headers()["content-length"],
        "3000000"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn streams_do_not_wait_for_each_other() {
    let (proxy, upstream) = with_upstream(setup()).await;
    let mut app = App::of(&proxy).await;
    let mut waiting = Vec::new();
    for number in 0..20 {
        let request = app.request("GET", &format!("/{number}")).body(()).unwrap();
        let (response, _) = app.requests.send_request(request, true).unwrap();
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        waiting.push((number, response, aem));
    }
    // The last one first.
    for (number, response, mut aem) in waiting.into_iter().rev() {
        aem.send(format!("HTTP/1.1 200 OK\r\nx-number: {number}\r\ncontent-length: 2\r\n\r\nok")).await;
        let mut response = answer(response).await.unwrap();
        assert_eq!(response.headers()["x-number"], *number.to_string());
        assert_eq!(text(&mut response).await, "ok");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_and_the_connection_stays() {
    let proxy = setup().set("TIMEOUTS__SLOW_CLIENT", "500ms").start().await;
    let mut app = App::of(&proxy).await;
    let twice = |name: &'static str| app.request("POST", "/upload").header(name, "5").header(name, "5");
    let bad = [
        (400, twice("content-type")),
        (400, app.request("POST", "/upload").header("content_length", "5")),
        (400, app.request("post", "/upload")),
        (417, app.request("POST", "/upload").header("expect", "200-ok")),
        (400, Request::get(format!("ftp://{}/api/assets.json", proxy.addr))),
    ];
    for (status, request) in bad {
        assert_eq!(app.ask(request).await.status(), status);
    }
    // What says that it has no body, and has one, is for nobody; the end of none may come late.
    for (data, requests) in [("HELLO", 0), ("", 1)] {
        let before = proxy.standins.aem.requests();
        let (response, mut body) = app.send(app.request("POST", "/upload").header("content-length", "0"));
        body.send_data(Bytes::from_static(data.as_bytes()), true).unwrap();
        assert_eq!(answer(response).await.is_ok(), requests > 0, "{data}");
        assert_eq!(proxy.standins.aem.requests() - before, requests, "{data}");
    }
    // And a body that hardly moves is ended.
    let (response, mut body) = app.send(app.request("PUT", "/upload"));
    let dripping = tokio::spawn(async move {
        while body.send_data(Bytes::from_static(b"a"), false).is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    assert_eq!(answer(response).await.unwrap().status(), 408);
    timeout(PATIENCE, dripping).await.expect("the stream is reset").unwrap();
    assert_eq!(app.get("/api/assets.json").await.status(), 200);
    proxy.stop().await;
}

#[tokio::test]
async fn trailers_interim_answers_and_expectations_pass() {
    let (proxy, upstream) = with_upstream(setup()).await;
    let mut app = App::of(&proxy).await;
    let (mut response, mut up) =
        app.send(app.request("POST", "/").header("te", "trailers").header("expect", "100-continue"));
    let mut aem = upstream.accept().await;
    let head = aem.until("\r\n\r\n").await;
    assert!(head.contains("transfer-encoding: chunked\r\n") && head.contains("te: trailers\r\n"), "{head}");
    aem.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    let interim = timeout(PATIENCE, poll_fn(|cx| response.poll_informational(cx))).await.unwrap();
    assert_eq!(interim.unwrap().unwrap().status(), 100);
    write(&mut up, b"abc", false).await;
    let mut trailers = HeaderMap::new();
    for (name, value) in [("x-http-method-override", "DELETE"), ("x-api-key", "own"), ("digest", "1")] {
        trailers.insert(name, value.parse().unwrap());
    }
    up.send_trailers(trailers).unwrap();
    aem.until("3\r\nabc\r\n0\r\ndigest: 1\r\n\r\n").await;
    aem.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n").await;
    let interim = timeout(PATIENCE, poll_fn(|cx| response.poll_informational(cx))).await.unwrap();
    assert_eq!(interim.unwrap().unwrap().headers()["link"], "</a.css>");
    aem.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nalt-svc: h2\r\nserver-timing: 2\r\n\r\n").await;
    let mut response = answer(response).await.unwrap();
    let (body, trailers) = read(response.body_mut()).await;
    let trailers = trailers.unwrap();
    assert_eq!((&body[..], &trailers["server-timing"]), (&b"ok"[..], &"2".parse().unwrap()));
    assert_eq!(trailers.len(), 1, "{trailers:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn half_an_answer_is_an_error_and_only_for_its_stream() {
    let (proxy, upstream) = with_upstream(setup()).await;
    let mut app = App::of(&proxy).await;
    for head in ["content-length: 100\r\n", "transfer-encoding: chunked\r\n"] {
        let request = app.request("GET", "/half").body(()).unwrap();
        let (response, _) = app.requests.send_request(request, true).unwrap();
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        aem.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n4\r\nhalf\r\n")).await;
        let mut response = answer(response).await.unwrap();
        assert!(response.body_mut().data().await.unwrap().is_ok());
        drop(aem);
        let error = loop {
            match timeout(PATIENCE, response.body_mut().data()).await.expect("an end") {
                Some(Ok(_)) => {}
                end => break end.expect("no clean end").unwrap_err(),
            }
        };
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{head}");
    }
    let request = app.request("GET", "/whole").body(()).unwrap();
    let (response, _) = app.requests.send_request(request, true).unwrap();
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(answer(response).await.unwrap().status(), 204);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_gives_a_request_up_has_left_it() {
    let (proxy, upstream) = with_upstream(setup()).await;
    let mut app = App::of(&proxy).await;
    // While it waits, and while it sends.
    let request = app.request("GET", "/").body(()).unwrap();
    let (response, mut stream) = app.requests.send_request(request, true).unwrap();
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    stream.send_reset(Reason::CANCEL);
    assert!(aem.is_ended().await);
    drop(response);
    let (_response, mut up) = app.send(app.request("PUT", "/"));
    let mut aem = upstream.accept().await;
    write(&mut up, b"first", false).await;
    aem.until("first").await;
    up.send_reset(Reason::CANCEL);
    let rest = aem.rest().await;
    assert!(!rest.contains("0\r\n\r\n"), "half a request looks whole: {rest}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_behind_trailers_is_seen_to_leave() {
    let (proxy, upstream) = with_upstream(setup()).await;
    let mut app = App::of(&proxy).await;
    // As many as there may be at once.
    let mut uploads = Vec::new();
    let mut links = Vec::new();
    for _ in 0..100 {
        app.requests = app.requests.ready().await.unwrap();
        uploads.push(app.send(app.request("PUT", "/")));
        links.push(upstream.accept().await);
    }
    for (_, up) in &mut uploads {
        up.send_data(Bytes::from_static(b"x"), false).unwrap();
        up.send_trailers(HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())])).unwrap();
    }
    // The trailers of one of them have come.
    links[0].until("\r\n0\r\n").await;
    app.connection.abort();
    for mut link in links {
        link.rest().await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_resets_a_thousand_streams_at_once_is_served_on() {
    let proxy = setup().start().await;
    let mut app = TcpStream::connect(proxy.addr).await.unwrap();
    app.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut frames = frame(4, 0, 0, b"");
    for number in 0..1000 {
        let stream = 2 * number + 1;
        frames.extend(headers_of(stream, b"/api/assets.json"));
        frames.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    frames.extend(headers_of(2001, b"/api/assets.json"));
    app.write_all(&frames).await.unwrap();
    let (kind, _) = next_of(&mut app, 2001).await;
    assert_eq!(kind, 1, "it is answered");
    proxy.stop().await;
}

#[tokio::test]
async fn chunks_of_one_byte_do_not_become_frames_of_one_byte() {
    let (proxy, upstream) = with_upstream(setup()).await;
    let mut app = App::of(&proxy).await;
    let request = app.request("GET", "/").body(()).unwrap();
    let (response, _) = app.requests.send_request(request, true).unwrap();
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    let chunks = "1\r\na\r\n".repeat(1000);
    aem.send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")).await;
    let mut body = answer(response).await.unwrap().into_body();
    let (mut frames, mut bytes) = (0, 0);
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        (frames, bytes) = (frames + 1, bytes + data.len());
    }
    assert!(bytes == 1000 && frames < 100, "{bytes} bytes in {frames} frames");
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_aem_takes_nothing_has_left_its_uploads() {
    let (proxy, upstream) = with_upstream(setup()).await;
    let mut app = App::of(&proxy).await;
    let (_response, mut up) = app.send(app.request("PUT", "/"));
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    // Until no more is taken.
    let piece = [b'a'; 16 * 1024];
    while timeout(STILL, write(&mut up, &piece, false)).await.is_ok() {}
    app.connection.abort();
    drop((app, up));
    let connections = "aem_proxy_upstream_connections{upstream=\"default\"}";
    let closed = async { while proxy.metric(connections).await > 0.0 {} };
    timeout(PATIENCE, closed).await.expect("the connection to AEM is closed");
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_ends_when_the_proxy_stops_and_with_it_nothing_in_flight() {
    let (mut proxy, upstream) = with_upstream(setup()).await;
    let idle = App::of(&proxy).await;
    let mut app = App::of(&proxy).await;
    let request = app.request("GET", "/slow").body(()).unwrap();
    let (response, _) = app.requests.send_request(request, true).unwrap();
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    proxy.ask_to_stop().await;
    idle.until_good_bye().await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
    assert_eq!(text(&mut answer(response).await.unwrap()).await, "done");
    app.until_good_bye().await;
    proxy.ended().await.expect("an orderly end");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let proxy = setup().set("TIMEOUTS__KEEP_ALIVE", "100ms").start().await;
    let mut app = App::of(&proxy).await;
    assert_eq!(app.get("/api/assets.json").await.status(), 200);
    app.until_good_bye().await;
    proxy.stop().await;
}

#[tokio::test]
async fn without_tls_http_2_has_to_be_enabled() {
    for (setup, status) in [
        (Setup::default(), 400),
        (Setup::default().set("HTTP2", "false"), 400),
        (Setup::default().set("HTTP2", "true"), 200),
    ] {
        let proxy = setup.start().await;
        if status == 200 {
            assert_eq!(App::of(&proxy).await.get("/api/assets.json").await.status(), 200);
        } else {
            let mut raw = proxy.connect().await;
            raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            let answer = raw.rest().await;
            assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("http2 = true"), "{answer}");
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn the_preface_may_come_in_pieces_and_nothing_else_is_taken_for_it() {
    let proxy = setup().start().await;
    let mut raw = proxy.connect().await;
    raw.0.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        raw.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    // An empty SETTINGS frame, which is answered with one, and confirmed.
    raw.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    let mut bytes = Vec::new();
    let reading = async {
        while !bytes.windows(9).any(|part| part == [0, 0, 0, 4, 1, 0, 0, 0, 0]) {
            assert!(raw.0.read_buf(&mut bytes).await.unwrap() > 0);
        }
    };
    timeout(PATIENCE, reading).await.expect("HTTP/2 is spoken");

    for other in ["PRI * HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"] {
        let mut raw = proxy.connect().await;
        raw.send(other).await;
        assert!(raw.rest().await.starts_with("HTTP/1.1 400"), "{other}");
    }
    // Nor is it one behind a request.
    let mut raw = proxy.connect().await;
    raw.send("GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    raw.response().await;
    raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(raw.rest().await.starts_with("HTTP/1.1 400"));
    unfinished(proxy.connect().await).await;
    proxy.stop().await;
}

/// Half a preface and the end.
async fn unfinished(mut raw: Raw) {
    raw.send("PRI * HTTP").await;
    raw.0.shutdown().await.unwrap();
    assert!(raw.is_ended().await);
}

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// HEADERS of a GET for `path`, byte for byte: literal fields without Huffman coding (RFC 7541, section 6.2.2).
fn headers_of(stream: u32, path: &[u8]) -> Vec<u8> {
    let literal = |index: u8, value: &[u8]| [&[index, u8::try_from(value.len()).unwrap()], value].concat();
    let (authority, path) = (literal(1, b"localhost"), literal(4, path));
    // END_STREAM and END_HEADERS; `:method GET`, `:scheme http` of the static table.
    frame(1, 0x5, stream, &[&[0x82, 0x86][..], &authority, &path].concat())
}

/// The kind and the first bytes of the payload of the next frame that belongs to `stream`.
async fn next_of(app: &mut TcpStream, stream: u32) -> (u8, Vec<u8>) {
    loop {
        let mut head = [0; 9];
        timeout(PATIENCE, app.read_exact(&mut head)).await.expect("a frame").unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        timeout(PATIENCE, app.read_exact(&mut payload)).await.expect("its payload").unwrap();
        if u32::from_be_bytes([head[5], head[6], head[7], head[8]]) == stream {
            return (head[3], payload);
        }
    }
}

/// The crates decide it, before the proxy sees a request: `http::Uri` has no room for these bytes, and h2 gives no sign but a line
/// of its own log. Over HTTP/1.1 they pass.
#[tokio::test]
async fn a_target_that_the_library_takes_for_none_resets_its_stream_and_nothing_else() {
    let (proxy, upstream) = with_upstream(setup()).await;
    // The stand-in AEM has the same library, and would refuse some of them by itself.
    let aem = tokio::spawn(async move {
        loop {
            let mut connection = upstream.accept_any().await;
            tokio::spawn(async move {
                connection.until("\r\n\r\n").await;
                connection.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
            });
        }
    });
    let mut app = TcpStream::connect(proxy.addr).await.unwrap();
    app.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    app.write_all(&frame(4, 0, 0, b"")).await.unwrap();
    let mut stream = 1;
    for (path, passes) in [
        (&b"/echo/plain"[..], true),
        (b"/echo/a\"b", true),
        (b"/echo/a<b", false),
        (b"/echo/a>b", false),
        (b"/echo/a`b", false),
        (b"/echo/a{b}|^", true),
        (b"/echo?a=\"b\"", false),
        (b"/echo?a=<b>", false),
        (b"/echo?a=`b`", true),
        (b"/echo/last", true),
    ] {
        app.write_all(&headers_of(stream, path)).await.unwrap();
        let (kind, payload) = next_of(&mut app, stream).await;
        // HEADERS, or RST_STREAM with PROTOCOL_ERROR.
        let expected = if passes { (1, true) } else { (3, payload == [0, 0, 0, 1]) };
        assert_eq!((kind, true), expected, "{}: {payload:?}", path.escape_ascii());
        stream += 2;
        let mut http_1 = proxy.connect().await;
        http_1
            .send([b"GET ", path, b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"].concat())
            .await;
        let answer = http_1.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{}: {answer}", path.escape_ascii());
    }
    aem.abort();
    proxy.stop().await;
}
