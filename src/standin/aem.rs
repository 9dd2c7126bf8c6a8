//! A stand-in for AEM as a Cloud Service behind its CDN: it refuses what they refuse, the way they do, and
//! lets in who has a live token of the [`Ledger`].
//!
//! Sources: Adobe's page "CDN in AEM as a Cloud Service" for the outer door, `SlingAuthenticator` and
//! `AuthUtil` of Apache Sling's authentication for the inner one.

use std::{future::pending, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, HOST, VIA},
};

use self::{
    arrivals::Watched,
    dam::Dam,
    faults::{Busy, Fault},
    filters::CsrfTokens,
    refusal::Refusal,
};
use super::{
    blob::Storage,
    ledger::{Ledger, Verdict},
    received::{Received, drain},
    server::Connection,
};

mod arrivals;
mod assets;
mod content;
mod dam;
mod faults;
mod filters;
mod graphql;
mod gzip;
mod packmgr;
mod refusal;
mod switches;
mod upload;

pub use assets::AssetChange;
pub use faults::{Break, TokenRefusal};
pub use switches::Switches;

/// The stand-in, to be served. `names` are the values of `Host` that it answers to, with the port where
/// that is not the scheme's own; binaries go to `storage`.
pub fn router(names: Vec<String>, ledger: Ledger, switches: Switches, storage: Storage) -> Router {
    let aem = Aem {
        names: names.into(),
        ledger,
        switches,
        storage,
        dam: Arc::default(),
        csrf_tokens: Arc::default(),
    };
    content::routes(&aem).layer(from_fn_with_state(aem.clone(), gate)).with_state(aem)
}

#[derive(Clone)]
struct Aem {
    names: Arc<[String]>,
    ledger: Ledger,
    switches: Switches,
    storage: Storage,
    dam: Arc<Dam>,
    csrf_tokens: Arc<CsrfTokens>,
}

/// Who is at the door, in the extensions of a request that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visitor {
    Authenticated,
    /// Only where AEM itself answers anonymous callers.
    Anonymous,
}

async fn gate(State(aem): State<Aem>, request: Request, next: Next) -> Response {
    aem.switches.count(|counts| counts.requests += 1);
    let id = aem.switches.arrivals().seen(request.headers());
    let client = aem.client(request.headers());
    let mut response = aem.answer(request, id, next).await;
    trace(response.headers_mut());
    if let Some(client) = client.and_then(|client| HeaderValue::try_from(client).ok()) {
        response.headers_mut().insert(CLIENT, client);
    }
    response
}

impl Aem {
    /// From the outer door to the inner one, and what has been told to go wrong between them.
    async fn answer(&self, request: Request, id: Option<u64>, next: Next) -> Response {
        if let Err(refusal) = self.admit_at_cdn(request.headers()) {
            return self.refuse(request, refusal).await;
        }
        let broken = match self.switches.faults().next() {
            Some(Fault::Busy(busy)) => return self.busy(request, busy).await,
            Some(Fault::Break(Break::AfterHead)) => {
                self.break_off(&request);
                return pending().await;
            }
            fault => fault.is_some(),
        };
        let mut request = match self.admit_past_filters(request).await {
            Ok((request, visitor)) => self.let_in(request, visitor, id),
            Err(response) => return response,
        };
        if broken {
            let _ = Received::all_of(std::mem::take(request.body_mut())).await;
            self.break_off(&request);
            return pending().await;
        }
        next.run(request).await
    }

    /// Sling's filter comes before its authentication, Adobe's after it.
    async fn admit_past_filters(&self, request: Request) -> Result<(Request, Visitor), Response> {
        if self.switches.filters_referrers() && !filters::referrer_is_ours(&request) {
            self.switches.count(|counts| counts.referrer_refused += 1);
            return Err(self.refuse(request, Refusal::Filtered).await);
        }
        let visitor = match self.admit(&request) {
            Ok(visitor) => visitor,
            Err(refusal) => return Err(self.refuse(request, refusal).await),
        };
        if !self.switches.filters_csrf() {
            return Ok((request, visitor));
        }
        match self.csrf_tokens.admit(request).await {
            Ok(request) => Ok((request, visitor)),
            Err(request) => {
                self.switches.count(|counts| counts.csrf_refused += 1);
                Err(self.refuse(request, Refusal::Filtered).await)
            }
        }
    }

    fn let_in(&self, mut request: Request, visitor: Visitor, id: Option<u64>) -> Request {
        request.extensions_mut().insert(visitor);
        match id {
            Some(id) => request.map(|body| Body::new(Watched::new(body, self.switches.clone(), id))),
            None => request,
        }
    }

    async fn refuse(&self, request: Request, refusal: Refusal) -> Response {
        self.switches.count(|counts| counts.refused += 1);
        drain(request).await;
        refusal.into_response()
    }

    async fn busy(&self, request: Request, busy: Busy) -> Response {
        self.switches.count(|counts| counts.busy_answers += 1);
        drain(request).await;
        busy.into_response()
    }

    /// Its answer never comes.
    fn break_off(&self, request: &Request) {
        self.switches.count(|counts| counts.broken_off += 1);
        if let Some(connection) = request.extensions().get::<Connection>() {
            connection.close();
        }
    }

    fn admit(&self, request: &Request) -> Result<Visitor, Refusal> {
        let client = self.client(request.headers()).unwrap_or_default();
        match self.verdict(request.headers()) {
            Some(Verdict::Live) if self.switches.is_open_to(&client, request.uri().path()) => {
                match self.switches.faults().refusal() {
                    Some(how) => Err(Refusal::told(how, request)),
                    None => Ok(Visitor::Authenticated),
                }
            }
            None if request.uri().path() == CSRF_TOKEN => Ok(Visitor::Anonymous),
            verdict => {
                self.count_dead(verdict);
                Err(Refusal::unauthorized(request, verdict))
            }
        }
    }

    fn count_dead(&self, verdict: Option<Verdict>) {
        match verdict {
            Some(Verdict::Expired) => self.switches.count(|counts| counts.expired_seen += 1),
            Some(Verdict::Revoked) => self.switches.count(|counts| counts.revoked_seen += 1),
            _ => {}
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

/// Answers anonymous callers too.
const CSRF_TOKEN: &str = "/libs/granite/csrf/token.json";

#[cfg(test)]
mod tests;
