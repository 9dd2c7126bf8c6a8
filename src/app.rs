//! Binds sockets, wires the rooms, owns every task.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    admin::{Admin, CredentialView, Facts, ProxyView},
    clock::{Clock, rfc3339, unix_seconds},
    config::{Auth, Config, CredentialsSource, Listen, Shutdown},
    credentials::{self, Credentials, CredentialsError},
    ims::{self, Endpoint, EndpointError, JwtExchange},
    listener::Listener,
    metrics::Metrics,
    proxy::{Connector, Credential, Guard, Limits, Proxy, Upstream},
    secret::Authorization,
    tls::{self, TlsError},
    token::{self, Cache, Cached, Refresher},
};

/// Everything bound and wired, nothing running.
pub struct App {
    proxy: Proxy,
    listeners: Vec<Listener>,
    admin: Admin,
    admin_listeners: Vec<Listener>,
    refresher: Option<Refresher<Cached<JwtExchange>>>,
    shutdown: Shutdown,
}

/// Why the program does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The credentials are unusable.
    #[error("{place}: {error}")]
    Credentials {
        /// The file or the setting.
        place: String,
        /// What is wrong with them.
        error: CredentialsError,
    },
    /// There is no such IMS.
    #[error("{place} {error}")]
    Endpoint {
        /// The setting or the field.
        place: String,
        /// What is wrong with it.
        error: EndpointError,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be had.
    #[error("cannot listen at {listen}: {error}; change {key} or stop whoever has it")]
    Bind {
        /// The address.
        listen: Listen,
        /// The key that holds it.
        key: &'static str,
        /// The system's account.
        error: io::Error,
    },
    /// A defect of this program.
    #[error("cannot set up {what}: {error}")]
    Internal {
        /// Which part.
        what: &'static str,
        /// The library's account.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StartError {
    /// Whether the configuration or the credentials are to blame, rather than the machine.
    pub fn is_configuration(&self) -> bool {
        !matches!(self, Self::Bind { .. } | Self::Internal { .. })
    }

    fn internal(what: &'static str) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> Self {
        move |error| Self::Internal { what, error }
    }
}

/// A part ended that should not have.
#[derive(Debug, thiserror::Error)]
#[error("a part of the proxy died")]
pub struct Died;

/// The exchange that `config` asks for; none without bearer authentication.
///
/// # Errors
/// When credentials, IMS's address or the CA file are unusable.
pub fn exchange(config: &Config, clock: &Clock) -> Result<Option<JwtExchange>, StartError> {
    let Auth::Bearer(source) = &config.auth else { return Ok(None) };
    let credentials = read_credentials(source)?;
    let (place, text) = match &config.ims_endpoint {
        Some(given) => (format!("`ims_endpoint` ({})", given.source), &given.text),
        None => ("the credentials' imsEndpoint".to_owned(), &credentials.ims_endpoint),
    };
    let endpoint: Endpoint = text.parse().map_err(|error| StartError::Endpoint { place, error })?;
    let tls = tls::client_config(config.ca_file.as_deref())?;
    let limits = ims::Limits { connect: config.timeouts.ims_connect, total: config.timeouts.ims };
    let http =
        ims::client(tls, limits).map_err(|error| StartError::internal("the client for IMS")(error.into()))?;
    Ok(Some(JwtExchange::new(http, endpoint, Arc::new(credentials), clock.clone())))
}

/// Reads and checks the credentials, and warns of a file that everybody may read.
///
/// # Errors
/// When they are unusable, with the place and the field.
pub fn read_credentials(source: &CredentialsSource) -> Result<Credentials, StartError> {
    let (place, result) = match source {
        CredentialsSource::File(path) => (path.display().to_string(), Credentials::read(path)),
        CredentialsSource::Inline(document, place) => {
            use secrecy::ExposeSecret;
            (place.clone(), Credentials::parse_json_or_base64(document.expose_secret()))
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

impl App {
    /// Wires everything and binds the listeners.
    ///
    /// # Errors
    /// Before anything listens where the configuration is to blame.
    pub async fn bind(config: Config, clock: Clock) -> Result<Self, StartError> {
        tls::install();
        let metrics = Metrics::new().map_err(|error| StartError::internal("the metrics")(error.into()))?;
        let wired = wire_credential(&config, &clock, &metrics)?;
        let limits = Limits { head: config.limits.head, timeouts: config.timeouts.clone() };
        let connector =
            Connector::new(tls::client_config(config.ca_file.as_deref())?, config.timeouts.connect);
        let upstream = Upstream::new(&config.upstream, connector, &limits)
            .map_err(|error| StartError::internal("the upstream")(error.into()))?;
        let guard = Guard::new(&config.guard.allowed_hosts, &config.guard.allowed_origins);
        say_what_is_open(&config, &guard);

        let listeners = bind(&config.listen, "listen").await?;
        let admin_listeners = match config.admin.listen.on() {
            Some(listen) => bind(listen, "admin.listen").await?,
            None => Vec::new(),
        };
        let view = ProxyView {
            name: NAME.to_owned(),
            listen: shown(&listeners, &config.listen),
            upstream: config.upstream.origin().ascii_serialization(),
            auth: wired.auth,
        };
        let admin_guard = Guard::new(&config.guard.allowed_hosts, &[]);
        let credentials = wired.view.into_iter().collect();
        let admin = Admin::new(admin_guard, metrics.clone(), clock, vec![view], credentials);
        let proxy = Proxy::new(guard, wired.credential, upstream, limits, metrics.proxy(NAME));
        let shutdown = config.shutdown;
        Ok(Self { proxy, listeners, admin, admin_listeners, refresher: wired.refresher, shutdown })
    }

    /// The proxy's TCP addresses, with their real ports.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(Listener::addr).collect()
    }

    /// The admin listener's TCP addresses, with their real ports.
    pub fn admin_addrs(&self) -> Vec<SocketAddr> {
        self.admin_listeners.iter().filter_map(Listener::addr).collect()
    }

    /// Runs until `stop` comes (again: at once), or a part dies.
    ///
    /// Stopping: `/ready` turns 503, `shutdown.delay` passes, the listeners close, requests in flight finish for at
    /// most `shutdown.grace`. The admin listener and the refresher stay up to the end.
    ///
    /// # Errors
    /// When a part ended that should not have.
    pub async fn run(self, mut stop: impl AsyncFnMut()) -> Result<(), Died> {
        let Self { proxy, listeners, admin, admin_listeners, refresher, shutdown } = self;
        let (closing, ending) = (CancellationToken::new(), CancellationToken::new());
        let connections = TaskTracker::new();
        let mut tasks = JoinSet::new();
        for listener in listeners {
            let serve = accept_proxy(listener, proxy.clone(), connections.clone(), closing.clone());
            tasks.spawn(serve);
        }
        for listener in admin_listeners {
            tasks.spawn(accept_admin(listener, admin.clone(), ending.clone()));
        }
        if let Some(refresher) = refresher {
            tasks.spawn(refresher.run(ending.clone()));
        }
        tokio::select! {
            () = stop() => {}
            _ = tasks.join_next() => return Err(Died),
        }
        admin.drain();
        let drain = async {
            tokio::time::sleep(shutdown.delay).await;
            closing.cancel();
            proxy.drain();
            connections.close();
            if timeout(shutdown.grace, connections.wait()).await.is_err() {
                warn!(grace = ?shutdown.grace, connections = connections.len(), "Requests still in flight, closing them");
            }
        };
        tokio::select! {
            () = drain => {}
            () = stop() => warn!("Asked again, stopping at once"),
        }
        ending.cancel();
        info!("Stopped");
        Ok(())
    }
}

/// What [`App::bind`] makes of the credentials.
struct Wired {
    credential: Credential,
    auth: &'static str,
    refresher: Option<Refresher<Cached<JwtExchange>>>,
    view: Option<CredentialView>,
}

fn wire_credential(config: &Config, clock: &Clock, metrics: &Metrics) -> Result<Wired, StartError> {
    let Some(exchange) = exchange(config, clock)? else {
        let (credential, auth) = match &config.auth {
            Auth::Basic { user, password } => {
                let value = Authorization::basic(user, password)
                    .map_err(|error| StartError::internal("basic authentication")(error.into()))?;
                (Credential::Fixed(value), "basic")
            }
            _ => (Credential::None, "none"),
        };
        return Ok(Wired { credential, auth, refresher: None, view: None });
    };
    let facts = Facts::of(exchange.credentials(), exchange.endpoint().authority());
    let handles = metrics.credential(NAME);
    if let Some(end) = exchange.credentials().expires_at() {
        handles.certificate_expires_at(unix_seconds(end));
        if end <= clock.now() {
            warn!(
                certificate.expires_at = rfc3339(end),
                "The certificate in the credentials has expired: IMS will refuse it"
            );
        }
    }
    let cache = config.token.cache_file.clone().map(|path| Cache::new(path, &exchange));
    let cached = cache.as_ref().and_then(|cache| cache.load(clock.now()));
    let exchange = Cached::new(exchange, cache);
    let (token, mut refresher) =
        token::channel(exchange, clock.clone(), config.token.refresh_at, handles.clone());
    if let Some(grant) = cached {
        refresher.start_with(grant);
    }
    let view = CredentialView { name: NAME.to_owned(), token: token.clone(), metrics: handles, facts };
    Ok(Wired {
        credential: Credential::Bearer(token),
        auth: "bearer",
        refresher: Some(refresher),
        view: Some(view),
    })
}

/// One loud line for each thing that is more open, or further away, than usual.
fn say_what_is_open(config: &Config, guard: &Guard) {
    if !config.listen.is_loopback() {
        warn!(listen = %config.listen, "Open to the network: whoever reaches this address acts with the proxy's token");
    }
    if guard.admits_any_host() {
        warn!("guard.allowed_hosts lets every Host in: web pages can reach the proxy by DNS rebinding");
    }
    let host = config.upstream.host_str().unwrap_or_default();
    if !host.ends_with(AEM_DOMAIN) && matches!(config.auth, Auth::Bearer(_)) {
        warn!(upstream = %config.upstream, "The upstream is not an AEM as a Cloud Service host, and will receive the access token");
    }
}

async fn bind(listen: &Listen, key: &'static str) -> Result<Vec<Listener>, StartError> {
    Listener::bind(listen).await.map_err(|error| StartError::Bind { listen: listen.clone(), key, error })
}

fn shown(listeners: &[Listener], listen: &Listen) -> Vec<String> {
    let addrs = listeners
        .iter()
        .map(|listener| listener.addr().map_or_else(|| listen.to_string(), |addr| addr.to_string()));
    addrs.collect()
}

async fn accept_proxy(
    listener: Listener,
    proxy: Proxy,
    connections: TaskTracker,
    closing: CancellationToken,
) {
    while let Some(stream) = closing.run_until_cancelled(listener.accept()).await {
        connections.spawn(proxy.clone().serve(stream, closing.clone()));
    }
}

async fn accept_admin(listener: Listener, admin: Admin, ending: CancellationToken) {
    let mut connections = JoinSet::new();
    while let Some(stream) = ending.run_until_cancelled(listener.accept()).await {
        connections.spawn(admin.clone().serve(stream));
        while connections.try_join_next().is_some() {}
    }
}

/// The one proxy and the one credential of the simple form.
const NAME: &str = "default";

/// Where AEM as a Cloud Service lives.
const AEM_DOMAIN: &str = ".adobeaemcloud.com";
