//! A client's HTTP/2 connection: each of its streams is served as a connection with one request.

use std::{
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use h2::server::Builder;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::debug;

use super::{Inbound, SEND_BUFFER};
use crate::proxy::{Place, Worker, buffer::Buffer, guard::Local, socket::Socket, streams::ClientStreams};

/// What a connection begins with on which HTTP/2 is spoken without asking (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Beginning {
    /// It is HTTP/2.
    Http2,
    /// It may become HTTP/2: more has to come.
    Open,
    /// It is something else.
    Other,
}

impl Beginning {
    pub(in crate::proxy) fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(PREFACE) {
            Self::Http2
        } else if PREFACE.starts_with(bytes) {
            Self::Open
        } else {
            Self::Other
        }
    }
}

/// A client's socket, with what was read of it already.
struct Rewound {
    stream: Socket,
    early: Buffer,
}

/// Serves the connection until the client leaves, nobody uses it, or the worker stops; `early` is what was read of it. While there
/// is no stream on it, its `place` may be another's.
pub(in crate::proxy) async fn serve(
    worker: Rc<Worker>,
    proxy: usize,
    (stream, early): (Socket, Buffer),
    local: Local,
    place: &Place,
) {
    let Some(limits) = worker.proxies.get(proxy).map(|proxy| &proxy.limits) else { return };
    let stopped = Arc::clone(&worker.stopped);
    let mut stopped = pin!(stopped.notified());
    stopped.as_mut().enable();
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * STREAMS)
        .max_header_list_size(u32::try_from(limits.head * HEAD_EXTRA).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER);
    let shaken = timeout(limits.timeouts.request_head, builder.handshake(Rewound { stream, early })).await;
    let Ok(Ok(mut connection)) = shaken else { return };
    let mut streams = JoinSet::new();
    let own = ClientStreams::default();
    let mut idle = pin!(tokio::time::sleep(limits.timeouts.keep_alive));
    let mut leaving = worker.is_stopping();
    if leaving {
        connection.graceful_shutdown();
    }
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    place.works();
                    let inbound = Socket::Shared(Box::new(Inbound::new(request, respond, own.clone())));
                    streams.spawn_local(Rc::clone(&worker).serve_stream(inbound, proxy, local));
                }
                Some(Err(error)) => {
                    debug!(%error, "HTTP/2 connection of a client broke off");
                    break;
                }
                None => break,
            },
            Some(_) = streams.join_next() => {
                let now = Instant::now();
                if streams.is_empty() {
                    place.rests(now);
                }
                idle.as_mut().reset(now + limits.timeouts.keep_alive);
            }
            () = &mut idle, if streams.is_empty() => {
                if leaving {
                    break;
                }
                leaving = true;
                connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + GOOD_BYE);
            }
            () = &mut stopped, if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + GOOD_BYE);
            }
        }
    }
    drop(connection);
    // They see that the client has left.
    while streams.join_next().await.is_some() {}
}

impl AsyncRead for Rewound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let bytes = this.early.len().min(buf.remaining());
        buf.put_slice(&this.early.filled()[..bytes]);
        this.early.consume(bytes);
        if this.early.is_empty() {
            this.early = Buffer::default();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Requests at once, of one client: as many as a browser's page or a busy app sends.
const STREAMS: u32 = 128;

/// What a client may send of one body before AEM has taken it. It is near: more would not be faster. Any number of uploads
/// that stand still leaves the others their share.
const STREAM_WINDOW: u32 = 128 * 1024;

/// A head that is too large by less gets the answer of the engine, which says what to do; h2's own is a bare 431.
const HEAD_EXTRA: usize = 2;

/// How long a client may take to say good-bye, or to take the end of its last answer.
const GOOD_BYE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_http_2_once_its_whole_preface_is_there() {
        for end in 1..PREFACE.len() {
            assert_eq!(Beginning::of(&PREFACE[..end]), Beginning::Open, "{end}");
        }
        assert_eq!(Beginning::of(PREFACE), Beginning::Http2);
        assert_eq!(Beginning::of(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"), Beginning::Http2);
        for other in [&b"PROPFIND / HTTP/1.1"[..], b"PRI * HTTP/1.1", b"GET"] {
            assert_eq!(Beginning::of(other), Beginning::Other);
        }
    }
}
