//! Binds sockets, wires the rooms, owns every task.

mod credential;
mod workers;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::credential::{exchange, read_credentials};
use self::{credential::Bearer, workers::Workers};
use crate::{
    admin::{Admin, ProxyView},
    clock::Clock,
    config::{Auth, Config, Listen, Shutdown, keys},
    credentials::CredentialsError,
    ims::EndpointError,
    listener::Listener,
    metrics::Metrics,
    proxy::{Guard, Limits, Proxy, Upstream},
    tls::{self, TlsError},
};

/// Everything bound and wired, nothing running.
pub struct App {
    proxy: Arc<Proxy>,
    workers: Workers,
    listeners: Vec<Listener>,
    admin: Admin,
    admin_listeners: Vec<Listener>,
    bearer: Option<Bearer>,
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
    #[error(
        "cannot listen at {listen}: {error}; change `{key}` ({}) or stop whoever has it",
        keys::variable(key)
    )]
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

impl App {
    /// Wires everything and binds the listeners.
    ///
    /// # Errors
    /// Before anything listens where the configuration is to blame.
    pub async fn bind(config: Config, clock: Clock) -> Result<Self, StartError> {
        tls::install();
        let metrics = Metrics::new().map_err(|error| StartError::internal("the metrics")(error.into()))?;
        let config = Arc::new(config);
        let tls = tls::client_config(config.ca_file.as_deref())?;
        let wired = credential::wire(&config, &clock, &metrics, &tls)?;
        let limits = Limits { head: config.limits.head, timeouts: config.timeouts.clone() };
        let upstream = Upstream::new(&config.upstream, tls, &config.timeouts)
            .map_err(StartError::internal("the upstream"))?;
        let guard = Guard::new(&config.guard.allowed_hosts, &config.guard.allowed_origins);
        say_what_is_open(&config, &guard);

        let listeners = bind(&config.listen, "listen")?;
        let admin_listeners = match config.admin.listen.on() {
            Some(listen) => bind(listen, "admin.listen")?,
            None => Vec::new(),
        };
        let view = ProxyView {
            name: NAME.to_owned(),
            listen: listeners.iter().map(ToString::to_string).collect(),
            upstream: config.upstream.origin().ascii_serialization(),
            auth: wired.auth,
        };
        let admin_guard = Guard::new(&config.guard.allowed_hosts, &[]);
        let credentials = wired.view.into_iter().collect();
        let admin = Admin::new(admin_guard, metrics.clone(), clock, vec![view], credentials);
        let proxy = Arc::new(Proxy::new(guard, wired.credential, upstream, limits, metrics.proxy(NAME)));
        let workers = Workers::start(&proxy, cores())
            .map_err(|error| StartError::internal("the threads")(error.into()))?;
        let shutdown = config.shutdown.clone();
        Ok(Self { proxy, workers, listeners, admin, admin_listeners, bearer: wired.bearer, shutdown })
    }

    /// Where the proxy listens, in words.
    pub fn listens_at(&self) -> String {
        in_words(&self.listeners)
    }

    /// Where the admin listener listens, in words; `off` without one.
    pub fn admin_listens_at(&self) -> String {
        if self.admin_listeners.is_empty() { "off".to_owned() } else { in_words(&self.admin_listeners) }
    }

