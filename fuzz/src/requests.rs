//! A client's request head, and what AEM gets of it.

use aem_auth_proxy::fuzzing::{self, Forwarded, Framed, Route};

use super::{
    cuts::cut,
    strict::{Head, Naive, lower},
};

/// The input is what a client sends. If it is a request, AEM gets one that can be read in one way alone: for the same
/// target, from us, with our credential, and with nothing that is between the client and us.
pub fn check(input: &[u8]) {
    let (forwarded, steps) = fuzzing::steps(|| fuzzing::forwarded(input, ROUTE));
    let bound = STEPS_MIN + STEPS_PER_BYTE * input.len() as u64;
    assert!(steps <= bound, "a head of at most {} bytes takes {steps} steps", input.len());
    let Ok(Some(forwarded)) = forwarded else { return };
    let (head, body) = input.split_at(forwarded.bytes);
    let came = Naive::read(head);
    check_framing(&came, &forwarded);
    if forwarded.framed == Framed::Chunked {
        check_chunks(body);
    }
    let (written, again) = (&forwarded.written, &forwarded.again);
    check_written(&came, written, forwarded.framed);
    // A second attempt is the first with another credential.
    let first = String::from_utf8_lossy(written).replace(OURS, OURS_AGAIN);
    assert_eq!(first, String::from_utf8_lossy(again), "the second attempt is another request");
}

/// What is taken says where it ends, and says it once.
fn check_framing(came: &Naive<'_>, forwarded: &Forwarded) {
    let (lengths, codings) = (came.all("content-length"), came.members("transfer-encoding"));
    let coded = !came.all("transfer-encoding").is_empty();
    assert!(lengths.is_empty() || !coded, "a request framed twice is taken");
    assert!(lengths.len() <= 1, "a length said twice is taken");
    let length = lengths.first().map(|length| String::from_utf8_lossy(length).into_owned());
    let expected = match (length.as_ref().map(|length| length.parse::<u64>()), coded) {
        (Some(Ok(number)), _) if length == Some(number.to_string()) => Some(Framed::Exact(number)),
        (None, false) => Some(Framed::Exact(0)),
        (None, true) if codings == ["chunked"] => Some(Framed::Chunked),
        _ => None,
    };
    assert_eq!(Some(forwarded.framed), expected, "another end");
}

fn check_written(came: &Naive<'_>, written: &[u8], framed: Framed) {
    let sent = Head::of_ours(written);
    check_target(came.start, written);
    assert_eq!(sent.all("host"), [HOST.as_bytes()], "another host");
    assert_eq!(sent.all("authorization"), [OURS.as_bytes()], "another credential");
    assert_eq!(sent.all("x-tenant"), [b"ours"], "another tenant");
    let lengths = sent.all("content-length");
    match framed {
        Framed::Chunked => {
            assert!(sent.all("transfer-encoding") == [b"chunked"] && lengths.is_empty(), "no chunks");
        }
        Framed::Exact(length) => {
            assert!(sent.all("transfer-encoding").is_empty() && lengths.len() <= 1, "framed twice");
            let said = lengths.first().map(|said| String::from_utf8_lossy(said).parse());
            assert_eq!(said.unwrap_or(Ok(0)), Ok(length), "another length");
        }
        other => panic!("a request that is framed as {other:?}"),
    }
    check_hops(came, &sent);
    check_rest(came, &sent);
}

/// Between us and AEM is what we say.
fn check_hops(came: &Naive<'_>, sent: &Head<'_>) {
    for name in ["keep-alive", "proxy-connection", "proxy-authorization", "forwarded"] {
        assert!(sent.all(name).is_empty(), "{name} goes on");
    }
    assert!(sent.those(|name| name.starts_with("x-forwarded-")).is_empty(), "X-Forwarded goes on");
    let expects = sent.all("expect");
    let asks = came.start.ends_with(b"HTTP/1.1") && came.members("expect") == ["100-continue"];
    assert!(expects.is_empty() || asks && expects.len() == 1, "what is not expected of AEM goes on");
    let connection = sent.all("connection");
    match connection.as_slice() {
        [] => assert!(
            sent.all("te").is_empty() && sent.all("upgrade").is_empty(),
            "TE or Upgrade without Connection"
        ),
        [b"te"] => assert!(sent.all("te") == [b"trailers"] && sent.all("upgrade").is_empty()),
        [b"upgrade"] => {
            let protocol = sent.all("upgrade");
            assert!(protocol.len() == 1 && sent.all("te").is_empty());
            let protocol = lower(protocol[0]);
            assert!(!["http", "h2", "tls"].iter().any(|other| protocol.starts_with(other)), "{protocol}");
        }
        other => panic!("Connection says {other:?}"),
    }
    for named in came.members("connection").iter().filter(|named| !OUR_OWN.contains(&named.as_str())) {
        assert!(sent.all(named).is_empty(), "{named} goes on, which Connection names");
    }
    for cookie in sent.all("cookie") {
        let cookie = lower(cookie);
        for pair in cookie.split([';', ',']) {
            let name = pair.split('=').next().unwrap_or_default();
            let name = name.trim_matches(|byte: char| byte.is_ascii_whitespace() || "\"$'".contains(byte));
            assert!(!USERS.contains(&name), "{name} goes on");
        }
    }
}

