//! A client's connection over TLS. The engine's buffers are of plain text here: records are opened and sealed on the way.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::debug;

use super::Worker;
use crate::listener::Stream;

/// A connection over TLS, on which nothing is kept back: what it has taken has left.
pub(super) struct Sealed {
    tls: TlsStream<Stream>,
    /// Bytes of the writer's that were sealed, and may not have left yet.
    taken: usize,
}

impl Worker {
    /// Shakes hands with a client of a proxy that speaks TLS, in the time that a head may take. `None` when nothing comes of it:
    /// that is nobody's loss but the client's.
    pub(super) async fn shake_hands(self: Rc<Self>, stream: Stream, proxy: usize) -> Option<Sealed> {
        let proxy = self.proxies.get(proxy)?;
        let config = proxy.tls.as_ref()?.load_full();
        let stopped = self.stopped.notified();
        if self.is_stopping() {
            return None;
        }
        let shaking = timeout(proxy.limits.timeouts.request_head, TlsAcceptor::from(config).accept(stream));
        let shaken = tokio::select! {
            shaken = shaking => shaken,
            () = stopped => return None,
        };
        match shaken {
            Ok(Ok(tls)) => Some(Sealed { tls, taken: 0 }),
            Ok(Err(error)) => {
                // Whoever only looks whether somebody is there says nothing that could be wrong.
                if error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some() {
                    proxy.metrics.denied(DENIED);
                }
                debug!(%error, "A client's TLS handshake failed");
                None
            }
            Err(_) => {
                debug!("A client's TLS handshake took too long");
                None
            }
        }
    }
}

impl Sealed {
    /// Whether the client and the proxy have agreed on this protocol (RFC 7301).
    pub(super) fn has_negotiated(&self, protocol: &[u8]) -> bool {
        self.tls.get_ref().1.alpn_protocol() == Some(protocol)
    }

    /// The client shall not take what it has for whole.
    pub(super) fn reset(&self) {
        self.tls.get_ref().0.reset();
    }

    /// Pending until all that was taken has left. The writer comes back with the same bytes, as it would to a socket.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.tls).poll_flush(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.taken)))
    }
}

impl AsyncRead for Sealed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Sealed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.taken == 0 {
            this.taken = ready!(Pin::new(&mut this.tls).poll_write_vectored(cx, slices))?;
        }
        this.poll_left(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_shutdown(cx)
    }
}

/// The label of a connection that ended with its handshake.
const DENIED: &str = "tls";

#[cfg(feature = "demo")]
#[cfg(test)]
mod tests {
    use std::{
        future::{pending, poll_fn},
        sync::Arc,
        time::Duration,
    };

    use rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    };
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
    };
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::standin::keys::Tls;

    /// Both ends of a connection.
    async fn pair() -> (Sealed, tokio_rustls::client::TlsStream<TcpStream>) {
        let identity = Tls::generate(&["localhost"]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(
            CertificateDer::pem_slice_iter(identity.ca_pem().as_bytes()).flatten(),
        );
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(identity.server_config());
        let name = ServerName::try_from("localhost").unwrap();
        let (tls, client) =
            tokio::join!(acceptor.accept(Stream::from(accepted)), connector.connect(name, stream));
        (Sealed { tls: tls.unwrap(), taken: 0 }, client.unwrap())
    }

    #[tokio::test]
    async fn what_was_taken_has_left_though_nobody_asks_again() {
        let (mut sealed, mut client) = pair().await;
        let piece = [b'x'; 16 * 1024];
        let mut taken = 0;
        // Until the sockets are full. None of it is polled any more after that.
        poll_fn(|cx| {
            while let Poll::Ready(bytes) = Pin::new(&mut sealed).poll_write(cx, &piece) {
                taken += bytes.unwrap();
            }
            Poll::Ready(())
        })
        .await;
        assert!(taken > piece.len() && sealed.taken > 0);
        let reading = async {
            let mut unread = taken;
            let mut bytes = vec![0; piece.len()];
            while unread > 0 {
                let read = client.read(&mut bytes).await.unwrap();
                unread = unread.saturating_sub(read);
            }
        };
        tokio::select! {
            () = reading => {}
            () = async { tokio::time::sleep(PATIENCE).await } => panic!("some of it was kept back"),
        }
        // And what was not taken yet is, once.
        let more = async {
            let mut all = vec![0; piece.len() * 2];
            loop {
                assert!(client.read(&mut all).await.unwrap() > 0);
            }
        };
        let write = poll_fn(|cx| Pin::new(&mut sealed).poll_write(cx, &piece));
        tokio::select! {
            bytes = write => assert_eq!(bytes.unwrap(), piece.len()),
            () = more => pending().await,
        }
    }

    const PATIENCE: Duration = Duration::from_secs(20);
}
