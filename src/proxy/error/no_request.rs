//! The answers to what is no request.

use http::StatusCode;

use super::{BUSY_RETRY_SECONDS, Problem};
use crate::{
    metrics::Ended,
    proxy::{
        buffer::Buffer,
        request::{Ambiguity, NoRequest, number},
    },
};

impl NoRequest {
    /// The whole answer as bytes, since there is no HTTP exchange to put it into; without its body where that would be to a HEAD.
    pub(in crate::proxy) fn answer(self, to_head: bool) -> Vec<u8> {
        let (status, name, detail) = self.problem();
        let is_busy = matches!(self, Self::TooMany | Self::NoMemory);
        let error = if is_busy { "connection_limit_reached" } else { "http_request_error" };
        let problem = Problem { status, error, details: None, name, detail };
        let body = problem.body();
        let mut out = Buffer::default();
        problem.write_head(&body, &mut out);
        if is_busy {
            number("retry-after", BUSY_RETRY_SECONDS, &mut out);
        }
        out.push(b"connection: close\r\n\r\n");
        if !to_head {
            out.push(body.as_bytes());
        }
        out.filled().to_vec()
    }

    /// The status of that answer.
    pub(in crate::proxy) fn status(self) -> StatusCode {
        self.problem().0
    }

    /// The label in the metrics.
    pub(in crate::proxy) fn reason(self) -> Ended {
        match self {
            Self::LineTooLong | Self::HeadTooLarge => Ended::TooLarge,
            Self::TooSlow => Ended::Slow,
            Self::TooMany => Ended::Full,
            Self::NoMemory => Ended::Memory,
            _ => Ended::Malformed,
        }
    }

    /// What comes from a client's mistake is no 5xx: that would look like a failure of ours. But for the 501 that RFC 9112 asks
    /// for in section 6.1.
    fn problem(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Malformed => {
                (StatusCode::BAD_REQUEST, "bad-request", "What came is not an HTTP/1.1 request.")
            }
            Self::Version => (
                StatusCode::BAD_REQUEST,
                "version",
                "The proxy speaks HTTP/1.1 and HTTP/1.0 here. HTTP/2 without TLS has to be enabled with `http2 = true`.",
            ),
            Self::Target => (StatusCode::BAD_REQUEST, "target", "The request's target cannot be forwarded."),
            Self::Ambiguous(ambiguity) => (StatusCode::BAD_REQUEST, "ambiguous", ambiguity.detail()),
            Self::Coding => (
                StatusCode::NOT_IMPLEMENTED,
                "transfer-coding",
                "The proxy takes no transfer coding but chunked.",
            ),
            Self::Expectation => (
                StatusCode::EXPECTATION_FAILED,
                "expectation",
                "The only expectation there is, is 100-continue.",
            ),
            Self::LineTooLong => (
                StatusCode::URI_TOO_LONG,
                "uri-too-long",
                "The request's target is longer than 65534 bytes, or than limits.head.",
            ),
            Self::HeadTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "request-head-too-large",
                "The request's head is larger than limits.head, or has more fields than limits.fields.",
            ),
            Self::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "request-head-timeout",
                "The request's head did not come to its end in time (timeouts.request_head).",
            ),
            Self::NoMemory => (
                StatusCode::SERVICE_UNAVAILABLE,
                "memory",
                "The proxy's memory budget (limits.memory) is used up. Try again after Retry-After.",
            ),
            Self::TooMany => (
                StatusCode::SERVICE_UNAVAILABLE,
                "connections",
                "The proxy has as many connections as it takes (limits.connections), all with a request on them.",
            ),
        }
    }
}

impl Ambiguity {
    /// Which field is at fault.
    fn detail(self) -> &'static str {
        match self {
            Self::ContentLength => {
                "The request could be read in two ways: Content-Length is there twice, or is not a number in digits alone."
            }
            Self::TransferEncoding => {
                "The request could be read in two ways: Transfer-Encoding is there twice, is not chunked, or comes with HTTP/1.0."
            }
            Self::FramedTwice => {
                "The request could be read in two ways: Content-Length and Transfer-Encoding are both there."
            }
            Self::Lookalike => {
                "The request could be read in two ways: the name of a field looks like Content-Length or Transfer-Encoding, with _ in place of -."
            }
            Self::ContentType => {
                "The request could be read in two ways: Content-Type is there twice. Give it once; a client's default may be the other one."
            }
            Self::Destination => "The request could be read in two ways: Destination is there twice.",
            Self::Host => "The request could be read in two ways: Host and the target name different hosts.",
        }
    }
}
