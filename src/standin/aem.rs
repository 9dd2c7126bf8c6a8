//! A stand-in for AEM as a Cloud Service behind its CDN: it refuses what they refuse, the way they do, and
//! lets in who has a live token of the [`Ledger`].
//!
//! Sources: Adobe's page "CDN in AEM as a Cloud Service" for the outer door, `SlingAuthenticator` and
//! `AuthUtil` of Apache Sling's authentication for the inner one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{AUTHORIZATION, EXPECT, HOST, LOCATION, USER_AGENT, VIA, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, Limited};
use tokio::{sync::watch, time::timeout};

use super::{
    ledger::{Ledger, Verdict},
    server::Connection,
};

mod content;

/// The stand-in, to be served. `names` are the values of `Host` that it answers to, with the port where
/// that is not the scheme's own.
pub fn router(names: Vec<String>, ledger: Ledger, switches: Switches) -> Router {
    let aem = Aem { names: names.into(), ledger, switches };
    content::routes().layer(from_fn_with_state(aem.clone(), gate)).with_state(aem)
}

/// What it has seen, and the one thing that it waits for. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Switches(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    reserved: Mutex<Vec<(String, String)>>,
    counts: watch::Sender<Counts>,
    released: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: usize,
    refused: usize,
    expired_seen: usize,
}

impl Switches {
    /// How many requests came in, refused ones included.
    pub fn requests(&self) -> usize {
        self.0.counts.borrow().requests
    }

    /// How many requests were turned away at one of the doors.
    pub fn refused(&self) -> usize {
        self.0.counts.borrow().refused
    }

    /// How many requests carried a token past its end.
    pub fn expired_seen(&self) -> usize {
        self.0.counts.borrow().expired_seen
    }

    /// Waits until the `count`-th request has come in; it may still be under way.
    pub async fn requests_reach(&self, count: usize) {
        // The sender is in `self`, so the channel cannot close.
        let _ = self.0.counts.subscribe().wait_for(|counts| counts.requests >= count).await;
    }

    /// Lets all requests for `/hold` go on, those under way and those to come.
    pub fn release(&self) {
        self.0.released.send_replace(true);
    }

    /// From now on, paths under `prefix` take tokens of `client_id` only: another one's are refused as unknown ones are.
    /// AEM's newer APIs know OAuth credentials alone.
    pub fn reserve(&self, prefix: &str, client_id: &str) {
        self.reserved().push((prefix.to_owned(), client_id.to_owned()));
    }

    fn is_open_to(&self, client_id: &str, path: &str) -> bool {
        self.reserved().iter().all(|(prefix, only)| !path.starts_with(prefix) || only == client_id)
    }

    fn reserved(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.0.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn released(&self) {
        let _ = self.0.released.subscribe().wait_for(|released| *released).await;
    }

    fn count(&self, what: impl FnOnce(&mut Counts)) {
        self.0.counts.send_modify(what);
    }
}

#[derive(Clone)]
struct Aem {
    names: Arc<[String]>,
    ledger: Ledger,
    switches: Switches,
}

/// Who is at the door, in the extensions of a request that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visitor {
    Authenticated,
    /// Only where AEM itself answers anonymous callers.
    Anonymous,
}

async fn gate(State(aem): State<Aem>, mut request: Request, next: Next) -> Response {
    aem.switches.count(|counts| counts.requests += 1);
    let client = aem.client(request.headers());
    let mut response = match aem.admit(&request) {
        Ok(visitor) => {
            request.extensions_mut().insert(visitor);
            next.run(request).await
        }
        Err(refusal) => {
            aem.switches.count(|counts| counts.refused += 1);
            drain(request).await;
            refusal.into_response()
        }
    };
    trace(response.headers_mut());
    if let Some(client) = client.and_then(|client| HeaderValue::try_from(client).ok()) {
        response.headers_mut().insert(CLIENT, client);
    }
    response
}

impl Aem {
    fn admit(&self, request: &Request) -> Result<Visitor, Refusal> {
        self.admit_at_cdn(request.headers())?;
        let client = self.client(request.headers()).unwrap_or_default();
        match self.verdict(request.headers()) {
            Some(Verdict::Live) if self.switches.is_open_to(&client, request.uri().path()) => {
                Ok(Visitor::Authenticated)
            }
            None if request.uri().path() == CSRF_TOKEN => Ok(Visitor::Anonymous),
            verdict => {
                if verdict == Some(Verdict::Expired) {
                    self.switches.count(|counts| counts.expired_seen += 1);
                }
                Err(Refusal::unauthorized(request, verdict))
            }
        }
    }

