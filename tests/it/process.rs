//! The binary as a process: its log, its signals, its panics, and the next process in its place.

use std::{
    fs::File,
    io::{PipeReader, PipeWriter, Write, pipe},
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    commands::{Running, command, path, run, text},
    harness::{PATIENCE, Raw, Upstream, client, file},
    log::secret_in,
};

/// Where no AEM is.
const NOWHERE: [&str; 4] = ["--auth", "none", "--upstream", "http://127.0.0.1:1"];

const NO_RETRY: (&str, &str) = ("AEM_PROXY_TIMEOUTS__RECONNECT", "0s");

/// A binary whose log is not read for it: it is asked over Unix sockets.
struct Unread {
    child: Child,
    dir: tempfile::TempDir,
}

impl Unread {
    async fn start(stderr: impl Into<Stdio>, level: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("unix:{}", dir.path().join(name).display());
        let (proxy, admin) = (at("proxy"), at("admin"));
        let mut args = NOWHERE.to_vec();
        args.extend(["--listen", &proxy, "--admin-listen", &admin, "--log-level", level]);
        let child = command(&args, &[NO_RETRY]).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let unread = Self { child, dir };
        assert_eq!(unread.ask("admin", "/live").await.0, 200);
        unread
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// GETs a path, once the socket is there.
    async fn ask(&self, socket: &str, path: &str) -> (u16, String) {
        let asking = async {
            let mut stream = loop {
                match UnixStream::connect(self.socket(socket)).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            };
            let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            (answer[9..12].parse().unwrap(), answer)
        };
        timeout(PATIENCE, asking).await.expect("the process answers")
    }

    async fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.ask("admin", "/metrics").await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }

    async fn until_lost(&self) {
        let losing = async {
            while self.metric("aem_proxy_log_lines_lost_total").await == 0 {
                assert_eq!(self.ask("proxy", "/").await.0, 502);
            }
        };
        timeout(PATIENCE, losing).await.expect("lines are lost");
    }

