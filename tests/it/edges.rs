//! The edges of the engine: what comes half, at the same time, in the wrong order or never.
//!
//! Some of these wait for something not to happen: no event tells of that, so they sleep.

use std::{sync::Arc, time::Duration};

use aem_auth_proxy::standin::ims::Fault;
use rustls::{
    ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::harness::{PATIENCE, Proxy, Setup, file, with_upstream};

/// A listener and a TLS configuration with records of so many bytes.
async fn listener(fragment: usize) -> (TcpListener, Arc<ServerConfig>, tempfile::NamedTempFile) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    config.max_fragment_size = Some(fragment);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener, Arc::new(config), file(&certified.cert.pem()))
}

async fn secure_proxy(listener: &TcpListener, ca: &tempfile::NamedTempFile, more: &[(&str, &str)]) -> Proxy {
    let port = listener.local_addr().unwrap().port();
    let mut setup = Setup::default()
        .upstream(format!("https://localhost:{port}"))
        .set("CA_FILE", ca.path().display().to_string());
    for (k, v) in more {
        setup = setup.set(k, *v);
    }
    setup.start().await
}

/// AEM's side of TLS, record by record.
struct Tls {
    socket: TcpStream,
    tls: ServerConnection,
    tickets: Vec<u8>,
}

impl Tls {
    async fn accept(listener: &TcpListener, config: &Arc<ServerConfig>) -> Self {
        let (mut socket, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let mut tls = ServerConnection::new(Arc::clone(config)).unwrap();
        let mut out;
        while tls.is_handshaking() {
            let mut b = [0; 4096];
            let n = timeout(PATIENCE, socket.read(&mut b)).await.unwrap().unwrap();
            assert!(n > 0);
            let mut bytes = &b[..n];
            while !bytes.is_empty() {
                tls.read_tls(&mut bytes).unwrap();
                tls.process_new_packets().unwrap();
            }
            if tls.is_handshaking() {
                out = Vec::new();
                while tls.wants_write() {
                    tls.write_tls(&mut out).unwrap();
                }
                socket.write_all(&out).await.unwrap();
            }
        }
        let mut tickets = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut tickets).unwrap();
        }
        Self { socket, tls, tickets }
    }

    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        loop {
            let mut b = [0; 4096];
            let n = std::io::Read::read(&mut self.tls.reader(), &mut b).unwrap_or(0);
            plain.extend_from_slice(&b[..n]);
            if plain.windows(end.len()).any(|p| p == end) {
                return plain;
            }
            if n > 0 {
                continue;
            }
            let n = timeout(PATIENCE, self.socket.read(&mut b)).await.expect("aem read").unwrap();
            assert!(n > 0, "proxy closed: {}", String::from_utf8_lossy(&plain));
            let mut bytes = &b[..n];
            while !bytes.is_empty() {
                self.tls.read_tls(&mut bytes).unwrap();
                self.tls.process_new_packets().unwrap();
            }
        }
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        std::io::Write::write_all(&mut self.tls.writer(), plain).unwrap();
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).unwrap();
        }
        out
    }
}

/// The bytes of AEM's first flight, with `early` sealed behind its Finished.
async fn first_flight(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
    early: &[u8],
) -> (TcpStream, ServerConnection, Vec<u8>) {
    let (mut socket, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut tls = ServerConnection::new(Arc::clone(config)).unwrap();
    while !tls.wants_write() {
        read_tls(&mut socket, &mut tls).await.unwrap();
    }
    std::io::Write::write_all(&mut tls.writer(), early).unwrap();
    let mut flight = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut flight).unwrap();
    }
    (socket, tls, flight)
}

/// Reads once; none at the end.
async fn read_tls(socket: &mut TcpStream, tls: &mut ServerConnection) -> Option<()> {
    let mut bytes = [0; 4096];
    let read = timeout(PATIENCE, socket.read(&mut bytes)).await.expect("the proxy goes on").unwrap_or(0);
    let mut bytes = &bytes[..read];
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes).unwrap();
        tls.process_new_packets().unwrap();
    }
    (read > 0).then_some(())
}

