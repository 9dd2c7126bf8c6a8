//! A stand-in for Adobe's Identity Management System: endpoints that exchange a signed assertion, or an OAuth
//! credential, for an access token, with the real checks and, where asked, with the real troubles.
//!
//! Sources: Adobe's guide on JWT authentication (request, claims and table of errors), that on OAuth Server-to-Server
//! credentials (parameters and units), and the client libraries of Adobe that call these endpoints (both forms, all
//! paths).

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::to_bytes,
    extract::{DefaultBodyLimit, FromRequest, Multipart, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, DATE},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous, errors::ErrorKind};
use serde_json::{Map, Value, json};
use x509_cert::der::DateTime;

use super::{
    keys::ServiceCredentials,
    ledger::{Holder, Ledger, SCOPE as JWT_SCOPE, Verdict},
    oauth::OAuthCredential,
    random_hex,
    server::Connection,
};
use crate::clock::{Clock, unix_seconds};

mod switches;

pub use switches::{ExpiresIn, Fault, FormKind, GrantKind, Switches};

/// The stand-in, to be served. It knows two clients, and writes what it issues into `ledger`. Both secrets of `oauth`
/// live until `switches` say otherwise.
pub fn router(
    credentials: ServiceCredentials,
    oauth: OAuthCredential,
    ledger: Ledger,
    switches: Switches,
    clock: Clock,
) -> Router {
    crate::jwt::install();
    switches.set_oauth_secrets(oauth.client_secrets());
    let ims = Ims { credentials: Arc::new(credentials), oauth: Arc::new(oauth), ledger, switches, clock };
    Router::new()
        .route("/ims/exchange/jwt", post(exchange))
        .route("/ims/exchange/jwt/", post(exchange))
        .route("/ims/token/v2", post(token))
        .route("/ims/token/v3", post(token))
        .route("/ims/validate_token/v1", post(validate_token))
        .layer(from_fn_with_state(ims.clone(), sign))
        .layer(DefaultBodyLimit::max(FORM_MAX))
        .with_state(ims)
}

#[derive(Clone)]
struct Ims {
    credentials: Arc<ServiceCredentials>,
    oauth: Arc<OAuthCredential>,
    ledger: Ledger,
    switches: Switches,
    clock: Clock,
}

/// What every answer carries: `x-debug-id`, which Adobe's support asks for, and a `Date`, which the HTTP
/// server adds where it is not to be wrong.
async fn sign(State(ims): State<Ims>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Ok(id) = HeaderValue::try_from(random_hex(16)) {
        // A fault may have one of its own.
        response.headers_mut().entry("x-debug-id").or_insert(id);
    }
    if let Some(date) = skewed_date(ims.clock.now(), ims.switches.date_offset_seconds()) {
        response.headers_mut().insert(DATE, date);
    }
    response
}

async fn exchange(State(ims): State<Ims>, request: Request) -> Response {
    let connection = request.extensions().get::<Connection>().cloned();
    let form = Form::read(request).await;
    let assertion = form.as_ref().ok().and_then(|form| form.field("jwt_token"));
    let claims = assertion.and_then(|jwt| dangerous::insecure_decode_claims(jwt).ok());
    ims.switches.jwt_attempted(
        assertion.map(str::to_owned),
        claims,
        form.as_ref().ok().map(|form| form.kind),
    );
    if let Some(fault) = ims.switches.next_fault(GrantKind::Jwt)
        && let Some(response) = fault.act(connection).await
    {
        return response;
    }
    match form.and_then(|form| ims.verify(&form)) {
        Ok(()) => ims.grant(GrantKind::Jwt, ims.jwt_holder()),
        Err(refusal) => refusal.into_response(),
    }
}