    async fn stops(mut self) {
        signal(&self.child, "-TERM").await;
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("it is running").to_string();
    assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nothing_and_its_lines_are_counted() {
    let (reader, gone) = pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for stderr in [Stdio::from(gone), Stdio::from(full)] {
        let unread = Unread::start(stderr, "debug").await;
        unread.until_lost().await;
        assert_eq!(unread.ask("admin", "/live").await.0, 200);
        unread.stops().await;
    }
}

#[tokio::test]
async fn a_pipe_that_is_not_read_stops_nothing_and_lost_lines_are_reported_once_it_is_read() {
    let (mut reader, writer) = pipe().unwrap();
    let unread = Unread::start(writer, "trace").await;
    unread.until_lost().await;
    assert_eq!(unread.ask("admin", "/live").await.0, 200);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    let mut copy = File::create(&file).unwrap();
    let reading = std::thread::spawn(move || std::io::copy(&mut reader, &mut copy).unwrap());
    until_logged(&file, "Log lines were lost").await;
    unread.stops().await;
    reading.join().unwrap();
    let log = std::fs::read_to_string(&file).unwrap();
    let (line, rest) = log.split_once("Log lines were lost").expect("a line says so");
    assert!(line.ends_with("\"message\":\"") && rest.contains("\"lines\":"), "{rest}");
    assert!(log.contains("\"Stopped\""));
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "whole lines");
}

#[tokio::test]
async fn a_pipe_that_is_not_read_does_not_hold_up_the_end() {
    let (_reader, writer) = pipe().unwrap();
    let unread = Unread::start(writer, "trace").await;
    unread.until_lost().await;
    unread.stops().await;
}

/// A pipe into which nothing fits.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let descriptor = OwnedFd::from(writer.try_clone().unwrap());
    rustix::io::ioctl_fionbio(&descriptor, true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    rustix::io::ioctl_fionbio(&descriptor, false).unwrap();
    (reader, writer)
}

#[tokio::test]
async fn a_command_that_fails_ends_with_its_code_while_its_errors_are_not_read() {
    for (args, code) in [
        (&["--upstream", "nowhere"][..], 78),
        (&["--no-such"], 64),
        (&["health", "--admin-listen", "127.0.0.1:1"], 1),
    ] {
        let (_reader, writer) = full_pipe();
        let mut child = command(args, &[]).stderr(writer).spawn().unwrap();
        let status = timeout(PATIENCE, child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
}

#[tokio::test]
async fn commands_whose_output_is_not_read_to_its_end_are_quiet() {
    let credentials = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/service_token.json");
    let aem = "https://author-p1-e2.adobeaemcloud.com";
    let check = ["check", "--offline", "--upstream", aem, "--credentials-file", credentials];
    for args in [&["config"][..], &["--help"], &["--version"], &["completions", "bash"], &check] {
        let expected = run(args, &[]).await.status.code();
        let (reader, gone) = pipe().unwrap();
        drop(reader);
        let output = command(args, &[]).stdout(gone).spawn().unwrap().wait_with_output();
        let (code, _, err) = text(&timeout(PATIENCE, output).await.expect("it ends").unwrap());
        assert!(Some(code) == expected && !err.contains("panic"), "{args:?} {code} {err}");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command(args, &[]).stdout(full).spawn().unwrap().wait_with_output();
        let (code, _, err) = text(&timeout(PATIENCE, output).await.expect("it ends").unwrap());
        assert!(code == 1 && !err.contains("panic"), "{args:?} {code} {err}");
    }
}

#[tokio::test]
async fn a_demo_whose_text_is_not_read_runs_on() {
    let (_reader, writer) = full_pipe();
    let args = ["demo", "--aem-listen", "127.0.0.1:0", "--ims-listen", "127.0.0.1:0"];
    let any_port = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let child = command(&[&args[..], &any_port].concat(), &[])
        .stdout(writer)
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let line = until_logged(&log, "Token refreshed").await;
    let listening = line.lines().find(|line| line.contains("\"Listening\"")).unwrap();
    let listening: serde_json::Value = serde_json::from_str(listening).unwrap();
    let url = format!("http://{}/api/assets.json", listening["proxy.addr"].as_str().unwrap());
    for _ in 0..3 {
        assert_eq!(client().get(&url).send().await.unwrap().status(), 200);
    }
    ends(child, "-TERM").await;
}

/// Waits until a file holds these words; all of it.
async fn until_logged(log: &Path, words: &str) -> String {
    let reading = async {
        loop {
            let read = std::fs::read_to_string(log).unwrap();
            if read.contains(words) {
                return read;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let read = timeout(PATIENCE, reading).await;
    read.unwrap_or_else(|_| panic!("{words} in {}", std::fs::read_to_string(log).unwrap()))
}

async fn ends(mut child: Child, name: &str) {
    signal(&child, name).await;
    let status = timeout(PATIENCE, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(0));
}

const ANY_PORT: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

#[tokio::test]
async fn equal_warnings_are_one_line_and_a_count_and_others_are_logged_at_once() {
    let upstream = Upstream::bind().await;
    let routes = file(&format!(
        "admin.listen = \"127.0.0.1:0\"\n[proxies.a]\nlisten = \"127.0.0.1:0\"\nupstream = \"http://127.0.0.1:1\"\n\
         credentials = \"none\"\nroutes = [{{ path = \"/other\", upstream = \"{}\" }}]\n",
        upstream.origin()
    ));
    let running = Running::start(&["--config", path(routes.path())], &[NO_RETRY]).await;
    let client = client();
    for n in 0..60 {
        let url = format!("http://{}/{n}", running.proxy);
        assert_eq!(client.get(url).send().await.unwrap().status(), StatusCode::BAD_GATEWAY);
    }
    let other = tokio::spawn(client.post(format!("http://{}/other", running.proxy)).body("once").send());
    let mut aem = upstream.accept().await;
    aem.until("once").await;
    drop(aem);
    assert_eq!(other.await.unwrap().unwrap().status(), StatusCode::BAD_GATEWAY);
    running.signal("-TERM").await;
    let (code, log) = running.ended().await;
    assert_eq!(code, Some(0));
    let failures = log.lines().filter(|line| line.contains("Request not forwarded"));
    let failures: Vec<serde_json::Value> = failures.map(|line| serde_json::from_str(line).unwrap()).collect();
    let repeated: Vec<_> = failures.iter().map(|failure| failure["repeated"].as_u64().unwrap_or(0)).collect();
    assert_eq!(repeated.iter().sum::<u64>(), 59, "{log}");
    // One at once, and a count at the end, or after its time on a busy machine.
    assert!(failures.len() <= 4, "{log}");
    let causes: std::collections::BTreeSet<_> =
        failures.iter().map(|failure| failure["causes"].to_string()).collect();
    assert!(causes.len() == 2 && repeated[0] == 0, "{log}");
}

#[tokio::test]
async fn a_panic_on_a_connection_ends_that_connection_and_shows_nothing_of_it() {
    let upstream = Upstream::bind().await;
    let origin = upstream.origin();
    let args = [&["--auth", "none", "--upstream", &origin, "--log-level", "trace"][..], &ANY_PORT].concat();
    let running = Running::start(&args, &[("AEM_AUTH_PROXY_PANIC_IN", "response")]).await;
    let get = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut innocent = connect(&running.proxy).await;
    innocent.send(get).await;
    let mut slow = upstream.accept().await;
    slow.until("\r\n\r\n").await;

    let mut victim = connect(&running.proxy).await;
    victim.send(get).await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";
    aem.send(answer).await;
    let got = victim.rest().await;
    assert!(!got.contains("done"), "{got}");

    slow.send(answer).await;
    assert!(innocent.response().await.ends_with("done"));
    let metrics = client().get(format!("http://{}/metrics", running.admin)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for line in [
        "aem_proxy_panics_total 1",
        "aem_proxy_requests_in_flight{proxy=\"default\"} 0",
        "aem_proxy_client_connections{proxy=\"default\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    drop(innocent);
    running.signal("-TERM").await;
    let (code, log) = running.ended().await;
    assert_eq!(code, Some(0));
    let line = log.lines().find(|line| line.contains("A task panicked")).expect("a line says so");
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert!(line["location"].as_str().unwrap().contains("deliberate.rs:"), "{line}");
    assert!(line["thread"].as_str().unwrap().starts_with("worker-"), "{line}");
    assert_eq!(log.lines().find(|line| secret_in(line).is_some()), None);
}

async fn connect(addr: &str) -> Raw {
    Raw(TcpStream::connect(addr).await.expect("the process listens"))
}

#[tokio::test]
async fn a_panic_without_which_the_process_cannot_work_ends_it_with_exit_code_1() {
    let args = ["demo", "--aem-listen", "127.0.0.1:0", "--ims-listen", "127.0.0.1:0"];
    let args = [&args[..], &ANY_PORT].concat();
    for place in ["refresher", "keeper", "accept", "admin", "sweep", "worker", "hangup"] {
        let mut child = command(&args, &[("AEM_AUTH_PROXY_PANIC_IN", place)]).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let mut log = String::new();
        let reading = async {
            let (mut bytes, mut asked) = ([0; 4096], false);
            loop {
                let read = stderr.read(&mut bytes).await.unwrap();
                if read == 0 {
                    break;
                }
                log.push_str(&String::from_utf8_lossy(&bytes[..read]));
                let line = log.lines().find(|line| line.contains("\"Listening\"") && line.ends_with('}'));
                let Some(line) = line.filter(|_| !std::mem::replace(&mut asked, line.is_some())) else {
                    continue;
                };
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                match place {
                    "accept" => drop(TcpStream::connect(line["proxy.addr"].as_str().unwrap()).await),
                    "admin" => drop(TcpStream::connect(line["admin.addr"].as_str().unwrap()).await),
                    "hangup" => signal(&child, "-HUP").await,
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("{place} ends it"));
        let status = timeout(PATIENCE, child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(1), "{place}: {log}");
        assert!(log.contains("A task panicked") && secret_in(&log).is_none(), "{place}: {log}");
    }
}

#[tokio::test]
async fn signals_stop_in_order_or_are_ignored_and_none_kills() {
    for (name, is_demo) in [("-QUIT", false), ("-TERM", false), ("-INT", false), ("-QUIT", true)] {
        let demo = ["demo", "--aem-listen", "127.0.0.1:0", "--ims-listen", "127.0.0.1:0"];
        let first: &[&str] = if is_demo { &demo } else { &NOWHERE };
        let running = Running::start(&[first, &ANY_PORT, &["--log-level", "debug"]].concat(), &[]).await;
        for ignored in ["-USR1", "-USR2", "-ALRM", "-VTALRM", "-PROF", "-IO", "-XFSZ", "-PIPE"] {
            running.signal(ignored).await;
        }
        let live = client().get(format!("http://{}/live", running.admin)).send().await.unwrap();
        assert_eq!(live.status(), 200);
        running.signal(name).await;
        let (code, log) = running.ended().await;
        assert_eq!(code, Some(0), "{name}: {log}");
        assert!(log.contains(&format!("\"SIG{}\"", &name[1..])) && log.contains("\"Stopped\""), "{log}");
    }
}

#[tokio::test]
async fn sigquit_drains_what_is_in_flight() {
    let upstream = Upstream::bind().await;
    let origin = upstream.origin();
    let args = [&["--auth", "none", "--upstream", &origin][..], &ANY_PORT].concat();
    let running = Running::start(&args, &[]).await;
    let (mut app, mut aem) = in_flight(&running.proxy, &upstream).await;
    running.signal("-QUIT").await;
    until_closed(&running.proxy).await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
    assert!(app.rest().await.ends_with("done"));
    assert_eq!(running.ended().await.0, Some(0));
}

async fn in_flight(addr: &str, upstream: &Upstream) -> (Raw, Raw) {
    let mut app = connect(addr).await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    (app, aem)
}

/// Waits until the address is not listened at.
async fn until_closed(addr: &str) {
    let closing = async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, closing).await.expect("the listener closes");
}

/// Two ports of this machine that are free now.
fn free_ports() -> [String; 2] {
    let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().to_string())
}

#[tokio::test]
async fn the_next_process_takes_both_ports_while_the_one_before_drains() {
    let upstream = Upstream::bind().await;
    let [proxy, admin] = free_ports();
    let origin = upstream.origin();
    let args = ["--auth", "none", "--upstream", &origin, "--listen", &proxy, "--admin-listen", &admin];
    let before = Running::start(&args, &[]).await;
    let (mut app, mut aem) = in_flight(&proxy, &upstream).await;
    let mut probe = connect(&admin).await;
    probe.send("GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(probe.response().await.starts_with("HTTP/1.1 200"));

    before.signal("-TERM").await;
    let next = Running::start(&args, &[]).await;
    for path in ["/live", "/ready", "/startup"] {
        let answer = client().get(format!("http://{admin}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path} of the next process");
    }
    let (mut other_app, mut other_aem) = in_flight(&proxy, &upstream).await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";
    other_aem.send(answer).await;
    assert!(other_app.response().await.ends_with("done"));
    // Open connections of the admin listener are served to the end.
    probe.send("GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(probe.response().await.starts_with("HTTP/1.1 503"));
    aem.send(answer).await;
    assert!(app.rest().await.ends_with("done"), "what was in flight finishes");
    assert_eq!(before.ended().await.0, Some(0));
    next.signal("-TERM").await;
    assert_eq!(next.ended().await.0, Some(0));
}

#[tokio::test]
async fn the_next_process_waits_for_an_address_until_the_one_before_leaves_it() {
    let origin = answering_upstream().await;
    let [proxy, admin] = free_ports();
    let args = ["--auth", "none", "--upstream", &origin, "--listen", &proxy, "--admin-listen", &admin];
    let before = Running::start(&args, &[("AEM_PROXY_SHUTDOWN__DELAY", "1s")]).await;
    before.signal("-TERM").await;
    let next = Running::start(&args, &[]).await;
    assert_eq!(before.ended().await.0, Some(0));
    assert_eq!(client().get(format!("http://{proxy}/")).send().await.unwrap().status(), 200);
    next.signal("-TERM").await;
    let (code, log) = next.ended().await;
    assert!(code == Some(0) && log.contains("The address is in use, waiting"), "{log}");
}

#[tokio::test]
async fn a_process_that_waits_for_an_address_stops_when_asked() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let args = [&NOWHERE[..], &["--listen", &addr, "--admin-listen", "off"]].concat();
    let child = command(&args, &[]).stderr(File::create(&log).unwrap()).spawn().unwrap();
    until_logged(&log, "The address is in use, waiting").await;
    ends(child, "-TERM").await;
}

/// An AEM that answers everything; its origin.
async fn answering_upstream() -> String {
    let upstream = Upstream::bind().await;
    let origin = upstream.origin();
    tokio::spawn(async move {
        loop {
            let mut aem = upstream.accept_any().await;
            tokio::spawn(async move {
                let mut head = [0; 4096];
                while aem.0.read(&mut head).await.is_ok_and(|read| read > 0) {
                    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await;
                }
            });
        }
    });
    origin
}

#[tokio::test]
async fn with_a_shared_port_a_restart_fails_no_request() {
    let origin = answering_upstream().await;
    let [proxy, admin] = free_ports();
    let args = ["--auth", "none", "--upstream", &origin, "--listen", &proxy, "--admin-listen", &admin];
    let variables = [("AEM_PROXY_LISTEN_REUSE_PORT", "true")];
    let mut current = Running::start(&args, &variables).await;
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (stop, count, proxy) = (Arc::clone(&stop), Arc::clone(&count), proxy.clone());
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    let mut app = connect(&proxy).await;
                    app.send("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
                    let answer = app.rest().await;
                    assert!(answer.ends_with("done"), "{answer:?}");
                    count.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        // Both are bound at once.
        let next = Running::start(&args, &variables).await;
        let seen = count.load(Relaxed);
        current.signal("-TERM").await;
        assert_eq!(current.ended().await.0, Some(0));
        while count.load(Relaxed) < seen + 100 && !asking.iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        current = next;
    }
    stop.store(true, Relaxed);
    for asking in asking {
        asking.await.expect("every request is answered");
    }
    current.signal("-TERM").await;
    assert_eq!(current.ended().await.0, Some(0));
}
