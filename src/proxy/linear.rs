//! The work for a head grows in proportion to its length, whatever its fields are.

use std::{rc::Rc, sync::Arc};

use proptest::prelude::*;
use url::Url;

use super::{
    buffer::Buffer,
    fields::storage_for,
    guard::{Guard, Local},
    request::{Added, RequestHead},
    response::{AnswerTo, ResponseHead},
    rewrite::{Names, Origin},
    withheld::Withheld,
};
use crate::{policy::Asks, steps};

/// A head's fields for about so many bytes.
type Family = (&'static str, fn(usize) -> String);

/// More fields than there is room for on the stack.
const FIELDS: usize = 950;

/// So many lines, of which each is made from its number.
fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(|number| format!("{}\r\n", line(number))).collect()
}

/// Up to [`FIELDS`] fields of a hundred bytes each, and as much again of a list.
fn fields_and(name: &str, member: &str, bytes: usize) -> String {
    let fields = lines((bytes / 200).min(FIELDS), |number| format!("x-{number}: {}", "v".repeat(90)));
    format!("{fields}{name}: {}\r\n", member.repeat(bytes / 2 / member.len()))
}

const REQUESTS: &[Family] = &[
    ("one long field", |bytes| format!("x: {}\r\n", "v".repeat(bytes))),
    ("many members of Connection, many fields", |bytes| fields_and("connection", "a,", bytes)),
    ("members of Connection that are there", |bytes| fields_and("connection", "x-1,", bytes)),
    ("members of Connection that are nearly there", |bytes| fields_and("connection", "x-12345,", bytes)),
    ("empty members of Connection", |bytes| fields_and("connection", ",", bytes)),
    ("one long member of Connection", |bytes| fields_and("connection", "a", bytes)),
    ("many Connection fields", |bytes| {
        lines((bytes / 100).min(FIELDS), |_| format!("connection: {}", "ab,".repeat(29)))
    }),
    ("fields of one name that Connection names", |bytes| {
        let fields = lines((bytes / 200).min(FIELDS), |_| format!("a: {}", "v".repeat(190)));
        format!("{fields}connection: {}b\r\n", "a,".repeat(bytes / 4))
    }),
    ("long names that begin alike", |bytes| {
        let fields = lines((bytes / 200).min(FIELDS), |number| format!("{}{number}: v", "x".repeat(95)));
        format!("{fields}connection: {}b\r\n", format!("{},", "x".repeat(95)).repeat(bytes / 200))
    }),
    ("cookies", |bytes| format!("cookie: {}\r\n", "a=b; ".repeat(bytes / 5))),
    ("login tokens", |bytes| format!("cookie: {}\r\n", "login-token=x; ".repeat(bytes / 15))),
    ("nearly login tokens", |bytes| format!("cookie: {}\r\n", "login-toke".repeat(bytes / 10))),
    ("many cookies", |bytes| {
        lines((bytes / 100).min(FIELDS), |_| format!("cookie: {}", "login-token; a=b;".repeat(5)))
    }),
    ("TE", |bytes| fields_and("te", "trailers,", bytes)),
    ("Via", |bytes| fields_and("via", "1.1 a,", bytes)),
    ("Accept", |bytes| fields_and("accept", "jso", bytes)),
    ("Accept-Encoding", |bytes| fields_and("accept-encoding", "gzip;q=1,", bytes)),
    ("X-Forwarded", |bytes| {
        lines((bytes / 100).min(FIELDS), |number| format!("x-forwarded-{number}: {}", "a".repeat(80)))
    }),
    ("Upgrade", |bytes| format!("connection: upgrade\r\n{}", fields_and("upgrade", "a/", bytes))),
    ("Upgrade, many times", |bytes| {
        format!(
            "connection: upgrade\r\n{}",
            lines((bytes / 100).min(FIELDS), |_| format!("upgrade: {}", "a".repeat(90)))
        )
    }),
    ("Sec-WebSocket", |bytes| fields_and("sec-websocket-protocol", "a,", bytes)),
    ("Referer", |bytes| {
        lines((bytes / 100).min(FIELDS), |_| format!("referer: http://localhost/{}", "a".repeat(74)))
    }),
    ("a long host and many Referers", |bytes| {
        let referers = lines((bytes / 200).min(FIELDS), |_| format!("referer: http://{}/", "a".repeat(80)));
        format!("{referers}host: {}\r\n", "a".repeat(bytes / 2))
    }),
    ("Origin", |bytes| lines((bytes / 100).min(FIELDS), |_| format!("origin: http://{}", "a".repeat(83)))),
    ("many hosts", |bytes| lines((bytes / 100).min(FIELDS), |_| format!("host: {}", "a".repeat(92)))),
    ("Destination", |bytes| format!("destination: http://localhost{}\r\n", "/a".repeat(bytes / 2))),
];

