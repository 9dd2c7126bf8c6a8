//! Heads as AEM is to see them, and those that are no requests.

use std::sync::LazyLock;

use http::HeaderName;

use super::{super::fields::storage, *};

/// What AEM gets beside what the client sends, where one web origin is allowed.
fn added() -> Added<'static> {
    static GUARD: LazyLock<Guard> = LazyLock::new(|| Guard::new(&[], &["http://localhost:3000".to_owned()]));
    Added {
        host: b"aem.example",
        origin: b"https://aem.example",
        guard: Some(&GUARD),
        authorization: Some(b"Bearer x"),
        ..Added::default()
    }
}

/// The head that AEM sees of one with `fields`, without its first two lines and `Via`.
fn written(fields: &str) -> String {
    written_with(fields, &added())
}

fn written_with(fields: &str, added: &Added<'_>) -> String {
    let text = format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let mut storage = storage();
    let head = RequestHead::parse(text.as_bytes(), &mut storage).unwrap().unwrap();
    assert_eq!(head.bytes, text.len());
    let mut out = Buffer::default();
    head.write(added, head.length(), &mut out);
    let written = std::str::from_utf8(out.filled()).unwrap();
    let rest = written.strip_prefix("GET /x HTTP/1.1\r\nhost: aem.example\r\n").expect(written);
    let rest = rest.strip_suffix("authorization: Bearer x\r\nvia: 1.1 aem-auth-proxy\r\n\r\n");
    rest.expect(written).to_owned()
}

#[track_caller]
fn check(fields: &str, expected: &str) {
    assert_eq!(written(fields), expected, "{fields}");
}

fn refused(text: &str) -> Option<NoRequest> {
    let mut storage = storage();
    RequestHead::parse(text.as_bytes(), &mut storage).err()
}

#[test]
fn what_is_ours_to_add_is_added_once_whatever_a_connection_field_names() {
    let fields = [(HeaderName::from_static("x-gw-ims-org-id"), "fixed".into())];
    let added = Added {
        host: b"aem.example",
        authorization: Some(b"Bearer x"),
        fields: &fields,
        unless_sent: [("x-api-key", Some(b"client")), ("x-gw-ims-org-id", Some(b"org"))],
        ..Added::default()
    };
    let text = "GET /x HTTP/1.1\r\nhost: a\r\nconnection: x-api-key, x-gw-ims-org-id, authorization\r\n\
                x-api-key: own\r\nx-gw-ims-org-id: own\r\nauthorization: own\r\n\r\n";
    let mut storage = storage();
    let head = RequestHead::parse(text.as_bytes(), &mut storage).unwrap().unwrap();
    let mut out = Buffer::default();
    head.write(&added, head.length(), &mut out);
    assert_eq!(
        std::str::from_utf8(out.filled()).unwrap(),
        "GET /x HTTP/1.1\r\nhost: aem.example\r\nx-gw-ims-org-id: fixed\r\nx-api-key: client\r\n\
         authorization: Bearer x\r\nvia: 1.1 aem-auth-proxy\r\n\r\n"
    );
}

#[test]
fn a_target_without_a_path_is_of_the_root() {
    for (target, path, query) in [
        ("http://a?x", "/", "x"),
        ("http://a", "/", ""),
        ("http://a/b?x", "/b?x", "x"),
        ("/b?x?y", "/b?x?y", "x?y"),
        ("/b", "/b", ""),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
        let mut storage = storage();
        let head = RequestHead::parse(text.as_bytes(), &mut storage).unwrap().unwrap();
        assert_eq!((head.path(), head.query()), (path.as_bytes(), query.as_bytes()), "{target}");
    }
}

#[test]
fn hop_by_hop_fields_and_those_named_by_connection_go() {
    check(
        "Connection: close, X-Private\r\nconnection: authorization\r\nx-private: 1\r\nAuthorization: Basic x\r\n\
         keep-alive: timeout=5\r\nproxy-connection: close\r\nTE: gzip\r\nupgrade: h2c\r\n\
         proxy-authorization: Basic y\r\nAccept: */*\r\n",
        "Accept: */*\r\n",
    );
}

