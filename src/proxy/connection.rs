//! One client connection, from its first byte to its last.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional},
    time::{Instant, Sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Proxy, Tunnel,
    activity::{Activity, Overdue, look_every},
    error::not_a_request,
};
use crate::{config::Timeouts, listener::Stream};

impl Proxy {
    /// Serves one connection until it ends, or until `stop` and the request in flight then is answered.
    pub async fn serve(self, stream: Stream, stop: CancellationToken) {
        let activity = Arc::new(Activity::new());
        let result = self.converse(stream, &activity, &stop).await;
        if let Err(error) = &result {
            debug!(%error, "Client connection ended early");
            if error.is_parse() && activity.in_head() && activity.refused().is_none() {
                // The preface of HTTP/2 is the one thing that hyper leaves without an answer.
                activity.refuse(400);
            }
        }
        if let Some(tunnel) = activity.take_tunnel() {
            return relay(tunnel, &activity, &self.inner.limits.timeouts).await;
        }
        if let Some(stream) = activity.take_stream() {
            part(stream, &activity, result.is_ok()).await;
        }
    }

    /// HTTP/1.1 until the end. The socket is left with `activity`, so that how to part is decided here and not in
    /// hyper.
    async fn converse(
        &self,
        stream: Stream,
        activity: &Arc<Activity>,
        stop: &CancellationToken,
    ) -> hyper::Result<()> {
        let local = stream.local_ip();
        let limits = &self.inner.limits;
        let socket =
            Watched { stream: Some(stream), activity: Arc::clone(activity), head_max: limits.head as u64 };
        let service = service_fn(|request| {
            activity.request();
            let answer = self.clone().answer(request, Arc::clone(activity), local);
            async { Ok::<_, Infallible>(answer.await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            // Not `pipeline_flush`: with it hyper buffers bodies without a bound.
            // Ours is the limit that is told to the client; hyper's only has to be larger.
            .max_buf_size((limits.head * 2).max(BUFFER_MIN))
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let mut watch = Watch::new(activity, &limits.timeouts);
        let mut stopped = pin!(stop.cancelled());
        let mut stopping = false;
        poll_fn(|cx| {
            if !stopping && stopped.as_mut().poll(cx).is_ready() {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            if stopping && activity.in_head() {
                // A request that is not there yet holds nobody up.
                return Poll::Ready(Ok(()));
            }
            loop {
                if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                    return Poll::Ready(result);
                }
                match ready!(watch.poll(cx)) {
                    Overdue::Idle => connection.as_mut().graceful_shutdown(),
                    Overdue::Response => activity.give_up(),
                    Overdue::Unread => return Poll::Ready(Ok(())),
                    Overdue::Head => {
                        activity.refuse(408);
                        return Poll::Ready(Ok(()));
                    }
                    Overdue::Body => {
                        activity.cut();
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        })
        .await
    }
}

/// One timer for all the waits of a connection.
struct Watch<'a> {
    activity: &'a Activity,
    timeouts: &'a Timeouts,
    timer: Pin<Box<Sleep>>,
    /// Whether the timer knows of the head that is being read.
    head_timed: bool,
}

impl<'a> Watch<'a> {
    fn new(activity: &'a Activity, timeouts: &'a Timeouts) -> Self {
        let timer = Box::pin(tokio::time::sleep(look_every(timeouts)));
        Self { activity, timeouts, timer, head_timed: false }
    }

    /// Ready when something is overdue.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Overdue> {
        // The limit of a head is shorter than the others: a head that is left unfinished is timed at once.
        let in_head = self.activity.in_head();
        if in_head != self.head_timed {
            self.head_timed = in_head;
            if let (true, Ok(due)) = (in_head, self.activity.look(self.timeouts)) {
                self.timer.as_mut().reset(due);
            }
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            match self.activity.look(self.timeouts) {
                Ok(due) => self.timer.as_mut().reset(due),
                Err(overdue) => {
                    self.timer.as_mut().reset(Instant::now() + OVERDUE_PAUSE);
                    return Poll::Ready(overdue);
                }
            }
        }
    }
}

/// Between finding something overdue and looking whether that helped.
const OVERDUE_PAUSE: Duration = Duration::from_secs(1);

/// hyper's least.
const BUFFER_MIN: usize = 8192;

/// A tunnel is bytes both ways until both sides have ended, or none has sent any for `timeouts.idle`.
async fn relay(tunnel: Tunnel, activity: &Activity, timeouts: &Timeouts) {
    let Tunnel { client, upstream, in_flight: _in_flight } = tunnel;
    let Ok((client, upstream)) = tokio::try_join!(client, upstream) else {
        debug!("An upgrade was not completed");
        return;
    };
    let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
    let still = async {
        while let Ok(due) = activity.look(timeouts) {
            tokio::time::sleep_until(due).await;
        }
    };
    tokio::select! {
        copied = copy_bidirectional(&mut client, &mut upstream) => match copied {
            Ok((sent_bytes, received_bytes)) => debug!(sent_bytes, received_bytes, "Tunnel ended"),
            Err(error) => debug!(%error, "Tunnel broke off"),
        },
        () = still => debug!("Tunnel closed, nothing moves in it"),
    }
}

/// Says good-bye so that the client understands: a reset for a message that is not whole, an answer for what was no
/// request, and time to read our last answer for a client that is still sending.
async fn part(mut stream: Stream, activity: &Activity, orderly: bool) {
    if activity.is_cut() {
        return stream.abort();
    }
    if let Some(status) = activity.refused() {
        if timeout(LINGER, stream.write_all(&not_a_request(status))).await.is_err() {
            return;
        }
    } else if !orderly {
        return;
    }
    let said = stream.shutdown().await;
    if said.is_ok() && (activity.refused().is_some() || activity.is_unread()) {
        linger(stream).await;
    }
}

/// Closing a socket with unread bytes resets it, and the reset may overtake our answer (RFC 9112, section 9.6).
async fn linger(mut stream: Stream) {
    let mut unread = vec![0; 16 * 1024];
    let drained = async { while let Ok(Ok(1..)) = timeout(LINGER, stream.read(&mut unread)).await {} };
    let _ = timeout(LINGER_MAX, drained).await;
}

/// How long a client that was answered may be silent before the connection is closed.
const LINGER: Duration = Duration::from_secs(2);

/// How long it may go on sending what nobody reads.
const LINGER_MAX: Duration = Duration::from_secs(10);

/// The client's socket: tells the activity what moves, and comes home when hyper drops it.
struct Watched {
    stream: Option<Stream>,
    activity: Arc<Activity>,
    head_max: u64,
}

impl Watched {
    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Only bytes that were taken have moved: hyper tries again whenever it is woken.
    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        if matches!(result, Poll::Ready(Ok(1..))) {
            self.activity.wrote();
        }
    }

    /// hyper answers what is no request by itself, with a bare status. What it writes while no answer is owed can be
    /// nothing else: it is swallowed, and [`part`] gives our answer.
    fn swallow(&self, bytes: &[u8]) -> bool {
        if !self.activity.owes_nothing() {
            return false;
        }
        let status = bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(status) = status.and_then(|digits| digits.parse().ok()) else { return false };
        self.activity.refuse(status);
        true
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.activity.in_head() && this.activity.head_bytes() > this.head_max {
            this.activity.refuse(431);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        let result = this.stream()?.poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            this.activity.read(bytes);
        }
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.swallow(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = this.stream()?.poll_write(cx, buf);
        this.wrote(&result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bufs.first().is_some_and(|first| this.swallow(first)) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let result = this.stream()?.poll_write_vectored(cx, bufs);
        this.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when all is written; the socket itself holds nothing back.
        self.activity.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.activity.is_tunnel() {
            return this.stream()?.poll_shutdown(cx);
        }
        // Parting is not hyper's business: see `part`.
        Poll::Ready(Ok(()))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.activity.hold_stream(stream);
        }
    }
}
