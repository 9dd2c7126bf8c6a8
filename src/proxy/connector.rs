//! New connections to AEM: TCP and TLS within one time limit, and errors that say what died.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{net::TcpStream, time::timeout};
use tower::Service;

use crate::network::Cause;

/// Opens connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connector {
    https: HttpsConnector<HttpConnector>,
    limit: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to AEM")]
pub struct ConnectError {
    pub(super) cause: Cause,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Connector {
    /// `limit` is for TCP and TLS together.
    pub fn new(tls: rustls::ClientConfig, limit: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        // Scheme and TLS are the outer connector's business.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared among the addresses of a name: a dead one leaves time for the others.
        tcp.set_connect_timeout(Some(limit));
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Self { https: https.wrap_connector(tcp), limit }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.https.poll_ready(cx).map_err(ConnectError::new)
    }

    fn call(&mut self, origin: Uri) -> Self::Future {
        let connecting = timeout(self.limit, self.https.call(origin));
        Box::pin(async move {
            match connecting.await {
                Ok(result) => result.map_err(ConnectError::new),
                Err(_) => Err(ConnectError { cause: Cause::TimedOut, source: None }),
            }
        })
    }
}

impl ConnectError {
    fn new(source: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Self { cause: Cause::of(&*source), source: Some(source) }
    }
}

/// Keeps a long upload's connection in the tables of the firewalls on the way.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
