//! Binds sockets, wires the rooms, owns every task.

mod credential;
mod descriptors;
mod ends;
mod guard;
mod keeper;
mod threads;
mod upstreams;
mod workers;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    os::unix::fs::FileTypeExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use http::HeaderName;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, info, warn};

use self::{
    credential::{Bearer, Wired},
    guard::Door,
    keeper::{Fingerprint, Values},
    workers::Workers,
};
pub use self::{
    credential::{basic, cache, exchange},
    guard::shared_secret,
    threads::{FILE_THREAD_KEEP_ALIVE, FILE_THREADS},
};
use crate::{
    admin::{Admin, ProxyView, RouteView},
    clock::Clock,
    config::{self, Config, Listen, Shutdown, keys},
    credentials::CredentialsError,
    deliberate::panic_if_asked,
    egress::EgressError,
    ims::EndpointError,
    listener::Listener,
    memory::Memory,
    metrics::Metrics,
    network::descriptors::Descriptors,
    proxy::{Credential, Fields, Guard, Limits, Proxy, Retries, Route, SecretError, Upstream},
    secret::{SecretString, is_field_value},
    tls::{self, TlsError},
};

/// Everything bound and wired, nothing running.
pub struct App {
    proxies: Arc<[Proxy]>,
    workers: Workers,
    /// Each with the number of its proxy.
    listeners: Vec<(usize, Listener)>,
    admin: Admin,
    admin_listeners: Vec<Listener>,
    /// Of each of them, at once.
    admin_connections: usize,
    bearers: Vec<Bearer>,
    values: Vec<Values>,
    clock: Clock,
    poll: Duration,
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
    /// A file that holds one secret is unusable.
    #[error("{place} ({path}) {what}")]
    SecretFile {
        /// What it is for.
        place: String,
        /// Its path.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The file of the secret that requests show holds none.
    #[error("`guard.secret_file` ({path}) {error}")]
    SharedSecret {
        /// Its path.
        path: String,
        /// What is wrong with it.
        error: SecretError,
    },
    /// IMS gives no OAuth token without scopes.
    #[error(
        "credentials `{name}` have no scopes: give them as `scopes`, as the Adobe Developer Console lists them"
    )]
    NoScopes {
        /// The credential.
        name: String,
    },
    /// Only OAuth asks for scopes.
    #[error(
        "credentials `{name}` have `scopes`, but their document is no OAuth credential: remove `scopes`, its rights are \
         fixed"
    )]
    UselessScopes {
        /// The credential.
        name: String,
    },
    /// A user with a password.
    #[error("credentials `{name}` are a user and a password: there is no token")]
    NoToken {
        /// The credential.
        name: String,
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
    /// The proxy on the way to AEM or IMS cannot be used.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// An address cannot be had.
    #[error(
        "cannot listen at {listen}: {error}; change `{key}` ({}) or stop whoever has it",
        keys::variable(key)
    )]
    Bind {
        /// The address.
        listen: Listen,
        /// The key that holds it.
        key: String,
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
        threads::start().await.map_err(|error| StartError::internal("the threads")(error.into()))?;
        let memory = Memory::new(config.limits.memory);
        let metrics = Metrics::new(memory.clone());
        let metrics = metrics.map_err(|error| StartError::internal("the metrics")(error.into()))?;
        let config = Arc::new(config);
        let ca_file = Fingerprint::of(config.ca_file.as_slice());
        let roots = tls::roots(config.ca_file.as_deref())?;
        let tls = tls::current(tls::client_config(Arc::clone(&roots))?);
        let wired = credential::wire(&config, &clock, &metrics, &tls)?;
        let mut values = Vec::from_iter(upstreams::trust(&config, ca_file, &tls));
        let told = Arc::new(Notify::new());
        let descriptors = Arc::new(Descriptors::new(Arc::clone(&told)));
        let upstreams = upstreams::wire(&config, &metrics, &roots, (&told, &descriptors), &mut values)?;
        let proxies = proxies(&config, &wired, &metrics, &upstreams, &mut values)?;
        let Wired { credentials: known, bearers, passwords, views } = wired;
        values.extend(passwords);
        guard::say_what_is_open(&config);
        say_what_is_far(&config);
        say_what_passes(&config);
        for view in &views {
            keeper::warn_of_environments(&config, &view.name, &view.facts.load());
        }

        let mut listeners = Vec::new();
        for (number, proxy) in config.proxies.iter().enumerate() {
            let bound = bind(&proxy.listen, &proxy.listen_key, &config).await?;
            listeners.extend(bound.into_iter().map(|listener| (number, listener)));
        }
        let admin_listeners = match config.admin.listen.on() {
            Some(listen) => bind(listen, "admin.listen", &config).await?,
            None => Vec::new(),
        };
        let shown = config.proxies.iter().enumerate().map(|(number, proxy)| {
            let own = listeners.iter().filter(|(at, _)| *at == number);
            shown(&config, proxy, own.map(|(_, listener)| listener.to_string()).collect(), &known)
        });
        let shown = shown.collect();
        let admin_guard = Guard::new(&config.guard.allowed_hosts, &[]);
        let needs = descriptors::Needs {
            workers: cores(),
            watched: bearers.len() + values.len(),
            exchanged: bearers.len(),
            listeners: listeners.len(),
            admin_listeners: admin_listeners.len(),
        };
        let plan = descriptors::plan(config.limits.connections, &needs);
        descriptors.open(plan.limits);
        metrics.account(&descriptors);
        let admin = Admin::new(admin_guard, metrics, clock.clone(), shown, views);
        let workers = Workers::start(&proxies, &plan, &descriptors, &memory)
            .map_err(|error| StartError::internal("the threads")(error.into()))?;
        let (poll, shutdown) = (config.watch.poll, config.shutdown.clone());
        Ok(Self {
            proxies,
            workers,
            listeners,
            admin,
            admin_listeners,
            admin_connections: plan.admin_each,
            bearers,
            values,
            poll,
            clock,
            shutdown,
        })
    }

    /// Where each proxy listens, in words, in the order of the configuration.
    pub fn listens_at(&self) -> Vec<String> {
        let at = |number| {
            self.listeners.iter().filter(move |(own, _)| *own == number).map(|(_, listener)| listener)
        };
        (0..self.proxies.len()).map(|number| in_words(at(number))).collect()
    }

    /// Where the admin listener listens, in words; `off` without one.
    pub fn admin_listens_at(&self) -> String {
        if self.admin_listeners.is_empty() { "off".to_owned() } else { in_words(self.admin_listeners.iter()) }
    }

    /// The proxies' TCP addresses, with their real ports, in the order of the configuration.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|(_, listener)| listener.addr()).collect()
    }

    /// The admin listener's TCP addresses, with their real ports.
    pub fn admin_addrs(&self) -> Vec<SocketAddr> {
        self.admin_listeners.iter().filter_map(Listener::addr).collect()
    }

    /// Runs until `stop` comes (again: at once), or a part dies. Each `hangup` reads the credentials anew.
    ///
    /// Stopping: `/ready` turns 503, `shutdown.delay` passes, the listeners close, the admin listener among them, requests in
    /// flight finish for at most `shutdown.grace`. Open admin connections and the refresher stay up to the end.
    ///
    /// # Errors
    /// When a part ended that should not have.
    pub async fn run(self, mut stop: impl AsyncFnMut(), mut hangup: impl AsyncFnMut()) -> Result<(), Died> {
        let Self {
            proxies,
            mut workers,
            listeners,
            admin,
            admin_listeners,
            admin_connections,
            bearers,
            values,
            poll,
            clock,
            shutdown,
        } = self;
        let (closing, ending) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let mut threads = JoinSet::new();
        for end in workers.ends() {
            threads.spawn(end);
        }
        // However this ends, the listeners are closed.
        let _closing = closing.clone().drop_guard();
        for (number, listener) in listeners {
            workers.accept(listener, number, &closing).map_err(|error| {
                error!(%error, "A listener cannot be handed over");
                Died
            })?;
        }
        for listener in admin_listeners {
            let (closing, ending) = (closing.clone(), ending.clone());
            tasks.spawn(accept_admin(listener, admin.clone(), admin_connections, closing, ending));
        }
        let (hung_up, hangups) = watch::channel(());
        for Bearer { refresher, keeper } in bearers {
            let refreshing = refresher.run(ending.clone());
            tasks.spawn(async {
                panic_if_asked("refresher");
                refreshing.await;
            });
            let keeping = keeper.run(hangups.clone(), ending.clone());
            tasks.spawn(async {
                panic_if_asked("keeper");
                keeping.await;
            });
        }
        for values in values {
            tasks.spawn(values.run(poll, clock.clone(), hangups.clone(), ending.clone()));
        }
        drop(hangups);
        let reload = async {
            loop {
                hangup().await;
                if hung_up.send(()).is_err() {
                    info!("SIGHUP: there is nothing to read anew");
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
            proxies.iter().for_each(Proxy::drain);
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

/// Every proxy with its routes. What is read from files for them is added to `values`.
fn proxies<'a>(
    config: &'a Config,
    wired: &Wired,
    metrics: &Metrics,
    upstreams: &[Arc<Upstream>],
    values: &mut Vec<Values>,
) -> Result<Arc<[Proxy]>, StartError> {
    let door = Door::wire(config, values)?;
    let limits = Limits {
        head: config.limits.head,
        fields: config.limits.fields,
        path: config.limits.path,
        replay: config.limits.replay,
        min_rate: config.limits.min_rate,
        timeouts: config.timeouts.clone(),
    };
    let mut known_fields = BTreeMap::new();
    let mut route = |route: &'a config::Route| {
        let number = config.upstreams.iter().position(|upstream| upstream.name == route.upstream);
        let upstream = number.and_then(|number| upstreams.get(number)).cloned();
        let named = route.credential.as_deref().map(|name| wired.credentials.get(name).cloned());
        // The checks of the configuration leave no name without its thing.
        let unknown = || StartError::internal("the routes")("a name that nobody has".into());
        let credential = match named {
            Some(credential) => credential.ok_or_else(unknown)?,
            None => Credential::None,
        };
        // What routes inherit from their proxy is read once.
        let keys: Vec<_> = route.headers.iter().map(|header| header.key.as_str()).collect();
        let fields = match known_fields.get(&keys) {
            Some(known) => Option::clone(known),
            None => {
                let (fields, read) = kept_fields(&route.headers)?;
                values.extend(read);
                known_fields.insert(keys, fields.clone());
                fields
            }
        };
        Ok::<_, StartError>(Route {
            path: route.path.clone(),
            credential,
            upstream: upstream.ok_or_else(unknown)?,
            policy: Arc::clone(&route.policy),
            x_api_key: route.x_api_key,
            x_gw_ims_org_id: route.x_gw_ims_org_id,
            fields,
        })
    };
    let mut proxies = Vec::new();
    for proxy in &config.proxies {
        let routes = proxy.routes.iter().map(&mut route).collect::<Result<_, _>>()?;
        let otherwise = route(&proxy.otherwise)?;
        let guard = door.guard(&config.guard);
        let retries = Retries::new(config.retry.budget, config.retry.max_wait);
        let (rewrite, metrics) = (config.rewrite.clone(), metrics.proxy(&proxy.name));
        let built = Proxy::new(guard, routes, otherwise, rewrite, limits.clone(), retries, metrics);
        let proxy = if proxy.http2 { built.with_http2() } else { built };
        proxies.push(match &door.tls {
            Some(tls) => proxy.over_tls(Arc::clone(tls)),
            None => proxy,
        });
    }
    Ok(proxies.into())
}

/// The fields that a route sets, read anew when files of theirs change.
fn kept_fields(headers: &[config::Header]) -> Result<(Option<Arc<Fields>>, Option<Values>), StartError> {
    if headers.is_empty() {
        return Ok((None, None));
    }
    let read = {
        let headers = headers.to_vec();
        move || fields(&headers)
    };
    let files: Vec<_> = headers.iter().filter_map(|header| header.value.file().cloned()).collect();
    let tried = Fingerprint::of(&files);
    let fields = Arc::new(Fields::from_pointee(read()?));
    let values = Values::of(files, tried, {
        let fields = Arc::clone(&fields);
        move || {
            fields.store(Arc::new(read()?));
            Ok(())
        }
    });
    Ok((Some(fields), values))
}

/// The fields of a route with their values.
///
/// # Errors
/// When a file with one is unusable.
pub fn fields(headers: &[config::Header]) -> Result<Vec<(HeaderName, SecretString)>, StartError> {
    headers.iter().map(field).collect()
}

fn field(header: &config::Header) -> Result<(HeaderName, SecretString), StartError> {
    let place = format!("`{}`", header.key);
    let value = credential::read_secret(&place, &header.value)?;
    if !is_field_value(value.expose_secret()) {
        return Err(StartError::SecretFile {
            place,
            path: header.value.file().map_or_else(|| "given".to_owned(), |path| path.display().to_string()),
            what: "is not one line of plain text: give the value alone, in ASCII".to_owned(),
        });
    }
    Ok((header.name.clone(), value))
}

fn shown(
    config: &Config,
    proxy: &config::Proxy,
    listen: Vec<String>,
    credentials: &BTreeMap<String, Credential>,
) -> ProxyView {
    let view = |route: &config::Route| RouteView {
        path: route.path.to_string(),
        upstream: config.upstream(&route.upstream).map(origin).unwrap_or_default(),
        auth: match route.credential.as_ref().and_then(|name| credentials.get(name)) {
            Some(Credential::Bearer(_)) => "bearer",
            Some(Credential::Fixed(_)) => "basic",
            Some(Credential::None) | None => "none",
        },
        credentials: route.credential.clone(),
        policy: route.policy.preset().name(),
        rules: route.policy.rules().iter().map(ToString::to_string).collect(),
    };
    let otherwise = view(&proxy.otherwise);
    ProxyView {
        name: proxy.name.clone(),
        listen,
        tls: config.tls.is_some(),
        upstream: otherwise.upstream,
        auth: otherwise.auth,
        credentials: otherwise.credentials,
        policy: otherwise.policy,
        rules: otherwise.rules,
        routes: proxy.routes.iter().map(view).collect(),
    }
}

/// One loud line for each thing that is further away than usual.
fn say_what_is_far(config: &Config) {
    for upstream in &config.upstreams {
        let gets_token = config.routes().any(|route| {
            let credential = route.credential.as_deref().and_then(|name| config.credential(name));
            route.upstream == upstream.name && credential.is_some_and(config::Credential::is_bearer)
        });
        let is_aem = upstream.url.host_str().unwrap_or_default().ends_with(AEM_DOMAIN);
        if gets_token && !is_aem {
            warn!(upstream = %upstream.url, "The upstream is not an AEM as a Cloud Service host, and will receive the access token");
        }
    }
}

/// One line for each policy that keeps something back beyond what always is, or opens it.
fn say_what_passes(config: &Config) {
    for proxy in &config.proxies {
        for route in proxy.all_routes().filter(|route| !route.policy.is_default()) {
            info!(
                // The simple form's proxy needs no name.
                proxy.name = (proxy.name != config::DEFAULT).then_some(proxy.name.as_str()),
                path = %route.path,
                policy = %route.policy.preset(),
                rules = route.policy.rules().len(),
                "A policy decides what passes"
            );
        }
    }
}

/// An upstream as people know it.
fn origin(upstream: &config::Upstream) -> String {
    upstream.url.origin().ascii_serialization()
}

/// Binds an address. One that is in use is tried for again for a while: the process before may be about to leave it.
async fn bind(listen: &Listen, key: &str, config: &Config) -> Result<Vec<Listener>, StartError> {
    let until = Instant::now() + BIND_PATIENCE;
    let mut is_waiting = false;
    loop {
        let error = match Listener::bind(listen, config.guard.socket_mode, config.listen_reuse_port) {
            Ok(listeners) => return Ok(listeners),
            Err(error) => error,
        };
        let is_taken = error.kind() == io::ErrorKind::AddrInUse
            && match listen {
                Listen::Unix(path) => is_socket(path),
                Listen::Tcp(_) | Listen::Localhost(_) => true,
            };
        if !is_taken || Instant::now() >= until {
            return Err(StartError::Bind { listen: listen.clone(), key: key.to_owned(), error });
        }
        if !is_waiting {
            is_waiting = true;
            info!(%listen, key, max = ?BIND_PATIENCE, "The address is in use, waiting for the process that has it");
        }
        tokio::time::sleep(BIND_PAUSE).await;
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn in_words<'a>(listeners: impl Iterator<Item = &'a Listener>) -> String {
    let words: Vec<_> = listeners.map(ToString::to_string).collect();
    words.join(", ")
}

/// As many threads as the process may use cores (its affinity and its container's share count), up to a bound: one core
/// does more than AEM does.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(WORKERS_MAX))
}

/// Accepts until `closing`, then closes the listener, so that the next process can have its address; serves what is open until
/// `ending`. Probers and people: of too many connections the oldest is the least likely to be one of theirs.
async fn accept_admin(
    listener: Listener,
    admin: Admin,
    most: usize,
    closing: CancellationToken,
    ending: CancellationToken,
) {
    let mut open = VecDeque::<AbortOnDropHandle<()>>::new();
    while let Some(stream) = closing.run_until_cancelled(listener.accept()).await {
        panic_if_asked("admin");
        open.retain(|connection| !connection.is_finished());
        open.push_back(AbortOnDropHandle::new(tokio::spawn(admin.clone().serve(stream))));
        if open.len() >= most
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
            // Its descriptor is free before the next one is accepted.
            let _ = oldest.await;
        }
    }
    let serve = |stream| AbortOnDropHandle::new(tokio::spawn(admin.clone().serve(stream)));
    open.extend(listener.close().into_iter().map(serve));
    ending.cancelled().await;
}

/// How long a process that stops may need until it has closed its listeners, without a `shutdown.delay`.
const BIND_PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts to bind an address.
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// A sidecar on a large node shall not have a thread on each of its cores.
const WORKERS_MAX: usize = 8;

/// The tasks that are left only have to notice: none of them waits for anybody.
const END: Duration = Duration::from_secs(1);

/// Where AEM as a Cloud Service lives.
const AEM_DOMAIN: &str = ".adobeaemcloud.com";
