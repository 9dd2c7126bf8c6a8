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
    sync::{Arc, OnceLock},
    time::Duration,
};

use aem_auth_proxy::standin::ims::Fault;
use axum::{
    Json, Router,
    response::{Html, IntoResponse},
    routing::{get, post},
};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
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
async fn a_page_of_another_origin_can_neither_read_nor_write() {
    let Some(chromium) = chromium() else { return };
    let allowed = Pages::serve("").await;
    let mut others = Pages::serve(INTRUDER).await;
    let proxy = allowing(&allowed).tls().start().await;
    let report = others.report_of(&chromium, &json!({"aem": proxy.url("")})).await;
    for attempt in ["read", "post", "put", "preflighted"] {
        assert!(report[attempt]["error"].as_str().unwrap().contains("TypeError"), "{attempt}: {report}");
    }
    // What may be sent to anybody unseen was sent, and went no further than to the proxy.
    for attempt in ["blind_read", "blind_write", "image", "form"] {
        assert_eq!(report[attempt], "sent", "{attempt}: {report}");
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM: {report}");
    assert!(proxy.metric("aem_proxy_denied_total{proxy=\"default\",reason=\"origin\"}").await > 0.0);
    assert!(proxy.metric("aem_proxy_denied_total{proxy=\"default\",reason=\"cross_site\"}").await > 0.0);
    proxy.stop().await;
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
            Html(format!(
                "<!doctype html><title>A page</title><script>const hosts = {hosts};{PAGE}{script}</script>"
            ))
        };
        let report = async move |Json(report): Json<Value>| {
            // Nobody listens any more where the test has ended.
            let _ = reporter.send(report).await;
        };
        let made = async || {
            let fields = [("etag", "\"etag\""), ("location", "/made/1"), ("x-aem-own", "yes")];
            (StatusCode::CREATED, fields).into_response()
        };
        let router =
            Router::new().route("/", get(page)).route("/report", post(report)).route("/made", post(made));
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
        self.hosts.set(hosts.clone()).expect("one page is shown once");
        let browser = Browser::show(chromium, &self.origin());
        let report = timeout(BROWSER_PATIENCE, self.reports.recv()).await;
        let said = browser.close().await;
        report
            .unwrap_or_else(|_| panic!("the page has said nothing; Chromium has: {said}"))
            .expect("a report")
    }
}

/// A Chromium of its own, with a profile that nobody else has.
struct Browser {
    process: Child,
    profile: tempfile::TempDir,
}

impl Browser {
    fn show(chromium: &PathBuf, url: &str) -> Self {
        let profile = tempfile::tempdir().expect("a directory");
        let log = std::fs::File::create(profile.path().join(BROWSER_LOG)).expect("a file");
        let process = Command::new(chromium)
            .args(FLAGS)
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

const BROWSER_LOG: &str = "chromium.log";

/// A browser takes longer to start than anything else here, and two of them longer still.
const BROWSER_PATIENCE: Duration = Duration::from_secs(60);

/// What all pages have: `step` takes note of what a function finds, `done` tells the test.
const PAGE: &str = r#"
const report = {};
async function step(name, find) {
    try { report[name] = await find(); } catch (error) { report[name] = {error: String(error)}; }
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
    await step("image", () => new Promise(resolve => {
        const image = new Image();
        image.onload = () => resolve("seen");
        image.onerror = () => resolve("sent");
        image.src = url;
    }));
    await step("form", () => new Promise(resolve => {
        const frame = document.createElement("iframe");
        frame.name = "frame";
        document.documentElement.append(frame);
        const form = document.createElement("form");
        Object.assign(form, {action: url, method: "POST", target: "frame"});
        document.documentElement.append(form);
        frame.onload = () => resolve("sent");
        form.submit();
    }));
    await done();
})();
"#;
