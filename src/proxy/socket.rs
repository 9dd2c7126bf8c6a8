//! The client's end of a connection, as the engine sees it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    http2::{HTTP_2, Inbound},
    sealed::Sealed,
    streams::ClientStreams,
};
use crate::listener::Stream;

/// Where a client's requests come from.
pub(super) enum Socket {
    /// A connection of its own.
    Own(Stream),
    /// The same over TLS.
    Sealed(Box<Sealed>),
    /// A stream of an HTTP/2 connection, with one request.
    Shared(Box<Inbound>),
    /// None any more: the connection has turned out to be HTTP/2.
    Nowhere,
}

impl Socket {
    /// Whether it is a connection, rather than a stream of one.
    pub(super) fn is_connection(&self) -> bool {
        matches!(self, Self::Own(_) | Self::Sealed(_))
    }

    /// Whether its first bytes may be those of HTTP/2: on a connection without TLS where the proxy is told to expect it
    /// (`prior_knowledge`), over TLS where it was negotiated.
    pub(super) fn may_be_http2(&self, prior_knowledge: bool) -> bool {
        match self {
            Self::Own(_) => prior_knowledge,
            Self::Sealed(sealed) => sealed.has_negotiated(HTTP_2),
            Self::Shared(_) | Self::Nowhere => false,
        }
    }

    /// Bytes that a library holds for it, as far as that is known.
    pub(super) fn held(&mut self) -> usize {
        if let Self::Shared(inbound) = self { inbound.held() } else { 0 }
    }

    /// Ready when the client is known to have left, whatever was received before. Of a connection of its own this is not known.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Shared(inbound) = self { inbound.poll_reset(cx).map(drop) } else { Poll::Pending }
    }

    /// Takes a connection away.
    pub(super) fn hand_over(&mut self) -> Self {
        std::mem::replace(self, Self::Nowhere)
    }

    /// The other streams of its connection, where it is a stream.
    pub(super) fn streams(&self) -> Option<&ClientStreams> {
        match self {
            Self::Shared(inbound) => Some(inbound.streams()),
            _ => None,
        }
    }

    /// The client shall not take what it has for whole.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Own(stream) => stream.reset(),
            Self::Sealed(sealed) => sealed.reset(),
            Self::Shared(inbound) => inbound.reset(),
            Self::Nowhere => {}
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Sealed(sealed) => Pin::new(&mut **sealed).poll_read(cx, buf),
            Self::Shared(inbound) => inbound.poll_read(cx, buf),
            Self::Nowhere => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Sealed(sealed) => Pin::new(&mut **sealed).poll_write(cx, buf),
            Self::Shared(inbound) => inbound.poll_write(cx, buf),
            Self::Nowhere => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Sealed(sealed) => Pin::new(&mut **sealed).poll_write_vectored(cx, slices),
            other => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                Pin::new(other).poll_write(cx, first.map_or(&[], |slice| slice))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.is_connection()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // None keeps anything back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Sealed(sealed) => Pin::new(&mut **sealed).poll_shutdown(cx),
            Self::Shared(inbound) => {
                inbound.end();
                Poll::Ready(Ok(()))
            }
            Self::Nowhere => Poll::Ready(Ok(())),
        }
    }
}
