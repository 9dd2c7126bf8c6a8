//! Which paths a route is for.

use std::{fmt, str::FromStr};

/// The beginning of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// All paths.
    pub fn all() -> Self {
        Self("/".to_owned())
    }

    /// Whether `path`, with its query or without, is the same, or below, or the same resource with selectors, an
    /// extension or parameters: `/api/assets` is for `/api/assets.json` and `/api/assets/x`, and not for
    /// `/api/assetstore`. `/adobe/` is for what is below alone.
    ///
    /// Unreserved characters may be percent-encoded: AEM reads `/%61dobe` as `/adobe` (RFC 3986, section 6.2.2.2).
    pub fn covers(&self, path: &[u8]) -> bool {
        let mut rest = path;
        for expected in self.0.bytes() {
            match first_byte(rest) {
                Some((byte, after)) if byte == expected => rest = after,
                _ => return false,
            }
        }
        let next = first_byte(rest).map(|(byte, _)| byte);
        self.0.ends_with('/') || matches!(next, None | Some(b'/' | b'.' | b';' | b'?'))
    }

    /// The same for a path that was read already (`policy::Path`): nothing in it is encoded, and it has no query.
    pub fn covers_reading(&self, path: &[u8]) -> bool {
        let Some(rest) = path.strip_prefix(self.0.as_bytes()) else { return false };
        self.0.ends_with('/') || matches!(rest.first(), None | Some(b'/' | b'.' | b';'))
    }
}

/// The first byte of a path, decoded where that changes nothing but the spelling.
fn first_byte(path: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |at: usize| path.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    if path.first() == Some(&b'%')
        && let (Some(high), Some(low)) = (digit(1), digit(2))
    {
        let byte = (high * 16 + low) as u8;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            return Some((byte, &path[3..]));
        }
    }
    path.split_first().map(|(byte, rest)| (*byte, rest))
}

impl FromStr for Prefix {
    type Err = &'static str;

    /// `/*` at the end says the same as `/` to many.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_suffix('*').unwrap_or(text);
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#*%".contains(&byte));
        if text.starts_with('/') && plain {
            Ok(Self(text.to_owned()))
        } else {
            Err("is not the prefix of a path")
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_a_resource_does() {
        for (prefix, path, covered) in [
            ("/", "/", true),
            ("/", "/anything?x", true),
            ("/adobe/*", "/adobe/sites", true),
            ("/adobe/", "/adobe", false),
            ("/adobe", "/adobe", true),
            ("/adobe", "/adobe?x=1", true),
            ("/adobe", "/adobes", false),
            ("/api/assets", "/api/assets.json", true),
            ("/api/assets", "/api/assets/a", true),
            ("/api/assets", "/api/assets;v=1", true),
            ("/api/assets", "/api/assetstore", false),
            ("/adobe/", "/%61do%62e/x", true),
            ("/adobe/", "/adobe%2Fx", false),
            ("/adobe/", "/%", false),
            ("/adobe/", "/adobe%", false),
        ] {
            assert_eq!(prefix.parse::<Prefix>().unwrap().covers(path.as_bytes()), covered, "{prefix} {path}");
        }
    }

    #[test]
    fn a_path_that_was_read_is_not_decoded_again() {
        for (prefix, path, covered) in [
            ("/", "/x", true),
            ("/adobe/", "/adobe/x", true),
            ("/adobe/", "/%61dobe/x", false),
            ("/adobe", "/adobe.json", true),
            ("/adobe", "/adobe?x", false),
            ("/adobe", "/adobes", false),
            ("/adobe", "/ADOBE", false),
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(prefix.covers_reading(path.as_bytes()), covered, "{prefix} {path}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in ["", "adobe", "/a?b", "/a#b", "/a*b", "/a b", "/%61", "*"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
