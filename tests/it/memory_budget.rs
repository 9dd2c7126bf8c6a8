//! The memory budget: whatever clients and AEM do, the process stays within it, and others are served.

use std::{process::Stdio, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::harness::{PATIENCE, Raw, binary, client};

/// Bytes; the least that the configuration takes.
const LIMIT: f64 = 16.0 * 1024.0 * 1024.0;

/// The binary in front of an AEM that answers every path with a body as long as it says.
struct Process {
    _child: Child,
    addr: String,
    admin: String,
    aem: JoinHandle<()>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.aem.abort();
    }
}

/// Answers `/N` with N bytes of `x`, and anything else with `ok`.
async fn answer(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    while matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end + 4);
        let path = head.split(' ').nth(1).unwrap_or_default();
        let length: usize = path.trim_start_matches('/').parse().unwrap_or(2);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        let part = [b'x'; 16 * 1024];
        let mut left = length;
        while left > 0 {
            let now = left.min(part.len());
            if stream.write_all(&part[..now]).await.is_err() {
                return;
            }
            left -= now;
        }
    }
}

impl Process {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = format!("http://{}", listener.local_addr().unwrap());
        let aem = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
        let mut command = Command::new(binary());
        command.env_clear().stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        for (name, value) in [
            ("UPSTREAM", upstream.as_str()),
            ("AUTH", "none"),
            ("LISTEN", "127.0.0.1:0"),
            ("ADMIN__LISTEN", "127.0.0.1:0"),
            ("LIMITS__MEMORY", "16 MiB"),
            ("HTTP2", "true"),
        ]
        .iter()
        .chain(variables)
        {
            command.env(format!("AEM_PROXY_{name}"), value);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut addr, mut admin) = (String::new(), String::new());
        while addr.is_empty() {
            let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().expect("it listens");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["message"] == "Listening" {
                addr = line["proxy.addr"].as_str().unwrap().to_owned();
                admin = line["admin.addr"].as_str().unwrap().to_owned();
            }
        }
        // The pipe is read to the end: a log that nobody reads is not what is tested here.
        tokio::spawn(async move { while matches!(lines.next_line().await, Ok(Some(_))) {} });
        Self { _child: child, addr, admin, aem }
    }

    async fn metric(&self, name: &str) -> f64 {
        let text =
            client().get(format!("http://{}/metrics", self.admin)).send().await.expect("admin answers");
        let text = text.text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
    }

    async fn used(&self) -> f64 {
        self.metric("aem_proxy_memory_bytes").await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.addr).await.expect("the proxy listens")
    }

    /// Lets another client ask until connections were closed for memory, the memory is down again, and it has its answer. It is
    /// answered always: at most it is asked to come back. The memory stays within the budget.
    async fn outlasts(&self, what: &str) {
        let closed = "aem_proxy_client_connections_ended_total{proxy=\"default\",reason=\"memory\"}";
        let watching = async {
            loop {
                let mut raw = Raw(self.connect().await);
                raw.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
                let answer = timeout(PATIENCE, raw.response()).await;
                let answer = answer.unwrap_or_else(|_| panic!("{what}: no answer"));
                let served = answer.starts_with("HTTP/1.1 200");
                let refused = answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after");
                assert!(served || refused, "{what}: {answer}");
                let used = self.used().await;
                assert!(used <= LIMIT, "{what}: {used}");
                if served && self.metric(closed).await > 0.0 && used < LIMIT * 0.6 {
                    return;
                }
            }
        };
        timeout(PATIENCE * 2, watching).await.unwrap_or_else(|_| panic!("{what}: nothing is closed"));
    }
}

/// A client's HTTP/2 connection, of which the test writes the frames.
async fn http2(process: &Process) -> TcpStream {
    let mut stream = process.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // Windows of 2^31 - 1 for streams and for the connection.
    stream.write_all(&frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])).await.unwrap();
    stream.write_all(&frame(8, 0, 0, &[0x7f, 0, 0, 0])).await.unwrap();
    stream
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `:method GET`, `:scheme http`, `:path`, `:authority localhost`, as literals without index.
fn head(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(4, path), (1, "localhost")] {
        block.extend([name, value.len() as u8]);
        block.extend(value.as_bytes());
    }
    block
}

