//! The ways out of this network: through an HTTP proxy, or straight.

use std::fmt;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use secrecy::ExposeSecret;

use crate::config::Way;

/// Decides for each destination.
pub struct Egress(Option<Matcher>);

/// A proxy on the way. No `Debug`: it may hold a password.
pub struct Hop {
    /// Where it is.
    pub uri: Uri,
    /// What it wants to hear in `Proxy-Authorization`.
    pub authorization: Option<HeaderValue>,
}

/// A proxy that is spoken to in a way that is not spoken here.
#[derive(Debug, thiserror::Error)]
#[error(
    "the proxy on the way to AEM is spoken to in {0}, and only http:// is spoken here: set egress.aem_proxy, or HTTPS_PROXY, to a proxy of that kind, or egress.aem_proxy to off"
)]
pub struct UnknownScheme(String);

impl Egress {
    /// The way that the configuration asks for.
    pub fn new(way: &Way) -> Self {
        Self(match way {
            Way::Direct => None,
            Way::Environment => Some(Matcher::from_env()),
            Way::Proxy(url) => Some(Matcher::builder().all(url.expose_secret()).build()),
        })
    }

    /// The proxy on the way to `destination`, if there is one.
    ///
    /// # Errors
    /// When it is none that is spoken to in plain HTTP.
    pub fn to(&self, destination: &Uri) -> Result<Option<Hop>, UnknownScheme> {
        let Some(found) = self.0.as_ref().and_then(|matcher| matcher.intercept(destination)) else {
            return Ok(None);
        };
        let scheme = found.uri().scheme_str().unwrap_or_default();
        if scheme != "http" {
            return Err(UnknownScheme(scheme.to_owned()));
        }
        let authorization = found.basic_auth().cloned();
        Ok(Some(Hop { uri: found.uri().clone(), authorization }))
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.uri.host().unwrap_or_default();
        write!(f, "{host}:{}", self.uri.port_u16().unwrap_or(80))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        let way = Way::Proxy(SecretString::from("http://me:s%40cret@proxy.example:3128"));
        let hop = Egress::new(&way).to(&"https://aem.example".parse().unwrap()).unwrap().unwrap();
        assert_eq!(hop.to_string(), "proxy.example:3128");
        // me:s@cret
        assert_eq!(hop.authorization.unwrap(), "Basic bWU6c0BjcmV0");
        assert!(!hop.uri.to_string().contains("cret"), "{}", hop.uri);
    }

    #[test]
    fn straight_is_straight() {
        assert!(Egress::new(&Way::Direct).to(&"https://aem.example".parse().unwrap()).unwrap().is_none());
    }

    #[test]
    fn other_proxies_are_not_passed_over_in_silence() {
        let way = Way::Proxy(SecretString::from("socks5://proxy.example:1080"));
        assert!(Egress::new(&way).to(&"https://aem.example".parse().unwrap()).is_err());
    }
}
