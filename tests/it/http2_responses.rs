//! Malformed HTTP/2 responses of AEM, frame by frame: what the client gets, and what becomes of the connection to AEM.

use std::io::ErrorKind;

use h2::{RecvStream, client::ResponseFuture};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use crate::{
    h2c::{App, answer},
    harness::{PATIENCE, Raw, Setup},
    http2::Aem,
    http2_edges::{block, frame},
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const PROTOCOL_ERROR: u32 = 1;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// What the client of a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The proxy's own answer: the last part of its type.
    Problem(String),
    /// The response broke off: over HTTP/1.1 the connection is reset, over HTTP/2 the stream.
    Cut,
    /// AEM's response, as a whole: its status and its body.
    Whole(u16, String),
}

/// What becomes of the connection to AEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// The stream is over, and AEM hears nothing of it.
    Stays,
    /// RST_STREAM with this code; the other streams go on.
    Resets(u32),
    /// GOAWAY with this code, and the end.
    Ends(u32),
}

/// AEM's side of a connection.
struct Peer {
    stream: TlsStream<TcpStream>,
    reset: Option<u32>,
    ended: Option<u32>,
}

impl Peer {
    async fn accept(aem: &Aem) -> Self {
        let mut stream = aem.accept().await;
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        let mut peer = Self { stream, reset: None, ended: None };
        peer.send(&[frame(SETTINGS, 0, 0, &[])]).await;
        peer
    }

    async fn send(&mut self, frames: &[Vec<u8>]) {
        // The proxy may have closed the connection in the middle of them.
        let _ = self.stream.write_all(&frames.concat()).await;
        let _ = self.stream.flush().await;
    }

    /// The next frame that says anything; none at the end.
    async fn frame(&mut self) -> Option<(u8, u8, u32)> {
        let mut head = [0; 9];
        let mut payload = Vec::new();
        let reading = async {
            self.stream.read_exact(&mut head).await?;
            payload.resize(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize, 0);
            self.stream.read_exact(&mut payload).await
        };
        match timeout(PATIENCE, reading).await.expect("the proxy goes on") {
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset));
                return None;
            }
        }
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match (head[3], head[4]) {
            (SETTINGS, 0) => self.send(&[frame(SETTINGS, ACK, 0, &[])]).await,
            (PING, 0) => self.send(&[frame(PING, ACK, 0, &payload)]).await,
            (RST_STREAM, _) => self.reset = Some(code(0)),
            (GOAWAY, _) => self.ended = Some(code(4)),
            _ => {}
        }
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
    }

    /// The stream of the next request.
    async fn request(&mut self) -> u32 {
        loop {
            if let (HEADERS, _, stream) = self.frame().await.expect("a request comes") {
                return stream;
            }
        }
    }

    /// What the proxy has done with the connection. What it sends before the second of two answers to PING is what it has
    /// to say.
    async fn outcome(&mut self) -> Connection {
        for _ in 0..2 {
            self.send(&[frame(PING, 0, 0, b"01234567")]).await;
            loop {
                match self.frame().await {
                    Some((PING, ACK, _)) => break,
                    Some(_) => {}
                    None => return Connection::Ends(self.ended.expect("GOAWAY comes first")),
                }
            }
        }
        self.reset.take().map_or(Connection::Stays, Connection::Resets)
    }

    /// Ends the connection: the next request needs another one.
    async fn leave(mut self) {
        self.send(&[frame(GOAWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])]).await;
        while self.frame().await.is_some() {}
    }

    async fn answer(&mut self, stream: u32) {
        let head = block(&[(b":status", b"204")]);
        self.send(&[frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)]).await;
    }
}

/// What a client over HTTP/1.1 gets, whose connection ends with it.
async fn over_http1(app: &mut Raw) -> Outcome {
    let (text, reset) = app.rest_or_reset().await;
    let Some((head, body)) = text.split_once("\r\n\r\n").filter(|_| !reset) else { return Outcome::Cut };
    let is_chunked = head.contains("transfer-encoding: chunked");
    let body = if is_chunked { unchunked(body) } else { Some(body.to_owned()) };
    body.map_or(Outcome::Cut, |body| Outcome::of(head[9..12].parse().unwrap(), &body))
}

