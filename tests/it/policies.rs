//! What passes: spellings of what is closed and of what is not, from `tests/policies/`, under every preset; rules, routes, and
//! requests that are more than their path.

use aem_auth_proxy::policy::Preset;
use tokio::{io::AsyncReadExt, time::timeout};

use crate::{
    commands::{run, text},
    harness::{PATIENCE, Proxy, Raw, Setup, Upstream, with_upstream},
};

/// A request of one of the lists, and what stands behind it.
struct Line {
    method: String,
    target: Vec<u8>,
    presets: Vec<&'static str>,
}

impl Line {
    fn of(line: &'static str) -> Self {
        let (request, presets) = line.split_once(" | ").or(line.split_once(" |")).unwrap_or((line, ""));
        let (method, target) = request.split_once(' ').expect("a method and a target");
        let mut parts = target.split("\\x");
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).expect("a byte"));
            bytes.extend(&part.as_bytes()[2..]);
        }
        let presets = presets.split_ascii_whitespace().collect();
        Self { method: method.to_owned(), target: bytes, presets }
    }

    fn shown(&self) -> String {
        format!("{} {}", self.method, self.target.escape_ascii())
    }

    fn request(&self) -> Vec<u8> {
        let head = [self.method.as_bytes(), b" ", &self.target, b" HTTP/1.1\r\nhost: localhost\r\n"].concat();
        let body: &[u8] = if ["POST", "PUT", "PATCH"].contains(&self.method.as_str()) {
            b"content-length: 0\r\n\r\n"
        } else {
            b"\r\n"
        };
        [&head, body].concat()
    }
}

fn lines(list: &'static str) -> Vec<Line> {
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines: Vec<_> = lines.map(Line::of).collect();
    assert!(lines.len() >= 150, "found {}", lines.len());
    lines
}

