//! Clients over HTTP/1.1 and HTTP/2, which know every byte that they send and are to get.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use fastrand::Rng;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    aem::{ANSWER_LENGTH, BODY_MAX, ID, LENGTH, SUM},
    bodies::{self, Parts},
    harness::sha256,
    record::{Cause, Record},
};

/// Clients that ask until they are stopped.
pub struct Clients {
    paused: watch::Sender<bool>,
    stopped: watch::Sender<bool>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

/// What one client needs.
struct Client {
    addr: SocketAddr,
    chance: Rng,
    record: Arc<Record>,
    ids: Arc<AtomicU64>,
    paused: watch::Receiver<bool>,
    stopped: watch::Receiver<bool>,
}

/// A connection to the proxy.
enum Sender {
    Http1(http1::SendRequest<Parts>),
    Http2(http2::SendRequest<Parts>),
}

/// Why there is no answer that is whole.
enum NoAnswer {
    /// The proxy did not take the connection: never right.
    Connect(String),
    /// The connection or the stream ended.
    Broken(String),
    /// It took too long.
    Late,
}

impl Clients {
    /// Starts them.
    pub fn start(addr: SocketAddr, mut chance: Rng, record: Arc<Record>) -> Self {
        let (paused, stopped) = (watch::Sender::new(false), watch::Sender::new(false));
        let ids = Arc::new(AtomicU64::new(1));
        let mut tasks = JoinSet::new();
        for index in 0..HTTP1 + HTTP2 {
            let client = Client {
                addr,
                chance: chance.fork(),
                record: Arc::clone(&record),
                ids: Arc::clone(&ids),
                paused: paused.subscribe(),
                stopped: stopped.subscribe(),
            };
            tasks.spawn(client.run(index >= HTTP1));
        }
        Self { paused, stopped, tasks: tokio::sync::Mutex::new(tasks) }
    }

    /// Lets them wait, or go on.
    pub fn pause(&self, pauses: bool) {
        self.paused.send_replace(pauses);
    }

