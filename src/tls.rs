//! TLS for IMS and AEM: rustls on ring, the system's roots and `ca_file`; and what one upstream has beside them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tracing::warn;

use crate::config::{ClientFiles, TlsVersion, Upstream};

/// Which TLS library this is, for `--version`.
pub const PROVIDER: &str = "rustls (ring)";

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key} {} cannot be read: {kind}; check the path and who may read it", path.display())]
    Unreadable {
        /// What the file is for.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        kind: std::io::ErrorKind,
    },
    /// A file holds no certificate.
    #[error("{key} {} holds no usable certificate; it wants PEM, -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate {
        /// What the file is for.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file holds no key.
    #[error("client_key_file {} holds no usable private key; it wants PEM, without a password", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key are not of one pair.
    #[error("the certificate in {} and the key in {} are not usable together", certificate.display(), key.display())]
    Mismatch {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// Nothing to trust at all.
    #[error("no trusted roots were found; install ca-certificates, set SSL_CERT_FILE, or give ca_file")]
    NoRoots,
}

/// A configuration that changes when its files do.
pub type Trust = Arc<ArcSwap<ClientConfig>>;

/// Makes ring the process's provider, for the libraries that ask for a default; further calls change nothing.
pub fn install() {
    // An error says only that one was installed before.
    let _ = CryptoProvider::install_default(ring::default_provider());
}

/// The system's roots (`SSL_CERT_FILE` is honoured) and those of `ca_file`. Reading them takes longer than all that is
/// made of them.
///
/// # Errors
/// When `ca_file` is unusable or there is nothing to trust.
pub fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        add(&mut roots, path)?;
    }
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    if let Some(error) = system.errors.first() {
        warn!(%error, "Some of the system's roots cannot be read");
    }
    Ok(roots)
}

/// A configuration that trusts `roots`, for IMS and for every upstream that asks for nothing else.
///
/// # Errors
/// None that a user could cause.
pub fn config(roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    Ok(builder(&[&TLS13, &TLS12])?.with_root_certificates(roots).with_no_client_auth())
}

/// A configuration for `upstream`, or `None` where it asks for nothing of its own.
///
/// # Errors
/// When one of its files is unusable.
pub fn config_for(upstream: &Upstream, roots: &RootCertStore) -> Result<Option<ClientConfig>, TlsError> {
    if files(upstream).is_empty() && upstream.min_tls == TlsVersion::Tls12 {
        return Ok(None);
    }
    let mut roots = roots.clone();
    if let Some(path) = &upstream.ca_file {
        add(&mut roots, path)?;
    }
    let versions: &[&SupportedProtocolVersion] =
        if upstream.min_tls == TlsVersion::Tls13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let builder = builder(versions)?.with_root_certificates(roots);
    let Some(ClientFiles { certificate, key }) = &upstream.client else {
        return Ok(Some(builder.with_no_client_auth()));
    };
    let chain = certificates("client_certificate_file", certificate)?;
    let pem = read("client_key_file", key)?;
    let own_key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::NoKey { path: key.clone() })?;
    let mismatch = |_| TlsError::Mismatch { certificate: certificate.clone(), key: key.clone() };
    builder.with_client_auth_cert(chain, own_key).map(Some).map_err(mismatch)
}

/// The files of which an upstream's own configuration is made.
pub fn files(upstream: &Upstream) -> Vec<PathBuf> {
    let client = upstream.client.iter().flat_map(|client| [client.certificate.clone(), client.key.clone()]);
    upstream.ca_file.iter().cloned().chain(client).collect()
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn builder(versions: &[&'static SupportedProtocolVersion]) -> Result<Builder, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    // ring serves both versions: the error cannot happen, and says nothing to a user.
    builder.with_protocol_versions(versions).map_err(|_| TlsError::NoRoots)
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let (added, _) = roots.add_parsable_certificates(certificates("ca_file", path)?);
    if added == 0 {
        return Err(TlsError::NoCertificate { key: "ca_file", path: path.to_owned() });
    }
    Ok(())
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(key, path)?;
    let none = || TlsError::NoCertificate { key, path: path.to_owned() };
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|_| none())?;
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Unreadable {
        key,
        path: path.to_owned(),
        kind: error.kind(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_that_cannot_be_used_says_why() {
        let missing = roots(Some(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(missing.contains("ca_file /nowhere/ca.pem cannot be read: entity not found"), "{missing}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "not a certificate").unwrap();
        let empty = roots(Some(file.path())).unwrap_err().to_string();
        assert!(empty.contains("holds no usable certificate"), "{empty}");
    }

    #[test]
    fn a_client_certificate_that_cannot_be_used_says_why() {
        let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let with = |certificate: &str, key: &str| {
            let url = "https://aem.example".parse().unwrap();
            let client = Some(ClientFiles { certificate: fixture(certificate), key: fixture(key) });
            let upstream = Upstream { client, ..Upstream::at("aem".to_owned(), url) };
            config_for(&upstream, &RootCertStore::empty()).map(|config| config.is_some())
        };
        assert!(with("certificate.pem", "private_key.pem").unwrap());
        assert!(with("certificate.pem", "private_key_pkcs8.pem").unwrap());
        assert!(with("ec_certificate.pem", "ec_key.pem").unwrap());
        for (certificate, key, says) in [
            ("other_certificate.pem", "private_key.pem", "are not usable together"),
            ("certificate.pem", "certificate.pem", "holds no usable private key"),
            ("certificate.pem", "encrypted_key.pem", "holds no usable private key"),
            ("private_key.pem", "private_key.pem", "holds no usable certificate"),
            ("certificate.pem", "nowhere.pem", "cannot be read"),
        ] {
            let error = with(certificate, key).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
