//! What has to hold whatever comes: one module for each fuzz target, each with a `check` that panics where it does not.
//!
//! The same files are a part of the proxy's own tests (`tests/fuzz_corpus.rs`), which try them on what was found.

pub mod config;
pub mod credentials;
pub mod ims;
pub mod links;
pub mod paths;
pub mod requests;
pub mod responses;

mod cuts;
mod leaks;
mod strict;
