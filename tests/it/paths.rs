//! The target of a request, byte for byte: AEM gets what the client sent, and judges it.

use tokio::{io::AsyncReadExt, time::timeout};

use crate::harness::{PATIENCE, Proxy, Raw, Setup, Upstream, with_upstream};

/// A connection of an app's, and the one to AEM that its requests go over.
struct Way {
    app: Raw,
    aem: Raw,
}

impl Way {
    async fn of(proxy: &Proxy, upstream: &Upstream) -> Self {
        let mut app = proxy.connect().await;
        app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut way = Self { app, aem: upstream.accept().await };
        assert_eq!(way.arrived().await, b"/");
        way.answer().await;
        way
    }

    async fn send(&mut self, target: &[u8]) {
        self.app.send([b"GET ", target, b" HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat()).await;
    }

    /// The target of the request that has come to AEM.
    async fn arrived(&mut self) -> Vec<u8> {
        let mut head = Vec::new();
        let reading = async {
            while !head.ends_with(b"\r\n\r\n") {
                assert!(self.aem.0.read_buf(&mut head).await.unwrap() > 0, "the connection ended");
            }
        };
        timeout(PATIENCE, reading).await.expect("the request arrives");
        let line = head.split(|byte| *byte == b'\r').next().unwrap();
        let target = line.strip_prefix(b"GET ").and_then(|rest| rest.strip_suffix(b" HTTP/1.1"));
        target.unwrap_or_else(|| panic!("{}", line.escape_ascii())).to_vec()
    }

    async fn answer(&mut self) {
        self.aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        assert!(self.app.response().await.starts_with("HTTP/1.1 200"));
    }

    async fn check(&mut self, target: &[u8], expected: &[u8]) {
        self.send(target).await;
        let arrived = self.arrived().await;
        let shown = |bytes: &[u8]| bytes[..bytes.len().min(200)].escape_ascii().to_string();
        assert!(arrived == expected, "{} became {}", shown(target), shown(&arrived));
        self.answer().await;
    }
}

#[tokio::test]
async fn aem_gets_the_bytes_that_the_client_sent() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut way = Way::of(&proxy, &upstream).await;
    for target in [
        &b"/graphql/execute.json/wknd/adventures;slug=surf;limit=3"[..],
        b"/graphql/execute.json/wknd/adventures%3Bslug%3Dsurf;",
        b"/a%3Bk%3dv%2Fb%2fc",
        b"//",
        b"//content//dam///a.json",
        b"/content/../../etc/passwd",
        b"/a/./b/.",
        b"/%2e%2e/%2E%2e/%2e/x",
        b"/..;/x",
        b"/a?",
        b"/a??",
        b"/a?b?c=/d/../e&f=;&=&&",
        b"/a?redirect=http://localhost:8080/x%20y+z",
        b"/content/dam/%E4%B8%AD%zz%",
        "/content/dam/caf\u{e9}/\u{4e2d}\u{6587}?q=\u{fc}".as_bytes(),
        b"/content/dam/caf\xe9?q=\xfc\xff\x80",
        b"/a|b{c}\"d\"<e>^f\\g`h[i]'(j)*!~",
        b"/a:b@c=d,e$f&g+h",
        b"/jcr:content/cq:x@y;v='1.0'",
    ] {
        way.check(target, target).await;
    }
    // What a target of another form is for: the path is the same, and nothing is added to it.
    way.check(b"http://localhost/a//../b?c", b"/a//../b?c").await;
    way.check(b"http://localhost/caf\xe9", b"/caf\xe9").await;
    way.check(b"http://localhost", b"/").await;
    way.check(b"http://localhost?x", b"/?x").await;
    proxy.stop().await;
}

#[tokio::test]
async fn long_targets_pass_up_to_the_limit_and_not_beyond() {
    let (proxy, upstream) = with_upstream(Setup::default().set("LIMITS__HEAD", "128 KiB")).await;
    let mut way = Way::of(&proxy, &upstream).await;
    for length in [16 * 1024, 65_534] {
        let mut target = b"/graphql/execute.json/a?v=".to_vec();
        target.extend(b"%7B%22\xe9;".iter().cycle().take(length - target.len()));
        way.check(&target, &target).await;
        let plain: Vec<u8> = target.iter().map(|byte| byte & 0x7f).collect();
        way.check(&plain, &plain).await;
    }
    for last in [b'x', b'\xe9'] {
        let mut target = vec![b'/'; 65_534];
        target.push(last);
        let mut app = proxy.connect().await;
        app.send([b"GET ", &target[..], b" HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat()).await;
        assert!(app.rest().await.starts_with("HTTP/1.1 414 "));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_path_longer_than_its_limit_is_refused_before_it_is_judged() {
    let setup = || Setup::default().set("POLICY", "full");
    let path = |length: usize| format!("/content/{}", "a".repeat(length - "/content/".len()));
    for (setup, limit) in [(setup(), 8192), (setup().set("LIMITS__PATH", "20 KiB"), 20 * 1024)] {
        let (proxy, upstream) = with_upstream(setup).await;
        let mut way = Way::of(&proxy, &upstream).await;
        for target in [path(limit), format!("{}?{}", path(limit), "q".repeat(20_000))] {
            way.check(target.as_bytes(), target.as_bytes()).await;
        }
        let long =
            [path(limit + 1), format!("/crx/{}?q", path(limit)), format!("/{}", "%2F;".repeat(limit / 4))];
        for target in long {
            way.send(target.as_bytes()).await;
            let answer = way.app.response().await;
            assert!(answer.starts_with("HTTP/1.1 414 "), "{answer}");
            assert!(
                answer.contains("proxy-status: aem-auth-proxy; error=http_request_error\r\n"),
                "{answer}"
            );
            assert!(answer.contains("path-too-long") && answer.contains("limits.path"), "{answer}");
        }
        // So is that of a place where a request would write.
        for value in [path(limit + 1), format!("http://localhost{}", path(limit + 1)), "a".repeat(limit + 1)]
        {
            let head =
                format!("MOVE /content/a HTTP/1.1\r\nhost: localhost\r\nx-destination: {value}\r\n\r\n");
            way.app.send(head).await;
            let answer = way.app.response().await;
            assert!(answer.starts_with("HTTP/1.1 414 "), "{answer}");
        }
        let denied = "aem_proxy_denied_total{proxy=\"default\",reason=\"path_length\"}";
        assert_eq!(proxy.metric(denied).await, 6.0);
        // The connection is what it was.
        way.check(b"/content/a", b"/content/a").await;
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_target_that_has_come_in_pieces_is_the_same() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut way = Way::of(&proxy, &upstream).await;
    for target in [&b"/caf\xe9;x"[..], "/caf\u{e9};x".as_bytes()] {
        for byte in [b"GET ", target, b" HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat() {
            way.app.send([byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(way.arrived().await, target);
        way.answer().await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_no_target_goes_nowhere() {
    let proxy = Proxy::start().await;
    for target in [
        &b"/a b"[..],
        b"/a\xe9 b",
        b"/a\x00",
        b"/\xe9\x7f",
        b"/\xe9\x01",
        b"/a#b",
        b"/\xe9#b",
        b"?",
        b"a",
        b"localhost:80",
        b"*",
        b"?x",
        b"https://localhost/",
        b"",
    ] {
        let mut app = proxy.connect().await;
        app.send([b"GET ", target, b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"].concat())
            .await;
        let answer = app.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{}: {answer}", target.escape_ascii());
    }
    // Whoever begins TLS here is told so at once.
    let mut app = proxy.connect().await;
    app.send(b"\x16\x03\x01\x02\x00 \xe9 \xe9").await;
    assert!(app.rest().await.starts_with("HTTP/1.1 400 "));
    assert_eq!(proxy.standins.aem.requests(), 0, "something reached AEM");
    proxy.stop().await;
}
