//! The origin: AEM over TLS, the same content over plain TCP for the blind relay, and IMS for our proxy.
//!
//! It shares its core with the load, so it does as little as it can: answers are made once, and a request that is the
//! same as the last one of its connection is not looked at again.

mod http2;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    failure::{Context, Result},
    http, token,
};

/// What the origin needs to know.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to write `ca.pem`
    #[arg(long)]
    directory: PathBuf,
    /// How long tokens live
    #[arg(long)]
    lifetime_ms: u64,
    /// Issue a new token for each exchange, not one for all
    #[arg(long)]
    renew: bool,
}

/// Where the origin is: the one line that it prints when it listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ports {
    /// HTTPS, for `localhost`; only requests with a token are answered.
    pub tls: u16,
    /// The same, but open to everyone.
    pub open: u16,
    /// As `tls`, but over HTTP/2; only small and large answers of known length.
    pub http2: u16,
    /// HTTP, open to everyone.
    pub plain: u16,
    /// IMS over HTTP.
    pub ims: u16,
    /// A token that is good as long as the origin runs.
    pub token: String,
}

/// What IMS tells at `/exchanges`.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Exchanges {
    /// How many tokens were issued to others.
    pub count: u64,
    /// From accepting the last exchange's connection to its answer being written, in microseconds.
    pub last_us: f64,
}

/// Serves until standard input ends, which is when whoever started it is gone.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let identity = identity(&arguments.directory)?;
    let mut identity_http2 = identity.clone();
    identity_http2.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(identity));
    let acceptor_http2 = TlsAcceptor::from(Arc::new(identity_http2));
    let (http2, http2_6) = localhost().await?;
    let (tls, tls6) = localhost().await?;
    let (open, open6) = localhost().await?;
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen")?;
    let ims = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen")?;

    let origin = Arc::new(Origin::new(Duration::from_millis(arguments.lifetime_ms), arguments.renew));
    let ports = Ports {
        tls: port(&tls)?,
        open: port(&open)?,
        http2: port(&http2)?,
        plain: port(&plain)?,
        ims: port(&ims)?,
        token: origin.first.clone(),
    };
    let over_tls = |is_guarded| Face::Tls { acceptor: acceptor.clone(), is_guarded };
    let faces = [
        (Some(tls), over_tls(true)),
        (tls6, over_tls(true)),
        (Some(open), over_tls(false)),
        (open6, over_tls(false)),
        (Some(http2), Face::Http2(acceptor_http2.clone())),
        (http2_6, Face::Http2(acceptor_http2)),
        (Some(plain), Face::Plain),
        (Some(ims), Face::Ims),
    ];
    for (listener, face) in faces {
        if let Some(listener) = listener {
            tokio::spawn(accept(listener, Arc::clone(&origin), face));
        }
    }

    println!("{}", serde_json::to_string(&ports).context("ports")?);
    let ended = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
    ended.await.context("standard input")?.context("standard input")?;
    Ok(())
}

/// A port at both addresses that `localhost` may have. A machine without IPv6 has but one.
async fn localhost() -> Result<(TcpListener, Option<TcpListener>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen")?;
    let listener6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port(&listener)?)).await.ok();
    Ok((listener, listener6))
}

fn port(listener: &TcpListener) -> Result<u16> {
    Ok(listener.local_addr().context("a port")?.port())
}

/// What a listener is to those who connect to it.
#[derive(Clone)]
enum Face {
    Tls { acceptor: TlsAcceptor, is_guarded: bool },
    Http2(TlsAcceptor),
    Plain,
    Ims,
}

