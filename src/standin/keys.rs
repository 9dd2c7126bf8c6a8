//! Keys and certificates made on the spot: service credentials as the AEM Developer Console hands them
//! out, and a TLS identity with its own authority.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_RSA_SHA256};
use rsa::{
    RsaPrivateKey,
    pkcs1::{DecodeRsaPrivateKey, EncodeRsaPrivateKey, EncodeRsaPublicKey},
    pkcs8::EncodePrivateKey,
    rand_core::OsRng,
};
use rustls::{
    pki_types::{PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::VerifierBuilderError,
};
use serde_json::{Value, json};

use super::random_hex;
use crate::{
    clock::{Clock, unix_seconds},
    secret::SecretString,
};

mod tls;

pub use tls::Tls;

/// Service credentials of the AEM Developer Console (Adobe's page "Generating access tokens for
/// server-side APIs"), with a key and a certificate of their own.
#[derive(Clone)]
pub struct ServiceCredentials {
    ims_endpoint: String,
    client_secret: SecretString,
    org: String,
    id: String,
    email: String,
    private_key: SecretString,
    public_key: Vec<u8>,
    certificate: String,
    expires_at: SystemTime,
}

impl ServiceCredentials {
    /// New credentials with a new RSA key. Finding the primes keeps a core busy for a while: from async
    /// code, call it where blocking is allowed.
    ///
    /// # Errors
    /// When no key or certificate can be made.
    pub fn generate(ims_endpoint: &str) -> Result<Self, KeysError> {
        let key = RsaPrivateKey::new(&mut OsRng, RSA_BITS).map_err(KeysError::Generate)?;
        Self::new(&key, ims_endpoint)
    }

    /// New credentials around a given key, which takes no time; the form of the key is PKCS#1 PEM, as in
    /// Adobe's document.
    ///
    /// # Errors
    /// When the key is in another form, or no certificate can be made.
    pub fn with_key(private_key_pkcs1_pem: &str, ims_endpoint: &str) -> Result<Self, KeysError> {
        Self::new(&parse(private_key_pkcs1_pem)?, ims_endpoint)
    }

    fn new(key: &RsaPrivateKey, ims_endpoint: &str) -> Result<Self, KeysError> {
        let pkcs1 = key.to_pkcs1_der().map_err(|_| KeysError::PrivateKey)?;
        let public = key.to_public_key().to_pkcs1_der().map_err(|_| KeysError::PrivateKey)?;
        let not_before = yesterday();
        let expires_at = not_before + VALIDITY;
        Ok(Self {
            ims_endpoint: ims_endpoint.to_owned(),
            client_secret: format!("p8e-{}", random_hex(16)).into(),
            org: format!("{}@AdobeOrg", random_hex(12).to_uppercase()),
            id: format!("{}@techacct.adobe.com", random_hex(12).to_uppercase()),
            email: format!("{}@techacct.adobe.com", random_uuid()),
            private_key: pem("RSA PRIVATE KEY", pkcs1.as_bytes()).into(),
            public_key: public.as_bytes().to_vec(),
            certificate: self_signed(key, not_before, expires_at)?,
            expires_at,
        })
    }

    /// The same credentials at another IMS.
    #[must_use]
    pub fn at(mut self, ims_endpoint: &str) -> Self {
        ims_endpoint.clone_into(&mut self.ims_endpoint);
        self
    }

    /// The same credentials with a certificate that ends at another time, a year after it began.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn expiring_at(mut self, expires_at: SystemTime) -> Result<Self, KeysError> {
        let key = parse(self.private_key.expose_secret())?;
        let expires_at = UNIX_EPOCH + Duration::from_secs(unix_seconds(expires_at));
        self.certificate = self_signed(&key, expires_at - VALIDITY, expires_at)?;
        self.expires_at = expires_at;
        Ok(self)
    }

    /// The document as the AEM Developer Console offers it for download, secrets included.
    pub fn document(&self) -> Value {
        json!({
            "ok": true,
            "integration": {
                "imsEndpoint": self.ims_endpoint,
                "metascopes": METASCOPES.join(","),
                "technicalAccount": {
                    "clientId": CLIENT_ID,
                    "clientSecret": self.client_secret.expose_secret(),
                },
                "email": self.email,
                "id": self.id,
                "org": self.org,
                "privateKey": self.private_key.expose_secret(),
                "publicKey": self.certificate,
                "certificateExpirationDate": humantime::format_rfc3339_millis(self.expires_at).to_string(),
            },
            "statusCode": 200,
        })
    }

    /// `imsEndpoint`: a host, with its port where that is not 443, or a URL where it is not HTTPS.
    pub fn ims_endpoint(&self) -> &str {
        &self.ims_endpoint
    }

    /// `technicalAccount.clientId`.
    pub fn client_id(&self) -> &str {
        CLIENT_ID
    }

    /// `technicalAccount.clientSecret`.
    pub fn client_secret(&self) -> &SecretString {
        &self.client_secret
    }

    /// `org`, the issuer of assertions.
    pub fn org(&self) -> &str {
        &self.org
    }

    /// `id`, the technical account and the subject of assertions.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The single metascopes.
    pub fn metascopes(&self) -> &'static [&'static str] {
        METASCOPES
    }

    /// The certificate's public key, the DER of a PKCS#1 `RSAPublicKey`.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// When the certificate ends.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}

