//! The client's end of a connection, as the engine sees it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http2::Inbound;
use crate::listener::Stream;

/// Where a client's requests come from.
pub(super) enum Socket {
    /// A connection of its own.
    Own(Stream),
    /// A stream of an HTTP/2 connection, with one request.
    Shared(Box<Inbound>),
    /// None any more: the connection has turned out to be HTTP/2.
    Nowhere,
}

impl Socket {
    /// Takes a connection away.
    pub(super) fn hand_over(&mut self) -> Option<Stream> {
        match std::mem::replace(self, Self::Nowhere) {
            Self::Own(stream) => Some(stream),
            Self::Shared(_) | Self::Nowhere => None,
        }
    }

    /// The client shall not take what it has for whole.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Own(stream) => stream.reset(),
            Self::Shared(inbound) => inbound.reset(),
            Self::Nowhere => {}
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Shared(inbound) => inbound.poll_read(cx, buf),
            Self::Nowhere => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Shared(inbound) => inbound.poll_write(cx, buf),
            Self::Nowhere => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Neither keeps anything back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Shared(inbound) => {
                inbound.end();
                Poll::Ready(Ok(()))
            }
            Self::Nowhere => Poll::Ready(Ok(())),
        }
    }
}
