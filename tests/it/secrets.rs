//! No secret of any kind leaves the process by another way than to IMS and AEM: a whole binary at trace level, with
//! credentials of every kind, in fair weather and in foul, and every word that it says searched for each secret in each
//! form.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use aem_auth_proxy::{
    secret::SecretString,
    standin::{
        StandIns,
        ims::{Fault, GrantKind},
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use crate::{
    commands::{command, path, run, text},
    harness::{PATIENCE, Proxy, Raw, Setup, Upstream, client, with_upstream},
    leaks::{Secrets, hex},
    log::{self, secret_in},
};

// Each has letters that are written in another way in JSON, in URLs and in base64.
const DEAD_VALUE: &str = r#"p8e-dead"value\of+the/environment%41"#;
const LIVE_VALUE: &str = r#"s8e-live"value\of+the/environment%42"#;
const DEAD_LINE: &str = r#"p8e-dead"line\of+the/file%43"#;
const LIVE_LINE: &str = r#"s8e-live"line\of+the/file%44"#;
const WRONG: &str = r#"p8e-wrong"from\the+very/start%45"#;
const PASSWORD: &str = r#"pässword"given\in+the/environment%46"#;
const FILED_PASSWORD: &str = r#"pässword"read\from+a/file%47"#;
const FIELD: &str = r#"field"given\in+the/configuration%48"#;
const FILED_FIELD: &str = r#"field"read\from+a/file%49"#;
const ROTATED: &str = r#"p8e-rotated"to\some+thing/wrong%4a"#;
const APP: &str = r#"app"s\own+secret/word%4b"#;

/// The binary with one credential of each kind and a proxy for each, its words gathered in files.
struct Whole {
    dir: tempfile::TempDir,
    standins: StandIns,
    variables: Vec<(String, String)>,
    child: Option<Child>,
    admin: String,
}

/// The names of the credentials and of their proxies that get tokens.
const BEARERS: [&str; 5] = ["document", "inline", "values", "filed", "local"];
const USERS: [&str; 2] = ["sdk", "sdk-filed"];
/// IMS does not take it.
const FAILING: &str = "failing";

impl Whole {
    /// Stand-ins over TLS, and the configuration's files. `aem` is another AEM, under `/raw/`.
    async fn prepare(aem: &str) -> Self {
        let standins = Setup::default().tls().start_standins().await;
        standins.ims.set_oauth_secrets(&[SecretString::from(LIVE_VALUE), SecretString::from(LIVE_LINE)]);
        let whole = Self {
            dir: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
            child: None,
            admin: String::new(),
            standins,
        };
        whole.write("document.json", whole.standins.credentials_document.to_string());
        whole.write("secrets", format!("{DEAD_LINE}\n{LIVE_LINE}\n"));
        whole.write("local.json", whole.local_document());
        whole.write("password", FILED_PASSWORD);
        whole.write("field", FILED_FIELD);
        whole.write("ca.pem", whole.standins.ca_pem.as_ref().unwrap());
        whole.write("config.toml", whole.config(aem));
        whole.with_variables()
    }

    fn local_document(&self) -> String {
        StandIns::local_token_document(&self.standins.local_token(Duration::from_secs(3600))).to_string()
    }

    fn config(&self, aem: &str) -> String {
        let file = |name: &str| self.path(name).display().to_string();
        let client = self.standins.oauth.client_id();
        let scopes = self.standins.oauth.scopes().join("', '");
        let ims = &self.standins.ims_endpoint;
        let mut text = format!(
            "ca_file = '{ca}'\n\
             ims_endpoint = '{ims}'\n\
             admin.listen = '127.0.0.1:0'\n\
             log.level = 'trace'\n\
             log.format = 'json'\n\
             watch.poll = '50ms'\n\
             [credentials]\n\
             document.file = '{document}'\n\
             filed = {{ client_id = '{client}', client_secret_file = '{secrets}', scopes = ['{scopes}'] }}\n\
             failing = {{ client_id = '{client}', client_secret = '{WRONG}', scopes = ['{scopes}'] }}\n\
             local.file = '{local}'\n\
             sdk.user = 'admin'\n\
             sdk-filed = {{ user = 'admin', password_file = '{password}' }}\n",
            ca = file("ca.pem"),
            document = file("document.json"),
            secrets = file("secrets"),
            local = file("local.json"),
            password = file("password"),
        );
        for name in BEARERS.iter().chain(&USERS).chain([&FAILING]) {
            let _ = write!(
                text,
                "[proxies.{name}]\n\
                 listen = '127.0.0.1:0'\n\
                 upstream = '{upstream}'\n\
                 credentials = '{name}'\n\
                 headers = {{ X-Given = '{FIELD}' }}\n\
                 header_files = {{ X-Filed = '{field}' }}\n\
                 [[proxies.{name}.routes]]\n\
                 path = '/raw/'\n\
                 upstream = '{aem}'\n\
                 [[proxies.{name}.routes]]\n\
                 path = '/nobody/'\n\
                 upstream = 'http://127.0.0.1:1'\n",
                upstream = self.standins.aem_origin,
                field = file("field"),
            );
        }
        text
    }

    fn with_variables(mut self) -> Self {
        let document = STANDARD.encode(self.standins.credentials_document.to_string());
        let variables = [
            ("INLINE__JSON", document),
            ("VALUES__CLIENT_ID", self.standins.oauth.client_id().to_owned()),
            ("VALUES__CLIENT_SECRET", format!("{DEAD_VALUE},{LIVE_VALUE}")),
            ("VALUES__SCOPES", self.standins.oauth.scopes().join(",")),
            ("SDK__PASSWORD", PASSWORD.to_owned()),
        ];
        self.variables =
            variables.map(|(name, value)| (format!("AEM_PROXY_CREDENTIALS__{name}"), value)).into();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::of(&self.standins);
        for (what, secret) in [
            ("the old secret of the environment", DEAD_VALUE),
            ("the live secret of the environment", LIVE_VALUE),
            ("the old secret of the file", DEAD_LINE),
            ("the live secret of the file", LIVE_LINE),
            ("the secret that is refused", WRONG),
            ("the password of the environment", PASSWORD),
            ("the password of the file", FILED_PASSWORD),
            ("the field of the configuration", FIELD),
            ("the field of the file", FILED_FIELD),
            ("what was rotated", ROTATED),
            ("what the app sends", APP),
        ] {
            secrets.add(what, secret);
        }
        let local: Value = serde_json::from_str(&self.read("local.json")).unwrap();
        secrets.add_token("the local token", local["accessToken"].as_str().unwrap());
        secrets
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path(name)).unwrap()).into_owned()
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Starts it, and waits until all is settled.
    async fn start(&mut self) {
        let config = self.path("config.toml");
        let mut command = command(&["--config", path(&config)], &self.variables());
        let output = |name: &str| Stdio::from(std::fs::File::create(self.path(name)).unwrap());
        self.child = Some(command.stdout(output("stdout")).stderr(output("stderr")).spawn().unwrap());
        self.logged(|line| line["message"] == "Listening").await;
        let line = self.lines().into_iter().find(|line| line["message"] == "Listening").unwrap();
        self.admin = line["admin.addr"].as_str().unwrap().to_owned();
        let settled = async {
            while !is_settled(&self.status().await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, settled).await.expect("every credential has its token or its refusal");
    }

    /// What it has logged.
    fn lines(&self) -> Vec<Value> {
        self.read("stderr").lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    async fn logged(&self, is_it: impl Fn(&Value) -> bool) {
        let waiting = async {
            while !self.lines().iter().any(&is_it) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not in the log: {}", self.errors()));
    }

    /// For people who look why a test failed.
    fn errors(&self) -> String {
        let lines = self.lines();
        let told = lines.iter().filter(|line| ["WARN", "ERROR"].map(Value::from).contains(&line["level"]));
        told.map(|line| format!("\n{line}")).collect()
    }

    async fn ask(&self, path: &str) -> String {
        let asked = client().get(format!("http://{}{path}", self.admin)).send().await.unwrap();
        let head = format!("{asked:?}");
        head + &asked.text().await.unwrap()
    }

    async fn status(&self) -> Value {
        let asked = client().get(format!("http://{}/status", self.admin)).send().await.unwrap();
        asked.json().await.unwrap()
    }

    async fn addr(&self, proxy: &str) -> String {
        let status = self.status().await;
        let mut proxies = status["proxies"].as_array().unwrap().iter();
        let proxy = proxies.find(|known| known["name"] == proxy).unwrap();
        proxy["listen"][0].as_str().unwrap().to_owned()
    }

    /// Sends `head` as it is, with what an app may have secrets in behind it.
    async fn send(&self, proxy: &str, head: &str) -> String {
        let mut app = Raw(TcpStream::connect(self.addr(proxy).await).await.unwrap());
        app.send(format!(
            "{head}\r\nhost: localhost\r\nconnection: close\r\nauthorization: Basic {APP}\r\ncookie: login-token={APP}\r\n\
             x-app: {APP}\r\ncontent-length: {}\r\n\r\n{APP}",
            APP.len()
        ))
        .await;
        app.rest().await
    }

    async fn hang_up(&self) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("it runs")
    }

    /// Every page and every command, each with its name.
    async fn all_words(&self, said: &mut Vec<(String, String)>) {
        for page in ["/", "/status", "/metrics", "/live", "/startup", "/ready", "/none"] {
            said.push((page.to_owned(), self.ask(page).await));
        }
        let mut commands = vec![
            vec!["config"],
            vec!["check"],
            vec!["check", "--output", "json"],
            vec!["check", "--offline"],
            vec!["check", "--offline", "--strict", "--output", "json"],
            vec!["token"],
        ];
        for name in BEARERS.iter().chain(&USERS).chain([&FAILING]) {
            commands.push(vec!["token", "--credential", name]);
        }
        let config = self.path("config.toml");
        commands.extend([
            vec!["health"],
            vec!["wait", "--max", "1s"],
            vec!["--version"],
            vec!["completions", "bash"],
        ]);
        for command in ["run", "demo", "check", "token", "health", "wait", "config", "completions"] {
            commands.push(vec![command, "--help"]);
        }
        for mut args in commands {
            args.extend(["--config", path(&config)]);
            self.command(&args, said).await;
        }
    }

    async fn command(&self, args: &[&str], said: &mut Vec<(String, String)>) {
        let (code, out, err) = text(&run(args, &self.variables()).await);
        said.push((args.join(" "), format!("{code}\n{out}\n{err}")));
    }

    async fn stop(mut self, said: &mut Vec<(String, String)>) {
        let mut child = self.child.take().unwrap();
        let pid = child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let status = timeout(PATIENCE, child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(0));
        for output in ["stdout", "stderr"] {
            said.push((output.to_owned(), self.read(output)));
        }
    }
}

fn is_settled(status: &Value) -> bool {
    let credentials = status["credentials"].as_array().unwrap();
    assert_eq!(credentials.len(), BEARERS.len() + 1, "{status}");
    credentials.iter().all(|credential| {
        let token = &credential["token"];
        if credential["name"] == FAILING { !token["last_error"].is_null() } else { token["valid"] == true }
    })
}

/// Answers everything, and keeps what came.
async fn answer(aem: Upstream, came: Arc<Mutex<Vec<String>>>) {
    loop {
        let mut link = aem.accept_any().await;
        let head = link.until("\r\n\r\n").await;
        came.lock().unwrap().push(head);
        link.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    }
}

/// The value of a field in one of the heads.
fn field<'a>(heads: &'a [String], path: &str, name: &str) -> &'a str {
    let head = heads.iter().find(|head| head.starts_with(&format!("GET {path}"))).unwrap();
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value).unwrap()
}

