//! What can go wrong at IMS, sorted by what is done next.

use std::{
    error::Error as StdError,
    fmt,
    time::{Duration, SystemTime},
};

use http::header::{HeaderMap, RETRY_AFTER};

use crate::{clock::rfc3339, network::Cause};

/// Why there is no grant. Holds nothing of IMS's body but a short code.
#[derive(Debug, thiserror::Error)]
pub enum ImsError {
    /// No answer at all.
    #[error("IMS is unreachable: {}", no_answer(*cause))]
    Unreachable {
        /// What the attempt died of.
        cause: Cause,
        /// The library's own account; its URL is removed.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Too many exchanges: come back later.
    #[error("IMS throttles this client (status {})", answer.status)]
    Throttled {
        /// The answer.
        answer: Answer,
        /// When to come back, if IMS said so.
        retry_after: Option<Duration>,
    },
    /// IMS has trouble of its own, or says so.
    #[error("IMS is unavailable (status {}, {code})", answer.status)]
    Unavailable {
        /// The answer.
        answer: Answer,
        /// IMS's word for it.
        code: Code,
        /// When to come back, if IMS said so.
        retry_after: Option<Duration>,
        /// What it means if it goes on.
        hint: Option<Hint>,
    },
    /// An answer that is not IMS's: a captive portal, a half body, a token without an end.
    #[error("IMS answered status {} with {what}", answer.status)]
    Malformed {
        /// The answer.
        answer: Answer,
        /// What was wrong with it.
        what: &'static str,
    },
    /// The credentials do not work, and trying again changes nothing.
    #[error("IMS refused the credentials (status {}, {code})", answer.status)]
    Refused {
        /// The answer.
        answer: Answer,
        /// IMS's word for it.
        code: Code,
        /// What it most likely means.
        hint: Hint,
    },
    /// The assertion could not be signed.
    #[error("the private key does not sign")]
    Unsigned,
    /// The local token is past its end. No network was asked: there is nothing that renews it.
    #[error("the local development token ended at {}", rfc3339(*at))]
    LocalTokenEnded {
        /// When.
        at: SystemTime,
    },
}

/// When to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Soon, with back-off.
    Soon,
    /// When IMS said.
    After(Duration),
    /// Slowly: a person has to do something first.
    Slowly,
    /// Not with this document: only another one helps.
    Never,
}

impl ImsError {
    /// When to ask again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Throttled { retry_after: Some(after), .. }
            | Self::Unavailable { retry_after: Some(after), .. } => Retry::After(*after),
            Self::Unreachable { .. }
            | Self::Throttled { .. }
            | Self::Unavailable { .. }
            | Self::Malformed { .. } => Retry::Soon,
            Self::Refused { .. } | Self::Unsigned => Retry::Slowly,
            Self::LocalTokenEnded { .. } => Retry::Never,
        }
    }

    /// Whether a person has to do something: time alone mends nothing.
    pub fn is_permanent(&self) -> bool {
        matches!(self.retry(), Retry::Slowly | Retry::Never)
    }

    /// Whether IMS calls it an error of its own.
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Unavailable { code: Code::InternalError, .. })
    }

    /// The class, as a label: one of a closed set.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable { .. } => "unavailable",
            Self::Malformed { .. } => "malformed",
            Self::Refused { .. } => "refused",
            Self::Unsigned => "unsigned",
            Self::LocalTokenEnded { .. } => "expired",
        }
    }

    /// What it most likely means and what to do, for people.
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Self::Refused { hint, .. } => Some(*hint),
            Self::Unavailable { hint, .. } => *hint,
            Self::Unreachable { cause, .. } if cause.explanation().is_some() => Some(Hint::Handshake(*cause)),
            Self::Unreachable { cause, .. } if cause.is_of_tls() => Some(Hint::Tls),
            Self::Unreachable { cause, .. } if is_egress(*cause) => Some(Hint::Egress),
            Self::Unreachable { .. } => Some(Hint::Network),
            Self::Malformed { .. } => Some(Hint::NotIms),
            Self::Throttled { .. } => Some(Hint::TooMany),
            Self::LocalTokenEnded { .. } => Some(Hint::LocalTokenEnded),
            Self::Unsigned => None,
        }
    }

    /// The answer, if there was one.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Throttled { answer, .. }
            | Self::Unavailable { answer, .. }
            | Self::Malformed { answer, .. }
            | Self::Refused { answer, .. } => Some(answer),
            Self::Unreachable { .. } | Self::Unsigned | Self::LocalTokenEnded { .. } => None,
        }
    }

    pub(super) fn unreachable(error: reqwest::Error) -> Self {
        let cause = if error.is_timeout() { Cause::TimedOut } else { Cause::of(&error) };
        Self::Unreachable { cause, source: Box::new(error.without_url()) }
    }
}

/// What an answer said beside its body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `x-debug-id`, which Adobe's support asks for.
    pub debug_id: Option<String>,
    /// IMS's clock, from the `Date` field, in whole seconds.
    pub date: Option<SystemTime>,
    /// This machine's clock when the answer came.
    pub received_at: SystemTime,
}

