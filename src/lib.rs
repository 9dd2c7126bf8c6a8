//! aem-auth-proxy: a local authenticating reverse proxy for Adobe Experience Manager as a Cloud Service.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
mod deliberate;
pub mod egress;
#[doc(hidden)]
pub mod fuzzing;
pub mod ims;
pub mod jwt;
pub mod listener;
pub mod memory;
pub mod metrics;
pub mod network;
pub mod policy;
pub mod proxy;
pub mod secret;
pub mod shutdown;
#[cfg(feature = "demo")]
pub mod standin;
mod steps;
pub mod telemetry;
pub mod text_file;
pub mod tls;
pub mod token;

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, or `unknown`.
pub const COMMIT: &str = env!("AEM_PROXY_BUILT_FROM");
