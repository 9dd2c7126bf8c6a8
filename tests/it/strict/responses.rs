//! The same for what AEM says: no broken response looks whole, and no byte of one is in another.

use std::time::Duration;

use tokio::{io::AsyncReadExt, time::timeout};

use super::BOUND;
use crate::harness::{Proxy, Raw, Setup, Upstream, with_upstream};

/// What the client is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sees {
    /// An answer of the proxy's: 502.
    BadGateway,
    /// A connection that breaks off, whatever came before.
    Cut,
    /// One of the two: it depends on how the bytes come.
    NotWhole,
    /// An answer with this body.
    Whole(&'static [u8]),
}

struct Talk<'p> {
    proxy: &'p Proxy,
    upstream: &'p Upstream,
}

impl Talk<'_> {
    /// A request is answered with `response`; AEM then ends the connection, or leaves it open.
    async fn check(&self, method: &str, response: &[u8], ends: bool, bytewise: bool, sees: Sees) {
        let context = format!(
            "{method} {} ends: {ends} bytewise: {bytewise}",
            response[..response.len().min(200)].escape_ascii()
        );
        let mut app = self.proxy.connect().await;
        app.send(format!("{method} /first HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        let mut aem = self.upstream.accept().await;
        aem.until("\r\n\r\n").await;
        aem.0.set_nodelay(true).unwrap();
        for piece in response.chunks(if bytewise { 1 } else { response.len().max(1) }) {
            // The proxy may have had enough of it.
            if tokio::io::AsyncWriteExt::write_all(&mut aem.0, piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let open = if ends {
            drop(aem);
            None
        } else {
            Some(aem)
        };
        let seen =
            timeout(BOUND, first(&mut app, method)).await.unwrap_or_else(|_| panic!("hangs: {context}"));
        let fits = match (sees, &seen) {
            (Sees::BadGateway, Seen::Whole(502, _)) | (Sees::Cut, Seen::Cut) => true,
            (Sees::NotWhole, Seen::Whole(502, _) | Seen::Cut) => true,
            (Sees::Whole(body), Seen::Whole(status, own)) => *status != 502 && own == body,
            _ => false,
        };
        assert!(fits, "{seen:?}, not {sees:?}: {context}");
        self.second(app, seen, open, &context).await;
    }

    /// The next answer on the client's connection, if that goes on, is the next request's.
    async fn second(&self, mut app: Raw, first: Seen, open: Option<Raw>, context: &str) {
        if first == Seen::Cut {
            return;
        }
        let request = "GET /second HTTP/1.1\r\nhost: localhost\r\n\r\n";
        if tokio::io::AsyncWriteExt::write_all(&mut app.0, request.as_bytes()).await.is_err() {
            return;
        }
        let fresh = async {
            let mut aem = self.upstream.accept().await;
            aem.until("GET /second").await;
            aem.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond").await;
            aem
        };
        let used = async {
            let Some(mut open) = open else { return std::future::pending().await };
            let mut bytes = Vec::new();
            while !bytes.windows(11).any(|part| part == b"GET /second") {
                if !matches!(open.0.read_buf(&mut bytes).await, Ok(1..)) {
                    return std::future::pending().await;
                }
            }
            open.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond").await;
            open
        };
        let ended = async {
            let mut byte = [0];
            while !matches!(app.0.peek(&mut byte).await, Ok(0) | Err(_)) {
                if byte[0] != 0 {
                    return std::future::pending().await;
                }
            }
        };
        tokio::select! {
            _ = fresh => {}
            _ = used => {}
            () = ended => return,
        }
        let seen =
            timeout(BOUND, self::first(&mut app, "GET")).await.unwrap_or_else(|_| panic!("hangs: {context}"));
        assert!(seen == Seen::Whole(200, b"second".to_vec()), "{seen:?} behind {context}");
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Whole(u16, Vec<u8>),
    Cut,
}

/// The first final response, read as strictly as is needed to tell a whole one.
async fn first(app: &mut Raw, method: &str) -> Seen {
    let mut bytes = Vec::new();
    loop {
        if let Some(seen) = whole(&bytes, method) {
            return seen;
        }
        if !matches!(app.0.read_buf(&mut bytes).await, Ok(1..)) {
            return Seen::Cut;
        }
    }
}

fn whole(mut bytes: &[u8], method: &str) -> Option<Seen> {
    loop {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 4..];
        assert!(!head.contains('\0') && !head.replace("\r\n", "").contains(['\r', '\n']), "{head}");
        let status: u16 = head["HTTP/1.1 ".len()..][..3].parse().unwrap();
        if status < 200 {
            continue;
        }
        if method == "HEAD" || [204, 304].contains(&status) {
            return Some(Seen::Whole(status, Vec::new()));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if let Some(length) = length {
            assert!(!head.contains("transfer-encoding"), "{head}");
            let body = bytes.get(..length.parse().unwrap())?;
            return Some(Seen::Whole(status, body.to_vec()));
        }
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        return dechunked(bytes).map(|body| Seen::Whole(status, body));
    }
}

fn dechunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|part| part == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        bytes = &bytes[end + 2..];
        if size == 0 {
            return (bytes == b"\r\n" || bytes.windows(4).any(|part| part == b"\r\n\r\n")).then_some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}

#[tokio::test]
async fn no_broken_response_looks_whole_and_none_is_in_another() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let talk = Talk { proxy: &proxy, upstream: &upstream };
    let (mut count, check) = (0, async |method: &str, response: &[u8], ends: bool, sees: Sees| {
        talk.check(method, response, ends, false, sees).await;
        if response.len() < 5000 {
            talk.check(method, response, ends, true, sees).await;
        }
    });
    for line in BAD_STATUS_LINES {
        check("GET", &[line, &b"\r\ncontent-length: 2\r\n\r\nok"[..]].concat(), false, Sees::BadGateway)
            .await;
        count += 1;
    }
    for fields in BAD_FIELDS {
        let response = [b"HTTP/1.1 200 OK\r\n", *fields, b"\r\ncontent-length: 2\r\n\r\nok"].concat();
        check("GET", &response, false, Sees::BadGateway).await;
        count += 1;
    }
    for fields in BAD_FRAMING {
        let response = [b"HTTP/1.1 200 OK\r\n", *fields, b"\r\n\r\n2\r\nok\r\n0\r\n\r\n"].concat();
        check("GET", &response, false, Sees::BadGateway).await;
        check("HEAD", &response, false, Sees::BadGateway).await;
        count += 1;
    }
    for chunks in BAD_CHUNKS {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        check("GET", &[head, *chunks, b"\r\n0\r\n\r\n"].concat(), false, Sees::NotWhole).await;
        count += 1;
    }
    for (method, response, ends, sees) in OTHERS {
        check(method, response, *ends, *sees).await;
        count += 1;
    }
    for (response, sees) in large() {
        check("GET", &response, false, sees).await;
        count += 1;
    }
    println!("{count} responses, whole and byte by byte");
    assert!(count >= 60 + OTHERS.iter().filter(|other| matches!(other.3, Sees::Whole(_))).count());
    proxy.stop().await;
}

#[tokio::test]
async fn a_flood_of_interim_responses_has_an_end() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    for interim in ["100 Continue\r\n", "102 Processing\r\n", "103 Early Hints\r\nlink: </x>\r\n"] {
        let mut app = proxy.connect().await;
        app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        let flood = tokio::spawn(async move {
            let bytes = format!("HTTP/1.1 {interim}\r\n").repeat(1000);
            while tokio::io::AsyncWriteExt::write_all(&mut aem.0, bytes.as_bytes()).await.is_ok() {}
        });
        let answer = timeout(BOUND, app.until("HTTP/1.1 502")).await.expect("the flood ends");
        assert!(answer.matches("HTTP/1.1 10").count() <= 32, "{answer}");
        timeout(BOUND, flood).await.expect("AEM is not listened to any more").unwrap();
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_comes_late_is_nobodys_answer() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    for head in ["HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n", "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        app.send(head).await;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        let status = if head.starts_with("HEAD") { "200 OK" } else { "304 Not Modified" };
        aem.send(format!("HTTP/1.1 {status}\r\ncontent-length: 38\r\n\r\n")).await;
        app.until("\r\n\r\n").await;
        aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        // It has to be there before the next request: nothing else would show what becomes of it.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue").await;
    assert!(app.until("\r\n\r\n").await.contains("content-length: 4"));
    proxy.stop().await;
}

fn large() -> Vec<(Vec<u8>, Sees)> {
    let with =
        |fields: String| format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nok").into_bytes();
    let trailers = |fields: String| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n";
        format!("{head}{fields}\r\n").into_bytes()
    };
    vec![
        (with("x: y\r\n".repeat(100)), Sees::BadGateway),
        (with("x: y\r\n".repeat(20_000)), Sees::BadGateway),
        (with(format!("x: {}\r\n", "y".repeat(70_000))), Sees::BadGateway),
        (with(format!("{}: x\r\n", "y".repeat(70_000))), Sees::BadGateway),
        (format!("HTTP/1.1 200 {}", "x".repeat(70_000)).into_bytes(), Sees::BadGateway),
        (with("x: y\r\n".repeat(99)), Sees::Whole(b"ok")),
        (trailers("x: y\r\n".repeat(101)), Sees::NotWhole),
        (trailers(format!("x: {}\r\n", "y".repeat(70_000))), Sees::NotWhole),
        (trailers("x: y\r\n".repeat(100)), Sees::Whole(b"ok")),
    ]
}

const BAD_STATUS_LINES: &[&[u8]] = &[
    b"hello",
    b"ok",
    b"<html>",
    b"HTTP/0.9 200 OK",
    b"HTTP/1.2 200 OK",
    b"HTTP/2 200 OK",
    b"HTTP/2.0 200 OK",
    b"http/1.1 200 OK",
    b"HTTP/11 200 OK",
    b"HTTP/1.1 ",
    b"HTTP/1.1 99 Low",
    b"HTTP/1.1 099 Low",
    b"HTTP/1.1 000 Low",
    b"HTTP/1.1 2 OK",
    b"HTTP/1.1 20 OK",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 -20 OK",
    b"HTTP/1.1 +20 OK",
    b"HTTP/1.1 2OO OK",
    b"HTTP/1.1 0x1 OK",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1\t200 OK",
    b"HTTP/1.1 200\tOK",
    b" HTTP/1.1 200 OK",
    b"\r\nHTTP/1.1 200 OK",
    b"\nHTTP/1.1 200 OK",
    b"ICY 200 OK",
    b"SSH-2.0-OpenSSH_9.9",
    b"\x15\x03\x01\x00\x02\x02\x0a",
    b"HTTP/1.1 200 O\0K",
    b"HTTP/1.1 200 O\x1bK",
    b"HTTP/1.1 200 O\rK",
    b"HTTP/1.1 200 OK\nx: y",
    b"HTTP/1.1 200\n",
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket",
    b"HTTP/1.1 101 Switching Protocols",
    b"GET / HTTP/1.1",
];

const BAD_FIELDS: &[&[u8]] = &[
    b"x",
    b"x y: z",
    b": y",
    b"x : y",
    b" x: y",
    b"x: y\r\n folded",
    b"x: y\r\n\tfolded",
    b"x: \0",
    b"x: y\x01",
    b"x: y\x7f",
    b"x: y\rz",
    b"x: y\r",
    b"x: y\nz: a",
    b"x: y\n",
    b"x: y\n\n",
    b"(x): y",
    b"x\xe9: y",
    b"set-cookie: a\n b",
    b"\nx: y",
];

const BAD_FRAMING: &[&[u8]] = &[
    b"content-length: 12\r\ntransfer-encoding: chunked",
    b"transfer-encoding: chunked\r\ncontent-length: 12",
    b"content-length: 12\r\ncontent-length: 13",
    b"content-length: 12\r\ncontent-length: 12",
    b"content-length: 12, 12",
    b"content-length: 12,",
    b"content-length:",
    b"content-length: -1",
    b"content-length: +12",
    b"content-length: 1 2",
    b"content-length: 0xc",
    b"content-length: 012",
    b"content-length: 12.0",
    b"content-length: a",
    b"content-length: 9223372036854775808",
    b"content-length: 99999999999999999999",
    b"content_length: 12",
    b"transfer-encoding: gzip",
    b"transfer-encoding: identity",
    b"transfer-encoding: gzip, chunked",
    b"transfer-encoding: chunked, chunked",
    b"transfer-encoding: chunked, gzip",
    b"transfer-encoding: chunked;x",
    b"transfer-encoding: xchunked",
    b"transfer-encoding:",
    b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    b"transfer-encoding: identity\r\ntransfer-encoding: chunked",
    b"transfer_encoding: chunked",
];

const BAD_CHUNKS: &[&[u8]] = &[
    b"",
    b"x",
    b"-1",
    b"0x2\r\nok",
    b" 2\r\nok",
    b"2 \r\nok",
    b"2\nok",
    b"2\r\nok\n",
    b"2\r\nokx",
    b"2\r\no",
    b"2;\r\nok",
    b"2;x=\"\r\nok",
    b"2;\0\r\nok",
    b"ffffffffffffffff\r\nok",
    b"10000000000000000\r\nok",
    b"2\r\nok\r\n0\n\r\n",
    b"2\r\nok\r\n0\r\n\n",
    b"2\r\nok\r\n0\r\nx",
    b"2\r\nok\r\n0\r\nx : y\r\n",
    b"2\r\nok\r\n0\r\nx: \0\r\n",
    b"2\r\nok\r\n0\r\nx: y\n",
    b"2\r\nok\r\n0\r\nx: y\r\n z\r\n",
];

/// Method (a POST is not sent again), response, whether AEM ends the connection, and what the client sees.
const OTHERS: &[(&str, &[u8], bool, Sees)] = &[
    ("GET", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", false, Sees::Whole(b"hello")),
    ("GET", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", true, Sees::Whole(b"hello")),
    ("GET", b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello", false, Sees::Whole(b"hello")),
    ("GET", b"HTTP/1.1 200 \xe9\r\ncontent-length: 5\r\n\r\nhello", false, Sees::Whole(b"hello")),
    ("GET", b"HTTP/1.1 200 OK\r\n\r\nhello", true, Sees::Whole(b"hello")),
    ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n05;x\r\nhello\r\n0\r\n\r\n", false, Sees::Whole(b"hello")),
    ("GET", b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", false, Sees::Whole(b"hello")),
    ("GET", b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", false, Sees::Whole(b"hello")),
    ("GET", b"HTTP/1.1 999 Odd\r\ncontent-length: 5\r\n\r\nhello", false, Sees::Whole(b"hello")),
    ("GET", b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false, Sees::BadGateway),
    ("POST", b"", true, Sees::BadGateway),
    ("POST", b"HTTP", true, Sees::BadGateway),
    ("POST", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n", true, Sees::BadGateway),
    ("POST", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r", true, Sees::BadGateway),
    ("POST", b"HTTP/1.1 103 Early Hints\r\n\r\n", true, Sees::BadGateway),
    ("GET", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", true, Sees::Cut),
    ("GET", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", true, Sees::Cut),
    ("GET", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", true, Sees::Cut),
    ("GET", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n", true, Sees::Cut),
    // More than there should be: the rest is nobody's.
    ("GET", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged", false, Sees::Whole(b"hello")),
    ("GET", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged", false, Sees::Whole(b"")),
    ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", false, Sees::Whole(b"")),
    ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false, Sees::Whole(b"")),
    ("GET", b"HTTP/1.1 204 No Content\r\n\r\nhello", false, Sees::Whole(b"")),
    ("GET", b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", false, Sees::Whole(b"")),
    ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nhello", false, Sees::Whole(b"")),
    ("GET", b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello", false, Sees::BadGateway),
    ("GET", b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", false, Sees::BadGateway),
    ("GET", b"HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\nhello", false, Sees::BadGateway),
    ("GET", b"HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked\r\n\r\n", false, Sees::BadGateway),
];
