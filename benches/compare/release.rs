//! The program that users get: what the production image has, without `demo` and its stand-ins.
//!
//! The one that cargo builds beside a bench is not quite that: its libraries have the features that the tests want, such as
//! a clock that can be moved, and they cost something in each request.

use std::{path::PathBuf, process::Command};

use crate::failure::{Context, Failure, Result};

/// Builds it, and says where it is.
///
/// # Errors
/// When cargo cannot be started, or cannot build it.
pub fn build() -> Result<PathBuf> {
    println!("building the release");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--no-default-features",
            "--bin",
            "aem-auth-proxy",
        ])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .status()
        .context("cargo")?;
    if !built.success() {
        return Err(Failure("the release does not build".to_owned()));
    }
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("release").join("aem-auth-proxy");
    if program.is_file() {
        Ok(program)
    } else {
        Err(Failure(format!("{}: nothing there", program.display())))
    }
}
