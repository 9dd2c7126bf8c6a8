//! What a connection attempt died of, told from a library's chain of errors; what does not leave this machine; name
//! look-ups; and the account of descriptors.

pub mod descriptors;
mod handshake;
pub mod resolver;

use std::{error::Error as StdError, io};

#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::net::TcpStream;
use url::{Host, Url};

use self::resolver::LookupError;

/// A cause that somebody can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The name has no address.
    Dns,
    /// Nobody listens there, or no route leads there.
    Refused,
    /// The peer's certificate is past its end.
    CertificateExpired,
    /// The peer's certificate is before its beginning.
    CertificateNotYetValid,
    /// The peer's certificate is for other names.
    CertificateName,
    /// The issuer of the peer's certificate is not trusted.
    CertificateIssuer,
    /// The peer's certificate has a common name alone.
    CertificateCommonName,
    /// The peer shows the certificate of an authority.
    CertificateAuthority,
    /// The peer's certificate is for clients, or for signing.
    CertificatePurpose,
    /// The peer's certificate is not accepted otherwise.
    Certificate,
    /// What came from the peer is no TLS.
    NotTls,
    /// The peer sent a TLS alert.
    TlsAlert,
    /// The peer wants a certificate of ours, or another one: it said so in an alert.
    ClientCertificate,
    /// The handshake failed otherwise.
    Tls,
    /// A time limit passed.
    TimedOut,
    /// Nobody answers at the egress proxy's address, or it has none.
    EgressUnreachable,
    /// The egress proxy wants credentials, or other ones.
    EgressCredentials,
    /// The egress proxy does not let this through.
    EgressRefused,
    /// The egress proxy got no connection, or broke off.
    EgressFailed,
    /// Something else; the connection broke off, most often.
    Other,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Dns,
        Self::Refused,
        Self::CertificateExpired,
        Self::CertificateNotYetValid,
        Self::CertificateName,
        Self::CertificateIssuer,
        Self::CertificateCommonName,
        Self::CertificateAuthority,
        Self::CertificatePurpose,
        Self::Certificate,
        Self::NotTls,
        Self::TlsAlert,
        Self::ClientCertificate,
        Self::Tls,
        Self::TimedOut,
        Self::EgressUnreachable,
        Self::EgressCredentials,
        Self::EgressRefused,
        Self::EgressFailed,
        Self::Other,
    ];

    /// The same as a label: one of a closed set, which tells less.
    pub fn label(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::CertificateExpired
            | Self::CertificateNotYetValid
            | Self::CertificateName
            | Self::CertificateIssuer
            | Self::CertificateCommonName
            | Self::CertificateAuthority
            | Self::CertificatePurpose
            | Self::Certificate => "certificate",
            Self::TlsAlert => "tls_alert",
            Self::ClientCertificate => "client_certificate",
            Self::Tls | Self::NotTls => "tls",
            Self::TimedOut => "timeout",
            Self::EgressUnreachable => "egress_unreachable",
            Self::EgressCredentials => "egress_credentials",
            Self::EgressRefused => "egress_refused",
            Self::EgressFailed => "egress_failed",
            Self::Other => "broken_off",
        }
    }

    /// Walks the chain down to the first cause that is known.
    pub fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(cause) = known(error) {
                return cause;
            }
            next = inner(error);
        }
        Self::Other
    }
}

/// What an error wraps. `io::Error::source` skips the error that it was made of, and TLS errors hide just there.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

fn known(error: &(dyn StdError + 'static)) -> Option<Cause> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(handshake::cause(tls));
    }
    if error.is::<LookupError>() {
        return Some(Cause::Dns);
    }
    if let Some(io) = error.downcast_ref::<io::Error>() {
        return match io.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable => Some(Cause::Refused),
            io::ErrorKind::TimedOut => Some(Cause::TimedOut),
            _ => None,
        };
    }
    // hyper-util's errors for a failed look-up and for a tunnel have no types of their own that are public.
    match error.to_string().as_str() {
        "dns error" => Some(Cause::Dns),
        "tunnel error: proxy authorization required" => Some(Cause::EgressCredentials),
        "tunnel error: failed to create underlying connection" => Some(Cause::EgressUnreachable),
        // It does not say with which status.
        "tunnel error: unsuccessful" => Some(Cause::EgressRefused),
        text if text.starts_with("tunnel error: ") => Some(Cause::EgressFailed),
        _ => None,
    }
}

