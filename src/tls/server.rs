//! TLS of our own listeners: what we show to clients, and what they have to show.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::{self, Ticketer},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{TlsError, add, certificates, private_key};
use crate::config::ServerFiles;

/// One that is made anew when its files change. New connections go by the new one.
pub type Serving = Arc<ArcSwap<ServerConfig>>;

/// What is spoken with clients.
///
/// # Errors
/// When one of the files is unusable.
pub fn server_config(files: &ServerFiles) -> Result<ServerConfig, TlsError> {
    let chain = certificates(CERTIFICATE, &files.certificate)?;
    let private = private_key(KEY, &files.key)?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    // ring serves both versions.
    let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).map_err(unusable)?;
    let builder = builder.with_client_cert_verifier(clients(files)?);
    let mut config = builder.with_single_cert(chain, private).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::NotItsKey {
            key: KEY.to_owned(),
            path: files.key.clone(),
            certificate: files.certificate.clone(),
        },
        _ => TlsError::NoKey { key: KEY.to_owned(), path: files.key.clone() },
    })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    // Its keys are this configuration's own: what is let in by a new one is looked at anew.
    config.ticketer = Ticketer::new().map_err(unusable)?;
    Ok(config)
}

/// The files that [`server_config`] reads.
pub fn server_files(files: &ServerFiles) -> Vec<PathBuf> {
    [&files.certificate, &files.key].into_iter().chain(&files.client_ca).cloned().collect()
}

/// Who is let in by a certificate.
fn clients(files: &ServerFiles) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(path) = &files.client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let mut roots = RootCertStore::empty();
    add(&mut roots, CLIENT_CA, path)?;
    let provider = Arc::new(ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    // There is at least one authority by now.
    builder.build().map_err(|_| TlsError::NoCertificate { key: CLIENT_CA.to_owned(), path: path.clone() })
}

fn unusable(error: rustls::Error) -> TlsError {
    TlsError::Library(error)
}

const CERTIFICATE: &str = "tls.certificate_file";

const KEY: &str = "tls.key_file";

const CLIENT_CA: &str = "tls.client_ca_file";

/// HTTP/2 where the client knows it: a browser has one connection then, and not six (RFC 9113, section 3.2).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
