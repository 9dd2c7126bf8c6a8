use proptest::prelude::*;

use crate::policy::{Path, Policy, Preset, judge};

fn passes(path: &str) -> bool {
    let policy = Policy::new(Preset::GraphqlPersisted, Vec::new());
    judge("GET", &Path::of(path.as_bytes()), |_| &policy, || std::iter::once(&policy)).is_ok()
}

#[test]
fn what_is_a_value_passes_and_what_may_leave_the_place_of_queries_does_not() {
    let query = "/graphql/execute.json/wknd/by-path";
    for (values, expected) in [
        (";v=a%2F..%2Fb", true),
        ("%3Bv%3Da%2F..%2Fb%3Bw%3Dc%2F..%2Fd;", true),
        ("%3Bv%3D%2Fcontent%2Fdam%2F..%2F..%2Fx%0A;", true),
        ("%3bv%3d%5c%5Cserver%5Cshare", true),
        (";v=..%2F..", true),
        (";v=..%5C..", true),
        (";v=%2Fa%5C..", true),
        (";v=1.0%20%2F%201.1%20%2F%201.2%0A", true),
        (";v=%5B%22a%2Fb%22%5D%09", true),
        (";v=%25%0A", true),
        (";;;%0A", true),
        // Too far up: decoded once, twice, thrice.
        (";v=..%2F..%2F..%2F..%2F..%2Fetc%2Fx", false),
        (";v=a%2F..%2F..%2F..%2Fx", false),
        (";v=%252F..%252F..%252F..%252Fcrx", false),
        (";v=%252e%252e%252f%252e%252e%252f%252e%252e%252fcrx", false),
        (";v=%25252F..%25252F..%25252F..%25252Fcrx", false),
        (";v=%5C..%5C..%5C..%5Ccrx", false),
        (";v=%255C..%255C..%255Ccrx", false),
        (";v=%2F..%5C..%252Fcrx", false),
        ("%3Bv%3D%2F..%2F..%2Fcrx;", false),
        ("%3Bv%3D%2F%2F%2F..%2F..%2Fcrx;", false),
        // What some server removes.
        (";v=%2F..%00%2F..%00%2Fcrx", false),
        (";v=%2F..%3B%2F..%3B%2Fcrx", false),
        (";v=%2F.%3Bx%252F.%2F..%2Fcrx", false),
        (";v=%2F%5B1%5D..%2F..%5B1%5D%2Fcrx", false),
        (";v=%2F%7B%7D..%2F%7B%7D..%2Fcrx", false),
        (";v=%2F..%20%2F%20..%2Fcrx", false),
        (";v=a%2Fb%2F..%2F..%2F..%2Fcrx", false),
        (";v='a%2Fb%2Fc'%2F..%2F..%2Fcrx", false),
        (";v=p%252F..%3By%252Fz%252Fz%252Fz%2F..%252F..%252F..", false),
        // A server may take these names for a part of a parameter that ends at a dot or at a quote.
        (";v=a%2Fb%2F..%2F..", false),
        ("%3Bv%3Da%2Fb%2F..%2F..;", true),
        ("%3Bv%3D'a%2Fb%2Fc'%2F..%2F..%2F..;", false),
        ("%3Bv%3Da%2Fb%2Fc%2F..%2F..%2F..;", true),
        // Dots and slashes that are others to begin with.
        (";v=%EF%BC%8F%EF%BC%8E%EF%BC%8E%EF%BC%8F%EF%BC%8E%EF%BC%8E%EF%BC%8Fcrx%0A", false),
        (";v=%E2%88%95%E2%80%A5%E2%88%95%E2%80%A5%E2%88%95crx%0A", false),
        (";v=%25c0%25af..%25c0%25af..%25c0%25afcrx", false),
        (";v=%25u002f..%25u002f..%25u002fcrx", false),
        (";v=%C0%AF..%C0%AF..%C0%AFcrx", false),
        (";v=%C0%AE", false),
        (";v=%E9", false),
        (";v=%ED%A0%80", false),
        // What encodeURIComponent does not write.
        (";v=%u002f..", false),
        (";v=%", false),
        (";v=100%", false),
        (";v=a\\b", false),
        (";v=a/../b", false),
        (";v=%0A/../b", false),
        (";v=%0A/b", false),
        (";v=%0A#", false),
        (";v=%0A[", false),
        (";v=%0A\u{fc}", false),
        ("/../x;v=%0A", false),
        ("/%2e%2e/x;v=%0A", false),
        ("%2F..%2Fx;v=%0A", false),
        ("%0A", false),
        ("%0A;v=1", false),
        ("\\x;v=%0A", false),
        ("//x;v=%0A", false),
        ("/;v=%0A", false),
        ("[1];v=%0A", false),
        (";a/b;v=%0A", false),
        (";a/..;v=%0A", false),
    ] {
        assert_eq!(passes(&format!("{query}{values}")), expected, "{values}");
    }
    for path in [
        "/graphql/execute.json;v=%2F..%2F..",
        "/graphql/execute.json;v=%0A",
        "/graphql/execute.json/;v=%0A",
        "/graphql/execute.json/a;v=b%2F..%2Fc",
        "/graphql/execute.json/a;v=%0A.%2F.;v=%2F.%2F",
        "/graphql/execute.jsonx/a/b;v=%0A",
        "/graphql/execute.html/a/b;v=%0A",
        "/graphql/execute.infinity.json/a/b;v=%0A",
        "/graphql.infinity.json/a/b;v=%0A",
        "/graphql/list.json/a;v=%0A",
        "/Graphql/execute.json/a/b;v=%0A",
        "/graphql/execute%2Ejson/a/b;v=%0A",
        "/graphql;a/execute.json/a/b;v=%0A",
        "/x/../graphql/execute.json/a/b;v=%0A",
        "//graphql/execute.json/a/b;v=%0A",
        "/content/graphql/execute.json/a/b;v=%0A",
        "/content/dam/a;v=%0A",
        "/crx/de;v=%0A",
    ] {
        assert!(!passes(path), "{path}");
    }
}