#[tokio::test]
async fn heads_that_never_end_are_closed_for_others() {
    let process = Process::start(&[]).await;
    let mut halves = Vec::new();
    for _ in 0..600 {
        let mut stream = process.connect().await;
        // The proxy may have closed it by now.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ").await;
        let _ = stream.write_all(&[b'a'; 60_000]).await;
        halves.push(stream);
    }
    process.outlasts("half heads").await;
}

#[tokio::test]
async fn answers_that_are_not_read_are_closed_for_others() {
    let process = Process::start(&[]).await;
    let mut greedy = Vec::new();
    for _ in 0..300 {
        let mut stream = process.connect().await;
        let _ = stream.write_all(b"GET /100000000 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        greedy.push(stream);
    }
    process.outlasts("unread answers").await;
}

#[tokio::test]
async fn http_2_answers_that_are_not_read_are_closed_for_others() {
    let process = Process::start(&[]).await;
    let mut greedy = Vec::new();
    for _ in 0..10 {
        let mut stream = http2(&process).await;
        for number in 0..100 {
            let _ = stream.write_all(&frame(1, 5, 2 * number + 1, &head("/100000000"))).await;
        }
        greedy.push(stream);
    }
    process.outlasts("unread HTTP/2 answers").await;
}

#[tokio::test]
async fn http_2_heads_made_of_references_stay_within_the_budget() {
    let process = Process::start(&[]).await;
    let mut greedy = Vec::new();
    // `accept-charset` without a value, from the static table, as often as fits.
    let mut block = head("/100000000");
    block.extend([0x8f; 3000]);
    for _ in 0..10 {
        let mut stream = http2(&process).await;
        for number in 0..100 {
            let _ = stream.write_all(&frame(1, 5, 2 * number + 1, &block)).await;
        }
        greedy.push(stream);
        let used = process.used().await;
        assert!(used <= LIMIT, "{used}");
    }
    let mut raw = Raw(process.connect().await);
    raw.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(raw.response().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_http_2_client_that_takes_nothing_is_closed_as_a_slow_one() {
    let process = Process::start(&[("TIMEOUTS__SLOW_CLIENT", "500ms")]).await;
    let mut stream = http2(&process).await;
    for number in 0..50 {
        stream.write_all(&frame(1, 5, 2 * number + 1, &head("/1000000"))).await.unwrap();
    }
    let slow = "aem_proxy_client_connections_ended_total{proxy=\"default\",reason=\"slow\"}";
    let connected = "aem_proxy_client_connections{proxy=\"default\"}";
    let closing = async {
        while process.metric(slow).await == 0.0 || process.metric(connected).await > 0.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, closing).await.expect("it is closed");
}

#[tokio::test]
async fn memory_goes_back_when_everybody_has_left() {
    let process = Process::start(&[("LIMITS__MEMORY", "64 MiB")]).await;
    let resident = || {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", process._child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap()
    };
    let mut raw = Raw(process.connect().await);
    raw.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    raw.response().await;
    let before = resident();
    let mut greedy = Vec::new();
    for _ in 0..500 {
        let mut stream = process.connect().await;
        stream.write_all(b"GET /100000000 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        greedy.push(stream);
    }
    let growing = async {
        while process.used().await < LIMIT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, growing).await.expect("it is in use");
    drop(greedy);
    let leaving = async {
        while resident() > before * 1.5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE * 2, leaving).await.unwrap_or_else(|_| panic!("{before} before, {} now", resident()));
}

#[tokio::test]
async fn a_coding_that_was_not_asked_for_passes_as_it_is() {
    let (proxy, upstream) = crate::harness::with_upstream(crate::harness::Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\naccept-encoding: gzip, br\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    let head = aem.until("\r\n\r\n").await;
    assert!(head.contains("accept-encoding: gzip\r\n"), "{head}");
    let body = Bytes::from_static(b"\x1b\x00not-brotli");
    aem.send(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: br\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ))
    .await;
    aem.send(&body).await;
    let answer = app.response().await;
    assert!(answer.contains("content-encoding: br\r\n") && answer.ends_with("not-brotli"), "{answer}");
    proxy.stop().await;
}
