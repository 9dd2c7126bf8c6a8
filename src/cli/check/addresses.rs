//! Whether the addresses can be listened at.

use std::io;

use super::report::Report;
use crate::{
    config::{Config, Listen},
    listener::Listener,
};

/// Tries each TCP address for a moment. A Unix socket is left alone: its file would be replaced.
pub(super) fn examine(config: &Config, report: &mut Report) {
    let proxies =
        config.proxies.iter().map(|proxy| (&proxy.listen, proxy.listen_key.as_str(), proxy.name.as_str()));
    let admin = config.admin.listen.on().map(|listen| (listen, "admin.listen", ""));
    for (listen, key, name) in proxies.chain(admin) {
        if matches!(listen, Listen::Unix(_)) {
            continue;
        }
        if let Err(error) = Listener::bind(listen, config.guard.socket_mode, config.listen_reuse_port) {
            tell(listen, key, super::subject(name), &error, report);
        }
    }
}

fn tell(listen: &Listen, key: &str, subject: &str, error: &io::Error, report: &mut Report) {
    let (what, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let text = format!("`{key}` {listen} is in use");
            let hint = format!(
                "right if that is this proxy, running; or else stop what listens there, or change `{key}`"
            );
            return report.warn("listen", subject, text, &hint);
        }
        io::ErrorKind::PermissionDenied => {
            ("may not be listened at by this user", "choose a port above 1023")
        }
        io::ErrorKind::AddrNotAvailable => {
            ("is no address of this machine", "give one that it has, or 127.0.0.1")
        }
        _ => ("cannot be listened at", "give another address"),
    };
    report.wrong("listen", subject, format!("`{key}` {listen} {what} ({error})"), Some(hint.to_owned()));
}
