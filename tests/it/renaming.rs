//! What comes back and names AEM names the proxy, as the client has named it.

use crate::harness::{Proxy, Setup, Upstream, with_upstream};

/// The head of the proxy's answer to `GET path`, for which the client came to `host` and AEM answered with `fields`.
async fn head(proxy: &Proxy, upstream: &Upstream, host: &str, fields: &str) -> String {
    let mut app = proxy.connect().await;
    app.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send(format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n")).await;
    app.rest().await
}

#[tokio::test]
async fn fields_that_name_aem_name_the_proxy_as_the_client_came_to_it() {
    let (proxy, upstream) =
        with_upstream(Setup::default().set("GUARD__ALLOWED_HOSTS", "proxy.example")).await;
    let aem = upstream.origin();
    for host in ["localhost:1234", "127.0.0.1", "Proxy.Example:8443"] {
        let fields = format!(
            "Location: {aem}/a?b\r\ncontent-location: {aem}/c\r\nlink: <{aem}/d>; rel=next, </e>\r\n\
             refresh: 5; url={aem}/f\r\nx-other: {aem}/g\r\n"
        );
        let seen = head(&proxy, &upstream, host, &fields).await;
        for line in [
            format!("Location: http://{host}/a?b\r\n"),
            format!("content-location: http://{host}/c\r\n"),
            format!("link: <http://{host}/d>; rel=next, </e>\r\n"),
            format!("refresh: 5; url=http://{host}/f\r\n"),
            format!("x-other: {aem}/g\r\n"),
        ] {
            assert!(seen.contains(&line), "{line} in {seen}");
        }
    }
    proxy.stop().await;
}

/// python-requests and others take whatever comes first for the answer.
#[tokio::test]
async fn interim_responses_are_for_clients_that_know_them() {
    let (proxy, upstream) = with_upstream(Setup::default().set("HTTP2", "true")).await;
    for (fields, interim) in [
        ("", false),
        ("sec-fetch-mode: cors\r\n", false),
        ("sec-fetch-mode: navigate\r\n", true),
        ("Sec-Fetch-Mode: navigate\r\nsec-fetch-site: none\r\n", true),
    ] {
        for status in ["103 Early Hints", "102 Processing", "110 Unknown"] {
            let mut app = proxy.connect().await;
            app.send(format!("GET / HTTP/1.1\r\nhost: localhost\r\n{fields}connection: close\r\n\r\n")).await;
            let mut aem = upstream.accept().await;
            aem.until("\r\n\r\n").await;
            aem.send(format!(
                "HTTP/1.1 {status}\r\nx-hint: 1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
            ))
            .await;
            let seen = app.rest().await;
            assert_eq!(seen.contains("x-hint"), interim, "{fields}{status}: {seen}");
            assert!(seen.ends_with("\r\n\r\nok") && seen.contains("HTTP/1.1 200 OK"), "{seen}");
        }
    }
    proxy.stop().await;
}

/// The dot of the root: the same host, in another spelling.
#[tokio::test]
async fn an_upstream_with_a_dot_at_its_end_is_called_as_aem_calls_itself() {
    let upstream = Upstream::bind().await;
    let aem = upstream.origin().replace("127.0.0.1", "localhost");
    let proxy = Setup::default().upstream(aem.replace("localhost", "localhost.")).start().await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost\r\nconnection: close\r\n\r\n")
        .await;
    let mut connection = upstream.accept().await;
    let head = connection.until("\r\n\r\n").await.to_lowercase();
    let host = aem.strip_prefix("http://").unwrap_or_default();
    assert!(head.contains(&format!("\r\nhost: {host}\r\n")), "{head}");
    assert!(head.contains(&format!("\r\norigin: {aem}\r\n")), "{head}");
    let link = format!("link: <{aem}/b>; rel=next\r\n");
    connection
        .send(format!("HTTP/1.1 302 Found\r\nlocation: {aem}/a\r\n{link}content-length: 0\r\n\r\n"))
        .await;
    let seen = app.rest().await;
    assert!(seen.contains("location: http://localhost/a\r\n"), "{seen}");
    assert!(seen.contains("link: <http://localhost/b>; rel=next\r\n"), "{seen}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_redirect_to_another_host_stays_one() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let fields = "location: https://other.example/x\r\n";
    assert!(head(&proxy, &upstream, "localhost", fields).await.contains(fields));
    proxy.stop().await;
}

#[tokio::test]
async fn each_of_several_cookies_is_one_that_a_browser_takes_from_the_proxy() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let fields = "set-cookie: affinity=\"1\"; Path=/; HttpOnly\r\n\
                  Set-Cookie: a=1; Domain=aem.example; Path=/; Secure\r\n\
                  set-cookie: b=2; Secure; SameSite=None\r\n";
    let seen = head(&proxy, &upstream, "localhost", fields).await;
    let cookies: Vec<_> =
        seen.lines().filter(|line| line.to_ascii_lowercase().starts_with("set-cookie")).collect();
    assert_eq!(
        cookies,
        ["set-cookie: affinity=\"1\"; Path=/; HttpOnly", "Set-Cookie: a=1; Path=/", "set-cookie: b=2"]
    );
    proxy.stop().await;
}

#[tokio::test]
async fn early_hints_name_the_proxy_too() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\nsec-fetch-mode: navigate\r\nconnection: close\r\n\r\n")
        .await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send(format!("HTTP/1.1 103 Early Hints\r\nlink: <{}/x>; rel=preload\r\n\r\n", upstream.origin()))
        .await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert!(app.rest().await.contains("link: <http://localhost/x>; rel=preload"));
    proxy.stop().await;
}

