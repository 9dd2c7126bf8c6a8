//! What AEM says to one request, and what that most likely means.
//!
//! Sources: Adobe, "CDN in AEM as a Cloud Service" (421, forwarded fields, IP allow-lists), "Generating Access Tokens for
//! Server-Side APIs" (groups), "Hibernating Environments"; Apache Sling's authentication (401, login pages, `X-Reason`).

use std::time::Duration;

use http::{
    HeaderMap,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION},
};
use reqwest::Response;
use url::Url;

use super::Kind;
use crate::{
    config::{Config, Prefix, Upstream},
    credentials::Environment,
    egress::{self, To},
    network::Cause,
    secret::Authorization,
    tls,
};

/// One small request.
pub(super) struct Probe<'a> {
    pub(super) upstream: &'a Url,
    pub(super) path: String,
    pub(super) authorization: Option<Authorization>,
    pub(super) kind: Kind,
    pub(super) client_id: Option<&'a str>,
    pub(super) x_api_key: bool,
    /// The organisation, where the route sends it.
    pub(super) org: Option<&'a str>,
    /// What the route sends in any case.
    pub(super) fields: HeaderMap,
}

/// What came of it, in words.
pub(super) struct Said {
    pub(super) ok: bool,
    pub(super) text: String,
    pub(super) hint: Option<String>,
}

/// What a route would be asked for: a listing that a technical account without any group may read, where it has that;
/// else the route's own prefix, of which AEM says at least that it is not there.
pub(super) fn path_for(prefix: &Prefix) -> String {
    if prefix.covers(ASSETS.as_bytes()) { ASSETS.to_owned() } else { prefix.to_string() }
}

impl Probe<'_> {
    /// The environments of the credentials and of the upstream, where they are known and differ.
    pub(super) fn environments(&self) -> Option<(Environment, Environment)> {
        let own = Environment::of(self.client_id?)?;
        let other = Environment::of(self.upstream.host_str()?)?;
        (own != other).then_some((own, other))
    }

    pub(super) async fn ask(&self, config: &Config, upstream: &Upstream) -> Said {
        let client = match client(config, upstream) {
            Ok(client) => client,
            Err(text) => return Said { ok: false, text, hint: None },
        };
        let mut request =
            client.get(self.url()).header(ACCEPT, "application/json").headers(self.fields.clone());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.header());
        }
        for (name, value) in [("x-api-key", self.api_key()), ("x-gw-ims-org-id", self.org)] {
            if let Some(value) = value.filter(|_| !self.fields.contains_key(name)) {
                request = request.header(name, value);
            }
        }
        match request.send().await {
            Ok(response) => self.read(response).await,
            Err(error) if error.is_timeout() => unreachable(Cause::TimedOut),
            Err(error) => unreachable(Cause::of(&error)),
        }
    }

    /// Never another host, whatever the path begins with: the token goes along.
    fn url(&self) -> Url {
        let (path, query) = match self.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.path.as_str(), None),
        };
        let mut url = self.upstream.clone();
        url.set_path(path);
        url.set_query(query);
        url
    }

    fn api_key(&self) -> Option<&str> {
        self.client_id.filter(|_| self.x_api_key)
    }

    async fn read(&self, response: Response) -> Said {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = beginning(response).await;
        let (ok, hint) = self.judge(status, &headers, &body);
        let text = format!("answered {status} to GET {}{}", self.path, seen(status, &headers));
        Said { ok, text, hint }
    }

    /// Whether the answer is one of an AEM that takes the credentials, and what to do where it is not.
    fn judge(&self, status: u16, headers: &HeaderMap, body: &str) -> (bool, Option<String>) {
        let reason = |text: &str| (false, Some(text.to_owned()));
        match status {
            200..=299 if is_html(headers) && body.contains("ibernat") => reason(HIBERNATED),
            200..=299 if is_html(headers) => reason(HTML),
            200..=299 => (true, None),
            300..=399 if is_login(headers) => {
                (false, Some(format!("AEM sends to its login page: {}", self.refused(body))))
            }
            300..=399 => (true, Some("AEM redirects; the proxy passes redirects on".to_owned())),
            401 => (false, Some(self.refused(body))),
            403 if headers.contains_key("x-reason") => (false, Some(self.refused(body))),
            403 if is_html(headers) && body.contains("ibernat") => reason(HIBERNATED),
            403 if body.contains("403010") => reason(NO_KEY),
            403 if self.kind == Kind::Basic || self.kind == Kind::None => {
                reason("AEM refuses: give that user the right to read the path")
            }
            403 => reason(FORBIDDEN),
            // Whoever is not let in does not get so far.
            404 => (true, None),
            421 => reason(
                "the CDN does not know this host: is `upstream` an *.adobeaemcloud.com name, without a port?",
            ),
            429 => reason("AEM's rate limit: too many requests in a short time; try again later"),
            503 if body.contains("first byte timeout") => {
                reason("AEM did not answer the CDN in time: it is overloaded, or still starting")
            }
            503 => reason(UNAVAILABLE),
            400..=499 => (true, None),
            _ => reason("AEM has trouble of its own: look at the environment's status in Cloud Manager"),
        }
    }

    /// Why AEM may not take what was sent.
    fn refused(&self, body: &str) -> String {
        if let Some((own, other)) = self.environments() {
            return format!("the credentials are of {own}, this is {other}: take those of this environment");
        }
        match self.kind {
            Kind::None => "AEM wants somebody to log in: name credentials",
            Kind::Basic => "AEM does not take this user with this password",
            Kind::LocalToken => WRONG_LOCAL_TOKEN,
            Kind::OAuth => WRONG_OAUTH,
            Kind::Jwt if body.contains("401013") || self.path.starts_with("/adobe/") => WRONG_JWT_OPENAPI,
            Kind::Jwt => WRONG_JWT,
        }
        .to_owned()
    }
}