#[test]
fn the_length_of_a_body_is_not_up_to_connection() {
    let written = written("connection: content-length\r\ncontent-length: 3\r\n");
    assert_eq!(written, "content-length: 3\r\nconnection: close\r\n", "and a GET has no body");
}

#[test]
fn a_client_that_takes_trailers_says_so_to_aem() {
    check("te: trailers, deflate\r\n", "connection: te\r\nte: trailers\r\n");
}

#[test]
fn forwarded_fields_go_and_an_earlier_via_stays() {
    check(
        "Forwarded: for=1.2.3.4\r\nX-Forwarded-Host: evil\r\nx-forwarded-for: 1.2.3.4\r\n\
         x-forwarded-for: 5.6.7.8\r\nvia: 1.1 other\r\n",
        "via: 1.1 other\r\n",
    );
}

#[test]
fn the_login_token_goes_and_other_cookies_stay() {
    check("cookie: a=1; login-token=secret; b=2\r\n", "cookie: a=1; b=2\r\n");
    check("cookie: login-token=secret\r\n", "");
    check("cookie: login-token=x\r\ncookie: c=3\r\n", "cookie: c=3\r\n");
    check("cookie: my-login-token=keep;d=4\r\n", "cookie: my-login-token=keep;d=4\r\n");
    check("cookie: a=1;b=2\r\n", "cookie: a=1;b=2\r\n");
}

#[test]
fn an_upgrade_to_one_protocol_that_is_not_http_is_passed_on() {
    for protocol in ["websocket", "WebSocket", "foo", "IRC/6.9"] {
        check(
            &format!("connection: keep-alive, Upgrade\r\nupgrade: {protocol}\r\n"),
            &format!("connection: upgrade\r\nupgrade: {protocol}\r\n"),
        );
    }
    for protocol in ["h2c", "H2C", "h2c-14", "h2", "HTTP/2.0", "http/1.1", "TLS/1.2", "", "foo bar"] {
        check(&format!("connection: upgrade\r\nupgrade: {protocol}\r\n"), "");
    }
    for list in ["websocket, h2c", "h2c, websocket", "foo, bar", "foo,"] {
        check(&format!("connection: upgrade\r\nupgrade: {list}\r\n"), "");
    }
    check("connection: upgrade\r\nupgrade: websocket\r\nupgrade: h2c\r\n", "");
    check("connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n", "");
    check("connection: close\r\nupgrade: websocket\r\n", "");
}

#[test]
fn a_page_of_ours_is_one_of_aems_own_to_aem() {
    for (sent, seen) in [
        ("Origin: http://localhost", "Origin: https://aem.example"),
        ("Origin: http://localhost:3000", "Origin: https://aem.example"),
        (
            "Referer: http://localhost:3000/edit?x=http://localhost/",
            "Referer: https://aem.example/edit?x=http://localhost/",
        ),
        ("Referer: http://LOCALHOST/a", "Referer: https://aem.example/a"),
        ("referer: http://localhost:3000", "referer: https://aem.example"),
        ("referer: http://localhost:3001/", "referer: http://localhost:3001/"),
        ("referer: http://localhost:3000.evil.example/", "referer: http://localhost:3000.evil.example/"),
        ("referer: http://localhost:3000@evil.example/", "referer: http://localhost:3000@evil.example/"),
        ("referer: https://localhost/", "referer: https://localhost/"),
        ("referer: /relative", "referer: /relative"),
        ("referer: ", "referer: "),
        ("referer: about:client", "referer: about:client"),
        ("referer: http://caf\u{e9}/", "referer: http://caf\u{e9}/"),
    ] {
        check(&format!("{sent}\r\n"), &format!("{seen}\r\n"));
    }
}