    /// The CDN knows its own names only, and takes a forwarded one only from a customer's CDN that shows its
    /// key.
    fn admit_at_cdn(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if !self.names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
            return Err(Refusal::Misdirected);
        }
        if headers.contains_key("x-forwarded-host") && !headers.contains_key("x-aem-edge-key") {
            return Err(Refusal::EdgeKeyMissing);
        }
        Ok(())
    }

    /// `None` where there are no credentials at all.
    fn verdict(&self, headers: &HeaderMap) -> Option<Verdict> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let first = values.next()?;
        if values.next().is_some() {
            return Some(Verdict::Unknown);
        }
        Some(bearer(first).map_or(Verdict::Unknown, |token| self.ledger.verdict(token)))
    }

    /// Whose token came, if it is known, live or not.
    fn client(&self, headers: &HeaderMap) -> Option<String> {
        let token = bearer(headers.get(AUTHORIZATION)?)?;
        self.ledger.holder(token).map(|holder| holder.client_id)
    }
}

/// RFC 6750, section 2.1; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Why a request does not come in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    Misdirected,
    EdgeKeyMissing,
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
}

impl Refusal {
    /// `SlingAuthenticator` tells browsers by `User-Agent`, and scripts in them by `X-Requested-With`.
    fn unauthorized(request: &Request, verdict: Option<Verdict>) -> Self {
        let header = |name: HeaderName| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let agent = header(USER_AGENT);
        if !BROWSERS.iter().any(|browser| agent.contains(browser)) {
            Self::Challenge
        } else if header(HeaderName::from_static("x-requested-with")) == "XMLHttpRequest" {
            Self::Reason {
                code: if verdict == Some(Verdict::Expired) { "expired_token" } else { "invalid_login" },
            }
        } else {
            let resource: String =
                url::form_urlencoded::byte_serialize(request.uri().to_string().as_bytes()).collect();
            Self::Login { location: format!("{}{LOGIN_PAGE}?resource={resource}", origin(request)) }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, MISDIRECTED).into_response(),
            Self::EdgeKeyMissing => StatusCode::FORBIDDEN.into_response(),
            Self::Challenge => {
                (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, r#"Basic realm="Sling (Development)""#)])
                    .into_response()
            }
            Self::Login { location } => (StatusCode::FOUND, [(LOCATION, location)]).into_response(),
            Self::Reason { code } => {
                let fields = [("x-reason", "Authentication Failed"), ("x-reason-code", code)];
                (StatusCode::FORBIDDEN, fields, "Authentication Failed\n").into_response()
            }
        }
    }
}

/// Takes what a refused client still sends, within bounds: closing on unread bytes resets the connection,
/// and the client would see that instead of the answer. One that asked first has sent nothing.
async fn drain(request: Request<Body>) {
    if !request.headers().contains_key(EXPECT) {
        let _ = timeout(DRAIN_MAX, Limited::new(request.into_body(), DRAIN_MAX_BYTES).collect()).await;
    }
}

/// What the CDN, Fastly, leaves on answers.
fn trace(headers: &mut HeaderMap) {
    headers.append(VIA, HeaderValue::from_static("1.1 varnish"));
    headers.insert("x-served-by", HeaderValue::from_static("cache-fra-standin-FRA"));
    headers.insert("x-cache", HeaderValue::from_static("MISS"));
    headers.insert("x-timer", HeaderValue::from_static("S0.000000,VS0,VE1"));
}

/// Its own origin, as the client called it.
fn origin(request: &Request) -> String {
    let secure = request.extensions().get::<Connection>().is_some_and(Connection::is_secure);
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    format!("{}://{host}", if secure { "https" } else { "http" })
}

/// The client id of the token that came, for tests; the real AEM tells nobody.
const CLIENT: HeaderName = HeaderName::from_static("x-standin-client");

const MISDIRECTED: &str =
    "Requested host does not match any Subject Alternative Names (SANs) on TLS certificate\n";
/// As `AuthUtil.isBrowserRequest` has them.
const BROWSERS: [&str; 2] = ["Mozilla", "Opera"];
const LOGIN_PAGE: &str = "/libs/granite/core/content/login.html";
/// Answers anonymous callers too.
const CSRF_TOKEN: &str = "/libs/granite/csrf/token.json";
const DRAIN_MAX: Duration = Duration::from_secs(1);
const DRAIN_MAX_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
