//! The way out through an egress proxy, to AEM and to IMS; and what is said when that proxy stands in the way.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Child,
    time::timeout,
};

use crate::{
    commands,
    harness::{PATIENCE, Proxy, Raw, Setup, file},
    log::{assert_no_secret, secret_in},
};

/// A name that no DNS knows: only the egress proxy knows the way.
pub const NAME: &str = "author.example.invalid";

/// What the watch over the log looks for, in the clear and in base64.
const USER: &str = "admin";
const PASSWORD: &str = "p8e-at@home";
const IN_URL: &str = "p8e-at%40home";

/// An egress proxy. It keeps what it was asked.
#[derive(Clone)]
pub struct Egress {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Egress {
    /// One that leads to this machine's port of that number, whatever the name.
    pub async fn leading() -> Self {
        Self::start(None).await
    }

    /// One that answers so to everybody, and closes.
    pub async fn saying(answer: &'static str) -> Self {
        Self::start(Some(answer)).await
    }

    async fn start(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let egress = Self { addr: listener.local_addr().unwrap(), asked: Arc::default() };
        let own = egress.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(own.clone().serve(stream, answer));
            }
        });
        egress
    }

    async fn serve(self, mut client: TcpStream, answer: Option<&'static str>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if !matches!(client.read_buf(&mut head).await, Ok(1..)) {
                return;
            }
        }
        let head = String::from_utf8(head).unwrap();
        self.asked.lock().unwrap().push(head.clone());
        if let Some(answer) = answer {
            let _ = client.write_all(answer.as_bytes()).await;
            return;
        }
        let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
        let port = target.and_then(|target| target.rsplit_once(':')).expect("a host and a port").1;
        let mut server = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).await.unwrap();
        client.write_all(b"HTTP/1.1 200 Connection established\r\nvia: 1.1 egress\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn url_with_credentials(&self) -> String {
        format!("http://{USER}:{IN_URL}@{}", self.addr)
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn authorities(&self) -> Vec<String> {
        let target = |head: &String| head.split(' ').nth(1).unwrap().to_owned();
        self.asked().iter().map(target).collect()
    }
}

/// Stand-ins with a name that leads nowhere.
pub fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.standins.tls_names = vec![NAME.to_owned()];
    setup
}

fn without_ims() -> Setup {
    Setup::default().upstream(format!("https://{NAME}")).set("AUTH", "none").set("TIMEOUTS__RECONNECT", "0s")
}

fn authority(origin: &str) -> String {
    origin.strip_prefix("https://").unwrap_or(origin).to_owned()
}

#[tokio::test]
async fn aem_and_ims_are_reached_through_it_with_its_credentials() {
    let egress = Egress::leading().await;
    let url = egress.url_with_credentials();
    let proxy = setup().set("EGRESS__AEM_PROXY", &url).set("EGRESS__IMS_PROXY", &url).start().await;
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    let (aem, ims) = (authority(&proxy.standins.aem_origin), proxy.standins.ims_endpoint.clone());
    let authorities = egress.authorities();
    assert!(authorities.contains(&aem) && authorities.contains(&ims), "{authorities:?}");
    // One for each thread at most: connections through it are kept as all others.
    assert!(authorities.len() <= 3, "{authorities:?}");
    let known = format!("proxy-authorization: basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    for head in egress.asked() {
        assert!(head.to_lowercase().contains(&known.to_lowercase()), "{head}");
    }
    for path in ["/status", "/metrics", "/"] {
        assert!(secret_in(&proxy.ask(path).await.1).is_none());
    }
    proxy.stop().await;
    assert_no_secret();
}

