//! `/status`: what there is to know, as JSON.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use serde::{Serialize, Serializer};

use super::Admin;
use crate::{
    clock::rfc3339,
    ims::{CredentialExchange, Endpoint},
    metrics::CredentialMetrics,
    token::{TokenHandle, TokenStatus},
};

/// A proxy, as shown.
#[derive(Debug, Clone, Serialize)]
pub struct ProxyView {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Whether it speaks TLS there.
    pub tls: bool,
    /// Where it forwards to.
    pub upstream: String,
    /// `bearer`, `basic` or `none`.
    pub auth: &'static str,
    /// The name of the credential.
    pub credentials: Option<String>,
    /// The preset of what passes.
    pub policy: &'static str,
    /// The rules that are asked before it.
    pub rules: Vec<String>,
    /// What is different for some paths.
    pub routes: Vec<RouteView>,
}

/// A route, as shown.
#[derive(Debug, Clone, Serialize)]
pub struct RouteView {
    /// The prefix of its paths.
    pub path: String,
    /// Where it forwards to.
    pub upstream: String,
    /// `bearer`, `basic` or `none`.
    pub auth: &'static str,
    /// The name of the credential.
    pub credentials: Option<String>,
    /// The preset of what passes.
    pub policy: &'static str,
    /// The rules that are asked before it.
    pub rules: Vec<String>,
}

/// A credential, as shown.
pub struct CredentialView {
    /// Its name.
    pub name: String,
    /// Whether requests are sent with it; others only stand in.
    pub is_sent: bool,
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
    scopes: Vec<String>,
    ims_endpoint: Option<String>,
    #[serde(serialize_with = "as_rfc3339")]
    certificate_expires_at: Option<SystemTime>,
}

impl Facts {
    /// The facts of an exchange's credentials.
    pub fn of(exchange: &CredentialExchange) -> Self {
        let credentials = exchange.credentials();
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            kind: credentials.kind(),
            client_id: owned(credentials.client_id()),
            technical_account: owned(credentials.technical_account_id()),
            email: owned(credentials.email()),
            org: owned(credentials.org()),
            scopes: credentials.scopes().to_vec(),
            ims_endpoint: owned(exchange.endpoint().map(Endpoint::authority)),
            certificate_expires_at: credentials.expires_at(),
        }
    }

    /// The client id; empty where it is not known.
    pub fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }

    /// When the certificate ends, if there is one.
    pub fn certificate_end(&self) -> Option<SystemTime> {
        self.certificate_expires_at
    }

    /// Whether it is a developer's own token, which cannot be refreshed.
    pub fn is_local_token(&self) -> bool {
        self.kind == "local"
    }

    /// The facts, for the page.
    pub(super) fn rows(&self) -> [(&'static str, String); 6] {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        [
            ("kind", self.kind.to_owned()),
            ("client id", text(&self.client_id)),
            ("technical account", text(&self.technical_account)),
            ("organisation", text(&self.org)),
            ("IMS", text(&self.ims_endpoint)),
            ("certificate ends", text(&self.certificate_expires_at.map(rfc3339))),
        ]
    }
}

fn as_rfc3339<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339).serialize(to)
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
    pub(super) fallback: Option<FallbackView>,
    pub(super) token: TokenView,
}

#[derive(Debug, Serialize)]
pub(super) struct FallbackView {
    pub(super) name: String,
    /// Whether requests get its token.
    pub(super) active: bool,
    /// Since when IMS refuses the credential's own.
    pub(super) since: Option<String>,
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
        let status = view.token.status();
        let since = status.progress.refused_since.map(rfc3339);
        let fallback = status.fallback.clone();
        Self {
            name: view.name.clone(),
            facts: Facts::clone(&view.facts.load()),
            fallback: fallback.map(|(name, active)| FallbackView { name, active, since }),
            token: TokenView::of(status),
        }
    }
}

impl TokenView {
    fn of(status: TokenStatus) -> Self {
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