#[tokio::test]
async fn no_secret_of_any_kind_is_shown_by_a_whole_proxy() {
    let aem = Upstream::bind().await;
    let came = Arc::default();
    let mut whole = Whole::prepare(&aem.origin()).await;
    let _aem = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(answer(aem, Arc::clone(&came))));
    let mut secrets = whole.secrets();
    let mut said = Vec::new();
    whole.start().await;

    // Fair weather. What AEM answers is AEM's; what comes there shows that the secrets are in use.
    for name in BEARERS.iter().chain(&USERS) {
        let answer = whole.send(name, &format!("GET /raw/{name}?token={APP} HTTP/1.1")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{name}: {answer}");
        let _ = whole.send(name, "GET /api/assets.json HTTP/1.1").await;
    }
    let heads = came.lock().unwrap().clone();
    for name in BEARERS {
        let token = field(&heads, &format!("/raw/{name}"), "authorization").strip_prefix("Bearer ").unwrap();
        secrets.add_token(&format!("the token of {name}"), token);
        assert_eq!(field(&heads, &format!("/raw/{name}"), "x-given"), FIELD);
        assert_eq!(field(&heads, &format!("/raw/{name}"), "x-filed"), FILED_FIELD);
    }
    for (name, password) in [("sdk?", PASSWORD), ("sdk-filed?", FILED_PASSWORD)] {
        let expected = format!("Basic {}", STANDARD.encode(format!("admin:{password}")));
        assert_eq!(field(&heads, &format!("/raw/{name}"), "authorization"), expected);
    }
    assert!(!secrets.seen_in(&heads.concat()).is_empty(), "the search finds what is there");
    whole.all_words(&mut said).await;

    // The proxy's own answers.
    for (name, head, status) in [
        (FAILING, "GET /api/assets.json HTTP/1.1", 503),
        ("document", "GET /nobody/ HTTP/1.1", 502),
        ("sdk", "GET /nobody/ HTTP/1.1", 502),
        ("document", "GET / HTTP/1.1\r\norigin: https://evil.example", 403),
        ("document", &format!("GET / HTTP/1.1\r\nauthorization Basic {APP}"), 400),
        ("document", &format!("GET /{APP}\" {APP} HTTP/1.1"), 400),
    ] {
        let answer = whole.send(name, head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
        said.push((head.to_owned(), answer));
    }

    // An IMS that repeats what it was sent, and one that is a portal in a hotel.
    // Every form of an answer is tried below, within this process.
    let sent = whole.standins.ims.last_assertion().unwrap();
    for fault in echoing_bodies(&[LIVE_VALUE, LIVE_LINE, WRONG, &sent]).into_iter().step_by(2) {
        for grant in [GrantKind::Jwt, GrantKind::OAuth] {
            whole.standins.ims.set_always_for(grant, Some(fault.clone()));
        }
        let config = whole.path("config.toml");
        for name in ["document", "values"] {
            whole.command(&["token", "--credential", name, "--config", path(&config)], &mut said).await;
        }
    }
    let config = whole.path("config.toml");
    whole.command(&["check", "--config", path(&config)], &mut said).await;
    for grant in [GrantKind::Jwt, GrantKind::OAuth] {
        whole.standins.ims.set_always_for(grant, None);
    }

    bad_rotations(&whole, &mut said).await;
    broken_configurations(&whole, &mut said).await;

    // What was there before goes on working.
    for name in BEARERS.iter().chain(&USERS) {
        let answer = whole.send(name, &format!("GET /raw/{name} HTTP/1.1")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{name}: {answer}");
    }
    let command_line = std::fs::read(Path::new("/proc").join(whole.pid().to_string()).join("cmdline"));
    said.push(("the command line".to_owned(), String::from_utf8_lossy(&command_line.unwrap()).into_owned()));
    secrets.extend(Secrets::of(&whole.standins));
    whole.stop(&mut said).await;

    let log = &said.last().unwrap().1;
    assert!(log.contains("\"TRACE\"") && log.contains("secret 2 works"), "the log is a whole one");
    let search = secrets.search();
    let mut told = String::new();
    for (name, text) in &said {
        let kinds = secret_in(text).map(|kind| format!("something with {kind}"));
        for seen in search.seen_in(text.as_bytes()).into_iter().chain(kinds) {
            let _ = writeln!(told, "{name}: {seen}");
        }
    }
    assert!(told.is_empty(), "{told}");
}

/// Every form of a body in which IMS, or a portal in a hotel, may repeat what it was sent.
fn echoing_bodies(sent: &[&str]) -> Vec<Fault> {
    let echo = sent.join(" ");
    vec![
        Fault::refusal(StatusCode::BAD_REQUEST, &echo, &echo),
        Fault::refusal(StatusCode::BAD_REQUEST, "invalid_client", &echo),
        Fault::refusal(StatusCode::INTERNAL_SERVER_ERROR, &echo, &echo),
        Fault::raw(StatusCode::OK, "text/html", &format!("<p>{echo}</p>")),
        Fault::json(StatusCode::OK, &json!({"access_token": format!("{ROTATED}\n"), "expires_in": echo})),
        Fault::raw(StatusCode::OK, "application/json", &format!("{{\"error\": \"{echo}")),
        Fault::raw(StatusCode::BAD_GATEWAY, "text/plain", &format!("{echo}\n").repeat(100)),
        Fault::json(StatusCode::BAD_REQUEST, &json!({"error": [echo], "error_description": {"is": echo}})),
    ]
}

/// The same for fields of the head, one by one.
fn echoing_heads(sent: &[&str]) -> Vec<Fault> {
    let of_part = |part: &&str| {
        let refusal = Fault::refusal(StatusCode::BAD_REQUEST, part, "");
        let throttled = Fault::throttled(None).with_header("retry-after", part);
        let moved = Fault::raw(StatusCode::FOUND, "text/plain", "").with_header("location", part);
        [
            refusal.with_header("x-debug-id", &part[..part.len().min(128)]),
            throttled.with_header("server", part),
            moved,
        ]
    };
    sent.iter().flat_map(of_part).collect()
}

#[tokio::test]
async fn no_form_of_an_answer_of_ims_is_logged_or_shown() {
    for is_oauth in [false, true] {
        // Each answer has a proxy of its own: SIGHUP asks IMS again once in a while only.
        for number in 0.. {
            let mut setup = Setup::default();
            let standins = setup.start_standins().await;
            if is_oauth {
                setup = setup.set("CREDENTIALS_JSON", standins.oauth.lone_project_document().to_string());
            }
            let proxy = setup.start_with(standins).await;
            proxy.ready().await;
            let ims = &proxy.standins.ims;
            let document = &proxy.standins.credentials_document["integration"]["technicalAccount"];
            let (token, assertion) = (proxy.standins.ledger.last_issued(), ims.last_assertion());
            let mut sent = vec![token.as_deref().unwrap()];
            if is_oauth {
                sent.extend(proxy.standins.oauth.client_secrets().iter().map(SecretString::expose_secret));
            } else {
                sent.extend([document["clientSecret"].as_str().unwrap(), assertion.as_deref().unwrap()]);
            }
            let faults = echoing_bodies(&sent).into_iter().chain(echoing_heads(&sent));
            let Some(fault) = faults.into_iter().nth(number) else {
                assert!(number > 10, "there are answers");
                break;
            };
            ims.set_always(Some(fault));
            proxy.hang_up().await;
            let failed = async {
                while failures(&proxy).await < 1 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, failed).await.expect("the exchange fails");
            for page in ["/", "/status", "/metrics"] {
                let seen = proxy.secrets().seen_in(&proxy.ask(page).await.1);
                assert!(seen.is_empty(), "{page}: {seen:?}");
            }
            proxy.stop().await;
        }
    }
}

/// What an AEM may answer that is no answer, each with the credential (`TOKEN`) where a parser might quote it; and what the
/// client gets instead of it, if anything.
const BAD_ANSWERS: [(&str, &str); 15] = [
    ("TOKEN\r\n\r\n", "502"),
    ("HTTP/1.1 TOKEN OK\r\n\r\n", "502"),
    ("HTTP/1.1 200 OK\r\nBearer TOKEN\r\n\r\n", "502"),
    ("HTTP/1.1 200 OK\r\nx TOKEN: 1\r\n\r\n", "502"),
    ("HTTP/1.1 200 OK\r\nx: \0TOKEN\r\n\r\n", "502"),
    ("HTTP/1.1 200 OK\r\ncontent-length: TOKEN\r\n\r\n", "502"),
    ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\nx: TOKEN\r\n\r\n", "502"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: TOKEN, chunked\r\n\r\n", "502"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nTOKEN\r\n", ""),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=TOKEN\r\nokTOKEN", ""),
    ("HTTP/1.1 101 Switching\r\nupgrade: TOKEN\r\nconnection: upgrade\r\n\r\n", "502"),
    (
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 2000\r\n\r\nTOKEN",
        "",
    ),
    ("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\nTOKEN", ""),
    ("HTTP/1.1 429 Busy\r\nretry-after: TOKEN\r\ncontent-length: 0\r\n\r\n", "429"),
    ("HTTP/1.1 200 OK\r\nx: TOKEN", "502"),
];

/// What a client may send that is refused or not understood, with a secret of its own in it.
const BAD_REQUESTS: [&str; 9] = [
    "SECRET / HTTP/1.1\r\n\r\n",
    "GET /SECRET\" HTTP/9.9\r\n\r\n",
    "GET / HTTP/1.1\r\nconnection: close\r\nhost: SECRET\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization SECRET\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\norigin: https://SECRET\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nsec-fetch-site: cross-site\r\nx: SECRET\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: SECRET\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: SECRET\r\n\r\n",
    "CONNECT SECRET:443 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
];

#[tokio::test]
async fn no_error_of_the_data_path_quotes_what_aem_or_a_client_sent() {
    let (proxy, aem) = with_upstream(Setup::default()).await;
    let since = log::position();
    for (answer, status) in BAD_ANSWERS {
        let mut app = proxy.connect().await;
        // Once and no more: it may not be sent again.
        let head = "POST /api/assets.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        app.send(head).await;
        let mut link = aem.accept().await;
        let token = link.until("\r\n\r\n").await;
        let token = token.split("Bearer ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
        link.send(answer.replace("TOKEN", &token)).await;
        drop(link);
        let got = app.rest().await;
        let begins = format!("HTTP/1.1 {status}");
        assert!(status.is_empty() || got.starts_with(&begins), "{answer}: {got}");
        let (head, _) = got.split_once("\r\n\r\n").unwrap_or((&got, ""));
        assert!(!head.contains(&token[token.len() - 40..]), "{answer}: the head holds it");
    }
    for request in BAD_REQUESTS {
        let mut app = proxy.connect().await;
        app.send(request.replace("SECRET", APP_TOKEN)).await;
        let got = app.rest().await;
        assert!(got.starts_with("HTTP/1.1 4") && !got.contains(APP_TOKEN), "{request}: {got}");
    }
    let mut secrets = proxy.secrets();
    secrets.add("what the app sends", APP_TOKEN);
    for page in ["/", "/status", "/metrics"] {
        let seen = secrets.seen_in(&proxy.ask(page).await.1);
        assert!(seen.is_empty(), "{page}: {seen:?}");
    }
    log::assert_holds_none_of(&secrets, since);
    proxy.stop().await;
}

/// Of letters that may stand in every part of a request.
const APP_TOKEN: &str = "the-apps-own.secret_word.0123456789";

/// How many exchanges of the proxy's one credential have failed.
async fn failures(proxy: &Proxy) -> usize {
    let metrics = proxy.ask("/metrics").await.1;
    let of_failures = |line: &&str| {
        line.starts_with("aem_proxy_token_refreshes_total") && !line.contains("outcome=\"success\"")
    };
    let counts = metrics.lines().filter(of_failures).filter_map(|line| line.rsplit_once(' '));
    counts.map(|(_, count)| count.parse::<usize>().unwrap()).sum()
}

/// New contents of every file that are no good, each with something in it that must not be told.
async fn bad_rotations(whole: &Whole, said: &mut Vec<(String, String)>) {
    let document = whole.standins.credentials_document.clone();
    let mut rotated = document.clone();
    rotated["integration"]["technicalAccount"]["clientSecret"] = ROTATED.into();
    let mut typed = document.clone();
    typed["integration"]["technicalAccount"]["clientSecret"] = json!([ROTATED]);
    let mut damaged = document;
    let key = damaged["integration"]["privateKey"].as_str().unwrap();
    damaged["integration"]["privateKey"] = key.replacen("MII", ROTATED, 1).into();
    let (rotated, local) = (rotated.to_string(), whole.local_document());

    whole.write("secrets", format!("{ROTATED}\n"));
    whole.write("local.json", &local[..local.len() / 2]);
    whole.write("password", [FILED_PASSWORD.as_bytes(), &[0xff]].concat());
    whole.write("field", format!("{FILED_FIELD}\n{ROTATED}"));
    for (document, expected) in [
        (rotated[..rotated.len() / 2].to_owned(), "is not valid JSON at line"),
        (typed.to_string(), "`integration.technicalAccount.clientSecret` is not a string"),
        (damaged.to_string(), "`integration.privateKey` is cut off or damaged"),
        (rotated, "IMS refused the credentials"),
    ] {
        whole.write("document.json", document);
        whole.hang_up().await;
        let is_it = |line: &Value| {
            line["credential"] == "document" && line["error"].as_str().unwrap_or_default().contains(expected)
        };
        whole.logged(is_it).await;
        let config = whole.path("config.toml");
        for args in [["check", "--offline"], ["token", "--credential=document"]] {
            whole.command(&[&args[..], &["--config", path(&config)]].concat(), said).await;
        }
    }
    for (name, expected) in [("filed", "brought no token"), ("local", "The new credentials are unusable")] {
        let is_it = |line: &Value| {
            line["credential"] == name && line["message"].as_str().unwrap_or_default().contains(expected)
        };
        whole.logged(is_it).await;
    }
    for place in ["the password of `sdk-filed`", "`proxies.document.header_files.X-Filed`"] {
        whole.logged(|line| line["error"].as_str().unwrap_or_default().contains(place)).await;
    }
    whole.all_words(said).await;
}

/// Configurations that cannot be used, wrong in or around what must not be told.
async fn broken_configurations(whole: &Whole, said: &mut Vec<(String, String)>) {
    let config = whole.read("config.toml");
    let broken = whole.path("broken.toml");
    for (what, text) in [
        ("a string without its end", config.replace(&format!("'{WRONG}'"), &format!("'{WRONG}"))),
        ("a secret that is a table", config.replace(&format!("'{WRONG}'"), &format!("{{ x = '{WRONG}' }}"))),
        ("a value in two lines", config.replace(&format!("'{FIELD}'"), &format!("'''{FIELD}\n{FIELD}'''"))),
        (
            "a value in place of a table",
            config.replace(&format!("{{ X-Given = '{FIELD}' }}"), &format!("'{FIELD}'")),
        ),
        (
            "a password beside a file",
            config.replace("sdk-filed = {", &format!("sdk-filed = {{ password = '{ROTATED}',")),
        ),
        (
            "a document in place of a file",
            config.replace("document.file = '", &format!("document.file = '{{\"secret\": \"{ROTATED}\"}}")),
        ),
        (
            "a password in an upstream",
            config.replace("http://127.0.0.1:1'", &format!("http://u:{}@127.0.0.1:1'", hex(APP))),
        ),
    ] {
        assert_ne!(text, config, "{what}");
        std::fs::write(&broken, text).unwrap();
        for command in ["config", "check", "run"] {
            let mut own = Vec::new();
            whole.command(&[command, "--config", path(&broken)], &mut own).await;
            said.extend(own.into_iter().map(|(name, text)| (format!("{name}, {what}"), text)));
        }
    }
}
