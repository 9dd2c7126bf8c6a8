//! The load: a closed loop over connections that are kept alive, or one long transfer.
//!
//! It shares its core with the origin, so it does as little as it can: the request is the same bytes each time, and an
//! answer that is shaped like the last one of its connection is not read field by field.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    failure::{Context, Failure, Result},
    histogram::Histogram,
    http, origin,
    process::{Cpu, Memory, Reading, machine_busy_seconds},
};

/// What to do, and whose CPU time and memory to watch meanwhile.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Where the proxy listens
    #[arg(long)]
    pub to: SocketAddr,
    /// What to ask for
    #[arg(long, default_value = origin::SMALL)]
    pub path: String,
    /// The bytes that each answer's body has to have
    #[arg(long, default_value_t = origin::SMALL_BYTES as u64)]
    pub body_bytes: u64,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Before the measured time
    #[arg(long, default_value_t = 0.0)]
    pub warm_up_seconds: f64,
    /// The measured time
    #[arg(long, default_value_t = 0.0)]
    pub seconds: f64,
    /// In place of a time: so many requests on each connection
    #[arg(long)]
    pub requests: Option<u64>,
    /// In place of all that: one upload of so many bytes
    #[arg(long)]
    pub upload_bytes: Option<u64>,
    /// Connections that ask once and are then left alone, beside the others
    #[arg(long, default_value_t = 0)]
    pub idle: usize,
    /// A process of the proxy
    #[arg(long)]
    pub watch: Vec<u32>,
    /// The origin's process
    #[arg(long)]
    pub origin: u32,
}

impl Arguments {
    /// A load on a proxy at `to` with the processes `watch`: small answers on one connection.
    pub fn at(to: SocketAddr, watch: &[u32], origin: u32) -> Self {
        Self {
            to,
            path: origin::SMALL.to_owned(),
            body_bytes: origin::SMALL_BYTES as u64,
            connections: 1,
            warm_up_seconds: 0.0,
            seconds: 0.0,
            requests: None,
            upload_bytes: None,
            idle: 0,
            watch: watch.to_vec(),
            origin,
        }
    }

    /// As they are given on the command line.
    pub fn to_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut add = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        add("to", self.to.to_string());
        add("path", self.path.clone());
        add("body-bytes", self.body_bytes.to_string());
        add("connections", self.connections.to_string());
        add("warm-up-seconds", self.warm_up_seconds.to_string());
        add("seconds", self.seconds.to_string());
        self.requests.iter().for_each(|requests| add("requests", requests.to_string()));
        self.upload_bytes.iter().for_each(|bytes| add("upload-bytes", bytes.to_string()));
        add("idle", self.idle.to_string());
        self.watch.iter().for_each(|pid| add("watch", pid.to_string()));
        add("origin", self.origin.to_string());
        words
    }
}

/// What was measured: the one line that the load prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// How long the measured time was.
    pub seconds: f64,
    /// Requests that were answered within it, rightly or not.
    pub requests: u64,
    /// Answers that are not 200, or not as long as they should be; before and after the measured time, too.
    pub wrong: u64,
    /// Connections that broke.
    pub broken: u64,
    /// What broke first.
    pub first_error: Option<String>,
    /// Latencies in microseconds.
    pub p50_us: f64,
    /// 90 %
    pub p90_us: f64,
    /// 99 %
    pub p99_us: f64,
    /// 99.9 %
    pub p999_us: f64,
    /// The longest.
    pub longest_us: f64,
    /// CPU time of the watched processes.
    pub proxy: Cpu,
    /// CPU time of the origin.
    pub origin: Cpu,
    /// CPU time of the load itself.
    pub load: Cpu,
    /// CPU time of everyone else on the machine, in seconds.
    pub others_seconds: f64,
    /// Memory of the watched processes, at the end of the measured time.
    pub memory: Memory,
}

