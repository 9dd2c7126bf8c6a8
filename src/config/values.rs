//! Values as people write them: addresses, durations, sizes.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use figment::value::Value;
use http::HeaderName;
use serde::{Deserialize, Deserializer, de::Error};
use tracing_subscriber::filter::{LevelFilter, Targets};
use url::Url;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// One address.
    Tcp(SocketAddr),
    /// `127.0.0.1` and `::1` at the same port, since clients disagree on what `localhost` is.
    Localhost(u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
            Self::Localhost(_) | Self::Unix(_) => true,
        }
    }
}

impl Listen {
    /// Whether both cannot be listened at. Port 0 is any free one.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let port = |listen: &Self| match listen {
            Self::Tcp(addr) => Some(addr.port()),
            Self::Localhost(port) => Some(*port),
            Self::Unix(_) => None,
        };
        let same_port = port(self).filter(|port| *port != 0) == port(other) && port(other).is_some();
        match (self, other) {
            (Self::Unix(a), Self::Unix(b)) => a == b,
            (Self::Tcp(a), Self::Tcp(b)) => {
                let any = a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
                same_port && (any || a.ip() == b.ip())
            }
            (Self::Localhost(_), Self::Tcp(addr)) | (Self::Tcp(addr), Self::Localhost(_)) => {
                same_port && (addr.ip().is_loopback() || addr.ip().is_unspecified())
            }
            (Self::Localhost(_), Self::Localhost(_)) => same_port,
            _ => false,
        }
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(HOW_TO_LISTEN) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            return port.parse().map(Self::Localhost).map_err(|_| HOW_TO_LISTEN);
        }
        text.parse().map(Self::Tcp).map_err(|_| HOW_TO_LISTEN)
    }
}

const HOW_TO_LISTEN: &str = "is not an address; write IP:PORT, as in 127.0.0.1:8080 or [::1]:8080, or localhost:8080, or unix:/run/proxy.sock";

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Localhost(port) => write!(f, "localhost:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// The mode of a file, as `chmod` takes it.
pub(super) fn mode<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let text = String::deserialize(from)?;
    let digits = text.len() >= 3 && text.bytes().all(|byte| (b'0'..b'8').contains(&byte));
    match u32::from_str_radix(&text, 8) {
        Ok(mode @ ..=0o777) if digits => Ok(mode),
        _ => Err(D::Error::custom("is not the mode of a file; write it as chmod takes it, as in \"0660\"")),
    }
}

/// Numbers of users.
pub(super) fn uids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
    let wrong = |_| {
        D::Error::custom("has what is not the number of a user; give numbers, as `id -u NAME` prints them")
    };
    Vec::<String>::deserialize(from)?.iter().map(|text| text.parse().map_err(wrong)).collect()
}

/// The name of a field.
pub(super) fn field_name<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderName, D::Error> {
    let wrong = |_| D::Error::custom("is not the name of a field; give a name such as X-AEM-Proxy-Secret");
    String::deserialize(from)?.parse().map_err(wrong)
}

/// A value, or `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Optional<T> {
    /// The word `off`.
    Off,
    /// A value.
    On(T),
}

impl<T> Optional<T> {
    /// The value, if there is one.
    pub fn on(&self) -> Option<&T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

impl<'de, T: FromStr<Err = &'static str>> Deserialize<'de> for Optional<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match String::deserialize(from)?.as_str() {
            "off" => Ok(Self::Off),
            text => text.parse().map(Self::On).map_err(D::Error::custom),
        }
    }
}

/// `"30s"`, `"1m 30s"`, `"500ms"`; a bare number is refused, since nobody knows its unit.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    humantime::parse_duration(&String::deserialize(from)?).map_err(|_| {
        D::Error::custom("is not a duration; write a number with its unit, as in \"30s\" or \"500ms\"")
    })
}

/// A duration that is a limit: none at all would fail everything.
pub(super) fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let limit = duration(from)?;
    if limit.is_zero() {
        return Err(D::Error::custom(
            "is zero, and nothing would ever be in time; give a limit, as in \"30s\"",
        ));
    }
    Ok(limit)
}

