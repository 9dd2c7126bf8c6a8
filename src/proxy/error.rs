//! Our own answers: one place that chooses status codes, from a closed set of texts.
//!
//! They are problem documents (RFC 9457) with a `Proxy-Status` field (RFC 9209), so that nobody takes them for
//! AEM's. Nothing that IMS or AEM said gets in; causes are for the log.

mod handshake;
mod no_request;

use std::time::Duration;

use http::StatusCode;
use tracing::{debug, warn};

use super::{
    buffer::Buffer,
    cors::{self, Preflight},
    guard::GuardError,
    request::{line, number},
    response::{AnswerTo, connection},
    upstream::Busy,
};
use crate::{
    clock::Clock,
    network::{Cause, causes},
    policy::Refused,
    token::NoToken,
};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a request has no answer of AEM's.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error(transparent)]
    NoToken(#[from] NoToken),
    #[error("what a page may do is not for AEM to say")]
    Preflight(Preflight),
    #[error("the proxy is stopping")]
    Draining,
    #[error("refused: {0}")]
    Denied(GuardError),
    #[error("refused: {0}")]
    Policy(Refused),
    #[error("the path is longer than limits.path")]
    PathTooLong,
    #[error("CONNECT is not for a reverse proxy")]
    Connect,
    #[error("the method has small letters")]
    Method,
    #[error("the response's transfer coding is not chunked alone")]
    ResponseCoding,
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error("AEM cannot be reached{}", because(*.0))]
    Unreachable(Cause, #[source] Source),
    #[error("AEM sent no response head in time")]
    ResponseTimeout,
    #[error("the client's request body does not move")]
    RequestStalled,
    #[error("the client's request body broke off")]
    RequestBroken(#[source] Source),
    #[error("AEM broke off before its response head")]
    BrokenOff(#[source] Source),
    #[error("AEM's response is not HTTP")]
    BadResponse(#[source] Source),
    #[error("AEM's response head is too large")]
    ResponseHeadTooLarge,
    #[error("AEM switched protocols unasked")]
    UnaskedUpgrade,
    #[error("the memory budget is used up")]
    NoMemory,
}

impl From<GuardError> for ProxyError {
    fn from(error: GuardError) -> Self {
        // Not a source: the message tells it already.
        Self::Denied(error)
    }
}

impl From<Refused> for ProxyError {
    fn from(refused: Refused) -> Self {
        Self::Policy(refused)
    }
}

/// One of our own answers.
pub(super) struct Problem {
    status: StatusCode,
    /// RFC 9209 error type, and `details` where the contract has them.
    error: &'static str,
    details: Option<&'static str>,
    /// The last part of the problem's `type`.
    name: &'static str,
    /// What to do.
    detail: &'static str,
}

impl ProxyError {
    /// Status, RFC 9209 error and text, side by side so that no answer has one without the others. A preflight is no problem.
    fn problem(&self) -> Result<Problem, &Preflight> {
        let problem = |status, error, name, detail| Problem { status, error, details: None, name, detail };
        Ok(match self {
            Self::Preflight(preflight) => return Err(preflight),
            Self::NoToken(_) => Problem {
                details: Some("token"),
                ..problem(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "destination_unavailable",
                    "no-token",
                    "The proxy has no valid access token now. It keeps trying; its log and /status say why. Try again after Retry-After.",
                )
            },
            Self::Draining => Problem {
                details: Some("draining"),
                ..problem(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "destination_unavailable",
                    "draining",
                    "The proxy is stopping. Send the request again over a new connection.",
                )
            },
            Self::Denied(error) => denied(*error),
            Self::Policy(refused) => kept_back(*refused),
            Self::PathTooLong => problem(
                StatusCode::URI_TOO_LONG,
                "http_request_error",
                "path-too-long",
                "The path of the request, or of its destination, is longer than limits.path. Send what is long in the query or in the body, or raise limits.path.",
            ),
            Self::Connect => problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "http_request_denied",
                "connect",
                "This is a reverse proxy: address requests to it as to AEM itself, without CONNECT.",
            ),
            Self::Method => problem(
                StatusCode::BAD_REQUEST,
                "http_request_error",
                "method",
                "The method has small letters. Methods are written in capitals, as in fetch(url, {method: \"PATCH\"}): to HTTP `patch` is another method.",
            ),
            Self::ResponseCoding => problem(
                StatusCode::BAD_GATEWAY,
                "http_response_transfer_coding",
                "response-transfer-coding",
                "AEM's response has a transfer coding that the proxy does not take.",
            ),
            Self::Busy(Busy::Descriptors) => Problem {
                details: Some("descriptors"),
                ..problem(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "connection_limit_reached",
                    "descriptors",
                    "The proxy has too few file descriptors for another connection to AEM. Try again after Retry-After; raise the limit of open files (ulimit -n, LimitNOFILE) if it happens often.",
                )
            },
            Self::Busy(Busy::Full) => problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "connection_limit_reached",
                "busy",
                "Too many requests wait for their turn at AEM (max_queued). Try again after Retry-After.",
            ),
            Self::Busy(Busy::Overdue) => problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "connection_limit_reached",
                "busy",
                "The request has waited for its turn at AEM for too long (timeouts.queue). Try again after Retry-After.",
            ),
            Self::Unreachable(cause, _) => unreachable(*cause),
            Self::ResponseTimeout => problem(
                StatusCode::GATEWAY_TIMEOUT,
                "http_response_timeout",
                "response-timeout",
                "AEM did not begin to answer in time (timeouts.response_head). The request may still have taken effect.",
            ),
            Self::RequestStalled => problem(
                StatusCode::REQUEST_TIMEOUT,
                "http_request_error",
                "request-stalled",
                "The request's body did not move for too long (timeouts.idle), or came too slowly (timeouts.slow_client).",
            ),
            Self::RequestBroken(_) => problem(
                StatusCode::BAD_REQUEST,
                "http_request_error",
                "request-broken",
                "The request's body broke off or is badly framed.",
            ),
            Self::BrokenOff(_) => problem(
                StatusCode::BAD_GATEWAY,
                "connection_terminated",
                "connection-terminated",
                "AEM closed the connection before it answered. The request may still have taken effect.",
            ),
            Self::BadResponse(_) => problem(
                StatusCode::BAD_GATEWAY,
                "http_protocol_error",
                "bad-response",
                "What came from the upstream is not an HTTP response. Is `upstream` right?",
            ),
            Self::ResponseHeadTooLarge => problem(
                StatusCode::BAD_GATEWAY,
                "http_response_header_section_size",
                "response-head-too-large",
                "AEM's response head is larger than limits.head, or has more fields than limits.fields.",
            ),
            Self::NoMemory => problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "connection_limit_reached",
                "memory",
                "The proxy's memory budget (limits.memory) is used up. Try again after Retry-After.",
            ),
            Self::UnaskedUpgrade => problem(
                StatusCode::BAD_GATEWAY,
                "http_upgrade_failed",
                "upgrade",
                "AEM switched protocols, and nobody had asked for that.",
            ),
        })
    }

    /// Writes the answer for the client; tells its status, and whether the connection is to end with it, which `close`
    /// asks for.
    pub(super) fn write(&self, to: AnswerTo<'_>, close: bool, out: &mut Buffer) -> (u16, bool) {
        let problem = match self.problem() {
            Ok(problem) => problem,
            Err(preflight) => return preflight.write(to, close, out),
        };
        // After what was no proper request nobody knows where the next one begins.
        let last = matches!(self, Self::Draining | Self::Connect);
        // A path that is too long stands in a head that was read as a whole.
        let is_unclear = problem.error == "http_request_error" && !matches!(self, Self::PathTooLong);
        let close = close || is_unclear || last;
        let body = problem.body();
        problem.write_head(&body, out);
        if let Self::NoToken(NoToken { retry_after }) = self {
            number("retry-after", seconds(*retry_after), out);
        }
        if let Some(methods) = self.allowed() {
            line("allow", methods.as_bytes(), out);
        }
        if let Self::Busy(_) | Self::NoMemory = self {
            number("retry-after", BUSY_RETRY_SECONDS, out);
        }
        if let Some(origin) = to.web_origin {
            cors::answer(origin, EXPOSED, out);
        }
        connection(to, close, out);
        out.push(b"\r\n");
        if !to.head {
            out.push(body.as_bytes());
        }
        (problem.status.as_u16(), close)
    }

    /// The label of a refusal, if this is one.
    pub(super) fn denied(&self) -> Option<&'static str> {
        match self {
            Self::Denied(GuardError::NoHost | GuardError::Host) => Some("host"),
            Self::Denied(GuardError::Origin) => Some("origin"),
            Self::Denied(GuardError::CrossSite) => Some("cross_site"),
            Self::Denied(GuardError::Secret) => Some("secret"),
            Self::Connect | Self::Method => Some("method"),
            Self::PathTooLong => Some("path_length"),
            Self::Policy(Refused::Method(_) | Refused::Override) => Some("policy_method"),
            Self::Policy(Refused::Ambiguous) => Some("policy_ambiguous"),
            Self::Policy(_) => Some("policy_path"),
            _ => None,
        }
    }

    /// What `Allow` says: it belongs to 405 (RFC 9110, section 15.5.6).
    fn allowed(&self) -> Option<String> {
        match self {
            Self::Connect => Some(METHODS.to_owned()),
            Self::Policy(Refused::Method(methods)) => Some(methods.to_string()),
            _ => None,
        }
    }

    /// One line for people, where the failure is handled. Missing tokens are the refresher's to report; refusals and a full
    /// queue are counted, since a web page may cause as many as it likes.
    pub(super) fn log(&self) {
        let causes = causes(self);
        match self {
            Self::Preflight(_) => {}
            Self::NoToken(_)
            | Self::Draining
            | Self::Denied(_)
            | Self::Policy(_)
            | Self::PathTooLong
            | Self::Method
            | Self::Busy(_)
            | Self::NoMemory
            | Self::RequestBroken(_) => {
                debug!(error = %self, causes, "Request not forwarded");
            }
            _ => warn!(error = %self, causes, "Request not forwarded, or not answered by AEM"),
        }
    }
}

