//! What concerns the way to one AEM.

use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use super::ProxyUrl;

/// One AEM.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// An origin: scheme and authority without a path.
    pub url: Url,
    /// What is spoken where AEM has a choice.
    pub http: HttpVersion,
    /// PEM certificates to trust for this one, beside all others.
    pub ca_file: Option<PathBuf>,
    /// What we show for ourselves.
    pub client: Option<ClientFiles>,
    /// The oldest TLS that is spoken.
    pub min_tls: TlsVersion,
    /// How many requests are there at once; none where it does not matter.
    pub max_in_flight: Option<usize>,
    /// How many wait beside them.
    pub max_queued: usize,
    /// How many connections there are at once; none where it does not matter.
    pub max_connections: Option<usize>,
}

impl Upstream {
    /// The one at `url`, of which nothing else is said.
    pub fn at(name: String, url: Url) -> Self {
        Self {
            name,
            url,
            http: HttpVersion::default(),
            ca_file: None,
            client: None,
            min_tls: TlsVersion::default(),
            max_in_flight: None,
            max_queued: QUEUED,
            max_connections: None,
        }
    }
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct ClientFiles {
    /// The certificate, with those between it and its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What is spoken with AEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    #[serde(rename = "1.1")]
    One,
    /// HTTP/2 where AEM offers it.
    #[serde(rename = "2")]
    Two,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// `[egress]`: the ways out of this network.
#[derive(Debug, Clone)]
pub struct Egress {
    /// To AEM.
    pub aem: Way,
    /// To IMS.
    pub ims: Way,
}

/// One way out.
#[derive(Debug, Clone)]
pub enum Way {
    /// As `HTTPS_PROXY` and `NO_PROXY` say.
    Environment,
    /// Straight.
    Direct,
    /// Through this proxy.
    Proxy(ProxyUrl),
}

/// As many as a browser app with a slow page of many images.
pub(super) const QUEUED: usize = 100;