/// Measures, and prints the report.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let report = match arguments {
        Arguments { upload_bytes: Some(bytes), .. } => upload(arguments, *bytes).await?,
        Arguments { requests: Some(_), .. } => count(arguments).await?,
        _ => timed(arguments).await?,
    };
    println!("{}", serde_json::to_string(&report).context("report")?);
    Ok(())
}

/// A closed loop for a while.
async fn timed(arguments: &Arguments) -> Result<Report> {
    let idle = connect_idle(arguments).await?;
    let (tally, mut tasks) = start(arguments).await?;
    sleep(Duration::from_secs_f64(arguments.warm_up_seconds)).await;
    let before = Watched::read(arguments)?;
    tally.measures.store(true, Relaxed);
    sleep(Duration::from_secs_f64(arguments.seconds)).await;
    tally.measures.store(false, Relaxed);
    let report = before.report(arguments, &tally)?;
    tally.stops.store(true, Relaxed);
    let stopping = async { while tasks.join_next().await.is_some() {} };
    if timeout(ANSWER_PATIENCE, stopping).await.is_err() {
        return Err(Failure("some requests were never answered".to_owned()));
    }
    drop(idle);
    // What went wrong after the measured time counts, too.
    Ok(Report { wrong: tally.wrong.load(Relaxed), broken: tally.broken.load(Relaxed), ..report })
}

/// A number of requests, however long they take.
async fn count(arguments: &Arguments) -> Result<Report> {
    let before = Watched::read(arguments)?;
    let (tally, mut tasks) = start(arguments).await?;
    tally.measures.store(true, Relaxed);
    while tasks.join_next().await.is_some() {}
    before.report(arguments, &tally)
}

/// One upload. Its answer says how many bytes came.
async fn upload(arguments: &Arguments, bytes: u64) -> Result<Report> {
    let tally = Tally::new(arguments);
    tally.measures.store(true, Relaxed);
    let mut connection = Connection::open(arguments.to).await.context(arguments.to)?;
    let before = Watched::read(arguments)?;
    let begun = Instant::now();
    let request = request("POST", origin::UPLOAD, arguments.to, &format!("Content-Length: {bytes}\r\n"));
    // A proxy that refuses answers before all is sent, and closes: its answer says more than the broken connection.
    let sent = connection.send(&request, bytes).await;
    let answer = connection.answer().await;
    let answer = match (sent, answer) {
        (Ok(()), answer) => answer.context("upload")?,
        (Err(error), Ok(answer)) => return Err(Failure(format!("upload: {error} after {}", answer.status))),
        (Err(error), Err(_)) => return Err(error).context("upload"),
    };
    let body: serde_json::Value =
        serde_json::from_slice(&connection.buffer[answer.head..answer.end]).unwrap_or_default();
    if answer.status != 200 || body["bytes"] != bytes {
        tally.wrong.fetch_add(1, Relaxed);
    }
    tally.latencies.record(begun.elapsed());
    tally.requests.fetch_add(1, Relaxed);
    before.report(arguments, &tally)
}

/// Opens all connections, and starts a task on each.
async fn start(arguments: &Arguments) -> Result<(Arc<Tally>, JoinSet<()>)> {
    let tally = Arc::new(Tally::new(arguments));
    let mut tasks = JoinSet::new();
    for connection in connect(arguments, arguments.connections).await? {
        tasks.spawn(loop_over(connection, Arc::clone(&tally)));
    }
    Ok((tally, tasks))
}

async fn connect(arguments: &Arguments, count: usize) -> Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(Connection::open(arguments.to).await.context(arguments.to)?);
    }
    Ok(connections)
}

/// One after the other, so that they need but one connection to the origin.
async fn connect_idle(arguments: &Arguments) -> Result<Vec<TcpStream>> {
    let request = request("GET", &arguments.path, arguments.to, "");
    let mut streams = Vec::with_capacity(arguments.idle);
    for _ in 0..arguments.idle {
        let mut connection = Connection::open(arguments.to).await.context(arguments.to)?;
        connection.stream.write_all(&request).await.context(arguments.to)?;
        let answer = connection.answer().await.context(arguments.to)?;
        if answer.status != 200 {
            return Err(Failure(format!("{} in place of 200", answer.status)));
        }
        streams.push(connection.stream);
    }
    Ok(streams)
}