/// Whether a look-up failed only for now: the system's libraries say so in words alone (`EAI_AGAIN`).
pub(crate) fn is_temporary(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<LookupError>().is_some_and(LookupError::is_temporary) {
            return true;
        }
        let text = error.to_string();
        if ["emporary failure", "ry again"].iter().any(|words| text.contains(words)) {
            return true;
        }
        next = inner(error);
    }
    false
}

/// Whether what is sent to `url` stays on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Drops the dot of the root from the end of `url`'s host: the same name, in a spelling that neither certificates nor AEM's own
/// links have. `None` where an empty label is left (RFC 1034, section 3.1).
#[must_use]
pub(crate) fn without_root_dot(mut url: Url) -> Option<Url> {
    if let Some(Host::Domain(name)) = url.host()
        && let Some(name) = name.strip_suffix('.').map(str::to_owned)
    {
        url.set_host(Some(&name)).ok()?;
    }
    let is_name = |name: &str| name.split('.').all(|label| !label.is_empty());
    match url.host() {
        Some(Host::Domain(name)) if !is_name(name) => None,
        _ => Some(url),
    }
}

/// The chain of causes below `error` in one line, each said once.
pub fn causes(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut told: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if told.last() != Some(&text) {
            told.push(text);
        }
        next = cause.source();
    }
    (!told.is_empty()).then(|| told.join(": "))
}

/// Lets the system keep little of what is sent, in addition to what is on its way already. Without a bound it takes megabytes for a
/// peer that does not read: they count as the container's memory, and copying them holds up the other connections. Only Linux
/// has this option (`TCP_NOTSENT_LOWAT`, tcp(7)); elsewhere nothing changes.
pub fn bound_unsent(socket: &TcpStream) {
    #[cfg(target_os = "linux")]
    {
        // A connection without it works, too.
        let _ = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_MAX);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// Bytes: two of the largest writes.
#[cfg(target_os = "linux")]
const UNSENT_MAX: u32 = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_system_keeps_little_for_a_peer_that_does_not_read() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (socket, peer) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (socket, _peer) = (socket.unwrap(), peer.unwrap());
        bound_unsent(&socket);
        let mut kept = 0;
        // Loopback has delivered what it delivers when the call returns.
        socket.writable().await.unwrap();
        while let Ok(bytes) = socket.try_write(&[0; 64 * 1024]) {
            kept += bytes;
        }
        assert!(kept < 1024 * 1024, "{kept} bytes");
    }

    #[test]
    fn a_tls_error_is_found_however_deep_it_is_wrapped() {
        let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, expired));
        assert_eq!(Cause::of(&wrapped), Cause::CertificateExpired);
    }

    #[test]
    fn what_is_not_known_is_other() {
        assert_eq!(Cause::of(&io::Error::from(io::ErrorKind::BrokenPipe)), Cause::Other);
        assert_eq!(Cause::of(&io::Error::from(io::ErrorKind::ConnectionRefused)), Cause::Refused);
    }

    #[test]
    fn a_failed_look_up_is_told_from_one_that_may_succeed_soon() {
        let glibc = "failed to lookup address information: Temporary failure in name resolution";
        assert!(is_temporary(&io::Error::other(io::Error::other(glibc))));
        assert!(is_temporary(&io::Error::other("failed to lookup address information: Try again")));
        let unknown = "failed to lookup address information: Name or service not known";
        assert!(!is_temporary(&io::Error::other(unknown)));
    }

    #[test]
    fn each_cause_has_a_label_which_causes_of_tls_share() {
        let labels: std::collections::BTreeSet<_> = Cause::ALL.map(Cause::label).into();
        let explained = Cause::ALL.iter().filter(|cause| cause.explanation().is_some()).count();
        assert_eq!(labels.len(), Cause::ALL.len() - explained + 1);
        assert!(Cause::ALL.iter().enumerate().all(|(place, cause)| *cause as usize == place));
    }

    #[test]
    fn loopback_is_told_from_what_looks_like_it() {
        for (url, safe) in [
            ("http://localhost:4502", true),
            ("http://127.0.0.1", true),
            ("http://127.9.9.9:1", true),
            ("http://[::1]:80", true),
            ("http://author-p1-e2.adobeaemcloud.com", false),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), safe, "{url}");
        }
    }
}
