//! The certificate that belongs to the private key. It says when the credentials end.

use std::{fmt, time::SystemTime};

use x509_cert::{
    der::{
        Decode, Tag, Tagged,
        oid::db::{rfc4519::COMMON_NAME, rfc5912::RSA_ENCRYPTION},
    },
    name::Name,
};

use super::pem;

/// What the proxy wants to know of an X.509 certificate (RFC 5280). Its signature is not checked: it is the
/// technical account's own, signed by itself, and IMS is who must trust it.
pub struct Certificate {
    not_before: SystemTime,
    not_after: SystemTime,
    common_name: Option<String>,
    public_key: Vec<u8>,
}

/// Why a text is not a certificate of the kind that IMS knows. No message shows anything of the text.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// There is no `BEGIN` line, not in base64 either.
    #[error(
        "is neither PEM, nor base64 of PEM, nor the path of a PEM file: copy the certificate with its \
         `-----BEGIN` and `-----END` lines, or leave the field out"
    )]
    NotPem,
    /// The blocks hold other things, such as a bare public key.
    #[error(
        "is PEM without a certificate: put the block there that begins `-----BEGIN CERTIFICATE-----`, or \
         leave the field out"
    )]
    NoCertificate,
    /// The block is incomplete, or is not X.509.
    #[error("is cut off or damaged: copy the whole certificate again, or leave the field out")]
    Damaged,
    /// The certificate is about a key of another algorithm.
    #[error(
        "is not about an RSA key: use the certificate of the AEM Developer Console, or leave the field out"
    )]
    NotRsa,
}

impl Certificate {
    /// Reads the first certificate of a PEM text, whatever its line ends, or of base64 of such a text.
    ///
    /// # Errors
    /// When there is no certificate, or one that is not about an RSA key.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        let pem = pem::unfold(pem).ok_or(CertificateError::NotPem)?;
        let block = pem::blocks(&pem)
            .find(|block| block.label == "CERTIFICATE")
            .ok_or(CertificateError::NoCertificate)?;
        Self::from_der(&block.der().ok_or(CertificateError::Damaged)?)
    }

    fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate =
            x509_cert::Certificate::from_der(der).map_err(|_| CertificateError::Damaged)?.tbs_certificate;
        let public_key = certificate.subject_public_key_info;
        if public_key.algorithm.oid != RSA_ENCRYPTION {
            return Err(CertificateError::NotRsa);
        }
        Ok(Self {
            not_before: certificate.validity.not_before.to_system_time(),
            not_after: certificate.validity.not_after.to_system_time(),
            common_name: common_name(&certificate.subject),
            public_key: public_key.subject_public_key.raw_bytes().to_vec(),
        })
    }

    /// From when on the certificate is valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// The last second in which the certificate is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The subject's common name; Adobe puts the client id there.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// DER of the `RSAPublicKey` (RFC 8017, appendix A.1.1).
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .field("common_name", &self.common_name)
            .finish_non_exhaustive()
    }
}

/// The first common name, where it is in a string type that is part of UTF-8.
fn common_name(subject: &Name) -> Option<String> {
    let value = subject.0.iter().flat_map(|part| part.0.iter()).find(|part| part.oid == COMMON_NAME)?;
    match value.value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
            String::from_utf8(value.value.value().to_vec()).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::rfc3339, credentials::PrivateKey};

    const PEM: &str = include_str!("../../tests/fixtures/certificate.pem");
    const KEY: &str = include_str!("../../tests/fixtures/private_key.pem");

    #[test]
    fn a_certificate_says_whose_it_is_how_long_it_holds_and_for_which_key() {
        let certificate = Certificate::from_pem(PEM).unwrap();
        assert_eq!(certificate.common_name(), Some("cm-p1-e2-integration-0"));
        assert_eq!(rfc3339(certificate.not_before()), "2020-01-01T00:00:00Z");
        assert_eq!(rfc3339(certificate.not_after()), "2120-01-01T00:00:00Z");
        assert_eq!(certificate.public_key(), PrivateKey::from_pem(KEY).unwrap().public_key());
    }

    #[test]
    fn what_is_not_a_certificate_is_refused_with_its_reason() {
        for (name, pem, expected) in [
            ("a word", "certificate", "is neither PEM"),
            ("a private key", KEY, "is PEM without a certificate"),
            (
                "a public key",
                "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
                "is PEM without a certificate",
            ),
            ("cut off", &PEM[..PEM.len() / 2], "is cut off or damaged"),
            ("a key in disguise", &KEY.replace("RSA PRIVATE KEY", "CERTIFICATE"), "is cut off or damaged"),
            (
                "elliptic curve",
                include_str!("../../tests/fixtures/ec_certificate.pem"),
                "is not about an RSA key",
            ),
        ] {
            let error = Certificate::from_pem(pem).expect_err(name).to_string();
            assert!(error.starts_with(expected), "{name}: {error}");
        }
    }
}