const RESPONSES: &[Family] = &[
    ("one long field", |bytes| format!("x: {}\r\n", "v".repeat(bytes))),
    ("many members of Connection, many fields", |bytes| fields_and("connection", "a,", bytes)),
    ("members of Connection that are there", |bytes| fields_and("connection", "x-1,", bytes)),
    ("Set-Cookie", |bytes| format!("set-cookie: a=b{}\r\n", "; Domain=x".repeat(bytes / 10))),
    ("many Set-Cookies", |bytes| {
        lines((bytes / 100).min(FIELDS), |_| format!("set-cookie: a=b{}", ";Secure;a".repeat(9)))
    }),
    ("Link", |bytes| format!("link: {}\r\n", "<https://aem.example/a>;a=\"b\",".repeat(bytes / 30))),
    ("Link with quotes", |bytes| format!("link: {}\r\n", "\"\\".repeat(bytes / 2))),
    ("Link with openings", |bytes| format!("link: {}\r\n", "<".repeat(bytes))),
    ("Link with anchors", |bytes| format!("link: {}\r\n", ";anchor=\"".repeat(bytes / 9))),
    ("Link with blanks", |bytes| format!("link: <a>{}\"\r\n", " ".repeat(bytes))),
    ("Location", |bytes| {
        lines((bytes / 100).min(FIELDS), |_| format!("location: https://aem.example/{}", "a".repeat(68)))
    }),
    ("Refresh", |bytes| format!("refresh: 5{}url= '\r\n", "; ".repeat(bytes / 2))),
    ("the end of the token", |bytes| format!("x: {}\r\n", "-0123456789-0123456789-0".repeat(bytes / 24))),
];

/// The steps for reading a request's head, and writing it for AEM.
fn request(fields: &str) -> u64 {
    let host = if fields.contains("host: ") { "" } else { "host: localhost\r\n" };
    let head = format!("GET /a.json?{} HTTP/1.1\r\n{host}{fields}\r\n", "a=b&_charset_=utf-8&".repeat(5));
    let guard = Guard::new(&["*".to_owned()], &["http://localhost:3000".to_owned()]);
    let added = Added {
        host: b"aem.example",
        origin: b"https://aem.example",
        guard: Some(&guard),
        codings: Some(b"gzip, deflate"),
        authorization: Some(b"Bearer x"),
        unless_sent: [("x-api-key", Some(b"key")), ("x-95", Some(b"org"))],
        ..Added::default()
    };
    let ((), steps) = steps::of(|| {
        let mut storage = storage_for(FIELDS + 50);
        if let Ok(head) = RequestHead::parse(head.as_bytes(), &mut storage) {
            let head = head.expect("a whole head");
            let _ = guard.admit(&head.asked, Local::Unknown);
            let _ = (head.asking(), head.protocol(), Asks::of(head.query()));
            head.write(&added, head.length(), &mut Buffer::default());
        }
    });
    steps
}

/// The steps for reading a response's head, and writing it for the client.
fn response(fields: &str) -> u64 {
    let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    let token = format!("x{}", "-0123456789-0123456789-0".repeat(8));
    let origin = Arc::new(Origin::new(&Url::parse("https://aem.example").expect("a URL")));
    let names = Names { origin: &origin, local: Rc::from(&b"http://localhost:8080"[..]) };
    let withheld = Withheld::new(token.as_bytes());
    let to = AnswerTo {
        minor: 1,
        keep_alive: true,
        web_origin: Some("http://a"),
        withheld,
        ..AnswerTo::default()
    };
    let ((), steps) = steps::of(|| {
        let mut storage = storage_for(FIELDS + 50);
        if let Ok(head) = ResponseHead::parse(head.as_bytes(), &mut storage) {
            let head = head.expect("a whole head");
            let body = head.body(to).expect("a body");
            head.write(body, to, Some(&names), false, &mut Buffer::default());
        }
    });
    steps
}

