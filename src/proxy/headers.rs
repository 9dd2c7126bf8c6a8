//! What crosses a proxy and what does not.
//!
//! Sources: RFC 9110, section 7.6 (hop-by-hop fields, `Via`); Adobe, "CDN in AEM as a Cloud Service" (forwarded
//! fields).

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Version,
    header::{self, Entry},
};

/// Whether a request asks to become a WebSocket. No other upgrade is passed on: `h2c` would open a way past us on
/// which no token is added (golang/go#80416).
pub(super) fn websocket<B>(request: &Request<B>) -> bool {
    names_websocket(request.headers()) && lists(request.headers(), header::CONNECTION, "upgrade")
}

/// Whether `Upgrade` names a WebSocket and nothing else.
pub(super) fn names_websocket(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Whether a body has a transfer coding beside `chunked`. It would be passed on undecoded and unannounced, since the
/// field stays here.
pub(super) fn is_coded_otherwise(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    codings.any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
        || headers.get_all(header::TRANSFER_ENCODING).iter().count() > 1
}

/// The bytes of a request's head, near enough: names, values, separators and the first line.
pub(super) fn size<B>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query().map_or(1, |path| path.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    request.method().as_str().len() + target + " HTTP/1.1\r\n\r\n".len() + fields.sum::<usize>()
}

/// Removes what is between the client and us, and what AEM's CDN must not see; adds `Via`.
pub(super) fn strip_request(headers: &mut HeaderMap, received: Version, upgrade: bool) {
    let trailers = lists(headers, header::TE, "trailers");
    strip_hop_by_hop(headers);
    headers.remove(header::PROXY_AUTHORIZATION);
    strip_forwarded(headers);
    strip_login_token(headers);
    headers.append(header::VIA, via(received));
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    } else if trailers {
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes what is between AEM and us; adds `Via`.
pub(super) fn strip_response(headers: &mut HeaderMap, received: Version, upgrade: bool) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // The coding decides where the body ends (RFC 9112, section 6.3); a length beside it would cut it short.
        headers.remove(header::CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    headers.append(header::VIA, via(received));
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// Fields named by `Connection` go first, while `Connection` can still be read. Framing is hyper's: it sets
/// `Transfer-Encoding` anew where the body needs it.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        for name in named_by_connection(headers) {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter();
    let names = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    names
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| *name != header::CONTENT_LENGTH)
        .collect()
}

/// AEM's CDN answers 403 or redirects in circles when a forwarded host is not its own.
fn strip_forwarded(headers: &mut HeaderMap) {
    headers.remove(header::FORWARDED);
    let is_forwarded = |name: &&HeaderName| name.as_str().starts_with("x-forwarded-");
    if headers.keys().any(|name| is_forwarded(&name)) {
        let names: Vec<_> = headers.keys().filter(is_forwarded).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// A browser's `login-token` is another identity, and may win over ours.
fn strip_login_token(headers: &mut HeaderMap) {
    let holds =
        |value: &HeaderValue| value.as_bytes().windows(LOGIN_TOKEN.len()).any(|part| part == LOGIN_TOKEN);
    if !headers.get_all(header::COOKIE).iter().any(holds) {
        return;
    }
    let Entry::Occupied(entry) = headers.entry(header::COOKIE) else { return };
    let (_, values) = entry.remove_entry_mult();
    let kept: Vec<_> = values.filter_map(|value| without_login_token(&value)).collect();
    for value in kept {
        headers.append(header::COOKIE, value);
    }
}

fn without_login_token(value: &HeaderValue) -> Option<HeaderValue> {
    let pairs = value.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is_login_token =
        |pair: &[u8]| pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii() == LOGIN_TOKEN;
    let kept: Vec<_> = pairs.filter(|pair| !pair.is_empty() && !is_login_token(pair)).collect();
    if kept.is_empty() { None } else { HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok() }
}

/// Whether one of the comma-separated members of `name` is `member`.
fn lists(headers: &HeaderMap, name: HeaderName, member: &str) -> bool {
    let values = headers.get_all(name);
    let mut members =
        values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    members.any(|found| found.trim().eq_ignore_ascii_case(member))
}

fn via(received: Version) -> HeaderValue {
    HeaderValue::from_static(if received == Version::HTTP_10 {
        "1.0 aem-auth-proxy"
    } else {
        "1.1 aem-auth-proxy"
    })
}

const LOGIN_TOKEN: &[u8] = b"login-token";

/// `Proxy-Connection` and `Keep-Alive` are no longer in the RFC's list and still sent.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[track_caller]
    fn check(fields: &[(&'static str, &'static str)], expected: &[(&'static str, &'static str)]) {
        let mut headers = map(fields);
        strip_request(&mut headers, Version::HTTP_11, false);
        let mut expected = map(expected);
        expected.append(header::VIA, HeaderValue::from_static("1.1 aem-auth-proxy"));
        assert_eq!(headers, expected, "{fields:?}");
    }

    #[test]
    fn hop_by_hop_fields_and_those_named_by_connection_go() {
        check(
            &[
                ("connection", "close, X-Private"),
                ("connection", "authorization"),
                ("x-private", "1"),
                ("authorization", "Basic x"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "close"),
                ("te", "gzip"),
                ("upgrade", "h2c"),
                ("proxy-authorization", "Basic y"),
                ("accept", "*/*"),
            ],
            &[("accept", "*/*")],
        );
    }

    #[test]
    fn the_length_of_a_body_is_not_up_to_connection() {
        check(&[("connection", "content-length"), ("content-length", "3")], &[("content-length", "3")]);
    }

    #[test]
    fn a_client_that_takes_trailers_says_so_to_aem() {
        check(&[("te", "trailers, deflate")], &[("connection", "te"), ("te", "trailers")]);
    }

    #[test]
    fn forwarded_fields_go_and_an_earlier_via_stays() {
        let mut headers = map(&[
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "5.6.7.8"),
            ("x-forwarded-proto", "http"),
            ("via", "1.1 other"),
        ]);
        strip_request(&mut headers, Version::HTTP_10, false);
        assert_eq!(headers, map(&[("via", "1.1 other"), ("via", "1.0 aem-auth-proxy")]));
    }

    #[test]
    fn the_login_token_goes_and_other_cookies_stay() {
        check(&[("cookie", "a=1; login-token=secret; b=2")], &[("cookie", "a=1; b=2")]);
        check(&[("cookie", "login-token=secret")], &[]);
        check(&[("cookie", "login-token=x"), ("cookie", "c=3")], &[("cookie", "c=3")]);
        check(&[("cookie", "my-login-token=keep;d=4")], &[("cookie", "my-login-token=keep; d=4")]);
        check(&[("cookie", "a=1;b=2")], &[("cookie", "a=1;b=2")]);
    }

    #[test]
    fn only_a_websocket_upgrade_is_passed_on() {
        let request = |connection: &'static str, upgrade: &'static str| {
            Request::builder().header("connection", connection).header("upgrade", upgrade).body(()).unwrap()
        };
        assert!(websocket(&request("keep-alive, Upgrade", "WebSocket")));
        assert!(!websocket(&request("Upgrade, HTTP2-Settings", "h2c")));
        assert!(!websocket(&request("close", "websocket")));
        assert!(!websocket(&request("Upgrade", "websocket, h2c")));
    }
}
