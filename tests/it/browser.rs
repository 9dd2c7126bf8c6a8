//! What a web page's requests get, as a browser would send them.

use aem_auth_proxy::standin::ims::Fault;
use serde_json::Value;

use crate::harness::{PATIENCE, Proxy, Setup, with_upstream};

const PAGE: &str = "http://localhost:3000";

fn allowing() -> Setup {
    Setup::default().set("GUARD__ALLOWED_ORIGINS", PAGE)
}

/// The whole answer to a request with these lines; the connection ends with it.
async fn ask(proxy: &Proxy, lines: &str) -> String {
    let mut app = proxy.connect().await;
    app.send(format!("{lines}\r\nhost: localhost:8080\r\nconnection: close\r\n\r\n")).await;
    app.rest().await
}

/// The values of the field `name`.
fn values<'a>(answer: &'a str, name: &str) -> Vec<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[track_caller]
fn check_no_cors(answer: &str) {
    assert!(!answer.to_ascii_lowercase().contains("access-control-"), "{answer}");
}

#[tokio::test]
async fn a_preflight_is_answered_here_whether_or_not_there_is_a_token() {
    let setup = allowing();
    let standins = setup.start_standins().await;
    standins.ims.set_always(Some(Fault::internal_error()));
    let proxy = setup.start_with(standins).await;
    for method in ["GET", "POST", "DELETE", "COPY", "MOVE", "PROPFIND", "X-Own"] {
        let answer = ask(
            &proxy,
            &format!(
                "OPTIONS /api/assets HTTP/1.1\r\norigin: {PAGE}\r\nsec-fetch-site: cross-site\r\n\
                 access-control-request-method: {method}\r\n\
                 access-control-request-headers: content-type,csrf-token, x-destination"
            ),
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 204 No Content\r\n") && answer.ends_with("\r\n\r\n"),
            "{answer}"
        );
        assert_eq!(values(&answer, "access-control-allow-origin"), [PAGE]);
        assert_eq!(values(&answer, "access-control-allow-credentials"), ["true"]);
        assert_eq!(values(&answer, "access-control-allow-methods"), [method]);
        assert_eq!(
            values(&answer, "access-control-allow-headers"),
            ["content-type,csrf-token, x-destination"]
        );
        assert_eq!(values(&answer, "access-control-max-age"), ["600"]);
        assert_eq!(
            values(&answer, "vary"),
            ["Origin, Access-Control-Request-Method, Access-Control-Request-Headers"]
        );
        assert!(values(&answer, "access-control-allow-private-network").is_empty(), "{answer}");
        // RFC 9110, section 8.6: none with a 204.
        assert!(values(&answer, "content-length").is_empty(), "{answer}");
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    let counted = "aem_proxy_requests_total{method=\"OPTIONS\",proxy=\"default\",status_class=\"2xx\"}";
    assert_eq!(proxy.metric(counted).await, 7.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_preflight_says_no_more_than_was_asked_and_asks_for_what_there_is() {
    let proxy = allowing().start().await;
    let preflight = |fields: &str| format!("OPTIONS / HTTP/1.1\r\norigin: {PAGE}\r\n{fields}");
    let method = "access-control-request-method: PUT";
    let answer =
        ask(&proxy, &preflight(&format!("{method}\r\naccess-control-request-private-network: true"))).await;
    assert_eq!(values(&answer, "access-control-allow-private-network"), ["true"]);
    assert!(values(&answer, "access-control-allow-headers").is_empty(), "{answer}");
    for odd in ["a b", "a, <script>", "a,\tb c", "\u{e9}"] {
        let answer =
            ask(&proxy, &preflight(&format!("{method}\r\naccess-control-request-headers: {odd}"))).await;
        assert!(values(&answer, "access-control-allow-headers").is_empty(), "{answer}");
    }
    let answer = ask(&proxy, &preflight("access-control-request-method: a b")).await;
    assert!(values(&answer, "access-control-allow-methods").is_empty(), "{answer}");
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    // An OPTIONS that asks nothing of the kind is AEM's to answer.
    let answer = ask(&proxy, &format!("OPTIONS /echo HTTP/1.1\r\norigin: {PAGE}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(proxy.standins.aem.requests(), 1);
    // A connection goes on after a preflight.
    let mut app = proxy.connect().await;
    let head = format!("{}\r\nhost: localhost\r\n\r\n", preflight(method));
    app.send(&head).await;
    app.until("\r\n\r\n").await;
    app.send(&head).await;
    assert!(app.until("\r\n\r\n").await.starts_with("HTTP/1.1 204"));
    proxy.stop().await;
}

/// `fetch(url, {method: "patch"})`: browsers put only some methods into capitals (the Fetch standard, "normalize").
#[tokio::test]
async fn a_method_in_small_letters_is_refused_with_words_that_its_page_may_read() {
    let proxy = allowing().start().await;
    let question = format!("OPTIONS / HTTP/1.1\r\norigin: {PAGE}\r\naccess-control-request-method: patch");
    let answer = ask(&proxy, &question).await;
    assert_eq!(values(&answer, "access-control-allow-methods"), ["patch"]);
    for method in ["patch", "Patch", "get", "purge"] {
        let answer =
            ask(&proxy, &format!("{method} /echo HTTP/1.1\r\norigin: {PAGE}\r\ncontent-length: 0")).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("problem:method"), "{answer}");
        assert!(answer.contains("written in capitals"), "{answer}");
        assert_eq!(values(&answer, "access-control-allow-origin"), [PAGE]);
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    assert_eq!(proxy.metric("aem_proxy_denied_total{proxy=\"default\",reason=\"method\"}").await, 4.0);
    proxy.stop().await;
}

#[tokio::test]
async fn other_origins_learn_nothing() {
    for setup in [allowing(), Setup::default()] {
        let proxy = setup.start().await;
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost:3001",
            "http://127.0.0.1:3000",
            "https://localhost:3000",
            "http://localhost:3000.evil.example",
            "http://localhost:3000/",
        ] {
            let preflight =
                format!("OPTIONS /x HTTP/1.1\r\norigin: {origin}\r\naccess-control-request-method: PUT");
            let simple = format!("GET /api/assets.json HTTP/1.1\r\norigin: {origin}");
            for request in [preflight, simple] {
                let answer = ask(&proxy, &request).await;
                assert!(answer.starts_with("HTTP/1.1 403 "), "{request}: {answer}");
                check_no_cors(&answer);
            }
        }
        // A `Referer` opens nothing.
        let referred =
            format!("GET /api/assets.json HTTP/1.1\r\nreferer: {PAGE}/\r\nsec-fetch-site: cross-site");
        check_no_cors(&ask(&proxy, &referred).await);
        let two = format!("GET / HTTP/1.1\r\norigin: {PAGE}\r\norigin: {PAGE}");
        check_no_cors(&ask(&proxy, &two).await);
        assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_reads_aems_answer_and_all_of_its_fields() {
    let (proxy, upstream) = with_upstream(allowing()).await;
    let mut app = proxy.connect().await;
    app.send(format!("GET /x HTTP/1.1\r\nhost: localhost\r\norigin: {PAGE}\r\nsec-fetch-site: cross-site\r\nreferer: {PAGE}/a?b\r\n\r\n")).await;
    let mut aem = upstream.accept().await;
    let seen = aem.until("\r\n\r\n").await;
    assert_eq!(values(&seen, "origin"), [upstream.origin()]);
    assert_eq!(values(&seen, "referer"), [format!("{}/a?b", upstream.origin())]);
    aem.send(
        "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\nAccess-Control-Expose-Headers: x\r\n\
         access-control-allow-credentials: false\r\nETag: \"1\"\r\nX-Reason: none\r\nvary: Accept\r\n\
         content-length: 0\r\n\r\n",
    )
    .await;
    let answer = app.until("\r\n\r\n").await;
    assert_eq!(values(&answer, "access-control-allow-origin"), [PAGE]);
    assert_eq!(values(&answer, "access-control-allow-credentials"), ["true"]);
    assert_eq!(values(&answer, "access-control-expose-headers"), ["ETag, X-Reason, vary"]);
    assert_eq!(values(&answer, "vary"), ["Accept", "Origin"]);

    // The next one on the same connections is not of a page.
    app.send("GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\ncontent-length: 0\r\n\r\n").await;
    let answer = app.until("\r\n\r\n").await;
    assert_eq!(values(&answer, "access-control-allow-origin"), ["*"]);
    assert!(values(&answer, "vary").is_empty(), "{answer}");

    // Nor is it of another origin where a page came through the proxy itself.
    app.send("POST /x HTTP/1.1\r\nhost: localhost:8080\r\norigin: http://localhost:8080\r\nsec-fetch-site: same-origin\r\ncontent-length: 0\r\n\r\n").await;
    let seen = aem.until("\r\n\r\n").await;
    assert_eq!(values(&seen, "origin"), [upstream.origin()]);
    assert!(values(&seen, "referer").is_empty(), "{seen}");
    aem.send("HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(values(&app.until("\r\n\r\n").await, "access-control-allow-origin"), ["*"]);
    proxy.stop().await;
}

#[tokio::test]
async fn a_page_reads_the_proxys_own_answers_too() {
    let setup = allowing();
    let standins = setup.start_standins().await;
    standins.ims.set_always(Some(Fault::internal_error()));
    let proxy = setup.start_with(standins).await;
    let answer = ask(&proxy, &format!("GET /api/assets.json HTTP/1.1\r\norigin: {PAGE}")).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("no-token"), "{answer}");
    assert_eq!(values(&answer, "access-control-allow-origin"), [PAGE]);
    assert_eq!(values(&answer, "access-control-expose-headers"), ["allow, proxy-status, retry-after"]);
    assert_eq!(values(&answer, "vary"), ["Origin"]);
    check_no_cors(&ask(&proxy, "GET /api/assets.json HTTP/1.1").await);
    proxy.stop().await;
}

#[tokio::test]
async fn aem_sees_its_own_origin_and_the_chosen_user_agent() {
    let setup = allowing().tls().set("REWRITE__USER_AGENT", "my-app/1.0");
    let proxy = setup.start().await;
    let origin = proxy.standins.aem_origin.clone();
    assert!(origin.starts_with("https://"), "{origin}");
    let seen = proxy
        .echo(&[
            ("origin", PAGE),
            ("referer", &format!("{PAGE}/list?page=2")),
            ("user-agent", "Mozilla/5.0 (X11)"),
            ("x-destination", &proxy.url("/api/assets/b.json")),
        ])
        .await;
    assert_eq!(seen.one("origin").as_deref(), Some(&*origin));
    assert_eq!(seen.one("referer"), Some(format!("{origin}/list?page=2")));
    assert_eq!(seen.one("user-agent").as_deref(), Some("my-app/1.0"));
    assert_eq!(seen.one("x-destination"), Some(format!("{origin}/api/assets/b.json")));
    assert_eq!(proxy.echo(&[]).await.one("user-agent").as_deref(), Some("my-app/1.0"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_csrf_token_passes_and_is_kept_by_no_cache() {
    let (proxy, upstream) = with_upstream(allowing()).await;
    let mut app = proxy.connect().await;
    let mut aem = None;
    for (path, kept) in [
        ("/libs/granite/csrf/token.json", false),
        ("/libs/granite/csrf/token.json?_=1", false),
        ("/libs/granite/csrf/token.json.html", true),
        ("/x?/libs/granite/csrf/token.json", true),
    ] {
        app.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\ncsrf-token: pass\r\n\r\n")).await;
        if aem.is_none() {
            aem = Some(upstream.accept().await);
        }
        let aem = aem.as_mut().unwrap();
        assert_eq!(values(&aem.until("\r\n\r\n").await, "csrf-token"), ["pass"]);
        aem.send(
            "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 13\r\n\r\n{\"token\":\"t\"}",
        )
        .await;
        let answer = app.response().await;
        let expected = if kept { "max-age=60" } else { "no-store" };
        assert_eq!(values(&answer, "cache-control"), [expected], "{path}");
        assert!(answer.ends_with("{\"token\":\"t\"}"));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_write_of_a_page_is_a_write_at_aem() {
    let proxy = allowing().start().await;
    let client = crate::harness::client();
    let token: Value = client
        .get(proxy.url("/libs/granite/csrf/token.json"))
        .header("origin", PAGE)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let token = token["token"].as_str().expect("AEM gives a token").to_owned();
    for method in [http::Method::POST, http::Method::PUT, http::Method::DELETE] {
        let answer = client
            .request(method.clone(), proxy.url("/echo/content"))
            .header("origin", PAGE)
            .header("user-agent", "Mozilla/5.0")
            .header("csrf-token", &token)
            .timeout(PATIENCE)
            .body("x=1")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{method}");
        assert_eq!(answer.headers()["access-control-allow-origin"], PAGE);
    }
    proxy.stop().await;
}
