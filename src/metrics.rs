//! Counters and gauges, named once. A request touches atomics alone: each room takes its handles at start.
//!
//! Labels come from closed sets: never a path, a query or a header value.

mod upstream;

use std::sync::{Arc, LazyLock, OnceLock};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};
use tokio::time::Instant;
use tracing::warn;

pub use self::upstream::{Turned, UpstreamMetrics};
use crate::{memory::Memory, network::descriptors::Descriptors, proxy::Refusal};

/// Every metric of the process.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    memory: Memory,
    memory_used: IntGauge,
    requests: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGaugeVec,
    denied: IntCounterVec,
    connected: IntGaugeVec,
    ended: IntCounterVec,
    unauthorized: IntCounterVec,
    refusals: IntCounterVec,
    retries: IntCounterVec,
    echoes: IntCounterVec,
    queued: IntGaugeVec,
    connections: IntGaugeVec,
    connects: IntCounterVec,
    turned_away: IntCounterVec,
    refreshes: IntCounterVec,
    token_expiry: GaugeVec,
    certificate_expiry: GaugeVec,
    fallback: IntGaugeVec,
    descriptors: IntGaugeVec,
    descriptors_limit: IntGaugeVec,
    /// What the last two are read from.
    account: Arc<OnceLock<Arc<Descriptors>>>,
}

