//! `check`: tries everything once, and says in words what is right, what is wrong and what to do.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{Exit, Failure, Output, block_on, init_quiet_telemetry, print, token::in_words};
use crate::{
    app,
    clock::{Clock, rfc3339},
    config::{Auth, Config, Sources},
    credentials::Credentials,
    ims::{CredentialExchange, Exchange, Grant},
    network::Cause,
    secret::Authorization,
    tls,
};

#[derive(Args)]
pub(super) struct Check {
    /// Stop before the network
    #[arg(long)]
    offline: bool,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// What was tried, in order.
#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    name: &'static str,
    ok: bool,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Check {
    pub(super) fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let mut report = Report { ok: true, checks: Vec::new() };
        match Config::load(sources) {
            Ok(config) => {
                init_quiet_telemetry(sources)?;
                report.add("configuration", Ok("complete".to_owned()));
                block_on(self.examine(&config, &mut report))?;
            }
            Err(error) => error
                .problems()
                .iter()
                .for_each(|problem| report.add("configuration", Err(problem.to_string()))),
        }
        print(&match self.output {
            Output::Text => report.text(),
            Output::Json => report.json(),
        });
        if report.ok { Ok(()) } else { Err(Failure { text: String::new(), exit: Exit::Wrong }) }
    }

    async fn examine(&self, config: &Config, report: &mut Report) {
        tls::install();
        let clock = Clock::system();
        let authorization = match &config.auth {
            Auth::None => None,
            Auth::Basic { user, password } => Authorization::basic(user, password).ok(),
            Auth::Bearer(_) => match self.buy(config, &clock, report).await {
                Some(grant) => Some(grant.authorization),
                None => return,
            },
        };
        if !self.offline {
            report.add_aem(ask_aem(config, authorization).await);
        }
    }

    async fn buy(&self, config: &Config, clock: &Clock, report: &mut Report) -> Option<Grant> {
        let exchange = match app::exchange(config, clock) {
            Ok(exchange) => exchange?,
            Err(error) => {
                report.add("credentials", Err(error.to_string()));
                return None;
            }
        };
        report.add_credentials(exchange.credentials(), clock);
        if self.offline {
            return None;
        }
        report.add_exchange(&exchange).await
    }
}

impl Report {
    fn add(&mut self, name: &'static str, result: Result<String, String>) {
        let ok = result.is_ok();
        self.push(Finding { name, ok, message: result.unwrap_or_else(|message| message), hint: None });
    }

    fn push(&mut self, finding: Finding) {
        self.ok &= finding.ok;
        self.checks.push(finding);
    }

    fn add_credentials(&mut self, credentials: &Credentials, clock: &Clock) {
        let matches = match credentials {
            Credentials::Jwt(jwt) if jwt.certificate.is_some() => ", key matches certificate",
            _ => "",
        };
        let client = credentials.client_id().unwrap_or("not told");
        self.add("credentials", Ok(format!("parsed: client {client}{matches}")));
        if !matches!(credentials, Credentials::Jwt(_)) {
            return;
        }
        let Some(end) = credentials.expires_at() else {
            return self.add("certificate", Ok("not in the document, its end is not known".to_owned()));
        };
        match end.duration_since(clock.now()) {
            Ok(left) => {
                let days = left.as_secs() / 86_400;
                self.push(Finding {
                    name: "certificate",
                    ok: true,
                    message: format!("{days} days left, until {}", rfc3339(end)),
                    hint: (days < RENEW_DAYS).then(|| RENEW.to_owned()),
                });
            }
            Err(_) => self.push(Finding {
                name: "certificate",
                ok: false,
                message: format!("expired at {}", rfc3339(end)),
                hint: Some(RENEW.to_owned()),
            }),
        }
    }

    async fn add_exchange(&mut self, exchange: &CredentialExchange) -> Option<Grant> {
        let ims = exchange.endpoint().map_or("local token", |endpoint| endpoint.authority());
        match exchange.exchange().await {
            Ok(grant) => {
                let life = humantime::format_duration(Duration::from_secs(grant.lifetime().as_secs()));
                let scopes = if grant.scopes.is_empty() {
                    String::new()
                } else {
                    format!(", scopes {}", grant.scopes.join(" "))
                };
                self.add("ims", Ok(format!("{ims} gave a token for {life}{scopes}")));
                Some(grant)
            }
            Err(error) => {
                self.push(Finding {
                    name: "ims",
                    ok: false,
                    message: format!("{ims}: {}", in_words(&error)),
                    hint: None,
                });
                None
            }
        }
    }

