//! AEM's response head, and what the client gets of it.

use aem_auth_proxy::fuzzing::{self, Answered, Framed, Question};

use super::strict::{Head, Naive, lower};

/// The input is what AEM sends. If it is a response, the client gets one that can be read in one way alone, with nothing
/// that is between AEM and us, and ends its body where AEM does.
pub fn check(input: &[u8]) {
    for question in QUESTIONS {
        let Ok(Some(answered)) = fuzzing::answered(input, question) else { continue };
        let came = Naive::read(&input[..answered.bytes]);
        let sent = Head::of_ours(&answered.written);
        assert!(sent.start.starts_with(&format!("HTTP/1.1 {:03} ", answered.status)), "{}", sent.start);
        check_framing(&came, &sent, &answered, question);
        check_hops(&came, &sent, &answered, question);
        check_rest(&came, &sent, &answered, question);
    }
}

fn check_framing(came: &Naive<'_>, sent: &Head<'_>, answered: &Answered, question: Question<'_>) {
    let (lengths, codings) = (sent.all("content-length"), sent.all("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "framed twice");
    assert!(codings.iter().all(|coding| *coding == b"chunked"), "another coding");
    let bodiless = question.head || matches!(answered.status, 100..200 | 204 | 304);
    assert!(!bodiless || answered.framed == Framed::Exact(0), "a body where none may be");
    if matches!(answered.status, 100..200 | 204) {
        assert!(lengths.is_empty() && codings.is_empty(), "a length where none may be");
    }
    if bodiless {
        return;
    }
    assert_eq!(answered.chunked, !codings.is_empty(), "chunks that are not said");
    assert!(!answered.chunked || question.minor > 0, "chunks for a client that knows none");
    let said = lengths.first().map(|said| String::from_utf8_lossy(said).parse::<u64>());
    match answered.framed {
        Framed::Exact(length) if !answered.renamed => assert_eq!(said, Some(Ok(length)), "another length"),
        _ => assert_eq!(said, None, "a length that nobody knows"),
    }
    // A body ends with a length, with its last chunk, or with the connection.
    assert_eq!(answered.closes, said.is_none() && !answered.chunked, "no end");
    let coded = !came.all("transfer-encoding").is_empty();
    assert_eq!(answered.framed == Framed::Chunked, coded, "another framing");
}

/// Between us and the client is what we say.
fn check_hops(came: &Naive<'_>, sent: &Head<'_>, answered: &Answered, question: Question<'_>) {
    for name in ["keep-alive", "proxy-connection", "te"] {
        assert!(sent.all(name).is_empty(), "{name} goes on");
    }
    let connection = sent.all("connection");
    let upgrades = connection == [b"upgrade"];
    assert!(!upgrades || answered.status == 101, "an upgrade with {}", answered.status);
    assert_eq!(sent.all("upgrade").len(), usize::from(upgrades), "Upgrade without Connection");
    if !upgrades {
        let expected: &[&[u8]] = match question {
            _ if answered.closes || !question.keep_alive => &[b"close"],
            Question { minor: 0, .. } => &[b"keep-alive"],
            _ => &[],
        };
        assert_eq!(connection, expected, "Connection");
    }
    let ours = |name: &str| {
        OUR_OWN.contains(&name)
            || question.web_origin.is_some() && (name.starts_with("access-control-") || name == "vary")
    };
    for named in came.members("connection").iter().filter(|named| !ours(named)) {
        assert!(sent.all(named).is_empty(), "{named} goes on, which Connection names");
    }
    if let Some(origin) = question.web_origin {
        assert_eq!(sent.all("access-control-allow-origin"), [origin.as_bytes()], "another origin may read");
    }
}

/// All else goes on as it came, in its order; of what names AEM, as much.
fn check_rest(came: &Naive<'_>, sent: &Head<'_>, answered: &Answered, question: Question<'_>) {
    let named = came.members("connection");
    let passes = |name: &str| {
        let special = OUR_OWN.contains(&name) || HOPS.contains(&name) || NAMING.contains(&name);
        let cors = question.web_origin.is_some() && (name.starts_with("access-control-") || name == "vary");
        let special = special || OF_HOST.contains(&name) || POLICIES.contains(&name);
        let of_bytes = answered.renamed && OF_BYTES.contains(&name);
        !(special || cors || of_bytes || named.iter().any(|named| named == name))
    };
    assert_eq!(came.those(passes), sent.those(passes));
    for name in OF_HOST {
        assert!(sent.all(name).is_empty(), "{name} is AEM's own");
    }
    for value in POLICIES.iter().flat_map(|name| sent.all(name)) {
        let value = lower(value);
        let mut directives = value.split([',', ';']).map(str::trim_ascii);
        assert!(!directives.any(|own| own == "upgrade-insecure-requests"), "{value}");
    }
    for name in NAMING.into_iter().filter(|name| !named.iter().any(|named| named == name)) {
        let (mut before, after) = (came.all(name), sent.all(name));
        before.retain(|value| name != "set-cookie" || !sets_user(value));
        assert_eq!(before.len(), after.len(), "{name}");
        let others = |value: &&&[u8]| !lower(value).contains(HOST) && name != "set-cookie";
        for (before, after) in before.iter().zip(&after).filter(|(before, _)| others(before)) {
            assert_eq!(before, after, "{name} is renamed and does not name AEM");
        }
    }
    for location in sent.all("location") {
        assert!(!location.starts_with(b"https://aem.example/"), "the client is sent around us");
    }
    for cookie in sent.all("set-cookie") {
        let mut attributes = cookie.split(|byte| *byte == b';').skip(1).map(|part| lower(part.trim_ascii()));
        assert!(
            !attributes.any(|part| part == "secure" || part.starts_with("domain=")),
            "a cookie that is not kept"
        );
    }
}

/// Whether one of the names of cookies that say who the user is stands where a name does.
fn sets_user(value: &[u8]) -> bool {
    lower(value).split(',').any(|cookie| {
        let name = cookie.split(['=', ';']).next().unwrap_or_default();
        let mut words = name.split(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c)));
        let last = words.rfind(|word| !word.is_empty());
        last.is_some_and(|word| ["login-token", "sling.sudo", "sling.formauth"].contains(&word))
    })
}

const GET: Question<'static> = Question {
    head: false,
    minor: 1,
    keep_alive: true,
    web_origin: None,
    renamed: false,
    upstream: "https://aem.example",
    local: "http://localhost:8080",
};

const QUESTIONS: [Question<'static>; 5] = [
    GET,
    Question { head: true, ..GET },
    Question { minor: 0, ..GET },
    Question { minor: 0, keep_alive: false, renamed: true, ..GET },
    Question { web_origin: Some("http://localhost:3000"), renamed: true, ..GET },
];

const HOST: &str = "aem.example";

const OUR_OWN: [&str; 5] = ["connection", "upgrade", "via", "content-length", "transfer-encoding"];

const HOPS: [&str; 3] = ["keep-alive", "proxy-connection", "te"];

/// What AEM says of its own host.
const OF_HOST: [&str; 10] = [
    "strict-transport-security",
    "alt-svc",
    "alternate-protocol",
    "public-key-pins",
    "public-key-pins-report-only",
    "expect-ct",
    "nel",
    "report-to",
    "reporting-endpoints",
    "clear-site-data",
];

const POLICIES: [&str; 2] = ["content-security-policy", "content-security-policy-report-only"];

/// Fields that may name AEM.
const NAMING: [&str; 5] = ["content-location", "link", "location", "refresh", "set-cookie"];

/// Fields about the very bytes of a body.
const OF_BYTES: [&str; 6] =
    ["content-encoding", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"];
