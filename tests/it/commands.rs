//! The binary as its users see it: commands, exit codes, words, signals.

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    harness::{PATIENCE, Proxy, Setup, binary, client, file},
    log::secret_in,
};

pub fn command(args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env_clear().envs(variables.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub async fn run(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let output = command(args, variables).output();
    let output = timeout(PATIENCE, output).await.expect("the command ends").expect("the command starts");
    // No command shows a secret, whatever it is told and however it ends; but for the one that is for that.
    if !args.contains(&"--raw") {
        let (_, out, err) = text(&output);
        assert_eq!((secret_in(&out), secret_in(&err)), (None, None), "{args:?}");
    }
    output
}

pub fn text(output: &Output) -> (i32, String, String) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), out.into_owned(), err.into_owned())
}

/// The proxy's stand-ins, and what points the binary at them.
struct Surroundings {
    proxy: Proxy,
    credentials: tempfile::NamedTempFile,
    ca: tempfile::NamedTempFile,
}

impl Surroundings {
    async fn new() -> Self {
        let proxy = Setup::default().tls().start().await;
        let credentials = file(&proxy.standins.credentials_document.to_string());
        let ca = file(proxy.standins.ca_pem.as_ref().unwrap());
        Self { proxy, credentials, ca }
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let upstream: &str = &self.proxy.standins.aem_origin;
        let mut args = more.to_vec();
        args.extend(["--upstream", upstream, "--credentials-file", path(self.credentials.path())]);
        args.extend(["--ca-file", path(self.ca.path())]);
        args
    }
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("a path is text")
}

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/service_token.json");

#[tokio::test]
async fn wrong_usage_and_unusable_configuration_have_exit_codes_of_their_own() {
    let credentials = file("{\"ok\": true}");
    let credentials = path(credentials.path());
    let aem = "https://author-p1-e2.adobeaemcloud.com";
    for (args, code, words) in [
        (&["--no-such"][..], 64, "unexpected argument"),
        (&["dance"], 64, "unrecognized subcommand"),
        (&[], 78, "`upstream` is not set"),
        (&["--upstream", aem], 78, "`credentials_file` is not set"),
        (&["--upstream", aem, "--listen", "8080"], 78, "`listen` (--listen) is not an address"),
        (&["--upstream", aem, "--credentials-file", "/nowhere"], 78, "/nowhere: "),
        (&["--upstream", aem, "--credentials-file", credentials], 78, "is not a document that is known here"),
        (&["--config", "/nowhere.toml"], 78, "/nowhere.toml cannot be read"),
        (&["health", "--admin-listen", "127.0.0.1:1"], 1, "no answer from the admin listener at 127.0.0.1:1"),
        (&["wait", "--max", "10ms", "--admin-listen", "127.0.0.1:1"], 1, "not ready after 10ms"),
        (&["config", "--config", "/nowhere.toml"], 78, "cannot be read"),
        (&["--log-level", "lout", "--auth", "none", "--upstream", "http://localhost:1"], 78, "`log.level`"),
        (
            &["--ims-endpoint", "http://ims.example", "--upstream", aem, "--credentials-file", FIXTURE],
            78,
            "`ims_endpoint` (--ims-endpoint) is plain http",
        ),
        (&["--log-level", "a=b=c", "--auth", "none", "--upstream", "http://localhost:1"], 78, "`log.level`"),
    ] {
        let (found, out, err) = text(&run(args, &[]).await);
        assert_eq!(found, code, "{args:?}: {out}{err}");
        assert!(err.contains(words), "{args:?}: {err}");
    }
}

