//! aem-auth-proxy: a local authenticating reverse proxy for Adobe Experience Manager as a Cloud Service.

pub mod clock;
pub mod jwt;
pub mod secret;
pub mod standin;
