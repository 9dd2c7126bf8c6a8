use proptest::prelude::*;

use super::*;

/// The readings of `path` as text, those of lookalikes behind a `~`; none where it is ambiguous.
fn read(path: &[u8]) -> Vec<String> {
    let text = |reading: Reading<'_>| {
        let mark = if reading.folded { "~" } else { "" };
        format!("{mark}{}", String::from_utf8_lossy(reading.path))
    };
    Path::of(path).readings().map(text).collect()
}

#[test]
fn what_is_spelled_as_it_is_meant_is_taken_as_it_is() {
    for path in
        ["/", "/content", "/content/dam.json", "/a.b/c-d_e~f!$&'()*+,=:@|{}^`\"<>", "/a/b/", "/a.../b."]
    {
        assert_eq!(Path::of(path.as_bytes()), Path::Plain(path.as_bytes()));
        let target = format!("{path}?a=%2F..;//\\");
        assert_eq!(Path::of(target.as_bytes()), Path::Plain(path.as_bytes()));
    }
}

#[test]
fn the_normal_form_is_what_aem_takes_a_path_for() {
    for (path, expected) in [
        ("/%61dobe%2Ejson", &["/adobe.json"][..]),
        ("/content//dam///a", &["/content/dam/a"]),
        ("//", &["/"]),
        ("/./a/./b/.", &["/a/b/"]),
        ("/a/../b", &["/b", "/a"]),
        ("/a/b/c/../../d", &["/a/d", "/a/b/c", "/a/b"]),
        ("/content/dam/a%20b%2B%25%28c%29.jpg", &["/content/dam/a b+%(c).jpg"]),
        ("/content/dam/f%C3%BC.jpg", &["/content/dam/f\u{fc}.jpg"]),
        ("/content/dam/caf\u{e9}/\u{4e2d}", &["/content/dam/caf\u{e9}/\u{4e2d}"]),
        ("/.well-known/x", &["/.well-known/x"]),
        ("/a;b=c/d", &["/a/d", "/a"]),
        ("/a;v='1.0'.html", &["/a", "/a.html"]),
        ("/a.html;v='1.0'", &["/a.html"]),
        ("/graphql/a%3Bk%3Dv;", &["/graphql/a", "/graphql/a;k=v"]),
        (
            "/graphql/a%3Bp%3D%2Fcontent%2Fdam;",
            &["/graphql/a/content/dam", "/graphql/a", "/graphql/a;p=/content/dam"],
        ),
        ("/a;;/b", &["/a/b", "/a"]),
        ("/\u{ff43}rx", &["/\u{ff43}rx", "~/crx"]),
        ("/\u{ff0e}\u{ff0e}\u{ff0f}crx", &["/\u{ff0e}\u{ff0e}\u{ff0f}crx", "~/crx", "~/"]),
        ("/con\u{17f}ole", &["/con\u{17f}ole", "~/console"]),
        ("/etc[1]/x.json", &["/etc/x.json", "/etc[1]/x.json"]),
        ("/%7B%7Detc%5B1%5D", &["/etc", "/{}etc[1]"]),
        ("/\u{ff3b}1\u{ff3d}crx", &["/\u{ff3b}1\u{ff3d}crx", "~/crx", "~/[1]crx"]),
        ("/graphql/a%3Bids%3D%5B1%5D;", &["/graphql/a", "/graphql/a;ids=", "/graphql/a;ids=[1]"]),
        ("/graphql/a;ids=[[1]]", &["/graphql/a"]),
        ("/{lang}/x", &["/{lang}/x"]),
    ] {
        assert_eq!(read(path.as_bytes()), expected, "{path}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_not_read() {
    for path in [
        &b"/a%2Fb"[..],
        b"/a%5cb",
        b"/a\\b",
        b"/%2e%2e/a",
        b"/.%2e/a",
        b"/a/%2e/b",
        b"/%2561",
        b"/a%252fb",
        b"/a%00b",
        b"/a%0d%0ab",
        b"/a\x7fb",
        b"/a%",
        b"/a%zz",
        b"/a%u002fb",
        b"/caf%E9",
        b"/caf\xe9",
        b"/%c0%afcrx",
        b"/%ed%a0%80",
        b"/..",
        b"/a/../../b",
        b"/a/..;/b",
        b"/a;b/../c",
        b"/a/../c;b",
        b"/a//../b",
        b"/a/.. /b",
        b"/a/..%20/b",
        b"/a;v='b/c'/d",
        b"/a;v='b/c",
        b"/a%2Fb;c",
        b"/a;b/c%2Fd",
        b"/a#b",
        b"*",
        b"",
        b"a/b",
        b"http://localhost/a",
        b"/a/{http://www.jcp.org/jcr/1.0}content",
        b"/%7Binternal%7Dpolicy",
        b"/crx[[1]2]",
        b"/crx[1",
        b"/{}{}crx",
        b"/{[1]}crx",
        b"/{}{a:b}crx",
        b"/%25[1]63rx",
        b"/a/../a/../a/../a/../a/../a/../a/../a/../a/../b",
    ] {
        assert_eq!(read(path), Vec::<String>::new(), "{}", path.escape_ascii());
        assert!(matches!(Path::of(path), Path::Ambiguous { .. }), "{}", path.escape_ascii());
    }
}

/// What a server may do with a path, step by step; deliberately simple.
#[derive(Debug, Clone, Copy)]
enum Step {
    Decode,
    DecodePlus,
    CutSegments,
    CutBehind,
    Slashes,
    Collapse,
    Climb,
    ClimbEmpty,
    DropControls,
    EndAtNul,
    DecodeLoosely,
    DropIndexes,
}

const STEPS: [Step; 12] = [
    Step::Decode,
    Step::DecodePlus,
    Step::CutSegments,
    Step::CutBehind,
    Step::Slashes,
    Step::Collapse,
    Step::Climb,
    Step::ClimbEmpty,
    Step::DropControls,
    Step::EndAtNul,
    Step::DecodeLoosely,
    Step::DropIndexes,
];

impl Step {
    fn take(self, path: &str) -> String {
        match self {
            Self::Decode => naively_decoded(path),
            Self::DecodePlus => naively_decoded(&path.replace("%2B", "+")),
            Self::CutSegments => {
                path.split('/').map(|part| part.split(';').next().unwrap()).collect::<Vec<_>>().join("/")
            }
            Self::CutBehind => path.split(';').next().unwrap().to_owned(),
            Self::Slashes => path.replace('\\', "/"),
            Self::Collapse => {
                let mut path = path.to_owned();
                while path.contains("//") {
                    path = path.replace("//", "/");
                }
                path
            }
            Self::Climb => climbed(path, false),
            Self::ClimbEmpty => climbed(path, true),
            Self::DropControls => path.chars().filter(|c| !c.is_control()).collect(),
            Self::EndAtNul => path.split('\0').next().unwrap().to_owned(),
            Self::DecodeLoosely => path.replace("%u0061", "a").replace("%6:", "j").replace("%6`", "i"),
            Self::DropIndexes => path.replace("[1]", "").replace("/{}", "/"),
        }
    }
}

fn naively_decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut decoded = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).map(|hex| u8::from_str_radix(hex, 16)) {
            Some(Ok(byte)) if !part.starts_with('+') => {
                decoded.push(byte);
                decoded.extend(&part.as_bytes()[2..]);
            }
            _ => {
                decoded.push(b'%');
                decoded.extend(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Without `.` and `..`; whether an empty name is one to climb out of is a question of taste.
fn climbed(path: &str, counts_empty: bool) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/').skip(1) {
        match name {
            "." => {}
            "" if !counts_empty => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

fn as_jetty_reads(path: &str) -> String {
    [Step::CutSegments, Step::Decode, Step::Collapse, Step::Climb]
        .iter()
        .fold(path.to_owned(), |p, s| s.take(&p))
}

fn spelled() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[a-c]{1,2}",
        2 => Just("/".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just("..".to_owned()),
        1 => Just("/../".to_owned()),
        1 => Just("//".to_owned()),
        1 => Just(";x=y".to_owned()),
        1 => Just("%2F".to_owned()),
        1 => Just("%61".to_owned()),
        1 => Just("%2e".to_owned()),
        1 => Just("%3b".to_owned()),
        1 => Just("%25".to_owned()),
        1 => Just("%C3%BC".to_owned()),
        1 => Just("\\".to_owned()),
        1 => Just("%00".to_owned()),
        1 => Just("%u0061".to_owned()),
        1 => Just("%6`".to_owned()),
        1 => Just("[1]".to_owned()),
        1 => Just("/{}".to_owned()),
        1 => Just("\u{ff0f}".to_owned()),
    ];
    prop::collection::vec(part, 0..10).prop_map(|parts| format!("/{}", parts.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_normal_form_is_among_what_a_naive_server_reads(path in spelled()) {
        let read = Path::of(path.as_bytes());
        if let Some(normal) = read.normal_form() {
            let jetty = as_jetty_reads(&path);
            let is_read = read.readings().any(|reading| {
                String::from_utf8_lossy(reading.path).trim_end_matches('/') == jetty.trim_end_matches('/')
            });
            prop_assert!(is_read, "{path}: {} and not {jetty}", normal.escape_ascii());
        }
    }

    #[test]
    fn the_normal_form_of_a_normal_form_is_itself(path in spelled()) {
        let read = Path::of(path.as_bytes());
        if let Some(normal) = read.normal_form() {
            let again: String = normal
                .iter()
                .map(|byte| match byte {
                    b'/' | b'a'..=b'z' | b'.' => char::from(*byte).to_string(),
                    byte => format!("%{byte:02X}"),
                })
                .collect();
            let again = Path::of(again.as_bytes()).normal_form().map(<[u8]>::to_vec);
            prop_assert_eq!(again.as_deref(), Some(normal), "{}", path);
        }
    }

    /// Whatever steps a server takes in whatever order, it gets nowhere that was not seen: of an unambiguous path they lead to
    /// one of its readings, or to a place from which no name is missing.
    #[test]
    fn no_server_gets_to_a_place_that_was_not_seen(
        path in spelled(),
        steps in prop::collection::vec(prop::sample::select(&STEPS[..]), 1..7),
    ) {
        let end = steps.iter().fold(path.clone(), |path, step| step.take(&path));
        // The names that would be closed, as this server sees them.
        let seen: Vec<_> = end.split('/').filter(|name| !name.is_empty()).take(2).collect();
        let [first, second] = seen[..] else { return Ok(()) };
        let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase());
        if !end.starts_with('/') || !plain(first) || !plain(second) {
            return Ok(());
        }
        let rule: crate::policy::Rule = format!("deny * /{first}/{second}/*").parse().unwrap();
        let policy = crate::policy::Policy::new(crate::policy::Preset::Full, vec![rule]);
        let judged = crate::policy::judge(
            "GET", &Path::of(path.as_bytes()), |_| &policy, || std::iter::once(&policy),
        );
        prop_assert!(judged.is_err(), "{path} by {steps:?} is {end}");
    }
}
