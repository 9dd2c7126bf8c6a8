//! Who may ask, and what is a request at all.

use crate::{
    commands,
    harness::{Proxy, Setup, file, with_upstream},
    log,
};

async fn ask(proxy: &Proxy, request: &str) -> String {
    let mut app = proxy.connect().await;
    app.send(request).await;
    app.rest().await
}

#[track_caller]
fn check_problem(answer: &str, status: u16, error: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(&format!("proxy-status: aem-auth-proxy; error={error}")), "{answer}");
    assert!(answer.contains("content-type: application/problem+json"), "{answer}");
    assert!(answer.contains("\"detail\":"), "{answer}");
}

#[tokio::test]
async fn other_hosts_and_other_sites_are_refused_before_anything_happens() {
    let proxy = Proxy::start().await;
    for (field, reason) in [
        ("host: evil.example", "host"),
        ("host: localhost\r\norigin: https://evil.example", "origin"),
        ("host: localhost\r\norigin: null", "origin"),
        ("host: localhost\r\nsec-fetch-site: cross-site", "cross_site"),
    ] {
        let answer =
            ask(&proxy, &format!("GET /echo HTTP/1.1\r\n{field}\r\nconnection: close\r\n\r\n")).await;
        check_problem(&answer, 403, "http_request_denied");
        let metric = format!("aem_proxy_denied_total{{proxy=\"default\",reason=\"{reason}\"}}");
        assert!(proxy.metric(&metric).await > 0.0, "{metric}");
    }
    for head in ["", "host: localhost\r\nhost: localhost\r\n"] {
        let answer = ask(&proxy, &format!("GET /echo HTTP/1.1\r\n{head}connection: close\r\n\r\n")).await;
        check_problem(&answer, 400, "http_request_error");
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    proxy.stop().await;
}

#[tokio::test]
async fn a_host_that_is_odd_or_somebody_elses_is_refused_by_every_version() {
    let proxy = Proxy::start().await;
    for (lines, status) in [
        ("GET / HTTP/1.0\r\n", 400),
        ("GET / HTTP/1.0\r\nhost: evil.example\r\n", 403),
        ("GET / HTTP/1.1\r\nhost:\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: localhost, evil.example\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: localhost evil.example\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: evil.example@localhost\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: localhost:99999\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: ::1\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: localhost.\r\n", 403),
        ("GET / HTTP/1.1\r\nhost: 127.evil\r\n", 403),
        ("GET / HTTP/1.1\r\nhost: 127.0.0.1.evil.example\r\n", 403),
        ("GET / HTTP/1.1\r\nhost: 2130706433\r\n", 403),
        ("GET / HTTP/1.1\r\nhost: 0x7f.1\r\n", 403),
        ("GET / HTTP/1.1\r\nhost: 0\r\n", 403),
        ("GET / HTTP/1.1\r\nhost: 0.0.0.0\r\n", 403),
        ("GET / HTTP/1.1\r\nhost: 127.1\r\n", 403),
        ("GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\n", 400),
        ("GET http://localhost/ HTTP/1.1\r\nhost: evil.example\r\n", 400),
        ("GET http://evil.example/ HTTP/1.1\r\nhost: evil.example\r\n", 403),
        ("GET http://localhost@evil.example/ HTTP/1.1\r\nhost: localhost\r\n", 400),
    ] {
        let answer = ask(&proxy, &format!("{lines}connection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{lines}: {answer}");
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    for host in ["LOCALHOST", "127.0.0.1:1", "[::1]:65535"] {
        let answer = ask(&proxy, &format!("GET /api/assets.json HTTP/1.0\r\nhost: {host}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn other_sites_get_no_upgrade_no_preflight_and_none_of_our_own_answers() {
    // Without a token all others would get 503.
    let setup = Setup::default().set("GUARD__ALLOWED_ORIGINS", "http://localhost:3000");
    let standins = setup.start_standins().await;
    standins.ims.set_always(Some(aem_auth_proxy::standin::ims::Fault::internal_error()));
    let proxy = setup.start_with(standins).await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n";
    let preflight = "access-control-request-method: PUT\r\n";
    for (lines, reason) in [
        (format!("GET / HTTP/1.1\r\norigin: https://evil.example\r\n{upgrade}"), "origin"),
        (format!("GET / HTTP/1.1\r\nsec-fetch-site: cross-site\r\n{upgrade}"), "cross-site"),
        (format!("OPTIONS / HTTP/1.1\r\norigin: https://evil.example\r\n{preflight}"), "origin"),
        (format!("OPTIONS / HTTP/1.1\r\norigin: null\r\n{preflight}"), "origin"),
        ("GET / HTTP/1.1\r\norigin: https://evil.example\r\n".to_owned(), "origin"),
        ("GET / HTTP/1.0\r\norigin: https://evil.example\r\n".to_owned(), "origin"),
        ("CONNECT localhost:80 HTTP/1.1\r\norigin: https://evil.example\r\n".to_owned(), "origin"),
        // A page of another port on this machine, with an image or a link.
        (
            "GET / HTTP/1.1\r\nsec-fetch-site: same-site\r\nreferer: http://localhost:3001/\r\n".to_owned(),
            "origin",
        ),
        ("GET / HTTP/1.1\r\nsec-fetch-site: same-site\r\n".to_owned(), "origin"),
    ] {
        let mut app = proxy.connect().await;
        app.send(format!("{lines}host: localhost\r\n\r\n")).await;
        let answer = app.response().await;
        check_problem(&answer, 403, "http_request_denied");
        assert!(answer.contains(&format!("problem:{reason}\"")), "{lines}: {answer}");
        assert!(!answer.contains("access-control"), "{lines}: {answer}");
    }
    for lines in [
        "GET / HTTP/1.1\r\nsec-fetch-site: same-site\r\nreferer: http://localhost:3000/\r\n",
        "GET / HTTP/1.1\r\nsec-fetch-site: none\r\n",
        "GET / HTTP/1.1\r\nsec-fetch-site: same-origin\r\n",
    ] {
        let answer = ask(&proxy, &format!("{lines}host: localhost\r\nconnection: close\r\n\r\n")).await;
        check_problem(&answer, 503, "destination_unavailable");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_address_of_the_network_takes_a_word_and_is_said_loudly() {
    let open = "whoever reaches it acts with the proxy's credentials: if that is meant, say so with guard.allow_remote = true";
    let admin = "whoever reaches it reads the proxy's status and metrics: if that is meant, say so with admin.allow_remote = true";
    for (name, listen, words) in [
        ("AEM_PROXY_LISTEN", "0.0.0.0:0", open),
        ("AEM_PROXY_LISTEN", "[::]:0", open),
        ("AEM_PROXY_LISTEN", "192.0.2.1:80", open),
        ("AEM_PROXY_ADMIN__LISTEN", "0.0.0.0:0", admin),
    ] {
        let variables =
            [("AEM_PROXY_UPSTREAM", "http://localhost:1"), ("AEM_PROXY_AUTH", "none"), (name, listen)];
        let (code, _, err) = commands::text(&commands::run(&[], &variables).await);
        assert!(code == 78 && err.contains(words), "{listen}: {code} {err}");
    }
    let secret = file("s8e-0123456789abcdef");
    let proxy = Setup::default()
        .set("LISTEN", "0.0.0.0:0")
        .set("UPSTREAM", "http://localhost:1")
        .set("ADMIN__LISTEN", "0.0.0.0:0")
        .set("GUARD__ALLOW_REMOTE", "true")
        .set("GUARD__SECRET_FILE", commands::path(secret.path()))
        .start_without_token()
        .await;
    let said = "Open to the network: whoever reaches this address and knows the secret acts with the proxy's credentials, \
                over plain HTTP";
    assert!(log::count(said) > 0);
    assert!(
        log::count("Open to the network: whoever reaches the admin listener reads status and metrics") > 0
    );
    proxy.stop().await;
    let narrow = Setup::default().set("ADMIN__LISTEN", "0.0.0.0:0").set("ADMIN__ALLOW_REMOTE", "true");
    narrow.start_without_token().await.stop().await;
}

#[tokio::test]
async fn configured_names_and_origins_are_let_in() {
    let setup = Setup::default()
        .set("GUARD__ALLOWED_HOSTS", "proxy")
        .set("GUARD__ALLOWED_ORIGINS", "http://localhost:3000");
    let proxy = setup.start().await;
    let request = "GET /api/assets.json HTTP/1.1\r\nhost: proxy:8080\r\norigin: http://localhost:3000\r\nconnection: close\r\n\r\n";
    assert!(ask(&proxy, request).await.starts_with("HTTP/1.1 200 OK"));
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_no_request_gets_a_problem_document_and_the_connection_ends() {
    let proxy = Proxy::start().await;
    for request in [
        "nonsense\r\n\r\n",
        "GET / HTTP/3.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: localhost\r\nname : spaced\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n",
    ] {
        check_problem(&ask(&proxy, request).await, 400, "http_request_error");
    }
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    proxy.stop().await;
}

#[tokio::test]
async fn no_answer_to_a_head_has_a_body_whatever_is_wrong_with_it() {
    let proxy = Setup::default().set("LIMITS__HEAD", "16 KiB").start().await;
    let long = "a".repeat(20 * 1024);
    for (status, rest) in [
        (400, "a HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        (400, "/ HTTP/1.2\r\nhost: localhost\r\n\r\n"),
        (400, "/ HTTP/1.1\r\n\r\n"),
        (400, "/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: +1\r\n\r\n"),
        (403, "/ HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n"),
        (414, &*format!("/{long} HTTP/1.1\r\nhost: localhost\r\n\r\n")),
        (417, "/ HTTP/1.1\r\nhost: localhost\r\nexpect: x\r\n\r\n"),
        (431, &*format!("/ HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n")),
        (501, "/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip, chunked\r\n\r\n"),
    ] {
        let answer = ask(&proxy, &format!("HEAD {rest}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.ends_with("\r\n\r\n") && answer.matches("\r\n\r\n").count() == 1, "{answer}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn bad_bytes_after_a_good_request_leave_its_answer_whole() {
    let proxy = Proxy::start().await;
    let mut app = proxy.connect().await;
    app.send("GET /echo HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let first = app.until("HTTP/1.1\"}").await;
    assert!(first.starts_with("HTTP/1.1 200 OK"));
    app.send("nonsense\r\n\r\n").await;
    check_problem(&app.rest().await, 400, "http_request_error");
    proxy.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_or_too_slow_is_refused() {
    let proxy =
        Setup::default().set("LIMITS__HEAD", "16 KiB").set("TIMEOUTS__REQUEST_HEAD", "200ms").start().await;
    let head = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(20 * 1024));
    check_problem(&ask(&proxy, &head).await, 431, "http_request_error");
    let uri = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(20 * 1024));
    check_problem(&ask(&proxy, &uri).await, 414, "http_request_error");
    check_problem(&ask(&proxy, "GET / HTTP/1.1\r\nhost:").await, 408, "http_request_error");
    let fits = format!(
        "GET /echo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: {}\r\n\r\n",
        "a".repeat(12 * 1024)
    );
    assert!(ask(&proxy, &fits).await.starts_with("HTTP/1.1 200"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_head_after_an_answer_of_our_own_is_watched_as_any_other() {
    let proxy = Setup::default().set("TIMEOUTS__REQUEST_HEAD", "200ms").start().await;
    let mut app = proxy.connect().await;
    app.send("GET /echo HTTP/1.1\r\nhost: evil.example\r\n\r\n").await;
    check_problem(&app.response().await, 403, "http_request_denied");
    app.send("GET /echo HT").await;
    check_problem(&app.rest().await, 408, "http_request_error");
    proxy.stop().await;
}

#[tokio::test]
async fn a_head_in_many_pieces_is_a_head() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    for byte in b"GET /slow HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" {
        app.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert!(app.rest().await.ends_with("\r\n\r\nok"));
    proxy.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let proxy = Setup::default().set("TIMEOUTS__KEEP_ALIVE", "200ms").start().await;
    assert_eq!(proxy.connect().await.rest().await, "");
    proxy.stop().await;
}