#[test]
fn only_the_preset_that_is_for_it_lets_it_through_and_rules_deny_it_by_their_words() {
    let path = "/graphql/execute.json/wknd/by-path;v=%2Fcontent%2Fsecret%0A;w=%2Fco%5B1%5Dntent%2Findexed%0A";
    let judged = |preset, rules: &[&str], method| {
        let policy = Policy::new(preset, rules.iter().map(|rule| rule.parse().unwrap()).collect());
        judge(method, &Path::of(path.as_bytes()), |_| &policy, || std::iter::once(&policy))
            .map_err(|refused| refused.to_string())
    };
    let in_doubt = Err("the path can be read in more than one way".to_owned());
    for preset in [Preset::ReadOnly, Preset::AssetsRead, Preset::AssetsWrite] {
        for rules in [&[][..], &["allow * /*"], &["allow * /graphql/execute.json/*"]] {
            assert_eq!(judged(preset, rules, "GET"), in_doubt);
        }
    }
    assert_eq!(judged(Preset::Full, &[], "GET"), Ok(()));
    let persisted = |rules: &[&str], method| judged(Preset::GraphqlPersisted, rules, method);
    let other_method = "the policy does not let the method through".to_owned();
    assert_eq!(persisted(&[], "DELETE"), Err(other_method.clone()));
    // A line that allows opens nothing for it.
    assert_eq!(persisted(&["allow DELETE /graphql/*"], "DELETE"), Err(other_method));
    for (rule, passes) in [
        ("deny POST /graphql/*", true),
        ("deny * /content/other/*", true),
        ("deny * /content/secret/*", false),
        ("deny * /content/indexed/*", false),
        ("deny * /graphql/execute.json/wknd/by-path", false),
        ("deny * /graphql/execute.json/*", false),
        ("deny * /*", false),
    ] {
        assert_eq!(persisted(&[rule], "GET").is_ok(), passes, "{rule}");
        assert_eq!(persisted(&["allow * /graphql/*", rule], "GET").is_ok(), passes, "{rule}");
    }
}

#[test]
fn every_route_that_may_have_it_has_to_have_the_preset() {
    let persisted = Policy::new(Preset::GraphqlPersisted, Vec::new());
    let full = Policy::default();
    let passes = |path: &str, other: &str| {
        let of = |reading: &[u8]| if reading.starts_with(other.as_bytes()) { &full } else { &persisted };
        judge("GET", &Path::of(path.as_bytes()), of, || [&persisted, &full].into_iter()).is_ok()
    };
    let path = "/graphql/execute.json/wknd/by-path;v=a%2F..%2Fb%0A";
    assert!(passes(path, "/content/"));
    assert!(passes(path, "/graphql/execute.json/other/"));
    assert!(!passes(path, "/graphql/execute.json/wknd/by-path"));
    assert!(!passes(path, "/graphql/execute.json/wknd/b\n"));
    let Path::Ambiguous { persisted: Some(readings), .. } = Path::of(path.as_bytes()) else {
        panic!("{path}")
    };
    assert_eq!(readings.query(), b"/graphql/execute.json/wknd/by-path");
}

/// What a server may do with a path, in whatever order.
#[derive(Debug, Clone, Copy)]
enum Step {
    Decode,
    DecodeLoosely,
    DecodePlus,
    Fold,
    Backslashes,
    CutSegments,
    CutBehind,
    CutToDots,
    DropIndexes,
    DropNamespaces,
    DropControls,
    Trim,
    EndAtNul,
    EndAtHash,
    Collapse,
    Climb,
}

const STEPS: [Step; 16] = [
    Step::Decode,
    Step::DecodeLoosely,
    Step::DecodePlus,
    Step::Fold,
    Step::Backslashes,
    Step::CutSegments,
    Step::CutBehind,
    Step::CutToDots,
    Step::DropIndexes,
    Step::DropNamespaces,
    Step::DropControls,
    Step::Trim,
    Step::EndAtNul,
    Step::EndAtHash,
    Step::Collapse,
    Step::Climb,
];