/// `"16 KiB"`, `"1 MiB"`, `"65536"`; in bytes.
pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let bytes = parse_size(&String::deserialize(from)?)
        .ok_or_else(|| D::Error::custom("is not a size; write it as \"64 KiB\" or \"1 MiB\""))?;
    if bytes < SIZE_MIN {
        return Err(D::Error::custom("is too small for any request; give 4 KiB or more"));
    }
    if bytes > SIZE_MAX {
        return Err(D::Error::custom("is more than any head needs; give 1 MiB or less"));
    }
    Ok(bytes)
}

/// A number of fields in a head.
pub(super) fn fields<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    match String::deserialize(from)?.parse() {
        Ok(fields @ FIELDS_MIN..=FIELDS_MAX) => Ok(fields),
        _ => Err(D::Error::custom("is not a number of fields from 100 to 1000; 100 suits most")),
    }
}

/// A size that may be nothing; in bytes.
pub(super) fn replay<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    match parse_size(&String::deserialize(from)?) {
        None => {
            Err(D::Error::custom("is not a size; write it as \"64 KiB\" or \"1 MiB\", or \"0\" for none"))
        }
        Some(bytes) if bytes > REPLAY_MAX => {
            Err(D::Error::custom("is too much for each of many requests; give 64 MiB or less"))
        }
        Some(bytes) => Ok(bytes),
    }
}

/// Bytes in a second; none is 0.
pub(super) fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    match parse_size(&String::deserialize(from)?) {
        None => Err(D::Error::custom("is not a size; write it as \"240 B\", or \"0\" for none")),
        Some(bytes) if bytes > RATE_MAX => {
            Err(D::Error::custom("is more than a slow network carries; give 1 MiB or less"))
        }
        Some(bytes) => Ok(bytes),
    }
}

/// A memory budget; in bytes.
pub(super) fn memory<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    match parse_size(&String::deserialize(from)?) {
        None => Err(D::Error::custom("is not a size; write it as \"64 MiB\" or \"1 GiB\"")),
        Some(bytes) if bytes < MEMORY_MIN => {
            Err(D::Error::custom("is too small to work with; give 16 MiB or more"))
        }
        Some(bytes) => Ok(bytes),
    }
}

/// A number of connections.
pub(super) fn connections<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    count(from).map(Option::unwrap_or_default)
}

/// A number of things, at least one.
pub(super) fn count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    match String::deserialize(from)?.parse() {
        Ok(count @ 1..=COUNT_MAX) => Ok(Some(count)),
        _ => Err(D::Error::custom("is not a number that makes sense; give 1 or more, or leave it out")),
    }
}

/// What `log.level` says: a level, or levels by module. A lone word has to be a level: as a filter it would name a module that
/// there is not, and silence everything. Filters by span, as in `[span]=debug`, are none.
pub fn log_filter(text: &str) -> Option<Targets> {
    let is_filter = text.contains(['=', ',']) && !text.contains(['[', ']']);
    if !is_filter && text.parse::<LevelFilter>().is_err() {
        return None;
    }
    text.parse().ok()
}

/// More than any system has.
const COUNT_MAX: usize = 1 << 20;

/// In a second.
const RATE_MAX: usize = 1 << 20;

/// There is room for so many in any case.
const FIELDS_MIN: usize = 100;

/// More than any response is known to have, and still parsed in a moment.
const FIELDS_MAX: usize = 1000;

/// Each request in flight may hold as much.
const REPLAY_MAX: usize = 64 << 20;

/// What the process holds by itself, and a few dozen requests.
const MEMORY_MIN: usize = 16 << 20;

/// A request with an access token and a few cookies.
const SIZE_MIN: usize = 4096;

/// Each connection may hold as much: memory stays bounded.
const SIZE_MAX: usize = 1 << 20;

