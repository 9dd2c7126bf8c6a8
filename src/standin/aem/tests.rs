use std::time::Duration;

use http::{
    Method, StatusCode,
    header::{LOCATION, SET_COOKIE, UPGRADE, USER_AGENT, WWW_AUTHENTICATE},
};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;
use crate::{
    clock::Clock,
    standin::{
        ledger::{Holder, Look},
        pattern::{pattern, sha256_hex},
        server::Server,
        tests::client,
    },
};

pub(super) const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64)";

pub(super) struct Fixture {
    pub(super) server: Server,
    pub(super) client: Client,
    pub(super) ledger: Ledger,
    pub(super) switches: Switches,
    pub(super) token: String,
}

pub(super) async fn aem() -> Fixture {
    let ledger = Ledger::new(Clock::system(), "cm-p1-e2", "ABC@techacct.adobe.com");
    let token = ledger.issue(Duration::from_secs(60));
    let switches = Switches::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let storage = Storage::new("http://blob.example".to_owned());
    let router = router(vec![addr.to_string()], ledger.clone(), switches.clone(), storage);
    let server = Server::serve(router, listener, addr, None);
    Fixture { server, client: client(None), ledger, switches, token }
}

impl Fixture {
    pub(super) fn anonymous(&self, method: Method, target: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{target}", self.server.addr()))
    }

    pub(super) fn get(&self, target: &str) -> RequestBuilder {
        self.anonymous(Method::GET, target).bearer_auth(&self.token)
    }

    pub(super) fn put(&self, target: &str) -> RequestBuilder {
        self.anonymous(Method::PUT, target).bearer_auth(&self.token)
    }

    pub(super) fn post(&self, target: &str) -> RequestBuilder {
        self.anonymous(Method::POST, target).bearer_auth(&self.token)
    }

    /// Sends these bytes, and gives all that comes back until the connection ends.
    pub(super) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.server.addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

pub(super) async fn json_of(request: RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_tool_without_a_live_token_is_challenged() {
    let aem = aem().await;
    let expired = aem.ledger.issue(Duration::ZERO);
    let assets = || aem.anonymous(Method::GET, "/api/assets.json");
    for request in [assets(), assets().bearer_auth(&expired), assets().basic_auth("admin", Some("admin"))] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers()[WWW_AUTHENTICATE], r#"Basic realm="Sling (Development)""#);
        assert_eq!(answer.headers()[VIA], "1.1 varnish");
    }
    assert_eq!(aem.get("/api/assets.json").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!((aem.switches.requests(), aem.switches.refused(), aem.switches.expired_seen()), (4, 3, 1));
    aem.switches.requests_reach(4).await;
}

#[tokio::test]
async fn a_browser_without_a_live_token_is_sent_to_the_login_page_and_a_script_told_why() {
    let aem = aem().await;
    let browser = || aem.anonymous(Method::GET, "/echo?a=b").header(USER_AGENT, BROWSER);
    let answer = browser().send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FOUND);
    let expected =
        format!("http://{}/libs/granite/core/content/login.html?resource=%2Fecho%3Fa%3Db", aem.server.addr());
    assert_eq!(answer.headers()[LOCATION], expected);

    let script = || browser().header("X-Requested-With", "XMLHttpRequest");
    let expired = aem.ledger.issue(Duration::ZERO);
    for (request, code) in [(script(), "invalid_login"), (script().bearer_auth(expired), "expired_token")] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert_eq!(answer.headers()["x-reason-code"], code);
        assert!(answer.headers().contains_key("x-reason"));
    }
    assert_eq!(script().bearer_auth(&aem.token).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_answer_tells_whose_token_came_and_a_path_can_be_for_one_client_alone() {
    let aem = aem().await;
    let holder =
        Holder { client_id: "other".to_owned(), user_id: "X@AdobeID".to_owned(), scope: String::new() };
    let other = aem.ledger.issue_to(holder, Duration::from_secs(60), Look::Claims);
    let ask = async |path: &str, token: &str| {
        let answer = aem.anonymous(Method::GET, path).bearer_auth(token).send().await.unwrap();
        let client = answer.headers().get("x-standin-client").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), client.unwrap_or_default())
    };
    let of = |client: &str, status: u16| (status, client.to_owned());
    for path in ["/api/assets.json", "/adobe/sites/cf"] {
        assert_eq!(ask(path, &aem.token).await, of("cm-p1-e2", 200));
        assert_eq!(ask(path, &other).await, of("other", 200));
        assert_eq!(ask(path, "made-up").await, of("", 401));
    }
    aem.switches.reserve("/adobe/", "other");
    assert_eq!(ask("/adobe/sites/cf", &aem.token).await, of("cm-p1-e2", 401));
    assert_eq!(ask("/adobe/sites/cf", &other).await, of("other", 200));
    assert_eq!(ask("/api/assets.json", &aem.token).await, of("cm-p1-e2", 200));
}

#[tokio::test]
async fn the_cdn_knows_its_own_names_only() {
    let aem = aem().await;
    let status = async |request: RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(status(aem.get("/echo").header(HOST, "127.0.0.1")).await, 421);
    assert_eq!(status(aem.get("/echo").header(HOST, "localhost:8080")).await, 421);
    let forwarded = || aem.get("/echo").header("X-Forwarded-Host", "www.example");
    assert_eq!(status(forwarded()).await, 403);
    assert_eq!(status(forwarded().header("X-AEM-Edge-Key", "key")).await, 200);
}

