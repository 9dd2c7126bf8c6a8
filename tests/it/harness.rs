//! A running proxy, its stand-ins, and clients for it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use aem_auth_proxy::{
    app::{App, Died},
    clock::Clock,
    config::{Config, Sources},
    standin::{Options, StandIns, keys::ServiceCredentials},
    tls,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use crate::{leaks::Secrets, log};

/// No test waits longer for anything; none asserts how long something took.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy that runs in this process.
pub struct Proxy {
    pub addr: SocketAddr,
    /// Of all listeners, in the order of the configuration.
    pub addrs: Vec<SocketAddr>,
    pub admin: SocketAddr,
    pub standins: StandIns,
    stop: mpsc::Sender<()>,
    hangup: mpsc::Sender<()>,
    running: JoinHandle<Result<(), Died>>,
    /// Making one takes longer than all that it is used for.
    client: reqwest::Client,
    /// Keeps its connection: the admin listener is closed while the proxy drains.
    admin_client: reqwest::Client,
    /// Where the log was when it began.
    since: usize,
    variables: Vec<(String, String)>,
    _ca: Option<tempfile::NamedTempFile>,
}

/// How to start one.
pub struct Setup {
    pub standins: Options,
    pub upstream: Option<String>,
    pub variables: Vec<(String, String)>,
    pub toml: Option<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { standins: standin_options(), upstream: None, variables: Vec::new(), toml: None }
    }
}

/// Stand-ins with the key of the fixtures: a new one for each test takes long.
pub fn standin_options() -> Options {
    Options { credentials: Some(fixed_credentials()), ..Options::default() }
}

fn fixed_credentials() -> ServiceCredentials {
    let key = include_str!("../fixtures/private_key.pem");
    ServiceCredentials::with_key(key, "localhost").expect("the fixture is a key")
}

impl Setup {
    /// Sets the key that `AEM_PROXY_<name>` stands for.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((format!("AEM_PROXY_{name}"), value.into()));
        self
    }

    /// Starts with a file that holds `text`, which is to say what authenticates.
    pub fn toml(mut self, text: impl Into<String>) -> Self {
        self.toml = Some(text.into());
        self
    }

    /// Forwards to `origin` instead of the stand-in AEM.
    pub fn upstream(mut self, origin: impl Into<String>) -> Self {
        self.upstream = Some(origin.into());
        self
    }

    /// Stand-ins over TLS as `localhost`.
    pub fn tls(mut self) -> Self {
        self.standins.tls_names = vec!["localhost".to_owned()];
        self
    }

    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.standins.token_lifetime = lifetime;
        self
    }

    /// Starts, and waits for the first token.
    pub async fn start(self) -> Proxy {
        let proxy = self.start_without_token().await;
        proxy.ready().await;
        proxy
    }

    /// Starts the stand-ins and the proxy, and does not wait for a token.
    pub async fn start_without_token(self) -> Proxy {
        let standins = self.start_standins().await;
        self.start_with(standins).await
    }

    pub async fn start_standins(&self) -> StandIns {
        log::start();
        tls::install();
        StandIns::start(self.standins.clone()).await.expect("the stand-ins start")
    }

    pub async fn start_with(self, standins: StandIns) -> Proxy {
        let (since, secret) = (log::position(), self.variables.clone());
        let ca = standins.ca_pem.as_ref().map(|pem| file(pem));
        let upstream = self.upstream.unwrap_or_else(|| standins.aem_origin.clone());
        let given = |begin: &str| self.variables.iter().any(|(name, _)| name.starts_with(begin));
        let mut variables = vec![("AEM_PROXY_ADMIN__LISTEN".to_owned(), "127.0.0.1:0".to_owned())];
        if !given("AEM_PROXY_PROXIES__") {
            variables.push(("AEM_PROXY_UPSTREAM".to_owned(), upstream));
            variables.push(("AEM_PROXY_LISTEN".to_owned(), "127.0.0.1:0".to_owned()));
        }
        if let Some(ca) = &ca {
            variables.push(("AEM_PROXY_CA_FILE".to_owned(), ca.path().display().to_string()));
        }
        if self.toml.is_none() && !["AEM_PROXY_AUTH", "AEM_PROXY_CREDENTIALS_"].into_iter().any(given) {
            variables
                .push(("AEM_PROXY_CREDENTIALS_JSON".to_owned(), standins.credentials_document.to_string()));
        }
        variables.extend(self.variables);
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let toml = self.toml.as_deref().map(file);
        let path = toml.as_ref().map(|file| file.path().to_owned());
        let config = Config::load(&Sources { file: path, variables, ..Sources::default() })
            .unwrap_or_else(|error| panic!("the configuration is wrong: {error}"));
        let app = App::bind(config, Clock::system()).await.expect("the proxy starts");
        let (addrs, admin) = (app.addrs(), app.admin_addrs()[0]);
        let (stop, mut stopped) = mpsc::channel(2);
        let (hangup, mut hung_up) = mpsc::channel(1);
        let running = tokio::spawn(app.run(
            async move || forever_if_none(stopped.recv().await).await,
            async move || forever_if_none(hung_up.recv().await).await,
        ));
        let (addr, client) = (addrs[0], client());
        let admin_client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        Proxy {
            addr,
            addrs,
            admin,
            standins,
            stop,
            hangup,
            running,
            client,
            admin_client,
            since,
            variables: secret,
            _ca: ca,
        }
    }
}

