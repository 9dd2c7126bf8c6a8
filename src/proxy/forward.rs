//! The innermost step: to AEM and back.

use std::{error::Error as StdError, future::poll_fn, pin::pin, task::Poll};

use http::{
    HeaderValue, Method, Request, Response, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, Error},
    rt::{TokioExecutor, TokioTimer},
};
use url::Url;

use super::{
    activity::Activity,
    body::{Gate, RequestBody},
    connector::{ConnectError, Connector},
    error::ProxyError,
};
use crate::config::Timeouts;

/// What a connection may hold and how long it may wait.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest head, in bytes.
    pub head: usize,
    /// Every wait.
    pub timeouts: Timeouts,
}

/// One AEM, with its pool of connections.
pub struct Upstream {
    client: Client<Connector, RequestBody>,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
}

impl Upstream {
    /// An upstream at the origin of `url`.
    ///
    /// # Errors
    /// When `url` is no origin that a request can carry.
    pub fn new(url: &Url, connector: Connector, limits: &Limits) -> Result<Self, http::Error> {
        let scheme: Scheme = url.scheme().parse()?;
        let authority: Authority = url.authority().parse()?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits.timeouts.upstream_idle)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(limits.head.max(BUFFER_MIN))
            // `Host` is set below, once and for all.
            .set_host(false)
            .build(connector);
        let host = HeaderValue::from_str(authority.as_str())?;
        Ok(Self { client, scheme, authority, host })
    }

    /// Sends a request whose head is ready but for its target and `Host`, and waits for the response's head.
    ///
    /// # Errors
    /// When AEM cannot be reached, is too slow, or breaks off.
    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
        activity: &Activity,
    ) -> Result<Response<Incoming>, ProxyError> {
        let (mut head, body) = request.into_parts();
        if head.method == Method::CONNECT {
            return Err(ProxyError::Connect);
        }
        head.uri = self.target(head.uri)?;
        head.version = Version::HTTP_11;
        head.headers.insert(header::HOST, self.host.clone());
        let continues = head.headers.contains_key(header::EXPECT);
        if needs_chunks(&body) && !head.headers.contains_key(header::CONTENT_LENGTH) {
            // hyper would take a GET without a length for one without a body.
            head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let mut request = Request::from_parts(head, body);
        if continues {
            let gate = Gate::before(&mut request);
            request.body_mut().wait_for(gate);
        }
        self.answered(request, activity).await
    }

    /// The response's head, unless the connection's watch finds that it is overdue.
    async fn answered(
        &self,
        request: Request<RequestBody>,
        activity: &Activity,
    ) -> Result<Response<Incoming>, ProxyError> {
        let mut response = pin!(self.client.request(request));
        poll_fn(|cx| {
            if activity.is_overdue() {
                let stalled = !activity.is_uploaded();
                return Poll::Ready(Err(if stalled {
                    ProxyError::RequestStalled
                } else {
                    ProxyError::ResponseTimeout
                }));
            }
            response.as_mut().poll(cx).map_err(failure)
        })
        .await
    }

    /// The client's path and query, byte for byte, at AEM's origin.
    fn target(&self, uri: Uri) -> Result<Uri, ProxyError> {
        let parts = uri.into_parts();
        if parts.authority.is_some() && parts.scheme.is_none() {
            // The authority form is CONNECT's alone (RFC 9112, section 3.2.3).
            return Err(ProxyError::Target);
        }
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let target =
            Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path);
        target.build().map_err(|_| ProxyError::Target)
    }
}

fn needs_chunks(body: &RequestBody) -> bool {
    use http_body::Body;
    !body.is_end_stream() && body.size_hint().exact().is_none()
}

/// Sorts the client's error by what the app should hear.
fn failure(error: Error) -> ProxyError {
    let mut next: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(cause) = next {
        if let Some(connect) = cause.downcast_ref::<ConnectError>() {
            return ProxyError::Unreachable(connect.cause, Box::new(error));
        }
        if let Some(http) = cause.downcast_ref::<hyper::Error>() {
            return match http {
                http if http.is_parse_too_large() => ProxyError::ResponseHeadTooLarge,
                http if http.is_parse() => ProxyError::BadResponse(Box::new(error)),
                http if http.is_user() => ProxyError::RequestBroken(Box::new(error)),
                _ => ProxyError::BrokenOff(Box::new(error)),
            };
        }
        next = cause.source();
    }
    ProxyError::BrokenOff(Box::new(error))
}

/// As many as a busy app may have in use at once: connections are dear, and end by themselves when idle.
const IDLE_MAX: usize = 1024;

/// hyper's least.
const BUFFER_MIN: usize = 8192;