#[tokio::test]
async fn ims_has_a_way_of_its_own() {
    let (one, two) = (Egress::leading().await, Egress::leading().await);
    let proxy = setup().set("EGRESS__AEM_PROXY", one.url()).set("EGRESS__IMS_PROXY", two.url()).start().await;
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    assert_eq!(one.authorities(), [authority(&proxy.standins.aem_origin)]);
    assert_eq!(two.authorities(), std::slice::from_ref(&proxy.standins.ims_endpoint));
    assert!(!one.asked()[0].to_lowercase().contains("proxy-authorization"));
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_on_this_machine_is_reached_directly() {
    let egress = Egress::leading().await;
    let setup = Setup::default().tls();
    let setup = setup.set("EGRESS__AEM_PROXY", egress.url()).set("EGRESS__IMS_PROXY", egress.url());
    let proxy = setup.start().await;
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    assert!(egress.asked().is_empty());
    proxy.stop().await;
}

#[tokio::test]
async fn http_2_goes_through_it_too() {
    let egress = Egress::leading().await;
    let mut setup = setup();
    setup.standins.http2 = true;
    let setup = setup.set("EGRESS__AEM_PROXY", egress.url()).set("EGRESS__IMS_PROXY", egress.url());
    let proxy = setup.set("UPSTREAMS__DEFAULT__HTTP", "2").start().await;
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    proxy.stop().await;
}

async fn check_problem(proxy: &Proxy, error: &str, name: &str) {
    let response = proxy.get("/").await;
    assert_eq!(response.status(), 502, "{name}");
    assert_eq!(response.headers()["proxy-status"], format!("aem-auth-proxy; error={error}"));
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!(problem["type"], format!("urn:aem-auth-proxy:problem:{name}"));
    assert!(problem["detail"].as_str().unwrap().contains("egress proxy"), "{problem}");
}

#[tokio::test]
async fn an_egress_proxy_in_the_way_has_its_own_problem_documents() {
    for (answer, error, name) in [
        ("HTTP/1.1 407 Who?\r\n\r\n", "proxy_configuration_error", "egress-credentials"),
        ("HTTP/1.1 403 No\r\n\r\n", "destination_ip_prohibited", "egress-refused"),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://portal\r\n\r\n",
            "destination_ip_prohibited",
            "egress-refused",
        ),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n<html>", "destination_unavailable", "egress-failed"),
        ("", "destination_unavailable", "egress-failed"),
        ("HTTP/1.1 200", "destination_unavailable", "egress-failed"),
        ("SSH-2.0-x\r\n", "destination_unavailable", "egress-failed"),
    ] {
        let egress = Egress::saying(answer).await;
        let proxy = without_ims().set("EGRESS__AEM_PROXY", egress.url_with_credentials()).start().await;
        check_problem(&proxy, error, name).await;
        let metric = format!("{{outcome=\"{}\",upstream=\"default\"}}", name.replace('-', "_"));
        assert_eq!(proxy.metric(&format!("aem_proxy_upstream_connects_total{metric}")).await, 1.0);
        proxy.stop().await;
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{USER}:{IN_URL}@{gone}");
    let proxy = without_ims().set("EGRESS__AEM_PROXY", url).start().await;
    check_problem(&proxy, "connection_refused", "egress-unreachable").await;
    proxy.stop().await;
    assert_no_secret();
}

#[tokio::test]
async fn status_says_that_the_way_to_ims_is_barred() {
    for (answer, words) in [
        ("HTTP/1.1 407 Who?\r\n\r\n", "the egress proxy wants credentials"),
        ("HTTP/1.1 403 No\r\n\r\n", "the egress proxy does not let it through"),
    ] {
        let egress = Egress::saying(answer).await;
        let proxy =
            setup().set("EGRESS__IMS_PROXY", egress.url_with_credentials()).start_without_token().await;
        let told = async {
            loop {
                let status = proxy.status().await;
                let error = &status["credentials"][0]["token"]["last_error"];
                if let Some(message) = error["message"].as_str() {
                    assert!(error["hint"].as_str().unwrap().contains("egress.ims_proxy"), "{error}");
                    return message.to_owned();
                }
            }
        };
        let message = timeout(PATIENCE, told).await.expect("IMS cannot be reached");
        assert!(message.contains(words), "{message}");
        proxy.stop().await;
    }
}

/// The binary with these variables, and where it listens.
async fn start(variables: &[(&str, &str)]) -> (Child, SocketAddr) {
    let mut command = commands::command(&["--listen", "127.0.0.1:0", "--admin-listen", "off"], variables);
    let mut child = command.env("AEM_PROXY_LOG__FORMAT", "json").stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let listening = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            assert!(secret_in(&line).is_none(), "{line}");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            if value["message"] == "Listening" {
                return value["proxy.addr"].as_str().unwrap().parse().unwrap();
            }
        }
        panic!("the proxy ended");
    };
    let addr = timeout(PATIENCE, listening).await.expect("the proxy listens");
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, addr)
}