#[track_caller]
fn check(name: &str, steps: impl Fn(usize) -> u64) {
    let [at_2, at_4, at_8] = LENGTHS.map(&steps);
    let ratio = |more: u64, less: u64| (more as f64) / (less.max(1) as f64);
    assert!(
        ratio(at_4, at_2) < RATIO_MAX && ratio(at_8, at_4) < RATIO_MAX && at_8 > LENGTHS[2] as u64 / 2,
        "{name}: {at_2}, {at_4}, {at_8} steps"
    );
    assert!(at_8 <= PER_BYTE_MAX * LENGTHS[2] as u64, "{name}: {at_8} steps");
}

const LENGTHS: [usize; 3] = [2048, 4096, 8192];

/// Twice as long is twice the work, and a little more for names that are sorted.
const RATIO_MAX: f64 = 2.3;

const PER_BYTE_MAX: u64 = 40;

#[test]
fn twice_as_long_a_request_head_takes_twice_as_many_steps() {
    for (name, fields) in REQUESTS {
        check(name, |bytes| request(&fields(bytes)));
    }
}

#[test]
fn twice_as_long_a_response_head_takes_twice_as_many_steps() {
    for (name, fields) in RESPONSES {
        check(name, |bytes| response(&fields(bytes)));
    }
}

#[test]
fn the_largest_heads_take_no_more_steps_for_a_byte() {
    for (name, fields) in REQUESTS {
        let steps = request(&fields(LARGEST));
        assert!(steps <= PER_BYTE_MAX * LARGEST as u64, "{name}: {steps} steps");
    }
    for (name, fields) in RESPONSES {
        let steps = response(&fields(LARGEST));
        assert!(steps <= PER_BYTE_MAX * LARGEST as u64, "{name}: {steps} steps");
    }
}

/// As much as `limits.head` allows by default.
const LARGEST: usize = 60 * 1024;

const FRAGMENTS: [&str; 30] = [
    ",",
    ", ",
    ";",
    "\"",
    "'",
    "<",
    ">",
    "=",
    "/",
    ":",
    " ",
    "\\",
    "a",
    "x-1",
    "close",
    "upgrade",
    "te",
    "gzip",
    ";q=1",
    "login-token",
    "http://localhost",
    "https://aem.example",
    "anchor=",
    "; Domain",
    "json",
    "html",
    "\t",
    "\u{fc}",
    "%",
    "@",
];

const NAMES: [&str; 16] = [
    "connection",
    "cookie",
    "te",
    "via",
    "accept",
    "accept-encoding",
    "referer",
    "x-1",
    "upgrade",
    "set-cookie",
    "link",
    "location",
    "refresh",
    "x-http-method",
    "forwarded",
    "keep-alive",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fields_are_made_of_they_take_steps_in_proportion_to_their_length(
        names in prop::collection::vec(prop::sample::select(&NAMES[..]), 1..4),
        parts in prop::collection::vec(prop::sample::select(&FRAGMENTS[..]), 1..5),
        many in any::<bool>(),
    ) {
        let part = parts.concat();
        let fields = |bytes: usize| {
            let each = if many { 200 } else { bytes / names.len() };
            let value = part.repeat((each / part.len()).max(1));
            lines((bytes / each.max(value.len())).clamp(1, FIELDS), |number| format!("{}: {value}", names[number % names.len()]))
        };
        for steps in [request, response] {
            let name = format!("{names:?} {parts:?}");
            let [at_2, at_4, at_8] = LENGTHS.map(|bytes| steps(&fields(bytes)));
            // Some are refused before all of them are read.
            prop_assert!(at_8 <= PER_BYTE_MAX * LENGTHS[2] as u64, "{name}: {at_2}, {at_4}, {at_8} steps");
            let grown = at_8 as f64 / at_4.max(1) as f64;
            prop_assert!(grown < RATIO_MAX + 0.4 && at_4 < 3 * at_2.max(1), "{name}: {at_2}, {at_4}, {at_8} steps");
        }
    }
}
