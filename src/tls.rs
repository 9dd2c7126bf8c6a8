//! TLS towards IMS and AEM, and with clients: rustls on ring. Towards IMS and AEM all trust the system's roots and `ca_file`; an
//! upstream may have more to say.

mod server;
mod system;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tracing::warn;
use x509_cert::der::Decode;
use zeroize::Zeroizing;

pub use self::server::{Serving, server_config, server_files};
use crate::{
    config::{ClientFiles, TlsVersion, Upstream},
    text_file::{self, EncodingError, SAVE_AS_UTF8},
};

/// Which TLS library this is, for `--version`.
pub const PROVIDER: &str = "rustls (ring)";

/// A configuration that is made anew when its files change. New connections go by the new one.
pub type Current = Arc<ArcSwap<ClientConfig>>;

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key} {} cannot be read: {kind}; check the path and who may read it", path.display())]
    Unreadable {
        /// The key that names it.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why.
        kind: std::io::ErrorKind,
    },
    /// A file is no text of PEM's.
    #[error("{key} {} {error}; {SAVE_AS_UTF8}", path.display())]
    Encoding {
        /// The key that names it.
        key: String,
        /// The file.
        path: PathBuf,
        /// What it is.
        error: EncodingError,
    },
    /// A file holds no certificate.
    #[error("{key} {} holds no usable certificate; it wants PEM, -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate {
        /// The key that names it.
        key: String,
        /// The file.
        path: PathBuf,
    },
    /// A file holds no key, or one that is encrypted or of a kind that is not known here.
    #[error(
        "{key} {} holds no usable key; it wants PEM without a passphrase: PKCS #8, PKCS #1 or SEC 1",
        path.display()
    )]
    NoKey {
        /// The key that names it.
        key: String,
        /// The file.
        path: PathBuf,
    },
    /// Each is good, but they do not belong together.
    #[error("{key} {} is not the key of the certificate in {}; take both from one issue", path.display(), certificate.display())]
    NotItsKey {
        /// The key that names the key's file.
        key: String,
        /// The key's file.
        path: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// Nothing to trust at all.
    #[error("no trusted roots were found; install ca-certificates, set SSL_CERT_FILE, or give ca_file")]
    NoRoots,
    /// A defect of this program, or of its machine.
    #[error("TLS cannot be set up: {0}")]
    Library(rustls::Error),
}

/// Makes ring the process's provider, for the libraries that ask for a default; further calls change nothing.
pub fn install() {
    // An error says only that one was installed before.
    let _ = CryptoProvider::install_default(ring::default_provider());
}

/// Whom everybody trusts: the system's roots (`SSL_CERT_FILE` is honoured) and those of `ca_file`. Reading the system's
/// takes longer than all the rest.
///
/// # Errors
/// When `ca_file` is unusable or there is nothing to trust.
pub fn roots(ca_file: Option<&Path>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        add(&mut roots, "ca_file", path)?;
    }
    let system = system::roots();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    if let Some(error) = system.errors.first() {
        warn!(%error, "Some of the system's roots cannot be read");
    }
    Ok(Arc::new(roots))
}

/// A client configuration that trusts `roots`.
///
/// # Errors
/// When there is nothing to trust.
pub fn client_config(roots: Arc<RootCertStore>) -> Result<ClientConfig, TlsError> {
    config(roots, &[&TLS13, &TLS12], None)
}

/// One that can be made anew.
pub fn current(config: ClientConfig) -> Current {
    Arc::new(ArcSwap::from_pointee(config))
}

/// What is spoken with one upstream: whom it trusts beside `roots`, what we show for ourselves, and how old it may be. The
/// sessions that it remembers are resumed, by whichever thread.
///
/// # Errors
/// When one of its files is unusable.
pub fn upstream_config(roots: &Arc<RootCertStore>, upstream: &Upstream) -> Result<ClientConfig, TlsError> {
    let mut roots = Arc::clone(roots);
    if let Some(path) = &upstream.ca_file {
        add(Arc::make_mut(&mut roots), &key(upstream, "ca_file"), path)?;
    }
    let versions: &[&SupportedProtocolVersion] = match upstream.min_tls {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    config(roots, versions, upstream.client.as_ref().map(|files| (upstream, files)))
}

/// The files that [`roots`] and [`upstream_config`] read.
pub fn files(ca_file: Option<&PathBuf>, upstream: Option<&Upstream>) -> Vec<PathBuf> {
    let own = upstream.and_then(|upstream| upstream.ca_file.as_ref());
    let client = upstream.and_then(|upstream| upstream.client.as_ref());
    let client = client.into_iter().flat_map(|files| [&files.certificate, &files.key]);
    ca_file.into_iter().chain(own).chain(client).cloned().collect()
}

/// From when until when a certificate is good (RFC 5280, section 4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: SystemTime,
    /// The last one.
    pub until: SystemTime,
}

