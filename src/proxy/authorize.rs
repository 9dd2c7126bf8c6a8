//! Who a request is to AEM: our `Authorization`, and what goes with it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::withheld::Withheld;
use crate::{
    secret::{Authorization, never},
    token::{Lease, NoToken, TokenHandle},
};

/// What a route puts into `Authorization`.
#[derive(Clone)]
pub enum Credential {
    /// The current access token.
    Bearer(TokenHandle),
    /// User and password of a local AEM SDK, which change only when their file does.
    Fixed(Arc<ArcSwap<Authorization>>),
    /// Nothing; what the client sent passes.
    None,
}

/// A credential for the time of one request: what is sent with it belongs together, whatever is refreshed meanwhile.
pub(super) enum Identity {
    Token(Lease),
    Fixed(Arc<Authorization>),
    None,
}

never!(Credential: std::fmt::Debug);
never!(Identity: std::fmt::Debug, Clone);

impl Credential {
    /// What a request of this moment is sent with.
    ///
    /// # Errors
    /// Without a valid token nothing is sent.
    pub(super) fn identity(&self, now: Instant) -> Result<Identity, NoToken> {
        match self {
            Self::Bearer(token) => token.lease_at(now).map(Identity::Token),
            Self::Fixed(authorization) => Ok(Identity::Fixed(authorization.load_full())),
            Self::None => Ok(Identity::None),
        }
    }
}

impl Identity {
    /// What replaces whatever the client sent: an app that knows nothing of tokens may still send a header of its own
    /// (aemsync sends `admin:admin`). `None` where that is to pass.
    pub(super) fn authorization(&self) -> Option<&[u8]> {
        match self {
            Self::Token(lease) => Some(lease.authorization()),
            Self::Fixed(authorization) => Some(authorization.as_bytes()),
            Self::None => None,
        }
    }

    /// What the answer is not to hold.
    pub(super) fn withheld(&self) -> Withheld<'_> {
        match self {
            Self::Token(lease) => Withheld::new(lease.token()),
            Self::Fixed(authorization) => Withheld::new(authorization.credentials()),
            Self::None => Withheld::NOTHING,
        }
    }

    /// The client id of the token, for `X-Api-Key`.
    pub(super) fn client_id(&self) -> Option<&[u8]> {
        if let Self::Token(lease) = self { lease.client_id() } else { None }
    }

    /// The organisation of the token, for `x-gw-ims-org-id`.
    pub(super) fn org(&self) -> Option<&[u8]> {
        if let Self::Token(lease) = self { lease.org() } else { None }
    }
}
