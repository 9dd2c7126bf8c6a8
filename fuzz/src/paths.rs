//! Paths, as policies judge them.

use std::{collections::BTreeSet, sync::LazyLock};

use aem_auth_proxy::{
    fuzzing,
    policy::{Path, Policy, Preset, judge},
};

/// The input is a target. Its normal form is what the plainest reader makes of it, or there is none; and whatever somebody
/// before AEM or within it may do to it, in whatever order, no policy lets through what it denies. The steps for judging it are
/// in proportion to its length.
pub fn check(target: &[u8]) {
    let (path, read) = fuzzing::steps(|| Path::of(target));
    for policy in [&*FULL, &*READ_ONLY, &*SECRET, &*OPEN_ALONE, &*PERSISTED] {
        let (_, judged) = fuzzing::steps(|| passes(policy, "DELETE", &path));
        let bound = STEPS_MIN + STEPS_PER_BYTE * target.len() as u64;
        assert!(read + judged <= bound, "{} takes {read} and {judged} steps", target.escape_ascii());
    }
    if let Some(normal) = path.normal_form() {
        check_normal(target, normal);
    }
    let readings = readings(target);
    for policy in [&*FULL, &*READ_ONLY, &*SECRET, &*OPEN_ALONE] {
        let denied = if std::ptr::eq(policy, &*SECRET) { "/content/secret" } else { "/system/console" };
        let is_harmful = |place: &str, reading: &&Vec<u8>| is_below(reading, place);
        let places = [denied, "/crx", "/home/users", "/jcr:system"];
        let harmful = readings.iter().find(|reading| places.iter().any(|place| is_harmful(place, reading)));
        if let Some(harmful) = harmful {
            assert!(
                !passes(policy, "GET", &path),
                "{} may be {}",
                target.escape_ascii(),
                harmful.escape_ascii()
            );
            assert!(
                !passes(policy, "POST", &path),
                "{} may be {}",
                target.escape_ascii(),
                harmful.escape_ascii()
            );
        }
    }
    assert!(!passes(&READ_ONLY, "DELETE", &path), "a DELETE where all is to be read");
    assert!(!passes(&PERSISTED, "DELETE", &path), "a DELETE of a persisted query");
    if passes(&PERSISTED, "GET", &path) {
        for reading in readings.iter().filter(|reading| is_settled(reading)) {
            assert!(
                ["/graphql/execute.json", "/libs/granite/csrf/token.json"]
                    .iter()
                    .any(|place| is_below(reading, place)),
                "{} may be {}",
                target.escape_ascii(),
                reading.escape_ascii()
            );
        }
    }
    if passes(&OPEN_ALONE, "GET", &path) {
        for reading in readings.iter().filter(|reading| is_settled(reading)) {
            assert!(
                is_below(reading, "/content/open"),
                "{} may be {}",
                target.escape_ascii(),
                reading.escape_ascii()
            );
        }
    }
}

fn passes(policy: &Policy, method: &str, path: &Path<'_>) -> bool {
    judge(method, path, |_| policy, || std::iter::once(policy)).is_ok()
}