/// `POST /ims/token/v3`, and `v2`, which takes the same from Adobe's libraries.
async fn token(State(ims): State<Ims>, request: Request) -> Response {
    let connection = request.extensions().get::<Connection>().cloned();
    let form = Form::read_with_query(request).await;
    let scope = form.as_ref().ok().and_then(|form| form.field("scope")).map(str::to_owned);
    ims.switches.oauth_attempted(scope);
    if let Some(fault) = ims.switches.next_fault(GrantKind::OAuth)
        && let Some(response) = fault.act(connection).await
    {
        return response;
    }
    match form.and_then(|form| ims.verify_oauth(&form)) {
        Ok(holder) => ims.grant(GrantKind::OAuth, holder),
        Err(refusal) => refusal.into_response(),
    }
}

impl Ims {
    fn grant(&self, grant: GrantKind, holder: Holder) -> Response {
        let lifetime = self.switches.token_lifetime();
        let token = self.ledger.issue_to(holder, lifetime, self.switches.look());
        let mut answer = json!({"access_token": token});
        if self.switches.tells_token_type() {
            answer["token_type"] = json!("bearer");
        }
        if let Some(expires_in) = self.switches.expires_in(grant).value(lifetime) {
            answer["expires_in"] = expires_in;
        }
        self.switches.exchanged(grant);
        ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
    }

    fn jwt_holder(&self) -> Holder {
        Holder {
            client_id: self.credentials.client_id().to_owned(),
            user_id: self.credentials.id().to_owned(),
            scope: JWT_SCOPE.to_owned(),
        }
    }

    /// For whom the token is to be. Without `scope` it is for all that the credential holds.
    fn verify_oauth(&self, form: &Form) -> Result<Holder, Refusal> {
        if form.field("grant_type") != Some("client_credentials") {
            return Err(WRONG_GRANT_TYPE);
        }
        if form.field("client_id") != Some(self.oauth.client_id()) {
            return Err(UNKNOWN_CLIENT);
        }
        if !form.field("client_secret").is_some_and(|secret| self.switches.is_live(secret)) {
            return Err(WRONG_SECRET);
        }
        let held = self.oauth.scopes();
        let scope = form.field("scope").map_or_else(|| held.join(","), str::to_owned);
        // Spaces are part of a name here, as at the real IMS: then no scope of that name is held.
        if !scope.split(',').all(|asked| held.contains(&asked)) {
            return Err(WRONG_SCOPE);
        }
        let client_id = self.oauth.client_id().to_owned();
        Ok(Holder { client_id, user_id: self.oauth.technical_account_id().to_owned(), scope })
    }

    /// The client first, then the signature, then the claims: nothing of an assertion counts before its
    /// signature.
    fn verify(&self, form: &Form) -> Result<(), Refusal> {
        self.verify_client(form)?;
        let claims = self.verify_signature(form.field("jwt_token").ok_or(NO_ASSERTION)?)?;
        self.verify_times(&claims)?;
        self.verify_parties(&claims)?;
        self.verify_metascopes(&claims)
    }

    fn verify_client(&self, form: &Form) -> Result<(), Refusal> {
        if form.field("client_id") != Some(self.credentials.client_id()) {
            return Err(UNKNOWN_CLIENT);
        }
        if form.field("client_secret") != Some(self.credentials.client_secret().expose_secret()) {
            return Err(WRONG_SECRET);
        }
        Ok(())
    }

    fn verify_signature(&self, assertion: &str) -> Result<Map<String, Value>, Refusal> {
        let header = jsonwebtoken::decode_header(assertion).map_err(|_| UNDECODABLE)?;
        if header.alg != Algorithm::RS256 {
            return Err(WRONG_ALGORITHM);
        }
        let key = DecodingKey::from_rsa_der(self.credentials.public_key());
        match jsonwebtoken::decode(assertion, &key, &signature_only()) {
            Ok(decoded) => Ok(decoded.claims),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => Err(WRONG_SIGNATURE),
            Err(_) => Err(UNDECODABLE),
        }
    }

    fn verify_times(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        let exp = claims.get("exp").ok_or(NO_EXP)?.as_u64().ok_or(NOT_AN_INTEGER)?;
        if claims.get("jti").is_some_and(|jti| !jti.is_i64() && !jti.is_u64()) {
            return Err(NOT_AN_INTEGER);
        }
        if exp.saturating_add(TOLERANCE_SECONDS) <= unix_seconds(self.clock.now()) {
            return Err(EXPIRED);
        }
        Ok(())
    }

