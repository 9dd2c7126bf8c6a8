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

use aem_auth_proxy::secret::SecretString;
use aem_auth_proxy::standin::{
    StandIns,
    ims::{Fault, GrantKind},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use crate::{
    commands::{command, path, run, text},
    harness::{PATIENCE, Raw, Setup, Upstream, client},
    log::secret_in,
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

/// What must not be seen, each with what it is.
#[derive(Default)]
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn add(&mut self, what: &str, secret: impl Into<String>) {
        self.0.push((what.to_owned(), secret.into()));
    }

    /// The end of a token: it is in the whole one, and in what is left when somebody cuts its beginning.
    fn add_token(&mut self, what: &str, token: &str) {
        self.add(what, &token[token.len() - 40..]);
    }

    /// A few lines of a key, which nobody writes without the others.
    fn add_key(&mut self, pem: &str) {
        for line in pem.lines().filter(|line| line.len() == 64).step_by(8) {
            self.add("a line of the private key", line);
        }
    }

    /// What of them is in `text`, and in which form.
    fn seen_in(&self, text: &str) -> Vec<String> {
        let texts = readings(text);
        let seen = |(what, secret): &(String, String)| {
            let form = forms(secret).into_iter().find(|form| texts.iter().any(|text| text.contains(form)))?;
            Some(format!("{what} as {form}"))
        };
        let kinds = secret_in(text).map(|kind| format!("something with {kind}"));
        self.0.iter().filter_map(seen).chain(kinds).collect()
    }
}

/// The text as it is and percent-decoded in both ways, all without backslashes: so it does not matter how often a secret
/// was quoted, or which of its letters were encoded.
fn readings(text: &str) -> [String; 3] {
    let decoded = percent_decoded(text);
    [text, &decoded, &decoded.replace('+', " ")].map(without_backslashes)
}

/// What to look for in them.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![without_backslashes(secret), without_backslashes(&secret.replace('+', " "))];
    // A secret that was decoded once too often is one still.
    forms.push(without_backslashes(&percent_decoded(secret)));
    // Base64 of a text that holds the secret: three bytes are four letters, so it depends on where it begins.
    for before in 0..3 {
        let bytes = [&[0; 2][..before], secret.as_bytes()].concat();
        // What a neighbour has a part in is left out.
        let whole = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        forms.push(STANDARD_NO_PAD.encode(&bytes)[whole.clone()].to_owned());
        forms.push(URL_SAFE_NO_PAD.encode(&bytes)[whole].to_owned());
    }
    forms.push(hex(secret));
    // `{:?}` of bytes.
    forms.push(secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", "));
    forms
}

fn without_backslashes(text: &str) -> String {
    text.replace('\\', "")
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = behind.get(..2).filter(|code| *first == b'%' && code.iter().all(u8::is_ascii_hexdigit));
        let byte = code.and_then(|code| u8::from_str_radix(str::from_utf8(code).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[test]
fn a_secret_would_be_found_in_every_form_and_in_no_other_text() {
    for secret in [LIVE_VALUE, FILED_PASSWORD, FIELD, APP, "MIIEpAIBAAKCAQEA"] {
        let mut secrets = Secrets::default();
        secrets.add("it", secret);
        let json = |text: &str| Value::from(text).to_string();
        let every: String = secret.bytes().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "%{byte:02x}");
            text
        });
        let mut written = vec![
            secret.to_owned(),
            json(secret),
            json(&json(secret)),
            format!("{secret:?}"),
            format!("{:?}", Some(json(secret))),
            url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            every.to_uppercase(),
            every,
            hex(secret),
            format!("{:?}", secret.as_bytes()),
        ];
        for before in ["", "a", "ab", "abc", "user:"] {
            for behind in ["", "z", "yz", "\n"] {
                let around = format!("{before}{secret}{behind}");
                written.extend([STANDARD.encode(&around), URL_SAFE.encode(&around)]);
                written.extend([STANDARD_NO_PAD.encode(&around), URL_SAFE_NO_PAD.encode(&around)]);
                written.push(
                    url::form_urlencoded::byte_serialize(STANDARD.encode(&around).as_bytes()).collect(),
                );
            }
        }
        for written in written {
            let line = format!("TRACE something: value={written} and=more");
            assert!(!secrets.seen_in(&line).is_empty(), "{secret} in {line}");
        }
        secrets.0.push(("another".to_owned(), "another".to_owned()));
        assert!(secrets.seen_in("TRACE something: value=(redacted) and=more 100% \\ %4").is_empty());
    }
}

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
        let mut secrets = Secrets::default();
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
        let integration = &self.standins.credentials_document["integration"];
        let secret = integration["technicalAccount"]["clientSecret"].as_str().unwrap();
        secrets.add("the document's secret", secret);
        secrets.add_key(integration["privateKey"].as_str().unwrap());
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
        let mut link = aem.accept().await;
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
    let echo = format!("{LIVE_VALUE} {LIVE_LINE} {WRONG} {}", secrets.0.last().unwrap().1);
    for fault in [
        Fault::refusal(StatusCode::BAD_REQUEST, "invalid_client", &echo),
        Fault::refusal(StatusCode::BAD_REQUEST, &echo, &echo),
        Fault::refusal(StatusCode::INTERNAL_SERVER_ERROR, &echo, &echo),
        Fault::raw(StatusCode::OK, "text/html", &format!("<p>{echo}</p>")),
        Fault::json(StatusCode::OK, &json!({"access_token": format!("{ROTATED}\n"), "expires_in": echo})),
    ] {
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
    whole.stop(&mut said).await;

    let log = &said.last().unwrap().1;
    assert!(log.contains("\"TRACE\"") && log.contains("secret 2 works"), "the log is a whole one");
    let told: String = said
        .iter()
        .flat_map(|(name, text)| {
            secrets.seen_in(text).into_iter().map(move |seen| format!("{name}: {seen}\n"))
        })
        .collect();
    assert!(told.is_empty(), "{told}");
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
