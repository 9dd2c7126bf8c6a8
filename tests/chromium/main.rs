//! A real browser: pages in a headless Chromium that read and write content through the proxy, or try to. Apart from the other
//! tests, since it takes the whole machine.

#![expect(unreachable_pub, reason = "nobody reaches into a test")]

#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "../it/harness.rs"]
mod harness;
#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "../it/leaks.rs"]
mod leaks;
#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "../it/log.rs"]
mod log;

use std::{
    env,
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use aem_auth_proxy::standin::ims::Fault;
use axum::{
    Router,
    body::Bytes,
    extract::Request,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use base64::Engine;
use http::{HeaderValue, StatusCode};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

use self::harness::{Proxy, Setup};

#[tokio::test]
async fn a_page_of_an_allowed_origin_reads_and_writes_content() {
    let Some(chromium) = chromium() else { return };
    let mut pages = Pages::serve(SCRIPT).await;
    let aem = allowing(&pages).tls().start().await;
    let made = allowing(&pages).set("AUTH", "none").upstream(pages.own()).start().await;
    let refused = without_token(allowing(&pages)).await;
    let hosts = json!({"aem": aem.url(""), "made": made.url(""), "refused": refused.url("")});
    let report = pages.report_of(&chromium, &hosts).await;

    assert_eq!(report["read"], json!([200, "assets"]), "{report}");
    assert_eq!(report["with_cookies"], json!([200, "assets"]), "{report}");
    assert_eq!(report["redirected"], json!([200, true, aem.url("/api/assets.json")]), "{report}");
    assert_eq!(report["graphql"], json!([200, 5]), "{report}");
    assert_eq!(report["csrf"], json!([200, "no-store", "string"]), "{report}");
    let origin = &aem.standins.aem_origin;
    for method in ["POST", "PUT", "PATCH", "DELETE", "MOVE"] {
        let written = &report[method];
        assert_eq!(written["status"], 200, "{report}");
        assert_eq!(written["method"], method, "{report}");
        assert_eq!(written["origin"], **origin, "{report}");
        // All that a browser tells another origin.
        assert_eq!(written["referer"], format!("{origin}/"), "{report}");
        assert!(written["user-agent"].as_str().unwrap().contains("Mozilla"), "{report}");
    }
    assert_eq!(report["exposed"], json!([201, "\"etag\"", "/made/1", "yes"]), "{report}");
    let problem = &report["problem"];
    assert_eq!(problem["status"], 503, "{report}");
    assert_eq!(problem["type"], "urn:aem-auth-proxy:problem:no-token", "{report}");
    assert!(problem["proxy-status"].as_str().unwrap().contains("details=\"token\""), "{report}");
    assert!(problem["retry-after"].as_str().unwrap().parse::<u64>().is_ok(), "{report}");
    assert_eq!(refused.standins.aem.requests(), 0);
    for proxy in [aem, made, refused] {
        proxy.stop().await;
    }
}

#[tokio::test]
async fn an_image_and_an_event_stream_of_an_allowed_page_get_through() {
    let Some(chromium) = chromium() else { return };
    let mut pages = Pages::serve(SHOWN).await;
    let aem = allowing(&pages).set("AUTH", "none").upstream(pages.own()).start().await;
    // The page and the proxy are one site for the browser where they have one host, and so the image tells no `Origin`.
    let local = format!("http://localhost:{}", aem.addr.port());
    let report = pages.report_of(&chromium, &json!({"aem": local})).await;
    assert_eq!(report["image"], "seen", "{report}");
    assert_eq!(report["script"], "ran", "{report}");
    assert_eq!(report["events"], "first", "{report}");
    assert_eq!(report["socket"], "hello", "{report}");
    aem.stop().await;
}

#[tokio::test]
async fn a_page_of_another_port_of_this_machine_can_neither_read_nor_write() {
    let Some(chromium) = chromium() else { return };
    let allowed = Pages::serve("").await;
    let mut others = Pages::serve(INTRUDER).await;
    let proxy = allowing(&allowed).start().await;
    // The same host, and so the same site: only the port is another one.
    let local = format!("http://localhost:{}", proxy.addr.port());
    let report = others.report_of(&chromium, &json!({"aem": local})).await;
    check_shut_out(&report, &proxy).await;
    assert!(proxy.metric("aem_proxy_denied_total{proxy=\"default\",reason=\"origin\"}").await > 0.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_page_whose_name_comes_to_stand_for_this_machine_can_neither_read_nor_write() {
    let Some(chromium) = chromium() else { return };
    let mut pages = Pages::serve(REBINDER).await;
    let proxy = Setup::default().start().await;
    // The page comes from evil.example at the proxy's own port, as far as the browser knows, and then the name stands for
    // 127.0.0.1: for the browser the proxy is the page's own origin.
    let front = Rebinding::serve(pages.addr, proxy.addr).await;
    let origin = format!("http://evil.example:{}", front.addr.port());

    let report = pages
        .report_at(&chromium, &origin, &[REBOUND], &json!({"rebind": "/rebind", "page": pages.own()}))
        .await;
    for attempt in ["read", "post", "put", "preflighted", "aliased"] {
        assert_eq!(report[attempt], json!([403, "host"]), "{attempt}: {report}");
    }
    for attempt in ["blind_read", "blind_write"] {
        assert_eq!(report[attempt], "basic", "{attempt}: it is the page's own origin: {report}");
    }
    assert_eq!(report["image"], "sent", "{report}");
    assert_eq!(report["form"], "sent", "{report}");
    assert_eq!(report["socket"], "shut", "{report}");
    assert_eq!(report["events"], "shut", "{report}");
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM: {report}");
    assert!(proxy.metric("aem_proxy_denied_total{proxy=\"default\",reason=\"host\"}").await >= 10.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_page_of_another_name_for_this_machine_can_neither_read_nor_write() {
    let Some(chromium) = chromium() else { return };
    let mut others = Pages::serve(INTRUDER).await;
    let proxy = Setup::default().start().await;
    let hosts = json!({"aem": format!("http://evil.example:{}", proxy.addr.port())});

    let origin = format!("http://evil.example:{}", others.addr.port());
    let report = others.report_at(&chromium, &origin, &[REBOUND], &hosts).await;
    check_shut_out(&report, &proxy).await;
    assert!(proxy.metric("aem_proxy_denied_total{proxy=\"default\",reason=\"host\"}").await > 0.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_page_of_another_origin_can_neither_read_nor_write() {
    let Some(chromium) = chromium() else { return };
    let allowed = Pages::serve("").await;
    let mut others = Pages::serve(INTRUDER).await;
    let proxy = allowing(&allowed).tls().start().await;
    let report = others.report_of(&chromium, &json!({"aem": proxy.url("")})).await;
    check_shut_out(&report, &proxy).await;
    assert!(proxy.metric("aem_proxy_denied_total{proxy=\"default\",reason=\"origin\"}").await > 0.0);
    assert!(proxy.metric("aem_proxy_denied_total{proxy=\"default\",reason=\"cross_site\"}").await > 0.0);
    proxy.stop().await;
}

/// What [`INTRUDER`] has tried came to nothing.
async fn check_shut_out(report: &Value, proxy: &Proxy) {
    for attempt in ["read", "post", "put", "preflighted"] {
        let error = report[attempt]["error"].as_str().unwrap_or_default();
        assert!(error.contains("TypeError"), "{attempt}: {report}");
    }
    // What may be sent to anybody unseen was sent, and went no further than to the proxy.
    for attempt in ["blind_read", "blind_write", "image", "form", "frame"] {
        assert_eq!(report[attempt], "sent", "{attempt}: {report}");
    }
    for attempt in ["socket", "events", "script"] {
        assert_eq!(report[attempt], "shut", "{attempt}: {report}");
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM: {report}");
}

fn allowing(pages: &Pages) -> Setup {
    Setup::default().set("GUARD__ALLOWED_ORIGINS", pages.origin())
}

/// A proxy that gets no token.
async fn without_token(setup: Setup) -> Proxy {
    let standins = setup.start_standins().await;
    standins.ims.set_always(Some(Fault::internal_error()));
    setup.start_with(standins).await
}

/// Serves a page with a script, and hears what that has found.
struct Pages {
    addr: SocketAddr,
    hosts: Arc<OnceLock<Value>>,
    reports: mpsc::Receiver<Value>,
}

impl Pages {
    async fn serve(script: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (reporter, reports) = mpsc::channel(1);
        let hosts = Arc::<OnceLock<Value>>::default();
        let known = Arc::clone(&hosts);
        let page = move || async move {
            let hosts = known.get().cloned().unwrap_or_default();
            let page = Html(format!(
                "<!doctype html><title>A page</title><script>const hosts = {hosts};{PAGE}{script}</script>"
            ));
            // What the page asks for next may go elsewhere.
            ([("connection", "close")], page)
        };
        let report = async move |report: Bytes| {
            let report = serde_json::from_slice(&report).expect("a report is JSON");
            // Nobody listens any more where the test has ended.
            let _ = reporter.send(report).await;
        };
        let made = async || {
            let fields = [("etag", "\"etag\""), ("location", "/made/1"), ("x-aem-own", "yes")];
            (StatusCode::CREATED, fields).into_response()
        };
        let router = Router::new()
            .route("/", get(page))
            .route("/report", post(report))
            .route("/made", post(made))
            .route("/image.gif", get(async || ([("content-type", "image/gif")], GIF)))
            .route("/script.js", get(async || ([("content-type", "text/javascript")], "window.ran = true;")))
            .route("/events", get(async || ([("content-type", "text/event-stream")], "data: first\n\n")))
            .route("/socket", get(socket));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { addr, hosts, reports }
    }

    /// What a browser calls it: another site than `127.0.0.1`, where the proxy is.
    fn origin(&self) -> String {
        format!("http://localhost:{}", self.addr.port())
    }

    fn own(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Shows the page, and waits for what its script says.
    async fn report_of(&mut self, chromium: &PathBuf, hosts: &Value) -> Value {
        let origin = self.origin();
        self.report_at(chromium, &origin, &[], hosts).await
    }

    /// The same at another origin, with further flags.
    async fn report_at(&mut self, chromium: &PathBuf, origin: &str, flags: &[&str], hosts: &Value) -> Value {
        self.hosts.set(hosts.clone()).expect("one page is shown once");
        let browser = Browser::show(chromium, origin, flags);
        let report = timeout(BROWSER_PATIENCE, self.reports.recv()).await;
        let said = browser.close().await;
        report
            .unwrap_or_else(|_| panic!("the page has said nothing; Chromium has: {said}"))
            .expect("a report")
    }
}

/// Stands at one address for the page's server, and once it was asked for `/rebind`, for the proxy: as a name does that comes to
/// stand for another address.
struct Rebinding {
    addr: SocketAddr,
}

impl Rebinding {
    async fn serve(page: SocketAddr, proxy: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let rebound = Arc::new(AtomicBool::new(false));
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let rebound = Arc::clone(&rebound);
                tokio::spawn(async move {
                    let mut head = vec![0; 4096];
                    let read = client.peek(&mut head).await.unwrap_or(0);
                    if head[..read].starts_with(b"GET /rebind") {
                        rebound.store(true, Relaxed);
                        let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                        let _ = client.write_all(answer).await;
                        return;
                    }
                    let target = if rebound.load(Relaxed) { proxy } else { page };
                    let mut server = TcpStream::connect(target).await.expect("it listens");
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { addr }
    }
}

/// Speaks as much WebSocket as it takes to say `hello` (RFC 6455, sections 4.2.2 and 5).
async fn socket(request: Request) -> Response {
    let key = request.headers().get("sec-websocket-key").map_or(&b""[..], HeaderValue::as_bytes);
    let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat());
    let accept = base64::engine::general_purpose::STANDARD.encode(accept);
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let mut stream = hyper_util::rt::TokioIo::new(upgraded);
            let _ = stream.write_all(b"\x81\x05hello").await;
            // Until the page has heard it.
            let _ = stream.read(&mut [0; 64]).await;
        }
    });
    let fields = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", &*accept)];
    (StatusCode::SWITCHING_PROTOCOLS, fields).into_response()
}

/// One pixel.
const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

/// A Chromium of its own, with a profile that nobody else has.
struct Browser {
    process: Child,
    profile: tempfile::TempDir,
}

impl Browser {
    fn show(chromium: &PathBuf, url: &str, flags: &[&str]) -> Self {
        let profile = tempfile::tempdir().expect("a directory");
        let log = std::fs::File::create(profile.path().join(BROWSER_LOG)).expect("a file");
        let process = Command::new(chromium)
            .args(FLAGS)
            .args(flags)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("Chromium starts");
        Self { process, profile }
    }

    /// Ends it, and lets it end its own processes before its files go; tells what it has said meanwhile.
    async fn close(mut self) -> String {
        let id = self.process.id().map(|id| id.to_string());
        let asked = Command::new("kill").args(id).status().await;
        asked.expect("there is a kill");
        if timeout(BROWSER_PATIENCE, self.process.wait()).await.is_err() {
            self.process.kill().await.expect("Chromium can be ended");
        }
        std::fs::read_to_string(self.profile.path().join(BROWSER_LOG)).unwrap_or_default()
    }
}

/// Where Chromium is. Where it is not, that is said so that nobody overlooks it.
fn chromium() -> Option<PathBuf> {
    let found = match env::var_os("CHROMIUM") {
        Some(path) => Some(path.into()),
        None => {
            let path = env::var_os("PATH").unwrap_or_default();
            let places: Vec<_> = env::split_paths(&path).collect();
            let named = |name| places.iter().map(|place| place.join(name)).find(|file| file.is_file());
            ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(named)
        }
    };
    if found.is_none() {
        // Past the capture of the tests' output.
        let said = std::io::stderr()
            .write_all(b"\nSKIPPED: no page was tried in a browser, there is no Chromium (set CHROMIUM)\n");
        said.expect("stderr takes a line");
    }
    found
}

/// Nothing but the page: no sandbox since CI is root, and no calls of its own.
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-proxy-server",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-extensions",
];

/// What the name server of evil.example says, by now.
const REBOUND: &str = "--host-resolver-rules=MAP evil.example 127.0.0.1";

const BROWSER_LOG: &str = "chromium.log";

/// A browser takes longer to start than anything else here, and two of them longer still.
const BROWSER_PATIENCE: Duration = Duration::from_secs(60);

/// What all pages have: `step` takes note of what a function finds, `done` tells the test.
const PAGE: &str = r#"
const report = {};
async function step(name, find) {
    try { report[name] = await find(); } catch (error) { report[name] = {error: String(error)}; }
}
function image(url) {
    return new Promise(resolve => {
        const image = new Image();
        image.onload = () => resolve("seen");
        image.onerror = () => resolve("sent");
        image.src = url;
    });
}
function script(url) {
    return new Promise(resolve => {
        const script = document.createElement("script");
        script.onload = () => resolve(window.ran ? "ran" : "loaded");
        script.onerror = () => resolve("shut");
        script.src = url;
        document.documentElement.append(script);
    });
}
function events(url) {
    return new Promise(resolve => {
        const events = new EventSource(url);
        events.onmessage = event => { events.close(); resolve(event.data); };
        events.onerror = () => { events.close(); resolve("shut"); };
    });
}
function socket(url) {
    return new Promise(resolve => {
        const socket = new WebSocket(url.replace("http", "ws"));
        socket.onmessage = event => { resolve(event.data); socket.close(); };
        socket.onerror = () => resolve("shut");
    });
}
function form(url) {
    return new Promise(resolve => {
        const frame = document.createElement("iframe");
        frame.name = "frame";
        document.documentElement.append(frame);
        const form = document.createElement("form");
        Object.assign(form, {action: url, method: "POST", target: "frame"});
        document.documentElement.append(form);
        frame.onload = () => resolve("sent");
        form.submit();
    });
}
function frame(url) {
    return new Promise(resolve => {
        const frame = document.createElement("iframe");
        frame.onload = () => resolve("sent");
        frame.src = url;
        document.documentElement.append(frame);
    });
}
async function done() {
    await fetch("/report", {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(report)});
}
"#;

const SCRIPT: &str = r#"
(async () => {
    const json = "application/json";
    await step("read", async () => {
        const answer = await fetch(hosts.aem + "/api/assets.json");
        return [answer.status, (await answer.json()).properties.name];
    });
    await step("with_cookies", async () => {
        await fetch(hosts.aem + "/set-cookies", {credentials: "include"});
        const answer = await fetch(hosts.aem + "/api/assets.json", {credentials: "include"});
        return [answer.status, (await answer.json()).properties.name];
    });
    await step("redirected", async () => {
        const answer = await fetch(hosts.aem + "/redirect");
        return [answer.status, answer.redirected, answer.url];
    });
    let token;
    await step("csrf", async () => {
        const answer = await fetch(hosts.aem + "/libs/granite/csrf/token.json");
        token = (await answer.json()).token;
        return [answer.status, answer.headers.get("cache-control"), typeof token];
    });
    await step("graphql", async () => {
        const body = JSON.stringify({query: "{adventureList{items{title}}}"});
        const url = hosts.aem + "/content/graphql/global/endpoint.json";
        const answer = await fetch(url, {method: "POST", headers: {"content-type": json, "csrf-token": token}, body});
        return [answer.status, (await answer.json()).data.adventureList.items.length];
    });
    for (const method of ["POST", "PUT", "PATCH", "DELETE", "MOVE"]) {
        await step(method, async () => {
            const headers = {"csrf-token": token, "content-type": json, "x-destination": hosts.aem + "/b"};
            const answer = await fetch(hosts.aem + "/echo/content", {method, headers, body: "{}"});
            const seen = await answer.json();
            return {status: answer.status, method: seen.method, ...Object.fromEntries(seen.headers)};
        });
    }
    await step("exposed", async () => {
        const {status, headers} = await fetch(hosts.made + "/made", {method: "POST"});
        return [status, headers.get("etag"), headers.get("location"), headers.get("x-aem-own")];
    });
    await step("problem", async () => {
        const answer = await fetch(hosts.refused + "/api/assets.json", {method: "PUT", headers: {"if-match": "x"}});
        const field = name => [name, answer.headers.get(name)];
        return {...await answer.json(), ...Object.fromEntries(["proxy-status", "retry-after"].map(field))};
    });
    await done();
})();
"#;

const INTRUDER: &str = r#"
(async () => {
    const url = hosts.aem + "/echo/content";
    await step("read", async () => (await fetch(url)).status);
    await step("post", async () => (await fetch(url, {method: "POST", body: "x=1"})).status);
    await step("put", async () => (await fetch(url, {method: "PUT", body: "x"})).status);
    await step("preflighted", async () => (await fetch(url, {headers: {"csrf-token": "x"}})).status);
    const blindly = async options => {
        const answer = await fetch(url, {mode: "no-cors", ...options});
        return answer.type === "opaque" ? "sent" : answer.type;
    };
    await step("blind_read", () => blindly({}));
    await step("blind_write", () => blindly({method: "POST", body: "x=1"}));
    await step("image", () => image(url));
    await step("form", () => form(url));
    await step("frame", () => frame(url));
    await step("script", () => script(url));
    await step("events", () => events(url));
    await step("socket", () => socket(url));
    await done();
})();
"#;

const SHOWN: &str = r#"
(async () => {
    await step("image", () => image(hosts.aem + "/image.gif"));
    await step("script", () => script(hosts.aem + "/script.js"));
    await step("events", () => events(hosts.aem + "/events"));
    await step("socket", () => socket(hosts.aem + "/socket"));
    await done();
})();
"#;

/// Everything is of the page's own origin here, and so nothing is kept from it by the browser.
const REBINDER: &str = r#"
(async () => {
    await fetch(hosts.rebind, {cache: "no-store"});
    const url = "/echo/content";
    const seen = async (url, options) => {
        const answer = await fetch(url, {cache: "no-store", ...options});
        return [answer.status, (await answer.json()).type.split(":").pop()];
    };
    await step("read", () => seen(url));
    await step("post", () => seen(url, {method: "POST", body: "x=1"}));
    await step("put", () => seen(url, {method: "PUT", body: "x"}));
    await step("preflighted", () => seen(url, {headers: {"csrf-token": "x"}}));
    await step("aliased", () => seen("/api/assets.json"));
    const blindly = async options => (await fetch(url, {mode: "no-cors", cache: "no-store", ...options})).type;
    await step("blind_read", () => blindly({}));
    await step("blind_write", () => blindly({method: "POST", body: "x=1"}));
    await step("image", () => image(url));
    await step("form", () => form(url));
    await step("events", () => events(url));
    await step("socket", () => socket(location.origin + url));
    // By its other name: here the page is a foreign one again.
    navigator.sendBeacon(hosts.page + "/report", JSON.stringify(report));
})();
"#;
