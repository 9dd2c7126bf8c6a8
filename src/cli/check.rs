//! `check`: tries everything once, and says in words what is right, what is wrong and what to do.

mod addresses;
mod aem;
mod report;

use clap::Args;

use self::{aem::Probe, report::Report};
use super::{Exit, Failure, Output, block_on, init_quiet_telemetry, keep_to_itself, print};
use crate::{
    app,
    clock::{Clock, rfc3339},
    config::{self, Config, CredentialSource, Route, Sources},
    credentials::Credentials,
    ims::{CredentialExchange, Exchange},
    policy::{self, Path},
    secret::Authorization,
    tls,
};

#[derive(Args)]
pub(super) struct Check {
    /// Stop before the network
    #[arg(long)]
    offline: bool,
    /// Take a certificate that ends within 7 days for wrong
    #[arg(long)]
    strict: bool,
    /// What to ask AEM for, in place of what suits each route
    #[arg(long, value_name = "PATH", value_parser = path)]
    path: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("begin with /, as in /api/assets.json".to_owned())
    }
}

/// A credential with what it may be sent with, once it was tried.
struct Tried<'a> {
    credential: &'a config::Credential,
    /// What a request would carry; none where that is not known.
    authorization: Option<Authorization>,
    /// The client id, for `X-Api-Key` and for the environment that it names.
    client_id: Option<String>,
    org: Option<String>,
    kind: Kind,
}

/// What authenticates, since AEM's refusals mean different things for each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Jwt,
    OAuth,
    LocalToken,
    Basic,
    None,
}

