//! The two filters that stand between a browser and a change: where it comes from, and whether it has a token of this
//! visit. Both leave alone whoever is no browser.
//!
//! Sources: `ReferrerFilter` of Apache Sling, in its stricter versions, and Adobe's page "CSRF protection". The second
//! one is not public: that a Bearer token does not exempt a browser is assumed.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, to_bytes},
    extract::Request,
};
use http::{
    HeaderMap,
    header::{CONTENT_TYPE, ORIGIN, REFERER},
};
use url::Url;

use super::{origin, refusal::is_browser};
use crate::standin::random_hex;

/// Whether a change comes from AEM's own pages.
pub(super) fn referrer_is_ours(request: &Request) -> bool {
    let filtered = matches!(request.method().as_str(), "POST" | "PUT" | "DELETE" | "COPY" | "MOVE");
    if !filtered || !is_browser(request) {
        return true;
    }
    let headers = request.headers();
    let referrer = text(headers, REFERER.as_str()).or_else(|| text(headers, ORIGIN.as_str()));
    referrer.is_some_and(|referrer| is_own(referrer, &origin(request)))
}

/// A relative one is. `null`, which browsers send from nowhere, is not.
fn is_own(referrer: &str, own: &str) -> bool {
    if referrer == "null" {
        return false;
    }
    if !referrer.contains(":/") {
        return true;
    }
    match (Url::parse(referrer), Url::parse(own)) {
        (Ok(referrer), Ok(own)) => referrer.origin() == own.origin(),
        _ => false,
    }
}

/// Tokens that pages put into their changes.
#[derive(Debug, Default)]
pub(super) struct CsrfTokens(Mutex<VecDeque<String>>);

impl CsrfTokens {
    /// A new one.
    pub(super) fn issue(&self) -> String {
        let token = random_hex(32);
        let mut tokens = self.tokens();
        if tokens.len() == TOKENS_MAX {
            tokens.pop_front();
        }
        tokens.push_back(token.clone());
        token
    }

    /// Gives the request back, as an error if it has no token and needs one. A form is read for it, and put together
    /// again.
    pub(super) async fn admit(&self, request: Request) -> Result<Request, Request> {
        let filtered = matches!(request.method().as_str(), "POST" | "PUT" | "DELETE");
        if !filtered || !is_browser(&request) {
            return Ok(request);
        }
        if let Some(token) = text(request.headers(), "csrf-token") {
            return if self.knows(token) { Ok(request) } else { Err(request) };
        }
        if !is_form(request.headers()) {
            return Err(request);
        }
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, FORM_MAX).await.unwrap_or_default();
        let token = url::form_urlencoded::parse(&body).find(|(name, _)| name == ":cq_csrf_token");
        let known = token.is_some_and(|(_, token)| self.knows(&token));
        let request = Request::from_parts(parts, Body::from(body));
        if known { Ok(request) } else { Err(request) }
    }

    fn knows(&self, token: &str) -> bool {
        self.tokens().iter().any(|known| known == token)
    }

    fn tokens(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    text(headers, CONTENT_TYPE.as_str())
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|value| !value.is_empty())
}

/// The real ones live for minutes; these until many newer ones were asked for.
const TOKENS_MAX: usize = 1000;
/// As much of a form as is looked through.
const FORM_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode, header::USER_AGENT};
    use reqwest::RequestBuilder;

    use super::{
        super::{
            CSRF_TOKEN,
            tests::{BROWSER, Fixture, aem, json_of},
        },
        *,
    };

    fn browser(aem: &Fixture, method: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        aem.anonymous(method, "/echo").bearer_auth(&aem.token).header(USER_AGENT, BROWSER)
    }

    async fn status(request: RequestBuilder) -> StatusCode {
        request.send().await.unwrap().status()
    }

    async fn csrf_token(aem: &Fixture) -> String {
        json_of(aem.get(CSRF_TOKEN)).await["token"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_browser_changes_nothing_from_elsewhere_or_nowhere() {
        let aem = aem().await;
        let token = csrf_token(&aem).await;
        let own = format!("http://{}", aem.server.addr());
        let send = async |method: &str, fields: &[(&str, &str)]| {
            let mut request = browser(&aem, method).header("CSRF-Token", &token);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            status(request).await
        };
        let page = format!("{own}/assets.html/content?a=b");
        let none: [(&str, &str); 0] = [];
        for method in ["POST", "PUT", "DELETE", "COPY", "MOVE"] {
            for foreign in [
                &none[..],
                &[("referer", "")],
                &[("origin", "null")],
                &[("origin", "http://localhost:3000")],
                &[("referer", "https://127.0.0.1:1/"), ("origin", &own)],
                &[("referer", "http://")],
            ] {
                assert_eq!(send(method, foreign).await, StatusCode::FORBIDDEN, "{method} {foreign:?}");
            }
            for ours in
                [&[("referer", &*page)][..], &[("origin", &own)], &[("referer", ""), ("origin", &own)]]
            {
                assert_eq!(send(method, ours).await, StatusCode::OK, "{method} {ours:?}");
            }
            assert_eq!(send(method, &[("referer", "/a/page")]).await, StatusCode::OK, "relative");
        }
        assert_eq!((aem.switches.referrer_refused(), aem.switches.csrf_refused()), (30, 0));
        assert_eq!(send("PATCH", &[("origin", "http://localhost:3000")]).await, StatusCode::OK);
        assert_eq!(send("GET", &[]).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_browser_changes_nothing_without_a_token_of_its_visit() {
        let aem = aem().await;
        let token = csrf_token(&aem).await;
        let send = |method| browser(&aem, method).header(REFERER, "/");
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(status(send(method)).await, StatusCode::FORBIDDEN, "{method}");
            assert_eq!(status(send(method).header("CSRF-Token", "made-up")).await, StatusCode::FORBIDDEN);
            assert_eq!(status(send(method).header("CSRF-Token", &token)).await, StatusCode::OK);
        }
        for method in ["COPY", "MOVE", "PATCH"] {
            assert_eq!(status(send(method)).await, StatusCode::OK, "{method}");
        }
        let form = [("a", "b"), (":cq_csrf_token", &*token)];
        assert_eq!(status(send("POST").form(&form[..1])).await, StatusCode::FORBIDDEN);
        let echoed = send("POST").form(&form).send().await.unwrap();
        assert_eq!(echoed.status(), StatusCode::OK);
        let seen: serde_json::Value = serde_json::from_str(&echoed.text().await.unwrap()).unwrap();
        assert_eq!(seen["length"], "a=b&%3Acq_csrf_token=".len() + token.len());
        assert_eq!((aem.switches.csrf_refused(), aem.switches.referrer_refused()), (7, 0));
    }

    #[tokio::test]
    async fn whoever_is_no_browser_is_left_alone_and_each_filter_can_be_off() {
        let aem = aem().await;
        let tool = aem.post("/echo").header(ORIGIN, "http://localhost:3000");
        assert_eq!(status(tool).await, StatusCode::OK);
        aem.switches.filter_referrers(false);
        assert_eq!(status(browser(&aem, "POST")).await, StatusCode::FORBIDDEN);
        aem.switches.filter_csrf(false);
        assert_eq!(status(browser(&aem, "POST")).await, StatusCode::OK);
        assert_eq!((aem.switches.referrer_refused(), aem.switches.csrf_refused()), (0, 1));
        assert_eq!(aem.switches.refused(), 1);
    }
}