fn check_normal(target: &[u8], normal: &[u8]) {
    let shown = format!("{} is {}", target.escape_ascii(), normal.escape_ascii());
    let path = before(target, b'?');
    let named = without_empty_namespaces(&without_indexes(&joined(&decoded(path))));
    assert_eq!(normal, joined(&named).as_slice(), "{shown}");
    assert!(normal.starts_with(b"/") && !normal.contains(&b';'), "{shown}");
    let mut names = normal[1..].split(|byte| *byte == b'/');
    let last = names.next_back();
    assert!(names.all(|name| !matches!(name, b"" | b"." | b"..")), "{shown}");
    assert!(!matches!(last, Some(b"." | b"..")), "{shown}");
    // Once normal, always normal.
    let encoded: String = normal
        .iter()
        .map(|byte| if is_plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    let again = Path::of(encoded.as_bytes());
    assert_eq!(again.normal_form(), Some(normal), "{shown}, and {encoded} is something else");
}

/// A decoded path without parameters, empty names, `.` and `..`.
fn joined(decoded: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    let mut is_directory = true;
    for name in decoded.split(|byte| *byte == b'/').map(|name| before(name, b';')) {
        is_directory = matches!(name, b"" | b"." | b"..");
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let mut path = Vec::new();
    names.iter().for_each(|name| path.extend([b"/", *name].concat()));
    if is_directory || names.is_empty() {
        path.push(b'/');
    }
    path
}

/// What a path may become on its way, done in whatever order and however often.
fn readings(target: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut all = BTreeSet::from([before(target, b'?').to_vec()]);
    let mut new: Vec<_> = all.iter().cloned().collect();
    while let Some(path) = new.pop() {
        for step in STEPS {
            let next = step(&path);
            if all.len() < READINGS_MAX && all.insert(next.clone()) {
                new.push(next);
            }
        }
    }
    all
}

/// Whether nothing is left to be done to it.
fn is_settled(path: &[u8]) -> bool {
    STEPS.iter().all(|step| step(path) == path)
}

/// One of the things that somebody may do with a path.
type Step = fn(&[u8]) -> Vec<u8>;

const STEPS: [Step; 10] = [
    decoded,
    joined_as_it_is,
    |path| path.split(|byte| *byte == b'/').map(|name| before(name, b';')).collect::<Vec<_>>().join(&b'/'),
    |path| before(path, b';').to_vec(),
    |path| before(path, b'#').to_vec(),
    |path| path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect(),
    slashes_once,
    as_jetty_decodes,
    without_indexes,
    without_empty_namespaces,
];

/// `%uXXXX`, and digits of which only some bits are looked at (Jetty's `URIUtil.decodePath` and `TypeUtil.convertHexDigit`).
fn as_jetty_decodes(path: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'?' => Some(u32::from(byte - b'0')),
        b'@'..=b'F' => Some(u32::from(byte - b'@') + 9),
        b'`'..=b'f' => Some(u32::from(byte - b'`') + 9),
        _ => None,
    };
    let number = |digits: &[u8]| digits.iter().try_fold(0, |number, byte| Some(number * 16 + digit(*byte)?));
    let (mut out, mut at) = (Vec::new(), 0);
    while at < path.len() {
        let escape = match &path[at..] {
            [b'%', b'u', digits @ ..] => digits.get(..4).and_then(number).map(|number| (number, 6)),
            [b'%', digits @ ..] => digits.get(..2).and_then(number).map(|number| (number, 3)),
            _ => None,
        };
        let (byte, length) = match escape.filter(|(number, _)| *number < 128) {
            Some((number, length)) => (number as u8, length),
            None => (path[at], 1),
        };
        out.push(byte);
        at += length;
    }
    out
}

/// Names as Apache Jackrabbit Oak takes them: `etc[1]` is `etc`.
fn without_indexes(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let index = after.iter().position(|byte| b"]/".contains(byte)).filter(|end| after[*end] == b']');
        rest = match index {
            Some(end) if byte == b'[' => &after[end + 1..],
            _ => {
                out.push(byte);
                after
            }
        };
    }
    out
}

/// And `{}etc` is `etc`, too.
fn without_empty_namespaces(path: &[u8]) -> Vec<u8> {
    let names: Vec<_> =
        path.split(|byte| *byte == b'/').map(|name| name.strip_prefix(b"{}").unwrap_or(name)).collect();
    names.join(&b'/')
}

/// Escapes undone once; what is none stays.
fn decoded(path: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < path.len() {
        let digits = path.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escape =
            digits.filter(|digits| path[at] == b'%' && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(path[at]);
                at += 1;
            }
        }
    }
    out
}

/// `.` and `..` undone, and nothing else (RFC 3986, section 5.2.4).
fn joined_as_it_is(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    let all: Vec<_> = path.split(|byte| *byte == b'/').collect();
    for (number, name) in all.iter().enumerate() {
        let is_last = number + 1 == all.len();
        match *name {
            b"." if is_last => names.push(b""),
            b"." => {}
            b".." => {
                if names.len() > 1 {
                    names.pop();
                }
                if is_last {
                    names.push(b"");
                }
            }
            name => names.push(name),
        }
    }
    names.join(&b'/')
}

fn slashes_once(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for byte in path {
        if *byte != b'/' || out.last() != Some(&b'/') {
            out.push(*byte);
        }
    }
    out
}

fn before(text: &[u8], end: u8) -> &[u8] {
    text.split(|byte| *byte == end).next().unwrap_or_default()
}

/// Whether a path is `place`, with an extension or not, or below it. Names of AEM's consoles have no case.
fn is_below(path: &[u8], place: &str) -> bool {
    let begins = path.get(..place.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(place.as_bytes()));
    begins && path.get(place.len()).is_none_or(|byte| b"/.".contains(byte))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte)
}

/// What does not depend on the length of a path: the rules, the methods and the places that are closed, for each of its
/// readings.
const STEPS_MIN: u64 = 20_000;

/// All rounds and readings of the dearest path together.
const STEPS_PER_BYTE: u64 = 400;

/// More than any path needs of which somebody knows what it means.
const READINGS_MAX: usize = 500;

static FULL: LazyLock<Policy> = LazyLock::new(Policy::default);

static READ_ONLY: LazyLock<Policy> = LazyLock::new(|| Policy::new(Preset::ReadOnly, Vec::new()));

static PERSISTED: LazyLock<Policy> = LazyLock::new(|| Policy::new(Preset::GraphqlPersisted, Vec::new()));

static SECRET: LazyLock<Policy> = LazyLock::new(|| policy(&["deny * /content/secret/*"]));

static OPEN_ALONE: LazyLock<Policy> = LazyLock::new(|| policy(&["allow GET /content/open/*", "deny * /*"]));

fn policy(rules: &[&str]) -> Policy {
    Policy::new(Preset::Full, rules.iter().map(|rule| rule.parse().expect("a rule")).collect())
}
