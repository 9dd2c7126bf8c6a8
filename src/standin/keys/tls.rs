//! Certificates for TLS.

use std::{fmt, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{KeysError, VALIDITY, common_name, yesterday};

/// A TLS identity, and the authority that vouches for it.
#[derive(Clone)]
pub struct Tls {
    ca_pem: String,
    ca: Arc<Issuer<'static, KeyPair>>,
    identity: Arc<Identity>,
    server_config: Arc<ServerConfig>,
}

struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    /// Both in PEM.
    pem: (String, String),
}

impl Tls {
    /// A new authority and a leaf for these DNS names and IP addresses.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn generate(names: &[&str]) -> Result<Self, KeysError> {
        let ca_key = KeyPair::generate()?;
        let ca = ca_params();
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let ca = Issuer::new(ca, ca_key);
        let key = KeyPair::generate()?;
        let leaf = leaf_params(names, ExtendedKeyUsagePurpose::ServerAuth)?.signed_by(&key, &ca)?;
        let pem = (leaf.pem(), key.serialize_pem());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let identity = Identity { certificate: leaf.der().clone(), key, pem };
        let server_config = Arc::new(identity.server_config(None)?);
        Ok(Self { ca_pem, ca: Arc::new(ca), identity: Arc::new(identity), server_config })
    }

    /// The same for listeners that let in only who has a certificate of this authority.
    ///
    /// # Errors
    /// When the authority cannot be one for clients.
    pub fn requiring_client_certificates(mut self) -> Result<Self, KeysError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(self.ca_pem.as_bytes()).flatten());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()));
        let mut config = self.identity.server_config(Some(verifier.build()?))?;
        config.alpn_protocols.clone_from(&self.server_config.alpn_protocols);
        self.server_config = Arc::new(config);
        Ok(self)
    }

    /// The same for listeners that speak HTTP/2 too, and rather (RFC 9113, section 3.2).
    #[must_use]
    pub fn offering_http2(mut self) -> Self {
        Arc::make_mut(&mut self.server_config).alpn_protocols.insert(0, b"h2".to_vec());
        self
    }

    /// A client's certificate and its key, in PEM.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn client_certificate(&self) -> Result<(String, String), KeysError> {
        let key = KeyPair::generate()?;
        let params = leaf_params(&[], ExtendedKeyUsagePurpose::ClientAuth)?;
        Ok((params.signed_by(&key, &self.ca)?.pem(), key.serialize_pem()))
    }

    /// The leaf's certificate and its key, in PEM, for a server that reads them from files.
    pub fn server_certificate(&self) -> (String, String) {
        self.identity.pem.clone()
    }

    /// The authority's certificate, for the trust store of a client.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// For a listener.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server_config)
    }
}

impl Identity {
    fn server_config(&self, clients: Option<Arc<dyn ClientCertVerifier>>) -> Result<ServerConfig, KeysError> {
        let config = ServerConfig::builder_with_provider(Arc::new(provider()));
        let config = config.with_safe_default_protocol_versions()?;
        let config = match clients {
            Some(verifier) => config.with_client_cert_verifier(verifier),
            None => config.with_no_client_auth(),
        };
        let mut config = config.with_single_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("aem-auth-proxy stand-in authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = yesterday().into();
    params.not_after = (yesterday() + VALIDITY).into();
    params
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn leaf_params(names: &[&str], purpose: ExtendedKeyUsagePurpose) -> Result<CertificateParams, rcgen::Error> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = common_name("aem-auth-proxy stand-in");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    params.not_before = yesterday().into();
    params.not_after = (yesterday() + VALIDITY).into();
    Ok(params)
}
