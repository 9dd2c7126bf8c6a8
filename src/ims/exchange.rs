//! The exchange of credentials, each kind in its own way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, HeaderMap};
use tracing::{debug, warn};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::{
    Answer, Endpoint, Exchange, Grant, Http, ImsError,
    answer::Answered,
    assertion,
    error::{self, Code},
};
use crate::{
    clock::Clock,
    config::ProxyUrl,
    credentials::{Credentials, JwtCredentials, LocalToken, OAuthCredentials},
    secret::SecretString,
};

/// The way from credentials of any kind to a token.
///
/// Sources: Adobe, "Generating Access Tokens for Server-Side APIs" (JWT); Adobe Developer Console, "OAuth
/// Server-to-Server credential implementation guide".
#[derive(Debug)]
pub struct CredentialExchange {
    credentials: Arc<Credentials>,
    way: Way,
    clock: Clock,
}

#[derive(Debug)]
enum Way {
    Ims(Box<Ims>),
    /// The document is the token.
    Local(LocalToken),
}

#[derive(Debug)]
struct Ims {
    http: Http,
    endpoint: Endpoint,
    /// The place of the OAuth secret that worked last: the next exchange begins with it.
    secret: AtomicUsize,
}

impl CredentialExchange {
    /// An exchange of `credentials` at `endpoint`; a local token is its own grant and is sent to nobody.
    pub fn at_ims(http: Http, endpoint: Endpoint, credentials: Arc<Credentials>, clock: Clock) -> Self {
        crate::jwt::install();
        Self {
            credentials,
            way: Way::Ims(Box::new(Ims { http, endpoint, secret: AtomicUsize::new(0) })),
            clock,
        }
    }

    /// What takes a local token for a grant, without IMS.
    pub fn of_local_token(token: LocalToken, clock: Clock) -> Self {
        let credentials = Arc::new(Credentials::LocalToken(token.clone()));
        Self { credentials, way: Way::Local(token), clock }
    }

    /// The credentials that are exchanged.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Where they are exchanged; none where nobody is asked.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match (&self.way, &*self.credentials) {
            (Way::Ims(ims), Credentials::Jwt(_) | Credentials::OAuth(_)) => Some(&ims.endpoint),
            _ => None,
        }
    }

    /// The proxy on the way to IMS.
    pub fn egress(&self) -> Option<&ProxyUrl> {
        match &self.way {
            Way::Ims(ims) => ims.http.egress(),
            Way::Local(_) => None,
        }
    }

    async fn exchange_jwt(&self, ims: &Ims, credentials: &JwtCredentials) -> Result<Grant, ImsError> {
        let assertion = assertion::sign(credentials, &ims.endpoint, &self.clock)?;
        let form = [
            ("client_id", credentials.client_id.as_str()),
            ("client_secret", credentials.client_secret.expose_secret()),
            ("jwt_token", assertion.expose_secret()),
        ];
        self.ask(ims, ims.endpoint.exchange_jwt(), &form).await
    }

    /// Tries each secret once, beginning with the one that worked last: while secrets are rotated, two are in the
    /// document, and either may be dead.
    async fn exchange_oauth(&self, ims: &Ims, credentials: &OAuthCredentials) -> Result<Grant, ImsError> {
        let count = credentials.client_secrets.len();
        let first = ims.secret.load(Relaxed);
        let mut tried = 0;
        loop {
            let place = (first + tried) % count.max(1);
            tried += 1;
            match self.client_credentials(ims, credentials, place).await {
                Err(ImsError::Refused { code: Code::InvalidClient, .. }) if tried < count => {}
                Ok(grant) => {
                    if place != first {
                        ims.secret.store(place, Relaxed);
                        warn_of_a_dead_secret(credentials, first, place);
                    }
                    return Ok(grant);
                }
                result => return result,
            }
        }
    }

    /// RFC 6749, section 4.4.2, with scopes separated by commas: IMS refuses spaces.
    async fn client_credentials(
        &self,
        ims: &Ims,
        credentials: &OAuthCredentials,
        place: usize,
    ) -> Result<Grant, ImsError> {
        let secret = credentials.client_secrets.get(place).map(SecretString::expose_secret);
        let scopes = credentials.scopes.join(",");
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", &credentials.client_id),
            ("client_secret", secret.unwrap_or_default()),
        ];
        if !scopes.is_empty() {
            form.push(("scope", &scopes));
        }
        self.ask(ims, ims.endpoint.token(), &form).await
    }

    async fn ask(&self, ims: &Ims, url: &Url, form: &[(&str, &str)]) -> Result<Grant, ImsError> {
        let asked_at = self.clock.now();
        let request = ims.http.client().post(url.clone()).header(CONTENT_TYPE, FORM).body(encoded(form));
        let response = request.send().await.map_err(|error| {
            if error.is_connect() {
                ims.http.forget_addresses(url);
            }
            ImsError::unreachable(error)
        })?;
        let answer =
            answer_of(&self.credentials, response.status().as_u16(), response.headers(), self.clock.now());
        let retry_after = error::retry_after(response.headers(), self.clock.now());
        let body = read_bounded(response).await?;
        debug!(status = answer.status, debug_id = answer.debug_id, "IMS answered");
        Answered {
            answer,
            retry_after,
            body: &body,
            asked_at,
            credentials: &self.credentials,
            now: self.clock.now(),
        }
        .read()
    }

    /// Its times are those of IMS's clock. There is no answer to compare this machine's with, so they are taken as they
    /// are.
    fn local(&self, token: &LocalToken) -> Result<Grant, ImsError> {
        if token.expires_at() <= self.clock.now() {
            return Err(ImsError::LocalTokenEnded { at: token.expires_at() });
        }
        Ok(Grant {
            authorization: token.authorization().clone(),
            issued_at: token.created_at(),
            expires_at: token.expires_at(),
            client_id: token.client_id().unwrap_or_default().to_owned(),
            org: None,
            user_id: token.user_id().map(str::to_owned),
            scopes: token.scopes().to_vec(),
            renewable: false,
            clock_skew_seconds: None,
        })
    }
}