impl Metrics {
    /// Registers all of them. How much of `memory` is used is read when it is asked for.
    ///
    /// # Errors
    /// When two have one name, which is a defect of this program.
    pub fn new(memory: Memory) -> prometheus::Result<Self> {
        let memory_used = IntGauge::with_opts(opts(
            "memory_bytes",
            "Memory in use on the heap, of all buffers and libraries",
        ))?;
        let memory_limit =
            IntGauge::with_opts(opts("memory_limit_bytes", "The memory budget, limits.memory"))?;
        memory_limit.set(i64::try_from(memory.limit()).unwrap_or(i64::MAX));
        let metrics = Self {
            registry: Registry::new(),
            memory,
            memory_used,
            requests: counter("requests_total", "Requests answered", &["proxy", "method", "status_class"])?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    name("request_duration_seconds"),
                    "From a request's head to the end of its answer",
                )
                .buckets(BUCKETS_SECONDS.to_vec()),
                &["proxy"],
            )?,
            in_flight: IntGaugeVec::new(
                opts("requests_in_flight", "Requests not yet answered to the end"),
                &["proxy"],
            )?,
            denied: counter("denied_total", "Requests that the proxy refused", &["proxy", "reason"])?,
            connected: IntGaugeVec::new(
                opts("client_connections", "Connections of clients, of all threads"),
                &["proxy"],
            )?,
            ended: counter(
                "client_connections_ended_total",
                "Connections of clients that the proxy ended",
                &["proxy", "reason"],
            )?,
            unauthorized: counter(
                "upstream_unauthorized_total",
                "Times that AEM refused the token",
                &["proxy", "outcome"],
            )?,
            refusals: counter(
                "upstream_refusals_total",
                "The same, by the way in which AEM said it",
                &["proxy", "kind"],
            )?,
            retries: counter("upstream_retries_total", "Requests sent once more", &["proxy", "reason"])?,
            echoes: counter(
                "token_echoes_total",
                "Fields of AEM's answers that held the credential, and were cut",
                &["proxy"],
            )?,
            queued: IntGaugeVec::new(
                opts("upstream_queued", "Requests that wait for their turn at AEM"),
                &["upstream"],
            )?,
            connections: IntGaugeVec::new(
                opts("upstream_connections", "Connections to AEM, of all threads"),
                &["upstream"],
            )?,
            connects: counter(
                "upstream_connects_total",
                "Attempts at a connection to AEM",
                &["upstream", "outcome"],
            )?,
            turned_away: counter(
                "upstream_queue_refused_total",
                "Requests that did not get their turn at AEM",
                &["upstream", "reason"],
            )?,
            refreshes: counter("token_refreshes_total", "Exchanges at IMS", &["credential", "outcome"])?,
            token_expiry: GaugeVec::new(
                opts(
                    "token_expiry_timestamp_seconds",
                    "When the current token ends, Unix time; 0 without one",
                ),
                &["credential"],
            )?,
            certificate_expiry: GaugeVec::new(
                opts(
                    "certificate_expiry_timestamp_seconds",
                    "When the credentials' certificate ends, Unix time",
                ),
                &["credential"],
            )?,
            fallback: IntGaugeVec::new(
                opts("credential_fallback_active", "1 while another credential stands in for this one"),
                &["credential", "fallback"],
            )?,
            descriptors: IntGaugeVec::new(
                opts("descriptors", "File descriptors of sockets in use"),
                &["kind"],
            )?,
            descriptors_limit: IntGaugeVec::new(
                opts("descriptors_limit", "File descriptors that sockets may use"),
                &["kind"],
            )?,
            account: Arc::default(),
        };
        let all: [Box<dyn Collector>; 20] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.duration.clone()),
            Box::new(metrics.in_flight.clone()),
            Box::new(metrics.denied.clone()),
            Box::new(metrics.connected.clone()),
            Box::new(metrics.ended.clone()),
            Box::new(metrics.unauthorized.clone()),
            Box::new(metrics.refusals.clone()),
            Box::new(metrics.retries.clone()),
            Box::new(metrics.echoes.clone()),
            Box::new(metrics.queued.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.connects.clone()),
            Box::new(metrics.turned_away.clone()),
            Box::new(metrics.refreshes.clone()),
            Box::new(metrics.token_expiry.clone()),
            Box::new(metrics.certificate_expiry.clone()),
            Box::new(metrics.fallback.clone()),
            Box::new(metrics.descriptors.clone()),
            Box::new(metrics.descriptors_limit.clone()),
        ];
        for collector in all {
            metrics.registry.register(collector)?;
        }
        metrics.registry.register(Box::new(LOG_LINES_LOST.clone()))?;
        metrics.registry.register(Box::new(PANICS.clone()))?;
        metrics.registry.register(Box::new(metrics.memory_used.clone()))?;
        metrics.registry.register(Box::new(memory_limit))?;
        for kind in ["client", "upstream"] {
            metrics.descriptors.with_label_values(&[kind]);
            metrics.descriptors_limit.with_label_values(&[kind]);
        }
        let info = IntGaugeVec::new(opts("build_info", "Always 1"), &["version", "commit", "tls"])?;
        info.with_label_values(&[crate::VERSION, crate::COMMIT, crate::tls::PROVIDER]).set(1);
        metrics.registry.register(Box::new(info))?;
        Ok(metrics)
    }

    /// The handles of the proxy called `name`.
    pub fn proxy(&self, name: &str) -> ProxyMetrics {
        // A counter that an alert watches exists from the start.
        for reason in DENIALS {
            self.denied.with_label_values(&[name, reason]);
        }
        ProxyMetrics(Arc::new(Handles {
            requests: self.requests.clone(),
            cells: Default::default(),
            duration: self.duration.with_label_values(&[name]),
            in_flight: self.in_flight.with_label_values(&[name]),
            denied: self.denied.clone(),
            connected: self.connected.with_label_values(&[name]),
            ended: Ended::ALL.map(|reason| self.ended.with_label_values(&[name, reason.label()])),
            unauthorized: Outcome::ALL
                .map(|outcome| self.unauthorized.with_label_values(&[name, outcome.label()])),
            refusals: Refusal::ALL.map(|refusal| self.refusals.with_label_values(&[name, refusal.kind()])),
            retries: Retried::ALL.map(|reason| self.retries.with_label_values(&[name, reason.label()])),
            echoes: self.echoes.with_label_values(&[name]),
            name: name.to_owned(),
        }))
    }

    /// The handles of the upstream called `name`.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        UpstreamMetrics::new(name, &self.queued, &self.connections, &self.connects, &self.turned_away)
    }

    /// The handles of the credential called `name`, for which the one called `fallback` stands in at need.
    pub fn credential(&self, name: &str, fallback: Option<&str>) -> CredentialMetrics {
        for outcome in REFRESHES {
            self.refreshes.with_label_values(&[name, outcome]);
        }
        CredentialMetrics {
            refreshes: self.refreshes.clone(),
            token_expiry: self.token_expiry.with_label_values(&[name]),
            certificate_expiry: self.certificate_expiry.clone(),
            fallback: fallback.map(|fallback| self.fallback.with_label_values(&[name, fallback])),
            name: name.to_owned(),
        }
    }

    /// Shows what is in this account of descriptors.
    pub fn account(&self, descriptors: &Arc<Descriptors>) {
        // There is one for a process.
        let _ = self.account.set(Arc::clone(descriptors));
    }

    fn read_account(&self) {
        let Some(account) = self.account.get() else { return };
        let limits = account.limits();
        for (kind, used, limit) in [
            ("client", account.clients_in_use(), limits.all_clients()),
            ("upstream", account.upstream_in_use(), limits.upstream()),
        ] {
            self.descriptors.with_label_values(&[kind]).set(used as i64);
            self.descriptors_limit.with_label_values(&[kind]).set(limit as i64);
        }
    }

    /// All of them in Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.memory_used.set(i64::try_from(self.memory.used()).unwrap_or(i64::MAX));
        self.read_account();
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