#[tokio::test]
async fn help_version_completions_and_config_are_there() {
    for args in
        [&["--help"][..], &["run", "--help"], &["demo", "--help"], &["check", "--help"], &["wait", "--help"]]
    {
        let (code, out, _) = text(&run(args, &[]).await);
        assert!(
            code == 0 && out.contains("--upstream") && out.contains("AEM_PROXY_UPSTREAM"),
            "{args:?}: {out}"
        );
    }
    let (code, out, _) = text(&run(&["--version"], &[]).await);
    assert!(code == 0 && out.contains(env!("CARGO_PKG_VERSION")) && out.contains("rustls (ring)"), "{out}");
    let (code, out, _) = text(&run(&["completions", "bash"], &[]).await);
    assert!(code == 0 && out.contains("aem-auth-proxy"));
    let variables = [("AEM_PROXY_CREDENTIALS_JSON", "p8e-secret"), ("AEM_PROXY_LISTEN", "localhost:7")];
    let (code, out, _) = text(&run(&["config"], &variables).await);
    assert_eq!(code, 0);
    assert!(
        out.contains("listen = \"localhost:7\" # AEM_PROXY_LISTEN") && secret_in(&out).is_none(),
        "{out}"
    );
}

#[tokio::test]
async fn check_says_what_is_right_and_what_is_wrong() {
    let around = Surroundings::new().await;
    let (code, out, err) = text(&run(&around.args(&["check"]), &[]).await);
    assert_eq!(code, 0, "{out}{err}");
    for line in
        ["ok     configuration", "key matches certificate", "days left", "gave a token for", "answered 200"]
    {
        assert!(out.contains(line), "{line} in\n{out}");
    }
    let (code, out, _) = text(&run(&around.args(&["check", "--output", "json"]), &[]).await);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["ok"]), (0, &true.into()));
    assert_eq!(report["checks"].as_array().unwrap().len(), 6);

    // AEM does not take the token.
    let exchanges = around.proxy.standins.ims.exchanges();
    let (code, out, _) = text(&run(&around.args(&["check", "--offline"]), &[]).await);
    assert!(code == 0 && !out.contains("gave a token"), "{out}");
    assert_eq!(around.proxy.standins.ims.exchanges(), exchanges, "offline is offline");

    let fault =
        aem_auth_proxy::standin::ims::Fault::refusal(http::StatusCode::UNAUTHORIZED, "invalid_client", "");
    around.proxy.standins.ims.push(fault);
    let (code, out, _) = text(&run(&around.args(&["check"]), &[]).await);
    assert!(code == 1 && out.contains("WRONG  ims") && out.contains("do not belong together"), "{out}");

    let mut args = around.args(&["check"]);
    args.retain(|arg| *arg != "--ca-file" && *arg != path(around.ca.path()));
    let (code, out, _) = text(&run(&args, &[]).await);
    assert!(
        code == 1 && out.contains("issuer of its certificate is not trusted") && out.contains("ca_file"),
        "{out}"
    );
    around.proxy.stop().await;
}

#[tokio::test]
async fn token_prints_what_is_known_and_raw_prints_the_token_alone() {
    let around = Surroundings::new().await;
    let (code, out, err) = text(&run(&around.args(&["token"]), &[]).await);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("subject  ") && out.contains("expires  ") && secret_in(&out).is_none(), "{out}");
    let (code, out, err) = text(&run(&around.args(&["token", "--raw"]), &[]).await);
    assert_eq!((code, out.trim_end()), (0, &*around.proxy.standins.ledger.last_issued().unwrap()));
    assert_eq!(secret_in(&err), None);
    around.proxy.stop().await;
}

/// A running binary, its standard error gathered.
pub struct Running {
    pub child: Child,
    stderr: tokio::task::JoinHandle<String>,
    pub proxy: String,
    pub admin: String,
}

impl Running {
    pub async fn start(args: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::begin(command(args, variables)).await
    }

    /// Starts `program` by the commands in `before`, of which each runs the next one in its place.
    pub async fn start_through(
        before: &[&str],
        program: &Path,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(before[0]);
        command.args(&before[1..]).arg(program).args(args);
        command.env_clear().envs(variables.iter().copied());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        Self::begin(command).await
    }

