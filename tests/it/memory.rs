//! The binary keeps its memory to itself: no core dump, no reader of the same user, no secret in a panic, none in swap.

#![expect(clippy::print_stderr, reason = "what is not tried is to be seen")]

use std::{
    fs,
    os::unix::{
        fs::{FileExt, PermissionsExt},
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use aem_auth_proxy::standin::StandIns;
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{
    commands::path,
    harness::{PATIENCE, Setup, binary, client},
    leaks::Secrets,
    log,
};

/// What no other user of this machine may learn.
const PASSWORD: &str = "a-password-of-the-environment";

/// What stands in front of AEM knows us by.
const EDGE_KEY: &str = "an-edge-key-of-the-configuration";

/// The binary as an ordinary user runs it, with all limits lifted that are not its own.
struct Ordinary {
    dir: tempfile::TempDir,
    child: Child,
}

impl Ordinary {
    /// Starts it as `nobody` where the tests are root's, and else as who they are.
    async fn start(variables: &[(&str, &str)], limits: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let program = dir.path().join("aem-auth-proxy");
        if fs::hard_link(binary(), &program).is_err() {
            fs::copy(binary(), &program).unwrap();
        }
        let mut command = Command::new("prlimit");
        command
            .args(limits)
            .arg("--")
            .args(ordinary())
            .arg(program)
            .env_clear()
            .envs(variables.iter().copied());
        for (name, value) in [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("AEM_PROXY_UPSTREAM", "http://127.0.0.1:1"),
            ("AEM_PROXY_LISTEN", "127.0.0.1:0"),
            ("AEM_PROXY_ADMIN__LISTEN", "off"),
            ("AEM_PROXY_AUTH", "basic"),
            ("AEM_PROXY_BASIC__PASSWORD", PASSWORD),
        ] {
            command.env(name, value);
        }
        let stderr = fs::File::create(dir.path().join("stderr")).unwrap();
        command.current_dir(dir.path()).stdin(Stdio::null()).stderr(stderr).kill_on_drop(true);
        let this = Self { child: command.spawn().unwrap(), dir };
        this.logged("Listening").await;
        this
    }

    async fn logged(&self, words: &str) {
        let logged = async {
            while !self.log().contains(words) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, logged).await.unwrap_or_else(|_| panic!("{words}: {}", self.log()));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().expect("it runs").to_string()).join(file)
    }

    /// What another process of the same user finds in a file below `/proc/PID`.
    async fn read_by_its_user(&self, file: &str) -> Output {
        let mut words = ordinary();
        words.extend(["head", "-c", "100000"].map(str::to_owned));
        let (program, args) = words.split_first().unwrap();
        Command::new(program).args(args).arg(self.proc(file)).output().await.unwrap()
    }

    /// How it ends of this signal, and whether a core is there.
    async fn ended_by(mut self, signal: &str) -> (ExitStatus, bool) {
        let pid = self.child.id().expect("it runs").to_string();
        let ending = async {
            loop {
                // The runtime takes the first SIGSEGV for a stack that has overflowed, and looks.
                let _ = Command::new("kill").args([signal, &pid]).stderr(Stdio::null()).status().await;
                if let Ok(ended) = timeout(Duration::from_millis(200), self.child.wait()).await {
                    break ended.unwrap();
                }
            }
        };
        let ended = timeout(PATIENCE, ending).await.unwrap_or_else(|_| panic!("{signal} does not end it"));
        let names = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let is_core = |name: std::ffi::OsString| name.to_string_lossy().starts_with("core");
        (ended, ended.core_dumped() || names.into_iter().any(is_core))
    }
}

/// What makes an ordinary user of root, in front of a command.
fn ordinary() -> Vec<String> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let words = if is_root {
        vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    } else {
        vec!["env"]
    };
    words.into_iter().map(str::to_owned).collect()
}

/// Whether this system lets the tests become somebody else and lift limits; says so where it does not.
async fn is_possible() -> bool {
    let mut command = std::process::Command::new("prlimit");
    command.args(["--core=unlimited", "--"]).args(ordinary()).arg("true").process_group(0);
    let tried = Command::from(command).output().await;
    let possible = cfg!(target_os = "linux") && tried.is_ok_and(|tried| tried.status.success());
    if !possible {
        eprintln!(
            "SKIPPED: no prlimit and setpriv here, or they may not lift limits: core dumps are not tried"
        );
    }
    possible
}

const LIFTED: [&str; 1] = ["--core=unlimited"];
const OPEN: [(&str, &str); 1] = [("AEM_PROXY_SECRETS__CORE_DUMPS", "true")];

