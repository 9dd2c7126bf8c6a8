//! The client for IMS.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use tracing::error;
use url::Url;

use crate::{config::ProxyUrl, egress, network::resolver, tls::Current};

/// How long IMS may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To connect, TCP and TLS.
    pub connect: Duration,
    /// All in all.
    pub total: Duration,
}

/// What requests to IMS are sent with: no redirects (the assertion must not follow one), every wait bounded.
pub struct Http {
    tls: Current,
    limits: Limits,
    egress: Option<ProxyUrl>,
    built: ArcSwap<(Arc<ClientConfig>, reqwest::Client)>,
}

impl Http {
    /// A client that goes by `tls` as it is at each exchange, and through `egress` where there is one.
    ///
    /// # Errors
    /// When the TLS configuration does not suit reqwest, which is a defect of this program.
    pub fn new(tls: Current, limits: Limits, egress: Option<ProxyUrl>) -> reqwest::Result<Self> {
        let config = tls.load_full();
        let client = client(&config, limits, egress.as_ref())?;
        Ok(Self { tls, limits, egress, built: ArcSwap::from_pointee((config, client)) })
    }

    /// The proxy on the way.
    pub fn egress(&self) -> Option<&ProxyUrl> {
        self.egress.as_ref()
    }

    /// No address of IMS, or of the proxy on the way to it, can be connected to.
    pub(super) fn forget_addresses(&self, url: &Url) {
        if let Some(host) = self.egress.as_ref().map_or(url.host_str(), |egress| egress.uri().host()) {
            resolver::process().forget(host);
        }
    }

    pub(super) fn client(&self) -> reqwest::Client {
        let config = self.tls.load_full();
        let built = self.built.load();
        if Arc::ptr_eq(&built.0, &config) {
            return built.1.clone();
        }
        match client(&config, self.limits, self.egress.as_ref()) {
            Ok(client) => {
                self.built.store(Arc::new((config, client.clone())));
                client
            }
            Err(error) => {
                error!(%error, "The client for IMS cannot be made anew, the old one stays");
                built.1.clone()
            }
        }
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("egress", &self.egress).finish_non_exhaustive()
    }
}

fn client(
    tls: &Arc<ClientConfig>,
    limits: Limits,
    egress: Option<&ProxyUrl>,
) -> reqwest::Result<reqwest::Client> {
    egress::through(reqwest::Client::builder(), egress)?
        .tls_backend_preconfigured(ClientConfig::clone(tls))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(limits.connect)
        .timeout(limits.total)
        // An exchange a day: a connection kept would only be found dead.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("aem-auth-proxy/", env!("CARGO_PKG_VERSION")))
        .build()
}