/// As the proxy itself reaches AEM: with the same TLS, and on the same way.
fn client(config: &Config, upstream: &Upstream) -> Result<reqwest::Client, String> {
    let tls = tls::roots(config.ca_file.as_deref()).and_then(|roots| tls::upstream_config(&roots, upstream));
    let tls = tls.map_err(|error| error.to_string())?;
    let egress = egress::proxy(&config.egress.aem, To::Aem, &upstream.url);
    let egress = egress.map_err(|error| error.to_string())?;
    egress::through(reqwest::Client::builder(), egress.as_ref())
        .map_err(|error| error.to_string())?
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(config.timeouts.connect)
        .timeout(config.timeouts.response_head.min(PATIENCE))
        // Not a browser's: AEM would send that to a login page.
        .user_agent(concat!("aem-auth-proxy/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.to_string())
}

/// Enough of a body to know a page by. It is looked at, and never shown.
async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > BODY_MAX_BYTES {
            bytes.truncate(BODY_MAX_BYTES);
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What of the head tells people something.
fn seen(status: u16, headers: &HeaderMap) -> String {
    match status {
        404 => ": reached, and nothing is served there".to_owned(),
        405..=499 if !matches!(status, 421 | 429) => {
            ": reached, and this very request does not suit".to_owned()
        }
        _ if is_html(headers) => ", with a page in place of JSON".to_owned(),
        300..=399 if is_login(headers) => ", to a login page".to_owned(),
        403 if headers.contains_key("x-reason") => ", saying that nobody is logged in".to_owned(),
        _ => String::new(),
    }
}

fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("text/html")
}

fn is_login(headers: &HeaderMap) -> bool {
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok()).unwrap_or_default();
    let location = location.to_ascii_lowercase();
    location.contains("login") || location.contains("adobelogin") || location.contains("/ims/authorize")
}

fn unreachable(cause: Cause) -> Said {
    let explained = cause.explanation().map(|explanation| (explanation.what, explanation.step));
    let (why, hint) = explained.unwrap_or_else(|| words(cause));
    Said { ok: false, text: format!("cannot be reached: {why}"), hint: Some(hint.to_owned()) }
}

/// What is said of a cause other than a handshake that failed because of the server, and the next step.
fn words(cause: Cause) -> (&'static str, &'static str) {
    match cause {
        Cause::Dns => (
            "its name has no address",
            "is `upstream` spelled right? A deleted environment has no name either",
        ),
        Cause::Refused => ("nobody answers there", NETWORK),
        Cause::TlsAlert => {
            ("it refuses the TLS handshake", "check `upstream`, and whether it speaks TLS as new as min_tls")
        }
        Cause::Tls => ("the TLS handshake fails", NETWORK),
        Cause::ClientCertificate => (
            "it wants a client certificate, or another one",
            "give it with client_certificate_file and client_key_file of the upstream",
        ),
        Cause::EgressUnreachable => ("nobody answers at the egress proxy's address", EGRESS),
        Cause::EgressCredentials => ("the egress proxy wants credentials, or other ones", EGRESS),
        Cause::EgressRefused => ("the egress proxy does not let it through, or finds no way", EGRESS),
        Cause::EgressFailed => ("the egress proxy broke off", EGRESS),
        Cause::TimedOut => ("no answer in time", NETWORK),
        _ => ("the connection broke off", NETWORK),
    }
}

/// A listing that is small and never cached.
const ASSETS: &str = "/api/assets.json";

/// Whoever runs `check` waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

const BODY_MAX_BYTES: usize = 16 << 10;

const EGRESS: &str = "look at egress.aem_proxy or HTTPS_PROXY, http://USER:PASSWORD@HOST:PORT, and at what that proxy lets through";

const NETWORK: &str = "check `upstream`, DNS and the firewall";

const HIBERNATED: &str =
    "the sandbox hibernates: wake it in the AEM Developer Console, which takes some minutes";

const HTML: &str =
    "a page came where JSON was asked: a login page or a hibernating sandbox; look at it in a browser";

const NO_KEY: &str = "the API wants X-Api-Key: set x_api_key = true for this route";

const FORBIDDEN: &str = "AEM knows the token but refuses: give the technical account a product profile or a group in AEM (a new one \
     takes about 10 minutes), or let this machine's address through the IP allow-list in Cloud Manager";

const UNAVAILABLE: &str =
    "AEM is starting, overloaded or hibernating: try again, or wake the sandbox in the AEM Developer Console";

const WRONG_LOCAL_TOKEN: &str = "AEM does not take this local token: each environment has tokens of its own, and one lives for a day; get one in \
     the AEM Developer Console of this environment";

const WRONG_OAUTH: &str = "AEM does not take this OAuth token: the client id has to be registered in the environment's api.yaml, the \
     environment modernised (release 2024.10 or later) and the credential's product profile in place; classic paths such \
     as /api/assets take service credentials (JWT)";

const WRONG_JWT: &str = "AEM does not take this token: are the credentials of this environment, made in its AEM Developer Console, and not \
     deleted there?";

const WRONG_JWT_OPENAPI: &str = "AEM's OpenAPIs under /adobe take OAuth Server-to-Server: give such a credential to this route, with x_api_key = true";

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(
        kind: Kind,
        path: &str,
        status: u16,
        fields: &[(&'static str, &str)],
        body: &str,
    ) -> (bool, String) {
        let upstream = Url::parse("https://author-p1-e2.adobeaemcloud.com").unwrap();
        let probe = Probe {
            upstream: &upstream,
            path: path.to_owned(),
            authorization: None,
            kind,
            client_id: Some("cm-p1-e2-integration-0"),
            x_api_key: false,
            org: None,
            fields: HeaderMap::new(),
        };
        let headers =
            fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let (ok, hint) = probe.judge(status, &headers, body);
        (ok, hint.unwrap_or_default())
    }

    #[test]
    fn each_refusal_of_aem_has_its_likely_cause_and_the_next_step() {
        const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");
        for (kind, path, status, fields, body, part) in [
            (Kind::Jwt, "/api/assets.json", 401, &[][..], "", "are the credentials of this environment"),
            (Kind::Jwt, "/adobe/", 401, &[], "", "take OAuth Server-to-Server"),
            (Kind::Jwt, "/x", 401, &[], "{\"error_code\":\"401013\"}", "take OAuth Server-to-Server"),
            (Kind::OAuth, "/adobe/", 401, &[], "", "api.yaml"),
            (Kind::LocalToken, "/x", 401, &[], "", "each environment has tokens of its own"),
            (Kind::Basic, "/x", 401, &[], "", "this user with this password"),
            (Kind::None, "/x", 401, &[], "", "name credentials"),
            (
                Kind::Jwt,
                "/x",
                302,
                &[("location", "/libs/granite/core/content/login.html")],
                "",
                "login page",
            ),
            (Kind::Jwt, "/x", 403, &[("x-reason", "Authentication Failed")], "", "of this environment"),
            (Kind::Jwt, "/x", 403, &[], "", "product profile or a group"),
            (Kind::Jwt, "/x", 403, &[], "", "IP allow-list"),
            (Kind::OAuth, "/adobe/", 403, &[], "{\"error_code\":\"403010\"}", "x_api_key = true"),
            (Kind::Jwt, "/x", 200, &[HTML], "<h1>Hibernated</h1>", "wake it"),
            (Kind::Jwt, "/x", 200, &[HTML], "<h1>Sign in</h1>", "login page or a hibernating"),
            (Kind::Jwt, "/x", 421, &[], "", "*.adobeaemcloud.com"),
            (Kind::Jwt, "/x", 429, &[], "", "rate limit"),
            (Kind::Jwt, "/x", 503, &[], "first byte timeout", "overloaded"),
            (Kind::Jwt, "/x", 503, &[], "", "hibernating"),
            (Kind::Jwt, "/x", 500, &[], "", "Cloud Manager"),
        ] {
            let (ok, hint) = judged(kind, path, status, fields, body);
            assert!(!ok && hint.contains(part), "{status} {path}: {hint}");
        }
    }

    #[test]
    fn an_aem_that_takes_the_token_is_right_whatever_it_serves() {
        for (status, fields) in [
            (200, &[("content-type", "application/json")][..]),
            (204, &[]),
            (301, &[("location", "/other")]),
            (404, &[]),
            (405, &[]),
        ] {
            assert!(judged(Kind::Jwt, "/x", status, fields, "").0, "{status}");
        }
    }

    #[test]
    fn a_token_is_shown_to_no_other_host_whatever_the_path() {
        let upstream = Url::parse("https://author-p1-e2.adobeaemcloud.com").unwrap();
        for (path, asked) in [
            ("/api/assets.json?limit=1", "/api/assets.json?limit=1"),
            ("//other.example/x", "//other.example/x"),
            ("/\\other.example/x", "//other.example/x"),
        ] {
            let probe = Probe {
                upstream: &upstream,
                path: path.to_owned(),
                authorization: None,
                kind: Kind::Jwt,
                client_id: None,
                x_api_key: false,
                org: None,
                fields: HeaderMap::new(),
            };
            assert_eq!(probe.url().as_str(), format!("https://author-p1-e2.adobeaemcloud.com{asked}"));
        }
    }

    #[test]
    fn a_route_is_asked_for_what_it_serves() {
        for (prefix, path) in
            [("/", ASSETS), ("/api/assets", ASSETS), ("/adobe/*", "/adobe/"), ("/graphql", "/graphql")]
        {
            assert_eq!(path_for(&prefix.parse().unwrap()), path);
        }
    }
}
