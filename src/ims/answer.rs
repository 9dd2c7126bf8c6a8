//! Reading IMS's answer: the token, its end, and every form of refusal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tracing::warn;

use super::{
    Grant, assertion,
    error::{Answer, Code, Hint, ImsError},
};
use crate::{credentials::Credentials, secret::Authorization};

/// An answer, with all that is needed to read it.
pub(super) struct Answered<'a> {
    pub(super) answer: Answer,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: &'a SecretString,
    pub(super) asked_at: SystemTime,
    pub(super) credentials: &'a Credentials,
    pub(super) now: SystemTime,
}

/// `{"token_type":"bearer","access_token":"…","expires_in":86399999}` or
/// `{"error":"…","error_description":"…"}`. Values of any type are taken: one odd field must not hide the rest.
#[derive(Deserialize)]
struct Body {
    access_token: Option<Value>,
    expires_in: Option<Value>,
    error: Option<Value>,
    error_description: Option<Value>,
}

impl Answered<'_> {
    pub(super) fn read(self) -> Result<Grant, ImsError> {
        // The error is dropped: serde_json may quote what it did not expect.
        let body = serde_json::from_str::<Body>(self.body.expose_secret()).ok();
        match self.answer.status {
            429 => Err(ImsError::Throttled { retry_after: self.retry_after, answer: self.answer }),
            200..=299 => match body {
                Some(Body { access_token: Some(Value::String(ref token)), ref expires_in, .. })
                    if !token.is_empty() =>
                {
                    self.grant(token, expires_in.as_ref())
                }
                // jwt-auth's tests know a 200 that holds an error.
                Some(body) if body.error.is_some() => Err(self.refusal(&body)),
                Some(_) => Err(self.malformed("no access_token")),
                None => Err(self.malformed("something that is not JSON")),
            },
            400..=499 => match body {
                Some(body) if body.error.is_some() => Err(self.refusal(&body)),
                // Without IMS's own word it may be a gateway's: not the credentials' fault.
                _ => Err(self.malformed("no error code")),
            },
            500..=599 => {
                let code = Code::new(body.as_ref().and_then(Body::error));
                Err(ImsError::Unavailable { answer: self.answer, code, retry_after: self.retry_after })
            }
            _ => Err(self.malformed("neither a token nor an error")),
        }
    }

    fn grant(self, token: &str, expires_in: Option<&Value>) -> Result<Grant, ImsError> {
        let claims = Claims::of(token);
        let Some(lifetime) = self.lifetime(claims.as_ref(), expires_in.and_then(number)) else {
            return Err(self.malformed("a token without an end"));
        };
        if lifetime.is_zero() {
            return Err(self.malformed("a token that has ended already"));
        }
        let secret = SecretString::from(token);
        let Ok(authorization) = Authorization::bearer(&secret) else {
            return Err(self.malformed("a token that no header can carry"));
        };
        let claims = claims.unwrap_or_default();
        Ok(Grant {
            authorization,
            token: secret,
            issued_at: self.asked_at,
            expires_at: self.asked_at + lifetime,
            client_id: self.credentials.client_id.clone(),
            user_id: claims.user_id,
            scopes: claims.scopes,
        })
    }

    /// How long the token lives from when it was asked for. Its own claims come first: they are always
    /// milliseconds. Then the grant decides: the JWT exchange answers in milliseconds.
    fn lifetime(&self, claims: Option<&Claims>, expires_in: Option<f64>) -> Option<Duration> {
        let lifetime = match claims.and_then(Claims::lifetime) {
            Some((created_at, lifetime)) => lifetime.saturating_sub(self.age(created_at, lifetime)),
            None => millis(expires_in?)?,
        };
        if lifetime > LIFETIME_MAX {
            warn!(
                lifetime_hours = lifetime.as_secs() / 3600,
                "IMS gave a token a longer life than any has; counting on 24 h"
            );
            return Some(LIFETIME_ASSUMED);
        }
        Some(lifetime)
    }

    /// How old the token was when it came, by IMS's own clock (`Date`) where it told it, so that this
    /// machine's clock does not matter: IMS may hand out a token again that it made before. Without `Date`, an age
    /// beyond the lifetime says that this machine's clock is wrong, not that IMS hands out dead tokens.
    fn age(&self, created_at: SystemTime, lifetime: Duration) -> Duration {
        match self.answer.date {
            Some(date) => date.duration_since(created_at).unwrap_or_default(),
            None => self
                .asked_at
                .duration_since(created_at)
                .ok()
                .filter(|age| *age < lifetime)
                .unwrap_or_default(),
        }
    }

    fn refusal(self, body: &Body) -> ImsError {
        let code = Code::new(body.error());
        match code {
            Code::InternalError => {
                ImsError::Unavailable { answer: self.answer, code, retry_after: self.retry_after }
            }
            Code::None => self.malformed("no error code"),
            _ => ImsError::Refused { hint: self.hint(&code, body), answer: self.answer, code },
        }
    }

    /// What a refusal most likely means. The description is looked at and not kept.
    fn hint(&self, code: &Code, body: &Body) -> Hint {
        match code {
            Code::InvalidClient if self.answer.status == 401 => Hint::SecretWrong,
            Code::InvalidClient => Hint::ClientUnknown,
            Code::InvalidScope => Hint::MetascopeUnknown,
            _ if self.certificate_has_expired() => Hint::CertificateExpired,
            Code::InvalidSignature => Hint::CertificateUnknown,
            // The real answer to a signature that matches nothing (Adobe's pdfservices SDK knows this text).
            _ if body.description().contains("Could not match JWT signature") => Hint::CertificateUnknown,
            _ => match (self.answer.clock_skew_seconds(), code) {
                (Some(seconds), _) if assertion::is_spoilt_by(seconds) => Hint::ClockSkew(seconds),
                (_, Code::BadRequest) => Hint::FieldMalformed,
                _ => Hint::AssertionRefused,
            },
        }
    }

    /// By IMS's clock where it told it: this machine's may be the very trouble.
    fn certificate_has_expired(&self) -> bool {
        let now = self.answer.date.unwrap_or(self.now);
        self.credentials.expires_at().is_some_and(|end| end <= now)
    }

    fn malformed(self, what: &'static str) -> ImsError {
        ImsError::Malformed { answer: self.answer, what }
    }
}