/// A sender that is gone sends no signal.
async fn forever_if_none(signal: Option<()>) {
    if signal.is_none() {
        std::future::pending::<()>().await;
    }
}

/// What `path` holds, once there is such a file: a token is used before it is kept.
pub async fn kept(path: &std::path::Path) -> String {
    let kept = async {
        loop {
            if let Ok(text) = std::fs::read_to_string(path) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, kept).await.expect("the file is written")
}

/// A temporary file that holds `text`.
pub fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a file can be written");
    file
}

impl Proxy {
    pub async fn start() -> Self {
        Setup::default().start().await
    }

    /// Waits until the first token is there.
    pub async fn ready(&self) {
        self.until("/ready", 200).await;
    }

    /// Asks the admin listener until it answers with `status`.
    pub async fn until(&self, path: &str, status: u16) {
        let asking = async {
            while self.ask(path).await.0 != status {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{path} did not become {status}"));
    }

    /// GETs a path of the admin listener.
    pub async fn ask(&self, path: &str) -> (u16, String) {
        let response = self
            .admin_client
            .get(format!("http://{}{path}", self.admin))
            .send()
            .await
            .expect("admin answers");
        (response.status().as_u16(), response.text().await.expect("admin answers in whole"))
    }

    pub async fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.ask("/status").await.1).expect("/status is JSON")
    }

    /// A metric's value, by its whole name with labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.ask("/metrics").await.1;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a metric is a number"))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(self.url(path)).send().await.expect("the proxy answers")
    }

    /// What AEM got to see of a request made with `fields`.
    pub async fn echo(&self, fields: &[(&str, &str)]) -> Seen {
        let mut request = self.client.get(self.url("/echo"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("the proxy answers");
        assert_eq!(response.status(), 200);
        Seen(response.json().await.expect("an echo is JSON"))
    }

    /// A connection for bytes.
    pub async fn connect(&self) -> Raw {
        Raw(TcpStream::connect(self.addr).await.expect("the proxy listens"))
    }

    /// Asks to stop: once drains, twice ends at once.
    pub async fn ask_to_stop(&self) {
        self.stop.send(()).await.expect("the proxy still runs");
    }

    /// Asks to read the credentials anew.
    pub async fn hang_up(&self) {
        self.hangup.send(()).await.expect("the proxy still runs");
    }

    /// Waits until it has ended by itself or by being asked.
    pub async fn ended(&mut self) -> Result<(), Died> {
        timeout(PATIENCE, &mut self.running).await.expect("the proxy ends").expect("the proxy does not panic")
    }

    /// Stops it and looks for secrets in the log.
    pub async fn stop(mut self) {
        self.ask_to_stop().await;
        // It may have nothing to wait for.
        let _ = self.stop.send(()).await;
        self.ended().await.expect("no part died");
        // What is dropped is searched for.
    }

    /// Every secret that it and its stand-ins know by now.
    pub fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::of(&self.standins);
        secrets.add_variables(&self.variables);
        secrets
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.abort();
        if !std::thread::panicking() {
            log::assert_no_secret();
            log::assert_holds_none_of(&self.secrets(), self.since);
        }
    }
}

