//! What can be made to go wrong at the stand-in AEM.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};

/// How AEM turns down a token. Only the first one says so in its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// 401 with a challenge.
    Unauthorized,
    /// 302 to the login page.
    LoginRedirect,
    /// 403 with `X-Reason` and `X-Reason-Code`.
    ReasonForbidden,
    /// 200, and the login page, whatever was asked for.
    LoginPage,
}

/// When a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Once the head of a request has arrived, with its body unread.
    AfterHead,
    /// Once a request that has a good token has arrived in full, and counts as written.
    AfterBody,
}

/// The switches for faults, as they stand.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Settings>);

#[derive(Debug, Default)]
struct Settings {
    refusal: Option<TokenRefusal>,
    queue: VecDeque<(Fault, usize)>,
}

/// What happens to one request.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Busy(Busy),
    Break(Break),
}

/// The answer of one who has too much to do.
#[derive(Clone, Debug)]
pub(super) struct Busy {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<String>,
}

impl Faults {
    pub(super) fn refuse_all(&self, how: Option<TokenRefusal>) {
        self.settings().refusal = how;
    }

    pub(super) fn push(&self, fault: Fault, times: usize) {
        if times > 0 {
            self.settings().queue.push_back((fault, times));
        }
    }

    pub(super) fn refusal(&self) -> Option<TokenRefusal> {
        self.settings().refusal
    }

    /// What the next request meets.
    pub(super) fn next(&self) -> Option<Fault> {
        let mut settings = self.settings();
        let (fault, left) = settings.queue.front_mut()?;
        let fault = fault.clone();
        *left -= 1;
        if *left == 0 {
            settings.queue.pop_front();
        }
        Some(fault)
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IntoResponse for Busy {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(value) = self.retry_after.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_TYPE, LOCATION};
    use reqwest::{RequestBuilder, Response};

    use super::{
        super::tests::{Fixture, aem},
        *,
    };

    const LISTING: &str = "/api/assets.json";

    async fn send(request: RequestBuilder) -> Response {
        request.send().await.unwrap()
    }

    #[tokio::test]
    async fn a_revoked_token_is_refused_and_counted_and_a_newer_one_is_not() {
        let aem = aem().await;
        assert_eq!(send(aem.get(LISTING)).await.status(), StatusCode::OK);
        aem.ledger.revoke(&aem.token);
        assert_eq!(send(aem.get(LISTING)).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!((aem.switches.revoked_seen(), aem.switches.expired_seen()), (1, 0));
        let next = aem.ledger.issue(std::time::Duration::from_secs(60));
        let newer = aem.anonymous(http::Method::GET, LISTING).bearer_auth(next);
        assert_eq!(send(newer).await.status(), StatusCode::OK);
        assert_eq!((aem.switches.refused(), aem.switches.revoked_seen()), (1, 1));
    }

    #[tokio::test]
    async fn a_good_token_is_refused_in_each_of_aem_s_ways_until_told_otherwise() {
        let aem = aem().await;
        let refused = async |aem: &Fixture, how| {
            aem.switches.refuse_all(Some(how));
            send(aem.get(LISTING)).await
        };
        let answer = refused(&aem, TokenRefusal::Unauthorized).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        let answer = refused(&aem, TokenRefusal::LoginRedirect).await;
        assert_eq!(answer.status(), StatusCode::FOUND);
        assert!(answer.headers()[LOCATION].to_str().unwrap().contains("/core/content/login.html?resource="));
        let answer = refused(&aem, TokenRefusal::ReasonForbidden).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(answer.headers().contains_key("x-reason") && answer.headers().contains_key("x-reason-code"));
        let answer = refused(&aem, TokenRefusal::LoginPage).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/html;charset=utf-8");
        assert!(answer.text().await.unwrap().contains("j_security_check"));
        aem.switches.refuse_all(None);
        assert_eq!(send(aem.get(LISTING)).await.headers()[CONTENT_TYPE], "application/json");
        assert_eq!((aem.switches.requests(), aem.switches.refused()), (5, 4));
    }

    #[tokio::test]
    async fn a_busy_aem_says_so_as_often_as_told() {
        let aem = aem().await;
        aem.switches.busy(StatusCode::TOO_MANY_REQUESTS, Some("7"), 2);
        aem.switches.busy(StatusCode::SERVICE_UNAVAILABLE, None, 1);
        for (status, retry_after) in [(429, Some("7")), (429, Some("7")), (503, None), (200, None)] {
            let answer = send(aem.get(LISTING)).await;
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap()), retry_after);
        }
        assert_eq!((aem.switches.busy_answers(), aem.switches.refused()), (3, 0));
    }

    #[tokio::test]
    async fn a_connection_is_cut_before_or_after_the_body_has_arrived() {
        let aem = aem().await;
        let write = |id: &str| aem.put("/upload").header("x-standin-id", id).body("hello");
        aem.switches.break_off(Break::AfterHead, 1);
        aem.switches.break_off(Break::AfterBody, 1);
        assert!(write("1").send().await.is_err());
        assert!(write("2").send().await.is_err());
        assert_eq!(send(write("3")).await.status(), StatusCode::OK);
        let of = |id| (aem.switches.seen_of(id), aem.switches.writes_of(id));
        assert_eq!((of(1), of(2), of(3)), ((1, 0), (1, 1), (1, 1)));
        assert_eq!(aem.switches.broken_off(), 2);
    }
}
