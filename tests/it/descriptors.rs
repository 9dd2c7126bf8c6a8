//! More work than the process has file descriptors for: it is refused, others are served, and the admin listener answers.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{Request, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::{
    commands::{Running, path},
    harness::{PATIENCE, Raw, Setup, binary, client, file},
};

/// What the binary is started with in addition.
const VARIABLES: [(&str, &str); 2] =
    [("AEM_PROXY_TIMEOUTS__RESPONSE_HEAD", "1h"), ("AEM_PROXY_HTTP2", "true")];

/// Lines that a flood may cause in the log, however large it is.
const LINES: usize = 12;

/// An AEM that answers at once, but for paths that begin with `/wait`, and `/hold`, which waits for [`Aem::release`].
struct Aem {
    origin: String,
    connections: JoinSet<()>,
    released: watch::Sender<bool>,
}

impl Aem {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let mut connections = JoinSet::new();
        let (released, release) = watch::channel(false);
        connections.spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                streams.spawn(serve(stream, release.clone()));
            }
        });
        Self { origin, connections, released }
    }

    fn release(&self) {
        self.released.send_replace(true);
    }

    /// Closes its connections.
    fn stop(mut self) {
        self.connections.abort_all();
    }
}

async fn serve(mut stream: TcpStream, mut release: watch::Receiver<bool>) {
    let mut head = Vec::new();
    while matches!(stream.read_buf(&mut head).await, Ok(1..)) {
        if head.starts_with(b"GET /wait") || !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        if head.starts_with(b"GET /hold") {
            let _ = release.wait_for(|released| *released).await;
        }
        head.clear();
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
    }
}

/// The binary with so many descriptors.
async fn start(descriptors: usize, aem: &Aem) -> Running {
    let args = ["--upstream", &aem.origin, "--auth", "none", "--listen", "127.0.0.1:0"];
    start_with(descriptors, &args, &[]).await
}

async fn start_with(descriptors: usize, args: &[&str], variables: &[(&str, &str)]) -> Running {
    let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
    let args = [args, &["--admin-listen", "127.0.0.1:0", "--log-format", "json"]].concat();
    let variables = [variables, &VARIABLES].concat();
    Running::start_through(&["sh", "-c", &script], &binary(), &args, &variables).await
}

/// A client whose connections are its own, and who asks like any other.
async fn serves(running: &Running) {
    for _ in 0..5 {
        let url = format!("http://{}/x", running.proxy);
        let answer = timeout(PATIENCE, client().get(url).send()).await.expect("others are served");
        assert_eq!(answer.expect("others are served").status(), StatusCode::OK);
    }
}

async fn is_live(running: &Running) {
    let url = format!("http://{}/live", running.admin);
    let answer = timeout(PATIENCE, client().get(url).send()).await.expect("/live answers");
    assert_eq!(answer.expect("/live answers").status(), StatusCode::OK);
}

async fn metric(running: &Running, name: &str) -> usize {
    let text = client().get(format!("http://{}/metrics", running.admin)).send().await.unwrap();
    let text = text.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

/// Descriptors that the process has open.
fn open(running: &Running) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", running.child.id().unwrap())).unwrap().count()
}

async fn ended(running: Running) {
    running.signal("-INT").await;
    running.signal("-INT").await;
    let (code, log) = running.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.lines().count() <= LINES, "{log}");
    assert!(!log.contains("cannot be accepted"), "{log}");
}

/// An HTTP/2 connection with so many requests that wait.
async fn waiting(running: &Running, requests: usize) -> (SendRequest<Bytes>, Vec<ResponseFuture>) {
    asking(running, "/wait", requests).await
}