/// A task for each connection. One that breaks ends, and nothing else does.
async fn accept(listener: TcpListener, origin: Arc<Origin>, face: Face) {
    while let Ok((stream, _)) = listener.accept().await {
        let (origin, face, accepted) = (Arc::clone(&origin), face.clone(), Instant::now());
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            match face {
                Face::Tls { acceptor, is_guarded } => {
                    origin.serve(acceptor.accept(stream).await?, is_guarded).await
                }
                Face::Http2(acceptor) => origin.serve_http2(acceptor.accept(stream).await?).await,
                Face::Plain => origin.serve(stream, false).await,
                Face::Ims => origin.serve_ims(stream, accepted).await,
            }
        });
    }
}

/// What is served, and to whom.
struct Origin {
    /// Whole responses by path.
    answers: HashMap<&'static str, Arc<[u8]>>,
    answers_http2: http2::Answers,
    unauthorized: Arc<[u8]>,
    not_found: Arc<[u8]>,
    lifetime: Duration,
    renew: bool,
    /// The token that is always good.
    first: String,
    /// Every token that was issued, as the value of `Authorization`.
    good: Mutex<Vec<String>>,
    exchanges: Mutex<Exchanges>,
    issued: AtomicU64,
}

/// What to do about a request.
#[derive(Clone)]
enum Plan {
    Answer(Arc<[u8]>),
    Download(u64),
    Upload(u64),
}

impl Origin {
    fn new(lifetime: Duration, renew: bool) -> Self {
        let first = token::issue(0, lifetime);
        let answers = HashMap::from([
            (SMALL, whole(&small())),
            (LARGE, whole(&large())),
            (SMALL_CHUNKED, in_chunks(&small())),
            (LARGE_CHUNKED, in_chunks(&large())),
        ]);
        Self {
            answers_http2: http2::answers(&answers),
            answers,
            unauthorized: problem("401 Unauthorized"),
            not_found: problem("404 Not Found"),
            lifetime,
            renew,
            good: Mutex::new(vec![format!("Bearer {first}")]),
            first,
            exchanges: Mutex::default(),
            issued: AtomicU64::new(0),
        }
    }

    /// One connection of AEM's.
    async fn serve<S>(&self, mut stream: S, is_guarded: bool) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut buffer = vec![0; HEAD_BYTES];
        let mut filled = 0;
        // The last head and what was done about it.
        let mut last: (Vec<u8>, Plan) = (Vec::new(), Plan::Answer(Arc::clone(&self.not_found)));
        loop {
            let length = loop {
                if !last.0.is_empty() && buffer[..filled].starts_with(&last.0) {
                    break last.0.len();
                }
                if let Some(length) = http::head_length(&buffer[..filled]) {
                    let head = &buffer[..length];
                    last = (head.to_vec(), self.plan(head, is_guarded));
                    break length;
                }
                let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) else {
                    return Err(io::ErrorKind::InvalidData.into());
                };
                match stream.read(room).await? {
                    0 => return Ok(()),
                    read => filled += read,
                }
            };
            let mut more = filled - length;
            match &last.1 {
                Plan::Answer(answer) => stream.write_all(answer).await?,
                Plan::Download(bytes) => download(&mut stream, *bytes).await?,
                Plan::Upload(bytes) => {
                    upload(&mut stream, *bytes, more).await?;
                    more = 0;
                }
            }
            stream.flush().await?;
            buffer.copy_within(filled - more..filled, 0);
            filled = more;
        }
    }

    fn plan(&self, head: &[u8], is_guarded: bool) -> Plan {
        if is_guarded && !self.is_authorized(head) {
            return Plan::Answer(Arc::clone(&self.unauthorized));
        }
        let Some((_, path)) = http::target(head) else { return Plan::Answer(Arc::clone(&self.not_found)) };
        if let Some(bytes) = path.strip_prefix(DOWNLOAD).and_then(|bytes| bytes.parse().ok()) {
            return Plan::Download(bytes);
        }
        if path == UPLOAD {
            return http::content_length(head)
                .map_or_else(|| Plan::Answer(problem("411 Length Required")), Plan::Upload);
        }
        Plan::Answer(Arc::clone(self.answers.get(path).unwrap_or(&self.not_found)))
    }

    fn is_authorized(&self, head: &[u8]) -> bool {
        self.is_good(http::field(head, "authorization").unwrap_or_default())
    }

    fn is_good(&self, given: &[u8]) -> bool {
        let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        good.iter().any(|good| good.as_bytes() == given)
    }

    /// One connection of IMS's: exchanges of a JWT for a token, and questions about them.
    async fn serve_ims(&self, mut stream: TcpStream, accepted: Instant) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let begun = if buffer.is_empty() { accepted } else { Instant::now() };
            buffer.clear();
            let length = loop {
                if let Some(length) = http::head_length(&buffer) {
                    break length;
                }
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            };
            let head = buffer[..length].to_vec();
            let whole = length as u64 + http::content_length(&head).unwrap_or(0);
            while (buffer.len() as u64) < whole {
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            match http::target(&head) {
                Some(("POST", EXCHANGE)) => {
                    stream.write_all(&response("200 OK", &[], &self.exchange())).await?;
                    let mut exchanges = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
                    exchanges.count += 1;
                    exchanges.last_us = begun.elapsed().as_secs_f64() * 1e6;
                }
                Some(("GET", EXCHANGES)) => {
                    let exchanges = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let body = json!(exchanges).to_string();
                    stream.write_all(&response("200 OK", &[], body.as_bytes())).await?;
                }
                _ => stream.write_all(&self.not_found).await?,
            }
        }
    }

    fn exchange(&self) -> Vec<u8> {
        let token = if self.renew {
            let token = token::issue(self.issued.fetch_add(1, Relaxed) + 1, self.lifetime);
            let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
            good.push(format!("Bearer {token}"));
            token
        } else {
            self.first.clone()
        };
        let lifetime_ms = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        let answer = json!({ "token_type": "bearer", "access_token": token, "expires_in": lifetime_ms });
        answer.to_string().into_bytes()
    }
}

