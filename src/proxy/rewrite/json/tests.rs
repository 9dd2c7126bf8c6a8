use proptest::prelude::*;

use super::*;
use crate::proxy::rewrite::tests::{
    documents::{Document, LOCAL, UPSTREAM, document},
    origin, settings,
};

fn links(members: Members) -> Links {
    Links::new(members, Arc::new(origin(UPSTREAM)), LOCAL.as_bytes())
}

/// Renames in `chunks`, and sees to it that little is held between them.
fn rename<'c>(members: Members, chunks: impl IntoIterator<Item = &'c [u8]>) -> Vec<u8> {
    let mut links = links(members);
    let mut renamed = Vec::new();
    for chunk in chunks {
        links.push(chunk, &mut |bytes| renamed.extend_from_slice(bytes));
        assert!(links.held.len() < Spelling::longest(&links.origin));
    }
    links.end(&mut |bytes| renamed.extend_from_slice(bytes));
    renamed
}

#[track_caller]
fn check(document: &str, expected: &str) {
    let bytes = document.as_bytes();
    let renamed = rename(Members::ALL, [bytes]);
    assert_eq!(String::from_utf8_lossy(&renamed), expected, "{document}");
    assert_eq!(renamed, rename(Members::ALL, bytes.chunks(1)), "{document}, byte by byte");
    for cut in 0..=bytes.len() {
        assert_eq!(renamed, rename(Members::ALL, [&bytes[..cut], &bytes[cut..]]), "{document}, cut at {cut}");
    }
}

#[track_caller]
fn check_unchanged(document: &str) {
    check(document, document);
}

