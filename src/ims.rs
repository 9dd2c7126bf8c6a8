//! One exchange with Adobe IMS: credentials become a [`Grant`].
//!
//! Knows nothing of caching and retrying. An error says what its reader would do next: the refresher asks
//! [`ImsError::retry`], people ask [`ImsError::hint`]. IMS's own words never get in, but for a short error
//! code: a body may echo the assertion.

mod answer;
mod assertion;
mod endpoint;
mod error;
mod exchange;
pub(crate) mod fuzzing;
mod http;

use std::time::{Duration, SystemTime};

pub use self::{
    endpoint::{DEFAULT_ENDPOINT, Endpoint, EndpointError},
    error::{Answer, Code, Hint, ImsError, Retry},
    exchange::CredentialExchange,
    http::{Http, Limits},
};
use crate::secret::Authorization;

/// What an exchange brings: an access token and what is known of it.
#[derive(Clone)]
pub struct Grant {
    /// The `Authorization` field value, built once; the token is a part of it.
    pub authorization: Authorization,
    /// When it was asked for, by this machine's clock.
    pub issued_at: SystemTime,
    /// When it ends, by this machine's clock.
    pub expires_at: SystemTime,
    /// The client id that the token was issued to; empty where a local token does not say so.
    pub client_id: String,
    /// The organisation of the credentials, if they say so.
    pub org: Option<String>,
    /// The account that AEM will see, if the token says so.
    pub user_id: Option<String>,
    /// What the token allows, if it says so.
    pub scopes: Vec<String>,
    /// Whether another exchange brings another token. A local token's brings the same one until it ends.
    pub renewable: bool,
    /// By how many seconds this machine's clock was off when the token came: see [`Answer::clock_skew_seconds`].
    pub clock_skew_seconds: Option<i64>,
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

    /// Whether both ask the same IMS with the same credentials: what IMS answers to one, it answers to the other.
    fn is_same(&self, _other: &Self) -> bool {
        false
    }
}
