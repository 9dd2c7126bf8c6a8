//! The proxy's binary as a process.

use std::{
    fs,
    io::Read,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use aem_auth_proxy::config::keys;
use tokio::{net::TcpStream, time::Instant};

use super::{
    Conn,
    failure::{Context, Failure, Result},
    get,
};

/// Where the proxy's standard error goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// Into a file that is read afterwards.
    #[default]
    File,
    /// Into a pipe whose reader leaves once the proxy is ready.
    ReaderGone,
    /// Into a pipe that has a reader which never reads.
    Unread,
    /// To `/dev/full`, where each write fails.
    Full,
}

/// How to start the proxy.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// The program.
    pub binary: PathBuf,
    /// Where its files are.
    pub directory: PathBuf,
    /// Keys of the configuration and their values.
    pub keys: Vec<(String, String)>,
    /// A configuration file's text.
    pub file: Option<String>,
    /// The soft and the hard limit of open files.
    pub open_files: Option<(u64, u64)>,
    /// Where standard error goes.
    pub output: Output,
    /// The `cgroup.procs` of the groups in which it runs.
    pub cgroups: Vec<PathBuf>,
}

/// A running proxy. It is killed when it is dropped.
pub struct Proxy {
    /// Its process.
    pub pid: u32,
    /// Where it serves.
    pub addr: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
    log: PathBuf,
    child: Child,
}

impl Launch {
    /// Adds a key.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.keys.push((key.to_owned(), value.into()));
    }

    /// Whether the binary knows this key.
    pub fn knows(&self, key: &str, value: &str) -> bool {
        let mut command = Command::new(&self.binary);
        without_settings(&mut command);
        command.arg("config").env(keys::variable("upstream"), "http://127.0.0.1:9");
        command.env(keys::variable("auth"), "none").env(keys::variable(key), value);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Starts the proxy and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, or is not ready in time.
    pub async fn start(&self) -> Result<Proxy> {
        let [addr, admin] = free_addresses()?;
        let log = self.directory.join("log.txt");
        let mut script = String::new();
        if let Some((soft, hard)) = self.open_files {
            script.push_str(&format!("ulimit -Sn {soft}; ulimit -Hn {hard}; "));
        }
        for procs in &self.cgroups {
            script.push_str(&format!("echo $$ > '{}' || exit 99; ", procs.display()));
        }
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{script}exec \"$@\"")).arg("sh").arg(&self.binary).arg("run");
        without_settings(&mut command);
        command.envs(self.keys.iter().map(|(key, value)| (keys::variable(key), value)));
        command.env(keys::variable("listen"), addr.to_string());
        command.env(keys::variable("admin.listen"), admin.to_string());
        if let Some(text) = &self.file {
            let path = self.directory.join("config.toml");
            fs::write(&path, text).context(path.display())?;
            command.arg("--config").arg(path);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(match self.output {
            Output::File => fs::File::create(&log).context(log.display())?.into(),
            Output::Full => fs::OpenOptions::new().write(true).open("/dev/full").context("/dev/full")?.into(),
            Output::ReaderGone | Output::Unread => Stdio::piped(),
        });
        let child = command.spawn().context(self.binary.display())?;
        let mut proxy = Proxy { pid: child.id(), addr, admin, log, child };
        proxy.wait_until_ready().await?;
        if self.output == Output::ReaderGone {
            drop(proxy.child.stderr.take());
        }
        Ok(proxy)
    }
}

impl Proxy {
    async fn wait_until_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if let Ok(200) = self.ask("/ready").await {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().context("the proxy")? {
                return Err(Failure(format!("the proxy has ended: {status}\n{}", self.last_words())));
            }
            if begun.elapsed() > START_PATIENCE {
                return Err(Failure(format!("the proxy is not ready\n{}", self.last_words())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The status of one GET at the admin listener.
    pub async fn ask(&self, path: &str) -> std::io::Result<u16> {
        let mut conn: Conn = Box::new(TcpStream::connect(self.admin).await?);
        let got = tokio::time::timeout(super::PROBE_PATIENCE, get(&mut conn, self.admin, path)).await?;
        got.map(|(status, _)| status).map_err(|_| std::io::ErrorKind::UnexpectedEof.into())
    }

    /// A metric's value, summed over its labels.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(self.admin).await.ok()?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        tokio::time::timeout(super::PROBE_PATIENCE, stream.read_to_string(&mut text)).await.ok()?.ok()?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        values.reduce(|sum, value| sum + value)
    }

    /// How the process has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        // The process may be gone, which is seen elsewhere.
        let _ = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid.to_string())
            .stderr(Stdio::null())
            .status();
    }

    /// Asks it to stop, and waits for that.
    pub async fn stop(mut self) -> Stop {
        if let Some(status) = self.ended() {
            return Stop::Before(status);
        }
        self.signal("TERM");
        let begun = Instant::now();
        while begun.elapsed() < STOP_PATIENCE {
            if let Some(status) = self.ended() {
                return Stop::Asked(status, begun.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Stop::Never
    }

    /// How many lines the log has.
    pub fn log_lines(&self) -> usize {
        let Ok(mut file) = fs::File::open(&self.log) else { return 0 };
        let (mut lines, mut buffer) = (0, vec![0; 1 << 16]);
        while let Ok(read @ 1..) = file.read(&mut buffer) {
            lines += memchr::memchr_iter(b'\n', &buffer[..read]).count();
        }
        lines
    }

    /// The end of the log.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How the process ended.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// By itself.
    Before(ExitStatus),
    /// After SIGTERM, this much later.
    Asked(ExitStatus, Duration),
    /// It did not, and was killed.
    Never,
}

/// Removes the settings of an installation on this machine.
fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(keys::PREFIX) {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
}

/// Writes the credentials so that their owner alone can read them.
///
/// # Errors
/// When that fails.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.context(path.display())?.write_all(text.as_bytes()).context(path.display())
}

/// An address that is free now.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    free_addresses::<1>().map(|[addr]| addr)
}

/// Different ones: each is held until all are there.
fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    let mut listeners = Vec::new();
    for addr in &mut addresses {
        let listener = TcpListener::bind(*addr).context("a free port")?;
        *addr = listener.local_addr().context("a free port")?;
        listeners.push(listener);
    }
    Ok(addresses)
}

const START_PATIENCE: Duration = Duration::from_secs(30);

/// Longer than `shutdown.grace`.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
