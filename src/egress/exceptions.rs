//! `NO_PROXY`: what is reached directly. There is no standard for it, so every form is read that people write for curl, Go,
//! Python, Java and Windows.

use std::net::IpAddr;

use http::Uri;

/// The entries of a list that are understood.
pub(super) struct Exceptions {
    entries: Vec<Entry>,
    /// The positions of those that are not, from 1.
    pub(super) unknown: Vec<usize>,
}

/// One entry, and the port that it is for; none where it is for all.
struct Entry {
    hosts: Hosts,
    port: Option<u16>,
}

enum Hosts {
    /// `*`.
    All,
    /// A name and all below it, in lower case.
    Domain(String),
    /// An address, of which so many bits count.
    Network(IpAddr, u8),
    /// `<local>`, of Windows: names without a dot.
    Local,
}

impl Exceptions {
    /// Reads a list that is separated by commas, semicolons or white space.
    pub(super) fn of(list: &str) -> Self {
        let mut read = Self { entries: Vec::new(), unknown: Vec::new() };
        let separates = |c: char| c == ',' || c == ';' || c.is_whitespace();
        for (number, text) in list.split(separates).filter(|text| !text.is_empty()).enumerate() {
            match Entry::of(text) {
                Some(entry) => read.entries.push(entry),
                None => read.unknown.push(number + 1),
            }
        }
        read
    }

    /// Whether `destination` is reached directly.
    pub(super) fn hold(&self, destination: &Uri) -> bool {
        let host = destination.host().unwrap_or_default().to_ascii_lowercase();
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let implied = if destination.scheme_str() == Some("http") { 80 } else { 443 };
        let port = destination.port_u16().unwrap_or(implied);
        let address = host.parse::<IpAddr>().ok();
        self.entries
            .iter()
            .any(|entry| entry.port.is_none_or(|own| own == port) && entry.hosts.contain(host, address))
    }
}

impl Entry {
    fn of(text: &str) -> Option<Self> {
        let text = text.split_once("://").map_or(text, |(_, rest)| rest.trim_end_matches('/'));
        if let Some(network) = network(text) {
            return Some(Self { hosts: network, port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text, None),
        };
        Some(Self { hosts: network(host).or_else(|| names(host))?, port })
    }
}

/// An address, or a network in CIDR (RFC 4632, section 3.1).
fn network(text: &str) -> Option<Hosts> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address: IpAddr = bare.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some(Hosts::Network(address, bits))
}

fn names(text: &str) -> Option<Hosts> {
    if text == "*" {
        return Some(Hosts::All);
    }
    if text.eq_ignore_ascii_case("<local>") {
        return Some(Hosts::Local);
    }
    // `*.example.com`, `.example.com` and `example.com` are one.
    let name = text.strip_prefix('*').unwrap_or(text).trim_start_matches('.').trim_end_matches('.');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    // What ends in a number is a piece of an address, or one that is wrong.
    let is_name = name.rsplit('.').next().is_some_and(|last| !last.bytes().all(|byte| byte.is_ascii_digit()));
    (is_name && name.bytes().all(plain)).then(|| Hosts::Domain(name.to_ascii_lowercase()))
}

impl Hosts {
    fn contain(&self, host: &str, address: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Local => address.is_none() && !host.contains('.'),
            Self::Domain(name) => {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::Network(network, bits) => {
                address.is_some_and(|address| is_within(address, *network, *bits))
            }
        }
    }
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address.to_canonical(), network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differing = u32::from(address) ^ u32::from(network);
            differing.leading_zeros() >= u32::from(bits)
        }
        (_, IpAddr::V6(network)) => {
            let IpAddr::V6(address) = address else { return false };
            let differing = u128::from(address) ^ u128::from(network);
            differing.leading_zeros() >= u32::from(bits)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_told_by_its_position() {
        for (list, unknown) in [
            ("", &[][..]),
            ("localhost,127.0.0.1,::1,.svc,.cluster.local,10.0.0.0/8,*", &[]),
            ("localhost, 10.*, example.com", &[2]),
            ("192.168.*.*;author-*.example.com", &[1, 2]),
            ("10.0.0.0/33 fd00::/129 10.0.0.0/x 10.0.0", &[1, 2, 3, 4]),
            ("example.com:x,example.com:443", &[1]),
            ("\"example.com\",jane:geheim@example.com", &[1, 2]),
            (",,;  ,", &[]),
        ] {
            assert_eq!(Exceptions::of(list).unknown, unknown, "{list}");
        }
    }
}