#[test]
fn urls_of_aem_become_local_wherever_the_body_is_cut() {
    for (document, expected) in [
        (
            r#"{"completeURI":"https://aem.example/a.completeUpload.json"}"#,
            r#"{"completeURI":"http://localhost:8080/a.completeUpload.json"}"#,
        ),
        (
            r#"{ "completeURI" : "https:\/\/aem.example:443\/a" , "x" : 1 }"#,
            r#"{ "completeURI" : "http:\/\/localhost:8080\/a" , "x" : 1 }"#,
        ),
        (
            r#"{"complete\u0055RI":"https\u003A\u002F\u002Faem.example\u002Fa"}"#,
            r#"{"complete\u0055RI":"http\u003A\u002F\u002Flocalhost\u003A8080\u002Fa"}"#,
        ),
        (r#"{"completeURI":"https://aem.example"}"#, r#"{"completeURI":"http://localhost:8080"}"#),
        (
            r#"[{"_publishUrl":"https://aem.example/p","_authorUrl":"https://aem.example/a"}]"#,
            r#"[{"_publishUrl":"http://localhost:8080/p","_authorUrl":"http://localhost:8080/a"}]"#,
        ),
        (
            r#"{"links":[{"rel":["self"],"href":"https://aem.example/a"},{"href":"https://aem.example/b"}]}"#,
            r#"{"links":[{"rel":["self"],"href":"http://localhost:8080/a"},{"href":"http://localhost:8080/b"}]}"#,
        ),
        (r#"{"links":{"href":"https://aem.example/a"}}"#, r#"{"links":{"href":"http://localhost:8080/a"}}"#),
        (
            r#"{"links":[[],{"x":{"y":[]},"href":"https://aem.example/a"}]}"#,
            r#"{"links":[[],{"x":{"y":[]},"href":"http://localhost:8080/a"}]}"#,
        ),
    ] {
        check(document, expected);
    }
}

#[test]
fn several_documents_and_a_byte_order_mark_are_no_trouble() {
    check(
        "\u{feff}{\"completeURI\":\"https://aem.example/a\"}\n{\"completeURI\":\"https://aem.example/b\"} 1 \"x\" []\r\n",
        "\u{feff}{\"completeURI\":\"http://localhost:8080/a\"}\n{\"completeURI\":\"http://localhost:8080/b\"} 1 \"x\" []\r\n",
    );
}

#[test]
fn no_other_string_is_touched() {
    for document in [
        r#""https://aem.example/a""#,
        r#"["https://aem.example/a"]"#,
        r#"{"uploadURIs":["https://aem.example/a"],"fileName":"https://aem.example/a"}"#,
        r#"{"completeURI":["https://aem.example/a"]}"#,
        r#"{"completeURI":{"x":"https://aem.example/a"}}"#,
        r#"{"https://aem.example/a":"completeURI"}"#,
        r#"{"completeURI":"/content/dam/a","x":"https://aem.example/a"}"#,
        r#"{"completeURI":" https://aem.example/a"}"#,
        r#"{"completeURI":"https://other.example/?https://aem.example/"}"#,
        r#"{"completeURI":"https://aem.example.evil.com/"}"#,
        r#"{"completeURI":"https://aem.example:8443/"}"#,
        r#"{"completeURI":"https:\\/\\/aem.example/"}"#,
        r#"{"completeURI":"https://aem.example\"https://aem.example/","x":"\\"}"#,
        r#"{"completeURI":"https:\",\"completeURI\":\"https://aem.example/"}"#,
        r#"{"completeURI":1,"x":"https://aem.example/"}"#,
        r#"{"completeURI":null,"x":["https://aem.example/"]}"#,
        r#"{"x":"\"completeURI\":\"https://aem.example/\""}"#,
        r#"{"xcompleteURI":"https://aem.example/"}"#,
        r#"{"completeURIx":"https://aem.example/"}"#,
        r#"{"complete\u0155RI":"https://aem.example/"}"#,
        r#"{"complete\nURI":"https://aem.example/"}"#,
        r#"{"completeURI\"":"https://aem.example/"}"#,
        r#"{"completeuri":"https://aem.example/"}"#,
        r#"{"href":"https://aem.example/"}"#,
        r#"{"links":[{"x":{"href":"https://aem.example/"}}]}"#,
        r#"{"links":[[{"href":"https://aem.example/"}]]}"#,
        r#"{"links":{"x":[{"href":"https://aem.example/"}]}}"#,
        r#"{"links":[],"x":[{"href":"https://aem.example/"}]}"#,
        r#"{"links":[{}],"href":"https://aem.example/"}"#,
        r#"{"links":["href","https://aem.example/"]}"#,
    ] {
        check_unchanged(document);
    }
}

#[test]
fn nothing_is_renamed_that_was_not_asked_for() {
    let document = br#"{"completeURI":"https://aem.example/","links":[{"href":"https://aem.example/"}]}"#;
    assert_eq!(rename(Members::default(), [&document[..]]), document);
    let upload = Members::of(b"/a.initiateUpload.json", true);
    assert_eq!(
        String::from_utf8(rename(upload, [&document[..]])).unwrap(),
        r#"{"completeURI":"http://localhost:8080/","links":[{"href":"https://aem.example/"}]}"#
    );
}

#[test]
fn what_is_no_json_passes_from_there_on() {
    for broken in
        ["}", "]", "{]", "[}", "[,]", "{\"x\"}", "{\"x\":}", "{1:2}", "<", ",", ":", "'", "\"\" :", "["]
    {
        check_unchanged(&format!("{broken}\"completeURI\":\"https://aem.example/\""));
        check_unchanged(&format!("{broken}{{\"x\" \"completeURI\":\"https://aem.example/\""));
    }
    for open in [r#"{"completeURI":"https://aem.example"#, r#"{"completeURI":"https:\u00"#, r#"{"compl\u0"#] {
        check_unchanged(open);
    }
    check_unchanged(r#"{"complete\u00"#);
    check_unchanged(r#"{"complete\u00":"x","completeURI":1 "https://aem.example/"}"#);
}

#[test]
fn depth_costs_no_memory_and_is_found_back_from() {
    let url = r#"{"completeURI":"https://aem.example/"}"#;
    let renamed = r#"{"completeURI":"http://localhost:8080/"}"#;
    let around = |levels: usize, inside: &str| {
        let (open, close) = (r#"{"x":["#.repeat(levels / 2), "]}".repeat(levels / 2));
        format!("[{open}{inside}{close},{url}]")
    };
    let expected =
        |levels, inside| around(levels, inside).replace(&format!(",{url}"), &format!(",{renamed}"));
    let deepest = nesting::LEVELS - 2;
    for (levels, inside) in [(deepest, renamed), (deepest + 2, url), (10 * nesting::LEVELS, url)] {
        let renamed = rename(Members::ALL, [around(levels, url).as_bytes()]);
        assert_eq!(String::from_utf8(renamed).unwrap(), expected(levels, inside), "{levels} levels");
    }
}

/// The cuts of a body: pieces of these lengths, over and over.
fn cut<'b>(mut bytes: &'b [u8], lengths: &[usize]) -> Vec<&'b [u8]> {
    let mut chunks = Vec::new();
    for length in lengths.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (chunk, rest) = bytes.split_at(bytes.len().min(*length));
        chunks.push(chunk);
        bytes = rest;
    }
    chunks
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..40_usize, 1..8)
}

/// Words of JSON in any order, behind what makes some of them the beginning of a value that is renamed.
fn soup(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(words).prop_filter("opens", |word| word.starts_with('{'));
    let words = prop::collection::vec(prop::sample::select(words), 0..60);
    (start, words).prop_map(|(start, words)| format!("{start}{}", words.concat()).into_bytes())
}

const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    " ",
    "1",
    "x",
    "\"completeURI\"",
    "\"href\"",
    "\"links\"",
    "\"https://aem.example",
    "https",
    "https://aem.example",
    "https://aem.example/",
    "https:\\/",
    "https\\u003a\\u002f\\/aem.example",
    "\\/",
    "\\u00",
    "\\u002f",
    "/",
    "{\"completeURI\":\"",
    "{\"links\":[{\"href\":\"",
    "\u{e9}",
];

