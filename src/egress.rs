//! The ways out of this network: which proxy a connection goes through, if any.

mod exceptions;

use std::env;

use http::Uri;
use tracing::warn;
use url::Url;

use self::exceptions::Exceptions;

use crate::{
    config::{ProxyUrl, ProxyUrlError, Way},
    network::{is_loopback, resolver::ProcessResolver},
    secret::SecretString,
};

/// A proxy is set that cannot be used. Going out without it might be what it is there to prevent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {error}: write http://HOST:PORT, or say in {key} which proxy is to be used, or off")]
pub struct EgressError {
    /// The variable that holds it.
    setting: &'static str,
    /// What is wrong with it.
    error: ProxyUrlError,
    /// The key that says otherwise.
    key: &'static str,
}

/// To whom a way leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// AEM.
    Aem,
    /// IMS.
    Ims,
}

impl To {
    /// The key that has the way there.
    fn key(self) -> &'static str {
        match self {
            Self::Aem => "egress.aem_proxy",
            Self::Ims => "egress.ims_proxy",
        }
    }
}

/// The proxy on `way` to `url`. What is on this machine is reached directly, whatever is set.
///
/// # Errors
/// When the proxy that is set cannot be used.
pub fn proxy(way: &Way, to: To, url: &Url) -> Result<Option<ProxyUrl>, EgressError> {
    let key = to.key();
    let Ok(destination) = url.as_str().parse::<Uri>() else { return Ok(None) };
    if is_loopback(url) {
        return Ok(None);
    }
    match way {
        Way::Direct => Ok(None),
        Way::Proxy(proxy) => Ok(Some(proxy.clone())),
        Way::Environment => Environment::read(|name| env::var(name).ok()).proxy(key, &destination),
    }
}

/// A client of reqwest's on this way, whatever the environment says: it was asked before. Names are looked up by the
/// resolver of the process.
///
/// # Errors
/// When the proxy has no address, which is a defect of this program.
pub fn through(
    builder: reqwest::ClientBuilder,
    egress: Option<&ProxyUrl>,
) -> reqwest::Result<reqwest::ClientBuilder> {
    let builder = builder.no_proxy().dns_resolver(ProcessResolver);
    let Some(egress) = egress else { return Ok(builder) };
    let proxy = reqwest::Proxy::all(egress.uri().to_string())?;
    Ok(builder.proxy(match egress.authorization() {
        Some(value) => proxy.custom_http_auth(value.header()),
        None => proxy,
    }))
}