/// The handles of one proxy. Cheap to clone.
#[derive(Clone)]
pub struct ProxyMetrics(Arc<Handles>);

struct Handles {
    name: String,
    requests: IntCounterVec,
    /// Counters by method and class of status, each made when it is first needed.
    cells: [[OnceLock<IntCounter>; CLASSES.len()]; METHODS.len() + 1],
    duration: Histogram,
    in_flight: IntGauge,
    denied: IntCounterVec,
    connected: IntGauge,
    ended: [IntCounter; Ended::ALL.len()],
    unauthorized: [IntCounter; Outcome::ALL.len()],
    refusals: [IntCounter; Refusal::ALL.len()],
    retries: [IntCounter; Retried::ALL.len()],
    echoes: IntCounter,
}

/// What became of a request whose token AEM refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was passed on: the request could not be sent again, or there is no other token to send.
    Passed,
    /// The request was sent again with another token.
    Replayed,
    /// And refused again, which was passed on.
    RefusedAgain,
    /// It was passed on: another token was bought just now.
    CoolingDown,
    /// It was passed on: IMS gave no other token.
    NoNewToken,
}

impl Outcome {
    const ALL: [Self; 5] =
        [Self::Passed, Self::Replayed, Self::RefusedAgain, Self::CoolingDown, Self::NoNewToken];

    fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Replayed => "replayed",
            Self::RefusedAgain => "refused_again",
            Self::CoolingDown => "cooling_down",
            Self::NoNewToken => "no_new_token",
        }
    }
}

/// Why a request was sent once more, other than for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// Its connection broke off.
    Connection,
    /// AEM was busy.
    Busy,
}

impl Retried {
    const ALL: [Self; 2] = [Self::Connection, Self::Busy];

    fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Busy => "busy",
        }
    }
}

/// Why the proxy ended a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// What came was no request.
    Malformed,
    /// Its head was too large.
    TooLarge,
    /// It came too slowly, or the answer was taken too slowly.
    Slow,
    /// Another connection needed its place.
    Idle,
    /// There was no place for it.
    Full,
    /// The memory budget was used up, and it held the most for the longest; or there was no room for it.
    Memory,
}

impl Ended {
    const ALL: [Self; 6] =
        [Self::Malformed, Self::TooLarge, Self::Slow, Self::Idle, Self::Full, Self::Memory];

    fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Slow => "slow",
            Self::Idle => "idle",
            Self::Full => "full",
            Self::Memory => "memory",
        }
    }
}

impl ProxyMetrics {
    /// A request has come; what is returned counts it when it is dropped.
    pub fn start(&self, method: &str, now: Instant) -> InFlight {
        self.0.in_flight.inc();
        let method = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len());
        InFlight { handles: Arc::clone(&self.0), method, class: GONE, started: now, ended: None }
    }

    /// A request was refused by ourselves.
    pub fn denied(&self, reason: &'static str) {
        self.0.denied.with_label_values(&[self.0.name.as_str(), reason]).inc();
    }

    /// AEM refused a token in this way, and this is what became of the request.
    pub fn refused(&self, refusal: Refusal, outcome: Outcome) {
        self.0.unauthorized[outcome as usize].inc();
        self.0.refusals[refusal as usize].inc();
    }

    /// A client has come.
    pub fn connected(&self) {
        self.0.connected.inc();
    }

    /// A client has gone.
    pub fn disconnected(&self) {
        self.0.connected.dec();
    }

    /// A client's connection was ended.
    pub fn connection_ended(&self, reason: Ended) {
        self.0.ended[reason as usize].inc();
    }

    /// So many fields of an answer held the credential that the request was sent with.
    pub fn echoed(&self, fields: usize) {
        let before = self.0.echoes.get();
        self.0.echoes.inc_by(fields as u64);
        // Now and then: at 1, 2, 4, 8 and so on.
        if before.checked_ilog2() != self.0.echoes.get().checked_ilog2() {
            warn!(
                proxy = self.0.name,
                times = self.0.echoes.get(),
                "AEM sends the credential back in its answers' heads, where it is cut"
            );
        }
    }

    /// A request was sent once more.
    pub fn retried(&self, reason: Retried) {
        self.0.retries[reason as usize].inc();
    }
}

/// A request that is not yet answered to the end.
pub struct InFlight {
    handles: Arc<Handles>,
    method: usize,
    class: usize,
    started: Instant,
    ended: Option<Instant>,
}

impl InFlight {
    /// The head of the answer is there. Tells whether that is news.
    pub fn answered(&mut self, status: u16) -> bool {
        let news = self.class == GONE;
        self.class = usize::from(status / 100).saturating_sub(1).min(GONE - 1);
        news
    }

