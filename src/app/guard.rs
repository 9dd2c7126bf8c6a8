//! Who may ask the proxies, wired; and what is told of those that more than this machine's apps can reach.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use tracing::warn;

use super::{
    StartError, credential,
    ends::Shown,
    keeper::{Fingerprint, Values},
};
use crate::{
    config::{self, Config, Listen, ServerFiles},
    proxy::{Guard, Known, Secret},
    tls::{self, Serving},
};

/// What makes the guards and the listeners of all proxies.
pub(super) struct Door {
    secret: Option<Secret>,
    pub(super) tls: Option<Serving>,
}

impl Door {
    /// Reads what it is made of, anew when it changes.
    pub(super) fn wire(config: &Config, values: &mut Vec<Values>) -> Result<Self, StartError> {
        let secret = match &config.guard.secret_file {
            None => None,
            Some(path) => {
                let tried = Fingerprint::of(std::slice::from_ref(path));
                let known = Arc::new(ArcSwap::from_pointee(shared_secret(path)?));
                let (store, path) = (Arc::clone(&known), path.clone());
                values.extend(Values::of(vec![path.clone()], tried, move || {
                    store.store(Arc::new(shared_secret(&path)?));
                    Ok(())
                }));
                Some(Secret::new(config.guard.secret_header.clone(), known))
            }
        };
        let tls = config.tls.as_ref().map(|files| serving(files, values)).transpose()?;
        Ok(Self { secret, tls })
    }

    /// The guard of one proxy.
    pub(super) fn guard(&self, config: &config::Guard) -> Guard {
        let guard = Guard::new(&config.allowed_hosts, &config.allowed_origins);
        guard.demanding(self.secret.clone(), &config.socket_uids)
    }
}

/// The secrets of which every request has to show one.
///
/// # Errors
/// When the file is unusable.
pub fn shared_secret(path: &Path) -> Result<Known, StartError> {
    let file = config::Secret::File(path.to_owned());
    let text = credential::read_secret("`guard.secret_file`", &file)?;
    Known::of(text.expose_secret())
        .map_err(|error| StartError::SharedSecret { path: path.display().to_string(), error })
}

fn serving(files: &ServerFiles, values: &mut Vec<Values>) -> Result<Serving, StartError> {
    let paths = tls::server_files(files);
    let tried = Fingerprint::of(&paths);
    let serving = Arc::new(ArcSwap::from_pointee(tls::server_config(files)?));
    credential::warn_of_readers(&files.key);
    let shown = Shown::of("tls.certificate_file".to_owned(), files.certificate.clone());
    let (store, files) = (Arc::clone(&serving), files.clone());
    let read = Values::of(paths, tried, move || {
        store.store(Arc::new(tls::server_config(&files)?));
        Ok(())
    });
    values.extend(read.map(|read| read.warning_of(Some(shown))));
    Ok(serving)
}

/// One loud line for each listener that is more open than usual.
pub(super) fn say_what_is_open(config: &Config) {
    let guard = &config.guard;
    for proxy in &config.proxies {
        let certificates = config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let (listen, tls, secret) = (&proxy.listen, config.tls.is_some(), guard.secret_file.is_some());
        let shows = match (certificates, secret) {
            (false, false) => "",
            (true, false) => " and shows a client certificate",
            (false, true) => " and knows the secret",
            (true, true) => " and shows a client certificate and knows the secret",
        };
        let over = if tls { "over TLS" } else { "over plain HTTP, which is read on its way" };
        if !listen.is_loopback() {
            let policies: BTreeSet<_> =
                proxy.all_routes().map(|route| route.policy.preset().name()).collect();
            warn!(
                proxy = proxy.name, %listen, tls, client_certificates = certificates, secret, ?policies,
                allowed_hosts = ?guard.allowed_hosts, allowed_origins = ?guard.allowed_origins,
                "Open to the network: whoever reaches this address{shows} acts with the proxy's credentials, {over}"
            );
        } else if matches!(listen, Listen::Unix(_))
            && guard.socket_mode & OTHERS != 0
            && guard.socket_uids.is_empty()
        {
            warn!(
                proxy = proxy.name, %listen, secret,
                "Open to every user of this machine: whoever reaches the socket{shows} acts with the proxy's credentials"
            );
        }
    }
    if let Some(listen) = config.admin.listen.on().filter(|listen| !listen.is_loopback()) {
        warn!(%listen, "Open to the network: whoever reaches the admin listener reads status and metrics, which hold no secret");
    }
    if guard.allowed_hosts.iter().any(|host| host == "*") {
        warn!("guard.allowed_hosts lets every Host in: web pages can reach the proxy by DNS rebinding");
    }
}

/// Writing, which is what it takes to connect, for all who are neither owner nor of the group.
const OTHERS: u32 = 0o002;
