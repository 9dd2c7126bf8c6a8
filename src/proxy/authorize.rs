//! Our `Authorization`, or none at all.

use http::HeaderValue;

use crate::{
    secret::Authorization,
    token::{NoToken, TokenHandle},
};

/// What a proxy puts into `Authorization`.
#[derive(Clone)]
pub enum Credential {
    /// The current access token.
    Bearer(TokenHandle),
    /// The same value for ever: user and password of a local AEM SDK.
    Fixed(Authorization),
    /// Nothing; what the client sent passes.
    None,
}

impl Credential {
    /// What replaces whatever the client sent: an app that knows nothing of tokens may still send a header of its own
    /// (aemsync sends `admin:admin`). `None` where that is to pass.
    ///
    /// # Errors
    /// Without a valid token nothing is sent.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, NoToken> {
        match self {
            Self::Bearer(token) => token.authorization().map(Some),
            Self::Fixed(authorization) => Ok(Some(authorization.header())),
            Self::None => Ok(None),
        }
    }
}