/// The status of the answer, whose body is read too, if it has one.
async fn status(app: &mut Raw, method: &str) -> u16 {
    let answer = if method == "HEAD" { app.until("\r\n\r\n").await } else { app.response().await };
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[tokio::test]
async fn no_spelling_of_what_is_closed_passes_under_any_preset() {
    let lines = lines(include_str!("../policies/forbidden.txt"));
    for preset in Preset::ALL {
        let proxy = Setup::default().set("POLICY", preset.name()).start().await;
        for line in &lines {
            let mut app = proxy.connect().await;
            app.send(line.request()).await;
            let status = status(&mut app, &line.method).await;
            assert!([400, 403, 405].contains(&status), "{preset}: {}: {status}", line.shown());
            assert_eq!(proxy.standins.aem.requests(), 0, "{preset}: {} reached AEM", line.shown());
        }
        let refused =
            |reason: &str| format!("aem_proxy_denied_total{{proxy=\"default\",reason=\"policy_{reason}\"}}");
        assert!(proxy.metric(&refused("path")).await > 50.0);
        assert!(proxy.metric(&refused("ambiguous")).await > 50.0);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn what_apps_ask_for_passes_under_the_presets_that_are_for_it_byte_for_byte() {
    let lines = lines(include_str!("../policies/legitimate.txt"));
    for preset in Preset::ALL {
        let (proxy, upstream) = with_upstream(Setup::default().set("POLICY", preset.name())).await;
        let mut app = proxy.connect().await;
        let mut aem = None;
        let mut passed = 0;
        for line in &lines {
            app.send(line.request()).await;
            if preset != Preset::Full && !line.presets.contains(&preset.name()) {
                let status = status(&mut app, &line.method).await;
                assert!([403, 405].contains(&status), "{preset}: {}: {status}", line.shown());
                continue;
            }
            let aem = match &mut aem {
                Some(aem) => aem,
                aem => aem.insert(upstream.accept().await),
            };
            let head = head(aem).await;
            let begin = [line.method.as_bytes(), b" "].concat();
            let target = line.target.strip_prefix(b"http://localhost").unwrap_or(&line.target);
            let arrived = head.strip_prefix(&begin[..]).and_then(|rest| rest.strip_suffix(b" HTTP/1.1"));
            assert_eq!(arrived, Some(target), "{preset}: {}", line.shown());
            aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            assert_eq!(status(&mut app, &line.method).await, 200);
            passed += 1;
        }
        assert!(passed >= 20, "{preset} let {passed} through");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn search_terms_reach_aem_byte_for_byte_in_the_values_of_persisted_queries() {
    let terms: Vec<String> = serde_json::from_str(include_str!("../policies/search-terms.json")).unwrap();
    assert_eq!(terms.len(), 36);
    let (proxy, upstream) = with_upstream(Setup::default().set("POLICY", "graphql-persisted")).await;
    let mut app = proxy.connect().await;
    let mut aem = None;
    for term in &terms {
        let value = encoded(term);
        for values in [format!("%3Btitle%3D{value};"), format!(";title={value}")] {
            for method in ["GET", "POST"] {
                let target = format!("/graphql/execute.json/wknd/adventures{values}").into_bytes();
                let line = Line { method: method.to_owned(), target, presets: Vec::new() };
                app.send(line.request()).await;
                let aem = match &mut aem {
                    Some(aem) => aem,
                    aem => aem.insert(upstream.accept().await),
                };
                let expected = [method.as_bytes(), b" ", &line.target, b" HTTP/1.1"].concat();
                assert_eq!(head(aem).await, expected, "{term:?}");
                aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                assert_eq!(status(&mut app, method).await, 200);
            }
        }
    }
    // The connection to AEM is the same for all, so nothing else has reached it.
    let query = "/graphql/execute.json/wknd/adventures";
    for target in [
        format!("{query};title={}", encoded("/../../../etc/x")),
        format!("{query};title={}", encoded(&encoded("/../../../etc/x"))),
        format!("{query};title={}", encoded(&encoded(&encoded("/../../../etc/x")))),
        format!("{query};title={}", encoded("\\..\\..\\..\\etc\\x")),
        format!("{query};title=%0A/../x"),
        format!("{query};title=a\\b"),
        format!("{query};title=%C0%AF"),
        format!("{query};title=%u002f"),
        format!("{query}%2F..%2F..;title=%0A"),
        format!("{query}/%2e%2e/x;title=%0A"),
        format!("{query};title=%0A/x"),
        "/graphql/execute.json;title=%2F..%2F..".to_owned(),
        "/content/dam/wknd;title=%0A".to_owned(),
    ] {
        check(&asked(&proxy, "GET", &target, "").await, 403, "policy-ambiguous", "");
    }
    let target = format!("{query};title=%0A");
    check(&asked(&proxy, "DELETE", &target, "").await, 405, "policy-method", "GET, HEAD, OPTIONS, POST");
    proxy.stop().await;
}

/// `value` as JavaScript's `encodeURIComponent` writes it.
fn encoded(value: &str) -> String {
    let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte);
    value
        .bytes()
        .map(|byte| if is_kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Under which presets a request of the list passes: those that stand before it.
#[tokio::test]
async fn an_attacker_who_knows_aem_gets_what_is_written_and_no_more() {
    let list = include_str!("../policies/attacker.txt");
    let lines: Vec<(&str, Line)> = list
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once('\t').expect("presets, then a request"))
        .map(|(presets, request)| (presets, Line::of(request)))
        .collect();
    assert!(lines.len() >= 200, "found {}", lines.len());
    let mut others = Vec::new();
    for preset in Preset::ALL {
        let (proxy, upstream) = with_upstream(Setup::default().set("POLICY", preset.name())).await;
        for (presets, line) in &lines {
            let may_pass = match *presets {
                "none" => false,
                "all" => true,
                "reads" => [Preset::ReadOnly, Preset::Full].contains(&preset),
                presets => presets.split(',').any(|own| own == preset.name()),
            };
            let mut app = proxy.connect().await;
            app.send(line.request()).await;
            let mut answer = std::pin::pin!(status(&mut app, &line.method));
            let passed = tokio::select! {
                status = &mut answer => {
                    assert!([400, 403, 405].contains(&status), "{preset}: {}: {status}", line.shown());
                    false
                }
                mut aem = upstream.accept() => {
                    head(&mut aem).await;
                    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                    assert_eq!(answer.await, 200, "{preset}: {}", line.shown());
                    true
                }
            };
            if passed != may_pass {
                others.push(format!(
                    "{preset}: {} {}",
                    if passed { "passed" } else { "refused" },
                    line.shown()
                ));
            }
        }
        proxy.stop().await;
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

/// The request line that has come, with its head.
async fn head(aem: &mut Raw) -> Vec<u8> {
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            assert!(aem.0.read_buf(&mut head).await.unwrap() > 0, "the connection ended");
        }
    };
    timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("nothing came"));
    let end = head.windows(2).position(|two| two == b"\r\n").unwrap();
    head[..end].to_vec()
}

/// The answer to a request without a body: its status, the last part of its problem's type, `Allow`.
async fn asked(proxy: &Proxy, method: &str, target: &str, fields: &str) -> (u16, String, String) {
    let mut app = proxy.connect().await;
    let head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}\r\n");
    app.send(head).await;
    let answer = app.rest().await;
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let between = |begin: &str, end: &str| {
        let rest = answer.split_once(begin).map_or("", |(_, rest)| rest);
        rest.split_once(end).map_or("", |(own, _)| own).to_owned()
    };
    if status == 403 || status == 405 {
        assert!(answer.contains("proxy-status: aem-auth-proxy; error=http_request_denied\r\n"), "{answer}");
    }
    (status, between("aem-auth-proxy:problem:", "\""), between("\r\nallow: ", "\r\n"))
}

#[track_caller]
fn check(answer: &(u16, String, String), status: u16, problem: &str, allow: &str) {
    assert_eq!((answer.0, answer.1.as_str(), answer.2.as_str()), (status, problem, allow));
}

#[tokio::test]
async fn each_refusal_says_what_to_do() {
    let setup = Setup::default().set("POLICY", "assets-write").set("RULES", "deny * /content/dam/secret/*");
    let proxy = setup.start().await;
    const ASSETS: &str = "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE, COPY, MOVE";
    for (method, target, fields, status, problem, allow) in [
        ("GET", "/crx/de", "", 403, "policy-closed", ""),
        ("GET", "/content/site.html", "", 403, "policy-path", ""),
        ("GET", "/content/dam/Secret/a.jpg", "", 403, "policy-rule", ""),
        ("GET", "/content/dam.infinity.json", "", 403, "policy-rule", ""),
        ("GET", "/content/dam/a%2Fb", "", 403, "policy-ambiguous", ""),
        ("POST", "/content/dam/a.jpg", "content-length: 0\r\n", 405, "policy-method", "GET, HEAD, OPTIONS"),
        ("PROPFIND", "/api/assets/a", "", 405, "policy-method", ASSETS),
        ("GET", "/api/assets/a", "x-http-method-override: DELETE\r\n", 403, "policy-override", ""),
        ("GET", "/api/assets/a", "X-HTTP-Method: PUT\r\n", 403, "policy-override", ""),
        ("GET", "/api/assets/a", "x-method-override: \r\n", 403, "policy-override", ""),
        ("GET", "/api/assets/a?x=1&%3Aoperation=delete", "", 403, "policy-override", ""),
        ("MOVE", "/api/assets/a", "x-destination: /content/site\r\n", 403, "policy-destination", ""),
        ("COPY", "/api/assets/a", "destination: http://localhost/%63rx\r\n", 403, "policy-destination", ""),
        ("COPY", "/api/assets/a", "destination: api/assets/b\r\n", 403, "policy-destination", ""),
        ("COPY", "/api/assets/a", "destination: //x/api/assets/b\r\n", 403, "policy-destination", ""),
        ("MOVE", "/api/assets/a", "x-destination: /api/assets/../../crx\r\n", 403, "policy-destination", ""),
    ] {
        let answer = asked(&proxy, method, target, fields).await;
        assert_eq!(
            (answer.0, answer.1.as_str(), answer.2.as_str()),
            (status, problem, allow),
            "{method} {target}"
        );
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    for (target, fields) in [
        ("/echo", "x-destination: http://localhost/api/assets/b%20c\r\n"),
        ("/echo", "x-http-method-override: get\r\n"),
    ] {
        assert_eq!(asked(&proxy, "GET", target, fields).await.1, "policy-path");
    }
    let answer = asked(&proxy, "GET", "/api/assets.json", "x-http-method-override: get\r\n").await;
    assert_eq!(answer.0, 200);
    proxy.stop().await;
}

#[tokio::test]
async fn where_everything_passes_a_destination_is_judged_all_the_same() {
    let (proxy, upstream) = with_upstream(Setup::default().set("RULES", "deny DELETE /content/keep/*")).await;
    for fields in ["x-destination: /crx/x\r\n", "destination: http://localhost/apps/site\r\n"] {
        let answer = asked(&proxy, "COPY", "/api/assets/a", fields).await;
        check(&answer, 403, "policy-destination", "");
    }
    let answer = asked(&proxy, "POST", "/content/keep/a", "x-http-method-override: delete\r\n").await;
    check(&answer, 403, "policy-override", "");
    check(&asked(&proxy, "POST", "/apps/site/x", "").await, 405, "policy-method", "GET, HEAD, OPTIONS");
    for (method, field) in [("MOVE", "x-destination: /api/assets/b"), ("POST", "x-http-method-override: PUT")]
    {
        let mut app = proxy.connect().await;
        app.send(format!("{method} /api/assets/a HTTP/1.1\r\nhost: localhost\r\n{field}\r\n\r\n")).await;
        let mut aem = upstream.accept().await;
        assert!(aem.until("\r\n\r\n").await.contains(field));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_allow_line_opens_what_is_closed_and_nothing_beside_it() {
    let setup = Setup::default()
        .set("POLICY", "read-only")
        .set("RULES", "allow POST /crx/packmgr/service.jsp, deny GET /api/assets/wknd/*");
    let proxy = setup.start().await;
    // AEM's own answer, to a package that is none.
    let (status, problem, _) =
        asked(&proxy, "POST", "/crx/packmgr/service.jsp", "content-length: 0\r\n").await;
    assert_eq!((status == 403 || status == 405, problem.as_str()), (false, ""));
    check(&asked(&proxy, "GET", "/crx/packmgr/service.jsp", "").await, 405, "policy-method", "POST");
    for target in [
        "/crx/packmgr/service.jsp/x",
        "/crx/packmgr/index.jsp",
        "/CRX/packmgr/service.jsp",
        "/crx/packmgr/service.jsp/../../de",
    ] {
        check(&asked(&proxy, "POST", target, "content-length: 0\r\n").await, 403, "policy-closed", "");
    }
    check(&asked(&proxy, "GET", "/api/assets/wknd.json", "").await, 405, "policy-method", "OPTIONS");
    assert_eq!(asked(&proxy, "GET", "/api/assets.json", "").await.0, 200);
    proxy.stop().await;
}

/// As docs/policies.md has them, for `repo`, and the plugins of Maven and Gradle.
#[tokio::test]
async fn the_lines_for_package_tools_open_what_they_call_and_little_else() {
    let docs = include_str!("../../docs/policies.md");
    for (rules, passing) in [
        ("allow POST /crx/packmgr/service.jsp", &["POST /crx/packmgr/service.jsp"][..]),
        (
            "allow POST /crx/packmgr/service/*, allow GET /etc/packages/*",
            &[
                "POST /crx/packmgr/service/.json?cmd=upload",
                "POST /crx/packmgr/service/.json/etc/packages/tmp/repo/repo-content-1.zip?cmd=install",
                "POST /crx/packmgr/service/.json/etc/packages/tmp/repo/repo-content-1.zip?cmd=build",
                "GET /etc/packages/tmp/repo/repo-content-1.zip",
            ],
        ),
        (
            "allow POST /crx/packmgr/service/*, allow GET /system/console/bundles/*",
            &[
                "POST /crx/packmgr/service/.json?cmd=upload",
                "POST /crx/packmgr/service/.json/etc/packages/my_packages/x-1.0.zip?cmd=install",
                "GET /system/console/bundles/.json",
            ],
        ),
        (
            "allow POST /crx/packmgr/service/*, allow POST /crx/packmgr/list.jsp, allow GET /etc/packages/*, \
             allow GET /system/console/bundles, allow GET /system/console/components",
            &[
                "POST /crx/packmgr/list.jsp",
                "POST /crx/packmgr/service/.json/?cmd=upload",
                "POST /crx/packmgr/service/.html/etc/packages/my_packages/x-1.0.zip/?cmd=install",
                "GET /etc/packages/my_packages/x-1.0.zip",
                "GET /system/console/bundles.json",
                "GET /system/console/components.json",
            ],
        ),
    ] {
        for rule in rules.split(", ").filter(|rule| !rule.ends_with("components")) {
            assert!(docs.contains(&format!("`{rule}`")), "{rule} is not in the documentation");
        }
        let (proxy, upstream) = with_upstream(Setup::default().set("RULES", rules)).await;
        for request in passing {
            let line = Line::of(request);
            let mut app = proxy.connect().await;
            app.send(line.request()).await;
            let mut aem = upstream.accept().await;
            assert!(head(&mut aem).await.starts_with(request.as_bytes()), "{request}");
            aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            assert_eq!(status(&mut app, &line.method).await, 200, "{request}");
        }
        for request in [
            "GET /crx/packmgr/index.jsp",
            "POST /crx/packmgr/update.jsp",
            "GET /crx/de/index.jsp",
            "POST /system/console/bundles",
            "DELETE /etc/packages/my_packages/x-1.0.zip",
            "GET /system/console/configMgr",
        ] {
            let line = Line::of(request);
            let mut app = proxy.connect().await;
            app.send(line.request()).await;
            let status = status(&mut app, &line.method).await;
            assert!([403, 405].contains(&status), "{rules}: {request}: {status}");
        }
        proxy.stop().await;
    }
}

/// A proxy whose routes have policies of their own, before an AEM of which the test is the other end.
async fn with_routes() -> (Proxy, Upstream) {
    let setup = Setup::default().set("POLICY", "read-only");
    let mut setup = setup.set("RULES", "deny * /content/dam/open/secret/*");
    for (number, path, policy) in [(0, "/content/dam/open/*", "full"), (1, "/adobe", "assets-write")] {
        setup = setup
            .set(&format!("PROXIES__DEFAULT__ROUTES__{number}__PATH"), path)
            .set(&format!("PROXIES__DEFAULT__ROUTES__{number}__POLICY"), policy);
    }
    let upstream = Upstream::bind().await;
    let setup = setup.set("UPSTREAM", upstream.origin()).set("LISTEN", "127.0.0.1:0");
    (setup.start().await, upstream)
}

#[tokio::test]
async fn a_route_cannot_be_chosen_by_spelling() {
    let (proxy, upstream) = with_routes().await;
    for (method, target, problem) in [
        ("POST", "/content/dam/a", "policy-method"),
        ("POST", "/content/dam/open/../a", "policy-method"),
        ("POST", "/content/dam/open/..%2fa", "policy-ambiguous"),
        ("POST", "/content/dam/open/%2e%2e/a", "policy-ambiguous"),
        ("POST", "/content/dam/open/..;/a", "policy-ambiguous"),
        ("POST", "/content/dam/open%2fa", "policy-ambiguous"),
        ("POST", "/content/dam/open;/../a", "policy-ambiguous"),
        ("POST", "/CONTENT/DAM/OPEN/a", "policy-method"),
        ("POST", "/content/dam/open/Secret/a", "policy-rule"),
        ("POST", "/content/dam/open/secret[1]/a", "policy-rule"),
        ("POST", "/content/dam/open/{}secret/a", "policy-rule"),
        ("GET", "/content/dam/open/.infinity.json", "policy-rule"),
        ("POST", "/content/dam[1]/open/a", "policy-method"),
        ("POST", "/content/dam/x/../open/a", "policy-method"),
        ("POST", "/adobe/sites", "policy-path"),
        ("GET", "/adobe/sites", "policy-path"),
        ("GET", "/x/../adobe/sites", "policy-path"),
        ("GET", "//adobe/sites", "policy-path"),
        ("GET", "/%61dob%65/sites", "policy-path"),
    ] {
        let answer = asked(&proxy, method, target, "").await;
        assert_eq!(answer.1, problem, "{method} {target}");
    }
    for (method, target) in [
        ("POST", "/content/dam/open/a"),
        ("POST", "//content//dam/open/a"),
        ("POST", "/content/dam/%6fpen/a;v=1"),
        ("POST", "/content/dam/open/a[1].jpg"),
        ("GET", "/content/dam/a"),
        ("POST", "/adobe/folders"),
        ("GET", "/ADOBE/sites"),
    ] {
        let mut app = proxy.connect().await;
        app.send(format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        let mut aem = upstream.accept().await;
        let line = String::from_utf8(head(&mut aem).await).unwrap();
        assert_eq!(line, format!("{method} {target} HTTP/1.1"));
        aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        assert!(app.response().await.starts_with("HTTP/1.1 200 "));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn http_2_and_upgrades_are_judged_too() {
    let proxy = Setup::default().set("POLICY", "graphql-persisted").set("HTTP2", "true").start().await;
    let websocket = "connection: upgrade\r\nupgrade: websocket\r\n";
    check(&asked(&proxy, "GET", "/crx/de", websocket).await, 403, "policy-closed", "");
    check(&asked(&proxy, "GET", "/socket", websocket).await, 403, "policy-path", "");

    let stream = tokio::net::TcpStream::connect(proxy.addr).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    for (method, path, expected) in [
        ("GET", "/crx/de", 403),
        ("GET", "//crx;x/de", 403),
        ("GET", "/content/dam.json", 403),
        ("DELETE", "/graphql/execute.json/wknd/a", 405),
    ] {
        let request = http::Request::builder().method(method).uri(format!("http://{}{path}", proxy.addr));
        let (response, _) = requests.send_request(request.body(()).unwrap(), true).unwrap();
        let response = timeout(PATIENCE, response).await.expect("an answer").unwrap();
        assert_eq!(response.status(), expected, "{path}");
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    connection.abort();
    proxy.stop().await;
}

#[tokio::test]
async fn the_guard_comes_first_and_a_preflight_needs_no_policy() {
    let setup =
        Setup::default().set("POLICY", "read-only").set("GUARD__ALLOWED_ORIGINS", "http://localhost:3000");
    let proxy = setup.start().await;
    let origin = "origin: http://evil.example\r\n";
    check(&asked(&proxy, "GET", "/crx/de", origin).await, 403, "origin", "");
    let preflight = "origin: http://localhost:3000\r\naccess-control-request-method: POST\r\n";
    assert_eq!(asked(&proxy, "OPTIONS", "/content/dam", preflight).await.0, 204);
    // The page gets to read why.
    let mut app = proxy.connect().await;
    app.send("POST /content/dam/a HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost:3000\r\ncontent-length: 4\r\n\r\nbody").await;
    let answer = app.response().await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains("access-control-allow-origin: http://localhost:3000\r\n"), "{answer}");
    // The body was skipped: the connection goes on.
    app.send("GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(app.response().await.starts_with("HTTP/1.1 200 "));
    proxy.stop().await;
}

#[tokio::test]
async fn status_and_page_tell_the_policy_of_each_route() {
    let (proxy, _upstream) = with_routes().await;
    let status = proxy.status().await;
    let default = &status["proxies"][0];
    assert_eq!(default["policy"], "read-only");
    assert_eq!(default["rules"], serde_json::json!(["deny * /content/dam/open/secret/*"]));
    assert_eq!(default["routes"][0]["policy"], "full");
    assert_eq!(default["routes"][0]["rules"], default["rules"]);
    let page = proxy.ask("/").await.1;
    assert!(page.contains("deny * /content/dam/open/secret/*, then read-only"), "{page}");
    assert!(page.contains("then assets-write"), "{page}");
    proxy.stop().await;
}

#[tokio::test]
async fn config_and_check_tell_of_the_policy() {
    let variables = [("AEM_PROXY_RULES", "deny * /x/*,allow POST /y"), ("AEM_PROXY_AUTH", "none")];
    let args = ["--upstream", "http://localhost:1", "--policy", "read-only"];
    let (code, out, _) = text(&run(&[&["config"], &args[..]].concat(), &variables).await);
    assert_eq!(code, 0);
    assert!(out.contains("policy = \"read-only\" # --policy\n"), "{out}");
    assert!(out.contains("rules = [\"deny * /x/*\", \"allow POST /y\"] # AEM_PROXY_RULES\n"), "{out}");

    for (asked, said) in [
        ("/crx/de", "the proxy would refuse GET /crx/de: the path is closed by default"),
        ("/x/%61", "the proxy would refuse GET /x/%61: a rule denies the path"),
        ("/a%2Fb", "the proxy would refuse GET /a%2Fb: the path can be read in more than one way"),
        ("/content?x", "lets GET /content?x through"),
    ] {
        let args = [&["check", "--offline", "--path", asked], &args[..]].concat();
        let (_, out, err) = text(&run(&args, &variables).await);
        assert!(out.contains(said), "{out}{err}");
    }
}
