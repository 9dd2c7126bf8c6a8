//! What crosses the proxy in spite of its spelling or its place, and what does not: queries, cookies, and fields that are about
//! AEM's own host.

use crate::harness::{Setup, with_upstream};

#[tokio::test]
async fn a_query_is_judged_where_the_target_has_no_path() {
    let proxy = Setup::default().set("POLICY", "read-only").start().await;
    let authority = proxy.addr.to_string();
    for (query, problem) in [
        (":operation=delete", "policy-override"),
        ("%3Aoperation=delete", "policy-override"),
        ("\u{ff1a}operation=delete", "policy-override"),
        ("sudo=admin", "policy-user"),
        ("sling.sudo=admin", "policy-user"),
    ] {
        for target in [
            format!("http://{authority}?{query}"),
            format!("http://{authority}/?{query}"),
            format!("/?{query}"),
        ] {
            let mut app = proxy.connect().await;
            app.send(format!("GET {target} HTTP/1.1\r\nhost: {authority}\r\n\r\n")).await;
            let answer = app.response().await;
            assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains(problem), "{target}: {answer}");
        }
    }
    assert_eq!(proxy.standins.aem.requests(), 0);
    for (reason, count) in [("policy_method", 9.0), ("policy_path", 6.0)] {
        let denied = format!("aem_proxy_denied_total{{proxy=\"default\",reason=\"{reason}\"}}");
        assert_eq!(proxy.metric(&denied).await, count, "{reason}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_user_of_the_clients_own_is_sent_under_no_policy() {
    let setup = Setup::default().set("RULES", "allow * /*");
    let (proxy, upstream) = with_upstream(setup).await;
    let mut app = proxy.connect().await;
    app.send("GET /content?a=b&sudo=admin HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(app.response().await.contains("policy-user"));
    app.send(
        "GET /content?a=b HTTP/1.1\r\nhost: localhost\r\ncookie: a=1; Login-Token=x, b=2\r\n\
         Cookie: \"login-token\"=y; sling.sudo=admin\r\n\r\n",
    )
    .await;
    let mut aem = upstream.accept().await;
    let head = aem.until("\r\n\r\n").await.to_lowercase();
    assert!(head.contains("cookie: a=1; b=2\r\n"), "{head}");
    assert!(!head.contains("login-token") && !head.contains("sudo"), "{head}");
    proxy.stop().await;
}

/// AEM's answer as a client gets it.
async fn answered(setup: Setup, fields: &str) -> String {
    let (proxy, upstream) = with_upstream(setup).await;
    let mut app = proxy.connect().await;
    // As a browser that opens a page: interim responses are for those alone.
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\nsec-fetch-mode: navigate\r\nconnection: close\r\n\r\n")
        .await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send(format!(
        "HTTP/1.1 103 Early Hints\r\n{fields}\r\nHTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nok"
    ))
    .await;
    let answer = app.rest().await;
    proxy.stop().await;
    answer
}

#[tokio::test]
async fn what_aem_says_of_its_own_host_is_not_said_of_the_proxys() {
    let gone = [
        "Strict-Transport-Security: max-age=31536000; includeSubDomains",
        "Alt-Svc: h3=\":443\"; ma=86400",
        "Alternate-Protocol: 443:quic",
        "Public-Key-Pins: pin-sha256=\"x\"; max-age=1",
        "Public-Key-Pins-Report-Only: pin-sha256=\"x\"",
        "Expect-CT: max-age=1, enforce",
        "NEL: {\"report_to\":\"x\",\"max_age\":1}",
        "Report-To: {\"group\":\"x\",\"endpoints\":[]}",
        "Reporting-Endpoints: x=\"https://aem.example/\"",
        "Clear-Site-Data: \"cookies\"",
        "Set-Cookie: login-token=secret; Path=/",
        "SET-COOKIE: \"Login-Token\"=secret",
        "Content-Security-Policy-Report-Only: upgrade-insecure-requests",
    ];
    let kept = [
        "Set-Cookie: affinity=\"0\"; Path=/",
        "X-Content-Type-Options: nosniff",
        "Permissions-Policy: camera=()",
    ];
    let policy = "Content-Security-Policy: default-src 'self'; Upgrade-Insecure-Requests; img-src *";
    let fields: String =
        gone.iter().chain(&kept).chain([&policy]).map(|field| format!("{field}\r\n")).collect();
    let answer = answered(Setup::default(), &fields).await;
    for field in gone {
        let name = field.split(':').next().unwrap();
        let value = field.split(": ").nth(1).unwrap();
        assert!(!answer.contains(value), "{name}: {answer}");
    }
    for field in kept {
        // In the interim response, too.
        assert_eq!(answer.matches(field).count(), 2, "{field}: {answer}");
    }
    let policy = "Content-Security-Policy: default-src 'self'; img-src *\r\n";
    assert_eq!(answer.matches(policy).count(), 2, "{answer}");
}