#[test]
fn a_destination_here_is_one_at_aem() {
    for (sent, seen) in [
        ("X-Destination: http://localhost/api/assets/b", "X-Destination: https://aem.example/api/assets/b"),
        ("Destination: http://127.0.0.1/b", "Destination: https://aem.example/b"),
        ("destination: http://[::1]/b", "destination: https://aem.example/b"),
        ("destination: http://localhost:81/b", "destination: http://localhost:81/b"),
        // A page's origin is no place for content.
        ("destination: http://localhost:3000/b", "destination: http://localhost:3000/b"),
        ("destination: /api/assets/b", "destination: /api/assets/b"),
        ("destination: https://other.example/b", "destination: https://other.example/b"),
    ] {
        check(&format!("{sent}\r\n"), &format!("{seen}\r\n"));
    }
}

#[test]
fn aem_sees_the_user_agent_that_was_chosen() {
    let agent = |added: &Added<'_>, fields| written_with(fields, added);
    let chosen = Added { user_agent: Some(b"app/1"), ..added() };
    for fields in ["", "User-Agent: Mozilla/5.0\r\n", "user-agent: a\r\nuser-agent: b\r\n"] {
        assert_eq!(agent(&chosen, fields), "user-agent: app/1\r\n", "{fields}");
    }
    check("User-Agent: Mozilla/5.0\r\n", "User-Agent: Mozilla/5.0\r\n");
    let fields = [(HeaderName::from_static("user-agent"), "the-routes".into())];
    let fixed = Added { fields: &fields, ..chosen };
    assert_eq!(agent(&fixed, "user-agent: a\r\n"), "user-agent: the-routes\r\n");
}

#[test]
fn aem_is_asked_for_no_coding_that_cannot_be_read_here() {
    let added = Added { codings: Some(b"gzip, deflate, br"), ..added() };
    for (sent, seen) in [
        ("gzip, deflate, br, zstd", "gzip, deflate, br"),
        ("br;q=1.0, GZIP;q=0.5, *;q=0.1", "br;q=1.0, GZIP;q=0.5"),
        ("gzip;q=0, br", "gzip;q=0, br"),
        ("zstd", "identity"),
        ("", "identity"),
        ("*", "identity"),
        ("identity", "identity"),
        ("identity;q=0, gzip", "identity;q=0, gzip"),
    ] {
        let fields = format!("accept-encoding: {sent}\r\n");
        assert_eq!(written_with(&fields, &added), format!("accept-encoding: {seen}\r\n"));
        check(&fields, &fields);
    }
    assert_eq!(written_with("", &added), "");
}

#[test]
fn a_target_of_any_bytes_is_read_and_written_as_it_came() {
    let bytes = b"GET /caf\xe9;k=v%3B%2F//..?\xff HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\nrest";
    let mut storage = storage();
    let head = RequestHead::parse(bytes, &mut storage).unwrap().unwrap();
    assert_eq!(head.bytes, bytes.len() - b"rest".len());
    let mut out = Buffer::default();
    head.write(&added(), Length::Exact(0), &mut out);
    let begin = b"GET /caf\xe9;k=v%3B%2F//..?\xff HTTP/1.1\r\nhost: aem.example\r\nx: y\r\n";
    assert_eq!(out.filled()[..begin.len()].escape_ascii().to_string(), begin.escape_ascii().to_string());
    for end in 0..bytes.len() - b"rest".len() {
        let mut storage = super::super::fields::storage();
        assert!(RequestHead::parse(&bytes[..end], &mut storage).unwrap().is_none(), "{end}");
    }
}

