//! The work for a path grows in proportion to its length, whatever it is made of.

use proptest::prelude::*;

use super::*;
use crate::steps;

/// Beginning, what is repeated, end.
type Family = (&'static str, &'static str, &'static str);

/// Paths that are dear to somebody who reads them carelessly.
const FAMILIES: &[Family] = &[
    ("/", "a", ""),
    ("/content/dam/", "a", ".json"),
    ("/etc", ".1", ".json"),
    ("/etc", ".a", ".json"),
    ("/etc", ".infinity", ".html"),
    ("/_a", ".1", ".json"),
    ("/\u{fc}", ".1", ".json"),
    ("/content", ".query", ".html"),
    ("/content", ".query.json", ".html"),
    ("/content", "/.query.json", "x"),
    ("/content", ".query/a", ".json"),
    ("/libs/", " ", "granite/security/post"),
    ("/libs/", "granite", ".infinity.json"),
    ("/libs", ";a", ".5.json"),
    ("/libs", "/libs", ".5.json"),
    ("/mnt/overlay/", "granite.", "x/crx"),
    ("/system/", "sling.", "/logout"),
    ("/a;", "='a", ""),
    ("/a", "='", ";"),
    ("/a", "='", "';/"),
    ("/a", ";v='..'", ""),
    ("/a", ";v='1.0'", ".html"),
    ("/a", ";", ""),
    ("/", ";x.", ""),
    ("/a", "[", ""),
    ("/a", "]", ""),
    ("/a", "[1]", ""),
    ("/a", "[1]/", ""),
    ("/", "{}", "crx"),
    ("", "/{}", ""),
    ("", "/{", ""),
    ("", "/{", "}"),
    ("", "/{a:b", ""),
    ("/{", "a", ":b}"),
    ("", "/", ""),
    ("", "/.", ""),
    ("", "/a", ""),
    ("", "/a;b", ""),
    ("", "/a%61", ""),
    ("/a/../", "a/", ""),
    ("/a/../a/../a/../a/../", "ab/", "x"),
    ("", "/../", ""),
    ("", "/a/..", "/x"),
    ("", "/..;", "/x"),
    ("/", "%", ""),
    ("/", "%25", ""),
    ("/%", "25", ""),
    ("/", "%61", ""),
    ("/", "%u0061", ""),
    ("/%EF%BC%85", "%EF%BC%85", "41"),
    ("/%EF%BC%85EF%BC%85EF%BC%8541", "a", ""),
    ("/%EF%BC%85EF%BC%85EF%BC%8541", "%", ""),
    ("/%u002525\u{fc}", "%u0061", ""),
    ("/", "\u{ff05}41", ""),
    ("/", "\u{ff0e}", ""),
    ("/", "\u{2025}/", ""),
    ("/", "\u{fc}", ""),
    ("/", "\u{fc}.", ""),
    ("/", "%c0%af", ""),
    ("/", "%e0%80%ae", "%"),
    ("/%00", "/system", ""),
    ("/%00", "/system/x", "%"),
    ("/%00", "/etc/libs/apps/mnt/granite", ""),
    ("/%00", "/content/secret", ""),
    ("/%00", "/c_o_n_t_e_n_t:", ""),
    ("/%00", "/cr", ""),
    ("/%00", "/a", ""),
    ("/%00", "/_a_b", ""),
    ("/%00", "/json.5", ""),
    ("/%00", "/\u{fc}", ""),
    ("/%00", "%25", "/x"),
    ("/%2F", ".infinity", ".json"),
    ("/caf%E9", "/query", "/x"),
    ("*", "a", ""),
    ("/graphql/execute.json/a/b;v=%0A", "a", ""),
    ("/graphql/execute.json/a/b;v=", "%0A", ""),
    ("/graphql/execute.json/a/b;v=", "%25", ""),
    ("/graphql/execute.json/a/b;v=", "%252F", ""),
    ("/graphql/execute.json/a/b;v=%0A", "%2F", ""),
    ("/graphql/execute.json/a/b;v=%0A", "%2Fa", ""),
    ("/graphql/execute.json/a/b;v=", "%5Ca", ""),
    ("/graphql/execute.json/a/b;v=%0A", "%2Fa%2F..", ""),
    ("/graphql/execute.json/a/b;v=a%2F..%0A", "%2Fa", ""),
    ("/graphql/execute.json/a/b%3Bv%3Da%2Fa%2Fa%2F..%2F..%0A", "%2Fa%20", ";"),
    ("/graphql/execute.json/a/b;v=%0A", "%2F..", ""),
    ("/graphql/execute.json/a/b;v=%0A", ".%2F", ""),
    ("/graphql/execute.json/a/b;v=%0A", "%3B", ""),
    ("/graphql/execute.json/a/b%3Bv%3D%0A", ";", ""),
    ("/graphql/execute.json/a/b;v=%0A", "%2F%3Ba.", ""),
    ("/graphql/execute.json/a/b;v=%0A", "='", ""),
    ("/graphql/execute.json/a/b;v=%0A", "%5B1%5D", ""),
    ("/graphql/execute.json/a/b;v=%0A", "%2F%7B%7D", ""),
    ("/graphql/execute.json/a/b;v=%0A", "%2F%5B1%5Da", ""),
    ("/graphql/execute.json/a/b;v=%0A", "%25u0061", ""),
    ("/graphql/execute.json/a/b;v=%0A%25u002f", "%25u002f", ""),
    ("/graphql/execute.json/a/b;v=%0A", "%C3%BC%2F", ""),
    ("/graphql/execute.json/a/b;v=%0A", "%25c0%25af", ""),
    ("/graphql/execute.json/a/b;v=%0A", "%EF%BC%8F", ""),
    ("/graphql/execute.json/a/b;v=%EF%BC%85EF%BC%85EF%BC%8541", "%25", ""),
];

impl Spelled for Family {
    fn spelled(&self, length: usize) -> Vec<u8> {
        let (begin, part, end) = self;
        let count = length.saturating_sub(begin.len() + end.len()) / part.len();
        [begin.as_bytes(), part.repeat(count).as_bytes(), end.as_bytes()].concat()
    }
}

/// What can be as long as one likes.
trait Spelled {
    fn spelled(&self, length: usize) -> Vec<u8>;
}

/// Every preset, alone and with rules of every kind.
fn policies() -> Vec<Policy> {
    let rules: Vec<Rule> = RULES.iter().map(|rule| rule.parse().unwrap()).collect();
    assert!(rules.len() >= 20);
    let alone = Preset::ALL.into_iter().map(|preset| Policy::new(preset, Vec::new()));
    let ruled = Preset::ALL.into_iter().map(|preset| Policy::new(preset, rules.clone()));
    alone.chain(ruled).collect()
}

const RULES: [&str; 22] = [
    "deny * /content/secret/*",
    "deny * /content/page/jcr:content/*",
    "deny GET /etc/a/*",
    "deny * /_a_b/c:d",
    "deny POST /content/\u{fc}/*",
    "deny * /libs/granite/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p",
    "deny * /a/b/c/d.e.f/*",
    "allow GET /content/dam/x/*",
    "allow GET /\u{fc}\u{fc}/a/*",
    "deny * /content/dam/y/*",
    "deny * /system/sling/z",
    "deny * /a.1.1.1",
    "deny GET POST PUT /etc/infinity",
    "deny * /content/1",
    "deny * /content/2",
    "deny * /content/3",
    "deny * /content/4",
    "deny * /content/5",
    "deny * /content/6",
    "deny * /content/7",
    "deny * /content/8",
    "allow HEAD /content",
];

/// The steps for reading a path and judging it, for a method that passes often and one that does not.
fn steps_of(path: &[u8], policy: &Policy) -> u64 {
    let judged = |method| {
        steps::of(|| {
            let path = Path::of(path);
            judge(method, &path, |_| policy, || std::iter::once(policy))
        })
    };
    ["GET", "POST", "X"].into_iter().map(|method| judged(method).1).max().unwrap_or_default()
}

/// The steps at 8 KiB are at most so many times those at 2 KiB and 4 KiB as the path is longer, and at most so many for
/// each byte.
#[track_caller]
fn check(family: &impl Spelled, name: &str, policies: &[Policy]) {
    for policy in policies {
        let preset = policy.preset();
        let [at_2, at_4, at_8] = LENGTHS.map(|length| steps_of(&family.spelled(length), policy));
        let ratio = |more: u64, less: u64| (more as f64) / (less.max(1) as f64);
        assert!(
            ratio(at_4, at_2) < RATIO_MAX && ratio(at_8, at_4) < RATIO_MAX,
            "{name} under {preset}: {at_2}, {at_4}, {at_8} steps"
        );
        assert!(at_8 <= PER_BYTE_MAX * LENGTHS[2] as u64, "{name} under {preset}: {at_8} steps");
    }
}

const LENGTHS: [usize; 3] = [2048, 4096, 8192];

/// Twice as long is twice the work, and what does not depend on the length.
const RATIO_MAX: f64 = 2.3;

/// All rounds and readings of the dearest path together.
const PER_BYTE_MAX: u64 = 100;

#[test]
fn twice_as_long_a_path_takes_twice_as_many_steps() {
    let policies = policies();
    for family in FAMILIES {
        check(family, &format!("{family:?}"), &policies);
    }
}

/// A path made of fragments, over and over.
#[derive(Debug, Clone)]
struct Fragments(Vec<&'static str>);

impl Spelled for Fragments {
    fn spelled(&self, length: usize) -> Vec<u8> {
        // Always whole: half of them may be another kind of path.
        let parts = self.0.concat();
        format!("/{}", parts.repeat((length - 1) / parts.len())).into_bytes()
    }
}

/// Whatever is cut, turned or repeated somewhere.
const FRAGMENTS: [&str; 48] = [
    "/",
    ".",
    "..",
    "/../",
    "//",
    ";",
    ";v='",
    "='",
    "'",
    "[",
    "]",
    "[1]",
    "{}",
    "/{}",
    "{",
    "}",
    "/{a:",
    ":",
    "%",
    "%25",
    "%2F",
    "%61",
    "%00",
    "%u0061",
    "%EF%BC%85",
    "%c0%af",
    "\u{ff05}",
    "\u{ff0e}",
    "\u{fc}",
    "\u{2025}",
    "_",
    "_a_",
    ".1",
    ".json",
    ".xml",
    ".query",
    ".infinity",
    "a",
    "aa",
    " ",
    "\\",
    "content",
    "/etc",
    "/libs",
    "granite",
    "secret",
    "system",
    "jcr:content",
];

/// The values of a persisted query, made of fragments that are encoded.
#[derive(Debug, Clone)]
struct Values(Vec<&'static str>);

impl Spelled for Values {
    fn spelled(&self, length: usize) -> Vec<u8> {
        let begin = "/graphql/execute.json/a/b;v=%0A";
        let encoded = |byte: u8| match byte {
            b'a'..=b'z' | b'.' | b'\'' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        let parts: String = self.0.concat().bytes().map(encoded).collect();
        [begin, &parts.repeat((length - begin.len()) / parts.len())].concat().into_bytes()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_repeated_takes_steps_in_proportion_to_its_length(
        parts in prop::collection::vec(prop::sample::select(&FRAGMENTS[..]), 1..6),
    ) {
        let policies = [Preset::Full, Preset::ReadOnly].map(|preset| {
            Policy::new(preset, RULES.iter().map(|rule| rule.parse().unwrap()).collect())
        });
        check(&Fragments(parts.clone()), &format!("{parts:?}"), &policies);
    }
    #[test]
    fn whatever_is_repeated_in_a_value_takes_steps_in_proportion_to_its_length(
        parts in prop::collection::vec(prop::sample::select(&FRAGMENTS[..]), 1..6),
    ) {
        let policies = [&[][..], &RULES[..]].map(|rules| {
            Policy::new(Preset::GraphqlPersisted, rules.iter().map(|rule| rule.parse().unwrap()).collect())
        });
        check(&Values(parts.clone()), &format!("values {parts:?}"), &policies);
    }
}