/// What a client over HTTP/2 gets.
async fn over_http2(response: ResponseFuture) -> Outcome {
    let Ok(mut response) = answer(response).await else { return Outcome::Cut };
    let body = whole(response.body_mut()).await;
    body.map_or(Outcome::Cut, |body| Outcome::of(response.status().as_u16(), &body))
}

impl Outcome {
    fn of(status: u16, body: &str) -> Self {
        let problem = body.split_once("problem:").and_then(|(_, rest)| rest.split_once('"'));
        match problem {
            Some((problem, _)) => Self::Problem(problem.to_owned()),
            None => Self::Whole(status, body.to_owned()),
        }
    }
}

/// A body in chunks, if it has its end.
fn unchunked(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size + 2..)?;
    }
}

async fn whole(stream: &mut RecvStream) -> Option<String> {
    let mut body = Vec::new();
    while let Some(data) = timeout(PATIENCE, stream.data()).await.expect("the body goes on") {
        body.extend_from_slice(&data.ok()?);
    }
    stream.trailers().await.ok()?;
    String::from_utf8(body).ok()
}

/// An [`Outcome`] as the table has it.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Problem(&'static str),
    Cut,
    Whole(u16, &'static str),
}

impl From<&Expected> for Outcome {
    fn from(expected: &Expected) -> Self {
        match *expected {
            Expected::Problem(name) => Self::Problem(name.to_owned()),
            Expected::Cut => Self::Cut,
            Expected::Whole(status, body) => Self::Whole(status, body.to_owned()),
        }
    }
}

/// What AEM sends on a stream, and what comes of it.
type Case = (&'static str, fn(u32) -> Vec<Vec<u8>>, Expected, Connection);

/// A head that ends its stream.
fn last(stream: u32, fields: &[(&[u8], &[u8])]) -> Vec<Vec<u8>> {
    vec![frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))]
}

/// A head, and a body of one frame.
fn with_body(stream: u32, fields: &[(&[u8], &[u8])], body: &[u8]) -> Vec<Vec<u8>> {
    vec![frame(HEADERS, END_HEADERS, stream, &block(fields)), frame(DATA, END_STREAM, stream, body)]
}

/// A head of so many fields, of which each counts as 161 bytes.
fn large(stream: u32, count: usize) -> Vec<Vec<u8>> {
    let value = [b'a'; 126];
    let mut fields: Vec<(&[u8], &[u8])> = vec![STATUS];
    fields.resize(1 + count, (b"x-a", &value));
    let block = block(&fields);
    let parts = block.chunks(16_384).enumerate().map(|(number, part)| {
        let end = if (number + 1) * 16_384 >= block.len() { END_HEADERS } else { 0 };
        match number {
            0 => frame(HEADERS, END_STREAM | end, stream, part),
            _ => frame(CONTINUATION, end, stream, part),
        }
    });
    parts.collect()
}

const STATUS: (&[u8], &[u8]) = (b":status", b"200");

const NO_RESPONSE: Expected = Expected::Problem("connection-terminated");
const BAD_RESPONSE: Expected = Expected::Problem("bad-response");
const UPGRADE: Expected = Expected::Problem("upgrade");
const STAYS: Connection = Connection::Stays;
const RESETS: Connection = Connection::Resets(PROTOCOL_ERROR);
const ENDS: Connection = Connection::Ends(PROTOCOL_ERROR);