#[tokio::test]
async fn what_aem_sends_before_the_request_is_no_response() {
    let (listener, config, ca) = listener(4096).await;
    let mut config = Arc::unwrap_or_clone(config);
    config.send_half_rtt_data = true;
    let config = Arc::new(config);
    let proxy = secure_proxy(&listener, &ca, &[("TIMEOUTS__RECONNECT", "0s")]).await;
    let early = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong";
    // All of it comes with the end of the handshake; or a part of its record, and the rest before the request is answered.
    for late in [0, 1, 20] {
        let mut app = proxy.connect().await;
        app.send("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await;
        let (mut socket, mut tls, flight) = first_flight(&listener, &config, early).await;
        let (now, later) = flight.split_at(flight.len() - late);
        socket.write_all(now).await.unwrap();
        while tls.is_handshaking() {
            if read_tls(&mut socket, &mut tls).await.is_none() {
                break;
            }
        }
        let _ = socket.write_all(later).await;
        let answer = app.rest().await;
        assert!(answer.starts_with("HTTP/1.1 502") && !answer.contains("wrong"), "{late}: {answer}");
        while read_tls(&mut socket, &mut tls).await.is_some() {}
        let mut plain = Vec::new();
        let _ = std::io::Read::read_to_end(&mut tls.reader(), &mut plain);
        assert!(plain.is_empty(), "a request was sent over such a connection");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_session_ticket_that_comes_in_parts_is_no_response() {
    let (listener, config, ca) = listener(4096).await;
    let proxy = secure_proxy(&listener, &ca, &[]).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = Tls::accept(&listener, &config).await;
    let tickets = std::mem::take(&mut aem.tickets);
    let (first, rest) = tickets.split_at(tickets.len() / 2 + 7);
    aem.socket.write_all(first).await.unwrap();
    aem.socket.write_all(rest).await.unwrap();
    aem.until(b"\r\n\r\n").await;
    let answer = aem.seal(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nright");
    aem.socket.write_all(&answer).await.unwrap();
    assert!(app.response().await.ends_with("right"));
    proxy.stop().await;
}

#[tokio::test]
async fn no_continue_is_said_in_the_middle_of_an_answer() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 413 Too Large\r\ncontent-length: 10\r\n\r\n01234").await;
    sleep(Duration::from_millis(1500)).await;
    aem.send("56789").await;
    let answer = app.until("56789").await;
    assert!(answer.ends_with("\r\n\r\n0123456789"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn an_early_answer_does_not_cost_aem_the_end_of_the_upload() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.set_recv_buffer_size(4096).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(10).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener.into()).unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let proxy = Setup::default().upstream(origin).start().await;
    // The kernel's buffers take an unknown part: some size leaves less than a buffer in the proxy's hands.
    let mut lost = Vec::new();
    let mut size = 2400 * 1024;
    while size < 3400 * 1024 {
        let mut app = proxy.connect().await;
        app.send(format!(
            "PUT / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n"
        ))
        .await;
        let body = vec![b'x'; size];
        let (mut read, mut write) = app.0.into_split();
        let sender = tokio::spawn(async move {
            let _ = write.write_all(&body).await;
            write
        });
        let (mut aem, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let mut head = Vec::new();
        while !head.windows(4).any(|p| p == b"\r\n\r\n") {
            let mut b = [0; 1];
            aem.read_exact(&mut b).await.unwrap();
            head.push(b[0]);
        }
        sleep(Duration::from_millis(150)).await;
        aem.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        let mut answer = Vec::new();
        let mut b = [0; 4096];
        while !answer.ends_with(b"ok") {
            let n = timeout(PATIENCE, read.read(&mut b)).await.unwrap().unwrap();
            assert!(n > 0);
            answer.extend_from_slice(&b[..n]);
        }
        sleep(Duration::from_millis(50)).await;
        let mut got = 0;
        let mut b = vec![0; 65536];
        let r = timeout(Duration::from_secs(5), async {
            while got < size {
                match aem.read(&mut b).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => got += n,
                }
            }
        })
        .await;
        if got < size {
            lost.push((size, got, r.is_err()));
        }
        let _ = timeout(PATIENCE, sender).await;
        size += 48 * 1024;
    }
    assert!(lost.is_empty(), "(size, got, timed out): {lost:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn half_a_session_ticket_does_not_stop_an_upload() {
    let (listener, config, ca) = listener(64).await;
    let proxy = secure_proxy(&listener, &ca, &[]).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\n").await;
    let mut aem = Tls::accept(&listener, &config).await;
    aem.until(b"\r\n\r\n").await;
    let first = 5 + usize::from(u16::from_be_bytes([aem.tickets[3], aem.tickets[4]]));
    assert!(first < aem.tickets.len());
    aem.socket.write_all(&aem.tickets[..first]).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    app.send("body").await;
    aem.until(b"body").await;
    aem.socket.write_all(&aem.tickets[first..]).await.unwrap();
    let answer = aem.seal(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    aem.socket.write_all(&answer).await.unwrap();
    app.until("\r\n\r\nok").await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_stop_by_force_does_not_make_half_an_answer_look_whole() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.0\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    app.until("half").await;
    proxy.stop().await;
    let (rest, reset) = app.rest_or_reset().await;
    assert!(reset, "half looks whole: {rest:?}");
    drop(aem);
}

#[tokio::test]
async fn a_bad_record_behind_an_answer_does_not_cost_the_answer() {
    let (listener, config, ca) = listener(4096).await;
    let proxy = secure_proxy(&listener, &ca, &[]).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = Tls::accept(&listener, &config).await;
    aem.until(b"\r\n\r\n").await;
    let mut bytes = aem.tickets.clone();
    bytes.extend(aem.seal(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
    bytes.extend([23, 3, 3, 0, 32]);
    bytes.extend([0; 32]);
    aem.socket.write_all(&bytes).await.unwrap();
    let (answer, reset) =
        timeout(Duration::from_secs(3), app.rest_or_reset()).await.unwrap_or(("kept".into(), false));
    assert!(answer == "kept" || answer.ends_with("ok"), "{answer:?} {reset}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_renamed_body_is_whole_when_aem_ends_the_session_with_it() {
    let (listener, config, ca) = listener(4096).await;
    let proxy = secure_proxy(&listener, &ca, &[]).await;
    let mut app = proxy.connect().await;
    app.send("GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = Tls::accept(&listener, &config).await;
    aem.until(b"\r\n\r\n").await;
    let mut bytes = aem.tickets.clone();
    bytes.extend(aem.seal(
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n\
          transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ));
    aem.tls.send_close_notify();
    while aem.tls.wants_write() {
        aem.tls.write_tls(&mut bytes).unwrap();
    }
    aem.socket.write_all(&bytes).await.unwrap();
    let (answer, reset) =
        timeout(Duration::from_secs(3), app.rest_or_reset()).await.unwrap_or(("kept".into(), false));
    assert!(!reset && (answer == "kept" || answer.ends_with("0\r\n\r\n")), "{answer:?} {reset}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_refusal_that_is_passed_on_after_all_ends_with_its_session() {
    let (listener, config, ca) = listener(4096).await;
    let proxy = secure_proxy(&listener, &ca, &[]).await;
    proxy.standins.ims.set_always(Some(Fault::internal_error()));
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = Tls::accept(&listener, &config).await;
    aem.until(b"\r\n\r\n").await;
    let mut bytes = aem.tickets.clone();
    bytes.extend(aem.seal(b"HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\nno!"));
    aem.tls.send_close_notify();
    while aem.tls.wants_write() {
        aem.tls.write_tls(&mut bytes).unwrap();
    }
    // The session has ended, and the socket stays.
    aem.socket.write_all(&bytes).await.unwrap();
    assert!(app.until("0\r\n\r\n").await.starts_with("HTTP/1.1 401"));
    proxy.stop().await;
}

#[tokio::test]
async fn connecting_does_not_count_as_waiting_for_the_answer() {
    let (listener, config, ca) = listener(4096).await;
    let proxy = secure_proxy(&listener, &ca, &[("TIMEOUTS__RESPONSE_HEAD", "600ms")]).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    sleep(Duration::from_millis(900)).await;
    let mut aem = Tls::accept(&listener, &config).await;
    aem.until(b"\r\n\r\n").await;
    let mut bytes = aem.tickets.clone();
    sleep(Duration::from_millis(100)).await;
    bytes.extend(aem.seal(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
    let _ = aem.socket.write_all(&bytes).await;
    let answer = app.until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_has_its_answer_may_stop_sending() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf").await;
    let mut aem = upstream.accept().await;
    aem.until("half").await;
    aem.send("HTTP/1.1 400 Bad\r\ncontent-length: 2\r\n\r\nno").await;
    sleep(Duration::from_millis(100)).await;
    app.0.shutdown().await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let (answer, reset) = app.rest_or_reset().await;
    assert!(answer.ends_with("no") && !reset, "{answer:?} reset: {reset}");
    proxy.stop().await;
}

#[tokio::test]
async fn the_last_words_in_a_tunnel_arrive() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        .await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    app.until("\r\n\r\n").await;
    let words = vec![b'w'; 3_000_000];
    let sending = tokio::spawn(async move {
        let _ = aem.0.write_all(&words).await;
        // Reads nothing of what the client said: the end is a reset, after all of the data.
        sleep(Duration::from_millis(300)).await;
    });
    app.send("unread").await;
    sleep(Duration::from_millis(200)).await;
    let mut got = 0;
    let mut b = vec![0; 65536];
    let r = timeout(PATIENCE, async {
        loop {
            match app.0.read(&mut b).await {
                Ok(0) => return Ok(()),
                Ok(n) => got += n,
                Err(e) => return Err(e),
            }
        }
    })
    .await;
    let _ = sending.await;
    assert_eq!(got, 3_000_000, "{r:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_tunnel_that_aem_ends_with_its_first_word_ends() {
    let (listener, config, ca) = listener(4096).await;
    let proxy = secure_proxy(&listener, &ca, &[]).await;
    let mut app = proxy.connect().await;
    app.send("GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        .await;
    let mut aem = Tls::accept(&listener, &config).await;
    aem.until(b"\r\n\r\n").await;
    let mut bytes = aem.tickets.clone();
    bytes.extend(
        aem.seal(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nbye"),
    );
    aem.tls.send_close_notify();
    while aem.tls.wants_write() {
        aem.tls.write_tls(&mut bytes).unwrap();
    }
    aem.socket.write_all(&bytes).await.unwrap();
    app.until("bye").await;
    let mut b = [0; 1];
    let r = timeout(Duration::from_secs(3), app.0.read(&mut b)).await;
    assert!(matches!(r, Ok(Ok(0))), "{r:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn no_body_is_asked_for_before_aem_has_the_head() {
    let (listener, config, ca) = listener(4096).await;
    let proxy = secure_proxy(&listener, &ca, &[]).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    sleep(Duration::from_millis(1300)).await;
    let mut aem = Tls::accept(&listener, &config).await;
    aem.until(b"\r\n\r\n").await;
    let mut bytes = aem.tickets.clone();
    bytes.extend(aem.seal(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno"));
    aem.socket.write_all(&bytes).await.unwrap();
    let answer = app.until("no").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_handshake_that_breaks_in_the_middle_of_a_message_is_a_502() {
    let (listener, _config, ca) = listener(4096).await;
    let proxy = secure_proxy(&listener, &ca, &[]).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let (mut aem, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut b = [0; 4096];
    let _ = aem.read(&mut b).await.unwrap();
    // The beginning of a ServerHello, and an alert in the middle of it.
    aem.write_all(&[22, 3, 3, 0, 8, 2, 0, 0, 100, 3, 3, 0, 0, 21, 3, 3, 0, 2, 2, 40]).await.unwrap();
    let (answer, reset) =
        timeout(Duration::from_secs(5), app.rest_or_reset()).await.unwrap_or(("kept".into(), false));
    assert!(answer == "kept" || answer.starts_with("HTTP/1.1 502"), "{answer:?} {reset}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_on_gets_its_last_answer() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    let mut bytes = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_vec();
    bytes.extend(vec![b'x'; 200_000]);
    app.send(&bytes).await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let (answer, reset) = app.rest_or_reset().await;
    assert!(answer.ends_with("ok") && !reset, "{answer:?} {reset}");
    proxy.stop().await;
}

#[tokio::test]
async fn an_empty_line_between_two_requests_means_nothing() {
    let (proxy, upstream) = with_upstream(Setup::default().set("TIMEOUTS__REQUEST_HEAD", "200ms")).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    app.until("\r\n\r\nok").await;
    let mut b = vec![0; 4096];
    let r = timeout(Duration::from_secs(2), app.0.read(&mut b)).await;
    assert!(r.is_err(), "{}", String::from_utf8_lossy(&b[..r.unwrap().unwrap()]));
    proxy.stop().await;
}

#[tokio::test]
async fn a_response_head_that_drips_has_a_limit() {
    let (proxy, upstream) = with_upstream(Setup::default().set("TIMEOUTS__RESPONSE_HEAD", "300ms")).await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    let drip = tokio::spawn(async move {
        let _ = aem.0.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        // Without an end, unless somebody puts one to it.
        while aem.0.write_all(b"a").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(app.until("\r\n\r\n").await.starts_with("HTTP/1.1 504 "));
    timeout(PATIENCE, drip).await.expect("AEM's connection is closed").unwrap();
    proxy.stop().await;
}