    fn verify_parties(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        let claim = |name: &str| claims.get(name).and_then(Value::as_str);
        if claim("iss") != Some(self.credentials.org()) {
            return Err(WRONG_ISSUER);
        }
        if claim("sub") != Some(self.credentials.id()) {
            return Err(WRONG_SUBJECT);
        }
        let audience = format!("https://{}/c/{}", self.host(), self.credentials.client_id());
        if claim("aud") == Some(audience.as_str()) { Ok(()) } else { Err(WRONG_AUDIENCE) }
    }

    /// One claim for each metascope, `"https://<imsEndpoint>/s/<metascope>": true`; at least one, and none
    /// that the client is not bound to.
    fn verify_metascopes(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        let prefix = format!("https://{}/s/", self.host());
        let mut asked = claims.iter().filter(|(name, _)| name.contains("/s/")).peekable();
        let known = |name: &str| {
            name.strip_prefix(&prefix).is_some_and(|scope| self.credentials.metascopes().contains(&scope))
        };
        let any = asked.peek().is_some();
        if any && asked.all(|(name, value)| known(name) && *value == Value::Bool(true)) {
            Ok(())
        } else {
            Err(WRONG_METASCOPE)
        }
    }

    /// Claims name IMS by its host, whatever the scheme of a stand-in.
    fn host(&self) -> &str {
        let endpoint = self.credentials.ims_endpoint();
        endpoint.split_once("://").map_or(endpoint, |(_, host)| host).trim_end_matches('/')
    }
}

/// Times and parties are checked by hand: IMS words its refusals one by one.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

/// `POST /ims/validate_token/v1`, with the token as `token` field or as `Bearer`.
async fn validate_token(State(ims): State<Ims>, headers: HeaderMap, request: Request) -> Response {
    let form = match Form::read(request).await {
        Ok(form) => form,
        Err(refusal) => return refusal.into_response(),
    };
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let verdict = ims.ledger.verdict(form.field("token").or(bearer).unwrap_or_default());
    match verdict {
        Verdict::Live => Json(json!({"valid": true})).into_response(),
        Verdict::Expired => Json(json!({"valid": false, "reason": "token_expired"})).into_response(),
        Verdict::Revoked => Json(json!({"valid": false, "reason": "token_revoked"})).into_response(),
        Verdict::Unknown => Json(json!({"valid": false, "reason": "bad_signature"})).into_response(),
    }
}

struct Form {
    kind: FormKind,
    fields: HashMap<String, String>,
}

impl Form {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// Parameters may stand in the URL, in the body or in both, where the body counts.
    async fn read_with_query(request: Request) -> Result<Self, Refusal> {
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let mut fields: HashMap<_, _> = url::form_urlencoded::parse(query).into_owned().collect();
        if !request.headers().contains_key(CONTENT_TYPE) {
            return Ok(Self { kind: FormKind::UrlEncoded, fields });
        }
        let mut form = Self::read(request).await?;
        fields.extend(form.fields);
        form.fields = fields;
        Ok(form)
    }

    /// Both forms are in use: Adobe documents the first and half of its libraries send the second.
    async fn read(request: Request) -> Result<Self, Refusal> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
        if content_type.starts_with("multipart/form-data") {
            Ok(Self { kind: FormKind::Multipart, fields: multipart(request).await.ok_or(NO_FORM)? })
        } else if content_type.starts_with("application/x-www-form-urlencoded") {
            let body = to_bytes(request.into_body(), FORM_MAX).await.map_err(|_| NO_FORM)?;
            let fields = url::form_urlencoded::parse(&body).into_owned().collect();
            Ok(Self { kind: FormKind::UrlEncoded, fields })
        } else {
            Err(NO_FORM)
        }
    }
}

async fn multipart(request: Request) -> Option<HashMap<String, String>> {
    let mut multipart = Multipart::from_request(request, &()).await.ok()?;
    let mut fields = HashMap::new();
    while let Some(field) = multipart.next_field().await.ok()? {
        let name = field.name()?.to_owned();
        fields.insert(name, field.text().await.ok()?);
    }
    Some(fields)
}

