//! A Unix socket in place of a port: whose it is, who may connect, and what stands there already.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use crate::{
    commands,
    harness::{PATIENCE, Proxy, Setup},
};

/// Starts a proxy on a port, and one called `sock` on a Unix socket.
async fn start(socket: &Path, setup: Setup) -> Proxy {
    let standins = setup.start_standins().await;
    let setup = setup
        .set("UPSTREAM", standins.aem_origin.clone())
        .set("LISTEN", "127.0.0.1:0")
        .set("PROXIES__SOCK__LISTEN", format!("unix:{}", socket.display()))
        .set("PROXIES__SOCK__UPSTREAM", "default");
    let proxy = setup.start_with(standins).await;
    proxy.ready().await;
    proxy
}

async fn ask(socket: &Path, fields: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!("GET /api/assets.json HTTP/1.1\r\n{fields}connection: close\r\n\r\n");
    // Whoever is not let in may be told so before all is said.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8(answer).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

fn denied(reason: &str) -> String {
    format!("aem_proxy_denied_total{{proxy=\"sock\",reason=\"{reason}\"}}")
}

#[tokio::test]
async fn the_file_has_the_mode_that_was_asked_for_and_its_owners_alone_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("proxy.sock");
    for (asked, expected) in
        [(None, 0o600), (Some("0660"), 0o660), (Some("666"), 0o666), (Some("0700"), 0o700)]
    {
        let setup = Setup::default();
        let setup = match asked {
            Some(mode) => setup.set("GUARD__SOCKET_MODE", mode),
            None => setup,
        };
        let proxy = start(&socket, setup).await;
        assert_eq!(mode(&socket), expected, "{asked:?}");
        assert!(ask(&socket, "host: localhost\r\n").await.starts_with("HTTP/1.1 200 OK"));
        proxy.stop().await;
        assert!(!socket.exists(), "it goes with its listener");
    }
}

#[tokio::test]
async fn a_umask_neither_widens_nor_narrows_the_mode() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("proxy.sock");
    for umask in ["000", "077"] {
        let mut command = tokio::process::Command::new("sh");
        let script = format!("umask {umask}; exec '{}'", crate::harness::binary().display());
        command.args(["-c", &script]).env_clear().kill_on_drop(true);
        command.env("AEM_PROXY_UPSTREAM", "http://localhost:1").env("AEM_PROXY_AUTH", "none");
        command.env("AEM_PROXY_LISTEN", format!("unix:{}", socket.display()));
        command.env("AEM_PROXY_ADMIN__LISTEN", "off").env("AEM_PROXY_GUARD__SOCKET_MODE", "0640");
        let mut child = command.spawn().unwrap();
        let connecting = async {
            while UnixStream::connect(&socket).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, connecting).await.expect("it listens");
        assert_eq!(mode(&socket), 0o640, "{umask}");
        child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn a_user_who_is_not_on_the_list_is_shut_out_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("proxy.sock");
    let own = std::fs::metadata(dir.path()).unwrap().uid();
    for (uids, let_in) in
        [(format!("{own}"), true), (format!("4711, {own}"), true), ("4711".to_owned(), false)]
    {
        let proxy = start(&socket, Setup::default().set("GUARD__SOCKET_UIDS", uids)).await;
        let answer = ask(&socket, "host: localhost\r\n").await;
        if let_in {
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
            assert_eq!(proxy.metric(&denied("peer")).await, 0.0);
        } else {
            assert_eq!(answer, "");
            assert_eq!(proxy.metric(&denied("peer")).await, 1.0);
            assert_eq!(proxy.standins.aem.requests(), 0);
            assert_eq!(proxy.get("/api/assets.json").await.status(), 200, "TCP does not tell");
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn the_guard_holds_there_too() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("proxy.sock");
    let proxy = start(&socket, Setup::default()).await;
    for (fields, status, reason) in [
        ("", 400, "host"),
        ("host: a\r\nhost: b\r\n", 400, "host"),
        ("host: a@b\r\n", 400, "host"),
        ("host: localhost\r\norigin: http://localhost:3000\r\n", 403, "origin"),
        ("host: localhost\r\nsec-fetch-site: cross-site\r\n", 403, "cross_site"),
    ] {
        let before = proxy.metric(&denied(reason)).await;
        let answer = ask(&socket, fields).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{fields}: {answer}");
        assert_eq!(proxy.metric(&denied(reason)).await, before + 1.0, "{fields}");
    }
    assert_eq!(proxy.standins.aem.requests(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_socket_that_somebody_listens_at_is_not_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("proxy.sock");
    let proxy = start(&socket, Setup::default()).await;
    let listen = format!("unix:{}", socket.display());
    let variables = [
        ("AEM_PROXY_UPSTREAM", "http://localhost:1"),
        ("AEM_PROXY_AUTH", "none"),
        ("AEM_PROXY_ADMIN__LISTEN", "off"),
        ("AEM_PROXY_LISTEN", &*listen),
    ];
    let (code, _, err) = commands::text(&commands::run(&[], &variables).await);
    assert!(code == 1 && err.contains(&format!("cannot listen at {listen}")), "{code} {err}");
    assert!(ask(&socket, "host: localhost\r\n").await.starts_with("HTTP/1.1 200 OK"));
    proxy.stop().await;
}

#[tokio::test]
async fn two_proxies_of_one_configuration_do_not_share_one() {
    let variables = [
        ("AEM_PROXY_AUTH", "none"),
        ("AEM_PROXY_ADMIN__LISTEN", "off"),
        ("AEM_PROXY_PROXIES__ONE__LISTEN", "unix:/nowhere/proxy.sock"),
        ("AEM_PROXY_PROXIES__ONE__UPSTREAM", "http://localhost:1"),
        ("AEM_PROXY_PROXIES__TWO__LISTEN", "unix:/nowhere/proxy.sock"),
        ("AEM_PROXY_PROXIES__TWO__UPSTREAM", "http://localhost:1"),
    ];
    let (code, _, err) = commands::text(&commands::run(&[], &variables).await);
    assert!(code == 78 && err.contains("is the address of `proxies.one.listen` too"), "{code} {err}");
}

/// No web page can connect to one, so no name is another's: clients call it what they like.
#[tokio::test]
async fn every_host_is_let_in_over_a_unix_socket_an_empty_one_too() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("proxy.sock");
    let proxy = start(&socket, Setup::default()).await;
    for host in ["unix", "docker", "docker:80", "", "evil.example", "_", "localhost"] {
        let answer = ask(&socket, &format!("host: {host}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{host}: {answer}");
    }
    assert_eq!(proxy.metric(&denied("host")).await, 0.0);
    proxy.stop().await;
}
