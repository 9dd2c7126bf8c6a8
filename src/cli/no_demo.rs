//! `demo` in a build without the feature `demo`: says where to find it.

use std::ffi::OsString;

use clap::Args;

use super::{Failure, Settings};

#[derive(Args)]
pub(super) struct Demo {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Demo {
    /// # Errors
    /// Always.
    pub(super) fn run(self, _: &Settings) -> Result<(), Failure> {
        drop(self.arguments);
        Err(Failure::usage(TEXT))
    }
}

const TEXT: &str = "this build has no stand-ins for IMS and AEM, so there is no `demo`
With the sources: cargo run --release -- demo
As an image: docker build --target demo -t aem-auth-proxy:demo . && docker run --rm aem-auth-proxy:demo demo";