/// All else goes on as it came, in its order.
fn check_rest(came: &Naive<'_>, sent: &Head<'_>) {
    let named = came.members("connection");
    let stays = |name: &str| {
        !is_special(name) && !name.starts_with("x-forwarded-") && !named.iter().any(|named| named == name)
    };
    assert_eq!(
        came.those(stays),
        sent.those(|name| !is_special(name) && !named.iter().any(|named| named == name))
    );
}

/// The target is the client's, byte for byte, without scheme and authority.
fn check_target(line: &[u8], written: &[u8]) {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let schemes = ["http://", "https://"];
    let absolute = schemes.iter().find(|scheme| lower(target).starts_with(*scheme));
    let path = match absolute {
        None => target,
        Some(scheme) => {
            let rest = &target[scheme.len()..];
            let path = rest.iter().position(|byte| b"/?".contains(byte));
            path.map_or(&b"/"[..], |at| &rest[at..])
        }
    };
    let slash: &[u8] = if path.starts_with(b"?") { b"/" } else { b"" };
    let expected = [method, b" ", slash, path, b" HTTP/1.1\r\n"].concat();
    assert!(written.starts_with(&expected), "another target: {}", written.escape_ascii());
    assert!(!path.contains(&b'#'), "a fragment goes on");
}

/// Chunks are one body however they are cut, and made anew they are the same.
fn check_chunks(bytes: &[u8]) {
    let whole = fuzzing::unchunked([bytes]);
    let pieces = fuzzing::unchunked(cut(bytes));
    assert_eq!(whole, pieces, "in pieces");
    let Some(body) = whole else { return };
    let Some(trailers) = body.trailers else { return };
    assert_eq!(naive_chunks(bytes), Some((body.data, body.used)), "another body");
    let kept = fuzzing::trailers(&trailers);
    let lines = [b"\r\n", kept.as_slice(), b"\r\n"].concat();
    let head = Head::of_ours(&lines);
    for (name, _) in head.those(|_| true) {
        assert!(TRAILERS.contains(&name), "{name} behind a body");
    }
}

/// A chunked body read in the plainest way, and its length with all its chunks.
fn naive_chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|end| end == b"\r\n")?;
        let size = String::from_utf8_lossy(&bytes[at..at + line]);
        let size = size.split(';').next().unwrap_or_default().trim_end();
        let size = usize::from_str_radix(size, 16).ok()?;
        at += line + 2;
        if size == 0 {
            break;
        }
        data.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        at += bytes[at..].starts_with(b"\r\n").then_some(2)?;
    }
    // Up to the first empty line.
    while !bytes[at..].starts_with(b"\r\n") {
        at += bytes[at..].iter().position(|byte| *byte == b'\n')? + 1;
    }
    Some((data, at + 2))
}

/// Cookies that say who the user is.
const USERS: [&str; 3] = ["login-token", "sling.sudo", "sling.formauth"];

/// What passes behind a body.
const TRAILERS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// What does not depend on what is sent.
const STEPS_MIN: u64 = 5_000;

/// The head is read, and written twice.
const STEPS_PER_BYTE: u64 = 60;

const HOST: &str = "author-p1-e2.adobeaemcloud.com";

const OURS: &str = "Bearer of-the-first-attempt";

const OURS_AGAIN: &str = "Bearer of-the-second-one";

const ROUTE: Route<'static> =
    Route { host: HOST, authorization: [OURS, OURS_AGAIN], field: ("x-tenant", "ours"), api_key: "client" };

/// What `Connection` cannot take away, since it is ours.
const OUR_OWN: [&str; 10] = [
    "host",
    "authorization",
    "x-tenant",
    "x-api-key",
    "via",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "upgrade",
];

/// Whether a field does not simply pass.
fn is_special(name: &str) -> bool {
    OUR_OWN.contains(&name) || SPECIAL.contains(&name)
}

/// What does not simply pass, beside our own.
const SPECIAL: [&str; 13] = [
    "expect",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "forwarded",
    "cookie",
    "origin",
    "referer",
    "destination",
    "x-destination",
    "accept-encoding",
    "set-cookie",
    "trailer",
];
