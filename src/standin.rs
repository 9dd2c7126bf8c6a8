//! The IMS and the AEM of `demo` and of the tests: real sockets, real keys, real checks, no Adobe.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rsa::rand_core::{OsRng, RngCore};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::spawn_blocking};

use self::{
    blob::Storage,
    keys::{KeysError, ServiceCredentials, Tls},
    ledger::{Holder, Ledger, Look},
    oauth::OAuthCredential,
    server::Server,
};
use crate::clock::Clock;

pub mod aem;
pub mod blob;
pub mod ims;
pub mod keys;
pub mod ledger;
pub mod oauth;
pub mod pattern;
mod received;
pub mod server;

/// The stand-ins, serving until they are dropped, and all that is needed to talk to them.
pub struct StandIns {
    /// For `ims_endpoint`: `host:port`, or an `http://` URL where there is no TLS; the document has the same.
    pub ims_endpoint: String,
    /// For `upstream`: scheme, host and port.
    pub aem_origin: String,
    /// Where AEM sends clients with their binaries: another origin, which is not to see a token.
    pub blob_origin: String,
    /// The service credentials as Adobe's document, secrets included.
    pub credentials_document: Value,
    /// The OAuth credential that IMS knows beside them, with all its documents.
    pub oauth: OAuthCredential,
    /// The authority to trust; none without TLS.
    pub ca_pem: Option<String>,
    /// That authority, for more certificates.
    pub tls: Option<Tls>,
    /// Faults and counters of IMS.
    pub ims: ims::Switches,
    /// Counters of AEM.
    pub aem: aem::Switches,
    /// Counters of the blob storage.
    pub blob: Storage,
    /// The tokens that live.
    pub ledger: Ledger,
    /// To stop and restart IMS.
    pub ims_server: Server,
    /// To stop and restart AEM.
    pub aem_server: Server,
    /// To stop and restart the blob storage.
    pub blob_server: Server,
    clock: Clock,
}

/// How to start the stand-ins. The default: any ports on loopback, no TLS, tokens as IMS gives them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where IMS listens.
    pub ims: SocketAddr,
    /// Where AEM listens.
    pub aem: SocketAddr,
    /// Where AEM's blob storage listens.
    pub blob: SocketAddr,
    /// DNS names and addresses for which all have a certificate; the first one stands in the URLs. None: no
    /// TLS.
    pub tls_names: Vec<String>,
    /// How long tokens live.
    pub token_lifetime: Duration,
    /// Whether AEM offers HTTP/2 beside HTTP/1.1, where there is TLS.
    pub http2: bool,
    /// Whether AEM lets in only who has a certificate of [`Tls::client_certificate`], where there is TLS.
    pub client_certificates: bool,
    /// Credentials to use, pointed at this IMS; none makes new ones, with a new key.
    pub credentials: Option<ServiceCredentials>,
    /// What they go by.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ims: ([127, 0, 0, 1], 0).into(),
            aem: ([127, 0, 0, 1], 0).into(),
            blob: ([127, 0, 0, 1], 0).into(),
            tls_names: Vec::new(),
            token_lifetime: TOKEN_LIFETIME,
            http2: false,
            client_certificates: false,
            credentials: None,
            clock: Clock::system(),
        }
    }
}