impl Check {
    pub(super) fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let mut report = Report::default();
        match Config::load(sources) {
            Ok(config) => {
                init_quiet_telemetry(sources)?;
                keep_to_itself(&config);
                report.right("configuration", "", "complete");
                block_on(self.examine(&config, &mut report))?;
            }
            Err(error) => {
                for problem in error.problems() {
                    report.wrong("configuration", "", problem, None);
                }
            }
        }
        print(&match self.output {
            Output::Text => report.text(),
            Output::Json => report.json(),
        })?;
        if report.is_ok() { Ok(()) } else { Err(Failure { text: String::new(), exit: Exit::Wrong }) }
    }

    async fn examine(&self, config: &Config, report: &mut Report) {
        tls::install();
        let clock = Clock::system();
        addresses::examine(config, report);
        listeners(config, &clock, report);
        let mut tried = Vec::new();
        for credential in &config.credentials {
            tried.push(self.try_credential(config, credential, &clock, report).await);
        }
        if let Some(path) = &self.path {
            config.proxies.iter().for_each(|proxy| judge(proxy, path, report));
        }
        let mut asked: Vec<(&str, Option<&str>, String)> = Vec::new();
        for (proxy, route) in config.proxies.iter().flat_map(with_routes) {
            let own = route.credential.as_deref();
            let fallback = own.and_then(|name| config.credential(name)?.fallback.as_deref());
            for name in [own].into_iter().chain(fallback.map(Some)) {
                let path = self.path.clone().unwrap_or_else(|| aem::path_for(&route.path));
                let question = (route.upstream.as_str(), name, path);
                if !asked.contains(&question) {
                    let path = question.2.clone();
                    asked.push(question);
                    self.ask(config, proxy, route, (name, &tried), path, report).await;
                }
            }
        }
    }

    async fn try_credential<'a>(
        &self,
        config: &Config,
        credential: &'a config::Credential,
        clock: &Clock,
        report: &mut Report,
    ) -> Tried<'a> {
        let subject = subject(&credential.name);
        let mut tried =
            Tried { credential, authorization: None, client_id: None, org: None, kind: Kind::Basic };
        if !config.sent().any(|name| name == credential.name)
            && !config.credentials.iter().any(|other| other.fallback.as_ref() == Some(&credential.name))
        {
            report.warn("credentials", subject, "no proxy uses them", "name them in a proxy, or remove them");
        }
        if let CredentialSource::Basic { user, password } = &credential.source {
            let basic = app::basic(&credential.name, user, password);
            match basic {
                Ok(authorization) => {
                    report.right("credentials", subject, format!("user {user} with a password"));
                    tried.authorization = Some(authorization);
                }
                Err(error) => report.wrong("credentials", subject, error, None),
            }
            return tried;
        }
        let exchange = match app::exchange(config, credential, clock) {
            Ok(exchange) => exchange,
            Err(error) => {
                report.wrong("credentials", subject, error, None);
                return tried;
            }
        };
        let credentials = exchange.credentials();
        let fallback =
            credential.fallback.as_ref().map(|name| format!(", fallback {name}")).unwrap_or_default();
        tried.client_id = credentials.client_id().map(str::to_owned);
        tried.org = credentials.org().map(str::to_owned);
        tried.kind = match credentials {
            Credentials::Jwt(_) => Kind::Jwt,
            Credentials::OAuth(_) => Kind::OAuth,
            Credentials::LocalToken(_) => Kind::LocalToken,
        };
        self.describe(credentials, &fallback, subject, clock, report);
        if !self.offline || tried.kind == Kind::LocalToken {
            tried.authorization = buy(&exchange, subject, report).await;
        }
        tried
    }

    /// What the document says, and how long it holds.
    fn describe(
        &self,
        credentials: &Credentials,
        fallback: &str,
        subject: &str,
        clock: &Clock,
        report: &mut Report,
    ) {
        let client = credentials.client_id().unwrap_or("not told");
        match credentials {
            Credentials::Jwt(jwt) => {
                let matches = if jwt.certificate.is_some() { ", key matches certificate" } else { "" };
                let text = format!("service credentials (JWT), parsed: client {client}{matches}{fallback}");
                report.right("credentials", subject, text);
                self.certificate(credentials, subject, clock, report);
            }
            Credentials::OAuth(oauth) => {
                let secrets = match oauth.client_secrets.len() {
                    1 => "one secret".to_owned(),
                    several => format!("{several} secrets, tried in their order"),
                };
                let scopes = oauth.scopes.join(" ");
                let text = format!(
                    "OAuth Server-to-Server, parsed: client {client}, {secrets}, scopes {scopes}{fallback}"
                );
                report.right("credentials", subject, text);
            }
            Credentials::LocalToken(token) => {
                let end = rfc3339(token.expires_at());
                let text = format!("local development token, parsed: client {client}, until {end}{fallback}");
                report.push("credentials", subject, text, true, Some(LOCAL_TOKEN.to_owned()));
            }
        }
    }

    fn certificate(&self, credentials: &Credentials, subject: &str, clock: &Clock, report: &mut Report) {
        const NAME: &str = "certificate";
        let Some(end) = credentials.expires_at() else {
            return report.right(NAME, subject, "not in the document, its end is not known");
        };
        match end.duration_since(clock.now()) {
            Ok(left) => {
                let days = left.as_secs() / DAY;
                let text = format!("{days} days left, until {}", rfc3339(end));
                match days {
                    RENEW_DAYS.. => report.right(NAME, subject, text),
                    ..STRICT_DAYS if self.strict => report.wrong(NAME, subject, text, Some(RENEW.to_owned())),
                    _ => report.warn(NAME, subject, text, RENEW),
                }
            }
            Err(_) => {
                report.wrong(NAME, subject, format!("expired at {}", rfc3339(end)), Some(RENEW.to_owned()));
            }
        }
    }

    /// One small request to AEM, as a route would send it.
    async fn ask(
        &self,
        config: &Config,
        proxy: &str,
        route: &Route,
        (name, tried): (Option<&str>, &[Tried<'_>]),
        path: String,
        report: &mut Report,
    ) {
        let credential = name.and_then(|name| tried.iter().find(|tried| tried.credential.name == name));
        let Some(upstream) = config.upstream(&route.upstream) else { return };
        let fields = match app::fields(&route.headers) {
            Ok(fields) => fields.into_iter().map(|(name, value)| (name, value.header())).collect(),
            Err(error) => return report.wrong("fields", subject(proxy), error, None),
        };
        let probe = Probe {
            upstream: &upstream.url,
            path,
            authorization: credential.and_then(|credential| credential.authorization.clone()),
            kind: credential.map_or(Kind::None, |credential| credential.kind),
            client_id: credential.and_then(|credential| credential.client_id.as_deref()),
            x_api_key: route.x_api_key,
            org: credential
                .and_then(|credential| credential.org.as_deref())
                .filter(|_| route.x_gw_ims_org_id),
            fields,
        };
        let mut subject = subject(proxy).to_owned();
        if let Some(name) = name.filter(|name| *name != config::DEFAULT) {
            subject = if subject.is_empty() { name.to_owned() } else { format!("{subject} with {name}") };
        }
        if let Some((own, other)) = probe.environments() {
            let text = format!(
                "the credentials are of {own}, {} is {other}",
                upstream.url.host_str().unwrap_or_default()
            );
            let hint = "take the credentials of that environment: tokens of dev, stage and prod are not interchangeable";
            report.warn("environment", &subject, text, hint);
        }
        // Where there is nothing to send, why has been told.
        if self.offline || credential.is_some_and(|credential| credential.authorization.is_none()) {
            return;
        }
        let said = probe.ask(config, upstream).await;
        report.push("aem", &subject, said.text, said.ok, said.hint);
    }
}

/// Whether the proxy itself would let an app's GET through. AEM is asked all the same, since that is what is tried.
fn judge(proxy: &config::Proxy, target: &str, report: &mut Report) {
    let path = Path::of(target.as_bytes());
    let judged = policy::judge(
        "GET",
        &path,
        |reading| &proxy.route(reading).policy,
        || proxy.all_routes().map(|route| &*route.policy),
    );
    match judged {
        Ok(()) => report.right("policy", subject(&proxy.name), format!("lets GET {target} through")),
        Err(refused) => {
            let text = format!("the proxy would refuse GET {target}: {refused}");
            report.warn("policy", subject(&proxy.name), text, REFUSED);
        }
    }
}

/// What the listeners need of files, and what is shown to AEM.
fn listeners(config: &Config, clock: &Clock, report: &mut Report) {
    if let Some(path) = &config.guard.secret_file {
        match app::shared_secret(path) {
            Ok(_) => report.right(
                "guard",
                "",
                format!("requests have to show the secret in {}", config.guard.secret_header),
            ),
            Err(error) => report.wrong("guard", "", error, None),
        }
    }
    if let Some(files) = &config.tls {
        let clients = if files.client_ca.is_some() { ", clients have to show a certificate" } else { "" };
        match tls::server_config(files) {
            Ok(_) => {
                report.right("tls", "", format!("the proxies speak it{clients}"));
                shown(&files.certificate, "", clock, report);
            }
            Err(error) => report.wrong("tls", "", error, None),
        }
    }
    for upstream in &config.upstreams {
        if let Some(client) = &upstream.client {
            shown(&client.certificate, subject(&upstream.name), clock, report);
        }
    }
}

/// The end of a certificate that the proxy shows.
fn shown(file: &std::path::Path, subject: &str, clock: &Clock, report: &mut Report) {
    let Some(until) = tls::validity(file).map(|validity| validity.until) else { return };
    let (at, file) = (rfc3339(until), file.display());
    match until.duration_since(clock.now()) {
        Ok(left) => {
            report.right(
                "tls",
                subject,
                format!("{file} is good for {} days, until {at}", left.as_secs() / DAY),
            );
        }
        Err(_) => report.wrong("tls", subject, format!("{file} expired at {at}"), Some(NEXT.to_owned())),
    }
}

/// A proxy's routes, with its name.
fn with_routes(proxy: &config::Proxy) -> impl Iterator<Item = (&str, &Route)> {
    proxy.all_routes().map(|route| (proxy.name.as_str(), route))
}

/// One exchange. What would go into `Authorization`, if there is a token.
async fn buy(exchange: &CredentialExchange, subject: &str, report: &mut Report) -> Option<Authorization> {
    let ims = exchange.endpoint().map_or("the token", |endpoint| endpoint.authority());
    match exchange.exchange().await {
        Ok(grant) => {
            if exchange.endpoint().is_some() {
                let life =
                    humantime::format_duration(std::time::Duration::from_secs(grant.lifetime().as_secs()));
                let scopes = match grant.scopes.join(" ") {
                    scopes if scopes.is_empty() => String::new(),
                    scopes => format!(", scopes {scopes}"),
                };
                report.right("ims", subject, format!("{ims} gave a token for {life}{scopes}"));
                match grant.clock_skew_seconds {
                    None => report.right("clock", subject, "no more than 30 s from IMS's"),
                    Some(seconds) => skewed(seconds, subject, report),
                }
            }
            Some(grant.authorization)
        }
        Err(error) => {
            let mut text = format!("{ims}: {error}");
            if let Some(id) = error.answer().and_then(|answer| answer.debug_id.as_deref()) {
                text.push_str(&format!(" (for Adobe's support: x-debug-id {id})"));
            }
            report.wrong("ims", subject, text, error.hint().map(|hint| hint.to_string()));
            None
        }
    }
}

fn skewed(seconds: i64, subject: &str, report: &mut Report) {
    let direction = if seconds > 0 { "ahead of" } else { "behind" };
    let text = format!("this machine's clock is {} s {direction} IMS's", seconds.abs());
    report.warn("clock", subject, text, "set it right (NTP): signatures and the ends of tokens depend on it");
}

/// The simple form has one of each, which needs no name.
fn subject(name: &str) -> &str {
    if name == config::DEFAULT { "" } else { name }
}

/// In seconds.
const DAY: u64 = 24 * 60 * 60;

/// From here on it is time to renew a certificate.
const RENEW_DAYS: u64 = 30;

/// From here on it is late, for those who ask with `--strict`.
const STRICT_DAYS: u64 = 7;

const RENEW: &str = "add a new certificate in the AEM Developer Console and download the document again";

const NEXT: &str = "put the next one in its place, with its key";

const REFUSED: &str = "if the app needs it, choose another policy, or add a line to rules: allow GET /path";

const LOCAL_TOKEN: &str =
    "it cannot be refreshed: get the next one in the AEM Developer Console, Integrations, Local token";
