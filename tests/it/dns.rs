//! AEM's name gets another address while the proxy is busy: new connections find it, and none stays at the old one.
//!
//! The names of the machine are not for a test to change: the proxy gets a file of names of its own, in a mount namespace.
//! Where that cannot be had, the test says that it was skipped.

use std::{process::Stdio, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    commands::path,
    harness::{PATIENCE, Raw, binary, file},
};

const NAME: &str = "aem.example";

/// An AEM at one address, which says which one it is.
async fn serve(listener: TcpListener, acceptor: TlsAcceptor, who: &'static str) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let mut stream = acceptor.accept(stream).await.expect("the proxy shakes hands");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{who}", who.len());
            let mut bytes = Vec::new();
            while matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                if bytes.ends_with(b"\r\n\r\n") {
                    bytes.clear();
                    stream.write_all(answer.as_bytes()).await.expect("the proxy reads");
                    stream.flush().await.expect("the proxy reads");
                }
            }
        });
    }
}

/// A certificate for [`NAME`], in PEM, and a server that shows it.
fn acceptor() -> (String, TlsAcceptor) {
    let certified = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (certified.cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

/// Two listeners at one port.
async fn two() -> (TcpListener, TcpListener, u16) {
    loop {
        let one = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = one.local_addr().unwrap().port();
        if let Ok(other) = TcpListener::bind(("127.0.0.2", port)).await {
            return (one, other, port);
        }
    }
}

async fn can_mount() -> bool {
    let tried = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status().await;
    tried.is_ok_and(|status| status.success())
}

/// The proxy, for which `names` is the machine's file of names; and where it listens.
async fn proxy(names: &str, args: &[&str]) -> (Child, String) {
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, names]).arg(binary()).args(args);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("AEM_PROXY_TIMEOUTS__UPSTREAM_MAX_AGE", "300ms");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let listening = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) else {
                panic!("the proxy says {line}")
            };
            if let Some(addr) = value["proxy.addr"].as_str().filter(|_| value["message"] == "Listening") {
                return addr.to_owned();
            }
        }
        panic!("the proxy ended");
    };
    let addr = timeout(PATIENCE, listening).await.expect("the proxy listens");
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, addr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_address_is_seen_under_load_and_costs_no_request() {
    if !can_mount().await {
        eprintln!("SKIPPED: there are no mount namespaces here, so the names of a machine cannot be changed");
        return;
    }
    let (pem, acceptor) = acceptor();
    let (one, two, port) = two().await;
    let old = tokio::spawn(serve(one, acceptor.clone(), "old"));
    tokio::spawn(serve(two, acceptor, "new"));

    let (names, ca) = (file(&format!("127.0.0.1 {NAME}\n")), file(&pem));
    let upstream = format!("https://{NAME}:{port}");
    let args = ["--upstream", &upstream, "--auth", "none", "--ca-file", path(ca.path())];
    let more = ["--listen", "127.0.0.1:0", "--admin-listen", "off", "--log-format", "json"];
    let (mut child, addr) = proxy(path(names.path()), &[&args[..], &more[..]].concat()).await;
    let mut app = Raw(TcpStream::connect(&addr).await.unwrap());
    let mut ask = async || {
        app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let answer = app.response().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        answer[answer.len() - 3..].to_owned()
    };
    for _ in 0..10 {
        assert_eq!(ask().await, "old");
    }
    // In place: the proxy's file of names is this very one.
    std::fs::write(names.path(), format!("127.0.0.2 {NAME}\n")).unwrap();
    let seen = async { while ask().await != "new" {} };
    timeout(PATIENCE, seen).await.expect("the change is seen");
    for _ in 0..10 {
        assert_eq!(ask().await, "new");
    }
    old.abort();
    child.kill().await.unwrap();
}

#[tokio::test]
async fn all_addresses_of_a_name_are_tried() {
    if !can_mount().await {
        eprintln!("SKIPPED: there are no mount namespaces here, so the names of a machine cannot be changed");
        return;
    }
    let (pem, acceptor) = acceptor();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("https://{NAME}:{}", listener.local_addr().unwrap().port());
    tokio::spawn(serve(listener, acceptor, "one"));
    // Of another family too, and nobody listens at two of them.
    for dead in ["127.0.0.2", "::1"] {
        let names = file(&format!("{dead} {NAME}\n127.0.0.3 {NAME}\n127.0.0.1 {NAME}\n"));
        let ca = file(&pem);
        let args = ["--upstream", &upstream, "--auth", "none", "--ca-file", path(ca.path())];
        let more = ["--listen", "127.0.0.1:0", "--admin-listen", "off", "--log-format", "json"];
        let (mut child, addr) = proxy(path(names.path()), &[&args[..], &more[..]].concat()).await;
        let mut app = Raw(TcpStream::connect(&addr).await.unwrap());
        app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let answer = app.response().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("one"), "{dead}: {answer}");
        child.kill().await.unwrap();
    }
}
