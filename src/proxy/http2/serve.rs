//! A client's HTTP/2 connection: each of its streams is served as a connection with one request.

use std::{
    cell::Cell,
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use h2::{Reason, RecvStream, server::Builder, server::SendResponse};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::debug;

use super::{
    Inbound, SEND_BUFFER,
    flow::{Flow, Metered, Stall},
    frames::Frames,
};
use crate::{
    metrics::Ended,
    proxy::{
        Place, Worker,
        buffer::{Buffer, Buffers},
        guard::Local,
        socket::Socket,
        streams::ClientStreams,
    },
};

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

/// A client's socket under the h2 crate, which gets one field block at a time: the heads of requests that were not accepted
/// yet are the crate's, and could be as many as there are streams.
struct Prefixed {
    stream: Socket,
    /// Was read, and is not handed over yet.
    early: Buffer,
    frames: Frames,
    buffers: Rc<Buffers>,
    flow: Rc<Flow>,
    /// A field block was handed over, and not looked at yet.
    paused: Rc<Cell<bool>>,
    /// Bytes that were read since the task of the connection paused last.
    turn: usize,
}

/// A connection as the h2 crate has it.
struct Server {
    connection: h2::server::Connection<Prefixed, Metered>,
    paused: Rc<Cell<bool>>,
}

type Accepted = Option<Result<Received, h2::Error>>;

/// A request, and what answers it.
type Received = (Request<RecvStream>, SendResponse<Metered>);

/// Whether the client has not reset a request.
fn is_awaited((_, respond): &mut Received) -> bool {
    respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_pending()
}

impl Server {
    /// The next request, whose head was the last thing that was read.
    async fn accept(&mut self) -> Accepted {
        poll_fn(|cx| {
            let accepted = self.connection.poll_accept(cx);
            if self.paused.take() && accepted.is_pending() {
                // It was no request's, or the request was refused: on with the next one.
                cx.waker().wake_by_ref();
            }
            accepted
        })
        .await
    }
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
    let Some(own) = worker.proxies.get(proxy) else { return };
    let limits = &own.limits;
    let stopped = Arc::clone(&worker.stopped);
    let mut stopped = pin!(stopped.notified());
    stopped.as_mut().enable();
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.head + limits.head / HEAD_EXTRA).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER);
    place.is_http2();
    let paused = Rc::<Cell<bool>>::default();
    let frames = Frames::new(PREFACE.len());
    let buffers = Rc::clone(&worker.buffers);
    let flow = Flow::new(place.clone());
    let socket = Prefixed {
        stream,
        early,
        frames,
        buffers,
        flow: Rc::clone(&flow),
        paused: Rc::clone(&paused),
        turn: 0,
    };
    let shaken = timeout(limits.timeouts.request_head, builder.handshake(socket)).await;
    let Ok(Ok(connection)) = shaken else { return };
    let mut server = Server { connection, paused };
    let slow_client = limits.timeouts.slow_client.min(limits.timeouts.idle);
    let mut stall = Stall::new(limits.min_rate, slow_client);
    let mut look = interval(stall.every());
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut streams = JoinSet::new();
    let client_streams = ClientStreams::default();
    let mut idle = pin!(tokio::time::sleep(limits.timeouts.keep_alive));
    let mut leaving = worker.is_stopping();
    if leaving {
        server.connection.graceful_shutdown();
    }
    // Requests that came while the tasks of others had not ended yet. A stream that the client has reset counts until its task has
    // seen it (CVE-2023-44487): h2 no longer counts it.
    let mut waiting = VecDeque::new();
    loop {
        while streams.len() < STREAMS as usize
            && let Some((request, respond)) = waiting.pop_front()
        {
            let inbound = Inbound::new(request, respond, &flow, client_streams.clone());
            let inbound = Socket::Shared(Box::new(inbound));
            let own = worker.stream_place(proxy);
            let serving = Rc::clone(&worker).serve_stream(inbound, proxy, local, own.clone());
            own.belongs_to(streams.spawn_local(serving));
        }
        tokio::select! {
            accepted = server.accept() => match accepted {
                Some(Ok((_, mut respond))) if worker.buffers.memory().is_exhausted() => {
                    // It may be sent again (RFC 9113, section 8.7).
                    respond.send_reset(Reason::REFUSED_STREAM);
                    own.metrics.connection_ended(Ended::Memory);
                }
                Some(Ok(request)) => {
                    place.works();
                    waiting.retain_mut(is_awaited);
                    waiting.push_back(request);
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
            now = look.tick() => {
                if stall.is_over(&flow, now) {
                    debug!("A client does not take its answers, closing its HTTP/2 connection");
                    own.metrics.connection_ended(Ended::Slow);
                    break;
                }
            }
            () = &mut idle, if streams.is_empty() => {
                if leaving {
                    break;
                }
                leaving = true;
                server.connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + GOOD_BYE);
            }
            () = &mut stopped, if !leaving => {
                leaving = true;
                server.connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + GOOD_BYE);
            }
        }
    }
    drop(server);
    // They see that the client has left.
    while streams.join_next().await.is_some() {}
}

impl AsyncRead for Prefixed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.paused.get() {
            // Whoever looks at the field block polls again.
            return Poll::Pending;
        }
        ready!(this.buffers.poll_room(cx));
        ready!(this.flow.poll_frames(cx));
        if this.early.is_empty() {
            if this.turn >= TURN_MAX {
                this.turn = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.buffers.equip(&mut this.early);
            let read = this.early.poll_fill(&mut this.stream, cx);
            if this.early.is_empty() {
                this.turn = 0;
                this.buffers.release(&mut this.early);
                return read.map_ok(|_| ());
            }
            this.turn += this.early.len();
        }
        let most = this.early.len().min(buf.remaining());
        let flow = &this.flow;
        let (bytes, ends_block) =
            this.frames.take(&this.early.filled()[..most], |stream| flow.received(stream));
        buf.put_slice(&this.early.filled()[..bytes]);
        this.early.consume(bytes);
        this.buffers.release(&mut this.early);
        this.paused.set(ends_block);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
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

/// What is read in a row before other connections of the thread have their turn: it may be thousands of frames.
const TURN_MAX: usize = 48 * 1024;

/// Requests at once, of one client: as many as a browser's page or a busy app sends.
const STREAMS: u32 = 100;

/// What a client may send of one body before AEM has taken it. It is near: more would not be faster. Any number of uploads
/// that stand still leaves the others their share.
const STREAM_WINDOW: u32 = 128 * 1024;

/// The same for all bodies of a connection together.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;

/// A head that is too large by less gets the answer of the engine, which says what to do; h2's own is a bare 431.
const HEAD_EXTRA: usize = 4;

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