/// A body of `bytes` bytes, with a length.
async fn download(stream: &mut (impl AsyncWrite + Unpin), mut bytes: u64) -> io::Result<()> {
    let length = format!("content-length: {bytes}\r\n");
    stream.write_all(&head("200 OK", &["content-type: application/octet-stream\r\n", &length])).await?;
    let pattern: Vec<u8> = (0..STREAM_BYTES).map(|at| (at % 251) as u8).collect();
    while bytes > 0 {
        let part = usize::try_from(bytes).unwrap_or(STREAM_BYTES).min(STREAM_BYTES);
        stream.write_all(&pattern[..part]).await?;
        bytes -= part as u64;
    }
    Ok(())
}

/// Reads a body of `bytes` bytes, of which `come` have come, and says how many it got.
async fn upload(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    bytes: u64,
    come: usize,
) -> io::Result<()> {
    let mut buffer = vec![0; STREAM_BYTES];
    let mut read = come as u64;
    while read < bytes {
        match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read += more as u64,
        }
    }
    let body = json!({ "bytes": read }).to_string();
    stream.write_all(&response("200 OK", &[], body.as_bytes())).await
}

/// A response head with the fields of a typical answer of AEM's, and `more` of them: whole lines.
fn head(status: &str, more: &[&str]) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {status}\r\n\
         date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         cache-control: no-store\r\n\
         etag: \"5e0f1c2a-3039-63f1e2d4c5b6a\"\r\n\
         vary: Accept-Encoding\r\n\
         x-content-type-options: nosniff\r\n\
         strict-transport-security: max-age=31557600\r\n"
    );
    head.extend(more.iter().copied());
    head.push_str("\r\n");
    head.into_bytes()
}

fn response(status: &str, more: &[&str], body: &[u8]) -> Vec<u8> {
    let length = format!("content-length: {}\r\n", body.len());
    let fields: Vec<&str> =
        ["content-type: application/json\r\n", &length].iter().chain(more).copied().collect();
    [head(status, &fields), body.to_vec()].concat()
}