const CASES: &[Case] = &[
    ("no status", |s| last(s, &[(b"x-a", b"1")]), NO_RESPONSE, STAYS),
    ("the status twice", |s| last(s, &[STATUS, STATUS]), NO_RESPONSE, RESETS),
    ("the status 1000", |s| last(s, &[(b":status", b"1000")]), NO_RESPONSE, ENDS),
    ("the status 99", |s| last(s, &[(b":status", b"99")]), NO_RESPONSE, ENDS),
    ("the status 099", |s| last(s, &[(b":status", b"099")]), NO_RESPONSE, ENDS),
    ("the status abc", |s| last(s, &[(b":status", b"abc")]), NO_RESPONSE, ENDS),
    ("the status behind a field", |s| last(s, &[(b"x-a", b"1"), STATUS]), NO_RESPONSE, RESETS),
    (
        "a pseudo-field of a request",
        |s| last(s, &[STATUS, (b":path", b"/")]),
        Expected::Whole(200, ""),
        STAYS,
    ),
    ("an unknown pseudo-field", |s| last(s, &[STATUS, (b":x", b"1")]), NO_RESPONSE, ENDS),
    ("a capital in a name", |s| last(s, &[STATUS, (b"X-A", b"1")]), NO_RESPONSE, ENDS),
    ("a space in a name", |s| last(s, &[STATUS, (b"x a", b"1")]), NO_RESPONSE, ENDS),
    ("no name", |s| last(s, &[STATUS, (b"", b"1")]), NO_RESPONSE, ENDS),
    ("CR and LF in a value", |s| last(s, &[STATUS, (b"x-a", b"1\r\nx-b: 2")]), NO_RESPONSE, ENDS),
    ("LF in a value", |s| last(s, &[STATUS, (b"x-a", b"1\nx-b: 2")]), NO_RESPONSE, ENDS),
    ("NUL in a value", |s| last(s, &[STATUS, (b"x-a", b"1\0")]), NO_RESPONSE, ENDS),
    ("Connection", |s| last(s, &[STATUS, (b"connection", b"close")]), NO_RESPONSE, RESETS),
    (
        "Transfer-Encoding",
        |s| with_body(s, &[STATUS, (b"transfer-encoding", b"chunked")], b"0\r\n\r\n"),
        NO_RESPONSE,
        RESETS,
    ),
    ("Keep-Alive", |s| last(s, &[STATUS, (b"keep-alive", b"timeout=5")]), NO_RESPONSE, RESETS),
    ("Upgrade", |s| last(s, &[STATUS, (b"upgrade", b"websocket")]), NO_RESPONSE, RESETS),
    (
        "a block that cannot be decoded",
        |s| vec![frame(HEADERS, END_HEADERS | END_STREAM, s, &[0xff; 8])],
        NO_RESPONSE,
        ENDS,
    ),
    (
        "less than Content-Length",
        |s| with_body(s, &[STATUS, (b"content-length", b"3")], b"ab"),
        Expected::Cut,
        RESETS,
    ),
    (
        "more than Content-Length",
        |s| with_body(s, &[STATUS, (b"content-length", b"1")], b"ab"),
        Expected::Cut,
        RESETS,
    ),
    ("nothing of Content-Length", |s| last(s, &[STATUS, (b"content-length", b"3")]), NO_RESPONSE, STAYS),
    (
        "less than Content-Length, and trailers",
        |s| {
            let trailers = frame(HEADERS, END_HEADERS | END_STREAM, s, &block(&[(b"digest", b"1")]));
            let head = block(&[STATUS, (b"content-length", b"3")]);
            vec![frame(HEADERS, END_HEADERS, s, &head), frame(DATA, 0, s, b"ab"), trailers]
        },
        Expected::Cut,
        STAYS,
    ),
    (
        "two lengths",
        |s| with_body(s, &[STATUS, (b"content-length", b"1"), (b"content-length", b"2")], b"ab"),
        NO_RESPONSE,
        RESETS,
    ),
    (
        "one length twice",
        |s| with_body(s, &[STATUS, (b"content-length", b"2"), (b"content-length", b"2")], b"ab"),
        BAD_RESPONSE,
        STAYS,
    ),
    (
        "a length that is no number",
        |s| with_body(s, &[STATUS, (b"content-length", b"2x")], b"ab"),
        NO_RESPONSE,
        RESETS,
    ),
    (
        "a length with a sign",
        |s| with_body(s, &[STATUS, (b"content-length", b"+2")], b"ab"),
        NO_RESPONSE,
        RESETS,
    ),
    (
        "a length with a zero before it",
        |s| with_body(s, &[STATUS, (b"content-length", b"02")], b"ab"),
        BAD_RESPONSE,
        STAYS,
    ),
    ("content_length", |s| with_body(s, &[STATUS, (b"content_length", b"1")], b"ab"), BAD_RESPONSE, STAYS),
    ("a body of 204", |s| with_body(s, &[(b":status", b"204")], b"ab"), Expected::Whole(204, ""), STAYS),
    ("a body of 304", |s| with_body(s, &[(b":status", b"304")], b"ab"), Expected::Whole(304, ""), STAYS),
    ("the status 101", |s| last(s, &[(b":status", b"101")]), UPGRADE, STAYS),
    (
        "the status 101, and a body",
        |s| with_body(s, &[(b":status", b"101"), (b"x-a", b"1")], b"ab"),
        UPGRADE,
        ENDS,
    ),
    ("an interim response that ends the stream", |s| last(s, &[(b":status", b"103")]), NO_RESPONSE, STAYS),
    (
        "a body behind an interim response",
        |s| with_body(s, &[(b":status", b"103")], b"ab"),
        NO_RESPONSE,
        ENDS,
    ),
    (
        "an interim response with a length",
        |s| {
            let interim =
                frame(HEADERS, END_HEADERS, s, &block(&[(b":status", b"103"), (b"content-length", b"3")]));
            [vec![interim], with_body(s, &[STATUS], b"ab")].concat()
        },
        BAD_RESPONSE,
        RESETS,
    ),
    (
        "33 interim responses",
        |s| {
            let interim = frame(HEADERS, END_HEADERS, s, &block(&[(b":status", b"103")]));
            [vec![interim; 33], with_body(s, &[STATUS], b"ab")].concat()
        },
        BAD_RESPONSE,
        STAYS,
    ),
    (
        "a pseudo-field in trailers",
        |s| {
            let trailers = frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                s,
                &block(&[(b":status", b"500"), (b"digest", b"1")]),
            );
            vec![frame(HEADERS, END_HEADERS, s, &block(&[STATUS])), frame(DATA, 0, s, b"ab"), trailers]
        },
        Expected::Whole(200, "ab"),
        STAYS,
    ),
    (
        "trailers that do not end the stream",
        |s| {
            let trailers = frame(HEADERS, END_HEADERS, s, &block(&[(b"digest", b"1")]));
            vec![frame(HEADERS, END_HEADERS, s, &block(&[STATUS])), frame(DATA, 0, s, b"ab"), trailers]
        },
        Expected::Cut,
        RESETS,
    ),
    (
        "a second head in place of trailers",
        |s| {
            let head = frame(HEADERS, END_HEADERS, s, &block(&[STATUS]));
            vec![head.clone(), head, frame(DATA, END_STREAM, s, b"ab")]
        },
        Expected::Cut,
        RESETS,
    ),
    (
        "DATA before the head",
        |s| [vec![frame(DATA, 0, s, b"ab")], with_body(s, &[STATUS], b"cd")].concat(),
        NO_RESPONSE,
        ENDS,
    ),
    (
        "DATA that ends the stream without a head",
        |s| vec![frame(DATA, END_STREAM, s, b"ab")],
        NO_RESPONSE,
        ENDS,
    ),
    (
        "a head behind the end",
        |s| [with_body(s, &[STATUS], b"ab"), last(s, &[STATUS])].concat(),
        Expected::Whole(200, "ab"),
        Connection::Resets(STREAM_CLOSED),
    ),
    (
        "DATA behind the end",
        |s| [with_body(s, &[STATUS], b"ab"), vec![frame(DATA, END_STREAM, s, b"cd")]].concat(),
        Expected::Whole(200, "ab"),
        Connection::Resets(STREAM_CLOSED),
    ),
    (
        "PUSH_PROMISE",
        |s| {
            let promised = [
                &2_u32.to_be_bytes()[..],
                &block(&[
                    (b":method", b"GET"),
                    (b":path", b"/"),
                    (b":scheme", b"https"),
                    (b":authority", b"localhost"),
                ]),
            ]
            .concat();
            [vec![frame(PUSH_PROMISE, END_HEADERS, s, &promised)], with_body(s, &[STATUS], b"ab")].concat()
        },
        NO_RESPONSE,
        ENDS,
    ),
    ("a head larger than limits.head", |s| large(s, 410), NO_RESPONSE, STAYS),
    ("a head of the stream 0", |_| last(0, &[STATUS]), NO_RESPONSE, ENDS),
    ("a head of a stream that was not opened", |s| last(s + 2, &[STATUS]), NO_RESPONSE, ENDS),
    (
        "CONTINUATION without a head",
        |s| vec![frame(CONTINUATION, END_HEADERS, s, &block(&[STATUS]))],
        NO_RESPONSE,
        ENDS,
    ),
    (
        "DATA within a head",
        |s| vec![frame(HEADERS, 0, s, &block(&[STATUS])), frame(DATA, END_STREAM, s, b"ab")],
        NO_RESPONSE,
        ENDS,
    ),
    (
        "a frame that is too large",
        |s| with_body(s, &[STATUS], &[b'a'; 16_385]),
        Expected::Cut,
        Connection::Ends(FRAME_SIZE_ERROR),
    ),
    (
        "padding longer than its frame",
        |s| {
            vec![frame(HEADERS, END_HEADERS, s, &block(&[STATUS])), frame(DATA, END_STREAM | 8, s, b"\x09ab")]
        },
        Expected::Cut,
        ENDS,
    ),
    ("a window that grows by 0", |s| vec![frame(WINDOW_UPDATE, 0, s, &[0; 4])], NO_RESPONSE, ENDS),
];

