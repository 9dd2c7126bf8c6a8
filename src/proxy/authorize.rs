//! Our `Authorization`, or none at all.

use http::{HeaderMap, header};

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
    /// Replaces whatever the client sent: an app that knows nothing of tokens may still send a header of its own
    /// (aemsync sends `admin:admin`).
    ///
    /// # Errors
    /// Without a valid token nothing is sent.
    pub(super) fn authorize(&self, headers: &mut HeaderMap) -> Result<(), NoToken> {
        let value = match self {
            Self::Bearer(token) => token.authorization()?,
            Self::Fixed(authorization) => authorization.header(),
            Self::None => return Ok(()),
        };
        headers.insert(header::AUTHORIZATION, value);
        Ok(())
    }
}