impl Answer {
    /// By how much this machine's clock differs from IMS's, where that is more than the 30 s which IMS
    /// forgives: seconds, positive when this machine is ahead.
    pub fn clock_skew_seconds(&self) -> Option<i64> {
        let seconds = match self.received_at.duration_since(self.date?) {
            Ok(ahead) => i64::try_from(ahead.as_secs()).ok()?,
            Err(behind) => -i64::try_from(behind.duration().as_secs()).ok()?,
        };
        (seconds.abs() > SKEW_FORGIVEN_SECONDS).then_some(seconds)
    }
}

/// IMS tolerates 30 s between a given expiry and its own clock (Adobe's aemcs-api-client-lib).
const SKEW_FORGIVEN_SECONDS: i64 = 30;

fn is_egress(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::EgressUnreachable | Cause::EgressCredentials | Cause::EgressRefused | Cause::EgressFailed
    )
}

/// What an attempt that got no answer died of, in words.
fn no_answer(cause: Cause) -> &'static str {
    if let Some(explanation) = cause.explanation() {
        return explanation.what;
    }
    match cause {
        Cause::Dns => "its name has no address",
        Cause::Refused => "no connection",
        Cause::EgressUnreachable => "the egress proxy cannot be reached",
        Cause::EgressCredentials => "the egress proxy wants credentials, or other ones",
        Cause::EgressRefused => "the egress proxy does not let it through, or finds no way",
        Cause::EgressFailed => "the egress proxy broke off",
        Cause::TimedOut => "no answer in time",
        Cause::Other => "the connection broke off",
        _ => "TLS does not succeed",
    }
}

/// IMS's own word for an error, `error` in its JSON. Unknown words are kept only if they can be nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// `invalid_client`: unknown client, or a wrong pair of id and secret.
    InvalidClient,
    /// `invalid_token`: the assertion is missing, malformed or expired, or no certificate matches it.
    InvalidToken,
    /// `invalid_signature`: no certificate matches, or another algorithm.
    InvalidSignature,
    /// `invalid_scope`: a metascope that is not bound.
    InvalidScope,
    /// `bad_request`: `sub`, `iss`, `exp` or `jti` malformed.
    BadRequest,
    /// `internal_error`.
    InternalError,
    /// Another word of small letters.
    Other(String),
    /// None, or one that is no word.
    None,
}

impl Code {
    pub(super) fn new(word: Option<&str>) -> Self {
        match word {
            Some("invalid_client") => Self::InvalidClient,
            Some("invalid_token") => Self::InvalidToken,
            Some("invalid_signature") => Self::InvalidSignature,
            Some("invalid_scope") => Self::InvalidScope,
            Some("bad_request") => Self::BadRequest,
            Some("internal_error") => Self::InternalError,
            // Small letters and underscores: no token, key or secret looks like that.
            Some(word) if is_plain_word(word) => Self::Other(word.to_owned()),
            _ => Self::None,
        }
    }
}

fn is_plain_word(word: &str) -> bool {
    (1..=40).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidClient => "invalid_client",
            Self::InvalidToken => "invalid_token",
            Self::InvalidSignature => "invalid_signature",
            Self::InvalidScope => "invalid_scope",
            Self::BadRequest => "bad_request",
            Self::InternalError => "internal_error",
            Self::Other(word) => word,
            Self::None => "no error code",
        })
    }
}