/// The answer names the field that is at fault.
#[track_caller]
fn check_ambiguous(text: &str, named: &str) {
    let error = refused(text).unwrap();
    let answer = String::from_utf8(error.answer(false)).unwrap();
    assert!(answer.contains("problem:ambiguous"), "{text}: {answer}");
    let (_, detail) = answer.split_once("detail\":\"").unwrap();
    assert!(detail.contains(named), "{text}: {detail}");
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for (fields, named) in [
        ("content-length: 5\r\ntransfer-encoding: chunked", "Content-Length and Transfer-Encoding"),
        ("transfer-encoding: chunked, identity", "Transfer-Encoding"),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", "Transfer-Encoding"),
        ("content-length: 1\r\ncontent-length: 2", "Content-Length"),
        ("content-length: 1\r\ncontent-length: 1", "Content-Length"),
        ("content-length: +1", "Content-Length"),
        ("content_length: 1", "looks like"),
        ("content-type: a/b\r\ncontent-type: c/d", "Content-Type"),
        ("destination: /a\r\ndestination: /b", "Destination"),
    ] {
        let text = format!("POST / HTTP/1.1\r\nhost: x\r\n{fields}\r\n\r\n");
        check_ambiguous(&text, named);
    }
    check_ambiguous("POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", "Transfer-Encoding");
    check_ambiguous("GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n", "Host");
    for text in [
        "POST / HTTP/1.1\r\nhost: x\r\n folded: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost : x\r\n\r\n",
        "GET / HTTP/1.1\nhost: x\r\n",
        "GET / HTTP/1.1\r\nhost: x\n",
        "GET / HTTP/1.1\r\nhost: x\r\n\n",
        "GET / HTTP/1.1\r\nhost: \rx\r\n",
        "GET /\u{e9} HTTP/1.1\nhost: x\r\n",
        "\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "GETGETGETGETGETGETGETGETGETGETGET / HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        assert_eq!(refused(text), Some(NoRequest::Malformed), "{text}");
    }
    assert_eq!(refused("GET / HTTP/2.0\r\nhost: x\r\n"), Some(NoRequest::Version));
    assert_eq!(refused("GET * HTTP/1.1\r\nhost: x\r\n\r\n"), Some(NoRequest::Target));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
    assert_eq!(refused(&many), Some(NoRequest::HeadTooLarge));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(TARGET_MAX));
    assert_eq!(refused(&long), Some(NoRequest::LineTooLong));
}

#[test]
fn what_nobody_knows_how_to_do_is_refused() {
    let coded = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n";
    assert_eq!(refused(coded), Some(NoRequest::Coding));
    for (version, fields, expected) in [
        ("1.1", "expect: 100-Continue", None),
        ("1.1", "expect: 100-continue\r\nexpect: 100-continue", Some(NoRequest::Expectation)),
        ("1.1", "expect: 100-continue, x", Some(NoRequest::Expectation)),
        ("1.1", "expect: ", Some(NoRequest::Expectation)),
        ("1.1", "expect: 200-ok", Some(NoRequest::Expectation)),
        ("1.0", "expect: 200-ok", None),
    ] {
        let text = format!("PUT / HTTP/{version}\r\nhost: x\r\n{fields}\r\n\r\n");
        assert_eq!(refused(&text), expected, "{fields}");
    }
    // And an old client's expectation, which means nothing, is not passed on as one that does.
    let mut storage = storage();
    let head = b"PUT / HTTP/1.0\r\nhost: x\r\nexpect: 100-continue\r\n\r\n";
    let head = RequestHead::parse(head, &mut storage).unwrap().unwrap();
    let mut out = Buffer::default();
    head.write(&added(), Length::Exact(0), &mut out);
    assert!(!out.filled().windows(6).any(|part| part == b"expect"));
}

#[test]
fn a_head_that_has_not_ended_is_waited_for() {
    let text = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for end in 0..text.len() {
        assert!(RequestHead::parse(&text.as_bytes()[..end], &mut storage()).unwrap().is_none());
    }
}

#[test]
fn a_head_for_another_credential_says_what_is_known_of_that_one() {
    let mut storage = storage();
    let head = RequestHead::parse(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", &mut storage).unwrap().unwrap();
    let first = Added { unless_sent: [("x-api-key", Some(b"client")), ("x-org", None)], ..added() };
    let other = Added { unless_sent: [("x-api-key", None), ("x-org", Some(b"org"))], ..added() };
    let mut out = Buffer::default();
    let mut identity = head.write(&first, Length::Exact(0), &mut out);
    assert!(out.filled().windows(17).any(|part| part == b"x-api-key: client"));
    let mut again = Buffer::default();
    other.rewrite(out.filled(), &mut identity, &mut again);
    let mut expected = Buffer::default();
    head.write(&other, Length::Exact(0), &mut expected);
    assert_eq!(again.filled().escape_ascii().to_string(), expected.filled().escape_ascii().to_string());
}
