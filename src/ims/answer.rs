//! Reading IMS's answer: the token, its end, and every form of refusal.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;
use tracing::warn;

use super::{
    Grant, assertion,
    error::{Answer, Code, Hint, ImsError},
};
use crate::{
    credentials::{Claims, Credentials, millis, number},
    secret::{Authorization, never, wipe_json},
};

/// An answer, with all that is needed to read it.
pub(super) struct Answered<'a> {
    pub(super) answer: Answer,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: &'a [u8],
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

never!(Answered<'_>: std::fmt::Debug, serde::Serialize);
never!(Body: std::fmt::Debug, serde::Serialize, Clone);

impl Answered<'_> {
    pub(super) fn read(self) -> Result<Grant, ImsError> {
        // The error is dropped: serde_json may quote what it did not expect.
        let body = serde_json::from_slice::<Body>(self.body).ok();
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
                let code = self.code(body.as_ref());
                Err(self.unavailable(code))
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
        let Ok(authorization) = Authorization::bearer(token) else {
            return Err(self.malformed("a token that no header can carry"));
        };
        let claims = claims.unwrap_or_default();
        Ok(Grant {
            authorization,
            issued_at: self.asked_at,
            expires_at: self.asked_at + lifetime,
            client_id: self.credentials.client_id().unwrap_or_default().to_owned(),
            org: self.credentials.org().map(str::to_owned),
            user_id: claims.user_id,
            scopes: claims.scopes,
            renewable: true,
            clock_skew_seconds: self.answer.clock_skew_seconds(),
        })
    }

    /// How long the token lives from when it was asked for. Its own claims come first: they are always
    /// milliseconds. Then the grant decides.
    fn lifetime(&self, claims: Option<&Claims>, expires_in: Option<f64>) -> Option<Duration> {
        let lifetime = match claims.and_then(Claims::life) {
            Some((created_at, lifetime)) => lifetime.saturating_sub(self.age(created_at, lifetime)),
            None => self.told_lifetime(expires_in?)?,
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

    /// `expires_in` in the grant's own unit: the JWT exchange answers in milliseconds, the token endpoint in seconds.
    /// There, what no token lives in seconds is milliseconds too.
    fn told_lifetime(&self, expires_in: f64) -> Option<Duration> {
        let is_seconds =
            matches!(self.credentials, Credentials::OAuth(_)) && expires_in <= SECONDS_BELIEVED_MAX;
        if is_seconds { Duration::try_from_secs_f64(expires_in).ok() } else { millis(expires_in) }
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

    /// IMS's word for what is wrong, unless it is one of ours that it sends back.
    fn code(&self, body: Option<&Body>) -> Code {
        let word = body.and_then(Body::error);
        Code::new(word.filter(|word| !self.credentials.are_given_away_by(word)))
    }

    fn refusal(self, body: &Body) -> ImsError {
        let code = self.code(Some(body));
        match code {
            Code::InternalError => self.unavailable(code),
            Code::None => self.malformed("no error code"),
            _ => ImsError::Refused { hint: self.hint(&code, body), answer: self.answer, code },
        }
    }

    /// What a refusal most likely means. The description is looked at and not kept.
    fn hint(&self, code: &Code, body: &Body) -> Hint {
        match self.credentials {
            Credentials::OAuth(_) => self.oauth_hint(code),
            _ => self.jwt_hint(code, body),
        }
    }

    fn oauth_hint(&self, code: &Code) -> Hint {
        match code {
            Code::InvalidClient if self.answer.status == 401 => Hint::OAuthSecretWrong,
            Code::InvalidClient => Hint::OAuthClientUnknown,
            Code::InvalidScope => Hint::OAuthScopeNotHeld,
            _ => Hint::OAuthRefused,
        }
    }

    fn jwt_hint(&self, code: &Code, body: &Body) -> Hint {
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

    /// JWT credentials that were migrated are refused in these words.
    fn unavailable(self, code: Code) -> ImsError {
        let migrated = code == Code::InternalError && matches!(self.credentials, Credentials::Jwt(_));
        let hint = Some(if migrated { Hint::Migrated } else { Hint::Unavailable });
        ImsError::Unavailable { answer: self.answer, code, retry_after: self.retry_after, hint }
    }

    fn malformed(self, what: &'static str) -> ImsError {
        ImsError::Malformed { answer: self.answer, what }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let fields =
            [&mut self.access_token, &mut self.expires_in, &mut self.error, &mut self.error_description];
        fields.into_iter().flatten().for_each(wipe_json);
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

/// No IMS access token lives beyond about a day.
const LIFETIME_MAX: Duration = Duration::from_secs(48 * 3600);

/// Ten days: more than any token has in seconds, less than any has in milliseconds.
const SECONDS_BELIEVED_MAX: f64 = 864_000.0;

/// What a token with an unbelievable life is given.
const LIFETIME_ASSUMED: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests;