#[tokio::test]
async fn the_csrf_token_is_empty_for_anonymous_callers() {
    let aem = aem().await;
    let path = "/libs/granite/csrf/token.json";
    assert_eq!(json_of(aem.anonymous(Method::GET, path)).await, json!({}));
    assert!(json_of(aem.get(path)).await["token"].is_string());
    let wrong = aem.anonymous(Method::GET, path).bearer_auth("made-up");
    assert_eq!(wrong.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn echo_shows_the_request_as_it_arrived_but_no_token() {
    let aem = aem().await;
    let addr = aem.server.addr();
    let answer = aem
        .raw(&format!(
            "MOVE /echo/a%2Fb%3Bk;c//d?x=%20+&y HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {}\r\n\
             X-One: 1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
             5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n",
            aem.token
        ))
        .await;
    assert!(!answer.contains(&aem.token));
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let seen: Value = serde_json::from_str(body).unwrap();
    assert_eq!(seen["method"], "MOVE");
    assert_eq!(seen["target"], "/echo/a%2Fb%3Bk;c//d?x=%20+&y");
    assert_eq!(seen["headers"][0], json!(["host", addr.to_string()]));
    assert_eq!(seen["headers"][1], json!(["authorization", "Bearer (live)"]));
    assert_eq!(seen["headers"][2], json!(["x-one", "1"]));
    assert_eq!(seen["trailers"], json!([["x-sum", "42"]]));
    assert_eq!((&seen["length"], &seen["sha256"]), (&json!(5), &json!(sha256_hex(b"hello"))));
}

#[tokio::test]
async fn downloads_and_uploads_carry_the_same_bytes() {
    let aem = aem().await;
    let expected = pattern(1_000_003);
    for (target, length) in [("/download/1000003", Some(1_000_003)), ("/download/1000003?chunked=1", None)] {
        let answer = aem.get(target).send().await.unwrap();
        assert_eq!(answer.content_length(), length);
        assert!(answer.bytes().await.unwrap() == expected);
    }
    let answer = json_of(aem.put("/upload").body(expected.clone())).await;
    assert_eq!(answer, json!({"length": 1_000_003, "sha256": sha256_hex(&expected)}));

    let cut = aem.get("/download/1000?break_at=10").send().await.unwrap();
    assert!(cut.bytes().await.is_err());
}

#[tokio::test]
async fn a_refused_upload_still_gets_its_answer() {
    let aem = aem().await;
    let request = aem.anonymous(Method::PUT, "/upload").body(pattern(1_000_000));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn links_and_redirects_name_its_own_origin() {
    let aem = aem().await;
    let origin = format!("http://{}", aem.server.addr());
    let listing = json_of(aem.get("/api/assets.json")).await;
    assert!(listing["links"][0]["href"].as_str().unwrap().starts_with(&origin));
    assert_eq!(listing["entities"].as_array().unwrap().len(), 3);
    let answer = aem.get("/redirect").send().await.unwrap();
    assert_eq!(answer.headers()[LOCATION], format!("{origin}/api/assets.json"));
    let answer = aem.get("/redirect?to=https://other.example/").send().await.unwrap();
    assert_eq!(answer.headers()[LOCATION], "https://other.example/");
}

#[tokio::test]
async fn the_small_endpoints_do_what_they_say() {
    let aem = aem().await;
    let answer = aem.get("/status/429?retry_after=2").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &"2".parse().unwrap()));
    assert_eq!(aem.get("/status/204").send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(aem.get("/status/404").send().await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(aem.get("/nothing").send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let cookies = aem.get("/set-cookies").send().await.unwrap();
    assert_eq!(cookies.headers().get_all(SET_COOKIE).iter().count(), 3);
    assert_eq!(json_of(aem.get("/slow?ms=1")).await["waited_ms"], 1);
    let events = aem.get("/events?count=2&interval_ms=1").send().await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    assert_eq!(events.text().await.unwrap().matches("event: tick\n").count(), 2);
}

#[tokio::test]
async fn a_held_request_goes_on_when_released() {
    let aem = aem().await;
    let held = tokio::spawn(aem.get("/hold").send());
    aem.switches.requests_reach(1).await;
    assert!(!held.is_finished());
    aem.switches.release();
    assert_eq!(held.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn trailers_are_sent_to_who_takes_them() {
    let aem = aem().await;
    let (addr, token) = (aem.server.addr(), &aem.token);
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "GET /trailers HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {token}\r\nTE: trailers\r\n\
         Connection: close, TE\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"x-checksum: made-up\r\n\r\n"));
}

#[tokio::test]
async fn an_upgraded_connection_repeats_until_the_server_stops() {
    let mut aem = aem().await;
    let addr = aem.server.addr();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "GET /upgrade HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\n\
         {UPGRADE}: websocket\r\n\r\n",
        aem.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    stream.write_all(b"ping").await.unwrap();
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"ping");
    aem.server.stop().await;
    let ended = timeout(Duration::from_secs(5), stream.read_u8()).await;
    assert!(ended.expect("the connection is cut").is_err());
}