/// That of the first certificate in a PEM file, which is the one that is shown; none where there is none.
pub fn validity(file: &Path) -> Option<Validity> {
    let pem = text_file::pem(Zeroizing::new(std::fs::read(file).ok()?)).ok()?;
    let shown = CertificateDer::from_pem_slice(&pem).ok()?;
    let validity = x509_cert::Certificate::from_der(&shown).ok()?.tbs_certificate.validity;
    Some(Validity { from: validity.not_before.to_system_time(), until: validity.not_after.to_system_time() })
}

fn config(
    roots: Arc<RootCertStore>,
    versions: &[&'static SupportedProtocolVersion],
    client: Option<(&Upstream, &ClientFiles)>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    // ring serves both versions: the error cannot happen, and says nothing to a user.
    let builder = builder.with_protocol_versions(versions).map_err(|_| TlsError::NoRoots)?;
    let builder = builder.with_root_certificates(roots);
    let Some((upstream, files)) = client else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(&key(upstream, "client_certificate_file"), &files.certificate)?;
    let (key, path) = (key(upstream, "client_key_file"), files.key.clone());
    let private = private_key(&key, &path)?;
    builder.with_client_auth_cert(chain, private).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::NotItsKey { key, path, certificate: files.certificate.clone() }
        }
        _ => TlsError::NoKey { key, path },
    })
}

fn key(upstream: &Upstream, last: &str) -> String {
    format!("upstreams.{}.{last}", upstream.name)
}

fn add(roots: &mut RootCertStore, key: &str, path: &Path) -> Result<(), TlsError> {
    match roots.add_parsable_certificates(certificates(key, path)?) {
        (0, _) => Err(TlsError::NoCertificate { key: key.to_owned(), path: path.to_owned() }),
        _ => Ok(()),
    }
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(key, path)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().unwrap_or_default();
    if found.is_empty() {
        return Err(TlsError::NoCertificate { key: key.to_owned(), path: path.to_owned() });
    }
    Ok(found)
}

fn private_key(key: &str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(key, path)?)
        .map_err(|_| TlsError::NoKey { key: key.to_owned(), path: path.to_owned() })
}

fn read(key: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let bytes = std::fs::read(path).map_err(|error| TlsError::Unreadable {
        key: key.to_owned(),
        path: path.to_owned(),
        kind: error.kind(),
    })?;
    let encoding = |error| TlsError::Encoding { key: key.to_owned(), path: path.to_owned(), error };
    text_file::pem(Zeroizing::new(bytes)).map_err(encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
    }

    /// What comes of showing these to AEM.
    fn shown(certificate: &Path, key: &Path) -> Result<(), String> {
        let mut upstream = Upstream::at("author".to_owned(), url::Url::parse("https://aem.example").unwrap());
        upstream.client = Some(ClientFiles { certificate: certificate.to_owned(), key: key.to_owned() });
        let config = upstream_config(&Arc::new(RootCertStore::empty()), &upstream);
        config.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_ca_file_that_cannot_be_used_says_why() {
        let missing = roots(Some(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(missing.contains("ca_file /nowhere/ca.pem cannot be read: entity not found"), "{missing}");
        for text in ["not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let empty = roots(Some(file(text).path())).unwrap_err().to_string();
            assert!(empty.contains("holds no usable certificate"), "{empty}");
        }
    }

    #[test]
    fn keys_of_every_form_go_with_their_certificate() {
        for (certificate, key) in [
            ("certificate.pem", "private_key.pem"),
            ("certificate.pem", "private_key_pkcs8.pem"),
            ("ec_certificate.pem", "ec_key.pem"),
            ("ec_certificate.pem", "ec_key_pkcs8.pem"),
        ] {
            assert_eq!(shown(&fixture(certificate), &fixture(key)), Ok(()), "{key}");
        }
    }

    #[test]
    fn a_client_certificate_that_cannot_be_shown_says_which_file_is_wrong() {
        let (certificate, key) = (fixture("certificate.pem"), fixture("private_key.pem"));
        for (certificate, key, words) in [
            (&certificate, &fixture("ec_key.pem"), "ec_key.pem is not the key of the certificate in"),
            (&certificate, &fixture("encrypted_key.pem"), "encrypted_key.pem holds no usable key"),
            (&certificate, &fixture("encrypted_key_traditional.pem"), "holds no usable key"),
            (&certificate, &certificate, "upstreams.author.client_key_file"),
            (&key, &key, "upstreams.author.client_certificate_file"),
            (&certificate, &fixture("nothing.pem"), "nothing.pem cannot be read"),
        ] {
            let error = shown(certificate, key).unwrap_err();
            assert!(error.contains(words) && !error.contains("BEGIN RSA"), "{error}");
        }
    }
}