#[tokio::test]
async fn no_core_is_dumped_whatever_the_limits_are() {
    if !is_possible().await {
        return;
    }
    let (ended, control) = Ordinary::start(&OPEN, &LIFTED).await.ended_by("-ABRT").await;
    assert_eq!(ended.signal(), Some(6));
    if !control {
        eprintln!("SKIPPED: this system writes no core dumps at all, so that none is written proves little");
    }
    // Not SIGQUIT: whoever starts the tests in the background may have it ignored, and all that they start does so, too.
    for signal in ["-ABRT", "-SEGV", "-TRAP", "-ILL"] {
        let (ended, dumped) = Ordinary::start(&[], &LIFTED).await.ended_by(signal).await;
        assert!(ended.signal().is_some() && !dumped, "{signal}: {ended}");
    }
}

#[tokio::test]
async fn no_other_process_of_the_user_reads_its_memory_or_its_environment() {
    if !is_possible().await {
        return;
    }
    let open = Ordinary::start(&OPEN, &LIFTED).await;
    let environment = open.read_by_its_user("environ").await;
    assert!(String::from_utf8_lossy(&environment.stdout).contains(PASSWORD), "so it would be read");
    let denied = |output: &Output| String::from_utf8_lossy(&output.stderr).contains("Permission denied");
    assert!(!denied(&open.read_by_its_user("mem").await), "so it would be opened");
    assert!(open.log().contains("secrets.core_dumps is on"), "{}", open.log());

    let closed = Ordinary::start(&[], &LIFTED).await;
    for file in ["environ", "mem", "maps", "auxv", "io"] {
        let output = closed.read_by_its_user(file).await;
        assert!(denied(&output) && output.stdout.is_empty(), "{file}: {output:?}");
    }
    // What tells of its size is for everybody, and its command line holds no secret.
    let status = closed.read_by_its_user("status").await;
    assert!(String::from_utf8_lossy(&status.stdout).contains("VmRSS:"));
    let line = closed.read_by_its_user("cmdline").await.stdout;
    assert!(!line.is_empty() && !String::from_utf8_lossy(&line).contains(PASSWORD));
}

#[tokio::test]
async fn secrets_are_locked_into_memory_and_where_that_is_not_allowed_all_works_without() {
    if !is_possible().await {
        return;
    }
    let locked = |status: &[u8]| {
        let status = String::from_utf8_lossy(status).into_owned();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let trace = [("AEM_PROXY_LOG__LEVEL", "debug")];
    let proxy = Ordinary::start(&trace, &["--memlock=1048576"]).await;
    let kilobytes = locked(&proxy.read_by_its_user("status").await.stdout);
    assert!(
        (8..200).contains(&kilobytes),
        "the password and what is made of it, and nothing else: {kilobytes}"
    );
    assert!(!proxy.log().contains("cannot be locked"), "{}", proxy.log());

    let proxy = Ordinary::start(&trace, &["--memlock=0"]).await;
    assert_eq!(locked(&proxy.read_by_its_user("status").await.stdout), 0);
    proxy.logged("Memory of secrets cannot be locked, and may be swapped out").await;
}

/// The binary with tokens in hand, at trace level.
async fn with_tokens(dir: &Path, standins: &StandIns, more: &[(&str, &str)]) -> Child {
    let document = dir.join("document.json");
    fs::write(&document, standins.credentials_document.to_string()).unwrap();
    fs::write(dir.join("ca.pem"), standins.ca_pem.as_deref().unwrap_or_default()).unwrap();
    let stderr = fs::File::create(dir.join("stderr")).unwrap();
    let mut command = Command::new(binary());
    command.env_clear().stdin(Stdio::null()).stderr(stderr).kill_on_drop(true);
    for (name, value) in [
        ("AEM_PROXY_UPSTREAM", standins.aem_origin.as_str()),
        ("AEM_PROXY_LISTEN", "127.0.0.1:0"),
        ("AEM_PROXY_ADMIN__LISTEN", "127.0.0.1:0"),
        ("AEM_PROXY_CREDENTIALS_FILE", path(&document)),
        ("AEM_PROXY_LOG__LEVEL", "trace"),
    ] {
        command.env(name, value);
    }
    command.envs(more.iter().copied());
    let child = command.spawn().unwrap();
    standins.ims.exchanges_reach(1).await;
    let refreshed = async {
        while !fs::read_to_string(dir.join("stderr")).unwrap().contains("Token refreshed") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, refreshed).await.expect("the token is there");
    child
}

#[tokio::test]
async fn a_panic_with_its_backtrace_shows_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let standins = Setup::default().start_standins().await;
    let document = standins.credentials_document.to_string();
    let panics = [
        ("AEM_PROXY_CREDENTIALS_FILE", ""),
        ("AEM_PROXY_CREDENTIALS_JSON", &*document),
        ("AEM_AUTH_PROXY_PANIC_IN", "hangup"),
        ("RUST_BACKTRACE", "full"),
    ];
    let mut child = with_tokens(dir.path(), &standins, &panics).await;
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
    let ended = timeout(PATIENCE, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(ended.code(), Some(1));
    let said = fs::read_to_string(dir.path().join("stderr")).unwrap();
    for words in ["TRACE", "A task panicked", "deliberate.rs:", "stack backtrace:", "aem_auth_proxy::app::"] {
        assert!(said.contains(words), "{words} in {said}");
    }
    let seen = Secrets::of(&standins).seen_in(&said);
    assert!(seen.is_empty(), "{seen:?}");
    assert_eq!(log::secret_in(&said), None, "not even what the panic says");
}

/// How often `secret` stands in the memory of a process.
fn times_in_memory(pid: u32, secret: &[u8]) -> usize {
    let finder = memchr::memmem::Finder::new(secret);
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut times = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; (to - from) as usize];
        // What has gone meanwhile, or is none of the process's own, is passed over.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            times += finder.find_iter(&bytes).count();
        }
    }
    times
}