    /// The proxy's TCP addresses, with their real ports.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(Listener::addr).collect()
    }

    /// The admin listener's TCP addresses, with their real ports.
    pub fn admin_addrs(&self) -> Vec<SocketAddr> {
        self.admin_listeners.iter().filter_map(Listener::addr).collect()
    }

    /// Runs until `stop` comes (again: at once), or a part dies. Each `hangup` reads the credentials anew.
    ///
    /// Stopping: `/ready` turns 503, `shutdown.delay` passes, the listeners close, requests in flight finish for at
    /// most `shutdown.grace`. The admin listener and the refresher stay up to the end.
    ///
    /// # Errors
    /// When a part ended that should not have.
    pub async fn run(self, mut stop: impl AsyncFnMut(), mut hangup: impl AsyncFnMut()) -> Result<(), Died> {
        let Self { proxy, mut workers, listeners, admin, admin_listeners, bearer, shutdown } = self;
        let (closing, ending) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let mut threads = JoinSet::new();
        for end in workers.ends() {
            threads.spawn(end);
        }
        // However this ends, the listeners are closed.
        let _closing = closing.clone().drop_guard();
        for listener in listeners {
            workers.accept(listener, &closing).map_err(|error| {
                error!(%error, "A listener cannot be handed over");
                Died
            })?;
        }
        for listener in admin_listeners {
            tasks.spawn(accept_admin(listener, admin.clone(), ending.clone()));
        }
        let mut reloader = None;
        if let Some(bearer) = bearer {
            tasks.spawn(bearer.refresher.run(ending.clone()));
            reloader = Some(bearer.reloader);
        }
        let reload = async {
            loop {
                hangup().await;
                match &reloader {
                    Some(reloader) => reloader.reload().await,
                    None => info!("SIGHUP: there are no credentials to read anew"),
                }
            }
        };
        tokio::select! {
            () = stop() => {}
            () = reload => {}
            Some(_) = tasks.join_next() => return Err(Died),
            Some(_) = threads.join_next() => return Err(Died),
        }
        admin.drain();
        let drain = async {
            tokio::time::sleep(shutdown.delay).await;
            closing.cancel();
            proxy.drain();
            workers.stop();
            if timeout(shutdown.grace, workers.wait()).await.is_err() {
                warn!(grace = ?shutdown.grace, connections = workers.connections(), "Requests still in flight, closing them");
            }
        };
        tokio::select! {
            () = drain => {}
            () = stop() => warn!("Asked again, stopping at once"),
        }
        closing.cancel();
        ending.cancel();
        drop(workers);
        // Listeners take their socket files with them: they are to be gone before the process is.
        let ended = async {
            while tasks.join_next().await.is_some() {}
            while threads.join_next().await.is_some() {}
        };
        let _ = timeout(END, ended).await;
        info!("Stopped");
        Ok(())
    }
}

/// One loud line for each thing that is more open, or further away, than usual.
fn say_what_is_open(config: &Config, guard: &Guard) {
    if !config.listen.is_loopback() {
        warn!(listen = %config.listen, "Open to the network: whoever reaches this address acts with the proxy's token");
    }
    if guard.admits_any_host() {
        warn!("guard.allowed_hosts lets every Host in: web pages can reach the proxy by DNS rebinding");
    }
    if EGRESS_VARIABLES.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        warn!("An egress proxy is set in the environment: it is used for IMS alone, AEM is reached directly");
    }
    let host = config.upstream.host_str().unwrap_or_default();
    if !host.ends_with(AEM_DOMAIN) && matches!(config.auth, Auth::Bearer(_)) {
        warn!(upstream = %config.upstream, "The upstream is not an AEM as a Cloud Service host, and will receive the access token");
    }
}

fn bind(listen: &Listen, key: &'static str) -> Result<Vec<Listener>, StartError> {
    Listener::bind(listen).map_err(|error| StartError::Bind { listen: listen.clone(), key, error })
}

fn in_words(listeners: &[Listener]) -> String {
    let words: Vec<_> = listeners.iter().map(ToString::to_string).collect();
    words.join(", ")
}

/// As many threads as the process may use cores (its affinity and its container's share count), up to a bound: one core
/// does more than AEM does.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(WORKERS_MAX))
}

async fn accept_admin(listener: Listener, admin: Admin, ending: CancellationToken) {
    let mut connections = JoinSet::new();
    while let Some(stream) = ending.run_until_cancelled(listener.accept()).await {
        connections.spawn(admin.clone().serve(stream));
        while connections.try_join_next().is_some() {}
    }
}

/// A sidecar on a large node shall not have a thread on each of its cores.
const WORKERS_MAX: usize = 8;

/// The one proxy and the one credential of the simple form.
const NAME: &str = "default";

/// What sends programs through an egress proxy to https addresses.
const EGRESS_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The tasks that are left only have to notice: none of them waits for anybody.
const END: Duration = Duration::from_secs(1);

/// Where AEM as a Cloud Service lives.
const AEM_DOMAIN: &str = ".adobeaemcloud.com";
