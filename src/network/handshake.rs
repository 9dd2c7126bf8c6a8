//! Why a TLS handshake failed, and what is done about it.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::Cause;

/// A failed handshake in words for people: what is said of the server, and the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Explanation {
    /// Begins with "its" or "it": the server is named before.
    pub(crate) what: &'static str,
    /// What to do.
    pub(crate) step: &'static str,
}

impl Cause {
    /// What to say of a handshake that failed because of the server; none for other causes.
    pub(crate) fn explanation(self) -> Option<Explanation> {
        let (what, step) = match self {
            Self::CertificateExpired => (
                "its certificate has expired",
                "have it renewed; or set this machine's clock right (NTP), if that is ahead",
            ),
            Self::CertificateNotYetValid => (
                "its certificate is not valid yet",
                "set this machine's clock right (NTP), if that is behind; or wait until the certificate is valid",
            ),
            Self::CertificateName => (
                "its certificate is for another name",
                "check the host; a certificate for it has to list it in subjectAltName",
            ),
            Self::CertificateIssuer => (
                "the issuer of its certificate is not trusted",
                "give the issuer's certificate with ca_file; behind a TLS-inspecting proxy that is the proxy's CA",
            ),
            Self::CertificateCommonName => (
                "its certificate has no subjectAltName",
                "issue it with the host in subjectAltName; a common name (CN) does not count",
            ),
            Self::CertificateAuthority => (
                "its certificate is an authority's",
                "give the server a certificate of its own (basicConstraints CA:FALSE), and its issuer as ca_file",
            ),
            Self::CertificatePurpose => (
                "its certificate is not for servers",
                "issue it with serverAuth in extendedKeyUsage; this one is for another purpose",
            ),
            Self::Certificate => ("its certificate is not accepted", "the log says why; issue another one"),
            Self::NotTls => (
                "it does not speak TLS",
                "check the port: it may be one for plain HTTP, which is http:// and for loopback only",
            ),
            _ => return None,
        };
        Some(Explanation { what, step })
    }

    /// Whether TLS failed, on whichever side.
    pub(crate) fn is_of_tls(self) -> bool {
        self.explanation().is_some() || matches!(self, Self::Tls | Self::TlsAlert | Self::ClientCertificate)
    }
}

/// The cause that an error of rustls's stands for.
pub(super) fn cause(error: &Error) -> Cause {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        // No record of TLS begins so: the first byte is that of a text.
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => Cause::NotTls,
        // RFC 8446, section 6.2. A server has no other certificate to complain of than ours.
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA,
        ) => Cause::ClientCertificate,
        Error::AlertReceived(_) => Cause::TlsAlert,
        _ => Cause::Tls,
    }
}

fn certificate(error: &CertificateError) -> Cause {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Cause::CertificateExpired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Cause::CertificateNotYetValid
        }
        // A common name is no name of a server's (RFC 9525, section 2): without subjectAltName there is none.
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            Cause::CertificateCommonName
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Cause::CertificateName
        }
        CertificateError::UnknownIssuer => Cause::CertificateIssuer,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Cause::CertificatePurpose
        }
        // webpki's own errors, which rustls has no words for.
        CertificateError::Other(other) => match other.to_string() {
            text if text.starts_with("CaUsedAsEndEntity") => Cause::CertificateAuthority,
            text if text.starts_with("RequiredEkuNotFound") => Cause::CertificatePurpose,
            _ => Cause::Certificate,
        },
        _ => Cause::Certificate,
    }
}
