//! Variables that Kubernetes sets in each pod for each Service of its namespace: none of ours.

use super::keys::{self, PREFIX};

/// Whether Kubernetes made this variable of a Service whose name begins with `aem-proxy`
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>). A key that is known is ours,
/// whatever its name ends in.
pub(super) fn is_of_service(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    if keys::find(&rest.to_lowercase().replace("__", ".")).is_some() {
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