    /// Lets each finish its request.
    pub async fn stop(&self) {
        self.stopped.send_replace(true);
        self.paused.send_replace(false);
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

impl Client {
    async fn run(mut self, over_http2: bool) {
        let mut sender = None;
        while !*self.stopped.borrow() {
            // The sender of both lives longer than this.
            let _ = self.paused.wait_for(|paused| !paused).await;
            self.ask(&mut sender, over_http2).await;
            let pause = Duration::from_millis(self.chance.u64(5..40));
            sleep(pause).await;
        }
    }

    async fn ask(&mut self, sender: &mut Option<Sender>, over_http2: bool) {
        let id = self.ids.fetch_add(1, Relaxed);
        let chance = &mut self.chance;
        let (method, sent) = match chance.u8(0..10) {
            0..5 => (Method::GET, 0),
            5..8 => (Method::POST, length(chance, 4096)),
            8 => (Method::POST, length(chance, BODY_MAX)),
            _ => (Method::PUT, length(chance, BODY_MAX)),
        };
        let answer = length(chance, 256 << 10);
        let body = bodies::bytes(!id, sent);
        let mut request = Request::builder().method(&method);
        request = request.uri(format!("http://{}/content/soak/{id}.bin", self.addr));
        request = request.header(ID, id).header(LENGTH, sent).header(ANSWER_LENGTH, answer);
        request = request.header(SUM, sha256(&body));
        if !over_http2 {
            request = request.header("host", self.addr.to_string());
        }
        let parts = if method != Method::GET && chance.bool() {
            Parts::chunked(body, 1 + chance.usize(..64 << 10))
        } else {
            Parts::whole(body)
        };
        let Ok(request) = request.body(parts) else { return };

        let begun = Instant::now();
        let done = timeout(PATIENCE, exchange(self.addr, sender, over_http2, request)).await;
        let outcome = match done {
            Ok(outcome) => outcome,
            Err(_) => Err(NoAnswer::Late),
        };
        if !matches!(outcome, Ok((200, ..))) {
            *sender = None;
        }
        let words = |what: &str| {
            let protocol = if over_http2 { "HTTP/2" } else { "HTTP/1.1" };
            format!(
                "{method} {id} over {protocol}, {sent} bytes: {what} after {} ms",
                begun.elapsed().as_millis()
            )
        };
        let record = &self.record;
        match outcome {
            Ok((200, _, body)) => {
                let right = bodies::bytes(id, answer) == body;
                let cause = if right { Cause::Answered } else { Cause::Unknown };
                record.outcome_of(cause, || words(&format!("{} wrong bytes, {answer} expected", body.len())));
                if right && method == Method::POST && !record.has_effect(id) {
                    record.failure(&words("answered without an effect"));
                }
            }
            Ok((503, head, _)) if is_about_the_token(&head) => {
                record.outcome_of(record.why_no_token(begun), || words("503 for want of a token"));
            }
            Ok((status @ (502 | 504), head, _)) => {
                let why = proxy_status(&head);
                record.outcome_of(record.why_no_answer(begun), || words(&format!("{status}: {why}")));
            }
            Ok((status, head, body)) => {
                let why = format!("{status}: {} {}", proxy_status(&head), String::from_utf8_lossy(&body));
                record.outcome_of(Cause::Unknown, || words(&why));
            }
            Err(NoAnswer::Connect(error)) => record.outcome_of(Cause::Unknown, || words(&error)),
            Err(NoAnswer::Broken(error)) => {
                record.outcome_of(record.why_no_answer(begun), || words(&error));
            }
            Err(NoAnswer::Late) => record.outcome_of(record.why_no_answer(begun), || words("no answer")),
        }
    }
}

/// One request and its whole answer.
async fn exchange(
    addr: SocketAddr,
    sender: &mut Option<Sender>,
    over_http2: bool,
    request: Request<Parts>,
) -> Result<(u16, HeaderMap, bytes::Bytes), NoAnswer> {
    let broken = |error: hyper::Error| NoAnswer::Broken(format!("{error:?}"));
    let mut request = request;
    let response: Response<Incoming> = loop {
        let usable = match sender {
            Some(Sender::Http1(http1)) => http1.ready().await.is_ok(),
            Some(Sender::Http2(http2)) => http2.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            *sender = Some(connect(addr, over_http2).await?);
        }
        let sent = match sender {
            Some(Sender::Http1(http1)) => http1.try_send_request(request).await,
            Some(Sender::Http2(http2)) => http2.try_send_request(request).await,
            None => return Err(NoAnswer::Connect("no connection".to_owned())),
        };
        match sent {
            Ok(response) => break response,
            // Nothing of it has left: the proxy had closed a connection between two requests.
            Err(mut error) => match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(broken(error.into_error())),
            },
        }
        *sender = None;
    };
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(broken)?.to_bytes();
    Ok((head.status.as_u16(), head.headers, body))
}

async fn connect(addr: SocketAddr, over_http2: bool) -> Result<Sender, NoAnswer> {
    let refused = |error: &dyn std::fmt::Display| NoAnswer::Connect(format!("connecting: {error}"));
    let stream = TcpStream::connect(addr).await.map_err(|error| refused(&error))?;
    stream.set_nodelay(true).map_err(|error| refused(&error))?;
    if over_http2 {
        let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| refused(&error))?;
        tokio::spawn(connection);
        Ok(Sender::Http2(sender))
    } else {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| refused(&error))?;
        tokio::spawn(connection);
        Ok(Sender::Http1(sender))
    }
}

fn proxy_status(head: &HeaderMap) -> String {
    head.get("proxy-status").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn is_about_the_token(head: &HeaderMap) -> bool {
    proxy_status(head).contains("token")
}

/// From 1 byte on, small ones more often.
fn length(chance: &mut Rng, max: usize) -> usize {
    let share = chance.f64();
    ((max as f64).powf(share) as usize).clamp(1, max)
}

const HTTP1: usize = 8;
const HTTP2: usize = 6;

/// Longer than an AEM that is killed stays away.
const PATIENCE: Duration = Duration::from_secs(30);
