pub(super) mod documents;

use proptest::test_runner::Config;

use super::*;

/// So many cases; what fails is written into a test of its own, and not into a file.
pub(super) fn settings(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

pub(super) fn origin(url: &str) -> Origin {
    Origin::new(&url.parse().unwrap())
}

#[track_caller]
fn check(origin: &Origin, text: &str, strict: Option<&str>, loose: Option<&str>) {
    assert_eq!(origin.rest(text.as_bytes()), strict.map(str::as_bytes), "{text}");
    assert_eq!(origin.rest_loosely(text.as_bytes()), loose.map(str::as_bytes), "{text}, loosely");
}

#[test]
fn an_origin_is_known_in_every_spelling() {
    let aem = origin("https://AEM.example");
    for (text, rest) in [
        ("https://aem.example", ""),
        ("https://aem.example/", "/"),
        ("https://aem.example/a?b#c", "/a?b#c"),
        ("https://aem.example?b", "?b"),
        ("https://aem.example#c", "#c"),
        ("https://aem.example:443", ""),
        ("https://aem.example:443/a", "/a"),
        ("HTTPS://Aem.Example/a", "/a"),
    ] {
        check(&aem, text, Some(rest), Some(rest));
    }
    for (text, rest) in [
        ("//aem.example/a", "/a"),
        ("//AEM.example:443", ""),
        ("http://aem.example/a", "/a"),
        ("http://aem.example:80/a", "/a"),
    ] {
        check(&aem, text, None, Some(rest));
    }
}

#[test]
fn lookalikes_of_an_origin_are_not_taken_for_it() {
    let aem = origin("https://aem.example");
    for text in [
        "",
        "/",
        "/a",
        "https",
        "https:/aem.example/",
        "https:aem.example",
        "https://aem.exampl",
        "https://aem.example.evil.com/",
        "https://aem.example@evil.com/",
        "https://user@aem.example/",
        "https://aem.example:8443/",
        "https://aem.example:4430/",
        "https://aem.example:443@evil.com/",
        "https://aem.example:/",
        "https://aem.example\\@evil.com/",
        "https://aem.example\\/",
        "https://aem.example%2f",
        "https://aem.example ",
        "https://aem.example./",
        "https://xaem.example/",
        "https:\\\\aem.example/",
        " https://aem.example/",
        "http://aem.example:443/",
        "http://aem.example:8080/",
        "//aem.example:80/",
        "///aem.example/",
        "//aem.example@evil.com/",
        "ftp://aem.example/",
    ] {
        check(&aem, text, None, None);
    }
}

#[test]
fn a_port_of_its_own_has_to_be_there() {
    let aem = origin("http://localhost:4502");
    for (text, rest) in [("http://localhost:4502/a", Some("/a")), ("http://LOCALHOST:4502", Some(""))] {
        check(&aem, text, rest, rest);
    }
    check(&aem, "//localhost:4502/a", None, Some("/a"));
    for text in ["http://localhost/", "http://localhost:45020/", "https://localhost:4502/", "//localhost/"] {
        check(&aem, text, None, None);
    }
    // AEM behind its CDN is on the default port: elsewhere `http` is another server.
    check(&origin("https://aem.example:8443"), "http://aem.example/", None, None);
    check(&origin("http://[::1]:4502"), "http://[::1]:4502/a", Some("/a"), Some("/a"));
}

#[test]
fn a_host_is_found_anywhere() {
    let aem = origin("https://aem.example:8443");
    assert!(aem.occurs_in(br#"{"completeURI":"https:\/\/aem.example\u003a8443\/a"}"#));
    assert!(!aem.occurs_in(b"https://aem.exampl/"));
    assert!(!aem.occurs_in(b""));
}
