//! Connections on which nothing happens.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::{
    commands::Running,
    harness::{PATIENCE, Raw, Setup, client, with_upstream},
    strict::origin::Origin,
};

const WANTED: usize = 10_000;

/// As many connections as the process may have, beside what other tests need.
fn affordable() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    WANTED.min(usize::try_from(allowed).unwrap_or(usize::MAX).saturating_sub(2000))
}

/// The memory of a process that is in memory, in KiB.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn connections(addr: &str, count: usize, head: &[u8]) -> Vec<TcpStream> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = timeout(PATIENCE, TcpStream::connect(addr)).await.expect("in time").unwrap();
        stream.write_all(head).await.unwrap();
        all.push(stream);
    }
    all
}

/// Whether the other side has closed it.
fn is_closed(stream: &TcpStream) -> bool {
    !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

async fn serves(running: &Running) {
    for _ in 0..20 {
        let url = format!("http://{}/x", running.proxy);
        let answer = timeout(PATIENCE, client().get(url).send()).await;
        assert_eq!(answer.expect("others are served").unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_stop_nobody_and_cost_little() {
    let origin = Origin::start().await;
    let upstream = format!("http://{}", origin.addr);
    let args = ["--upstream", &upstream, "--auth", "none", "--listen", "127.0.0.1:0", "--log-format", "json"];
    // Unoptimised, a connection takes more than the budget has for it.
    let variables = [("AEM_PROXY_ADMIN__LISTEN", "127.0.0.1:0"), ("AEM_PROXY_LIMITS__MEMORY", "256 MiB")];
    let running = Running::start(&args, &variables).await;
    let pid = running.child.id().unwrap();
    serves(&running).await;
    let (count, begin) = (affordable(), resident(pid));
    // Nothing, a part of a head, and one answer each; most have to make room for the next ones.
    for (what, head) in [
        ("idle", &b""[..]),
        ("half a head", b"GET / HTTP/1.1\r\nhost: localhost\r\nx: "),
        ("answered", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    ] {
        let all = connections(&running.proxy, count, head).await;
        serves(&running).await;
        let (memory, closed) =
            (resident(pid), all.iter().filter(|stream| is_closed_now(stream, head)).count());
        let each = memory.saturating_sub(begin) as f64 / (count - closed) as f64;
        println!(
            "{count} connections, {what}: {closed} closed for others; {begin} KiB before, {memory} KiB with them, {each:.1} KiB each"
        );
        assert!(closed < count / 10, "{closed} were closed");
        // Unoptimised, a task takes twice as much as otherwise.
        assert!(memory < begin + count * 24, "{memory} KiB");
        drop(all);
    }
    serves(&running).await;
    running.signal("-TERM").await;
    assert_eq!(running.ended().await.0, Some(0));
}

/// Whether it was closed to make room; one that was answered has its answer to read first.
fn is_closed_now(stream: &TcpStream, head: &[u8]) -> bool {
    let mut answer = [0; 1024];
    if head.ends_with(b"\r\n\r\n") && matches!(stream.try_read(&mut answer), Ok(0) | Err(_)) {
        return true;
    }
    is_closed(stream)
}

/// As many threads as the proxy has here.
fn threads() -> usize {
    std::thread::available_parallelism().unwrap().get().min(8)
}

#[tokio::test]
async fn the_connection_that_has_been_idle_for_longest_makes_room() {
    let most = threads() * 2;
    let proxy = Setup::default().set("LIMITS__CONNECTIONS", most.to_string()).start().await;
    let request = "GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut all = Vec::new();
    for _ in 0..most {
        let mut app = proxy.connect().await;
        app.send(request).await;
        app.response().await;
        all.push(app);
    }
    // The first one has just been used: the others are older.
    for app in all.iter_mut().take(threads()) {
        app.send(request).await;
        app.response().await;
    }
    let mut fresh = Vec::new();
    for _ in 0..threads() {
        let mut app = proxy.connect().await;
        app.send(request).await;
        assert!(app.response().await.starts_with("HTTP/1.1 200"));
        fresh.push(app);
    }
    let (used, unused) = all.split_at_mut(threads());
    for app in unused {
        assert!(app.is_ended().await);
    }
    for app in used {
        app.send(request).await;
        assert!(app.response().await.starts_with("HTTP/1.1 200"));
    }
    let ended = "aem_proxy_client_connections_ended_total{proxy=\"default\",reason=\"idle\"}";
    assert_eq!(proxy.metric(ended).await, threads() as f64);
    assert_eq!(proxy.metric("aem_proxy_client_connections{proxy=\"default\"}").await, most as f64);
    proxy.stop().await;
}

#[tokio::test]
async fn where_all_have_a_request_the_next_one_is_told_so() {
    let (proxy, upstream) =
        with_upstream(Setup::default().set("LIMITS__CONNECTIONS", threads().to_string())).await;
    let mut busy: Vec<(Raw, Raw)> = Vec::new();
    for _ in 0..threads() {
        let mut app = proxy.connect().await;
        app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        busy.push((app, aem));
    }
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let answer = app.rest().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("connection_limit_reached"), "{answer}");
    assert!(answer.contains("connection: close\r\n") && answer.contains("retry-after: "), "{answer}");
    drop(app);
    for (app, aem) in &mut busy {
        aem.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        app.until("\r\n\r\nok").await;
    }
    // Now they are idle, and make room.
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n").await;
    assert!(app.response().await.starts_with("HTTP/1.1 403 "));
    proxy.stop().await;
}

#[tokio::test]
async fn the_admin_listener_answers_whoever_comes_last() {
    let proxy = Setup::default().start().await;
    let all = connections(&proxy.admin.to_string(), 300, b"").await;
    assert_eq!(proxy.ask("/live").await.0, 200);
    let closed = async {
        while all.iter().filter(|stream| !is_closed(stream)).count() > 64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Long before they would be for having said nothing.
    timeout(Duration::from_secs(5), closed).await.expect("the others are closed");
    proxy.stop().await;
}
