//! AEM goes down and comes back under load: what may be repeated does not fail, and no write is carried out twice.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use aem_auth_proxy::standin::aem::Break;
use tokio::{net::TcpStream, task::JoinSet};

use crate::harness::{Proxy, Raw, Setup};

/// Clients that go on until they are told to stop; each request has a number of its own.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: JoinSet<Vec<Asked>>,
}

struct Asked {
    method: &'static str,
    id: u64,
    status: u16,
}

impl Load {
    fn start(addr: SocketAddr, count: usize) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        for number in 0..count {
            let (stop, sent) = (stop.clone(), sent.clone());
            let method = ["GET", "PUT", "POST"][number % 3];
            clients.spawn(async move {
                let (mut all, mut app) = (Vec::new(), None);
                while !stop.load(Relaxed) {
                    let id = sent.fetch_add(1, Relaxed);
                    all.push(Asked { method, id, status: ask(&mut app, addr, method, id).await });
                }
                all
            });
        }
        Self { stop, sent, clients }
    }

    /// Waits until so many further requests were sent.
    async fn goes_on(&self, requests: u64) {
        let until = self.sent.load(Relaxed) + requests;
        while self.sent.load(Relaxed) < until {
            tokio::task::yield_now().await;
        }
    }

    async fn end(mut self) -> Vec<Asked> {
        self.stop.store(true, Relaxed);
        let mut all = Vec::new();
        while let Some(asked) = self.clients.join_next().await {
            all.extend(asked.expect("no client breaks off"));
        }
        all
    }
}

async fn ask(app: &mut Option<Raw>, addr: SocketAddr, method: &str, id: u64) -> u16 {
    let connection = match app {
        Some(app) => app,
        None => app.insert(Raw(TcpStream::connect(addr).await.expect("the proxy listens"))),
    };
    let (path, body) =
        if method == "GET" { ("/api/assets.json", "") } else { ("/upload", "a body of some bytes") };
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nx-standin-id: {id}\r\n");
    connection.send(format!("{head}content-length: {length}\r\n\r\n{body}")).await;
    let answer = connection.response().await;
    if answer.contains("connection: close") {
        *app = None;
    }
    answer[9..12].parse().expect("a status")
}

fn check(proxy: &Proxy, all: &[Asked]) {
    let aem = &proxy.standins.aem;
    for Asked { method, id, status } in all {
        match *method {
            "POST" => {
                let writes = aem.writes_of(*id);
                assert!(writes <= 1, "a write was carried out {writes} times");
                assert!(*status != 200 || writes == 1, "a write that was not carried out");
                assert!([200, 502].contains(status), "{status}");
            }
            _ => assert_eq!(*status, 200, "{method} {id}"),
        }
    }
    assert!(all.iter().filter(|asked| asked.status == 200).count() > all.len() / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aem_that_restarts_fails_no_request_that_may_be_repeated() {
    for tls in [false, true] {
        let setup = Setup::default();
        let mut proxy = if tls { setup.tls() } else { setup }.start().await;
        let load = Load::start(proxy.addr, 24);
        for _ in 0..10 {
            load.goes_on(200).await;
            proxy.standins.aem_server.restart().await.expect("AEM comes back");
        }
        load.goes_on(200).await;
        check(&proxy, &load.end().await);
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_reset_or_half_closed_fail_no_request_that_may_be_repeated() {
    let proxy = Setup::default().tls().start().await;
    let load = Load::start(proxy.addr, 24);
    for round in 0..10 {
        let when = [Break::AfterHead, Break::AfterBody][round % 2];
        // Fewer than one request is given attempts, so that none can meet them all.
        proxy.standins.aem.break_off(when, 3);
        while proxy.standins.aem.broken_off() < 3 * (round + 1) {
            load.goes_on(10).await;
        }
    }
    check(&proxy, &load.end().await);
    proxy.stop().await;
}
