//! The whole suite's log, at trace level, searched for secrets while it is written.

use std::{
    io::{self, Write},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tracing_subscriber::{
    filter::Targets, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    harness::{Setup, with_upstream},
    leaks::Secrets,
};

/// Looks at every line of the log.
pub struct Watch;

static LEAK: Mutex<Option<String>> = Mutex::new(None);
static LINES: AtomicUsize = AtomicUsize::new(0);
/// All of it: some tens of megabytes.
static WHOLE: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static KEPT: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What no log may hold: the beginning of every JWT (access tokens and assertions), of the stand-in's client
/// secrets and basic credentials, and the first line of the fixture's private key, of which any cut of 24 characters
/// counts.
pub fn secret_in(text: &str) -> Option<&'static str> {
    let key = include_str!("../fixtures/private_key.pem").lines().nth(1).expect("a key has lines");
    let parts = (0..key.len() - 24).step_by(8).map(|start| &key[start..start + 24]);
    let found = ["p8e-", "s8e-", "PRIVATE KEY", "YWRtaW46"].into_iter().find(|secret| text.contains(secret));
    let found = found.or_else(|| begins_jwt(text).then_some("eyJ"));
    found.or_else(|| parts.into_iter().find(|part| text.contains(part)))
}

/// Whether there is the beginning of a JWT: the name of a temporary file has up to six random characters, which may be `eyJ`, too.
fn begins_jwt(text: &str) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    text.match_indices("eyJ")
        .any(|(at, _)| text.as_bytes()[at..].iter().take_while(|byte| is_base64(byte)).count() > 6)
}

#[test]
fn the_beginning_of_a_jwt_is_told_from_the_name_of_a_file() {
    assert!(begins_jwt("token=eyJhbGc"));
    assert!(!begins_jwt("/tmp/.tmpHeyJSI/credentials.json"));
    assert!(!begins_jwt("/tmp/.tmpeyJabc/credentials.json"));
}

/// Sends every event of every library to the watch.
pub fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // HTTP/2 tells of each step with each frame: large bodies would take minutes.
        let filter: Targets = "trace,h2=debug".parse().expect("levels per module");
        let lines = tracing_subscriber::fmt::layer().with_writer(Watch).with_ansi(false);
        tracing_subscriber::registry().with(filter).with(lines).init();
    });
}

/// Fails when a secret was logged so far, by whichever test.
#[track_caller]
pub fn assert_no_secret() {
    let leak = LEAK.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(leak.is_none(), "a secret was logged: {leak:?}");
}

/// How much has been logged so far, by all tests.
pub fn position() -> usize {
    WHOLE.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// Fails when one of these secrets was logged since then, by whichever test.
#[track_caller]
pub fn assert_holds_none_of(secrets: &Secrets, since: usize) {
    let log = WHOLE.lock().unwrap_or_else(PoisonError::into_inner)[since..].to_vec();
    let seen = secrets.search().seen_in(&log);
    assert!(seen.is_empty(), "secrets in the log:\n{}", seen.join("\n"));
}

/// Logs a text as a library would: how the search itself is tried.
pub fn write(text: &str) {
    tracing::trace!(text, "Out of the ordinary");
}

/// How many of our own warnings and errors hold `part`.
pub fn count(part: &str) -> usize {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.iter().filter(|line| line.contains(part)).count()
}

/// The lines that hold `part`, logged since then by whichever test.
pub fn lines_with(part: &str, since: usize) -> Vec<String> {
    let log = WHOLE.lock().unwrap_or_else(PoisonError::into_inner)[since..].to_vec();
    let log = String::from_utf8_lossy(&log);
    log.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
}

impl Write for Watch {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        LINES.fetch_add(1, Relaxed);
        WHOLE.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(line);
        if secret_in(&text).is_some() {
            LEAK.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| text.to_string());
        }
        if text.contains(" WARN ") || text.contains("ERROR ") {
            KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(text.into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Watch {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

#[test]
fn a_secret_would_be_found() {
    let key = include_str!("../fixtures/private_key.pem").lines().nth(1).unwrap();
    for line in [
        "token=eyJhbGciOi",
        "secret p8e-123",
        "secret s8e-123",
        "-----BEGIN RSA PRIVATE KEY-----",
        "Basic YWRtaW46YWRtaW4=",
        key,
    ] {
        assert!(secret_in(line).is_some(), "{line}");
    }
    assert!(secret_in("Token refreshed token.generation=1").is_none());
}

#[tokio::test]
async fn the_names_of_dropped_trailers_are_logged_once_for_each_message() {
    let since = position();
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    let (names, value) =
        ("x-dropped-first: {}\r\ndigest: 1\r\nX-Dropped-Second: {}\r\n\r\n", "not-for-the-log");
    let trailers = names.replace("{}", value);
    app.send(format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n{trailers}"
    ))
    .await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n0\r\ndigest: 1\r\n\r\n").await;
    aem.send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{trailers}"))
        .await;
    app.until("\r\n0\r\ndigest: 1\r\n\r\n").await;
    let lines = lines_with("x-dropped-first, X-Dropped-Second", since);
    let of = |direction: &str| lines.iter().filter(|line| line.contains(direction)).count();
    assert_eq!(
        (of("direction=\"request\""), of("direction=\"response\""), lines.len()),
        (1, 1, 2),
        "{lines:#?}"
    );
    assert!(lines.iter().all(|line| line.contains("DEBUG") && line.contains("dropped=2")), "{lines:#?}");
    // Trailers that pass are not mentioned.
    app.send("POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\nDigest: x-dropped-first\r\n\r\n")
        .await;
    aem.until("Digest: x-dropped-first\r\n\r\n").await;
    assert_eq!(lines_with("x-dropped-first", since).len(), 2);
    assert!(lines_with(value, since).is_empty());
    proxy.stop().await;
}

#[tokio::test]
async fn the_watch_sees_the_libraries_at_trace_level() {
    let proxy = crate::harness::Proxy::start().await;
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    assert!(LINES.load(Relaxed) > 25, "only {} lines", LINES.load(Relaxed));
    proxy.stop().await;
}