async fn asking(running: &Running, path: &str, requests: usize) -> (SendRequest<Bytes>, Vec<ResponseFuture>) {
    let stream = TcpStream::connect(&running.proxy).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut all = Vec::new();
    for _ in 0..requests {
        let request = Request::get(format!("http://{}{path}", running.proxy)).body(()).unwrap();
        sender = sender.ready().await.unwrap();
        all.push(sender.send_request(request, true).unwrap().0);
    }
    (sender, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_wait_leave_descriptors_for_others() {
    for (descriptors, clients) in [(64, 1), (128, 4), (256, 10), (1024, 10)] {
        let aem = Aem::start().await;
        let running = start(descriptors, &aem).await;
        serves(&running).await;
        let mut flood = Vec::new();
        for _ in 0..clients {
            flood.push(waiting(&running, 100).await);
            is_live(&running).await;
        }
        let refused = "aem_proxy_upstream_queue_refused_total{reason=\"descriptors\",upstream=\"default\"}";
        let refusing = async { while metric(&running, refused).await == 0 {} };
        timeout(PATIENCE, refusing).await.expect("some are refused");
        serves(&running).await;
        is_live(&running).await;
        assert!(open(&running) < descriptors);

        // Of each connection one waits at AEM at least; those that were refused are told why.
        let mut refused = 0;
        for response in flood.iter_mut().flat_map(|(_, all)| all.drain(64..)) {
            if let Ok(response) = timeout(std::time::Duration::from_millis(1), response).await {
                let response = response.unwrap();
                assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
                assert!(response.headers().contains_key("retry-after"));
                let status = "aem-auth-proxy; error=connection_limit_reached; details=\"descriptors\"";
                assert_eq!(response.headers()["proxy-status"], status);
                refused += 1;
            }
        }
        assert!(refused > 0, "{descriptors}");
        drop(flood);
        let over = async {
            while metric(&running, "aem_proxy_descriptors{kind=\"upstream\"}").await > 8 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, over).await.expect("descriptors are given back");
        serves(&running).await;
        ended(running).await;
        aem.stop();
    }
}

/// Connections that send `head`; those that the proxy closes at once count too.
async fn connections(addr: &str, count: usize, head: &[u8]) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut stream = timeout(PATIENCE, TcpStream::connect(addr)).await.expect("in time").unwrap();
        let _ = stream.write_all(head).await;
        all.push(stream);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_and_half_heads_leave_descriptors_for_others() {
    for descriptors in [64, 128, 256] {
        let aem = Aem::start().await;
        let running = start(descriptors, &aem).await;
        for head in [
            &b""[..],
            b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ",
            b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ] {
            let all = connections(&running.proxy, 1000, head).await;
            if head.ends_with(b"\r\n\r\n") {
                // While all of them have a request there is no place for others.
                for stream in &all {
                    timeout(PATIENCE, stream.readable()).await.expect("an answer, or the end").unwrap();
                }
            }
            serves(&running).await;
            is_live(&running).await;
            assert!(open(&running) < descriptors);
            drop(all);
        }
        serves(&running).await;
        ended(running).await;
        aem.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_on_more_connections_than_there_are_descriptors_are_refused_and_admin_answers() {
    for descriptors in [64, 256] {
        let aem = Aem::start().await;
        let running = start(descriptors, &aem).await;
        let all = connections(&running.proxy, 600, b"GET /wait HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        for _ in 0..20 {
            is_live(&running).await;
        }
        let ended_ones = "aem_proxy_client_connections_ended_total{proxy=\"default\",reason=\"full\"}";
        let refusing = async { while metric(&running, ended_ones).await == 0 {} };
        timeout(PATIENCE, refusing).await.expect("some are refused");
        assert!(open(&running) < descriptors);
        drop(all);
        // The places are free once the proxy has seen that the clients have left.
        let served = async {
            let mut app = loop {
                let mut app = Raw(TcpStream::connect(&running.proxy).await.unwrap());
                if app.0.write_all(b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n").await.is_err() {
                    continue;
                }
                let mut first = [0; 12];
                if app.0.read_exact(&mut first).await.is_ok() && first == *b"HTTP/1.1 200" {
                    break app;
                }
            };
            app.until("ok").await;
        };
        timeout(PATIENCE, served).await.expect("there is a place again");
        serves(&running).await;
        ended(running).await;
        aem.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_admin_listener_take_no_descriptors_from_others() {
    for descriptors in [64, 256] {
        let aem = Aem::start().await;
        let running = start(descriptors, &aem).await;
        let all = connections(&running.admin, 1000, b"").await;
        is_live(&running).await;
        serves(&running).await;
        assert!(open(&running) < descriptors);
        drop(all);
        ended(running).await;
        aem.stop();
    }
}

const UPSTREAM_IN_USE: &str = "aem_proxy_descriptors{kind=\"upstream\"}";
const UPSTREAM_LIMIT: &str = "aem_proxy_descriptors_limit{kind=\"upstream\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_to_one_aem_give_way_to_those_to_another() {
    let (aem, other) = (Aem::start().await, Aem::start().await);
    let variables = [
        ("AEM_PROXY_UPSTREAMS__ONE__URL", aem.origin.as_str()),
        ("AEM_PROXY_UPSTREAMS__OTHER__URL", &other.origin),
        ("AEM_PROXY_PROXIES__ALL__LISTEN", "127.0.0.1:0"),
        ("AEM_PROXY_PROXIES__ALL__UPSTREAM", "one"),
        ("AEM_PROXY_PROXIES__ALL__CREDENTIALS", "none"),
        ("AEM_PROXY_PROXIES__ALL__ROUTES__0__PATH", "/other/*"),
        ("AEM_PROXY_PROXIES__ALL__ROUTES__0__UPSTREAM", "other"),
    ];
    let running = start_with(64, &[], &variables).await;
    let limit = metric(&running, UPSTREAM_LIMIT).await;
    // As many requests at once as may be at AEM, and some that are refused.
    let (_sender, streams) = asking(&running, "/hold", 64).await;
    let refused = "aem_proxy_upstream_queue_refused_total{reason=\"descriptors\",upstream=\"one\"}";
    let refusing = async { while metric(&running, refused).await == 0 {} };
    timeout(PATIENCE, refusing).await.expect("the connection is in use: it does not make room");
    let apps = connections(&running.proxy, limit, b"GET /hold HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let full = async { while metric(&running, UPSTREAM_IN_USE).await < limit {} };
    timeout(PATIENCE, full).await.expect("all descriptors for AEM are in use");
    aem.release();
    for stream in streams {
        timeout(PATIENCE, stream).await.expect("an answer").unwrap();
    }
    assert_eq!(metric(&running, UPSTREAM_IN_USE).await, limit, "they are idle, and kept");
    let url = format!("http://{}/other/x", running.proxy);
    assert_eq!(client().get(url).send().await.unwrap().status(), StatusCode::OK);
    drop(apps);
    ended(running).await;
    aem.stop();
    other.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_refreshed_while_all_descriptors_for_requests_are_in_use() {
    let setup = Setup::default().tls().token_lifetime(std::time::Duration::from_secs(3));
    let standins = setup.start_standins().await;
    let document = file(&standins.credentials_document.to_string());
    let ca = file(standins.ca_pem.as_ref().unwrap());
    let args = ["--upstream", &standins.aem_origin, "--credentials-file", path(document.path())];
    let args = [&args[..], &["--ca-file", path(ca.path()), "--listen", "127.0.0.1:0"]].concat();
    let running = start_with(96, &args, &[]).await;
    let url = format!("http://{}/ready", running.admin);
    let ready = async { while client().get(&url).send().await.unwrap().status() != StatusCode::OK {} };
    timeout(PATIENCE, ready).await.expect("there is a token");
    let flood = asking(&running, "/hold", 128).await;
    let exchanges = standins.ims.exchanges();
    timeout(PATIENCE, standins.ims.exchanges_reach(exchanges + 2)).await.expect("tokens are refreshed");
    assert_eq!(client().get(&url).send().await.unwrap().status(), StatusCode::OK);
    let app = client().get(format!("http://{}/api/assets.json", running.proxy)).send();
    assert_eq!(timeout(PATIENCE, app).await.expect("others are served").unwrap().status(), StatusCode::OK);
    drop(flood);
    running.signal("-INT").await;
    running.signal("-INT").await;
    let (code, log) = running.ended().await;
    assert_eq!(code, Some(0), "{log}");
}
