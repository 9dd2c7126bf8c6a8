//! What a connection attempt died of, told from a library's chain of errors.

use std::{error::Error as StdError, io};

/// A cause that somebody can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The name has no address.
    Dns,
    /// Nobody listens there, or no route leads there.
    Refused,
    /// The peer's certificate is not trusted, not for this name, or out of date.
    Certificate,
    /// The peer sent a TLS alert.
    TlsAlert,
    /// The handshake failed otherwise.
    Tls,
    /// A time limit passed.
    TimedOut,
    /// Something else; the connection broke off, most often.
    Other,
}

impl Cause {
    /// Walks the chain down to the first cause that is known.
    pub fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(cause) = known(error) {
                return cause;
            }
            next = error.source();
        }
        Self::Other
    }
}

fn known(error: &(dyn StdError + 'static)) -> Option<Cause> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls_cause(tls));
    }
    if let Some(io) = error.downcast_ref::<io::Error>() {
        if let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(tls_cause(tls));
        }
        return match io.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable => Some(Cause::Refused),
            io::ErrorKind::TimedOut => Some(Cause::TimedOut),
            _ => None,
        };
    }
    // hyper-util's error for a failed look-up has no type of its own that is public.
    (error.to_string() == "dns error").then_some(Cause::Dns)
}

fn tls_cause(error: &rustls::Error) -> Cause {
    match error {
        rustls::Error::InvalidCertificate(_) => Cause::Certificate,
        rustls::Error::AlertReceived(_) => Cause::TlsAlert,
        _ => Cause::Tls,
    }
}
