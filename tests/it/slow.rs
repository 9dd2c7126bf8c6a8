//! Clients that are slow on purpose, or only there: however many they are, others are served, and they are ended.
//!
//! They drip, and so they sleep.

mod idle;

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::harness::{PATIENCE, Proxy, Raw, Setup, with_upstream};

const SLOW: usize = 200;

const DRIP: Duration = Duration::from_millis(50);

const ENDED: &str = "aem_proxy_client_connections_ended_total{proxy=\"default\",reason=\"slow\"}";

/// A client that sends `head`, and then `part` now and then; what it reads, and whether the end was a reset.
fn drip(addr: SocketAddr, head: &'static str, part: &'static [u8]) -> JoinHandle<(String, bool)> {
    tokio::spawn(async move {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let dripping = async {
            write.write_all(head.as_bytes()).await.unwrap();
            while write.write_all(part).await.is_ok() {
                sleep(DRIP).await;
            }
            std::future::pending::<()>().await;
        };
        let mut answer = Vec::new();
        tokio::select! {
            () = dripping => unreachable!(),
            end = read.read_to_end(&mut answer) => (String::from_utf8_lossy(&answer).into_owned(), end.is_err()),
        }
    })
}

/// Another client, in the midst of it all.
async fn serves(proxy: &Proxy) {
    for _ in 0..20 {
        let response = timeout(PATIENCE, proxy.get("/api/assets.json"));
        assert_eq!(response.await.expect("others are served").status(), 200);
        sleep(DRIP).await;
    }
}

#[tokio::test]
async fn slow_heads_stop_nobody_and_are_ended() {
    let proxy = Setup::default().set("TIMEOUTS__REQUEST_HEAD", "1s").start().await;
    let head = "GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\nx: ";
    let part = |number| if number % 2 == 0 { &b"a"[..] } else { b"a\r\nx: " };
    let slow: Vec<_> = (0..SLOW).map(|number| drip(proxy.addr, head, part(number))).collect();
    // Empty lines are no head: they count as a connection that is idle, and there are not many of them.
    let empty = drip(proxy.addr, "", b"\r\n");
    serves(&proxy).await;
    for client in slow {
        let (answer, _) = timeout(PATIENCE, client).await.expect("it is ended").unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    let (answer, _) = timeout(PATIENCE, empty).await.expect("it is ended").unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(proxy.metric(ENDED).await, SLOW as f64);
    assert_eq!(proxy.standins.aem.requests(), 20);
    proxy.stop().await;
}

#[tokio::test]
async fn slow_bodies_stop_nobody_and_are_ended() {
    let proxy = Setup::default().set("TIMEOUTS__SLOW_CLIENT", "1s").start().await;
    let lengthy = "PUT /upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n";
    let chunked = "PUT /upload HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut slow: Vec<_> = (0..SLOW / 2).map(|_| drip(proxy.addr, lengthy, b"a")).collect();
    slow.extend((0..SLOW / 2).map(|_| drip(proxy.addr, chunked, b"1\r\na\r\n")));
    serves(&proxy).await;
    for client in slow {
        let (answer, _) = timeout(PATIENCE, client).await.expect("it is ended").unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("slow_client"), "{answer}");
    }
    assert_eq!(proxy.metric(ENDED).await, SLOW as f64);
    proxy.stop().await;
}

/// An AEM whose answers to `/large` are more than sockets hold.
async fn large() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let body: &[u8] = vec![b'x'; 4 << 20].leak();
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while matches!(stream.read_buf(&mut head).await, Ok(1..)) {
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let body = if head.starts_with(b"GET /large ") { body } else { b"ok" };
                    head.clear();
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    if stream.write_all(answer.as_bytes()).await.is_err()
                        || stream.write_all(body).await.is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_stop_nobody_and_are_ended() {
    let setup = Setup::default().set("TIMEOUTS__SLOW_CLIENT", "1s");
    let proxy = setup.upstream(format!("http://{}", large().await)).start().await;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut app = Raw(socket.connect(proxy.addr).await.unwrap());
        app.send("GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        slow.push(tokio::spawn(async move {
            let mut byte = [0];
            // A byte now and then, for as long as there are any.
            while matches!(app.0.read(&mut byte).await, Ok(1)) {
                sleep(DRIP).await;
            }
        }));
    }
    serves(&proxy).await;
    let in_flight = "aem_proxy_requests_in_flight{proxy=\"default\"}";
    let ended = async {
        while proxy.metric(in_flight).await > 0.0 {
            sleep(DRIP).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("they are ended");
    assert_eq!(proxy.metric(ENDED).await, SLOW as f64);
    slow.iter().for_each(JoinHandle::abort);
    proxy.stop().await;
}

#[tokio::test]
async fn a_flood_of_requests_whose_answers_nobody_reads_stops_nobody_and_is_ended() {
    let proxy = Setup::default().set("TIMEOUTS__SLOW_CLIENT", "1s").start().await;
    let mut flooding = Vec::new();
    for host in ["localhost", "evil.example"] {
        let mut app = proxy.connect().await;
        flooding.push(tokio::spawn(async move {
            let flood = format!("GET /api/assets.json HTTP/1.1\r\nhost: {host}\r\n\r\n").repeat(1000);
            while app.0.write_all(flood.as_bytes()).await.is_ok() {}
        }));
    }
    serves(&proxy).await;
    for flood in flooding {
        timeout(PATIENCE, flood).await.expect("it is ended").unwrap();
    }
    proxy.stop().await;
}

#[tokio::test]
async fn whoever_keeps_the_pace_may_take_as_long_as_it_takes() {
    let (proxy, upstream) = with_upstream(
        Setup::default().set("TIMEOUTS__SLOW_CLIENT", "300ms").set("LIMITS__MIN_RATE", "1000 B"),
    )
    .await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    for _ in 0..20 {
        app.send([b'x'; 200]).await;
        sleep(DRIP).await;
    }
    aem.until(&"x".repeat(200)).await;
    // And nobody is made to answer for AEM, which may begin when it likes, and pause.
    sleep(Duration::from_millis(700)).await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha").await;
    app.until("ha").await;
    sleep(Duration::from_millis(700)).await;
    aem.send("lf").await;
    app.until("lf").await;
    assert_eq!(proxy.metric(ENDED).await, 0.0);
    // The next request begins anew.
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\nno").await;
    assert!(app.until("\r\n\r\n").await.starts_with("HTTP/1.1 408 "));
    assert_eq!(proxy.metric(ENDED).await, 1.0);
    proxy.stop().await;
}
