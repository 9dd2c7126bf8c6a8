//! The upstreams, wired, and TLS towards them and IMS, which follows its files.

use std::sync::Arc;

use rustls::RootCertStore;
use tokio::sync::Notify;
use tracing::info;

use super::{
    StartError, credential,
    ends::Shown,
    keeper::{Fingerprint, Values},
    origin,
};
use crate::{
    config::Config,
    egress::{self, To},
    metrics::Metrics,
    network::descriptors::Descriptors,
    proxy::{Parts, Upstream},
    tls,
};

/// What IMS is spoken to with is made anew when `ca_file` changes, whose fingerprint was `tried` before it was read.
pub(super) fn trust(config: &Config, tried: Option<Fingerprint>, tls: &tls::Current) -> Option<Values> {
    let (tls, ca_file) = (Arc::clone(tls), config.ca_file.clone());
    Values::of(tls::files(config.ca_file.as_ref(), None), tried, move || {
        tls.store(Arc::new(tls::client_config(tls::roots(ca_file.as_deref())?)?));
        Ok(())
    })
}

/// Every upstream. TLS towards it is made anew when its files change.
pub(super) fn wire(
    config: &Config,
    metrics: &Metrics,
    roots: &Arc<RootCertStore>,
    (told, descriptors): (&Arc<Notify>, &Arc<Descriptors>),
    values: &mut Vec<Values>,
) -> Result<Vec<Arc<Upstream>>, StartError> {
    let mut upstreams = Vec::new();
    for (number, own) in config.upstreams.iter().enumerate() {
        let files = tls::files(config.ca_file.as_ref(), Some(own));
        let tried = Fingerprint::of(&files);
        let tls = Arc::new(tls::upstream_config(roots, own)?);
        if let Some(client) = &own.client {
            credential::warn_of_readers(&client.key);
        }
        let egress = egress::proxy(&config.egress.aem, To::Aem, &own.url)?;
        if let Some(proxy) = &egress {
            info!(upstream = %origin(own), %proxy, "AEM is reached through an egress proxy");
        }
        let parts = Parts {
            tls,
            egress,
            metrics: metrics.upstream(&own.name),
            told: Arc::clone(told),
            descriptors: Arc::clone(descriptors),
        };
        let upstream = Upstream::new(number, own, &config.timeouts, parts)
            .map_err(StartError::internal("the upstream"))?;
        let upstream = Arc::new(upstream);
        if own.url.scheme() == "https" {
            let (upstream, own, ca_file) = (Arc::clone(&upstream), own.clone(), config.ca_file.clone());
            let shown = own.client.as_ref().map(|client| {
                let key = format!("upstreams.{}.client_certificate_file", own.name);
                Shown::of(key, client.certificate.clone())
            });
            let read = Values::of(files, tried, move || {
                let roots = tls::roots(ca_file.as_deref())?;
                upstream.renew_tls(Arc::new(tls::upstream_config(&roots, &own)?));
                Ok(())
            });
            values.extend(read.map(|read| read.warning_of(shown)));
        }
        upstreams.push(upstream);
    }
    Ok(upstreams)
}
