//! The secret that every request has to show, where there is one.

use std::time::Duration;

use http::StatusCode;
use tokio::time::timeout;

use crate::{
    commands,
    harness::{PATIENCE, Proxy, Raw, Setup, file},
    log,
};

/// No log may hold one: the harness's watch looks for `s8e-`.
const SECRET: &str = "s8e-0123456789abcdef";
const NEXT: &str = "s8e-fedcba9876543210";

async fn start(secret: &tempfile::NamedTempFile, setup: Setup) -> Proxy {
    let path = secret.path().display().to_string();
    setup.set("GUARD__SECRET_FILE", path).set("WATCH__POLL", "50ms").start().await
}

/// GETs something with these fields; the status, and the problem's name if it is one of ours.
async fn ask(proxy: &Proxy, fields: &[(&str, &str)]) -> (StatusCode, String) {
    let mut request = crate::harness::client().get(proxy.url("/api/assets.json"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    (
        status,
        text.split("urn:aem-auth-proxy:problem:")
            .nth(1)
            .unwrap_or_default()
            .split('"')
            .next()
            .unwrap()
            .to_owned(),
    )
}

async fn until(proxy: &Proxy, secret: &str, status: u16) {
    let asking = async {
        while ask(proxy, &[("x-aem-proxy-secret", secret)]).await.0.as_u16() != status {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("no answer becomes {status}"));
}

#[tokio::test]
async fn only_who_shows_the_secret_is_let_in() {
    let secret = file(&format!("{SECRET}\n"));
    let proxy = start(&secret, Setup::default()).await;
    let name = "x-aem-proxy-secret";
    for fields in [
        &[][..],
        &[(name, "")],
        &[(name, "s8e-0123456789abcdeg")],
        &[(name, "s8e-0123456789abcde")],
        &[(name, "s8e-0123456789abcdef0")],
        &[(name, SECRET), (name, SECRET)],
        &[(name, SECRET), (name, "other")],
        &[("authorization", SECRET)],
        &[("x-aem-proxy-secrets", SECRET)],
    ] {
        assert_eq!(ask(&proxy, fields).await, (StatusCode::FORBIDDEN, "secret".to_owned()), "{fields:?}");
    }
    let denied = "aem_proxy_denied_total{proxy=\"default\",reason=\"secret\"}";
    assert_eq!(proxy.metric(denied).await, 9.0);
    assert_eq!(proxy.standins.aem.requests(), 0);
    assert_eq!(ask(&proxy, &[("X-AEM-PROXY-SECRET", SECRET)]).await.0, 200);
    proxy.stop().await;
}

#[tokio::test]
async fn aem_never_sees_the_secret() {
    let secret = file(SECRET);
    let setup = Setup::default().set("GUARD__SECRET_HEADER", "X-Door");
    let proxy = start(&secret, setup).await;
    let seen = proxy.echo(&[("X-Door", SECRET), ("x-aem-proxy-secret", "kept"), ("x-doors", "kept")]).await;
    assert_eq!(seen.all("x-door"), [""; 0]);
    assert_eq!(
        (seen.all("x-aem-proxy-secret"), seen.all("x-doors")),
        (vec!["kept".into()], vec!["kept".into()])
    );
    assert!(!seen.0.to_string().contains(SECRET));
    proxy.stop().await;
}

#[tokio::test]
async fn whoever_is_not_let_in_learns_nothing_of_the_secret_first() {
    let secret = file(SECRET);
    let proxy = start(&secret, Setup::default()).await;
    let shown = ("x-aem-proxy-secret", SECRET);
    // The secret does not open what the guard shuts.
    for (fields, problem) in [
        ([("origin", "https://evil.example"), shown], "origin"),
        ([("sec-fetch-site", "cross-site"), shown], "cross-site"),
        ([("host", "evil.example"), shown], "host"),
        ([("host", "evil.example"), ("x", "")], "host"),
    ] {
        assert_eq!(ask(&proxy, &fields).await.1, problem);
    }
    assert_eq!(proxy.standins.aem.requests(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_browser_may_ask_without_it_and_then_shows_it() {
    let secret = file(SECRET);
    let proxy = start(&secret, Setup::default().set("GUARD__ALLOWED_ORIGINS", "http://localhost:3000")).await;
    let ask = async |request: &str| {
        let mut app: Raw = proxy.connect().await;
        app.send(format!(
            "{request}host: localhost\r\norigin: http://localhost:3000\r\nconnection: close\r\n\r\n"
        ))
        .await;
        app.rest().await
    };
    let method =
        "access-control-request-method: PUT\r\naccess-control-request-headers: x-aem-proxy-secret\r\n";
    let preflight = ask(&format!("OPTIONS /a HTTP/1.1\r\n{method}")).await;
    assert!(preflight.starts_with("HTTP/1.1 204 "), "{preflight}");
    assert!(preflight.contains("access-control-allow-headers: x-aem-proxy-secret\r\n"), "{preflight}");
    // What only looks like such a question goes to AEM, and so has to show it.
    for request in ["OPTIONS /a HTTP/1.1\r\n".to_owned(), format!("PUT /a HTTP/1.1\r\n{method}")] {
        let refused = ask(&request).await;
        assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
        assert!(
            refused.contains("access-control-allow-origin: http://localhost:3000\r\n"),
            "the page reads why"
        );
    }
    let shown = ask(&format!("GET /api/assets.json HTTP/1.1\r\nx-aem-proxy-secret: {SECRET}\r\n")).await;
    assert!(shown.starts_with("HTTP/1.1 200 "), "{shown}");
    assert_eq!(proxy.standins.aem.requests(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn upgrades_and_connections_that_stay_have_to_show_it_each_time() {
    let secret = file(SECRET);
    let proxy = start(&secret, Setup::default()).await;
    let mut app = proxy.connect().await;
    let shown = format!("x-aem-proxy-secret: {SECRET}\r\n");
    for (fields, status) in [("", 403), (&*shown, 200), ("", 403)] {
        app.send(format!("GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")).await;
        let answer = app.response().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    app.send("GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .await;
    assert!(app.response().await.starts_with("HTTP/1.1 403 "));
    assert_eq!(proxy.standins.aem.requests(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_new_secret_takes_over_and_a_bad_one_does_not() {
    let secret = file(SECRET);
    let proxy = start(&secret, Setup::default()).await;
    // Both, while the apps get the next one.
    std::fs::write(secret.path(), format!("{SECRET}\n{NEXT}\n")).unwrap();
    until(&proxy, NEXT, 200).await;
    until(&proxy, SECRET, 200).await;
    std::fs::write(secret.path(), format!("{NEXT}\n")).unwrap();
    until(&proxy, SECRET, 403).await;

    let told = format!(
        "`guard.secret_file` ({}) holds a secret of fewer than 16 characters",
        secret.path().display()
    );
    std::fs::write(secret.path(), "short").unwrap();
    let logged = async {
        while log::count(&told) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, logged).await.expect("it is told");
    assert_eq!(ask(&proxy, &[("x-aem-proxy-secret", NEXT)]).await.0, 200, "what was read before stays");
    assert_eq!(ask(&proxy, &[("x-aem-proxy-secret", "short")]).await.0, 403);
    proxy.stop().await;
}

#[tokio::test]
async fn a_file_that_holds_no_secret_is_an_error_at_the_start_and_in_check() {
    for (text, words) in [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("s8e-short", "fewer than 16 characters"),
        ("s8e-0123456789 abcdef", "not plain ASCII"),
    ] {
        let secret = file(text);
        let variables = [
            ("AEM_PROXY_UPSTREAM", "http://localhost:1"),
            ("AEM_PROXY_AUTH", "none"),
            ("AEM_PROXY_GUARD__SECRET_FILE", commands::path(secret.path())),
        ];
        let (code, _, err) = commands::text(&commands::run(&[], &variables).await);
        assert!(
            code == 78 && err.contains("guard.secret_file") && err.contains(words),
            "{text:?}: {code} {err}"
        );
        assert!(!err.contains("s8e-"), "{err}");
        let (code, out, _) = commands::text(&commands::run(&["check", "--offline"], &variables).await);
        assert!(code == 1 && out.contains(words), "{text:?}: {code} {out}");
    }
}
