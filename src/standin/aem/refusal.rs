//! The answers of the doors to those who do not come in.

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, StatusCode,
    header::{CONTENT_TYPE, LOCATION, USER_AGENT, WWW_AUTHENTICATE},
};

use super::{faults::TokenRefusal, origin};
use crate::standin::ledger::Verdict;

/// Why a request does not come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Misdirected,
    EdgeKeyMissing,
    /// A filter for changes, which says no more.
    Filtered,
    /// To a tool.
    Challenge,
    /// To a browser: the way to the login page.
    Login {
        location: String,
    },
    /// To a script in a browser, which must not be sent to a page.
    Reason {
        code: &'static str,
    },
    /// The login page itself, as if it were what was asked for.
    LoginPage,
}

impl Refusal {
    /// `SlingAuthenticator` tells browsers by `User-Agent`, and scripts in them by `X-Requested-With`.
    pub(super) fn unauthorized(request: &Request, verdict: Option<Verdict>) -> Self {
        if !is_browser(request) {
            Self::Challenge
        } else if header(request, HeaderName::from_static("x-requested-with")) == "XMLHttpRequest" {
            Self::Reason {
                code: if verdict == Some(Verdict::Expired) { "expired_token" } else { "invalid_login" },
            }
        } else {
            Self::login(request)
        }
    }

    /// What a switch says, whoever asks.
    pub(super) fn told(how: TokenRefusal, request: &Request) -> Self {
        match how {
            TokenRefusal::Unauthorized => Self::Challenge,
            TokenRefusal::LoginRedirect => Self::login(request),
            TokenRefusal::ReasonForbidden => Self::Reason { code: "invalid_login" },
            TokenRefusal::LoginPage => Self::LoginPage,
        }
    }

    fn login(request: &Request) -> Self {
        let resource: String =
            url::form_urlencoded::byte_serialize(request.uri().to_string().as_bytes()).collect();
        Self::Login { location: format!("{}{LOGIN_PATH}?resource={resource}", origin(request)) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, MISDIRECTED).into_response(),
            Self::EdgeKeyMissing | Self::Filtered => StatusCode::FORBIDDEN.into_response(),
            Self::Challenge => {
                (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, r#"Basic realm="Sling (Development)""#)])
                    .into_response()
            }
            Self::Login { location } => (StatusCode::FOUND, [(LOCATION, location)]).into_response(),
            Self::Reason { code } => {
                let fields = [("x-reason", "Authentication Failed"), ("x-reason-code", code)];
                (StatusCode::FORBIDDEN, fields, "Authentication Failed\n").into_response()
            }
            Self::LoginPage => ([(CONTENT_TYPE, "text/html;charset=utf-8")], LOGIN_PAGE).into_response(),
        }
    }
}

/// As `AuthUtil.isBrowserRequest` and the filters for writes tell them.
pub(super) fn is_browser(request: &Request) -> bool {
    let agent = header(request, USER_AGENT);
    BROWSERS.iter().any(|browser| agent.contains(browser))
}

fn header(request: &Request, name: HeaderName) -> &str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

const MISDIRECTED: &str =
    "Requested host does not match any Subject Alternative Names (SANs) on TLS certificate\n";
const BROWSERS: [&str; 2] = ["Mozilla", "Opera"];
const LOGIN_PATH: &str = "/libs/granite/core/content/login.html";
const LOGIN_PAGE: &str = "<!DOCTYPE html><html><head><title>AEM Sign In</title></head><body>\
     <form class=\"coral-Form\" id=\"login\" method=\"post\" action=\"/libs/granite/core/content/login.html/j_security_check\">\
     <input name=\"j_username\"><input name=\"j_password\" type=\"password\"></form></body></html>";
