//! What IMS, or whoever stands in its place, answers.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use aem_auth_proxy::{
    credentials::Credentials,
    fuzzing,
    ims::{Grant, ImsError, Retry},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::leaks::Secrets;

/// The input is an answer: `STATUS oauth` or `STATUS jwt`, fields, an empty line, the body. It brings a grant or an error
/// that says what to do next; nothing of the body is shown.
pub fn check(input: &[u8]) {
    let answer = Answer::read(input);
    let now = SystemTime::UNIX_EPOCH + NOW;
    let credentials = if answer.oauth { &OAUTH } else { &JWT };
    let mut secrets = secrets(answer.body);
    // It is for Adobe's support, and shown.
    let debug_id = answer.fields.get("x-debug-id").and_then(|id| id.to_str().ok());
    secrets.remove(debug_id.unwrap_or_default());
    match fuzzing::answer(credentials, answer.status, &answer.fields, answer.body, now) {
        Ok(grant) => check_grant(&grant, answer.status, now, &secrets),
        Err(error) => check_error(&error, answer.status, &secrets),
    }
}

fn check_grant(grant: &Grant, status: u16, now: SystemTime, secrets: &Secrets) {
    assert!((200..300).contains(&status), "a grant of {status}");
    assert!(grant.issued_at == now && grant.expires_at > now, "a grant that has ended");
    assert!(grant.lifetime() <= LIFETIME_MAX, "a grant for {:?}", grant.lifetime());
    secrets.check_debug(&format!("{grant:?}"));
    let field = grant.authorization.as_bytes();
    assert!(field.starts_with(b"Bearer ") && field.iter().all(|byte| !b"\r\n\0".contains(byte)));
}

fn check_error(error: &ImsError, status: u16, secrets: &Secrets) {
    let hint = error.hint().map(|hint| hint.to_string()).unwrap_or_default();
    let message = format!("{error} {hint}");
    secrets.check_message(&message);
    secrets.check_debug(&format!("{error:?}"));
    assert!(message.len() < MESSAGE_MAX && !message.contains(['\r', '\n']), "{message}");
    match error {
        ImsError::Throttled { .. } => assert_eq!(status, 429),
        ImsError::Refused { .. } => assert!(matches!(status, 200..=299 | 400..=499), "refused with {status}"),
        ImsError::Unavailable { .. } => assert!(status >= 200, "unavailable with {status}"),
        ImsError::Malformed { .. } => assert!(!matches!(status, 429 | 500..=599), "malformed with {status}"),
        other => panic!("an answer that is none: {other}"),
    }
    if let Retry::After(wait) = error.retry() {
        assert!(wait <= WAIT_MAX, "asked again after {wait:?}");
    }
}

/// An answer in the form of the input.
struct Answer<'i> {
    status: u16,
    oauth: bool,
    fields: HeaderMap,
    body: &'i [u8],
}

impl<'i> Answer<'i> {
    fn read(input: &'i [u8]) -> Self {
        let (first, mut rest) = line(input);
        let first = String::from_utf8_lossy(first);
        let (status, kind) = first.split_once(' ').unwrap_or((&first, ""));
        let mut fields = HeaderMap::new();
        loop {
            let (field, behind) = line(rest);
            rest = behind;
            if field.is_empty() {
                break;
            }
            let mut parts = field.splitn(2, |byte| *byte == b':');
            let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let value = HeaderValue::from_bytes(value.trim_ascii());
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
                fields.append(name, value);
            }
        }
        Self { status: status.parse().unwrap_or(200), oauth: kind == "oauth", fields, body: rest }
    }
}

/// What stands before the first line end, and behind it.
fn line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, &[]),
    }
}

/// Everything but the error's own code, where that is a word.
fn secrets(body: &[u8]) -> Secrets {
    let mut secrets = Secrets::default();
    let text = String::from_utf8_lossy(body);
    secrets.add(&text);
    if let Ok(Value::Object(members)) = serde_json::from_str(&text)
        && let Some(Value::String(code)) = members.get("error")
    {
        secrets.remove(code);
    }
    secrets
}

/// An evening in November 1994, as in the examples of RFC 9110.
const NOW: Duration = Duration::from_secs(784_111_777);

/// Two days: no token lives longer.
const LIFETIME_MAX: Duration = Duration::from_secs(48 * 3600);

const WAIT_MAX: Duration = Duration::from_secs(3600);

const MESSAGE_MAX: usize = 400;

static OAUTH: LazyLock<Credentials> = LazyLock::new(|| {
    let document = br#"{"client_id": "client", "client_secret": "p8e-made-up", "org_id": "A@AdobeOrg"}"#;
    Credentials::parse(document, None).expect("a document")
});

static JWT: LazyLock<Credentials> = LazyLock::new(|| {
    let document = include_bytes!("../../tests/fixtures/service_token.json");
    Credentials::parse(document, None).expect("a document")
});