async fn loop_over(mut connection: Connection, tally: Arc<Tally>) {
    if let Err(error) = connection.ask_on(&tally).await {
        tally.broken.fetch_add(1, Relaxed);
        tally.first_error.get_or_init(|| error.to_string());
    }
}

/// What the connections count together. They share one thread: nothing needs a locked instruction.
struct Tally {
    request: Vec<u8>,
    body_bytes: u64,
    /// Requests on each connection; none: until told to stop.
    limit: Option<u64>,
    measures: AtomicBool,
    stops: AtomicBool,
    requests: AtomicU64,
    wrong: AtomicU64,
    broken: AtomicU64,
    first_error: std::sync::OnceLock<String>,
    latencies: Histogram,
}

impl Tally {
    fn new(arguments: &Arguments) -> Self {
        Self {
            request: request("GET", &arguments.path, arguments.to, ""),
            body_bytes: arguments.body_bytes,
            limit: arguments.requests,
            measures: AtomicBool::new(false),
            stops: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            first_error: std::sync::OnceLock::new(),
            latencies: Histogram::new(),
        }
    }

    fn add(&self, latency: Duration, is_right: bool) {
        if !is_right {
            self.wrong.fetch_add(1, Relaxed);
        }
        if self.measures.load(Relaxed) {
            self.requests.store(self.requests.load(Relaxed) + 1, Relaxed);
            self.latencies.record(latency);
        }
    }
}

/// The request of a small client.
fn request(method: &str, path: &str, to: SocketAddr, more: &str) -> Vec<u8> {
    let text = format!(
        "{method} {path} HTTP/1.1\r\n\
         Host: {to}\r\n\
         User-Agent: assets-sync/2.4.1\r\n\
         Accept: application/json\r\n\
         Accept-Encoding: gzip, deflate\r\n\
         {more}\r\n"
    );
    text.into_bytes()
}

/// A connection to the proxy.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What the last answer looked like.
    last: Option<Answer>,
}

/// An answer that lies in a connection's buffer, or whose body went through it.
#[derive(Debug, Clone, Copy)]
struct Answer {
    status: u16,
    /// The head's length.
    head: usize,
    /// Where the body ends in the buffer; 0 where it does not fit in, or came in chunks.
    end: usize,
    /// The body's length.
    body: u64,
}

