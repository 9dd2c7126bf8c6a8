//! A connection to AEM that requests share, and the task that moves its frames.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, RecvStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::Request;
use tokio::time::Instant;
use tracing::debug;

use super::{SEND_BUFFER, channel::Channel, io_error};
use crate::proxy::{buffer::Buffers, link::Wire};

/// A connection to AEM. It ends when it is dropped and its last stream is over.
pub(super) struct Connection {
    requests: RefCell<SendRequest<Bytes>>,
    vitals: Rc<Vitals>,
    since: Instant,
}

/// What is known of a connection without asking it.
pub(super) struct Vitals {
    /// Requests that are on it.
    streams: Cell<usize>,
    /// Since when there is none.
    idle: Cell<Instant>,
    /// Something came since this was looked at.
    heard: Cell<bool>,
    /// There is no connection any more.
    over: Cell<bool>,
    /// Responses that are whole, and of which AEM has yet to say so.
    leaving: RefCell<Vec<(RecvStream, Seat)>>,
}

/// A request's place on a connection.
pub(super) struct Seat(Rc<Connection>);

impl Vitals {
    pub(super) fn heard(&self) {
        self.heard.set(true);
    }
}

impl Connection {
    /// Begins to speak HTTP/2 on `wire`, in a task of the thread that ends with the connection.
    pub(super) async fn begin(wire: Wire, buffers: &Rc<Buffers>, head_max: usize) -> io::Result<Rc<Self>> {
        let now = Instant::now();
        let vitals = Rc::new(Vitals {
            streams: Cell::new(0),
            idle: Cell::new(now),
            heard: Cell::new(false),
            over: Cell::new(false),
            leaving: RefCell::default(),
        });
        let channel = Channel::new(wire, Rc::clone(buffers), Rc::clone(&vitals));
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(STREAMS_ASSUMED)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(head_max).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER);
        let (requests, connection) = builder.handshake(channel).await.map_err(io_error)?;
        tokio::task::spawn_local(drive(connection, Rc::clone(&vitals)));
        Ok(Rc::new(Self { requests: RefCell::new(requests), vitals, since: now }))
    }

    /// Whether it takes another request now.
    pub(super) fn has_room(&self) -> bool {
        self.vitals.streams.get() < self.requests.borrow().current_max_send_streams().min(STREAMS_MAX)
    }

    /// Whether it will take another request at some time.
    pub(super) fn is_alive(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        // It is an error once AEM has said that it takes no more.
        !self.vitals.over.get()
            && !matches!(self.requests.borrow_mut().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Whether it has had no request for `idle`, or is older than `age`.
    pub(super) fn is_spent(&self, now: Instant, idle: Duration, age: Duration) -> bool {
        let unused = self.vitals.streams.get() == 0 && now - self.vitals.idle.get() >= idle;
        unused || now - self.since >= age
    }

    /// A place for one request.
    pub(super) fn seat(self: &Rc<Self>) -> Seat {
        self.vitals.streams.set(self.vitals.streams.get() + 1);
        Seat(Rc::clone(self))
    }
}

impl Seat {
    /// Sends a request's head; `last` when there is no body.
    pub(super) fn send(
        &self,
        request: Request<()>,
        last: bool,
    ) -> Result<(ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        // Each request has a handle of its own: a handle waits for the stream that it opened last.
        let mut requests = self.0.requests.borrow().clone();
        requests.send_request(request, last)
    }

    /// Gives up a place whose response is whole, once AEM has said so.
    pub(super) fn leave(self, mut response: RecvStream) {
        let vitals = Rc::clone(&self.0.vitals);
        if !is_over(&mut response) && !vitals.over.get() {
            vitals.leaving.borrow_mut().push((response, self));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let vitals = &self.0.vitals;
        vitals.streams.set(vitals.streams.get() - 1);
        vitals.idle.set(Instant::now());
    }
}

/// Moves frames until the connection is over, and asks AEM for a sign of life where requests wait in silence.
async fn drive(mut connection: h2::client::Connection<Channel>, vitals: Rc<Vitals>) {
    let mut pings = connection.ping_pong();
    let mut asked = false;
    let mut connection = pin!(connection);
    let mut look = pin!(tokio::time::sleep(SILENCE));
    let end = poll_fn(|cx| {
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(io_error));
        }
        // Whatever ends one of them has come through here.
        vitals.leaving.borrow_mut().retain_mut(|(response, _)| !is_over(response));
        while look.as_mut().poll(cx).is_ready() {
            look.as_mut().reset(Instant::now() + SILENCE);
            vitals.leaving.borrow_mut().clear();
            let silent = !vitals.heard.take() && vitals.streams.get() > 0;
            if silent && asked {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            asked = silent && ask(pings.as_mut(), cx);
        }
        Poll::Pending
    });
    let end = end.await;
    vitals.over.set(true);
    vitals.leaving.take();
    match end {
        Ok(()) => debug!("HTTP/2 connection to AEM ended"),
        Err(error) => debug!(%error, "HTTP/2 connection to AEM broke off"),
    }
}

/// Whether nothing comes of a response any more.
fn is_over(response: &mut RecvStream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match response.poll_data(&mut cx) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(_) => return true,
        }
    }
}

/// Asks for a sign of life, which the next look hears; tells whether that was possible.
fn ask(pings: Option<&mut PingPong>, cx: &mut Context<'_>) -> bool {
    let Some(pings) = pings else { return false };
    // The answer to an earlier question makes way for this one.
    let _ = pings.poll_pong(cx);
    pings.send_ping(Ping::opaque()).is_ok()
}

/// Requests at once before AEM has said how many it takes (RFC 9113, section 6.5.2, recommends that it be no fewer).
const STREAMS_ASSUMED: usize = 100;

/// Requests at once, whatever AEM takes: they share one connection's fate, and its order of packets.
const STREAMS_MAX: usize = 256;

/// What AEM may send of one response before the client has taken it: 20 MB/s over a way of 50 ms.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// The same for all responses of a connection together. Clients that do not read hold others up once they hold all of it.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Requests that wait for so long without hearing anything ask for a sign of life, and end after as long again.
const SILENCE: Duration = Duration::from_secs(20);
