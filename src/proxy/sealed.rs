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
                if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
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
        let this = self.get_mut();
        if this.taken == 0 {
            this.taken = ready!(Pin::new(&mut this.tls).poll_write(cx, buf))?;
        }
        this.poll_left(cx)
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
