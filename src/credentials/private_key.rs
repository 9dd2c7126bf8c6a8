//! The private key that signs the JWT.

use std::fmt;

use jsonwebtoken::EncodingKey;
use pkcs8::PrivateKeyInfo;
use ring::signature::{KeyPair, RsaKeyPair};
use x509_cert::der::{
    self, Decode, SliceReader,
    asn1::{AnyRef, UintRef},
    oid::db::rfc5912::RSA_ENCRYPTION,
};

use super::pem;
use crate::secret::{Sealed, never};

/// An RSA key of which is known that it can sign.
pub struct PrivateKey {
    /// DER of the `RSAPrivateKey` (RFC 8017, appendix A.1.2).
    der: Sealed,
    public_key: Vec<u8>,
}

never!(PrivateKey: Clone, fmt::Display, serde::Serialize);

/// Why a text is not a private key that can sign for IMS. No message shows anything of the text.
#[derive(Debug, thiserror::Error)]
pub enum PrivateKeyError {
    /// There is no `BEGIN` line, not in base64 either.
    #[error(
        "is neither PEM, nor base64 of PEM, nor the path of a PEM file: copy the key with its \
         `-----BEGIN` and `-----END` lines"
    )]
    NotPem,
    /// The blocks hold other things.
    #[error(
        "is PEM without a private key: put the block there that begins `-----BEGIN RSA PRIVATE KEY-----`"
    )]
    NoPrivateKey,
    /// The key needs a passphrase.
    #[error(
        "is encrypted: store it without its passphrase, as `openssl rsa -traditional -in FILE` writes it"
    )]
    Encrypted,
    /// Another algorithm, or a form of its own.
    #[error(
        "is not an RSA key in PKCS#1 or PKCS#8 form, but elliptic-curve, OpenSSH or another kind: use the \
         key of the AEM Developer Console, IMS takes RSA signatures only"
    )]
    NotRsa,
    /// Signatures with such a key are refused.
    #[error(
        "is an RSA key of {bits} bits, and only {MIN_BITS} to {MAX_BITS} can sign: create a new private key \
         in the AEM Developer Console"
    )]
    Size {
        /// Bits of the modulus.
        bits: usize,
    },
    /// The block is incomplete, or its numbers do not make a key.
    #[error("is cut off or damaged: copy the whole key again, or download the document again")]
    Damaged,
}

