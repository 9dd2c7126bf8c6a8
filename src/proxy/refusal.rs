//! How AEM says that it does not take the token: 401 to tools, and to what it takes for a browser in three other ways.
//!
//! Sources: `SlingAuthenticator` and `AuthUtil` of Apache Sling's authentication; what AEM's authors see in front of it.

use super::{request::Asking, response::ResponseHead};

/// A way of saying it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 401.
    Unauthorized,
    /// A redirect to a login page.
    LoginRedirect,
    /// 403 with `X-Reason`, to scripts in a browser. A plain 403 is about rights: another token has no others.
    Reason,
    /// A page where JSON was asked for.
    LoginPage,
}

impl Refusal {
    /// Every way.
    pub const ALL: [Self; 4] = [Self::Unauthorized, Self::LoginRedirect, Self::Reason, Self::LoginPage];

    /// Whether this head is one.
    pub(super) fn of(head: &ResponseHead<'_, '_>, asking: Asking) -> Option<Self> {
        match head.status {
            401 => Some(Self::Unauthorized),
            302 | 303 | 307 if !asking.logs_out && head.location.is_some_and(is_login) => {
                Some(Self::LoginRedirect)
            }
            403 if head.has_reason => Some(Self::Reason),
            200 if asking.json && asking.safe && head.content_type.is_some_and(is_html) => {
                Some(Self::LoginPage)
            }
            _ => None,
        }
    }

    /// The label in the metrics.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::LoginRedirect => "login_redirect",
            Self::Reason => "reason",
            Self::LoginPage => "login_page",
        }
    }
}

/// Whether AEM has accepted the token of a request, where its answer is no [`Refusal`]. Statuses that the CDN, a gateway or a
/// server that is down give without a look at the token prove nothing: 403, 405, 429, 5xx, and those about the form of a
/// request.
pub(super) fn accepts_token(status: u16) -> bool {
    matches!(status, 101 | 200..400 | 404 | 409 | 410 | 412 | 415 | 416 | 422..=424)
}

/// AEM's own login pages, and Adobe's.
fn is_login(location: &[u8]) -> bool {
    let Ok(location) = std::str::from_utf8(location) else { return false };
    let (authority, path) = match location.split_once("//") {
        Some(("" | "http:" | "https:", rest)) => {
            rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
        }
        _ => ("", location),
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    LOGIN_HOSTS.iter().any(|host| authority.to_ascii_lowercase().ends_with(host))
        || LOGIN_PATHS.iter().any(|login| path.starts_with(login))
}

fn is_html(content_type: &[u8]) -> bool {
    let media = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    media.eq_ignore_ascii_case(b"text/html") || media.eq_ignore_ascii_case(b"application/xhtml+xml")
}

/// The pages that AEM and Sling come with.
const LOGIN_PATHS: [&str; 5] = [
    "/libs/granite/core/content/login",
    "/libs/cq/core/content/login",
    "/system/sling/login",
    "/system/sling/form/login",
    "/libs/granite/security/content/login",
];

/// Where IMS lets people log in.
const LOGIN_HOSTS: [&str; 2] = [".adobelogin.com", "auth.services.adobe.com"];

#[cfg(test)]
mod tests {
    use super::{super::fields::storage, *};

    fn of(head: &str, asking: Asking) -> Option<Refusal> {
        let text = format!("HTTP/1.1 {head}\r\n\r\n");
        let mut storage = storage();
        Refusal::of(&ResponseHead::parse(text.as_bytes(), &mut storage).unwrap().unwrap(), asking)
    }

    #[test]
    fn every_way_of_saying_it_is_known() {
        let asking =
            Asking { json: true, safe: true, idempotent: true, logs_out: false, unexpected_body: false };
        for (head, expected) in [
            ("401 Unauthorized", Some(Refusal::Unauthorized)),
            (
                "302 Found\r\nlocation: https://a.example/libs/granite/core/content/login.html?resource=x",
                Some(Refusal::LoginRedirect),
            ),
            ("302 Found\r\nlocation: /libs/granite/core/content/login.html", Some(Refusal::LoginRedirect)),
            ("302 Found\r\nlocation: //a.example/system/sling/login", Some(Refusal::LoginRedirect)),
            (
                "307 Temporary\r\nlocation: https://ims-na1.adobelogin.com/ims/authorize/v1?x",
                Some(Refusal::LoginRedirect),
            ),
            ("302 Found\r\nlocation: /content/login.html", None),
            ("302 Found\r\nlocation: /x?then=/libs/granite/core/content/login.html", None),
            ("302 Found\r\nlocation: https://evil.example/.adobelogin.com", None),
            ("302 Found", None),
            ("403 Forbidden\r\nx-reason: Authentication Failed", Some(Refusal::Reason)),
            ("403 Forbidden\r\nx-reason-code: expired_token", Some(Refusal::Reason)),
            ("403 Forbidden", None),
            ("200 OK\r\ncontent-type: text/html;charset=utf-8", Some(Refusal::LoginPage)),
            ("200 OK\r\ncontent-type: application/json", None),
            ("404 Not Found\r\ncontent-type: text/html", None),
            ("503 Unavailable\r\ncontent-type: text/html", None),
        ] {
            assert_eq!(of(head, asking), expected, "{head}");
        }
    }

    #[test]
    fn a_page_is_none_where_a_page_was_asked_or_something_was_done() {
        let page = "200 OK\r\ncontent-type: text/html";
        let get =
            Asking { json: false, safe: true, idempotent: true, logs_out: false, unexpected_body: false };
        assert_eq!(of(page, get), None);
        assert_eq!(of(page, Asking { json: true, safe: false, idempotent: false, ..get }), None);
    }

    #[test]
    fn a_status_that_is_given_without_a_look_at_the_token_does_not_accept_it() {
        for status in [200, 204, 206, 301, 304, 404, 409, 412, 101] {
            assert!(accepts_token(status), "{status}");
        }
        for status in [400, 401, 403, 405, 408, 413, 421, 425, 429, 431, 500, 502, 503, 504] {
            assert!(!accepts_token(status), "{status}");
        }
    }

    #[test]
    fn whoever_logs_out_is_led_to_the_login_page_and_no_token_is_to_blame() {
        let login = "302 Found\r\nlocation: /libs/granite/core/content/login.html";
        let logout =
            Asking { json: false, safe: true, idempotent: true, logs_out: true, unexpected_body: false };
        assert_eq!(of(login, logout), None);
        assert_eq!(of("401 Unauthorized", logout), Some(Refusal::Unauthorized));
    }
}
