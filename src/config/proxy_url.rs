//! URLs of egress proxies, as people write them: the password is often one that a URL cannot hold as it is.

use std::{fmt, str::FromStr};

use http::Uri;
use url::Url;
use zeroize::Zeroizing;

use crate::secret::Authorization;

/// The address of an egress proxy, and the credentials for it. It shows host and port, and nothing else.
#[derive(Clone)]
pub struct ProxyUrl {
    uri: Uri,
    authorization: Option<Authorization>,
}

/// Why a text is not the URL of an egress proxy. It quotes nothing: any part may be a part of the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    /// TLS to the proxy, SOCKS, and others.
    #[error("is not a proxy that is spoken to in plain http")]
    Scheme,
    /// No host, or no port that is one.
    #[error("is not a proxy: no host and port stand behind its last @, or behind http:// where it has none")]
    Authority,
    /// Something stands behind the port.
    #[error("is not a proxy: it has a path or a query")]
    Path,
    /// `Proxy-Authorization` has no way to say it (RFC 7617, section 2).
    #[error(
        "is not a proxy with credentials that can be sent: a user with a colon or a control character in them"
    )]
    Credentials,
}

impl ProxyUrl {
    /// `http://HOST:PORT`, without the credentials.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The value of `Proxy-Authorization`, if the URL has credentials.
    pub fn authorization(&self) -> Option<&Authorization> {
        self.authorization.as_ref()
    }
}

impl FromStr for ProxyUrl {
    type Err = ProxyUrlError;

    /// User information ends at the last `@`, whatever stands before it, and is percent-decoded. What is not a
    /// percent-encoding stays as it is. The scheme may be missing, as in the variables of other programs.
    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let text = text.trim();
        let rest = match scheme(text) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(ProxyUrlError::Scheme),
            None => text,
        };
        let (user_information, authority) = match rest.rsplit_once('@') {
            Some((before, behind)) => (Some(before), behind),
            None => (None, rest),
        };
        let uri = uri(authority)?;
        let authorization = match user_information {
            None | Some("") => None,
            Some(text) => Some(basic(text)?),
        };
        Ok(Self { uri, authorization })
    }
}

/// The scheme, and what stands behind `://` (RFC 3986, section 3.1).
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let begins = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    (begins && scheme.bytes().all(plain)).then_some((scheme, rest))
}

fn uri(authority: &str) -> Result<Uri, ProxyUrlError> {
    if authority.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(ProxyUrlError::Authority);
    }
    let url = Url::parse(&format!("http://{authority}")).map_err(|_| ProxyUrlError::Authority)?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(ProxyUrlError::Path);
    }
    url.origin().ascii_serialization().parse().map_err(|_| ProxyUrlError::Authority)
}

fn basic(user_information: &str) -> Result<Authorization, ProxyUrlError> {
    let (user, password) = user_information.split_once(':').unwrap_or((user_information, ""));
    let (user, password) = (percent_decoded(user), percent_decoded(password));
    if user.contains(&b':') || user.iter().chain(password.iter()).any(u8::is_ascii_control) {
        return Err(ProxyUrlError::Credentials);
    }
    Ok(Authorization::basic_of(&user, &password))
}

fn percent_decoded(text: &str) -> Zeroizing<Vec<u8>> {
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match (first, hex(behind.first()), hex(behind.get(1))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                rest = &behind[2..];
            }
            _ => decoded.push(*first),
        }
    }
    decoded
}

/// Host and port; never the credentials.
impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uri.authority().map_or("", http::uri::Authority::as_str))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use proptest::prelude::*;

    use super::*;

    /// Host and port, and the pair that is sent.
    fn parse(text: &str) -> Result<(String, Option<Vec<u8>>), ProxyUrlError> {
        let parsed: ProxyUrl = text.parse()?;
        let pair = parsed.authorization().map(|value| STANDARD.decode(value.expose_credentials()).unwrap());
        Ok((parsed.to_string(), pair))
    }

    #[test]
    fn host_and_port_are_read_with_and_without_a_scheme() {
        for (text, shown) in [
            ("http://one:3128", "one:3128"),
            ("HTTP://One:3128/", "one:3128"),
            ("one", "one"),
            ("[::1]:3128", "[::1]:3128"),
            ("http://@one:1", "one:1"),
            (" http://one:1\r\n", "one:1"),
        ] {
            assert_eq!(parse(text), Ok((shown.to_owned(), None)), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (text, error) in [
            ("https://one:1", ProxyUrlError::Scheme),
            ("socks5h://jane:x@one:1", ProxyUrlError::Scheme),
            ("", ProxyUrlError::Authority),
            ("http://jane:x@", ProxyUrlError::Authority),
            ("jane:x", ProxyUrlError::Authority),
            ("http://jane:x@one\\two", ProxyUrlError::Authority),
            ("http://jane:x@o ne:1", ProxyUrlError::Authority),
            ("http://one:1/path", ProxyUrlError::Path),
            ("http://jane:1#x", ProxyUrlError::Path),
            ("http://jane%3Ax:y@one:1", ProxyUrlError::Credentials),
            ("http://jane:x%00@one:1", ProxyUrlError::Credentials),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_password_is_sent_as_it_is_and_never_shown(
            user in "[a-z]{1,8}(@[a-z]{1,8})?",
            password in r"QQ[ -~ü€]{0,20}",
            encode in any::<bool>(),
        ) {
            let encoded = if encode {
                password.bytes().map(|byte| format!("%{byte:02x}")).collect()
            } else {
                password.replace('%', "%25")
            };
            let text = format!("http://{user}:{encoded}@one:1");
            let found = parse(&text);
            prop_assert_eq!(found, Ok(("one:1".to_owned(), Some(format!("{user}:{password}").into_bytes()))));
            let shown = format!("{:?}", text.parse::<ProxyUrl>());
            prop_assert!(!shown.contains("QQ"));
            // Without the last @ it is refused, or its beginning is a host: nothing of it is quoted.
            if let Err(error) = parse(&format!("http://one:{encoded}")) {
                prop_assert!(!error.to_string().contains("QQ"));
            }
        }
    }
}