impl Step {
    fn take(self, path: &str) -> String {
        let by_name = |each: &dyn Fn(&str) -> String| path.split('/').map(each).collect::<Vec<_>>().join("/");
        let before = |text: &str, end: char| text.split(end).next().unwrap().to_owned();
        match self {
            Self::Decode => decoded(path),
            Self::DecodeLoosely => {
                decoded(&path.replace("%u002f", "/").replace("%u002e", ".").replace("%2>", "."))
            }
            Self::DecodePlus => decoded(&path.replace('+', " ")),
            Self::Fold => path
                .replace('\u{ff0f}', "/")
                .replace('\u{ff0e}', ".")
                .replace('\u{2025}', "..")
                .replace('\u{ff05}', "%")
                .replace('\u{200b}', ""),
            Self::Backslashes => path.replace('\\', "/"),
            Self::CutSegments => by_name(&|name| before(name, ';')),
            Self::CutBehind => before(path, ';'),
            Self::CutToDots => cut_to_dots(path),
            Self::DropIndexes => path.replace("[1]", ""),
            Self::DropNamespaces => by_name(&|name| name.trim_start_matches("{}").to_owned()),
            Self::DropControls => path.chars().filter(|c| !c.is_control()).collect(),
            Self::Trim => by_name(&|name| name.trim().to_owned()),
            Self::EndAtNul => before(path, '\0'),
            Self::EndAtHash => before(path, '#'),
            Self::Collapse => {
                let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
                format!("/{}", names.join("/"))
            }
            Self::Climb => climbed(path),
        }
    }
}

fn decoded(path: &str) -> String {
    let (mut out, bytes, mut at) = (Vec::new(), path.as_bytes(), 0);
    while at < bytes.len() {
        let digits = path.get(at + 1..at + 3).filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => (out.push(byte), at += 3),
            _ => (out.push(bytes[at]), at += 1),
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Parameters end where an extension begins, or another name; in quotes there may be either.
fn cut_to_dots(path: &str) -> String {
    let (mut out, mut rest) = (String::new(), path);
    while let Some(begin) = rest.find(';') {
        out.push_str(&rest[..begin]);
        rest = &rest[begin..];
        let end = rest.find(['.', '/']).unwrap_or(rest.len());
        rest = match rest[..end].find("='") {
            Some(quote) => rest[quote + 2..].split_once('\'').map_or("", |(_, behind)| behind),
            None => &rest[end..],
        };
    }
    out + rest
}

fn climbed(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

fn encoded(value: &str, times: usize) -> String {
    let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte);
    let once = |text: String| {
        let each = text.bytes().map(|byte| match byte {
            byte if is_kept(byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        });
        each.collect()
    };
    (0..times).fold(value.to_owned(), |text, _| once(text))
}

/// A value as an attacker writes it.
fn value() -> impl Strategy<Value = String> {
    let part = prop::sample::select(&PARTS[..]).prop_map(str::to_owned);
    let parts = prop::collection::vec((part, 0..3usize), 0..7);
    parts.prop_map(|parts| parts.into_iter().map(|(part, times)| encoded(&part, times)).collect())
}

const PARTS: [&str; 30] = [
    "a", "b.c", ".", "..", "..", "/", "/", "/..", "/..", "/../", "\\", "\\..", ";", ";x=", "='", "'", "[1]",
    "{}", "\0", "\n", " ", "+", "#", "%", "%u002f", "%u002e", "%2>", "\u{ff0f}", "\u{2025}", "\u{200b}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a server does to a path that passes, the path stays below the place of persisted
    /// queries. If it can be read in more than one way, it stays below its own first name.
    #[test]
    fn no_value_leads_out_of_the_place_of_queries(
        names in 1..4usize,
        values in prop::collection::vec(value(), 1..5),
        encodes_all in any::<bool>(),
        orders in prop::collection::vec(prop::collection::vec(prop::sample::select(&STEPS[..]), 0..8), 24),
    ) {
        let values: String = values.iter().map(|value| format!(";v={}", encoded(value, 1))).collect();
        let values = if encodes_all { values.replace(';', "%3B").replace('=', "%3D") + ";" } else { values };
        let path = format!("/graphql/execute.json/{}{values}", vec!["q"; names].join("/"));
        if !passes(&path) {
            return Ok(());
        }
        let place = match Path::of(path.as_bytes()) {
            Path::Ambiguous { .. } => "/graphql/execute.json/q",
            _ => "/graphql/execute.json",
        };
        for steps in orders {
            let end = climbed(&steps.iter().fold(path.clone(), |path, step| step.take(&path)));
            prop_assert!(end.starts_with(place), "{path} by {steps:?} is {end}");
        }
    }
}