impl Body {
    fn error(&self) -> Option<&str> {
        self.error.as_ref()?.as_str()
    }

    fn description(&self) -> &str {
        self.error_description.as_ref().and_then(Value::as_str).unwrap_or_default()
    }
}

/// What an access token says of itself. IMS's tokens are JWTs without `exp`: `created_at` and `expires_in` are
/// decimal strings in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Claims {
    created_at: Option<f64>,
    expires_in: Option<f64>,
    user_id: Option<String>,
    scopes: Vec<String>,
}

impl Claims {
    /// Reads without verifying: the token came from IMS over TLS, and only AEM has to believe it.
    pub(super) fn of(token: &str) -> Option<Self> {
        let payload = token.split('.').nth(1)?.trim_end_matches('=');
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: Value = serde_json::from_slice(&payload).ok()?;
        let text = |name: &str| claims.get(name)?.as_str().map(str::to_owned);
        let scopes = text("scope").unwrap_or_default();
        Some(Self {
            created_at: claims.get("created_at").and_then(number),
            expires_in: claims.get("expires_in").and_then(number),
            user_id: text("user_id"),
            scopes: scopes.split([',', ' ']).filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
        })
    }

    fn lifetime(&self) -> Option<(SystemTime, Duration)> {
        Some((UNIX_EPOCH.checked_add(millis(self.created_at?)?)?, millis(self.expires_in?)?))
    }
}

/// A number, or a string that holds one: both are seen.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number: &f64| number.is_finite())
}

fn millis(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number / 1000.0).ok()
}

/// No IMS access token lives beyond about a day.
const LIFETIME_MAX: Duration = Duration::from_secs(48 * 3600);

/// What a token with an unbelievable life is given.
const LIFETIME_ASSUMED: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests;
