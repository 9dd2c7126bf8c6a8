//! The binary keeps its memory to itself: no core dump, no reader of the same user, no secret in a panic, none in swap.

use std::{
    fs,
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use aem_auth_proxy::standin::StandIns;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{
    harness::{PATIENCE, Setup, binary},
    leaks::Secrets,
};

/// What no other user of this machine may learn.
const PASSWORD: &str = "a-password-of-the-environment";

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
        let ended = loop {
            // The runtime takes the first SIGSEGV for a stack that has overflowed, and looks.
            let _ = Command::new("kill").args([signal, &pid]).stderr(Stdio::null()).status().await;
            if let Ok(ended) = timeout(Duration::from_millis(200), self.child.wait()).await {
                break ended.unwrap();
            }
        };
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
    for signal in ["-ABRT", "-SEGV", "-QUIT", "-ILL"] {
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
async fn with_tokens(dir: &Path, standins: &StandIns) -> Child {
    let stderr = fs::File::create(dir.join("stderr")).unwrap();
    let mut command = Command::new(binary());
    command.env_clear().stdin(Stdio::null()).stderr(stderr).kill_on_drop(true);
    for (name, value) in [
        ("AEM_PROXY_UPSTREAM", standins.aem_origin.as_str()),
        ("AEM_PROXY_LISTEN", "127.0.0.1:0"),
        ("AEM_PROXY_ADMIN__LISTEN", "127.0.0.1:0"),
        ("AEM_PROXY_CREDENTIALS_JSON", &standins.credentials_document.to_string()),
        ("AEM_PROXY_LOG__LEVEL", "trace"),
        ("AEM_AUTH_PROXY_PANIC_ON_SIGHUP", "1"),
        ("RUST_BACKTRACE", "full"),
    ] {
        command.env(name, value);
    }
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
    let mut child = with_tokens(dir.path(), &standins).await;
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
    let ended = timeout(PATIENCE, child.wait()).await.expect("it ends").unwrap();
    assert_eq!(ended.code(), Some(1));
    let said = fs::read_to_string(dir.path().join("stderr")).unwrap();
    for words in ["TRACE", "asked to panic", "stack backtrace:", "aem_auth_proxy::app::"] {
        assert!(said.contains(words), "{words} in {said}");
    }
    let seen = Secrets::of(&standins).seen_in(&said);
    assert!(seen.is_empty(), "{seen:?}");
}
