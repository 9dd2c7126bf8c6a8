//! Streams that nobody has thought of: good ones, with something in them that does not belong there.

use std::time::Duration;

use tokio::time::Instant;

use super::{Cut, Strict};

/// As long as the gate has time for.
const TIME: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_mutation_of_a_stream_is_read_in_two_ways() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut strict = Strict::start().await;
    let end = Instant::now() + TIME;
    let (mut streams, mut refused) = (0, 0);
    while Instant::now() < end {
        let stream = mutated(&mut random);
        let cut = [Cut::Whole, Cut::Random, Cut::Bytes][random.usize(..3)];
        let answers = strict.check(&stream, cut).await;
        streams += 1;
        refused += usize::from(answers.last().is_some_and(|status| *status != 200));
    }
    let requests = strict.origin.assert_strict();
    println!("{streams} streams, {refused} of them refused, {requests} requests at AEM");
    assert!(refused > 0 && requests > 0);
    strict.proxy.stop().await;
}

fn mutated(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..random.usize(1..=3) {
        stream.extend(request(random));
    }
    for _ in 0..random.usize(..=2) {
        let at = random.usize(..=stream.len());
        let until = (at + random.usize(..=2)).min(stream.len());
        let part = ODD[random.usize(..ODD.len())];
        match random.u8(..4) {
            0 => drop(stream.splice(at..until, part.iter().copied())),
            1 => drop(stream.drain(at..until)),
            2 => drop(stream.splice(at..at, part.iter().copied())),
            _ => {
                let copied = stream[at..(at + random.usize(..=40)).min(stream.len())].to_vec();
                let to = random.usize(..=stream.len());
                stream.splice(to..to, copied);
            }
        }
    }
    stream
}

/// One of the list, mostly of those that are `good`: the last ones are refused, and not every stream is to end at once.
fn pick(random: &mut fastrand::Rng, from: &'static [&'static str], good: usize) -> &'static str {
    let among = if random.u8(..20) == 0 { from.len() } else { good };
    from[random.usize(..among)]
}

fn request(random: &mut fastrand::Rng) -> Vec<u8> {
    let (method, target, version) =
        (pick(random, METHODS, 8), pick(random, TARGETS, 7), pick(random, VERSIONS, 4));
    let mut head = format!("{method} {target} {version}\r\n");
    let framing = pick(random, FRAMING, 8);
    let mut fields = vec!["host: localhost", pick(random, FIELDS, 14), pick(random, FIELDS, 14), framing];
    let chunks = random.usize(..3);
    random.shuffle(&mut fields);
    for field in fields.into_iter().filter(|field| !field.is_empty()) {
        head.push_str(field);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut stream = head.into_bytes();
    if framing.starts_with("content-length: 5") {
        stream.extend(b"hello");
    } else if framing.contains("chunked") {
        for _ in 0..chunks {
            stream.extend(pick(random, CHUNKS, 7).as_bytes());
        }
        stream.extend(pick(random, LAST_CHUNKS, 6).as_bytes());
    }
    stream
}

const METHODS: &[&str] =
    &["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "M-SEARCH", "get", "CONNECT"];
const TARGETS: &[&str] = &["/", "/a?b", "/", "//", "http://localhost/a", "/%2e", "/\u{e9}", "*", "a", "/a#"];
const VERSIONS: &[&str] = &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2"];
const FIELDS: &[&str] = &[
    "",
    "",
    "x-a: b",
    "X-A:b",
    "x-empty:",
    "x-list: a, b",
    "content-type: a/b",
    "connection: keep-alive",
    "connection: x-a",
    "te: trailers",
    "upgrade: websocket",
    "x-forwarded-for: 1",
    "accept: */*",
    "expect: 100-continue",
    "connection: close",
    "content_length: 5",
    "host: evil.example",
    "expect: 200-ok",
];
const FRAMING: &[&str] = &[
    "",
    "",
    "content-length: 5",
    "content-length: 5",
    "Content-Length:5",
    "content-length: 0",
    "transfer-encoding: chunked",
    "Transfer-Encoding:Chunked",
    "transfer-encoding: gzip, chunked",
    "content-length: 5\r\ncontent-length: 5",
    "content-length: 5\r\ntransfer-encoding: chunked",
    "transfer-encoding: chunked\r\ncontent-length: 0",
];
const CHUNKS: &[&str] = &[
    "5\r\nhello\r\n",
    "1\r\na\r\n",
    "01\r\na\r\n",
    "A\r\n0123456789\r\n",
    "2;x=y\r\nab\r\n",
    "2\r\n\r\n\r\n",
    "16\r\nGET / HTTP/1.1\r\nhost: x\r\n",
    "3 \r\nabc\r\n",
];
const LAST_CHUNKS: &[&str] = &[
    "0\r\n\r\n",
    "0\r\n\r\n",
    "00\r\n\r\n",
    "0;x\r\n\r\n",
    "0\r\ndigest: 1\r\n\r\n",
    "0\r\nhost: a\r\n\r\n",
    "0\r\n",
];

/// What makes readers differ.
const ODD: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b":",
    b",",
    b";",
    b"0",
    b"5",
    b"f",
    b"-",
    b"+",
    b"_",
    b"x",
    b"\r\n ",
    b" :",
    b"\r\nx-b: c",
    b"\r\ncontent-length: 5",
    b"\r\ntransfer-encoding: chunked",
    b"0\r\n\r\n",
    b"chunked",
    b"identity, ",
    b"GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n",
];
