//! Bodies stream both ways, whole or visibly not.

use aem_auth_proxy::standin::pattern::{pattern, sha256_hex};

use crate::harness::{Proxy, Setup, client, with_upstream};

#[tokio::test]
async fn uploads_and_downloads_arrive_whole() {
    let proxy = Setup::default().tls().start().await;
    let bytes = pattern(3_000_000);
    let up = client().put(proxy.url("/upload")).body(bytes.clone()).send().await.unwrap();
    let seen: serde_json::Value = up.json().await.unwrap();
    assert_eq!(
        (seen["length"].as_u64(), seen["sha256"].as_str().unwrap()),
        (Some(3_000_000), &*sha256_hex(&bytes))
    );
    for path in ["/download/3000000", "/download/3000000?chunked=1"] {
        let down = proxy.get(path).await;
        assert_eq!(down.content_length().is_none(), path.contains("chunked"));
        assert_eq!(sha256_hex(&down.bytes().await.unwrap()), sha256_hex(&bytes));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_chunked_upload_stays_chunked_whatever_its_method() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    for method in ["POST", "GET", "DELETE"] {
        let mut app = proxy.connect().await;
        app.send(format!(
            "{method} / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ))
        .await;
        let mut aem = upstream.accept().await;
        let seen = aem.until("0\r\n\r\n").await;
        assert!(
            seen.contains("transfer-encoding: chunked\r\n")
                && seen.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            "{seen}"
        );
        aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        assert!(app.rest().await.starts_with("HTTP/1.1 200"));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_body_with_another_transfer_coding_is_not_passed_on_as_plain() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n").await;
    assert!(app.rest().await.starts_with("HTTP/1.1 501"));

    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n").await;
    assert!(app.rest().await.starts_with("HTTP/1.1 502"));
    proxy.stop().await;
}

#[tokio::test]
async fn trailers_of_the_list_pass_both_ways_and_no_others() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send(
        "POST / HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\nconnection: te, close\r\ntrailer: digest\r\n\
         transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-HTTP-Method-Override: DELETE\r\nX-Api-Key: own\r\n\
         Range: bytes=0-1\r\nIf-Match: *\r\nX-AEM-Proxy-Secret: s\r\nServer-Timing: a\r\ndigest: 1\r\n\r\n",
    )
    .await;
    let mut aem = upstream.accept().await;
    let seen = aem.until("3\r\nabc\r\n0\r\ndigest: 1\r\n\r\n").await;
    assert!(seen.contains("te: trailers\r\n") && seen.contains("connection: te\r\n"), "{seen}");
    aem.send(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: server-timing\r\n\r\n2\r\nok\r\n0\r\n\
         Set-Cookie: login-token=x\r\nStrict-Transport-Security: max-age=1\r\nAlt-Svc: h2\r\nX-Any: 1\r\nserver-timing: 2\r\n\r\n",
    )
    .await;
    let answer = app.rest().await;
    assert!(answer.contains("2\r\nok\r\n0\r\nserver-timing: 2\r\n\r\n"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn answers_without_a_body_keep_their_length_and_their_connection() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    let mut aem = None;
    for (request, answer, expected) in [
        ("HEAD", "200 OK\r\ncontent-length: 1234", "content-length: 1234"),
        ("GET", "304 Not Modified\r\netag: \"x\"\r\ncontent-length: 77", "etag: \"x\""),
        ("GET", "204 No Content\r\nx-a: 1", "x-a: 1"),
        ("HEAD", "200 OK\r\ntransfer-encoding: chunked", "200 OK"),
    ] {
        app.send(format!("{request} / HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        if aem.is_none() {
            aem = Some(upstream.accept().await);
        }
        let aem = aem.as_mut().unwrap();
        assert!(aem.until("\r\n\r\n").await.starts_with(request));
        aem.send(format!("HTTP/1.1 {answer}\r\n\r\n")).await;
        let head = app.until("\r\n\r\n").await;
        assert!(head.contains(expected) && head.ends_with("\r\n\r\n"), "{head}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_expects_100_continue_hears_aems_and_not_ours() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    assert!(aem.until("\r\n\r\n").await.contains("expect: 100-continue\r\n"));
    aem.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(app.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    app.send("body").await;
    aem.until("body").await;
    aem.send("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").await;
    assert!(app.until("\r\n\r\n").await.starts_with("HTTP/1.1 201 Created"));
    proxy.stop().await;
}

#[tokio::test]
async fn an_upload_that_aem_refuses_unseen_is_never_asked_for() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\n").await;
    let answer = app.until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413 Too Large"), "{answer}");
    // Its body may come later: the connection to AEM has to live on for it.
    aem.send("no").await;
    app.until("no").await;
    proxy.stop().await;
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let app = proxy.connect().await;
    let (mut read, mut write) = app.0.into_split();
    let sending = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let head = "PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000\r\n\r\n";
        write.write_all(head.as_bytes()).await.unwrap();
        let block = vec![b'x'; 64 * 1024];
        // A client that looks for no answer before it is done, up to a bound.
        for _ in 0..1_500 {
            if write.write_all(&block).await.is_err() {
                break;
            }
        }
    });
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
    let mut answer = Vec::new();
    let reading = async {
        use tokio::io::AsyncReadExt;
        while !answer.ends_with(b"\r\n\r\nno") {
            assert!(read.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, reading).await.expect("the answer comes");
    assert!(answer.starts_with(b"HTTP/1.1 413 Too Large"));
    sending.abort();
    proxy.stop().await;
}

#[tokio::test]
async fn an_upload_that_was_answered_early_and_stalls_is_given_up() {
    let (proxy, upstream) = with_upstream(Setup::default().set("TIMEOUTS__IDLE", "200ms")).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf").await;
    let mut aem = upstream.accept().await;
    aem.until("half").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    app.until("\r\n\r\nok").await;
    assert!(app.is_ended().await && aem.is_ended().await);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_no_more_of_an_answer_is_given_up() {
    let (proxy, upstream) = with_upstream(Setup::default().set("TIMEOUTS__IDLE", "200ms")).await;
    let app = proxy.connect().await;
    let socket = socket2::SockRef::from(&app.0);
    socket.set_recv_buffer_size(4096).unwrap();
    let mut app = crate::harness::Raw(app.0);
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    // Larger than the sockets hold, as small as that the proxy has all of it in its hands soon.
    let body = "x".repeat(6 << 20);
    aem.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())).await;
    let sending = async {
        use tokio::io::AsyncWriteExt;
        let _ = aem.0.write_all(body.as_bytes()).await;
    };
    tokio::time::timeout(crate::harness::PATIENCE, sending).await.expect("AEM gets rid of it, or is cut off");
    proxy.until_metric("aem_proxy_requests_in_flight{proxy=\"default\"}", 0.0).await;
    let (_, reset) = app.rest_or_reset().await;
    assert!(reset, "half must not look whole");
    proxy.stop().await;
}

#[tokio::test]
async fn a_body_that_aem_breaks_off_is_broken_off_for_the_client() {
    for (version, head) in [
        ("1.1", "content-length: 100\r\n\r\nhalf"),
        ("1.1", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        // To an HTTP/1.0 client the end of the connection is the end of the body: only a reset tells.
        ("1.0", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
    ] {
        let (proxy, upstream) = with_upstream(Setup::default()).await;
        let mut app = proxy.connect().await;
        app.send(format!("GET / HTTP/{version}\r\nhost: localhost\r\n\r\n")).await;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        aem.send(format!("HTTP/1.1 200 OK\r\n{head}")).await;
        app.until("half").await;
        drop(aem);
        let (rest, reset) = app.rest_or_reset().await;
        assert!(reset && !rest.contains("0\r\n\r\n"), "{version} {head}: {rest}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_to_aem_with_it() {
    for body in ["", "content-length: 1000\r\n"] {
        let (proxy, upstream) = with_upstream(Setup::default()).await;
        let mut app = proxy.connect().await;
        app.send(format!("POST / HTTP/1.1\r\nhost: localhost\r\n{body}\r\n")).await;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        drop(app);
        assert!(aem.is_ended().await, "AEM still works for nobody");
        proxy.until_metric("aem_proxy_requests_in_flight{proxy=\"default\"}", 0.0).await;
        proxy.stop().await;
    }
}

/// As `printf ... | nc -N` does, and others who know that they will not ask again.
#[tokio::test]
async fn a_client_that_has_ended_its_side_gets_its_answers() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    for version in ["1.1", "1.0"] {
        let mut app = proxy.connect().await;
        let keep = "host: localhost\r\nconnection: keep-alive\r\n";
        app.send(format!(
            "POST /a HTTP/{version}\r\n{keep}content-length: 4\r\n\r\nbodyGET /b HTTP/{version}\r\n{keep}\r\n"
        ))
        .await;
        tokio::io::AsyncWriteExt::shutdown(&mut app.0).await.unwrap();
        for (request, answer) in [("body", "one"), ("GET /b ", "two")] {
            let mut aem = upstream.accept().await;
            aem.until(request).await;
            aem.send(format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\n{answer}"))
                .await;
            drop(aem);
            app.until(answer).await;
        }
        let (rest, reset) = app.rest_or_reset().await;
        assert!(!reset, "HTTP/{version}: the end is an orderly one: {rest}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_a_download_ends_it() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nfirst").await;
    app.until("first").await;
    drop(app);
    assert!(aem.is_ended().await);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_aem_back() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await;
    let block = vec![0; 64 * 1024];
    let mut sent = 0;
    // Sending comes to a stop long before the whole: sockets and a few buffers are all that there is.
    let full = async {
        use tokio::io::AsyncWriteExt;
        while sent < 1 << 30 {
            aem.0.write_all(&block).await.unwrap();
            sent += block.len();
        }
    };
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(2), full).await.is_err();
    assert!(stopped && sent < 64 << 20, "{sent} bytes were taken for a client that reads none");
    drop(app);
    proxy.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_move_is_given_up() {
    let (proxy, upstream) = with_upstream(Setup::default().set("TIMEOUTS__IDLE", "100ms")).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    app.until("half").await;
    assert!(app.rest_or_reset().await.1, "the client must not take half for whole");

    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf").await;
    let mut aem = upstream.accept().await;
    aem.until("half").await;
    assert!(app.until("\r\n\r\n").await.starts_with("HTTP/1.1 408"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_large_upload_does_not_count_as_waiting_for_aem() {
    let (proxy, upstream) = with_upstream(Setup::default().set("TIMEOUTS__RESPONSE_HEAD", "300ms")).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    for byte in 0..10 {
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        app.send([b'0' + byte]).await;
    }
    aem.until("0123456789").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert!(app.until("\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    proxy.stop().await;
}

impl Proxy {
    /// Waits until a metric has a value.
    async fn until_metric(&self, name: &str, value: f64) {
        let asking = async {
            while self.metric(name).await != value {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(crate::harness::PATIENCE, asking).await.expect("the metric gets there");
    }
}