async fn ask(addr: SocketAddr) -> String {
    let mut app = Raw(TcpStream::connect(addr).await.unwrap());
    app.send("GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    app.rest().await
}

#[tokio::test]
async fn the_environment_counts_where_nothing_else_is_said() {
    let egress = Egress::leading().await;
    let standins = setup().start_standins().await;
    let ca = file(standins.ca_pem.as_ref().unwrap());
    let credentials = standins.credentials_document.to_string();
    let url = egress.url_with_credentials();
    let variables = |more: &[(&'static str, &'static str)]| {
        let mut all = vec![
            ("AEM_PROXY_UPSTREAM", standins.aem_origin.as_str()),
            ("AEM_PROXY_CA_FILE", commands::path(ca.path())),
            ("AEM_PROXY_TIMEOUTS__RECONNECT", "0s"),
            ("HTTPS_PROXY", url.as_str()),
        ];
        all.extend_from_slice(more);
        all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    async fn answer(variables: Vec<(String, String)>) -> String {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (mut child, addr) = start(&variables).await;
        let answer = ask(addr).await;
        child.kill().await.unwrap();
        answer
    }
    let none = answer(variables(&[("AEM_PROXY_AUTH", "none")])).await;
    assert!(none.starts_with("HTTP/1.1 401 "), "AEM was reached, without a token: {none}");
    assert_eq!(egress.asked().len(), 1);
    for more in [("NO_PROXY", ".example.invalid"), ("AEM_PROXY_EGRESS__AEM_PROXY", "off")] {
        let direct = answer(variables(&[("AEM_PROXY_AUTH", "none"), more])).await;
        assert!(direct.starts_with("HTTP/1.1 502 ") && direct.contains("dns_error"), "{direct}");
    }
    assert_eq!(egress.asked().len(), 1);

    // `check` goes the same ways: to IMS, and to AEM.
    let mut all = variables(&[]);
    all.push(("AEM_PROXY_CREDENTIALS_JSON".to_owned(), credentials));
    let all: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let (code, out, err) = commands::text(&commands::run(&["check"], &all).await);
    assert!(code == 0 && out.contains("gave a token") && out.contains("answered 200"), "{out}{err}");
    assert!(secret_in(&out).is_none() && secret_in(&err).is_none());
    assert_eq!(egress.asked().len(), 3);
    let (code, out, _) = commands::text(&commands::run(&["config"], &all).await);
    assert!(code == 0 && secret_in(&out).is_none(), "{out}");
}

#[tokio::test]
async fn a_proxy_that_cannot_be_used_ends_the_start_where_it_would_be_passed_by() {
    let aem = format!("https://{NAME}");
    for (upstream, more, code) in [
        (aem.as_str(), &[][..], 78),
        (&aem, &[("AEM_PROXY_EGRESS__AEM_PROXY", "http://127.0.0.1:1")], 0),
        (&aem, &[("AEM_PROXY_EGRESS__AEM_PROXY", "off")], 0),
        (&aem, &[("NO_PROXY", "*")], 0),
        ("http://localhost:1", &[], 0),
    ] {
        let mut variables = vec![
            ("AEM_PROXY_UPSTREAM", upstream),
            ("AEM_PROXY_AUTH", "none"),
            ("ALL_PROXY", "socks5://admin:p8e-at%40home@127.0.0.1:1"),
        ];
        variables.extend_from_slice(more);
        if code == 0 {
            let (mut child, _) = start(&variables).await;
            child.kill().await.unwrap();
        } else {
            let (found, _, err) = commands::text(&commands::run(&[], &variables).await);
            assert!(found == code && err.contains("ALL_PROXY is not a proxy"), "{found} {err}");
            assert!(secret_in(&err).is_none(), "{err}");
        }
    }
}
