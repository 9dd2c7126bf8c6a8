//! What the environment of a container holds: variables that Kubernetes sets for each Service, which are none of ours, and values
//! as environment files leave them.

use std::ffi::OsStr;

use super::{
    Problem,
    keys::{self, PREFIX},
    sources::Source,
};

/// Whether Kubernetes made this variable of a Service whose name begins with `aem-proxy`
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>). A key that is known is ours,
/// whatever its name ends in.
pub(super) fn is_of_service(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    if keys::find(&path_of(name)).is_some() {
        return false;
    }
    // Where the Service is called `aem-proxy`, nothing stands before the suffix.
    let starts = rest.match_indices('_').map(|(at, _)| at + 1);
    std::iter::once(0).chain(starts).any(|start| is_suffix(&rest[start..], value))
}

/// What Kubernetes puts behind the name of the Service.
fn is_suffix(suffix: &str, value: &str) -> bool {
    if let Some(port) = suffix.strip_prefix("SERVICE_") {
        return port == "HOST" || port == "PORT" || port.starts_with("PORT_");
    }
    match suffix.strip_prefix("PORT") {
        Some("") => PROTOCOLS.iter().any(|protocol| {
            value.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case(protocol))
        }),
        Some(rest) => rest.strip_prefix('_').is_some_and(is_port_and_protocol),
        None => false,
    }
}

/// `80_TCP`, `80_TCP_ADDR` and so on.
fn is_port_and_protocol(text: &str) -> bool {
    let mut parts = text.split('_');
    let (port, protocol, detail) = (parts.next(), parts.next(), parts.next());
    port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
        && protocol.is_some_and(|protocol| PROTOCOLS.contains(&protocol))
        && matches!(detail, None | Some("PROTO" | "PORT" | "ADDR"))
        && parts.next().is_none()
}

/// The protocols of a Service.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// What some readers of environment files leave on a value: quotes, and the CR of a line end. It is never what was meant, but a
/// secret may have quotes, and a document line ends.
pub(super) fn of_environment_file(name: &str, value: &OsStr) -> Option<Problem> {
    let path = path_of(name);
    let key = keys::find(&path);
    let text = value.to_str()?;
    let problem = |what: &str, hint: &str| Problem {
        key: path.clone(),
        source: Some(Source::Variable(name.to_owned())),
        what: what.to_owned(),
        mend: hint.to_owned(),
    };
    let is_document = key.is_some_and(|key| key.name.ends_with("json"));
    if text.ends_with('\r') && !is_document {
        let hint = "the environment file has the line ends of Windows: save it with LF";
        return Some(problem("ends with a carriage return", hint));
    }
    let in_quotes =
        ['"', '\''].iter().any(|quote| text.len() > 1 && text.starts_with(*quote) && text.ends_with(*quote));
    if in_quotes && !key.is_some_and(|key| key.secret) {
        let hint = "remove them: what reads the environment file takes them for a part of the value";
        return Some(problem("stands in quotes", hint));
    }
    None
}

/// The path of the key that a variable stands for.
pub(super) fn path_of(name: &str) -> String {
    name.strip_prefix(PREFIX).unwrap_or("LOG__LEVEL").to_lowercase().replace("__", ".")
}
