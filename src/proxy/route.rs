//! Where a request goes, and with what.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderName;

use super::{
    Upstream,
    authorize::{Credential, Identity},
    request::Added,
};
use crate::{config::Prefix, policy::Policy, secret::SecretString};

/// What requests below a path get.
pub struct Route {
    /// The paths that it is for.
    pub path: Prefix,
    /// Who they are to AEM.
    pub credential: Credential,
    /// Where they go.
    pub upstream: Arc<Upstream>,
    /// What passes.
    pub policy: Arc<Policy>,
    /// Whether `X-Api-Key` is sent, unless the client does.
    pub x_api_key: bool,
    /// Whether `x-gw-ims-org-id` is sent, unless the client does.
    pub x_gw_ims_org_id: bool,
    /// Fields in place of the client's; none where there never are any.
    pub fields: Option<Arc<Fields>>,
}

/// Fields that a route sets. Their values may come from files that change.
pub type Fields = ArcSwap<Vec<(HeaderName, SecretString)>>;

impl Route {
    /// What AEM gets beside what the client sent.
    pub(super) fn added<'a>(
        &'a self,
        identity: &'a Identity,
        fields: &'a [(HeaderName, SecretString)],
    ) -> Added<'a> {
        let api_key = identity.client_id().filter(|_| self.x_api_key);
        let org = identity.org().filter(|_| self.x_gw_ims_org_id);
        Added {
            host: self.upstream.host(),
            origin: self.upstream.origin(),
            authorization: identity.authorization(),
            fields,
            unless_sent: [("x-api-key", api_key), ("x-gw-ims-org-id", org)],
            ..Added::default()
        }
    }
}
