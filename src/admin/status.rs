//! `/status`: what there is to know, as JSON.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;

use super::Admin;
use crate::{clock::rfc3339, ims::CredentialExchange, metrics::CredentialMetrics, token::TokenHandle};

/// A proxy, as shown.
#[derive(Debug, Clone, Serialize)]
pub struct ProxyView {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Where it forwards to.
    pub upstream: String,
    /// `bearer`, `basic` or `none`.
    pub auth: &'static str,
}

/// A credential, as shown.
pub struct CredentialView {
    /// Its name.
    pub name: String,
    /// Its token.
    pub token: TokenHandle,
    /// Its gauges, set when somebody looks.
    pub metrics: CredentialMetrics,
    /// What the document says that is no secret; another document may take its place.
    pub facts: Arc<ArcSwap<Facts>>,
}

/// What a document says that is no secret.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    kind: &'static str,
    client_id: Option<String>,
    technical_account: Option<String>,
    email: Option<String>,
    org: Option<String>,
    metascopes: Vec<String>,
    ims_endpoint: Option<String>,
    certificate_expires_at: Option<String>,
}

impl Facts {
    /// The facts of an exchange's credentials.
    pub fn of(exchange: &CredentialExchange) -> Self {
        let credentials = exchange.credentials();
        Self {
            kind: credentials.kind(),
            client_id: credentials.client_id().map(str::to_owned),
            technical_account: credentials.technical_account_id().map(str::to_owned),
            email: credentials.email().map(str::to_owned),
            org: credentials.org().map(str::to_owned),
            metascopes: credentials.scopes().to_vec(),
            ims_endpoint: exchange.endpoint().map(|endpoint| endpoint.authority().to_owned()),
            certificate_expires_at: credentials.expires_at().map(rfc3339),
        }
    }

    /// The facts, for the page.
    pub(super) fn rows(&self) -> [(&'static str, String); 5] {
        [
            ("client id", &self.client_id),
            ("technical account", &self.technical_account),
            ("organisation", &self.org),
            ("IMS", &self.ims_endpoint),
            ("certificate ends", &self.certificate_expires_at),
        ]
        .map(|(name, fact)| (name, fact.clone().unwrap_or_else(|| "-".to_owned())))
    }
}

/// The whole of `/status`.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub(super) version: &'static str,
    pub(super) commit: &'static str,
    pub(super) tls: &'static str,
    pub(super) uptime_seconds: u64,
    pub(super) ready: bool,
    pub(super) draining: bool,
    pub(super) proxies: Vec<ProxyView>,
    pub(super) credentials: Vec<CredentialStatus>,
}

#[derive(Debug, Serialize)]
pub(super) struct CredentialStatus {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) facts: Facts,
    pub(super) token: TokenView,
}

#[derive(Debug, Serialize)]
pub(super) struct TokenView {
    pub(super) valid: bool,
    pub(super) generation: u64,
    pub(super) user_id: Option<String>,
    pub(super) scopes: Vec<String>,
    pub(super) issued_at: Option<String>,
    pub(super) expires_at: Option<String>,
    pub(super) next_refresh: Option<String>,
    pub(super) failures: u32,
    pub(super) last_error: Option<ErrorView>,
}

#[derive(Debug, Serialize)]
pub(super) struct ErrorView {
    pub(super) at: String,
    pub(super) class: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Admin {
    pub(super) fn status(&self) -> Status {
        let inner = &self.0;
        let uptime = inner.clock.now().duration_since(inner.started_at).unwrap_or_default();
        Status {
            version: crate::VERSION,
            commit: crate::COMMIT,
            tls: crate::tls::PROVIDER,
            uptime_seconds: uptime.as_secs(),
            ready: self.is_ready(),
            draining: self.is_draining(),
            proxies: inner.proxies.clone(),
            credentials: inner.credentials.iter().map(CredentialStatus::of).collect(),
        }
    }
}

impl CredentialStatus {
    fn of(view: &CredentialView) -> Self {
        Self {
            name: view.name.clone(),
            facts: Facts::clone(&view.facts.load()),
            token: TokenView::of(&view.token),
        }
    }
}

impl TokenView {
    fn of(handle: &TokenHandle) -> Self {
        let status = handle.status();
        let progress = status.progress;
        Self {
            valid: status.valid,
            generation: status.generation,
            user_id: status.user_id,
            scopes: status.scopes,
            issued_at: status.issued_at.map(rfc3339),
            expires_at: status.expires_at.map(rfc3339),
            next_refresh: progress.next_attempt.map(rfc3339),
            failures: progress.failures,
            last_error: progress.last_error.map(|error| ErrorView {
                at: rfc3339(error.at),
                class: error.class,
                message: error.message,
                hint: error.hint,
            }),
        }
    }
}