fn whole(body: &[u8]) -> Arc<[u8]> {
    response("200 OK", &[], body).into()
}

/// In chunks of at most 16 KiB, as a servlet container sends what has no length.
fn in_chunks(body: &[u8]) -> Arc<[u8]> {
    let fields = ["content-type: application/json\r\n", "transfer-encoding: chunked\r\n"];
    let mut answer = head("200 OK", &fields);
    for chunk in body.chunks(CHUNK_BYTES) {
        answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        answer.extend_from_slice(chunk);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    answer.into()
}

fn problem(status: &str) -> Arc<[u8]> {
    response(status, &[], status.as_bytes()).into()
}

fn small() -> Vec<u8> {
    json_of(SMALL_BYTES)
}

fn large() -> Vec<u8> {
    json_of(LARGE_BYTES)
}

/// A JSON document of exactly `length` bytes, as AEM's Assets API lists a folder.
fn json_of(length: usize) -> Vec<u8> {
    const FIRST: &[u8] = br#"{"class":["assets/folder"],"entities":[{"rel":["child"],"links":[]}"#;
    const ENTITY: &[u8] = br#",{"class":["assets/asset"],"properties":{"name":"image.png","size":123456}}"#;
    const LAST: &[u8] = b"]}";
    let mut document = FIRST.to_vec();
    while document.len() + ENTITY.len() + LAST.len() <= length {
        document.extend_from_slice(ENTITY);
    }
    document.resize(length - LAST.len(), b' ');
    document.extend_from_slice(LAST);
    document
}

/// A certificate for `localhost`; the authority that vouches for it goes to `ca.pem` in `directory`.
///
/// TLS 1.3 with one cipher suite: peers would choose different ones otherwise, by their own taste, and the cost of a
/// byte with it.
fn identity(directory: &Path) -> Result<ServerConfig> {
    let ca_key = KeyPair::generate().context("a key")?;
    let mut ca = CertificateParams::default();
    // Not the leaf's: OpenSSL takes a certificate that has its issuer's name for one signed by itself.
    ca.distinguished_name.push(DnType::CommonName, "Bench CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_file = directory.join(CA_FILE);
    std::fs::write(&ca_file, ca.self_signed(&ca_key).context("a certificate")?.pem())
        .context(ca_file.display())?;
    let key = KeyPair::generate().context("a key")?;
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).context("a certificate")?;
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).context("a certificate")?;

    let suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let provider = CryptoProvider { cipher_suites: suites, ..ring::default_provider() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .context("a certificate")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificate to trust, in the directory that was given.
pub const CA_FILE: &str = "ca.pem";

/// A JSON document of 1 KiB.
pub const SMALL: &str = "/api/assets/small.json";
/// The same in chunks.
pub const SMALL_CHUNKED: &str = "/api/assets/small-chunked.json";
/// A JSON document of 100 KiB.
pub const LARGE: &str = "/api/assets/large.json";
/// The same in chunks.
pub const LARGE_CHUNKED: &str = "/api/assets/large-chunked.json";
/// Followed by a number of bytes: a body of so many.
pub const DOWNLOAD: &str = "/download/";
/// Takes a body and says how long it was.
pub const UPLOAD: &str = "/upload";
/// IMS's JWT exchange.
const EXCHANGE: &str = "/ims/exchange/jwt";
/// IMS tells of its exchanges.
pub const EXCHANGES: &str = "/exchanges";

/// What small answers carry.
pub const SMALL_BYTES: usize = 1024;
/// What large answers carry.
pub const LARGE_BYTES: usize = 100 * 1024;

const CHUNK_BYTES: usize = 16 * 1024;
const STREAM_BYTES: usize = 64 * 1024;
/// No head here is longer.
const HEAD_BYTES: usize = 16 * 1024;
