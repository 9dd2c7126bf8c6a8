//! One TLS configuration for IMS and AEM: rustls on ring, the system's roots and `ca_file`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject},
};
use tracing::warn;

/// Which TLS library this is, for `--version`.
pub const PROVIDER: &str = "rustls (ring)";

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// `ca_file` cannot be read.
    #[error("ca_file {} cannot be read: {kind}; check the path and who may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        kind: std::io::ErrorKind,
    },
    /// `ca_file` holds no certificate.
    #[error("ca_file {} holds no usable certificate; it wants PEM, -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// Nothing to trust at all.
    #[error("no trusted roots were found; install ca-certificates, set SSL_CERT_FILE, or give ca_file")]
    NoRoots,
}

/// Makes ring the process's provider, for the libraries that ask for a default; further calls change nothing.
pub fn install() {
    // An error says only that one was installed before.
    let _ = CryptoProvider::install_default(ring::default_provider());
}

/// A client configuration that trusts the system's roots (`SSL_CERT_FILE` is honoured) and those of `ca_file`.
///
/// # Errors
/// When `ca_file` is unusable or there is nothing to trust.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        roots.add_parsable_certificates(certificates(path)?);
        if roots.is_empty() {
            return Err(TlsError::NoCertificate { path: path.to_owned() });
        }
    }
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    if let Some(error) = system.errors.first() {
        warn!(%error, "Some of the system's roots cannot be read");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    // ring serves both versions: the error cannot happen, and says nothing to a user.
    let builder = builder.with_safe_default_protocol_versions().map_err(|_| TlsError::NoRoots)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = std::fs::read(path)
        .map_err(|error| TlsError::Unreadable { path: path.to_owned(), kind: error.kind() })?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TlsError::NoCertificate { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_that_cannot_be_used_says_why() {
        let missing = client_config(Some(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/ca.pem cannot be read: entity not found"), "{missing}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not a certificate").unwrap();
        let empty = client_config(Some(file.path())).unwrap_err().to_string();
        assert!(empty.contains("holds no usable certificate"), "{empty}");
    }
}