#[tokio::test]
async fn malformed_responses_end_as_they_are_known_to() {
    let aem = Aem::offering(&[b"h2"]).await;
    let proxy = aem.proxy(Setup::default().set("HTTP2", "true")).await;
    // Requests of one connection share one to AEM.
    let mut app = App::of(&proxy).await;
    let (mut kept, mut others) = (None, Vec::new());
    for (what, frames, outcome, connection) in CASES {
        let asked = app.request("GET", "/waiting").body(()).unwrap();
        let (waiting, _) = app.requests.send_request(asked, true).unwrap();
        let mut peer = match kept.take() {
            Some(peer) => peer,
            None => Peer::accept(&aem).await,
        };
        let mut other = peer.request().await;
        let asked = app.request("POST", "/a").body(()).unwrap();
        let (response, _) = app.requests.send_request(asked, true).unwrap();
        let stream = peer.request().await;
        peer.send(&frames(stream)).await;
        let got = (over_http2(response).await, peer.outcome().await);
        if let Connection::Ends(_) = got.1 {
            // The other request is sent once more, over another connection.
            peer = Peer::accept(&aem).await;
            other = peer.request().await;
        }
        peer.answer(other).await;
        assert_eq!(answer(waiting).await.unwrap().status(), 204, "{what}");
        kept = Some(peer);
        if got != (outcome.into(), *connection) {
            others.push(format!("{what}: {got:?}, not {outcome:?}, {connection:?}"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
    proxy.stop().await;
}

#[tokio::test]
async fn clients_over_http1_get_the_same_of_malformed_responses() {
    let aem = Aem::offering(&[b"h2"]).await;
    let proxy = aem.proxy(Setup::default()).await;
    let mut others = Vec::new();
    for (what, frames, outcome, _) in CASES {
        let mut app = proxy.connect().await;
        app.send("POST /a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await;
        let mut peer = Peer::accept(&aem).await;
        let stream = peer.request().await;
        peer.send(&frames(stream)).await;
        let got = over_http1(&mut app).await;
        if got != outcome.into() {
            others.push(format!("{what}: {got:?}, not {outcome:?}"));
        }
        peer.leave().await;
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
    proxy.stop().await;
}
