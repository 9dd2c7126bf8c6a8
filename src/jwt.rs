//! RS256 of `jsonwebtoken` on ring, so that the tree has one crypto provider.
//!
//! `jsonwebtoken` brings the format and asks for the cryptography. Only RS256 is given: IMS takes nothing
//! else (`alg: RS256`, Adobe's page on JWT authentication).

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result, new_error},
    signature::{Error, Signer, Verifier},
};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey},
};

/// Installs the provider for this process; further calls change nothing.
pub fn install() {
    static PROVIDER: CryptoProvider =
        CryptoProvider { signer_factory, verifier_factory, key_utils: KeyUtils::new_unimplemented() };
    // An error says only that it was installed before.
    let _ = PROVIDER.install_default();
}

struct Rs256Signer(RsaKeyPair);

impl JwtSigner for Rs256Signer {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

impl Signer<Vec<u8>> for Rs256Signer {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| Error::new())?;
        Ok(signature)
    }
}

/// Holds the DER of a PKCS#1 `RSAPublicKey`.
struct Rs256Verifier(Vec<u8>);

impl JwtVerifier for Rs256Verifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

impl Verifier<Vec<u8>> for Rs256Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.0)
            .verify(message, signature)
            .map_err(|_| Error::new())
    }
}

fn signer_factory(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    only_rs256(*algorithm)?;
    let pair = RsaKeyPair::from_der(key.as_bytes()).map_err(|_| new_error(ErrorKind::InvalidKeyFormat))?;
    Ok(Box::new(Rs256Signer(pair)))
}

fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    only_rs256(*algorithm)?;
    Ok(Box::new(Rs256Verifier(key.try_get_as_bytes()?.to_vec())))
}

fn only_rs256(algorithm: Algorithm) -> Result<()> {
    if algorithm == Algorithm::RS256 { Ok(()) } else { Err(new_error(ErrorKind::InvalidAlgorithm)) }
}
