//! The origin and the proxies as processes that run.

use std::{fs, net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin},
    time::{Instant, sleep},
};

use crate::{
    failure::{Context, Failure, Result},
    http, origin,
    peers::{self, Programs, Setup},
    process::{self, Memory},
};

/// A running origin.
pub struct Origin {
    /// Where it listens.
    pub ports: origin::Ports,
    /// The certificate to trust.
    pub ca_file: PathBuf,
    /// Its process.
    pub pid: u32,
    child: Child,
    /// It ends when this does.
    _stdin: ChildStdin,
}

impl Origin {
    /// Starts one whose tokens live for `lifetime`, each exchange with a new one if `renew`.
    pub async fn start(programs: &Programs, lifetime: Duration, renew: bool) -> Result<Self> {
        let this = std::env::current_exe().context("this program")?;
        let mut command = process::pinned(&programs.cores.rest, this);
        command.arg("origin").arg("--directory").arg(&programs.directory);
        command.arg("--lifetime-ms").arg(lifetime.as_millis().to_string());
        if renew {
            command.arg("--renew");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("origin")?;
        let stdin = child.stdin.take().context("origin")?;
        let mut lines = BufReader::new(child.stdout.take().context("origin")?).lines();
        let line = lines.next_line().await.context("origin")?.context("origin")?;
        let ports = serde_json::from_str(&line).context("origin")?;
        let pid = child.id().context("origin")?;
        let ca_file = programs.directory.join(origin::CA_FILE);
        Ok(Self { ports, ca_file, pid, child, _stdin: stdin })
    }

    /// What IMS tells of its exchanges.
    pub async fn exchanges(&self) -> Result<origin::Exchanges> {
        let ims = SocketAddr::from(([127, 0, 0, 1], self.ports.ims));
        let (_, body) = ask(ims, origin::EXCHANGES).await.context("IMS")?;
        serde_json::from_slice(&body).context("IMS")
    }

    /// Ends it.
    pub async fn stop(mut self) {
        process::end(&mut self.child).await;
    }
}

/// A running proxy, which has answered once.
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// All its processes.
    pub pids: Vec<u32>,
    /// From before it was started to the end of the first answer of 200 through it.
    pub first_answer: Duration,
    /// Its memory a moment after that.
    pub idle: Memory,
    child: Child,
}

impl Running {
    /// Starts a proxy in front of `origin`, and waits until it answers.
    ///
    /// # Errors
    /// When its program is missing, it ends by itself, or does not answer with 200 in time. Its log is then in the words.
    pub async fn start(setup: &Setup, programs: &Programs, origin: &Origin) -> Result<Self> {
        let name = setup.proxy.name();
        let directory = programs.directory.join(name);
        fs::create_dir_all(&directory).context(directory.display())?;
        let log = directory.join("log.txt");
        let addr = peers::free_address()?;
        let mut command = setup.command(programs, origin, &directory, addr)?;
        command.current_dir(&directory).stdout(process::into_file(&directory.join("stdout.txt"))?);
        command.stderr(process::into_file(&log)?);

        let mut child = command.spawn().context(name)?;
        sleep(HOLD).await;
        let begun = Instant::now();
        drop(child.stdin.take());
        let tell = |what: &str| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            Failure(format!("{name} {what}: {}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")))
        };
        loop {
            let answer = ask(addr, origin::SMALL).await;
            if let Ok((200, _)) = answer {
                break;
            }
            if child.try_wait().context(name)?.is_some() {
                return Err(tell("has ended"));
            }
            if begun.elapsed() > setup.patience {
                process::end(&mut child).await;
                let answer =
                    answer.map(|(status, body)| (status, String::from_utf8_lossy(&body).into_owned()));
                return Err(tell(&format!("does not answer with 200 but with {answer:?}")));
            }
            // Not tokio's, which counts in whole milliseconds.
            std::thread::sleep(ASK_EVERY);
        }
        let first_answer = begun.elapsed();
        sleep(SETTLE).await;
        let pids = process::family(child.id().context(name)?);
        let idle = Memory::of(&pids)?;
        Ok(Self { addr, pids, first_answer, idle, child })
    }

    /// Its memory now.
    pub fn memory(&self) -> Result<Memory> {
        Memory::of(&self.pids)
    }

    /// Ends it.
    pub async fn stop(mut self) {
        process::end(&mut self.child).await;
    }
}

/// One request on a connection of its own: status and body.
pub async fn ask(addr: SocketAddr, path: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let asking = async {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        loop {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let Some(head) = http::head_length(&bytes) else { continue };
            let length = http::content_length(&bytes[..head]).unwrap_or(0);
            if (bytes.len() - head) as u64 >= length {
                return Ok((http::status(&bytes), bytes.split_off(head)));
            }
        }
    };
    tokio::time::timeout(ASK_PATIENCE, asking).await?
}

/// How often a proxy that starts is asked: about the error of the time that it takes to start. Asking more often would
/// keep it from its work.
const ASK_EVERY: Duration = Duration::from_micros(500);

/// How long the shell before a proxy has to start.
const HOLD: Duration = Duration::from_millis(20);

const ASK_PATIENCE: Duration = Duration::from_secs(5);

/// How long a proxy is left alone before its idle memory is read.
const SETTLE: Duration = Duration::from_millis(200);

/// How much of a log is told.
const LOG_LINES: usize = 5;