impl Exchange for CredentialExchange {
    async fn exchange(&self) -> Result<Grant, ImsError> {
        match (&self.way, &*self.credentials) {
            (Way::Ims(ims), Credentials::Jwt(credentials)) => self.exchange_jwt(ims, credentials).await,
            (Way::Ims(ims), Credentials::OAuth(credentials)) => self.exchange_oauth(ims, credentials).await,
            (Way::Local(token), _) | (Way::Ims(_), Credentials::LocalToken(token)) => self.local(token),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let token_url = |exchange: &Self| exchange.endpoint().map(|endpoint| endpoint.token().clone());
        token_url(self) == token_url(other) && self.credentials.authenticate_like(&other.credentials)
    }
}

pub(super) fn answer_of(
    credentials: &Credentials,
    status: u16,
    headers: &HeaderMap,
    received_at: SystemTime,
) -> Answer {
    let debug_id = error::debug_id(headers).filter(|id| !credentials.are_given_away_by(id));
    let date = headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(error::http_date);
    Answer { status, debug_id, date, received_at }
}

/// Once for each change: from then on the exchange begins with the one that works.
fn warn_of_a_dead_secret(credentials: &OAuthCredentials, refused: usize, works: usize) {
    let (refused, works, count) = (refused + 1, works + 1, credentials.client_secrets.len());
    warn!(
        client_id = credentials.client_id,
        "Secret {refused} of {count} was refused, secret {works} works: remove the old one"
    );
}

/// The form as a body that is wiped when the last of those who send it lets go of it.
fn encoded(form: &[(&str, &str)]) -> Bytes {
    // No byte becomes more than three: what grows leaves copies behind.
    let bytes = form.iter().map(|(name, value)| name.len() + value.len() * 3 + 2).sum();
    let mut encoded = form_urlencoded::Serializer::new(String::with_capacity(bytes));
    encoded.extend_pairs(form);
    Bytes::from_owner(Zeroizing::new(encoded.finish().into_bytes()))
}

/// The body, up to [`MAX_BODY_BYTES`]; what is longer is cut, and then no JSON.
async fn read_bounded(mut response: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, ImsError> {
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY_BYTES));
    while let Some(chunk) = response.chunk().await.map_err(ImsError::unreachable)? {
        let room = MAX_BODY_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    Ok(body)
}

const FORM: &str = "application/x-www-form-urlencoded";

/// Tokens are below 2 KB; a login page of a captive portal is not worth reading.
const MAX_BODY_BYTES: usize = 64 * 1024;

#[cfg(feature = "demo")]
#[cfg(test)]
mod tests;