impl fmt::Debug for ServiceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceCredentials")
            .field("ims_endpoint", &self.ims_endpoint)
            .field("client_id", &CLIENT_ID)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why a key or a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// No RSA key was found.
    #[error("cannot generate an RSA key")]
    Generate(#[source] rsa::Error),
    /// The source is dropped: it may quote the key.
    #[error("the private key is not an RSA key in PKCS#1 PEM")]
    PrivateKey,
    /// A name or a key does not fit into a certificate.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The identity does not fit the provider.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The authority does not fit.
    #[error("cannot verify clients")]
    Verifier(#[from] VerifierBuilderError),
}

fn parse(pkcs1_pem: &str) -> Result<RsaPrivateKey, KeysError> {
    let der = PrivatePkcs1KeyDer::from_pem_slice(pkcs1_pem.as_bytes()).map_err(|_| KeysError::PrivateKey)?;
    RsaPrivateKey::from_pkcs1_der(der.secret_pkcs1_der()).map_err(|_| KeysError::PrivateKey)
}

/// As in Adobe's samples: `CN=<clientId>`, sha256WithRSA, signed by itself.
fn self_signed(key: &RsaPrivateKey, from: SystemTime, to: SystemTime) -> Result<String, KeysError> {
    let pkcs8 = key.to_pkcs8_der().map_err(|_| KeysError::PrivateKey)?;
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(
        &PrivatePkcs8KeyDer::from(pkcs8.as_bytes().to_vec()),
        &PKCS_RSA_SHA256,
    )?;
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(CLIENT_ID);
    params.not_before = from.into();
    params.not_after = to.into();
    Ok(pem("CERTIFICATE", params.self_signed(&pair)?.der()))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// In whole seconds, since certificates know no smaller ones.
fn yesterday() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(Clock::system().unix_seconds()) - DAY
}

/// RFC 7468, with the line ends of Adobe's documents.
fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\r\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(PEM_COLUMNS));
        text.push_str(line);
        text.push_str("\r\n");
        rest = more;
    }
    text.push_str(&format!("-----END {label}-----\r\n"));
    text
}

fn random_uuid() -> String {
    let parts = [4, 2, 2, 2, 6].map(random_hex);
    parts.join("-")
}

/// Adobe's form: program, environment, index of the technical account.
const CLIENT_ID: &str = "cm-p1-e2-integration-0";
/// What current environments hand out.
const METASCOPES: &[&str] = &["ent_aem_cloud_api"];
/// As in Adobe's samples.
const RSA_BITS: usize = 2048;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Exactly a year, as in Adobe's samples.
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// RFC 7468, section 2.
const PEM_COLUMNS: usize = 64;

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::OnceLock;

    use rustls::pki_types::CertificateDer;

    use x509_cert::{Certificate, der::Decode};

    use super::*;

    /// One key for all tests of this room, since making one takes its time.
    pub(crate) fn credentials(ims_endpoint: &str) -> ServiceCredentials {
        static CREDENTIALS: OnceLock<ServiceCredentials> = OnceLock::new();
        let made = CREDENTIALS.get_or_init(|| ServiceCredentials::generate("ims.example").unwrap());
        made.clone().at(ims_endpoint)
    }

    #[test]
    fn the_document_has_the_console_s_form_and_a_certificate_for_a_year() {
        let credentials = credentials("ims.example:8443");
        let document = credentials.document();
        let integration = &document["integration"];
        assert_eq!(integration["imsEndpoint"], "ims.example:8443");
        assert!(
            integration["technicalAccount"]["clientSecret"].as_str().unwrap().starts_with("p8e-"),
            "a secret of the current form"
        );
        let key = integration["privateKey"].as_str().unwrap();
        assert!(key.starts_with("-----BEGIN RSA PRIVATE KEY-----\r\n"));
        assert!(key.lines().all(|line| line.len() <= 64));

        let pem = integration["publicKey"].as_str().unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let certificate = Certificate::from_der(&der).unwrap().tbs_certificate;
        assert_eq!(certificate.subject.to_string(), "CN=cm-p1-e2-integration-0");
        assert_eq!(certificate.subject, certificate.issuer);
        let validity = certificate.validity;
        assert_eq!(validity.not_after.to_unix_duration() - validity.not_before.to_unix_duration(), VALIDITY);
        let bits = certificate.subject_public_key_info.subject_public_key;
        assert_eq!(bits.raw_bytes(), credentials.public_key());
        let until = humantime::parse_rfc3339(integration["certificateExpirationDate"].as_str().unwrap());
        assert_eq!(until.unwrap(), UNIX_EPOCH + validity.not_after.to_unix_duration());
    }

    #[test]
    fn credentials_of_a_given_key_have_that_key_and_another_certificate_if_asked() {
        let first = credentials("ims.example").document();
        let key = first["integration"]["privateKey"].as_str().unwrap();
        let second = ServiceCredentials::with_key(key, "ims.example").unwrap();
        assert_eq!(second.document()["integration"]["privateKey"], key);
        assert_ne!(second.document()["integration"]["id"], first["integration"]["id"]);

        let soon = Clock::system().now() + DAY;
        let ending = second.expiring_at(soon).unwrap();
        assert_eq!(unix_seconds(ending.expires_at()), unix_seconds(soon));
        assert!(matches!(ServiceCredentials::with_key("no key", ""), Err(KeysError::PrivateKey)));
    }

    #[test]
    fn no_secret_is_shown() {
        let credentials = credentials("ims.example");
        let shown = format!("{credentials:?} {:?}", Tls::generate(&["localhost"]).unwrap());
        assert!(!shown.contains("p8e-") && !shown.contains("PRIVATE"), "{shown}");
    }
}