/// An echo of the stand-in AEM.
pub struct Seen(pub serde_json::Value);

impl Seen {
    /// Every value of the field `name`.
    pub fn all(&self, name: &str) -> Vec<String> {
        let headers = self.0["headers"].as_array().expect("an echo has headers");
        let values = headers.iter().filter(|pair| pair[0] == name);
        values.map(|pair| pair[1].as_str().expect("a value is text").to_owned()).collect()
    }

    pub fn one(&self, name: &str) -> Option<String> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name}: {all:?}");
        all.into_iter().next()
    }
}

/// A client that follows nothing, and has one connection a request.
pub fn client() -> reqwest::Client {
    tls::install();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(PATIENCE)
        .build()
        .expect("a client")
}

/// A connection on which bytes are sent and read as they are.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("the other side takes bytes");
    }

    /// Everything up to the end of the connection. A reset counts as an end; what came before is returned.
    pub async fn rest(&mut self) -> String {
        self.rest_or_reset().await.0
    }

    /// Everything up to the end, and whether that was a reset.
    pub async fn rest_or_reset(&mut self) -> (String, bool) {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("the connection ends");
        (String::from_utf8_lossy(&bytes).into_owned(), read.is_err())
    }

    /// Reads until `end` has come.
    pub async fn until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        let reading = async {
            while !bytes.windows(end.len()).any(|part| part == end.as_bytes()) {
                let read = self.0.read_buf(&mut bytes).await.expect("the connection holds");
                assert!(read > 0, "ended before {end:?}: {}", String::from_utf8_lossy(&bytes));
            }
        };
        timeout(PATIENCE, reading).await.expect("the other side goes on");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// One response: its head, and a body of `Content-Length`, or in chunks.
    pub async fn response(&mut self) -> String {
        let mut answer = self.until("\r\n\r\n").await;
        if answer.contains("transfer-encoding: chunked") {
            let mut bytes = answer.into_bytes();
            while !bytes.ends_with(b"\r\n0\r\n\r\n") {
                let read =
                    timeout(PATIENCE, self.0.read_buf(&mut bytes)).await.expect("the other side goes on");
                assert!(read.expect("the connection holds") > 0, "ended within a body");
            }
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head ends");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.expect("a length").parse().expect("a number");
        let mut rest = vec![0; length - body.len()];
        timeout(PATIENCE, self.0.read_exact(&mut rest))
            .await
            .expect("the body goes on")
            .expect("a whole body");
        answer.push_str(&String::from_utf8_lossy(&rest));
        answer
    }

    /// Whether the other side has ended the connection, which it is given time for.
    pub async fn is_ended(&mut self) -> bool {
        let mut byte = [0];
        matches!(timeout(PATIENCE, self.0.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
    }
}

/// An upstream of which the test is the other end.
pub struct Upstream(TcpListener);

impl Upstream {
    pub async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.0.local_addr().expect("an address"))
    }

    /// The next connection that the proxy makes.
    pub async fn accept(&self) -> Raw {
        timeout(PATIENCE, self.accept_any()).await.expect("the proxy connects")
    }

    /// The next connection, if there is ever one.
    pub async fn accept_any(&self) -> Raw {
        Raw(self.0.accept().await.expect("a connection").0)
    }
}

/// A proxy in front of a raw upstream.
pub async fn with_upstream(setup: Setup) -> (Proxy, Upstream) {
    let upstream = Upstream::bind().await;
    let proxy = setup.upstream(upstream.origin()).start().await;
    (proxy, upstream)
}

/// The proxy's binary.
pub fn binary() -> PathBuf {
    env!("CARGO_BIN_EXE_aem-auth-proxy").into()
}