    /// The answer has come to its end, and this is when.
    pub fn ended(&mut self, now: Instant) {
        self.ended = Some(now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let handles = &self.handles;
        handles.in_flight.dec();
        let ended = self.ended.unwrap_or_else(Instant::now);
        handles.duration.observe((ended - self.started).as_secs_f64());
        let labels = || {
            let method = METHODS.get(self.method).copied().unwrap_or("other");
            handles.requests.with_label_values(&[handles.name.as_str(), method, CLASSES[self.class]])
        };
        handles.cells[self.method][self.class].get_or_init(labels).inc();
    }
}

/// The handles of one credential.
#[derive(Clone)]
pub struct CredentialMetrics {
    name: String,
    refreshes: IntCounterVec,
    token_expiry: Gauge,
    certificate_expiry: GaugeVec,
    fallback: Option<IntGauge>,
}

impl CredentialMetrics {
    /// When the current token ends; seconds of Unix time, 0 without one.
    pub fn token_expires_at(&self, unix_seconds: u64) {
        self.token_expiry.set(unix_seconds as f64);
    }

    /// When the certificate ends; seconds of Unix time. Without a certificate there is no such series.
    pub fn certificate_expires_at(&self, unix_seconds: Option<u64>) {
        match unix_seconds {
            Some(seconds) => {
                self.certificate_expiry.with_label_values(&[self.name.as_str()]).set(seconds as f64);
            }
            // An error says only that there was none.
            None => drop(self.certificate_expiry.remove_label_values(&[self.name.as_str()])),
        }
    }
}

impl crate::token::Observer for CredentialMetrics {
    fn attempted(&self, outcome: &'static str) {
        self.refreshes.with_label_values(&[self.name.as_str(), outcome]).inc();
    }

    fn fell_back(&self, active: bool) {
        if let Some(fallback) = &self.fallback {
            fallback.set(active.into());
        }
    }
}

/// Lines that the log has lost. It is of the process: the log begins before there is a registry.
pub fn log_lines_lost() -> &'static IntCounter {
    &LOG_LINES_LOST
}

/// Panics of any thread of the process.
pub fn panics() -> &'static IntCounter {
    &PANICS
}

static LOG_LINES_LOST: LazyLock<IntCounter> = LazyLock::new(|| {
    process_counter("log_lines_lost_total", "Lines of the log that were not written to the standard error")
});

static PANICS: LazyLock<IntCounter> =
    LazyLock::new(|| process_counter("panics_total", "Panics: defects of the proxy that ended a task"));

fn process_counter(rest: &str, help: &str) -> IntCounter {
    IntCounter::with_opts(opts(rest, help)).expect("the name is one of a metric")
}

fn name(rest: &str) -> String {
    format!("aem_proxy_{rest}")
}

fn opts(rest: &str, help: &str) -> Opts {
    Opts::new(name(rest), help)
}

fn counter(rest: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(opts(rest, help), labels)
}

/// Why a request is refused, or a connection.
const DENIALS: [&str; 10] = [
    "host",
    "origin",
    "cross_site",
    "secret",
    "method",
    "policy_path",
    "policy_method",
    "policy_ambiguous",
    "peer",
    "tls",
];

/// How an exchange ends: well, or in one of [`crate::ims::ImsError::class`].
const REFRESHES: [&str; 8] =
    ["success", "unreachable", "throttled", "unavailable", "malformed", "refused", "unsigned", "expired"];

/// Methods that AEM serves; all others are `other`.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];

/// `gone`: the client left before there was an answer.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "gone"];
const GONE: usize = CLASSES.len() - 1;

/// From a cache hit nearby to a slow query across an ocean, and an upload.
const BUCKETS_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once_with_its_method_and_class() {
        let metrics = Metrics::new(Memory::default()).unwrap();
        let proxy = metrics.proxy("default");
        assert!(proxy.start("GET", Instant::now()).answered(200));
        proxy.start("MOVE", Instant::now()).answered(201);
        drop(proxy.start("POST", Instant::now()));
        let text = metrics.render();
        for line in [
            "aem_proxy_requests_total{method=\"GET\",proxy=\"default\",status_class=\"2xx\"} 1",
            "aem_proxy_requests_total{method=\"other\",proxy=\"default\",status_class=\"2xx\"} 1",
            "aem_proxy_requests_total{method=\"POST\",proxy=\"default\",status_class=\"gone\"} 1",
            "aem_proxy_requests_in_flight{proxy=\"default\"} 0",
            "aem_proxy_request_duration_seconds_count{proxy=\"default\"} 3",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
