use proptest::prelude::*;

use super::*;

fn policy(preset: Preset, rules: &[&str]) -> Policy {
    Policy::new(preset, rules.iter().map(|rule| rule.parse().unwrap()).collect())
}

fn judged(policy: &Policy, method: &str, path: &str) -> Result<(), String> {
    let path = Path::of(path.as_bytes());
    let judged = judge(method, &path, |_| policy, || std::iter::once(policy));
    judged.map_err(|refused| match refused {
        Refused::Method(methods) => methods.to_string(),
        refused => format!("{refused:?}"),
    })
}

#[track_caller]
fn check(policy: &Policy, method: &str, path: &str, expected: Result<(), &str>) {
    assert_eq!(judged(policy, method, path), expected.map_err(str::to_owned), "{method} {path}");
}

#[test]
fn the_first_rule_that_is_for_a_path_decides_then_what_is_closed_then_the_preset() {
    let own = policy(
        Preset::ReadOnly,
        &[
            "allow POST /crx/packmgr/service.jsp",
            "deny * /content/open/secret/*",
            "allow POST PUT /content/open/*",
            "deny GET /content/*",
        ],
    );
    for (method, path, expected) in [
        ("POST", "/crx/packmgr/service.jsp", Ok(())),
        ("GET", "/crx/packmgr/service.jsp", Err("POST")),
        ("POST", "/CRX/packmgr/service.jsp", Err("Closed")),
        ("POST", "/crx/packmgr/service.jsp/x", Err("Closed")),
        ("POST", "/content/open/page", Ok(())),
        ("POST", "/content/open/secret/page", Err("Rule")),
        ("GET", "/content/open/page", Err("OPTIONS, POST, PUT")),
        ("GET", "/other", Ok(())),
        ("POST", "/other", Err("GET, HEAD, OPTIONS")),
        ("GET", "/system/console", Err("Closed")),
    ] {
        check(&own, method, path, expected);
    }
}

#[test]
fn a_path_passes_if_every_reading_of_it_does() {
    let persisted = policy(Preset::GraphqlPersisted, &[]);
    for (path, expected) in [
        ("/graphql/execute.json/w/a%3Bk%3Dv;", Ok(())),
        ("/graphql/execute.json/w/a;p=/content/dam/x", Ok(())),
        ("/graphql/execute.json/w/../../x", Err("Preset")),
        ("/graphql/execute.json/w/..;/..;/x", Err("Ambiguous")),
        ("/x/../graphql/execute.json/w/a", Err("Preset")),
        ("/graphql/execute.json", Ok(())),
        ("/graphql/execute.html/w", Err("Preset")),
        ("/graphql/list.json/w", Err("Preset")),
        ("/libs/granite/csrf/token.json", Ok(())),
    ] {
        check(&persisted, "GET", path, expected);
    }
}

#[test]
fn what_nobody_can_read_passes_full_alone_and_only_without_closed_words() {
    let full = Policy::default();
    let own = policy(Preset::Full, &["allow * /crx/*", "deny POST /content/dam/secret/*"]);
    let narrow = policy(Preset::ReadOnly, &["allow * /*"]);
    for (path, passes) in [
        ("/content/100%.jpg", true),
        ("/caf%E9", true),
        ("/a%2Fb", true),
        ("/content/../../etc/passwd", true),
        ("*", true),
        ("/%2e%2e/crx", false),
        ("/a%2F..%2Fcrx%2Fde", false),
        ("/%63%72%78%00", false),
        ("/c%00rx", false),
        ("/system%5cconsole", false),
        ("/%2573ystem/console", false),
        ("/%c0%afcrx", false),
        ("/%u0063rx/de", false),
        ("/s%7@stem/console", false),
        ("/etc[1]%2Fpackages", false),
        ("/a//..//sys[1]tem/console", false),
        ("/etc%2F.infinity.json", false),
        ("/content/page/{http://www.jcp.org/jcr/1.0}content", false),
    ] {
        let expected = if passes { Ok(()) } else { Err("Ambiguous") };
        check(&full, "GET", path, expected);
        check(&own, "GET", path, expected);
        check(&narrow, "GET", path, Err("Ambiguous"));
    }
    check(&own, "GET", "/content%2Fdam/x/../secret/y", Ok(()));
    check(&own, "POST", "/content%2Fdam/x/../secret/y", Err("Ambiguous"));
}

#[test]
fn nothing_is_sent_that_comes_back_with_the_token() {
    let open = policy(Preset::Full, &["allow * /*"]);
    for policy in [&Policy::default(), &open] {
        for method in ["TRACE", "trace"] {
            let passing = "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE, COPY, MOVE";
            check(policy, method, "/content", Err(passing));
            check(policy, method, "/100%.jpg", Err("Ambiguous"));
        }
    }
}

#[test]
fn a_refusal_names_the_methods_that_would_pass() {
    for (preset, method, path, expected) in [
        (Preset::ReadOnly, "DELETE", "/content/x", "GET, HEAD, OPTIONS"),
        (Preset::GraphqlPersisted, "PUT", "/graphql/execute.json/a", "GET, HEAD, OPTIONS, POST"),
        (Preset::AssetsRead, "POST", "/api/assets/x", "GET, HEAD, OPTIONS"),
        (Preset::AssetsWrite, "POST", "/content/dam/x.jpg", "GET, HEAD, OPTIONS"),
        (
            Preset::AssetsWrite,
            "MKCOL",
            "/api/assets/x",
            "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE, COPY, MOVE",
        ),
        (Preset::Full, "POST", "/apps/site/x", "GET, HEAD, OPTIONS"),
        (Preset::ReadOnly, "get", "/content/x", "GET, HEAD, OPTIONS"),
    ] {
        check(&policy(preset, &[]), method, path, Err(expected));
    }
}

