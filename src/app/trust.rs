//! What is trusted and shown in TLS, read anew when its files change.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::ClientConfig;

use super::{
    StartError,
    keeper::{Fingerprint, Values},
};
use crate::{
    config::Config,
    tls::{self, Trust},
};

/// The TLS configurations of the process.
pub(super) struct Trusts {
    /// Of IMS, and of all upstreams that ask for nothing of their own.
    pub(super) common: Trust,
    /// In the order of the upstreams.
    pub(super) upstreams: Vec<Trust>,
}

/// Reads them, and tells what is to be looked after.
pub(super) fn load(config: &Arc<Config>) -> Result<(Trusts, Option<Values>), StartError> {
    let files = files(config);
    let tried = Fingerprint::of(&files);
    let (common, own) = read(config)?;
    let common = Arc::new(ArcSwap::from_pointee(common));
    let own: Vec<_> = own.into_iter().map(|own| own.map(ArcSwap::from_pointee).map(Arc::new)).collect();
    let upstreams = own.iter().map(|own| Arc::clone(own.as_ref().unwrap_or(&common))).collect();
    let values = Values::of(files, tried, {
        let (config, common) = (Arc::clone(config), Arc::clone(&common));
        move || {
            let (new, of_upstreams) = read(&config)?;
            common.store(Arc::new(new));
            for (place, new) in own.iter().zip(of_upstreams) {
                if let (Some(place), Some(new)) = (place, new) {
                    place.store(Arc::new(new));
                }
            }
            Ok(())
        }
    });
    Ok((Trusts { common, upstreams }, values))
}

fn read(config: &Config) -> Result<(ClientConfig, Vec<Option<ClientConfig>>), StartError> {
    let roots = tls::roots(config.ca_file.as_deref())?;
    let own = config.upstreams.iter().map(|upstream| tls::config_for(upstream, &roots));
    let own = own.collect::<Result<_, _>>()?;
    Ok((tls::config(roots)?, own))
}

fn files(config: &Config) -> Vec<PathBuf> {
    config.ca_file.iter().cloned().chain(config.upstreams.iter().flat_map(tls::files)).collect()
}
