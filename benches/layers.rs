//! What each layer of the data path costs by itself: `cargo bench --bench layers`.
//!
//! The whole is measured by `cargo bench --bench compare`. This is for finding which part of it has become dearer.

use std::{hint::black_box, io::Write, sync::Arc};

use aem_auth_proxy::{
    metrics::Metrics,
    policy::{Path, Policy, Preset, judge},
    proxy::{
        Guard,
        layers::{Heads, Tls},
    },
    secret::Authorization,
    tls,
};
use criterion::{
    BatchSize, Criterion, Throughput, criterion_group, criterion_main,
    measurement::{Measurement, WallTime},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::time::Instant;

/// As a program sends it.
const SMALL: &[u8] = b"GET /api/assets.json HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: app/1.0\r\n\
    Accept: */*\r\nAccept-Encoding: gzip\r\n\r\n";

/// As a browser sends it.
const LARGE: &[u8] = b"GET /content/dam/wknd/en/adventures.1.json?limit=20&offset=0 HTTP/1.1\r\n\
    Host: localhost:8080\r\nConnection: keep-alive\r\nsec-ch-ua: \"Chromium\";v=\"142\"\r\n\
    sec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n\
    Referer: http://localhost:8080/content/dam.html\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\nCookie: affinity=\"0123456789abcdef\"; theme=dark; login-token=x\r\n\r\n";

/// As AEM's CDN sends it.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1024\r\n\
    Content-Type: application/json;charset=utf-8\r\nCache-Control: max-age=0\r\nETag: \"0123456789abcdef\"\r\n\
    X-Content-Type-Options: nosniff\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nX-Served-By: cache-fra1\r\n\
    X-Timer: S1,VS0,VE5\r\nStrict-Transport-Security: max-age=31557600\r\nVary: Accept-Encoding\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let guard = Guard::new(&[], &[]);
    let token = format!("Bearer {}", "x".repeat(1100));
    let mut heads = Heads::default();
    for (name, head) in [("small request head", SMALL), ("browser's request head", LARGE)] {
        assert!(heads.request(head, &guard, token.as_bytes()) > token.len());
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| heads.request(black_box(head), &guard, token.as_bytes()));
        });
    }
    assert!(heads.response(RESPONSE) > 0);
    criterion.bench_function("response head", |bencher| bencher.iter(|| heads.response(black_box(RESPONSE))));
}

/// As an app asks for it.
const TYPICAL_PATH: &str = "/content/dam/wknd/en/adventures/bali-surf-camp/adobestock_175749320.jpg";

/// Paths of 8 KiB that took longest to judge: a beginning, what is repeated, an end.
const DEAR_PATHS: [(&str, &str, &str, &str); 9] = [
    ("selectors", "/etc", ".1", ".json"),
    ("letters as selectors", "/etc", ".a", ".json"),
    ("queries", "/content", ".query.json", ".html"),
    ("quotes", "/a", "='", ";"),
    ("indexes", "/", "[1]", ""),
    ("climbs", "/a/../a/../a/../a/../a/../a/../a/../a/../", "a.b/", ""),
    ("short names, ambiguous", "/%00", "/a", ""),
    ("names of closed places, ambiguous", "/%00", "/etc/libs/apps/mnt/granite", ""),
    ("escapes in eight rounds, ambiguous", "/%EF%BC%85EF%BC%85EF%BC%85EF%BC%8525u0041", "%u0061%", ""),
];

/// Judges paths under `full`, without rules and with 20. The time of each row is that for one byte of the path.
fn judging(criterion: &mut Criterion) {
    let rules = (0..20).map(|number| format!("deny * /content/secret-{number}/*").parse().expect("a rule"));
    let ruled = Policy::new(Preset::Full, rules.collect());
    let policies = [("full", Policy::default()), ("full and 20 rules", ruled)];
    let long = |(name, begin, part, end): (&str, &str, &str, &str)| {
        let count = (8192 - begin.len() - end.len()) / part.len();
        (format!("8 KiB of {name}"), format!("{begin}{}{end}", part.repeat(count)))
    };
    let paths = [("typical".to_owned(), TYPICAL_PATH.to_owned())].into_iter().chain(DEAR_PATHS.map(long));
    let mut group = criterion.benchmark_group("judging, for each byte");
    group.sample_size(20);
    for (name, path) in paths {
        for (policy_name, policy) in &policies {
            group.bench_function(format!("{name}, {policy_name}"), |bencher| {
                bencher.iter_custom(|count| {
                    let begin = WallTime.start();
                    for _ in 0..count {
                        let path = Path::of(black_box(path.as_bytes()));
                        let _ = black_box(judge("GET", &path, |_| policy, || std::iter::once(policy)));
                    }
                    WallTime.end(begin).div_f64(path.len() as f64)
                });
            });
        }
    }
    group.finish();
}

fn chunks(criterion: &mut Criterion) {
    let mut body = Vec::new();
    for _ in 0..8 {
        body.extend_from_slice(b"2000\r\n");
        body.extend_from_slice(&[b'x'; 0x2000]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let mut heads = Heads::default();
    assert_eq!(heads.chunks(&body), body.len());
    let mut group = criterion.benchmark_group("chunks");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("64 KiB in chunks of 8 KiB", |bencher| {
        bencher.iter(|| heads.chunks(black_box(&body)));
    });
    group.finish();
}

/// Both ends of a TLS session that have shaken hands.
fn session() -> (Tls, ServerConnection) {
    tls::install();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("the certificate and its key");
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).expect("the certificate");
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = Tls::new(Arc::new(config), name).expect("a session");
    let mut server = ServerConnection::new(Arc::new(server)).expect("a session");
    let mut received = Vec::new();
    loop {
        let (sent, done) = client.shake_hands(&received).expect("a handshake");
        server.read_tls(&mut &*sent).expect("memory can be read");
        server.process_new_packets().expect("a handshake");
        if done {
            return (client, server);
        }
        received = records(&mut server);
    }
}

fn records(server: &mut ServerConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut records).expect("memory can be written");
    }
    records
}

fn tls_records(criterion: &mut Criterion) {
    let (mut client, mut server) = session();
    let tickets = records(&mut server);
    client.open(&tickets);
    let mut group = criterion.benchmark_group("TLS");
    for (name, bytes) in [("1.3 KiB", 1300), ("16 KiB", 16 * 1024)] {
        let plain = vec![b'x'; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("seal {name}"), |bencher| {
            bencher.iter(|| client.seal(black_box(&plain)));
        });
        // Records are sealed in the order in which they are opened.
        let mut seal = || {
            server.writer().write_all(&plain).expect("memory can be written");
            records(&mut server)
        };
        group.bench_function(format!("open {name}"), |bencher| {
            bencher.iter_batched(&mut seal, |records| client.open(&records), BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn bookkeeping(criterion: &mut Criterion) {
    let metrics = Metrics::new(aem_auth_proxy::memory::Memory::default())
        .expect("no name is there twice")
        .proxy("default");
    let now = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let now = now.block_on(async { Instant::now() });
    criterion.bench_function("metrics of a request", |bencher| {
        bencher.iter(|| {
            let mut in_flight = metrics.start(black_box("GET"), now);
            in_flight.answered(200);
            in_flight.ended(now);
        });
    });
    let authorization = Authorization::bearer(&"x".repeat(1100)).expect("a value");
    criterion
        .bench_function("taking the token", |bencher| bencher.iter(|| black_box(&authorization).header()));
}

criterion_group!(layers, heads, judging, chunks, tls_records, bookkeeping);
criterion_main!(layers);