    async fn begin(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let listening = async {
            while !seen.contains("\"Listening\"") {
                let read = lines.read_line(&mut seen).await.unwrap();
                assert!(read > 0, "the proxy ended: {seen}");
            }
        };
        timeout(PATIENCE, listening).await.expect("the proxy listens");
        let line: serde_json::Value = serde_json::from_str(seen.lines().last().unwrap()).unwrap();
        let addr = |name: &str| line[name].as_str().unwrap().to_owned();
        let (proxy, admin) = (addr("proxy.addr"), addr("admin.addr"));
        let stderr = tokio::spawn(async move {
            let mut rest = String::new();
            lines.read_to_string(&mut rest).await.unwrap();
            seen + &rest
        });
        Self { child, stderr, proxy, admin }
    }

    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
    }

    pub async fn ended(mut self) -> (Option<i32>, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        (status.code(), self.stderr.await.unwrap())
    }
}

const ANY_PORT: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

#[tokio::test]
async fn the_binary_serves_survives_sighup_drains_on_sigterm_and_shows_no_secret_at_trace() {
    let around = Surroundings::new().await;
    let mut args = around.args(&ANY_PORT);
    args.extend(["--log-level", "trace", "--log-format", "json"]);
    let running = Running::start(&args, &[]).await;
    let (code, out, err) = text(&run(&["wait", "--max", "20s", "--admin-listen", &running.admin], &[]).await);
    assert_eq!((code, &*out), (0, "ready\n"), "{err}");
    let (code, ..) =
        text(&run(&["health", "--endpoint", "ready", "--admin-listen", &running.admin], &[]).await);
    assert_eq!(code, 0);
    running.signal("-HUP").await;
    around.proxy.standins.ims.exchanges_reach(3).await;

    let slow = client().get(format!("http://{}/hold", running.proxy)).send();
    let slow = tokio::spawn(slow);
    around.proxy.standins.aem.requests_reach(1).await;
    let command_line = std::fs::read(format!("/proc/{}/cmdline", running.child.id().unwrap()));
    assert!(command_line.is_ok_and(|line| secret_in(&String::from_utf8_lossy(&line)).is_none()));
    running.signal("-TERM").await;
    while tokio::net::TcpStream::connect(&running.proxy).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    around.proxy.standins.aem.release();
    assert_eq!(slow.await.unwrap().unwrap().status(), 200, "a request in flight finishes");
    let (code, log) = running.ended().await;
    assert_eq!(code, Some(0));
    assert!(
        log.contains("\"TRACE\"") && log.contains("The credentials were read anew and are in use"),
        "{log}"
    );
    assert_eq!(log.lines().find(|line| secret_in(line).is_some()), None);
    around.proxy.stop().await;
}

#[tokio::test]
async fn credentials_may_come_as_json_or_base64_in_the_environment() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let around = Surroundings::new().await;
    let json = around.proxy.standins.credentials_document.to_string();
    for document in [json.clone(), STANDARD.encode(json)] {
        let mut args = around.args(&["check"]);
        args.retain(|arg| *arg != "--credentials-file" && *arg != path(around.credentials.path()));
        let (code, out, err) = text(&run(&args, &[("AEM_PROXY_CREDENTIALS_JSON", &document)]).await);
        assert_eq!(code, 0, "{out}{err}");
    }
    around.proxy.stop().await;
}

#[tokio::test]
async fn what_is_sent_in_the_clear_to_this_machine_goes_through_no_egress_proxy() {
    let proxy = Proxy::start().await;
    let credentials = file(&proxy.standins.credentials_document.to_string());
    let args =
        ["check", "--upstream", &proxy.standins.aem_origin, "--credentials-file", path(credentials.path())];
    let nobody = "http://127.0.0.1:1";
    let (code, out, err) = text(&run(&args, &[("HTTP_PROXY", nobody), ("ALL_PROXY", nobody)]).await);
    assert_eq!(code, 0, "{out}{err}");
    proxy.stop().await;
}