/// Why the stand-ins did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken or not ours.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No keys or certificates.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl StandIns {
    /// Starts them; they are ready when it returns.
    ///
    /// # Errors
    /// When an address cannot be bound, or a name cannot stand in a certificate.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let (ims_listener, ims_addr) = bind(options.ims).await?;
        let (aem_listener, aem_addr) = bind(options.aem).await?;
        let (blob_listener, blob_addr) = bind(options.blob).await?;
        let names: Vec<&str> = options.tls_names.iter().map(String::as_str).collect();
        let tls = if names.is_empty() { None } else { Some(Tls::generate(&names)?) };
        let (aem_origin, blob_origin) = (origin(&names, aem_addr), origin(&names, blob_addr));
        let ims_endpoint = origin(&names, ims_addr).replacen("https://", "", 1);
        let credentials = credentials(options.credentials, &ims_endpoint).await?;

        let ledger = Ledger::new(options.clock.clone(), credentials.client_id(), credentials.id());
        let ims = ims::Switches::new(options.token_lifetime);
        let aem = aem::Switches::default();
        let blob = Storage::new(blob_origin.clone());
        let credentials_document = credentials.document();
        let oauth = OAuthCredential::generate(&ims_endpoint);
        let clock = options.clock;
        let ims_router = ims::router(credentials, oauth.clone(), ledger.clone(), ims.clone(), clock.clone());
        let aem_router = aem::router(hosts(&names, aem_addr), ledger.clone(), aem.clone(), blob.clone());
        let config = || tls.as_ref().map(Tls::server_config);
        let aem_tls = aem_tls(tls.clone(), options.http2, options.client_certificates)?;
        Ok(Self {
            ims_server: Server::serve(ims_router, ims_listener, ims_addr, config()),
            aem_server: Server::serve(aem_router, aem_listener, aem_addr, aem_tls),
            blob_server: Server::serve(blob::router(blob.clone()), blob_listener, blob_addr, config()),
            ca_pem: tls.as_ref().map(|tls| tls.ca_pem().to_owned()),
            tls,
            ims_endpoint,
            aem_origin,
            blob_origin,
            credentials_document,
            oauth,
            ims,
            aem,
            blob,
            ledger,
            clock,
        })
    }

    /// A developer's local token as the AEM Developer Console gives it, alive until its end.
    pub fn local_token(&self, lifetime: Duration) -> String {
        self.local_token_of(self.clock.now(), lifetime)
    }

    /// One that was taken from the console at another time, and lives from then.
    pub fn local_token_of(&self, created_at: SystemTime, lifetime: Duration) -> String {
        let holder = Holder {
            client_id: LOCAL_CLIENT_ID.to_owned(),
            user_id: "ABCDEF0123456789ABCDEF01@AdobeID".to_owned(),
            scope: "openid,AdobeID,read_organizations".to_owned(),
        };
        self.ledger.issue_at(created_at, holder, lifetime, Look::Claims)
    }

    /// The document that the console offers for download with such a token in it.
    pub fn local_token_document(token: &str) -> Value {
        json!({"ok": true, "accessToken": token, "statusCode": 200})
    }
}

async fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = async {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    };
    bound.await.map_err(|source| StartError::Listen { addr, source })
}

/// IMS and the blob storage have what all clients can do.
fn aem_tls(
    tls: Option<Tls>,
    http2: bool,
    client_certificates: bool,
) -> Result<Option<Arc<ServerConfig>>, KeysError> {
    let Some(mut tls) = tls else {
        return Ok(None);
    };
    if http2 {
        tls = tls.offering_http2();
    }
    if client_certificates {
        tls = tls.requiring_client_certificates()?;
    }
    Ok(Some(tls.server_config()))
}

async fn credentials(
    given: Option<ServiceCredentials>,
    ims_endpoint: &str,
) -> Result<ServiceCredentials, StartError> {
    let Some(given) = given else {
        let endpoint = ims_endpoint.to_owned();
        return match spawn_blocking(move || ServiceCredentials::generate(&endpoint)).await {
            Ok(generated) => Ok(generated?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
    };
    Ok(given.at(ims_endpoint))
}

/// Under the first of the names, or without TLS the address.
fn origin(names: &[&str], addr: SocketAddr) -> String {
    match names.first() {
        Some(name) => format!("https://{}", authority(name, addr.port())),
        None => format!("http://{addr}"),
    }
}

/// What AEM answers to: all its names, or without TLS its address.
fn hosts(names: &[&str], addr: SocketAddr) -> Vec<String> {
    if names.is_empty() {
        return vec![addr.to_string(), authority("localhost", addr.port())];
    }
    names.iter().map(|name| authority(name, addr.port())).collect()
}

/// RFC 3986, section 3.2: an IPv6 address is in brackets, HTTPS's own port is left out.
fn authority(name: &str, port: u16) -> String {
    let host = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    if port == HTTPS_PORT { host } else { format!("{host}:{port}") }
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// This many random bytes, at most 32, in lower-case hexadecimal.
fn random_hex(length: usize) -> String {
    random_bytes::<32>().iter().take(length).map(|byte| format!("{byte:02x}")).collect()
}

/// The client for which local tokens are made: the console itself.
pub const LOCAL_CLIENT_ID: &str = "aem-developer-console";
const HTTPS_PORT: u16 = 443;
/// A day less a millisecond, as IMS gives it.
const TOKEN_LIFETIME: Duration = Duration::from_millis(86_399_999);

#[cfg(test)]
mod tests;
