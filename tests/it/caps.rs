//! No more is asked of AEM at once than it is to be asked: requests and connections wait in order, and not for ever.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::harness::{PATIENCE, Proxy, Raw, Setup, with_upstream};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// And the connection ends.
const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
const QUEUED: &str = "aem_proxy_upstream_queued{upstream=\"default\"}";
const OPEN: &str = "aem_proxy_upstream_connections{upstream=\"default\"}";

fn limited(key: &str, max: &str) -> Setup {
    Setup::default().set(&format!("UPSTREAMS__DEFAULT__{key}"), max)
}

async fn app(proxy: &Proxy, path: &str) -> Raw {
    let mut app = proxy.connect().await;
    app.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
    app
}

async fn until(proxy: &Proxy, metric: &str, value: f64) {
    let reaching = async {
        while proxy.metric(metric).await != value {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, reaching).await.unwrap_or_else(|_| panic!("{metric} does not become {value}"));
}

/// An AEM of which the test gives every answer.
struct Aem {
    origin: String,
    asked: mpsc::UnboundedReceiver<Asked>,
}

/// One request at AEM.
struct Asked {
    head: String,
    /// The number of the connection, from 0 on.
    connection: usize,
    answer: oneshot::Sender<&'static str>,
}

impl Aem {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, connection, tell.clone()));
            }
        });
        Self { origin, asked }
    }

    async fn proxy(&self, setup: Setup) -> Proxy {
        setup.upstream(self.origin.clone()).start().await
    }

    /// The next request, which is to be for `path`.
    async fn expect(&mut self, path: &str) -> Asked {
        let asked =
            timeout(PATIENCE, self.asked.recv()).await.unwrap_or_else(|_| panic!("{path} does not come"));
        let asked = asked.expect("AEM goes on");
        assert!(asked.head.starts_with(&format!("GET {path} ")), "{path}: {}", asked.head);
        asked
    }

    fn is_asked(&mut self) -> bool {
        !self.asked.is_empty()
    }
}

impl Asked {
    async fn answered(self, with: &'static str, app: &mut Raw) -> String {
        self.answer.send(with).expect("the connection is there");
        app.response().await
    }
}

async fn serve(mut stream: TcpStream, connection: usize, tell: mpsc::UnboundedSender<Asked>) {
    let mut head = Vec::new();
    while matches!(stream.read_buf(&mut head).await, Ok(1..)) {
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let (answer, given) = oneshot::channel();
        let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
        drop(tell.send(Asked { head: text, connection, answer }));
        let Ok(answer) = given.await else { return };
        if stream.write_all(answer.as_bytes()).await.is_err() || answer == LAST {
            return;
        }
    }
}