#[tokio::test]
async fn credentials_that_everybody_can_read_are_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let around = Surroundings::new().await;
    for (mode, warned) in [(0o644, true), (0o600, false)] {
        std::fs::set_permissions(around.credentials.path(), PermissionsExt::from_mode(mode)).unwrap();
        let (_, _, err) = text(&run(&around.args(&["check", "--offline"]), &[]).await);
        assert_eq!(err.contains("Every user of this machine can read the credentials"), warned, "{err}");
    }
    around.proxy.stop().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_so() {
    let around = Surroundings::new().await;
    let taken = around.proxy.addr.to_string();
    let (code, _, err) = text(&run(&around.args(&["--listen", &taken, "--admin-listen", "off"]), &[]).await);
    assert!(code == 1 && err.contains(&format!("cannot listen at {taken}")), "{err}");
    around.proxy.stop().await;
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_never_removed() {
    let around = Surroundings::new().await;
    let precious = file("precious");
    let listen = format!("unix:{}", precious.path().display());
    let (code, _, err) = text(&run(&around.args(&["--listen", &listen, "--admin-listen", "off"]), &[]).await);
    assert!(code == 1 && err.contains("cannot listen at unix:"), "{err}");
    assert_eq!(std::fs::read_to_string(precious.path()).unwrap(), "precious");
    around.proxy.stop().await;
}

#[tokio::test]
async fn a_unix_socket_and_both_halves_of_localhost_are_listened_at() {
    let around = Surroundings::new().await;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("proxy.sock");
    let listen = format!("unix:{}", socket.display());
    for round in 0..2 {
        let args =
            around.args(&["--listen", &listen, "--admin-listen", "localhost:0", "--log-format", "json"]);
        let running = Running::start(&args, &[]).await;
        let admin = running.admin.split(',').next().unwrap().to_owned();
        let (code, ..) = text(&run(&["wait", "--admin-listen", &admin], &[]).await);
        assert_eq!(code, 0);
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        use tokio::io::AsyncWriteExt;
        stream
            .write_all(b"GET /api/assets.json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        // The first round is killed and leaves its socket file behind.
        if round == 0 {
            running.signal("-KILL").await;
            running.ended().await;
            assert!(socket.exists());
        } else {
            running.signal("-TERM").await;
            assert_eq!(running.ended().await.0, Some(0));
            assert!(!socket.exists());
        }
    }
    around.proxy.stop().await;
}

#[tokio::test]
async fn demo_prints_curl_lines_that_work() {
    let args = ["demo", "--aem-listen", "127.0.0.1:0", "--ims-listen", "127.0.0.1:0"];
    let mut running =
        Running::start(&[&args[..], &ANY_PORT].concat(), &[("AEM_PROXY_UPSTREAM", "misleading")]).await;
    let mut lines = BufReader::new(running.child.stdout.take().unwrap()).lines();
    let mut tried = 0;
    while let Some(line) = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap() {
        if let Some(rest) = line.trim().strip_prefix("curl ") {
            let url = rest.split_whitespace().find(|word| word.starts_with("http")).unwrap();
            // Port 0 of the configuration became another one.
            let url = url.replace("http://127.0.0.1:0/status", &format!("http://{}/status", running.admin));
            let url = url.replace("http://127.0.0.1:0/", &format!("http://{}/", running.proxy));
            let expected = if line.contains("401") { 401 } else { 200 };
            assert_eq!(client().get(&url).send().await.unwrap().status(), expected, "{line}");
            tried += 1;
        }
        if line.contains("Ctrl-C") {
            break;
        }
    }
    assert_eq!(tried, 4);
    running.signal("-INT").await;
    assert_eq!(running.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_proxy_without_admin_listener_and_token_runs_on() {
    let socket = tempfile::tempdir().unwrap();
    let listen = socket.path().join("proxy.sock");
    let mut child = Command::new(binary())
        .arg("run")
        .env_clear()
        .env("AEM_PROXY_UPSTREAM", "http://localhost:1")
        .env("AEM_PROXY_LISTEN", format!("unix:{}", listen.display()))
        .env("AEM_PROXY_ADMIN__LISTEN", "off")
        .env("AEM_PROXY_AUTH", "none")
        .env("AEM_PROXY_TIMEOUTS__RECONNECT", "0s")
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let asking = async {
        while tokio::net::UnixStream::connect(&listen).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut app = tokio::net::UnixStream::connect(&listen).await.unwrap();
        app.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        app.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    };
    timeout(PATIENCE, asking).await.expect("it serves");
    assert!(child.try_wait().unwrap().is_none(), "it has ended");
}