/// A row of Adobe's table of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    error: &'static str,
    error_description: &'static str,
}

impl Refusal {
    const fn new(status: StatusCode, error: &'static str, error_description: &'static str) -> Self {
        Self { status, error, error_description }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"error": self.error, "error_description": self.error_description});
        (self.status, Json(body)).into_response()
    }
}

/// RFC 9110, section 5.6.7 (`IMF-fixdate`), or nothing where the clock is right.
fn skewed_date(now: SystemTime, offset_seconds: i64) -> Option<HeaderValue> {
    let offset = Duration::from_secs(offset_seconds.unsigned_abs());
    match offset_seconds {
        0 => None,
        1.. => HeaderValue::try_from(imf_fixdate(now + offset)?).ok(),
        _ => HeaderValue::try_from(imf_fixdate(now - offset)?).ok(),
    }
}

fn imf_fixdate(time: SystemTime) -> Option<String> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let at = DateTime::from_unix_duration(Duration::from_secs(seconds)).ok()?;
    let weekday = WEEKDAYS[usize::try_from(seconds / 86_400 % 7).ok()?];
    let month = MONTHS[usize::from(at.month()) - 1];
    Some(format!(
        "{weekday}, {:02} {month} {} {:02}:{:02}:{:02} GMT",
        at.day(),
        at.year(),
        at.hour(),
        at.minutes(),
        at.seconds()
    ))
}

/// 1970 began on a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// An assertion with its form takes some 2 KiB.
const FORM_MAX: usize = 64 * 1024;
/// What IMS tolerates between its own clock and the expiry of an assertion (Adobe's client library for AEM).
const TOLERANCE_SECONDS: u64 = 30;

const BAD: StatusCode = StatusCode::BAD_REQUEST;
const NO_FORM: Refusal = Refusal::new(BAD, "bad_request", "The request body is not a form");
const UNKNOWN_CLIENT: Refusal = Refusal::new(BAD, "invalid_client", "Invalid client_id parameter");
const WRONG_SECRET: Refusal =
    Refusal::new(StatusCode::UNAUTHORIZED, "invalid_client", "Invalid client_secret parameter");
const WRONG_GRANT_TYPE: Refusal = Refusal::new(BAD, "unsupported_grant_type", "Unsupported grant type");
const WRONG_SCOPE: Refusal = Refusal::new(BAD, "invalid_scope", "Invalid scope parameter");
const NO_ASSERTION: Refusal = Refusal::new(BAD, "invalid_token", "The jwt_token parameter is missing");
const UNDECODABLE: Refusal = Refusal::new(BAD, "invalid_token", "Could not decode the JWT");
const WRONG_ALGORITHM: Refusal = Refusal::new(BAD, "invalid_signature", "The JWT is not signed with RS256");
/// The table says `invalid_signature`; this is what IMS really answers, word for word.
const WRONG_SIGNATURE: Refusal =
    Refusal::new(BAD, "invalid_token", "Could not match JWT signature to any of the bindings");
const NO_EXP: Refusal = Refusal::new(BAD, "bad_request", "The exp field of the JWT is missing");
const NOT_AN_INTEGER: Refusal =
    Refusal::new(BAD, "invalid_token", "exp or jti field of the JWT is not an integer");
const EXPIRED: Refusal = Refusal::new(BAD, "invalid_token", "The JWT has expired");
const WRONG_ISSUER: Refusal = Refusal::new(BAD, "bad_request", "The iss field of the JWT is malformed");
const WRONG_SUBJECT: Refusal = Refusal::new(BAD, "bad_request", "The sub field of the JWT is malformed");
const WRONG_AUDIENCE: Refusal =
    Refusal::new(BAD, "invalid_client", "The aud field of the JWT does not match the client_id");
const WRONG_METASCOPE: Refusal =
    Refusal::new(BAD, "invalid_scope", "A metascope is missing, unknown or not bound to the client");

#[cfg(test)]
mod tests;