/// A listing with so many links, and what the client is to get of it.
fn listing(aem: &str, local: &str, links: usize) -> (String, String) {
    let with = |origin: &str| {
        let link = |at: usize| format!(r#"{{"rel":["self"],"href":"{origin}/api/assets/{at}.json"}}"#);
        let links: Vec<_> = (0..links).map(link).collect();
        format!(r#"{{"text":"{aem}/not/a/link","links":[{}],"uploadURIs":["{aem}/x"]}}"#, links.join(","))
    };
    (with(aem), with(local))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// The head and the body of an answer with this body, which AEM sends in pieces of `step` bytes.
async fn body(
    proxy: &Proxy,
    upstream: &Upstream,
    path: &str,
    fields: &str,
    sent: &[u8],
    step: usize,
) -> (String, Vec<u8>) {
    let response = async {
        let response = proxy.get(path).await;
        let head = format!("{:?}", response.headers());
        (head, response.bytes().await.expect("the whole body comes").to_vec())
    };
    let answering = async {
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        if fields.contains("chunked") {
            aem.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).await;
            for piece in sent.chunks(step) {
                aem.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
            }
            aem.send("0\r\n\r\n").await;
        } else {
            // The first piece comes with the head.
            let head = format!("HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n", sent.len());
            let (first, rest) = sent.split_at(step.min(sent.len()));
            aem.send([head.as_bytes(), first].concat()).await;
            for piece in rest.chunks(step) {
                aem.send(piece).await;
            }
        }
        aem
    };
    let (response, _aem) = tokio::join!(response, answering);
    response
}

#[tokio::test]
async fn links_in_json_are_renamed_however_they_are_sent() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let local = format!("http://{}", proxy.addr);
    for links in [1, 100, 20_000] {
        let (sent, expected) = listing(&upstream.origin(), &local, links);
        for coding in ["", "content-encoding: gzip\r\n"] {
            let bytes = if coding.is_empty() { sent.clone().into_bytes() } else { gzip(sent.as_bytes()) };
            for framing in ["", "transfer-encoding: chunked\r\n"] {
                for step in [bytes.len(), 7, 1000] {
                    if bytes.len() / step > 2000 {
                        continue;
                    }
                    let fields = format!(
                        "content-type: application/json;charset=utf-8\r\netag: \"1\"\r\n{coding}{framing}"
                    );
                    let (head, seen) =
                        body(&proxy, &upstream, "/api/assets.json", &fields, &bytes, step).await;
                    assert_eq!(String::from_utf8(seen).unwrap(), expected, "{fields} {step}");
                    assert!(!head.contains("content-encoding"), "{head}");
                    let known =
                        coding.is_empty() && framing.is_empty() && step == bytes.len() && links < 1000;
                    assert!(!known || head.contains("content-length"), "{head}");
                    assert!(head.contains("\"etag\": \"\\\"1\\\"\""), "{head}");
                }
            }
        }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_no_json_or_no_listing_keeps_its_bytes() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let (sent, _) = listing(&upstream.origin(), "", 3);
    for (path, kind) in [
        ("/api/assets/x.jpg", "image/jpeg"),
        ("/api/assets.html", "text/html"),
        ("/content/x.json", "application/json"),
        ("/graphql/execute.json/a/b", "application/json"),
        ("/api/assets.json", "application/json;charset=utf-16"),
    ] {
        let fields = format!("content-type: {kind}\r\n");
        let (head, seen) = body(&proxy, &upstream, path, &fields, sent.as_bytes(), 1000).await;
        assert_eq!(String::from_utf8(seen).unwrap(), sent, "{path}");
        assert!(head.contains("content-length"), "{head}");
    }
    // A coding that nobody here can undo.
    let fields = "content-type: application/json\r\ncontent-encoding: zstd\r\n";
    let (head, seen) = body(&proxy, &upstream, "/api/assets.json", fields, sent.as_bytes(), 1000).await;
    assert_eq!((String::from_utf8(seen).unwrap(), head.contains("zstd")), (sent, true));
    proxy.stop().await;
}

#[tokio::test]
async fn json_that_does_not_name_aem_keeps_its_length() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let sent = br#"{"links":[{"href":"/api/assets/a.json"}]}"#;
    let fields = "content-type: application/json\r\n";
    let (head, seen) = body(&proxy, &upstream, "/api/assets.json", fields, sent, 1000).await;
    assert_eq!((&seen[..], head.contains("content-length")), (&sent[..], true));
    proxy.stop().await;
}

#[tokio::test]
async fn a_direct_upload_is_completed_through_the_proxy_and_graphql_by_choice() {
    let (proxy, upstream) = with_upstream(Setup::default().set("REWRITE__GRAPHQL_URLS", "true")).await;
    let (aem, local) = (upstream.origin(), format!("http://{}", proxy.addr));
    for (path, member) in [
        ("/content/dam/x.initiateUpload.json", "completeURI"),
        ("/graphql/execute.json/a/b", "_publishUrl"),
        ("/content/cq:graphql/a/endpoint.json", "_authorUrl"),
    ] {
        let document = |origin: &str| format!(r#"{{"{member}":"{origin}/x"}}"#);
        let fields = "content-type: application/json\r\n";
        let (_, seen) = body(&proxy, &upstream, path, fields, document(&aem).as_bytes(), 1000).await;
        assert_eq!(String::from_utf8(seen).unwrap(), document(&local));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn links_may_be_left_alone() {
    let (proxy, upstream) = with_upstream(Setup::default().set("REWRITE__LINKS", "false")).await;
    let (sent, _) = listing(&upstream.origin(), "", 3);
    let fields = "content-type: application/json\r\n";
    let (_, seen) = body(&proxy, &upstream, "/api/assets.json", fields, sent.as_bytes(), 1000).await;
    assert_eq!(String::from_utf8(seen).unwrap(), sent);
    proxy.stop().await;
}

#[tokio::test]
async fn a_coded_body_that_breaks_off_is_not_taken_for_whole() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let (sent, _) = listing(&upstream.origin(), "", 100);
    let coded = gzip(sent.as_bytes());
    let mut app = proxy.connect().await;
    app.send("GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    let half = &coded[..coded.len() / 2];
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n";
    aem.send(format!("{head}content-length: {}\r\n\r\n", half.len())).await;
    aem.send(half).await;
    let (answer, reset) = app.rest_or_reset().await;
    assert!(reset && !answer.ends_with("0\r\n\r\n"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn an_old_client_gets_renamed_links_to_the_end_of_its_connection() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let (sent, expected) = listing(&upstream.origin(), "http://localhost", 3);
    let mut app = proxy.connect().await;
    app.send("GET /api/assets.json HTTP/1.0\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    let asked = aem.until("\r\n\r\n").await;
    assert!(!asked.contains("accept-encoding"), "{asked}");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    aem.send(format!("{head}{:x}\r\n{sent}\r\n0\r\n\r\n", sent.len())).await;
    let answer = app.rest().await;
    assert!(answer.contains("connection: close") && !answer.contains("content-length"), "{answer}");
    assert!(answer.ends_with(&expected), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn aem_is_asked_for_codings_that_can_be_undone() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    for (path, coding) in [("/api/assets.json", "gzip"), ("/content/x.json", "gzip, br, zstd")] {
        let mut app = proxy.connect().await;
        app.send(format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\naccept-encoding: gzip, br, zstd\r\n\r\n"
        ))
        .await;
        let mut aem = upstream.accept().await;
        let asked = aem.until("\r\n\r\n").await;
        assert!(asked.contains(&format!("accept-encoding: {coding}\r\n")), "{asked}");
        aem.send("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
        app.until("\r\n\r\n").await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_body_that_is_coded_twice_passes_as_it_is() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let (sent, _) = listing(&upstream.origin(), "", 3);
    let coded = gzip(&gzip(sent.as_bytes()));
    let fields = "content-type: application/json\r\ncontent-encoding: gzip\r\ncontent-encoding: gzip\r\n";
    let (head, seen) = body(&proxy, &upstream, "/api/assets.json", fields, &coded, coded.len()).await;
    assert!(head.contains("content-encoding"), "{head}");
    assert_eq!(seen, coded);
    proxy.stop().await;
}
