//! From the configuration to a credential at work, and again when it has changed.

use std::{path::Path, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use tracing::{error, info, warn};

use super::{NAME, StartError};
use crate::{
    admin::{CredentialView, Facts},
    clock::{Clock, rfc3339, unix_seconds},
    config::{Auth, Config, CredentialsSource},
    credentials::{self, Credentials},
    ims::{self, CredentialExchange, DEFAULT_ENDPOINT, Endpoint},
    metrics::{CredentialMetrics, Metrics},
    proxy::Credential,
    secret::Authorization,
    tls,
    token::{self, Cache, Cached, Refresher, Replaced, Replacer},
};

/// What the proxy and the admin listener get of a credential, and what keeps it alive.
pub(super) struct Wired {
    pub(super) credential: Credential,
    pub(super) auth: &'static str,
    pub(super) bearer: Option<Bearer>,
    pub(super) view: Option<CredentialView>,
}

/// What a bearer credential needs to live.
pub(super) struct Bearer {
    pub(super) refresher: Refresher<Cached<CredentialExchange>>,
    pub(super) reloader: Reloader,
}

/// Reads the credentials anew and puts them to work, once they have shown that they do.
pub(super) struct Reloader {
    config: Arc<Config>,
    clock: Clock,
    replacer: Replacer<Cached<CredentialExchange>>,
    facts: Arc<ArcSwap<Facts>>,
    metrics: CredentialMetrics,
}

pub(super) fn wire(
    config: &Arc<Config>,
    clock: &Clock,
    metrics: &Metrics,
    tls: &ClientConfig,
) -> Result<Wired, StartError> {
    let Some(exchange) = exchange_over(config, clock, || Ok(tls.clone()))? else {
        let (credential, auth) = match &config.auth {
            Auth::Basic { user, password } => {
                let value = Authorization::basic(user, password)
                    .map_err(|error| StartError::internal("basic authentication")(error.into()))?;
                (Credential::Fixed(value), "basic")
            }
            _ => (Credential::None, "none"),
        };
        return Ok(Wired { credential, auth, bearer: None, view: None });
    };
    let facts = Arc::new(ArcSwap::from_pointee(Facts::of(&exchange)));
    let metrics = metrics.credential(NAME);
    watch_certificate(exchange.credentials().expires_at(), &metrics, clock);

    let cache = cache(config, &exchange);
    let cached = cache.as_ref().and_then(|cache| cache.load(clock.now()));
    let exchange = Cached::new(exchange, cache);
    let (token, mut refresher) =
        token::channel(exchange, clock.clone(), config.token.refresh_at, metrics.clone());
    if let Some(grant) = cached {
        refresher.start_with(grant);
    }
    let reloader = Reloader {
        config: Arc::clone(config),
        clock: clock.clone(),
        replacer: refresher.replacer(),
        facts: Arc::clone(&facts),
        metrics: metrics.clone(),
    };
    let view = CredentialView { name: NAME.to_owned(), token: token.clone(), metrics, facts };
    let bearer = Some(Bearer { refresher, reloader });
    Ok(Wired { credential: Credential::Bearer(token), auth: "bearer", bearer, view: Some(view) })
}

impl Reloader {
    /// Reads the credentials anew. New ones are exchanged first, and take over when they have brought a token; until then,
    /// and if they never do, the old ones serve on.
    pub(super) async fn reload(&self) {
        if let Auth::Bearer(CredentialsSource::Inline(_, place)) = &self.config.auth {
            return warn!(place, "SIGHUP: credentials in a variable cannot change while the process runs");
        }
        let (config, clock) = (Arc::clone(&self.config), self.clock.clone());
        let exchange = match tokio::task::spawn_blocking(move || exchange(&config, &clock)).await {
            Ok(Ok(Some(exchange))) => exchange,
            Ok(Err(error)) => return error!(%error, "The new credentials are unusable, the old ones stay"),
            Ok(Ok(None)) => return,
            Err(error) => return error!(%error, "The new credentials were not read, the old ones stay"),
        };
        let facts = Facts::of(&exchange);
        let end = exchange.credentials().expires_at();
        let cache = cache(&self.config, &exchange);
        match self.replacer.replace(Cached::new(exchange, cache)).await {
            Some(Replaced::Works) => {
                self.describe(facts, end);
                info!("The credentials were read anew and are in use");
            }
            // The refresher has told why, and goes on trying.
            Some(Replaced::TakesOver(_)) => self.describe(facts, end),
            Some(Replaced::Rejected(error)) => {
                let hint = error.hint().map(|hint| hint.to_string());
                error!(%error, hint, "The new credentials brought no token, the old ones stay");
            }
            // The refresher has stopped, and the process with it.
            None => {}
        }
    }

    fn describe(&self, facts: Facts, end: Option<SystemTime>) {
        self.facts.store(Arc::new(facts));
        watch_certificate(end, &self.metrics, &self.clock);
    }
}

fn watch_certificate(end: Option<SystemTime>, metrics: &CredentialMetrics, clock: &Clock) {
    metrics.certificate_expires_at(end.map(unix_seconds));
    if let Some(end) = end.filter(|end| *end <= clock.now()) {
        warn!(
            certificate.expires_at = rfc3339(end),
            "The certificate in the credentials has expired: IMS will refuse it"
        );
    }
}

fn cache(config: &Config, exchange: &CredentialExchange) -> Option<Cache> {
    config.token.cache_file.clone().and_then(|path| Cache::new(path, exchange))
}

/// The exchange that `config` asks for; none without bearer authentication.
///
/// # Errors
/// When credentials, IMS's address or the CA file are unusable.
pub fn exchange(config: &Config, clock: &Clock) -> Result<Option<CredentialExchange>, StartError> {
    exchange_over(config, clock, || Ok(tls::client_config(config.ca_file.as_deref())?))
}

/// The same over TLS that may have been set up already: reading the system's roots takes longer than all the rest.
fn exchange_over(
    config: &Config,
    clock: &Clock,
    tls: impl FnOnce() -> Result<ClientConfig, StartError>,
) -> Result<Option<CredentialExchange>, StartError> {
    let Auth::Bearer(source) = &config.auth else { return Ok(None) };
    let credentials = read_credentials(source)?;
    if let Credentials::LocalToken(token) = credentials {
        return Ok(Some(CredentialExchange::of_local_token(token, clock.clone())));
    }
    let (place, text) = match &config.ims_endpoint {
        Some(given) => (format!("`ims_endpoint` ({})", given.source), given.text.as_str()),
        None => (
            "the credentials' imsEndpoint".to_owned(),
            credentials.ims_endpoint().unwrap_or(DEFAULT_ENDPOINT),
        ),
    };
    let endpoint: Endpoint = text.parse().map_err(|error| StartError::Endpoint { place, error })?;
    let tls = tls()?;
    let limits = ims::Limits { connect: config.timeouts.ims_connect, total: config.timeouts.ims };
    let http = ims::client(tls, limits, &endpoint)
        .map_err(|error| StartError::internal("the client for IMS")(error.into()))?;
    Ok(Some(CredentialExchange::at_ims(http, endpoint, Arc::new(credentials), clock.clone())))
}

/// Reads and checks the credentials, and warns of a file that everybody may read.
///
/// # Errors
/// When they are unusable, with the place and the field.
pub fn read_credentials(source: &CredentialsSource) -> Result<Credentials, StartError> {
    let (place, result) = match source {
        CredentialsSource::File(path) => (path.display().to_string(), Credentials::read(path, None)),
        CredentialsSource::Inline(document, place) => {
            use secrecy::ExposeSecret;
            (place.clone(), Credentials::parse_json_or_base64(document.expose_secret(), None))
        }
    };
    if let (CredentialsSource::File(path), Ok(_)) = (source, &result) {
        warn_of_readers(path);
    }
    result.map_err(|error| StartError::Credentials { place, error })
}

fn warn_of_readers(path: &Path) {
    if credentials::world_readable(path) {
        warn!(
            credentials_file = %path.display(),
            "Every user of this machine can read the credentials: chmod 600, or mount the secret with mode 0440"
        );
    }
}
