//! Puts the commit into the binary, for `--version`: from `AEM_PROXY_COMMIT` (image builds have no `.git`), or git.
//!
//! The commit, and neither the time nor a path nor the name of a machine: the same sources give the same bytes
//! (docs/release.md).

use std::{path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=AEM_PROXY_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    // A path that does not exist would mean: build anew each time. The log of HEAD grows with every commit.
    for path in [".git/HEAD", ".git/logs/HEAD"] {
        if Path::new(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let given = std::env::var("AEM_PROXY_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(git_commit).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=AEM_PROXY_BUILT_FROM={commit}");
}

fn git_commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !commit.is_empty()).then_some(commit)
}