    fn add_aem(&mut self, answer: Result<u16, AemError>) {
        let (ok, message, hint) = match answer {
            Ok(status) => told_by(status),
            Err(AemError::Tls(error)) => (false, error, None),
            Err(AemError::Unreachable(cause)) => {
                let hint = (cause != Cause::Certificate).then_some(NETWORK);
                (false, format!("cannot be reached: {}", unreachable(cause)), hint)
            }
        };
        self.push(Finding { name: "aem", ok, message, hint: hint.map(str::to_owned) });
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let mark = if check.ok { "ok   " } else { "WRONG" };
            text.push_str(&format!("{mark}  {:<14} {}\n", check.name, check.message));
            if let Some(hint) = &check.hint {
                text.push_str(&format!("{:22} -> {hint}\n", ""));
            }
        }
        text
    }

    fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// What an answer to [`PROBE_PATH`] says.
fn told_by(status: u16) -> (bool, String, Option<&'static str>) {
    let said = format!("answered {status} to GET {PROBE_PATH}");
    match status {
        200..=299 => (true, said, None),
        401 => (
            false,
            said,
            Some(
                "AEM does not take this token: does it belong to this environment (pX-eY), and to AEM rather than to another Adobe API?",
            ),
        ),
        403 => (
            false,
            said,
            Some(
                "AEM knows the token but refuses: give the technical account a product profile or a group in AEM, and check the IP allow-list",
            ),
        ),
        404 => (true, format!("{said}: reached; this tier may not serve that path"), None),
        300..=399 => {
            (false, said, Some("AEM redirects, most likely to a login page: it does not take the token"))
        }
        421 => {
            (false, said, Some("the CDN does not know this host: is `upstream` an *.adobeaemcloud.com name?"))
        }
        429 | 503 => (
            false,
            said,
            Some(
                "AEM is busy, throttles, or hibernates: try again, or wake the sandbox in the Developer Console",
            ),
        ),
        _ => (false, said, Some("AEM has trouble of its own: look at its status in Cloud Manager")),
    }
}

enum AemError {
    Tls(String),
    Unreachable(Cause),
}

/// One small request with the token.
async fn ask_aem(config: &Config, authorization: Option<Authorization>) -> Result<u16, AemError> {
    let tls =
        tls::client_config(config.ca_file.as_deref()).map_err(|error| AemError::Tls(error.to_string()))?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(config.timeouts.connect)
        .timeout(config.timeouts.response_head)
        // The proxy itself reaches AEM without an egress proxy.
        .no_proxy()
        .build()
        .map_err(|error| AemError::Tls(error.to_string()))?;
    let mut url = config.upstream.clone();
    url.set_path(PROBE_PATH);
    let mut request = client.get(url);
    if let Some(authorization) = authorization {
        request = request.header(http::header::AUTHORIZATION, authorization.header());
    }
    match request.send().await {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error) if error.is_timeout() => Err(AemError::Unreachable(Cause::TimedOut)),
        Err(error) => Err(AemError::Unreachable(Cause::of(&error))),
    }
}

fn unreachable(cause: Cause) -> &'static str {
    match cause {
        Cause::Dns => "its name has no address",
        Cause::Refused => "nobody answers there",
        Cause::Certificate => {
            "its certificate is not trusted; behind a TLS-inspecting proxy give its CA with ca_file"
        }
        Cause::TlsAlert | Cause::Tls => "the TLS handshake fails",
        Cause::TimedOut => "no answer in time",
        Cause::Other => "the connection broke off",
    }
}

/// A listing that a technical account without any group may read on author; small, and never cached.
const PROBE_PATH: &str = "/api/assets.json";

/// From here on it is time to renew a certificate.
const RENEW_DAYS: u64 = 30;

const RENEW: &str = "add a new certificate in the AEM Developer Console and download the document again";

const NETWORK: &str = "check `upstream`, DNS and the firewall";