/// Waits until it is so: a connection that is done with is freed by a task of its own.
async fn until_in_memory(pid: u32, what: &str, secret: &[u8], times: usize) {
    let waiting = async {
        while times_in_memory(pid, secret) != times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("{what} is there {} times", times_in_memory(pid, secret)));
}

#[tokio::test]
async fn an_old_token_is_wiped_once_the_last_request_lets_go_and_no_secret_lies_about() {
    let dir = tempfile::tempdir().unwrap();
    let standins = Setup::default().tls().start_standins().await;
    let ca = dir.path().join("ca.pem");
    // Who is not root may look into a child that is open.
    let child = with_tokens(dir.path(), &standins, &[OPEN[0], ("AEM_PROXY_CA_FILE", path(&ca))]).await;
    let pid = child.id().unwrap();
    if fs::File::open(format!("/proc/{pid}/mem")).is_err() {
        return eprintln!("SKIPPED: the memory of a child cannot be read here: it is not looked through");
    }
    let log = fs::read_to_string(dir.path().join("stderr")).unwrap();
    let listening = log.lines().find(|line| line.contains("\"Listening\"")).unwrap();
    let listening: serde_json::Value = serde_json::from_str(listening).unwrap();
    let origin = format!("http://{}", listening["proxy.addr"].as_str().unwrap());
    let old = standins.ledger.last_issued().unwrap();
    let old = &old.as_bytes()[old.len() - 40..];
    assert!(times_in_memory(pid, old) > 0, "the search finds what is there");

    let held = tokio::spawn(client().get(format!("{origin}/hold")).send());
    standins.aem.requests_reach(1).await;
    assert!(Command::new("kill").args(["-HUP", &pid.to_string()]).status().await.unwrap().success());
    standins.ims.exchanges_reach(2).await;
    let renewed = async {
        while !fs::read_to_string(dir.path().join("stderr")).unwrap().contains("\"token.generation\":2") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, renewed).await.expect("the new token is in use");
    assert!(times_in_memory(pid, old) > 0, "a request may have to be sent again with it");
    standins.aem.release();
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    until_in_memory(pid, "the old token", old, 0).await;

    let new = standins.ledger.last_issued().unwrap();
    until_in_memory(pid, "the token", &new.as_bytes()[new.len() - 40..], 1).await;
    let document = &standins.credentials_document["integration"];
    let secret = document["technicalAccount"]["clientSecret"].as_str().unwrap();
    until_in_memory(pid, "the client secret", secret.as_bytes(), 1).await;
    let key = document["privateKey"].as_str().unwrap();
    // Behind its middle there are the primes; in front of it stands what everybody may know.
    let line = key.lines().filter(|line| line.len() == 64).nth(15).unwrap();
    until_in_memory(pid, "a line of the key", line.as_bytes(), 0).await;
    let bytes = STANDARD.decode(line).unwrap();
    until_in_memory(pid, "the private key", &bytes, 1).await;
}

#[tokio::test]
async fn what_the_configuration_says_of_secrets_is_nowhere_else_once_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("aem-auth-proxy.toml");
    let text = format!(
        r#"
        admin.listen = "off"
        secrets.core_dumps = true
        credentials.author = {{ user = "admin", password = "{PASSWORD}" }}
        [proxies.author]
        listen = "127.0.0.1:0"
        upstream = "http://127.0.0.1:1"
        credentials = "author"
        headers.x-edge-key = "{EDGE_KEY}"
        "#
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(binary());
    command.env_clear().args(["run", "--config", path(&config)]).stdin(Stdio::null());
    let stderr = dir.path().join("stderr");
    let child = command.stderr(fs::File::create(&stderr).unwrap()).kill_on_drop(true).spawn().unwrap();
    let listening = async {
        while !fs::read_to_string(&stderr).unwrap().contains("Listening") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, listening).await.unwrap_or_else(|_| panic!("{}", fs::read_to_string(&stderr).unwrap()));
    let pid = child.id().unwrap();
    if fs::File::open(format!("/proc/{pid}/mem")).is_err() {
        return eprintln!("SKIPPED: the memory of a child cannot be read here: it is not looked through");
    }
    let pair = STANDARD.encode(format!("admin:{PASSWORD}"));
    for (what, times) in [(PASSWORD, 0), (&*pair, 1), (EDGE_KEY, 1)] {
        until_in_memory(pid, what, what.as_bytes(), times).await;
    }
}