/// What an error most likely means, and what to do: a closed set of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// The certificate in the credentials is past its end.
    CertificateExpired,
    /// No certificate at Adobe matches the signature.
    CertificateUnknown,
    /// This machine's clock is off by so many seconds, positive when ahead.
    ClockSkew(i64),
    /// The assertion was refused for no reason that can be seen from here.
    AssertionRefused,
    /// Client id unknown, or not of this IMS.
    ClientUnknown,
    /// Client id and secret do not belong together.
    SecretWrong,
    /// A metascope that this account does not have.
    MetascopeUnknown,
    /// A field is malformed.
    FieldMalformed,
    /// The project was moved to OAuth Server-to-Server.
    Migrated,
    /// OAuth: client id unknown, or not of this IMS.
    OAuthClientUnknown,
    /// OAuth: no secret of the document belongs to the client id.
    OAuthSecretWrong,
    /// OAuth: a scope that this credential does not hold, or a list that is none.
    OAuthScopeNotHeld,
    /// OAuth: refused for another reason.
    OAuthRefused,
    /// The local token is past its end.
    LocalTokenEnded,
    /// The handshake failed because of what IMS shows.
    Handshake(Cause),
    /// The handshake failed otherwise.
    Tls,
    /// No way to IMS from here.
    Network,
    /// The egress proxy stands in the way.
    Egress,
    /// Somebody else answered in IMS's place.
    NotIms,
    /// Too many exchanges.
    TooMany,
    /// IMS has trouble of its own.
    Unavailable,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CertificateExpired => {
                "the certificate in the credentials has expired: add a new one in the AEM Developer Console and download the document again"
            }
            Self::CertificateUnknown => {
                "no certificate at Adobe matches the private key: it was revoked or deleted, or the key is another one; download the document again"
            }
            Self::ClockSkew(seconds) if *seconds > 0 => {
                return write!(f, "this machine's clock is {seconds} s ahead of IMS's: set it right (NTP)");
            }
            Self::ClockSkew(seconds) => {
                return write!(f, "this machine's clock is {} s behind IMS's: set it right (NTP)", -seconds);
            }
            Self::AssertionRefused => "IMS gave no reason that can be seen from here: download the document again",
            Self::ClientUnknown => {
                "IMS does not know the client id, or it belongs to another IMS: check technicalAccount.clientId and imsEndpoint"
            }
            Self::SecretWrong => {
                "client id and secret do not belong together: check technicalAccount.clientSecret or download the document again"
            }
            Self::MetascopeUnknown => {
                "a metascope is not bound to this technical account: compare metascopes with a fresh download"
            }
            Self::FieldMalformed => "id or org in the document is malformed: download the document again",
            Self::Migrated => {
                "if this goes on, the project was moved to OAuth Server-to-Server, and IMS takes no JWT for it any more: download the OAuth credential and use that; IMS may have trouble of its own, too: status.adobe.com"
            }
            Self::OAuthClientUnknown => {
                "IMS does not know the client id, or it belongs to another IMS: check client_id, whether the credential was deleted, and ims_endpoint"
            }
            Self::OAuthSecretWrong => {
                "the client secret is wrong, or was deleted or rotated: add a new one to the credential in the Adobe Developer Console and put it into client_secrets"
            }
            Self::OAuthScopeNotHeld => {
                "this credential does not hold one of the scopes, or they are not separated by commas: compare scopes with those of the credential in the Adobe Developer Console"
            }
            Self::OAuthRefused => {
                "the credential was deleted or disabled, or its API has no product profile: look at it in the Adobe Developer Console"
            }
            Self::LocalTokenEnded => {
                "take a new one from the AEM Developer Console (Integrations, Local token) and replace the file in place: no restart is needed"
            }
            Self::Handshake(cause) => cause.explanation().map_or("", |explanation| explanation.step),
            Self::Tls => {
                "behind a TLS-inspecting proxy give its CA with ca_file; otherwise check imsEndpoint"
            }
            Self::TooMany => {
                "something buys too many tokens with these credentials, as a crash loop does: share one proxy, or keep the token in token.cache_file"
            }
            Self::Unavailable => {
                "IMS has trouble of its own, or something in between: try again in a few minutes, and look at status.adobe.com"
            }
            Self::Network => "check DNS, the firewall and, behind a corporate proxy, HTTPS_PROXY and NO_PROXY",
            Self::Egress => "look at egress.ims_proxy or HTTPS_PROXY: http://USER:PASSWORD@HOST:PORT, and whether that proxy lets IMS's host through",
            Self::NotIms => "somebody else may have answered in IMS's place: check imsEndpoint and any proxy in between",
        })
    }
}

/// `Retry-After` in either form (RFC 9110, section 10.2.3), at most [`RETRY_AFTER_MAX`].
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let after = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => http_date(text)?.duration_since(now).unwrap_or_default(),
    };
    Some(after.min(RETRY_AFTER_MAX))
}

/// A server that says "tomorrow" by mistake must not end the service.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A date of HTTP in any of its forms (RFC 9110, section 5.6.7).
pub(super) fn http_date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

/// `x-debug-id`, if it is short and printable.
pub(super) fn debug_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-debug-id")?.to_str().ok()?;
    (id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_graphic())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_code_is_kept_only_if_it_is_a_plain_word() {
        assert_eq!(Code::new(Some("access_denied")), Code::Other("access_denied".to_owned()));
        for word in ["eyJhbGciOi", "p8e-secret", "secret1", "two words", ""] {
            assert_eq!(Code::new(Some(word)), Code::None, "{word}");
        }
    }

    #[test]
    fn a_local_token_that_has_ended_needs_a_person() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let error = ImsError::LocalTokenEnded { at };
        assert_eq!(error.to_string(), "the local development token ended at 2023-11-14T22:13:20Z");
        assert_eq!((error.class(), error.retry()), ("expired", Retry::Never));
        assert!(error.is_permanent() && error.answer().is_none());
        let hint = error.hint().unwrap().to_string();
        assert!(hint.contains("Integrations, Local token") && hint.contains("no restart"), "{hint}");
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (value, seconds) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("999999999", Some(3600)),
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn skew_is_told_beyond_what_ims_forgives() {
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let skew = |received_at| {
            Answer { status: 400, debug_id: None, date: Some(date), received_at }.clock_skew_seconds()
        };
        assert_eq!(skew(date + Duration::from_secs(30)), None);
        assert_eq!(skew(date + Duration::from_secs(400)), Some(400));
        assert_eq!(skew(date - Duration::from_secs(400)), Some(-400));
    }
}