fn parse_size(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// A value in which URLs may carry a password by mistake, without it. User information ends at the last `@`. Of a key that
/// holds URLs alone, what is neither a URL nor a host is not shown at all: any part of it may be a part of the password.
pub(super) fn without_userinfo(value: &Value, holds_urls: bool) -> Value {
    match value {
        Value::String(_, text) => match shown_url(text, holds_urls) {
            Some(shown) => Value::from(shown),
            None => value.clone(),
        },
        Value::Array(_, items) => {
            items.iter().map(|item| without_userinfo(item, holds_urls)).collect::<Vec<_>>().into()
        }
        _ => value.clone(),
    }
}

/// What is shown in place of `text`, if it is not to be shown as it is.
fn shown_url(text: &str, is_url: bool) -> Option<String> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('@') => (Some(scheme), rest),
        _ => (None, text),
    };
    let prefix = scheme.map(|scheme| format!("{scheme}://")).unwrap_or_default();
    match rest.rsplit_once('@') {
        Some((_, host)) if is_url && !is_host(host) => Some(REDACTED.to_owned()),
        Some((_, host)) if is_url || scheme.is_some() => Some(format!("{prefix}{REDACTED}@{host}")),
        None if is_url && !is_host(rest) => Some(REDACTED.to_owned()),
        _ => None,
    }
}

/// Whether a text begins with a host, and with a port if it has one.
fn is_host(text: &str) -> bool {
    let host = text.split(['/', '?', '#']).next().unwrap_or_default();
    text.is_empty() || text == "*" || Url::parse(&format!("http://{host}")).is_ok()
}

/// In place of what is not shown.
pub(super) const REDACTED: &str = "(redacted)";

/// Whether a value that should be a path is what the file should hold: a document, its base64, a key or a token. No
/// directory has a name that long.
pub(super) fn is_no_path(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default().trim();
    let too_long = |name: &str| name.len() > FILE_NAME_MAX;
    text.starts_with('{') || text.contains(['\n', '\r']) || text.split(['/', '\\']).any(too_long)
}

/// `NAME_MAX` of the usual file systems, in bytes.
const FILE_NAME_MAX: usize = 255;

/// A value as it would stand in a TOML file.
pub(super) fn as_toml(value: &Value) -> String {
    match value {
        Value::String(_, text) => toml_edit::Value::from(text.as_str()).to_string(),
        Value::Array(_, items) => {
            let items: Vec<_> = items.iter().map(as_toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Num(_, number) => number
            .to_f64()
            .or_else(|| number.to_i128().map(|n| n as f64))
            .or_else(|| number.to_u128().map(|n| n as f64))
            .unwrap_or_default()
            .to_string()
            // TOML writes them small.
            .to_ascii_lowercase(),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Char(..) | Value::Dict(..) | Value::Empty(..) => "\"?\"".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_form_of_the_contract() {
        for (text, listen) in [
            ("127.0.0.1:8080", Listen::Tcp(([127, 0, 0, 1], 8080).into())),
            ("[::1]:8080", Listen::Tcp("[::1]:8080".parse().unwrap())),
            ("localhost:8080", Listen::Localhost(8080)),
            ("unix:/run/p.sock", Listen::Unix("/run/p.sock".into())),
        ] {
            assert_eq!(text.parse(), Ok(listen.clone()), "{text}");
            assert_eq!(listen.to_string(), text);
        }
        for text in ["8080", ":8080", "localhost", "127.0.0.1", "unix:", "example.com:80", "localhost:99999"]
        {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("16 KiB"), Some(16_384));
        assert_eq!(parse_size("1MiB"), Some(1 << 20));
        assert_eq!(parse_size("512"), Some(512));
        for text in ["", "KiB", "16 kb", "-1", "99999999999999 GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn levels_and_filters_are_taken_and_typing_errors_are_not() {
        for text in ["info", "TRACE", "off", "info,hyper=debug", "aem_auth_proxy=debug"] {
            assert!(log_filter(text).is_some(), "{text}");
        }
        for text in ["lout", "a=b=c", "[request]=debug", "hyper[request]=debug"] {
            assert!(log_filter(text).is_none(), "{text}");
        }
    }
}