/// `value` as JavaScript's `encodeURIComponent` writes it.
fn encoded(value: &str) -> String {
    let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte);
    value
        .bytes()
        .map(|byte| if is_kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A persisted query with one value: as Adobe's client for JavaScript writes it, then with separators
/// that are not encoded.
fn persisted_query(value: &str) -> [String; 3] {
    let (query, value) = ("/graphql/execute.json/wknd/by-title", encoded(value));
    [
        format!("{query}%3Btitle%3D{value};"),
        format!("{query};title={value}"),
        format!("{query};limit=3;title={value};"),
    ]
}

#[test]
fn a_persisted_query_takes_whatever_people_search_for() {
    let terms: Vec<String> =
        serde_json::from_str(include_str!("../../tests/policies/search-terms.json")).unwrap();
    assert_eq!(terms.len(), 36);
    let policy = policy(Preset::GraphqlPersisted, &[]);
    for term in terms {
        for path in persisted_query(&term) {
            check(&policy, "GET", &path, Ok(()));
            check(&policy, "HEAD", &path, Ok(()));
            check(&policy, "POST", &path, Ok(()));
        }
    }
}

/// Ways of spelling a path that some server takes for the same one.
fn mutated(path: &str, mutations: &[(u8, usize)]) -> String {
    let mut path = path.to_owned();
    for (mutation, at) in mutations {
        let slashes: Vec<_> = path.match_indices('/').map(|(at, _)| at).collect();
        let slash = slashes[at % slashes.len()];
        let is_of_escape = |at: usize| path.as_bytes()[at.saturating_sub(2)..at].contains(&b'%');
        let letters = path.char_indices().filter(|(at, c)| c.is_ascii_alphabetic() && !is_of_escape(*at));
        let letters: Vec<_> = letters.map(|(at, _)| at).collect();
        let letter = letters[at % letters.len()];
        let byte = path.as_bytes()[letter];
        match mutation % 19 {
            0 => path.insert(slash, '/'),
            1 => path.insert_str(slash, "/."),
            2 => path.insert_str(slash, "/x/.."),
            3 => path.insert_str(slash, "/x/y/../.."),
            4 => path.insert_str(slash, "/%2e"),
            5 => path.insert_str(slash, "/x/%2E%2e"),
            6 => path.insert_str(slash, "/..;a=b"),
            7 if slash > 0 => path.replace_range(slash..=slash, "\\"),
            8 if slash > 0 => path.replace_range(slash..=slash, "%2F"),
            9 if slash > 0 => path.replace_range(slash..=slash, "%252f"),
            10 => path.replace_range(letter..=letter, &format!("%{byte:02x}")),
            11 => path.replace_range(letter..=letter, &format!("%25{byte:02X}")),
            12 => {
                let upper = char::from(byte).to_ascii_uppercase();
                path.replace_range(letter..=letter, upper.encode_utf8(&mut [0; 1]));
            }
            13 => {
                let wide = char::from_u32(u32::from(byte) + 0xfee0).unwrap();
                path.replace_range(letter..=letter, wide.encode_utf8(&mut [0; 4]));
            }
            14 => {
                path.push_str(
                    [
                        ";x=1",
                        ".css",
                        "%00.jpg",
                        "?x=/content",
                        ";v='1.0'.html",
                        "%20",
                        "/",
                        "%23",
                        "%3Fx",
                        "%23x.html",
                    ][at % 10],
                );
            }
            15 if slash > 0 => path.insert_str(slash, ";a='b'"),
            16 if slash > 0 => path.insert_str(slash, ["[1]", "%5B1%5D", "[01]"][at % 3]),
            17 => path.insert_str(slash + 1, ["{}", "%7B%7d"][at % 2]),
            18 => path.replace_range(letter..=letter, &format!("%u00{byte:02x}")),
            // The first slash stays.
            _ => {}
        }
    }
    path
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_spelling_of_a_closed_path_passes(
        path in prop::sample::select(&CLOSED[..]),
        mutations in prop::collection::vec((any::<u8>(), 0..40usize), 0..6),
    ) {
        let spelled = mutated(path, &mutations);
        for preset in Preset::ALL {
            prop_assert!(judged(&policy(preset, &[]), "GET", &spelled).is_err(), "{preset}: {spelled}");
        }
    }

    #[test]
    fn nothing_makes_it_panic(path in prop::collection::vec(any::<u8>(), 0..40)) {
        for preset in Preset::ALL {
            let path = Path::of(&path);
            let policy = policy(preset, &["deny * /content/secret/*"]);
            let _ = judge("GET", &path, |_| &policy, || std::iter::once(&policy));
        }
    }
}

const CLOSED: [&str; 12] = [
    "/crx/de/index.jsp",
    "/system/console/bundles.json",
    "/bin/querybuilder.json",
    "/etc/packages/x.zip",
    "/libs/granite/security/post/authorizables",
    "/home/users/a/admin.json",
    "/home/groups.tidy.json",
    "/jcr:system/jcr:versionStorage.json",
    "/libs/sling/servlet/default/GET.servlet",
    "/content/dam.modifyAce.html",
    "/libs/dam/cloud/proxy.json",
    "/etc.infinity.json/x",
];
