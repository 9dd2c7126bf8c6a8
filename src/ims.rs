//! One exchange with Adobe IMS: credentials become a [`Grant`].
//!
//! Knows nothing of caching and retrying. An error says what its reader would do next: the refresher asks
//! [`ImsError::retry`], people ask [`ImsError::hint`]. IMS's own words never get in, but for a short error
//! code: a body may echo the assertion.

mod answer;
mod assertion;
mod endpoint;
mod error;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::header::{DATE, HeaderMap};
use secrecy::{ExposeSecret, SecretString};
use tracing::debug;

use self::answer::Answered;
pub use self::{
    endpoint::{Endpoint, EndpointError},
    error::{Answer, Code, Hint, ImsError, Retry},
};
use crate::{clock::Clock, credentials::Credentials, secret::Authorization};

/// What an exchange brings: an access token and what is known of it.
#[derive(Clone)]
pub struct Grant {
    /// The `Authorization` field value, built once.
    pub authorization: Authorization,
    /// The token itself, for `token --raw` and the cache file.
    pub token: SecretString,
    /// When it was asked for, by this machine's clock.
    pub issued_at: SystemTime,
    /// When it ends, by this machine's clock.
    pub expires_at: SystemTime,
    /// The client id that the token was issued to.
    pub client_id: String,
    /// The technical account that AEM will see, if the token says so.
    pub user_id: Option<String>,
    /// What the token allows, if it says so.
    pub scopes: Vec<String>,
}

impl Grant {
    /// From the issue to the end.
    pub fn lifetime(&self) -> Duration {
        self.expires_at.duration_since(self.issued_at).unwrap_or_default()
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// One way to buy a grant. The second implementation is the refresher's double in its tests.
pub trait Exchange: Send + Sync + 'static {
    /// Asks once.
    fn exchange(&self) -> impl Future<Output = Result<Grant, ImsError>> + Send;
}

/// The JWT exchange of one technical account.
///
/// Source: Adobe, "Generating Access Tokens for Server-Side APIs".
#[derive(Debug)]
pub struct JwtExchange {
    http: reqwest::Client,
    endpoint: Endpoint,
    credentials: Arc<Credentials>,
    clock: Clock,
}

/// How long IMS may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To connect, TCP and TLS.
    pub connect: Duration,
    /// All in all.
    pub total: Duration,
}

/// The client for IMS: no redirects (the assertion must not follow one), every wait bounded. `HTTPS_PROXY` and
/// `NO_PROXY` are honoured, but for an IMS on this machine: what is sent there in the clear must not leave it.
///
/// # Errors
/// When the TLS configuration does not suit reqwest, which is a defect of this program.
pub fn client(
    tls: rustls::ClientConfig,
    limits: Limits,
    endpoint: &Endpoint,
) -> reqwest::Result<reqwest::Client> {
    let builder = reqwest::Client::builder();
    let builder = if endpoint.is_loopback() { builder.no_proxy() } else { builder };
    builder
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(limits.connect)
        .timeout(limits.total)
        // An exchange a day: a connection kept would only be found dead.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("aem-auth-proxy/", env!("CARGO_PKG_VERSION")))
        .build()
}

impl JwtExchange {
    /// An exchange at `endpoint` with `credentials`.
    pub fn new(
        http: reqwest::Client,
        endpoint: Endpoint,
        credentials: Arc<Credentials>,
        clock: Clock,
    ) -> Self {
        crate::jwt::install();
        Self { http, endpoint, credentials, clock }
    }

    /// The credentials that are exchanged.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Where they are exchanged.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    async fn ask(&self) -> Result<Grant, ImsError> {
        let asked_at = self.clock.now();
        let assertion = assertion::sign(&self.credentials, &self.endpoint, &self.clock)?;
        let form = [
            ("client_id", self.credentials.client_id.as_str()),
            ("client_secret", self.credentials.client_secret.expose_secret()),
            ("jwt_token", assertion.expose_secret()),
        ];
        let request = self.http.post(self.endpoint.exchange_jwt().clone()).form(&form);
        let response = request.send().await.map_err(ImsError::unreachable)?;
        let answer = self.answer(response.status().as_u16(), response.headers());
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

    fn answer(&self, status: u16, headers: &HeaderMap) -> Answer {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(error::http_date);
        Answer { status, debug_id: error::debug_id(headers), date, received_at: self.clock.now() }
    }
}

impl Exchange for JwtExchange {
    async fn exchange(&self) -> Result<Grant, ImsError> {
        self.ask().await
    }
}

/// The body, up to [`MAX_BODY_BYTES`]; what is longer is cut, and then no JSON.
async fn read_bounded(mut response: reqwest::Response) -> Result<SecretString, ImsError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(ImsError::unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY_BYTES {
            break;
        }
    }
    Ok(SecretString::from(String::from_utf8_lossy(&body).into_owned()))
}

/// Tokens are below 2 KB; a login page of a captive portal is not worth reading.
const MAX_BODY_BYTES: usize = 64 * 1024;
