//! Where IMS is.

use std::str::FromStr;

use url::Url;

use crate::network::{is_loopback, without_root_dot};

/// An IMS address: a host name as in the credentials' `imsEndpoint`, with a port or as a URL where that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    exchange_jwt: Url,
    token: Url,
    authority: String,
    is_loopback: bool,
}

/// What is wrong with an IMS address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither a host nor a URL.
    #[error("is not a host, host:port or URL; write it as ims-na1.adobelogin.com")]
    Invalid,
    /// The client secret would cross the network in the clear.
    #[error("is plain http; write https://, http:// is for loopback only")]
    PlainHttp,
    /// An origin is wanted.
    #[error("has a path, a query or a user; give the host alone")]
    NotAnOrigin,
}

impl Endpoint {
    /// Where assertions are exchanged.
    pub fn exchange_jwt(&self) -> &Url {
        &self.exchange_jwt
    }

    /// Where OAuth credentials are exchanged.
    pub fn token(&self) -> &Url {
        &self.token
    }

    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    /// Host and port as they stand in an assertion's claims, which are `https` whatever the transport.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let url =
            if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("https://{text}")) };
        let url = url.ok().and_then(without_root_dot).ok_or(EndpointError::Invalid)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(EndpointError::Invalid)?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(EndpointError::PlainHttp),
            _ => return Err(EndpointError::Invalid),
        }
        // An @ anywhere: the parser may take a part of a password for the host, or for a path.
        if text.contains('@') || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointError::NotAnOrigin);
        }
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let exchange_jwt = url.join("/ims/exchange/jwt").map_err(|_| EndpointError::Invalid)?;
        let token = url.join("/ims/token/v3").map_err(|_| EndpointError::Invalid)?;
        Ok(Self { exchange_jwt, token, authority, is_loopback: is_loopback(&url) })
    }
}

/// IMS in production, for documents that do not say where theirs is: the only host in Adobe's libraries beside the one
/// for Adobe's own tests (aio-lib-ims).
pub const DEFAULT_ENDPOINT: &str = "ims-na1.adobelogin.com";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_hosts_with_ports_and_urls_are_taken() {
        for (text, url, authority) in [
            (
                "ims-na1.adobelogin.com",
                "https://ims-na1.adobelogin.com/ims/exchange/jwt",
                "ims-na1.adobelogin.com",
            ),
            ("localhost:8443", "https://localhost:8443/ims/exchange/jwt", "localhost:8443"),
            ("https://ims.example/", "https://ims.example/ims/exchange/jwt", "ims.example"),
            ("http://127.0.0.1:9", "http://127.0.0.1:9/ims/exchange/jwt", "127.0.0.1:9"),
            (
                "ims-na1.adobelogin.com.",
                "https://ims-na1.adobelogin.com/ims/exchange/jwt",
                "ims-na1.adobelogin.com",
            ),
            ("http://localhost.:9/", "http://localhost:9/ims/exchange/jwt", "localhost:9"),
            ("http://[::1]:9", "http://[::1]:9/ims/exchange/jwt", "[::1]:9"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.exchange_jwt().as_str(), endpoint.authority()), (url, authority));
            assert_eq!(endpoint.token().as_str(), url.replace("exchange/jwt", "token/v3"));
        }
    }

    #[test]
    fn what_would_send_the_secret_elsewhere_or_in_the_clear_is_refused() {
        for (text, error) in [
            ("", EndpointError::Invalid),
            ("ims.example..", EndpointError::Invalid),
            ("ftp://ims.example", EndpointError::Invalid),
            ("http://ims.example", EndpointError::PlainHttp),
            ("ims.example/ims", EndpointError::NotAnOrigin),
            ("https://user:pw@ims.example", EndpointError::NotAnOrigin),
            ("https://user:1#pw@ims.example", EndpointError::NotAnOrigin),
            ("https://user#pw@ims.example", EndpointError::NotAnOrigin),
            ("ims.example#", EndpointError::NotAnOrigin),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }
}
