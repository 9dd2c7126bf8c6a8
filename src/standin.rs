//! The IMS and the AEM of `demo` and of the tests: real sockets, real keys, real checks, no Adobe.

use rsa::rand_core::{OsRng, RngCore};

pub mod keys;
pub mod ledger;
pub mod pattern;
pub mod server;

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// This many random bytes, at most 32, in lower-case hexadecimal.
fn random_hex(length: usize) -> String {
    random_bytes::<32>().iter().take(length).map(|byte| format!("{byte:02x}")).collect()
}