impl Problem {
    /// The head but for its last lines.
    fn write_head(&self, body: &str, out: &mut Buffer) {
        out.push(format!("HTTP/1.1 {}\r\n", self.status).as_bytes());
        line("content-type", PROBLEM_JSON, out);
        line("cache-control", b"no-store", out);
        line("date", httpdate::fmt_http_date(Clock::system().now()).as_bytes(), out);
        line("proxy-status", self.proxy_status().as_bytes(), out);
        number("content-length", body.len() as u64, out);
    }

    fn body(&self) -> String {
        let title = self.status.canonical_reason().unwrap_or_default();
        let document = serde_json::json!({
            "type": format!("urn:aem-auth-proxy:problem:{}", self.name),
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        format!("{document}\n")
    }

    fn proxy_status(&self) -> String {
        match self.details {
            Some(details) => format!("aem-auth-proxy; error={}; details=\"{details}\"", self.error),
            None => format!("aem-auth-proxy; error={}", self.error),
        }
    }
}

fn denied(error: GuardError) -> Problem {
    let (status, error, name, detail) = match error {
        GuardError::NoHost => (
            StatusCode::BAD_REQUEST,
            "http_request_error",
            "no-host",
            "The request has no Host field, several, one that is no host, or another than its target.",
        ),
        GuardError::Host => (
            StatusCode::FORBIDDEN,
            "http_request_denied",
            "host",
            "Host is not one of this proxy's names. If the app may call it so, add the name to guard.allowed_hosts.",
        ),
        GuardError::Origin => (
            StatusCode::FORBIDDEN,
            "http_request_denied",
            "origin",
            "This web origin may not use the proxy. If it is your app's, add it to guard.allowed_origins.",
        ),
        GuardError::CrossSite => (
            StatusCode::FORBIDDEN,
            "http_request_denied",
            "cross-site",
            "Another web site caused this request, and the proxy lends its token to none.",
        ),
        GuardError::Secret => (
            StatusCode::FORBIDDEN,
            "http_request_denied",
            "secret",
            "The request does not show the secret that this proxy asks for. Send what is in guard.secret_file, once, in the field of guard.secret_header.",
        ),
    };
    Problem { status, error, details: None, name, detail }
}

/// What to do is the operator's to decide: the texts name the keys.
fn kept_back(refused: Refused) -> Problem {
    let (name, detail) = match refused {
        Refused::Rule => (
            "policy-rule",
            "A rule of this proxy denies this path. If the app needs it, put an allow line before that rule in `rules`.",
        ),
        Refused::Closed => (
            "policy-closed",
            "AEM's consoles, package managers and the like are closed under every policy. If the app needs this one, add a line to `rules`: allow METHOD /path.",
        ),
        Refused::Preset => (
            "policy-path",
            "The policy of this proxy does not let this path through. Choose another `policy`, or add a line to `rules`: allow METHOD /path.",
        ),
        Refused::Method(_) => (
            "policy-method",
            "The policy of this proxy lets this path through for the methods in Allow alone. Choose another `policy`, or add a line to `rules`: allow METHOD /path.",
        ),
        Refused::Ambiguous => (
            "policy-ambiguous",
            "This path can be read in more than one way, so the policy cannot judge it. Write it plainly: encoded once, in UTF-8, without encoded slashes, backslashes, control characters and dot segments.",
        ),
        Refused::Override => (
            "policy-override",
            "The request names another method or operation beside its own method, and the policy does not let that through. Send it with the method that is meant.",
        ),
        Refused::User => (
            "policy-user",
            "The query names another user (sudo), and requests are sent as the user of the proxy's credential alone. Leave the parameter out.",
        ),
        Refused::Destination => (
            "policy-destination",
            "The policy of this proxy does not let the destination through. Give a path that it allows for this method, or add a line to `rules`: allow METHOD /path.",
        ),
    };
    let status = match refused {
        Refused::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
        _ => StatusCode::FORBIDDEN,
    };
    Problem { status, error: "http_request_denied", details: None, name, detail }
}

/// Why a handshake failed, for the log; behind it stand the words of the TLS library.
fn because(cause: Cause) -> String {
    cause.explanation().map_or_else(String::new, |explanation| format!(": {}", explanation.what))
}

fn unreachable(cause: Cause) -> Problem {
    let (status, error, name, detail) = match cause {
        Cause::Dns => {
            (StatusCode::BAD_GATEWAY, "dns_error", "dns", "AEM's name has no address. Is `upstream` right?")
        }
        Cause::Refused => (
            StatusCode::BAD_GATEWAY,
            "connection_refused",
            "connection-refused",
            "Nobody answers at AEM's address.",
        ),
        Cause::TlsAlert => (
            StatusCode::BAD_GATEWAY,
            "tls_alert_received",
            "tls-alert",
            "AEM refused the TLS handshake. Is `upstream` right? Does AEM want a client certificate (client_certificate_file)?",
        ),
        Cause::ClientCertificate => (
            StatusCode::BAD_GATEWAY,
            "tls_alert_received",
            "client-certificate",
            "AEM wants a client certificate, or another one: see client_certificate_file of the upstream.",
        ),
        Cause::Tls => (
            StatusCode::BAD_GATEWAY,
            "tls_protocol_error",
            "tls",
            "The TLS handshake with AEM failed. Is `upstream` right, https and http not confused?",
        ),
        Cause::TimedOut => (
            StatusCode::GATEWAY_TIMEOUT,
            "connection_timeout",
            "connection-timeout",
            "No connection to AEM in time (timeouts.connect). Is there a way to it from here?",
        ),
        Cause::Other => (
            StatusCode::BAD_GATEWAY,
            "connection_terminated",
            "connection-terminated",
            "The connection to AEM broke off while it was made.",
        ),
        Cause::EgressUnreachable | Cause::EgressCredentials | Cause::EgressRefused | Cause::EgressFailed => {
            egress(cause)
        }
        _ => handshake::problem(cause),
    };
    Problem { status, error, details: None, name, detail }
}

/// The egress proxy on the way is the next hop: the words of RFC 9209, section 2.3, are about that.
fn egress(cause: Cause) -> (StatusCode, &'static str, &'static str, &'static str) {
    let (error, name, detail) = match cause {
        Cause::EgressUnreachable => (
            "connection_refused",
            "egress-unreachable",
            "Nobody answers at the egress proxy's address. Is egress.aem_proxy, or HTTPS_PROXY, right?",
        ),
        Cause::EgressCredentials => (
            "proxy_configuration_error",
            "egress-credentials",
            "The egress proxy wants a user and a password, or other ones. Give them in egress.aem_proxy, or in HTTPS_PROXY.",
        ),
        Cause::EgressRefused => (
            "destination_ip_prohibited",
            "egress-refused",
            "The egress proxy does not let connections to AEM through. Have AEM's host and port allowed there.",
        ),
        _ => (
            "destination_unavailable",
            "egress-failed",
            "The egress proxy got no connection to AEM, or broke off. Its log says why.",
        ),
    };
    (StatusCode::BAD_GATEWAY, error, name, detail)
}

/// What a request may be sent with that is for AEM.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// What a page gets to see of a problem's head.
const EXPOSED: [&str; 3] = ["allow", "proxy-status", "retry-after"];
const PROBLEM_JSON: &[u8] = b"application/problem+json";

/// A turn comes soon, or AEM is too slow for so many.
const BUSY_RETRY_SECONDS: u64 = 1;

/// Whole seconds, rounded up: earlier would be too early.
fn seconds(after: Duration) -> u64 {
    after.as_secs() + u64::from(after.subsec_nanos() > 0)
}
