//! The process has a fixed number of threads, and goes on where the system gives it no more.
//!
//! Name look-ups hang here: the binary gets a `resolv.conf` of its own, in a mount namespace, which names a server that does not
//! answer. Where that cannot be had, the test says that it was skipped.

use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt, process::Stdio};

use tokio::{
    net::UdpSocket,
    process::Command,
    time::{Duration, sleep, timeout},
};

use crate::{
    commands::{Running, path},
    harness::{PATIENCE, Raw, binary, client, file},
};

/// A name server that takes questions and does not answer, and the files that make it the only one.
struct DeadNames {
    socket: UdpSocket,
    resolv: tempfile::NamedTempFile,
    nsswitch: tempfile::NamedTempFile,
}

impl DeadNames {
    /// `None` where port 53 or a mount namespace cannot be had.
    async fn start() -> Option<Self> {
        let tried = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status().await;
        if !tried.is_ok_and(|status| status.success()) {
            return None;
        }
        let mut socket = None;
        for last in 1..250 {
            let addr = Ipv4Addr::new(127, 53, fastrand::u8(..), last);
            if let Ok(bound) = UdpSocket::bind((addr, 53)).await {
                socket = Some((bound, addr));
                break;
            }
        }
        let (socket, addr) = socket?;
        let resolv = file(&format!("nameserver {addr}\noptions timeout:30 attempts:1\n"));
        let nsswitch = file("hosts: files dns\n");
        // Others than root read them too.
        for file in [&resolv, &nsswitch] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        Some(Self { socket, resolv, nsswitch })
    }

    /// What starts a program that asks this server; `before` is put before it.
    fn wrap<'a>(&'a self, before: &[&'a str]) -> Vec<&'a str> {
        let script = "mount --bind \"$0\" /etc/resolv.conf && mount --bind \"$1\" /etc/nsswitch.conf && shift \
                      && exec \"$@\"";
        let mut all = vec!["unshare", "--mount", "sh", "-c", script];
        all.extend([path(self.resolv.path()), path(self.nsswitch.path())]);
        all.extend(before);
        all
    }

    /// Waits until a look-up has come.
    async fn asked(&self) {
        let mut question = [0; 512];
        timeout(PATIENCE, self.socket.recv(&mut question)).await.expect("a name is looked up").unwrap();
    }
}

/// The threads of a process.
fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").count()
}

/// The most threads that there may be with `workers`: main, workers, look-ups, files.
fn most(workers: usize) -> usize {
    1 + workers + 4 + 4
}

fn workers() -> usize {
    std::thread::available_parallelism().unwrap().get().min(8)
}

const ARGS: [&str; 6] = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"];

async fn live(running: &Running) -> bool {
    let url = format!("http://{}/live", running.admin);
    client().get(url).send().await.is_ok_and(|answer| answer.status() == 200)
}

/// `count` requests on connections of their own.
async fn ask(addr: &str, count: usize) -> Vec<Raw> {
    let mut apps = Vec::new();
    for _ in 0..count {
        let mut app = Raw(tokio::net::TcpStream::connect(addr).await.unwrap());
        app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        apps.push(app);
    }
    apps
}

#[tokio::test]
async fn name_look_ups_that_hang_take_a_fixed_number_of_threads() {
    let Some(names) = DeadNames::start().await else {
        eprintln!("SKIPPED: no mount namespace or no port 53 here");
        return;
    };
    let args = [&["--auth", "none", "--upstream", "https://hangs.example"][..], &ARGS].concat();
    let running = Running::start_through(&names.wrap(&[]), &binary(), &args, &[]).await;
    let pid = running.child.id().unwrap();
    let mut apps = ask(&running.proxy, 100).await;
    names.asked().await;
    // The other requests have come by the time that the admin listener answers a few times.
    for _ in 0..5 {
        assert!(live(&running).await);
        sleep(Duration::from_millis(20)).await;
        let found = threads(pid);
        assert!(found <= most(workers()), "{found} threads");
    }
    apps.clear();
    running.signal("-TERM").await;
    assert_eq!(running.ended().await.0, Some(0));
}

#[tokio::test]
async fn where_the_system_gives_no_more_threads_a_look_up_fails_and_the_process_goes_on() {
    let Some(names) = DeadNames::start().await else {
        eprintln!("SKIPPED: no mount namespace or no port 53 here");
        return;
    };
    for tool in ["prlimit", "setpriv"] {
        if !Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .await
            .is_ok_and(|s| s.success())
        {
            eprintln!("SKIPPED: there is no {tool} here");
            return;
        }
    }
    let readable = tempfile::tempdir().unwrap();
    std::fs::set_permissions(readable.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = readable.path().join("aem-auth-proxy");
    if std::fs::hard_link(binary(), &copy).is_err() {
        std::fs::copy(binary(), &copy).unwrap();
    }
    // No other process has this user's number, so its processes are those of this test.
    let user = format!("--reuid={}", 61_000 + std::process::id() % 4_000);
    let document = file(include_str!("../fixtures/service_token.json"));
    std::fs::set_permissions(document.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let variables = [
        ("AEM_PROXY_TIMEOUTS__CONNECT", "500ms"),
        ("AEM_PROXY_TIMEOUTS__RECONNECT", "0s"),
        ("AEM_PROXY_TIMEOUTS__IMS_CONNECT", "500ms"),
    ];
    let as_user = ["setpriv", &user, "--regid=65534", "--clear-groups"];
    // Look-ups of AEM's name, and of that of IMS.
    for auth in [["--auth", "none"], ["--credentials-file", path(document.path())]] {
        let args = [&auth[..], &["--upstream", "https://hangs.example"], &ARGS].concat();
        let free = Running::start_through(&names.wrap(&as_user), &copy, &args, &variables).await;
        let at_start = threads(free.child.id().unwrap());
        free.signal("-TERM").await;
        assert_eq!(free.ended().await.0, Some(0));

        let limit = format!("--nproc={at_start}");
        let limited = [&["prlimit", limit.as_str()][..], &as_user].concat();
        let running = Running::start_through(&names.wrap(&limited), &copy, &args, &variables).await;
        let pid = running.child.id().unwrap();
        for mut app in ask(&running.proxy, 50).await {
            let answer = app.response().await;
            assert!(answer.starts_with("HTTP/1.1 50"), "{answer}");
        }
        names.asked().await;
        running.signal("-HUP").await;
        assert!(live(&running).await);
        assert!(threads(pid) <= at_start);
        running.signal("-TERM").await;
        let (code, log) = running.ended().await;
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}