const HARMLESS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    " ",
    "1",
    "\"complete",
    "URI\"",
    "\"href\"",
    "\"https://aem.example/\"",
    "https://aem.example",
    "\\/",
    "\\u0022",
    "{\"x\":\"",
    "null",
    "\u{0}",
];

proptest! {
    #![proptest_config(settings(256))]

    #[test]
    fn a_document_keeps_every_byte_but_those_of_renamed_origins(
        Document { text, expected } in document(),
        lengths in lengths(),
    ) {
        let renamed = rename(Members::ALL, cut(text.as_bytes(), &lengths));
        prop_assert_eq!(String::from_utf8(renamed).unwrap(), expected);
    }

    #[test]
    fn a_document_says_what_its_values_renamed_one_by_one_say(Document { text, .. } in document()) {
        let renamed = rename(Members::ALL, [text.as_bytes()]);
        let mut value = serde_json::from_str(&text).unwrap();
        naive::rename(&mut value, naive::Around::Other);
        prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&renamed).unwrap(), value);
    }

    #[test]
    fn a_document_without_the_host_stays_as_it_is(Document { text, .. } in document()) {
        let elsewhere = text.replace("aem.example", "other.example");
        prop_assert!(!origin(UPSTREAM).occurs_in(elsewhere.as_bytes()));
        prop_assert_eq!(rename(Members::ALL, [elsewhere.as_bytes()]), elsewhere.as_bytes());
    }

    #[test]
    fn any_words_are_renamed_the_same_however_they_are_cut(soup in soup(WORDS), lengths in lengths()) {
        let whole = rename(Members::ALL, [&soup[..]]);
        prop_assert_eq!(&rename(Members::ALL, cut(&soup, &lengths)), &whole);
        prop_assert_eq!(&rename(Members::ALL, soup.chunks(1)), &whole);
        if !origin(UPSTREAM).occurs_in(&soup) {
            prop_assert_eq!(whole, soup);
        }
    }

    #[test]
    fn words_that_name_no_member_of_ours_stay_as_they_are(soup in soup(HARMLESS), lengths in lengths()) {
        prop_assert_eq!(rename(Members::ALL, cut(&soup, &lengths)), soup);
    }

    #[test]
    fn any_bytes_stay_as_they_are(bytes in prop::collection::vec(any::<u8>(), 0..300), lengths in lengths()) {
        prop_assert_eq!(rename(Members::ALL, cut(&bytes, &lengths)), bytes);
    }
}

/// The rule once more, on values.
mod naive {
    use serde_json::Value;

    use super::*;

    #[derive(Clone, Copy, PartialEq)]
    pub(super) enum Around {
        Links,
        Other,
    }

    pub(super) fn rename(value: &mut Value, around: Around) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match (name.as_str(), &mut *value) {
                        ("completeURI" | "_publishUrl" | "_authorUrl", Value::String(url)) => rename_url(url),
                        ("href", Value::String(url)) if around == Around::Links => rename_url(url),
                        ("links", value) => rename(value, Around::Links),
                        (_, value) => rename(value, Around::Other),
                    }
                }
            }
            Value::Array(values) if around == Around::Links => {
                for value in values {
                    rename(value, if value.is_object() { Around::Links } else { Around::Other });
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| rename(value, Around::Other)),
            _ => {}
        }
    }

    /// Of the host, only lower case is looked for.
    fn rename_url(url: &mut String) {
        let rest = origin(UPSTREAM).rest(url.as_bytes());
        if let Some(rest) = rest.filter(|_| !url.contains("AEM")) {
            *url = format!("{LOCAL}{}", str::from_utf8(rest).unwrap());
        }
    }
}