impl PrivateKey {
    /// Whether both are the same key.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.public_key == other.public_key
    }

    /// Reads the first private key of a PEM text: PKCS#1 (RFC 8017, appendix A.1.2) or PKCS#8 (RFC 5208),
    /// whatever its line ends, or base64 of such a text.
    ///
    /// # Errors
    /// When there is no such key, or one that cannot sign.
    pub fn from_pem(pem: &str) -> Result<Self, PrivateKeyError> {
        let pem = pem::unfold(pem).ok_or(PrivateKeyError::NotPem)?;
        let block = pem::blocks(&pem)
            .find(|block| block.label.ends_with("PRIVATE KEY"))
            .ok_or(PrivateKeyError::NoPrivateKey)?;
        match block.label {
            _ if block.is_encrypted() => Err(PrivateKeyError::Encrypted),
            "RSA PRIVATE KEY" | "PRIVATE KEY" => {
                Self::from_der(&block.der().ok_or(PrivateKeyError::Damaged)?)
            }
            "ENCRYPTED PRIVATE KEY" => Err(PrivateKeyError::Encrypted),
            _ => Err(PrivateKeyError::NotRsa),
        }
    }

    /// The form is seen from the bytes: labels are mixed up where keys are converted by hand.
    fn from_der(der: &[u8]) -> Result<Self, PrivateKeyError> {
        match PrivateKeyInfo::try_from(der) {
            Ok(info) if info.algorithm.oid == RSA_ENCRYPTION => Self::from_pkcs1(info.private_key),
            Ok(_) => Err(PrivateKeyError::NotRsa),
            Err(_) => Self::from_pkcs1(der),
        }
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self, PrivateKeyError> {
        let bits = modulus_bits(der).map_err(|_| PrivateKeyError::Damaged)?;
        if !(MIN_BITS..=MAX_BITS).contains(&bits) {
            return Err(PrivateKeyError::Size { bits });
        }
        let pair = RsaKeyPair::from_der(der).map_err(|_| PrivateKeyError::Damaged)?;
        Ok(Self { der: Sealed::of(&[der]), public_key: pair.public_key().as_ref().to_vec() })
    }

    /// The key as `jsonwebtoken` takes it: a copy for one signature, which wipes itself.
    pub fn signing_key(&self) -> EncodingKey {
        EncodingKey::from_rsa_der(self.der.bytes())
    }

    /// DER of the `RSAPublicKey` that belongs to the key (RFC 8017, appendix A.1.1).
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// The size of the modulus, the second number of an `RSAPrivateKey`. Asked before the key is checked, for
/// the check tells of a wrong size only in words.
fn modulus_bits(der: &[u8]) -> der::Result<usize> {
    let mut numbers = SliceReader::new(AnyRef::from_der(der)?.value())?;
    let _version = u8::decode(&mut numbers)?;
    let modulus = UintRef::decode(&mut numbers)?.as_bytes();
    let leading_zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    Ok(modulus.len() * 8 - leading_zeros)
}

/// Below, a signature is no longer trusted (NIST SP 800-131A) and ring makes none.
const MIN_BITS: usize = 2048;
/// The most that ring signs with.
const MAX_BITS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const PKCS1: &str = include_str!("../../tests/fixtures/private_key.pem");
    const PKCS8: &str = include_str!("../../tests/fixtures/private_key_pkcs8.pem");
    const CERTIFICATE: &str = include_str!("../../tests/fixtures/certificate.pem");

    #[test]
    fn pkcs1_and_pkcs8_give_the_same_key_whatever_their_label() {
        let key = PrivateKey::from_pem(PKCS1).unwrap();
        for (name, pem) in [
            ("PKCS#8", PKCS8.to_owned()),
            ("PKCS#1 labelled as PKCS#8", PKCS1.replace("RSA PRIVATE", "PRIVATE")),
            ("PKCS#8 labelled as PKCS#1", PKCS8.replace("PRIVATE", "RSA PRIVATE")),
            ("behind its certificate", format!("{CERTIFICATE}{PKCS8}")),
            ("behind notes", format!("Bag Attributes\n    friendlyName: one\n{PKCS1}")),
        ] {
            let same = PrivateKey::from_pem(&pem).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(same.public_key(), key.public_key(), "{name}");
            assert_eq!(same.signing_key().as_bytes(), key.signing_key().as_bytes(), "{name}");
        }
    }

    #[test]
    fn a_key_that_cannot_sign_is_refused_with_its_reason() {
        let middle = PKCS1.len() / 2;
        for (name, pem, expected) in [
            ("nothing", "", "is neither PEM"),
            ("a word", "secret", "is neither PEM"),
            ("base64 of something else", "c2VjcmV0", "is neither PEM"),
            ("a certificate", CERTIFICATE, "is PEM without a private key"),
            ("encrypted", include_str!("../../tests/fixtures/encrypted_key.pem"), "is encrypted"),
            (
                "encrypted, the old way",
                include_str!("../../tests/fixtures/encrypted_key_traditional.pem"),
                "is encrypted",
            ),
            ("elliptic curve", include_str!("../../tests/fixtures/ec_key.pem"), "is not an RSA key"),
            (
                "elliptic curve in PKCS#8",
                include_str!("../../tests/fixtures/ec_key_pkcs8.pem"),
                "is not an RSA key",
            ),
            (
                "OpenSSH",
                "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
                "is not an RSA key",
            ),
            (
                "small",
                include_str!("../../tests/fixtures/small_key.pem"),
                "is an RSA key of 1024 bits, and only 2048 to 4096 can sign",
            ),
            ("cut off", &PKCS1[..middle], "is cut off or damaged"),
            (
                "without its middle",
                &format!("{}{}", &PKCS1[..middle - 200], &PKCS1[middle + 200..]),
                "is cut off or damaged",
            ),
            ("one letter off", &PKCS1.replacen("MII", "MIJ", 1), "is cut off or damaged"),
            ("not base64", &PKCS1.replace("MII", "M*I"), "is cut off or damaged"),
            (
                "an empty block",
                "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----",
                "is cut off or damaged",
            ),
        ] {
            let error = PrivateKey::from_pem(pem).expect_err(name).to_string();
            assert!(error.starts_with(expected), "{name}: {error}");
        }
    }

    #[test]
    fn numbers_that_do_not_belong_together_are_no_key() {
        let block = pem::blocks(PKCS1).next().unwrap();
        let mut der = block.der().unwrap();
        let middle = der.len() / 2;
        der[middle] ^= 1;
        assert!(matches!(PrivateKey::from_der(&der), Err(PrivateKeyError::Damaged)));
    }
}