/// What the environment says, as most programs read it.
struct Environment {
    /// The variable, and its value, which may hold a password.
    proxy: Option<(&'static str, SecretString)>,
    exceptions: String,
}

impl Environment {
    fn read(value: impl Fn(&str) -> Option<String>) -> Self {
        // An empty one hides those behind it of the same name, and says nothing otherwise.
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| value(name).map(|text| (name, text)))
        };
        let set = |names| first(names).filter(|(_, text)| !text.is_empty());
        let proxy = set(["HTTPS_PROXY", "https_proxy"]).or_else(|| set(["ALL_PROXY", "all_proxy"]));
        let exceptions = first(["NO_PROXY", "no_proxy"]).map(|(_, text)| text).unwrap_or_default();
        Self { proxy: proxy.map(|(name, text)| (name, text.into())), exceptions }
    }

    fn proxy(&self, key: &'static str, destination: &Uri) -> Result<Option<ProxyUrl>, EgressError> {
        let Some((setting, secret)) = &self.proxy else { return Ok(None) };
        // Whether this is an exception does not depend on the proxy, which may be none that is known.
        let exceptions = Exceptions::of(&self.exceptions);
        if !exceptions.unknown.is_empty() {
            let entries = &exceptions.unknown;
            warn!(
                ?entries,
                "Some entries of NO_PROXY are not understood and count for nothing: write example.com, example.com:443, \
                 10.0.0.0/8 or *"
            );
        }
        if exceptions.hold(destination) {
            return Ok(None);
        }
        secret.expose_secret().parse().map(Some).map_err(|error| EgressError { setting, error, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AEM: &str = "https://author-p1-e2.adobeaemcloud.com/";

    /// Where a request to `url` goes, and with which credentials.
    fn by_environment(variables: &[(&str, &str)], url: &str) -> Result<Option<String>, EgressError> {
        let value =
            |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        let found = Environment::read(value).proxy("egress.aem_proxy", &url.parse().unwrap())?;
        Ok(found.map(|proxy| match proxy.authorization() {
            Some(value) => format!("{proxy} {}", value.header().to_str().unwrap()),
            None => proxy.to_string(),
        }))
    }

    #[test]
    fn the_environment_says_which_proxy_as_for_other_programs() {
        for (variables, proxy) in [
            (&[][..], None),
            (&[("HTTPS_PROXY", "http://one:1")], Some("one:1")),
            (&[("https_proxy", "one:1")], Some("one:1")),
            (&[("ALL_PROXY", "http://one:1/")], Some("one:1")),
            (&[("HTTPS_PROXY", "http://one:1"), ("ALL_PROXY", "http://two:2")], Some("one:1")),
            (&[("HTTPS_PROXY", "http://one:1"), ("https_proxy", "http://two:2")], Some("one:1")),
            (&[("HTTPS_PROXY", ""), ("https_proxy", "http://two:2")], None),
            (&[("HTTPS_PROXY", ""), ("all_proxy", "http://two:2")], Some("two:2")),
            (&[("HTTP_PROXY", "http://one:1")], None),
            (
                &[("HTTPS_PROXY", "http://Aladdin:open%20sesame@one:1")],
                Some("one:1 Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ),
        ] {
            assert_eq!(by_environment(variables, AEM), Ok(proxy.map(str::to_owned)), "{variables:?}");
        }
    }

    #[test]
    fn user_information_ends_at_the_last_at_sign_and_is_percent_decoded() {
        use base64::{Engine, engine::general_purpose::STANDARD};

        for (value, pair) in [
            ("http://jane@corp.example:geheim@one:1", "jane@corp.example:geheim"),
            ("http://jane:geh#eim@one:1", "jane:geh#eim"),
            ("http://jane:geh/eim@one:1/", "jane:geh/eim"),
            ("http://jane:geh?eim@one:1", "jane:geh?eim"),
            ("http://jane:12/geheim@one:1", "jane:12/geheim"),
            ("jane:geh://eim@one:1", "jane:geh://eim"),
            ("http://jane:100%@one:1", "jane:100%"),
            ("http://jane:ge:heim@one:1", "jane:ge:heim"),
            ("http://CORP\\jane:geh\\eim@one:1", "CORP\\jane:geh\\eim"),
            ("http://jane:%C3%BC%40%3a@one:1", "jane:ü@:"),
            ("http://jane:geheim@one:1\r\n", "jane:geheim"),
        ] {
            let found = by_environment(&[("HTTPS_PROXY", value)], AEM);
            let expected = format!("one:1 Basic {}", STANDARD.encode(pair));
            assert_eq!(found, Ok(Some(expected)), "{value}");
        }
    }

    #[test]
    fn exceptions_are_reached_directly() {
        for (exceptions, direct) in [
            ("adobeaemcloud.com", true),
            (".adobeaemcloud.com", true),
            ("localhost, author-p1-e2.adobeaemcloud.com", true),
            ("*", true),
            ("*.adobeaemcloud.com", true),
            ("*adobeaemcloud.com", true),
            ("Author-P1-E2.AdobeAEMCloud.com.", true),
            ("author-p1-e2.adobeaemcloud.com:443", true),
            (".adobeaemcloud.com:443", true),
            ("author-p1-e2.adobeaemcloud.com:8443", false),
            ("a.example adobeaemcloud.com", true),
            ("a.example;adobeaemcloud.com", true),
            (" a.example ,\t*.adobeaemcloud.com ", true),
            ("https://author-p1-e2.adobeaemcloud.com/", true),
            ("*.com", true),
            ("*.author-p1-e2.adobeaemcloud.com", true),
            ("*.publish-p1-e2.adobeaemcloud.com", false),
            ("author-*.adobeaemcloud.com", false),
            ("<local>", false),
            ("aemcloud.com", false),
            ("publish-p1-e2.adobeaemcloud.com", false),
            ("", false),
        ] {
            for proxy in ["http://one:1", "socks5://one:1"] {
                let found = by_environment(&[("HTTPS_PROXY", proxy), ("NO_PROXY", exceptions)], AEM);
                assert_eq!(found == Ok(None), direct, "{exceptions}");
            }
        }
        let variables = [("HTTPS_PROXY", "http://one:1"), ("no_proxy", "10.0.0.0/8,fd00::/8")];
        assert_eq!(by_environment(&variables, "https://10.1.2.3/"), Ok(None));
        assert_eq!(by_environment(&variables, "https://[fd00::1]/"), Ok(None));
        assert_eq!(by_environment(&variables, "https://11.1.2.3/"), Ok(Some("one:1".to_owned())));
        for (exceptions, url, direct) in [
            ("10.1.2.3", "https://10.1.2.3/", true),
            ("10.1.2.3:443", "https://10.1.2.3/", true),
            ("10.1.2.3:8443", "https://10.1.2.3/", false),
            ("10.1.2.3:8443", "https://10.1.2.3:8443/", true),
            ("10.1.2.4/31", "https://10.1.2.5/", true),
            ("10.1.2.4/31", "https://10.1.2.6/", false),
            ("0.0.0.0/0", "https://10.1.2.3/", true),
            ("10.0.0.0/33", "https://10.1.2.3/", false),
            ("[fd00::1]", "https://[fd00::1]/", true),
            ("[fd00::1]:443", "https://[fd00::1]/", true),
            ("fd00::1", "https://[fd00::1]/", true),
            ("[fd00::]/8", "https://[fd00::1]/", true),
            ("fd00::/8", "https://10.1.2.3/", false),
            ("<local>", "https://author/", true),
            ("author", "https://author/", true),
        ] {
            let found = by_environment(&[("HTTPS_PROXY", "http://one:1"), ("NO_PROXY", exceptions)], url);
            assert_eq!(found == Ok(None), direct, "{exceptions} {url}: {found:?}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_and_never_passed_by() {
        for value in [
            "https://u:geheim@one:1",
            "socks5://u:geheim@one:1",
            "ftp://one",
            "http://",
            "not a proxy",
            "http://u:geheim",
            "http://u:1/geheim",
            "http://u:geheim@",
            "http://u:geheim@one:1/path",
            "http://u:geheim@one:99999",
            "http://u:geheim%0a@one:1",
            "http://u%3Ageheim@one:1",
        ] {
            let error = by_environment(&[("HTTPS_PROXY", value), ("ALL_PROXY", "http://two:2")], AEM);
            let error = error.unwrap_err().to_string();
            assert!(
                error.starts_with("HTTPS_PROXY is not a proxy") && error.contains("egress.aem_proxy"),
                "{error}"
            );
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn what_is_on_this_machine_is_reached_directly() {
        let way = Way::Proxy("http://u:geheim@one:1".parse().unwrap());
        for url in ["http://localhost:4502", "https://127.0.0.1", "https://[::1]:7"] {
            assert!(proxy(&way, To::Aem, &Url::parse(url).unwrap()).unwrap().is_none(), "{url}");
        }
        let found = proxy(&way, To::Ims, &Url::parse(AEM).unwrap()).unwrap().unwrap();
        assert_eq!(found.to_string(), "one:1");
        assert!(!format!("{found:?} {way:?} {:?}", found.authorization()).contains("geheim"));
        assert!(proxy(&Way::Direct, To::Aem, &Url::parse(AEM).unwrap()).unwrap().is_none());
    }
}