#[track_caller]
fn assert_ok(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

fn refused(reason: &str) -> String {
    format!("aem_proxy_upstream_queue_refused_total{{reason=\"{reason}\",upstream=\"default\"}}")
}

#[tokio::test]
async fn requests_have_their_turn_in_the_order_in_which_they_came() {
    let mut aem = Aem::start().await;
    let proxy = aem.proxy(limited("MAX_IN_FLIGHT", "1")).await;
    let mut one = app(&proxy, "/one").await;
    let asked = aem.expect("/one").await;
    let mut two = app(&proxy, "/two").await;
    until(&proxy, QUEUED, 1.0).await;
    let mut three = app(&proxy, "/three").await;
    until(&proxy, QUEUED, 2.0).await;
    assert!(!aem.is_asked(), "there is one at AEM already");
    assert_ok(&asked.answered(OK, &mut one).await);
    let asked = aem.expect("/two").await;
    until(&proxy, QUEUED, 1.0).await;
    assert!(!aem.is_asked(), "there is one at AEM already");
    assert_ok(&asked.answered(OK, &mut two).await);
    assert_ok(&aem.expect("/three").await.answered(OK, &mut three).await);
    until(&proxy, QUEUED, 0.0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn whoever_finds_the_queue_full_or_waits_too_long_is_told_to_come_back() {
    let mut aem = Aem::start().await;
    let setup = limited("MAX_IN_FLIGHT", "1").set("UPSTREAMS__DEFAULT__MAX_QUEUED", "1");
    let proxy = aem.proxy(setup.set("TIMEOUTS__QUEUE", "2s")).await;
    let mut one = app(&proxy, "/one").await;
    let asked = aem.expect("/one").await;
    let mut two = app(&proxy, "/two").await;
    until(&proxy, QUEUED, 1.0).await;
    let full = app(&proxy, "/three").await.response().await;
    let overdue = two.response().await;
    for (answer, reason, words) in [(full, "full", "max_queued"), (overdue, "timeout", "timeouts.queue")] {
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"), "{answer}");
        assert!(
            answer.contains("error=connection_limit_reached") && answer.contains("problem:busy"),
            "{answer}"
        );
        assert!(answer.contains(words), "{answer}");
        assert_eq!(proxy.metric(&refused(reason)).await, 1.0);
    }
    // Both may come back over the same connections.
    assert_ok(&asked.answered(OK, &mut one).await);
    two.send("GET /again HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_ok(&aem.expect("/again").await.answered(OK, &mut two).await);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place_and_its_turn() {
    let mut aem = Aem::start().await;
    let setup = limited("MAX_IN_FLIGHT", "1").set("UPSTREAMS__DEFAULT__MAX_QUEUED", "1");
    let proxy = aem.proxy(setup).await;
    let one = app(&proxy, "/one").await;
    let _asked = aem.expect("/one").await;
    let leaves = app(&proxy, "/leaves").await;
    until(&proxy, QUEUED, 1.0).await;
    drop(leaves);
    until(&proxy, QUEUED, 0.0).await;
    let mut stays = app(&proxy, "/stays").await;
    until(&proxy, QUEUED, 1.0).await;
    // In the middle of its exchange.
    drop(one);
    assert_ok(&aem.expect("/stays").await.answered(OK, &mut stays).await);
    proxy.stop().await;
}

#[tokio::test]
async fn a_tunnel_is_a_connection_and_no_request() {
    let (proxy, upstream) = with_upstream(limited("MAX_IN_FLIGHT", "1")).await;
    let mut tunnel = proxy.connect().await;
    tunnel
        .send("GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    tunnel.until("\r\n\r\n").await;
    let mut one = app(&proxy, "/one").await;
    let mut other = upstream.accept().await;
    other.until("\r\n\r\n").await;
    other.send(OK).await;
    assert!(one.response().await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(proxy.metric(OPEN).await, 2.0);
    proxy.stop().await;
}

#[tokio::test]
async fn the_only_connection_goes_to_whoever_waits_for_it_on_whichever_thread() {
    let mut aem = Aem::start().await;
    let proxy = aem.proxy(limited("MAX_CONNECTIONS", "1")).await;
    // Each on the thread that has the fewest.
    let mut apps = [app(&proxy, "/0").await, proxy.connect().await, proxy.connect().await];
    let first = aem.expect("/0").await;
    for (number, other) in apps.iter_mut().enumerate().skip(1) {
        other.send(format!("GET /{number} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        until(&proxy, QUEUED, number as f64).await;
    }
    assert_ok(&first.answered(OK, &mut apps[0]).await);
    for (number, app) in apps.iter_mut().enumerate().skip(1) {
        let asked = aem.expect(&format!("/{number}")).await;
        assert_eq!(asked.connection, 0);
        assert_ok(&asked.answered(OK, app).await);
    }
    // Now it is idle, on the last one's thread, and the others get it all the same.
    for (number, app) in apps.iter_mut().enumerate() {
        app.send(format!("GET /again/{number} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        let asked = aem.expect(&format!("/again/{number}")).await;
        assert_eq!(asked.connection, 0);
        assert_ok(&asked.answered(OK, app).await);
    }
    assert_eq!(proxy.metric(OPEN).await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_that_ends_makes_room_for_another() {
    let mut aem = Aem::start().await;
    let proxy = aem.proxy(limited("MAX_CONNECTIONS", "1")).await;
    let mut one = app(&proxy, "/one").await;
    let asked = aem.expect("/one").await;
    let mut two = app(&proxy, "/two").await;
    until(&proxy, QUEUED, 1.0).await;
    assert_ok(&asked.answered(LAST, &mut one).await);
    let asked = aem.expect("/two").await;
    assert_eq!(asked.connection, 1);
    assert_ok(&asked.answered(OK, &mut two).await);
    proxy.stop().await;
}

#[tokio::test]
async fn whoever_waits_for_a_connection_waits_no_longer_than_for_a_turn() {
    let mut aem = Aem::start().await;
    let setup = limited("MAX_CONNECTIONS", "1").set("UPSTREAMS__DEFAULT__MAX_QUEUED", "1");
    let proxy = aem.proxy(setup.set("TIMEOUTS__QUEUE", "1s")).await;
    let _one = app(&proxy, "/one").await;
    let _asked = aem.expect("/one").await;
    let mut two = app(&proxy, "/two").await;
    until(&proxy, QUEUED, 1.0).await;
    let full = app(&proxy, "/three").await.response().await;
    assert!(full.starts_with("HTTP/1.1 503 ") && full.contains("max_queued"), "{full}");
    let overdue = two.response().await;
    assert!(overdue.starts_with("HTTP/1.1 503 ") && overdue.contains("timeouts.queue"), "{overdue}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_get_by_with_few_connections() {
    let proxy = limited("MAX_CONNECTIONS", "3").start().await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let mut app = proxy.connect().await;
        clients.spawn(async move {
            for _ in 0..50 {
                app.send("GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
                let answer = app.response().await;
                assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
            }
        });
    }
    let watched = async {
        while !clients.is_empty() {
            assert!(proxy.metric(OPEN).await <= 3.0);
            while clients.try_join_next().transpose().expect("no client fails").is_some() {}
        }
    };
    timeout(PATIENCE, watched).await.expect("all get their answers");
    // They were handed on, and not made anew.
    let made = proxy.metric("aem_proxy_upstream_connects_total{outcome=\"ok\",upstream=\"default\"}").await;
    assert!(made <= 120.0, "{made} connections for 1200 requests");
    proxy.stop().await;
}

#[tokio::test]
async fn http_2_keeps_to_the_number_of_connections() {
    let mut setup = Setup::default().tls();
    setup.standins.http2 = true;
    let setup = setup.set("UPSTREAMS__DEFAULT__HTTP", "2").set("UPSTREAMS__DEFAULT__MAX_CONNECTIONS", "1");
    let proxy = setup.start().await;
    let mut apps = Vec::new();
    for _ in 0..4 {
        apps.push(proxy.connect().await);
    }
    for _ in 0..3 {
        for app in &mut apps {
            app.send("GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
            assert_ok(&app.response().await);
            assert!(proxy.metric(OPEN).await <= 1.0);
        }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_that_expires_while_its_request_waits_is_not_sent() {
    let mut aem = Aem::start().await;
    let setup = limited("MAX_IN_FLIGHT", "1").token_lifetime(Duration::from_secs(2));
    let proxy = aem.proxy(setup).await;
    let token =
        |head: &str| head.lines().find(|line| line.starts_with("authorization: ")).unwrap().to_owned();
    let mut first = app(&proxy, "/first").await;
    let held = aem.expect("/first").await;
    let first_token = token(&held.head);
    let mut second = app(&proxy, "/second").await;
    until(&proxy, QUEUED, 1.0).await;
    // The third token is there when the first one has expired: tokens are replaced at three quarters of their life at most.
    let expiring = async {
        while proxy.status().await["credentials"][0]["token"]["generation"].as_u64() < Some(3) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, expiring).await.expect("tokens are refreshed");
    assert_ok(&held.answered(OK, &mut first).await);
    let sent = aem.expect("/second").await;
    assert_ne!(token(&sent.head), first_token, "an expired token was sent");
    assert_ok(&sent.answered(OK, &mut second).await);
    proxy.stop().await;
}