impl Connection {
    async fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; CONNECTION_BYTES], last: None })
    }

    /// Sends a request's head, and a body of so many bytes.
    async fn send(&mut self, head: &[u8], mut bytes: u64) -> io::Result<()> {
        self.stream.write_all(head).await?;
        let part = vec![0x5a; STREAM_BYTES];
        while bytes > 0 {
            let length = usize::try_from(bytes).unwrap_or(STREAM_BYTES).min(STREAM_BYTES);
            self.stream.write_all(&part[..length]).await?;
            bytes -= length as u64;
        }
        Ok(())
    }

    async fn ask_on(&mut self, tally: &Tally) -> io::Result<()> {
        let mut left = tally.limit.unwrap_or(u64::MAX);
        let mut begun = Instant::now();
        while left > 0 && !tally.stops.load(Relaxed) {
            self.stream.write_all(&tally.request).await?;
            let answer = self.answer().await?;
            let ended = Instant::now();
            tally.add(ended - begun, answer.status == 200 && answer.body == tally.body_bytes);
            begun = ended;
            left -= 1;
        }
        Ok(())
    }

    /// Reads one answer. Nothing may come after it, as nothing else was asked for.
    async fn answer(&mut self) -> io::Result<Answer> {
        let mut filled = 0;
        let head = loop {
            match self.stream.read(&mut self.buffer[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
            if let Some(last) = self.last.filter(|last| last.is_repeated(&self.buffer[..filled])) {
                if filled == last.end {
                    return Ok(last);
                }
                continue;
            }
            if let Some(head) = http::head_length(&self.buffer[..filled]) {
                break head;
            }
        };
        let answer = self.body(head, filled).await?;
        self.last = (answer.status == 200 && answer.end > 0).then_some(answer);
        Ok(answer)
    }

    /// Reads the body of an answer with a head of `head` bytes, of which `filled` bytes are in the buffer.
    async fn body(&mut self, head: usize, filled: usize) -> io::Result<Answer> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let fields = &self.buffer[..head];
        let status = http::status(fields);
        if http::is_chunked(fields) {
            let mut chunks = http::Chunks::default();
            let mut is_whole = chunks.take(&self.buffer[head..filled]).map_err(|_| invalid())?;
            while !is_whole {
                let read = self.more(0).await?;
                is_whole = chunks.take(&self.buffer[..read]).map_err(|_| invalid())?;
            }
            return Ok(Answer { status, head, end: 0, body: chunks.length });
        }
        let length = http::content_length(fields).ok_or_else(invalid)?;
        let fitting = usize::try_from(length).ok().map(|length| head + length);
        let fitting = fitting.filter(|end| *end <= self.buffer.len());
        let mut read = (filled - head) as u64;
        while read < length {
            // Behind the head, where all of it fits there.
            let at = if fitting.is_some() { head + usize::try_from(read).unwrap_or(0) } else { 0 };
            read += self.more(at).await? as u64;
        }
        if read > length {
            return Err(invalid());
        }
        Ok(Answer { status, head, end: fitting.unwrap_or(0), body: length })
    }

    async fn more(&mut self, at: usize) -> io::Result<usize> {
        match self.stream.read(&mut self.buffer[at..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

impl Answer {
    /// Whether `bytes` are an answer of 200 with a head as long as this one's, and begin a body that is no longer.
    fn is_repeated(&self, bytes: &[u8]) -> bool {
        (self.head..=self.end).contains(&bytes.len())
            && bytes.starts_with(b"HTTP/1.1 200")
            && bytes[..self.head].ends_with(b"\r\n\r\n")
    }
}

/// Everyone's use of the machine at the beginning of the measured time.
struct Watched {
    at: Instant,
    proxy: Reading,
    origin: Reading,
    load: Reading,
    machine_seconds: f64,
}

impl Watched {
    fn read(arguments: &Arguments) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            proxy: Reading::of(&arguments.watch)?,
            origin: Reading::of(&[arguments.origin])?,
            load: Reading::of(&[std::process::id()])?,
            machine_seconds: machine_busy_seconds()?,
        })
    }

    /// What has been measured since.
    fn report(&self, arguments: &Arguments, tally: &Tally) -> Result<Report> {
        let now = Self::read(arguments)?;
        let (proxy, origin) = (now.proxy.since(&self.proxy), now.origin.since(&self.origin));
        let load = now.load.since(&self.load);
        let known = proxy.seconds + origin.seconds + load.seconds;
        let latencies = &tally.latencies;
        Ok(Report {
            seconds: (now.at - self.at).as_secs_f64(),
            requests: tally.requests.load(Relaxed),
            wrong: tally.wrong.load(Relaxed),
            broken: tally.broken.load(Relaxed),
            first_error: tally.first_error.get().cloned(),
            p50_us: latencies.quantile_us(0.5),
            p90_us: latencies.quantile_us(0.9),
            p99_us: latencies.quantile_us(0.99),
            p999_us: latencies.quantile_us(0.999),
            longest_us: latencies.longest_us(),
            proxy,
            origin,
            load,
            others_seconds: (now.machine_seconds - self.machine_seconds - known).max(0.0),
            memory: Memory::of(&arguments.watch)?,
        })
    }
}

/// How long an answer may take when the load ends.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Enough for a small answer at once, and to read large ones with few calls.
const CONNECTION_BYTES: usize = 64 * 1024;

const STREAM_BYTES: usize = 256 * 1024;
