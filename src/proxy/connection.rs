//! One client connection, from its first byte to its last: a request, its answer, the next request.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use memchr::memchr;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::futures::OwnedNotified,
    time::{Instant, timeout},
};
use tracing::debug;

use super::{
    Proxy, Worker,
    buffer::Buffers,
    client::Client,
    clients::{Leaving, Place},
    cors::Preflight,
    error::ProxyError,
    exchange::{self, Request, Sent, Then, Up},
    fields::storage_for,
    framing::Length,
    guard::{Asked, GuardError, Local, UNIX_HOST},
    http2::{self, Beginning},
    partial::PartialHead,
    request::{Added, NoRequest, RequestHead},
    response::AnswerTo,
    rewrite::Members,
    socket::Socket,
};
use crate::listener::Stream;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// All is said.
    Close,
    /// All is said, and the client may still be sending what nobody reads.
    Linger,
    /// An answer broke off: the client must not take it for whole.
    Abort,
    /// What came was no request.
    Refuse(NoRequest),
    /// What came is the beginning of HTTP/2.
    Http2,
    /// The client has left.
    Gone,
}

impl Worker {
    /// Serves one connection until it ends, or until the worker stops and the request in flight then is answered.
    ///
    /// `proxy` is the number of the proxy that the connection was made to; without a `place` it is only told that there is none.
    pub async fn serve(self: Rc<Self>, stream: Stream, proxy: usize, place: Option<Place>) {
        let local = stream.local();
        let Some(place) = place else {
            if let Some(connection) = self.connection(Socket::Own(stream), proxy, local, None) {
                connection.turn_away().await;
            }
            return;
        };
        let _leaving = Leaving(&self, place.clone());
        let speaks_tls = self.proxies.get(proxy).is_some_and(|proxy| proxy.tls.is_some());
        let socket = if speaks_tls {
            // Few need it: not a part of every connection's task.
            let Some(sealed) = Box::pin(Rc::clone(&self).shake_hands(stream, proxy)).await else { return };
            Socket::Sealed(Box::new(sealed))
        } else {
            Socket::Own(stream)
        };
        let Some(mut connection) = self.connection(socket, proxy, local, Some(place.clone())) else { return };
        connection.counts = true;
        let end = connection.converse().await;
        if end != End::Http2 {
            return connection.part(end).await;
        }
        let early = std::mem::take(&mut connection.client.input);
        let stream = connection.client.stream.hand_over();
        drop(connection);
        // Few need it: not a part of every connection's task.
        Box::pin(http2::serve(Rc::clone(&self), proxy, (stream, early), local, &place)).await;
    }

    /// Serves the one request of a stream.
    pub(super) async fn serve_stream(
        self: Rc<Self>,
        stream: Socket,
        proxy: usize,
        local: Local,
        place: Place,
    ) {
        let _leaving = Leaving(&self, place.clone());
        let Some(mut connection) = self.connection(stream, proxy, local, Some(place)) else { return };
        let end = connection.converse().await;
        connection.part(end).await;
    }

    fn connection(
        &self,
        stream: Socket,
        proxy: usize,
        local: Local,
        place: Option<Place>,
    ) -> Option<Connection<'_>> {
        let proxy = self.proxies.get(proxy)?;
        let begins = stream.may_be_http2(proxy.http2);
        let is_new = stream.is_connection();
        let client = Client::new(stream, &proxy.limits, place);
        let stopped = Box::pin(Arc::clone(&self.stopped).notified_owned());
        let named = Rc::from([]);
        let (partial, empty_lines, counts) = (PartialHead::default(), 0, false);
        Some(Connection {
            worker: self,
            proxy,
            client,
            local,
            counts,
            stopped,
            begins,
            is_new,
            partial,
            empty_lines,
            named,
        })
    }
}

struct Connection<'w> {
    worker: &'w Worker,
    proxy: &'w Proxy,
    client: Client,
    local: Local,
    /// Whether it makes room for another one while it has no request; a stream of HTTP/2 does not.
    counts: bool,
    stopped: Pin<Box<OwnedNotified>>,
    /// Nothing is known of it yet: it may be HTTP/2.
    begins: bool,
    /// No request has come on it yet. One that does is served while the worker stops: its client could not know.
    is_new: bool,
    /// The input, as far as it is known to hold no whole head.
    partial: PartialHead,
    /// Before the next request.
    empty_lines: u8,
    /// The origin that the client has come to with its last request, if that was let in: most often it comes to it again.
    named: Rc<[u8]>,
}

impl<'w> Connection<'w> {
    async fn converse(&mut self) -> End {
        // The task is woken when the worker stops. That is all that this is for: whether it has is in the worker.
        let _ = poll_fn(|cx| Poll::Ready(self.stopped.as_mut().poll(cx))).await;
        loop {
            let mut request = match poll_fn(|cx| self.poll_request(cx)).await {
                Ok(request) => request,
                Err(end) => return end,
            };
            if let Some(place) = self.client.place().filter(|_| self.counts) {
                place.works();
            }
            match exchange::run(&mut self.client, self.worker, &mut request).await {
                Then::Next => {}
                Then::End(end) => return end,
            }
            // It counts as in flight until here.
            drop(request);
            if let Some(place) = self.client.place().filter(|_| self.counts) {
                place.rests(self.client.watch.since());
            }
            self.client.waits(0, false);
        }
    }

    /// Refuses it with an answer, unless that would take a handshake.
    async fn turn_away(self) {
        let worker = self.worker;
        let why = if worker.buffers.memory().is_full() { NoRequest::NoMemory } else { NoRequest::TooMany };
        if self.proxy.tls.is_some() {
            return self.proxy.metrics.connection_ended(why.reason());
        }
        match worker.refuse() {
            Some(_refused) => self.part(End::Refuse(why)).await,
            None => self.refuse_at_once(why).await,
        }
    }

    /// Answers without waiting until the client has read that. On Linux it reads what has come even if the connection is reset
    /// behind it.
    async fn refuse_at_once(mut self, why: NoRequest) {
        self.proxy.metrics.connection_ended(why.reason());
        let answer = why.answer(false);
        let stream = &mut self.client.stream;
        // An empty socket takes it whole.
        let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_write(cx, &answer))).await;
    }

    /// The next request, or the end of the connection if none comes.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Request<'w>, End>> {
        loop {
            if self.partial.is_empty() && self.skips_too_many_lines() {
                return Poll::Ready(Err(End::Refuse(NoRequest::Malformed)));
            }
            if self.partial.should_read(self.client.input.filled()) {
                let beginning =
                    if self.begins { Beginning::of(self.client.input.filled()) } else { Beginning::Other };
                self.begins = beginning == Beginning::Open;
                let request = match beginning {
                    Beginning::Http2 => return Poll::Ready(Err(End::Http2)),
                    Beginning::Open => Ok(None),
                    Beginning::Other => self.request(),
                };
                match request {
                    Ok(Some(request)) => {
                        (self.partial, self.empty_lines) = (PartialHead::default(), 0);
                        self.is_new = false;
                        self.worker.buffers.release(&mut self.client.input);
                        return Poll::Ready(Ok(request));
                    }
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Err(End::Refuse(error))),
                }
                let fresh = self.partial.is_empty();
                self.partial.has_read(self.client.input.len());
                if self.client.input.len() > self.proxy.limits.head {
                    return Poll::Ready(Err(End::Refuse(self.too_large())));
                }
                if fresh {
                    self.client.watch.begin(self.proxy.limits.timeouts.request_head, Instant::now());
                }
            }
            match self.client.poll_read_head(cx, &self.worker.buffers) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::Gone)),
                Poll::Pending => break,
            }
        }
        if self.worker.is_stopping() && !self.is_awaited() {
            // A request that is not there yet holds nobody up.
            return Poll::Ready(Err(End::Close));
        }
        match self.client.watch.poll(cx) {
            Poll::Ready(()) if !self.partial.is_empty() && !self.worker.is_stopping() => {
                Poll::Ready(Err(End::Refuse(NoRequest::TooSlow)))
            }
            Poll::Ready(()) => Poll::Ready(Err(End::Close)),
            Poll::Pending => {
                self.client.pack_input(&self.worker.buffers);
                if !self.partial.is_empty() {
                    self.client.waits(0, true);
                }
                Poll::Pending
            }
        }
    }

    /// Whether the first request of a connection that was accepted just before the worker stopped may still come.
    fn is_awaited(&mut self) -> bool {
        if !self.is_new {
            return false;
        }
        let since = self.client.watch.since();
        self.client.watch.begin(FIRST_REQUEST, since);
        true
    }

    /// Skips empty lines: some clients end a body with a line end too many (RFC 9112, section 2.2). Tells whether there are
    /// more of them than anybody means.
    fn skips_too_many_lines(&mut self) -> bool {
        while self.client.input.filled().starts_with(b"\r\n") && self.empty_lines <= EMPTY_LINES_MAX {
            self.client.input.consume(2);
            self.empty_lines += 1;
            // HTTP/2 begins with its first byte.
            self.begins = false;
        }
        self.empty_lines > EMPTY_LINES_MAX
    }

    /// What of a head that is too large is too large.
    fn too_large(&self) -> NoRequest {
        let line = memchr(b'\n', self.client.input.filled());
        if line.is_some_and(|end| end < self.proxy.limits.head) {
            NoRequest::HeadTooLarge
        } else {
            NoRequest::LineTooLong
        }
    }

    /// The request at the beginning of the input, if its head is whole, made ready to be sent.
    #[inline(always)]
    fn request(&mut self) -> Result<Option<Request<'w>>, NoRequest> {
        let mut storage = storage_for(self.proxy.limits.fields);
        let Some(head) = RequestHead::parse(self.client.input.filled(), &mut storage)? else {
            return Ok(None);
        };
        if head.bytes > self.proxy.limits.head {
            return Err(self.too_large());
        }
        let now = Instant::now();
        let guard = &self.proxy.guard;
        let known = self.named.get(guard.scheme().len()..).filter(|host| head.asked.is_plainly_for(host));
        let admitted = match known {
            Some(host) => guard.admit_page(&head.asked, host),
            None => guard.admit(&head.asked, self.local),
        };
        if known.is_none() {
            self.named = named(guard.scheme(), &head.asked, admitted);
        }
        let to = AnswerTo {
            head: head.method == "HEAD",
            minor: head.minor,
            keep_alive: head.keeps_alive(),
            web_origin: admitted.ok().flatten(),
            no_store: head.is_for_csrf_token(),
            interim: head.navigates || !self.client.stream.is_connection(),
            ..AnswerTo::default()
        };
        let in_flight = self.proxy.metrics.start(head.method, now);
        let members = self.proxy.members(&head);
        let sent = self.proxy.prepare(&head, admitted, members, (self.is_new, now), &self.worker.buffers);
        let length = head.length();
        let expects = head.expects_continue && length != Length::Exact(0);
        let limits = &self.proxy.limits;
        let up = Up::new(length, limits.head, expects, limits.replay);
        let (asking, protocol) = (head.asking(), head.protocol().map(Box::from));
        let bytes = head.bytes;
        self.client.input.consume(bytes);
        let proxy = self.proxy;
        let local = Rc::clone(&self.named);
        Ok(Some(Request { sent, proxy, up, to, asking, local, members, protocol, in_flight, began: now }))
    }

    /// Says good-bye so that the client understands: a reset for a message that is not whole, an answer for what was no
    /// request, and time to read our last answer for a client that is still sending.
    async fn part(mut self, end: End) {
        debug!(?end, "Client connection ends");
        let client = &mut self.client;
        match end {
            End::Gone | End::Http2 => {}
            End::Abort => client.half = true,
            End::Close => {
                // Whoever has sent on gets the time that it takes to read our answer.
                let sent = poll_fn(|cx| Poll::Ready(client.poll_gone(cx, &self.worker.buffers))).await;
                if sent.is_pending() && !client.input.is_empty() {
                    linger(&mut client.stream).await;
                } else {
                    // A client that has left already needs no good-bye.
                    let _ = client.stream.shutdown().await;
                }
            }
            End::Linger => linger(&mut client.stream).await,
            End::Refuse(why) => {
                self.proxy.metrics.connection_ended(why.reason());
                // To a HEAD there is no body (RFC 9110, section 9.3.2), whatever is wrong with it.
                let answer = why.answer(client.input.filled().starts_with(b"HEAD "));
                if let Ok(Ok(())) = timeout(LINGER, client.stream.write_all(&answer)).await {
                    linger(&mut client.stream).await;
                }
            }
        }
    }
}

impl Proxy {
    /// What is renamed in an answer of JSON.
    fn members(&self, head: &RequestHead<'_, '_>) -> Members {
        if self.rewrite.links {
            Members::of(head.path(), self.rewrite.graphql_urls)
        } else {
            Members::default()
        }
    }

    /// The way of a request's head, and where it goes. Hop-by-hop fields go before ours is set, or a client's
    /// `Connection: authorization` would remove what we add (golang/go#50580).
    fn prepare(
        &self,
        head: &RequestHead<'_, '_>,
        admitted: Result<Option<&str>, GuardError>,
        members: Members,
        (is_first, now): (bool, Instant),
        buffers: &Buffers,
    ) -> Result<Sent<'_>, ProxyError> {
        let web_origin = admitted?;
        if self.is_draining() && !is_first {
            return Err(ProxyError::Draining);
        }
        // A browser asks without the page's own fields, and so without the secret. It learns what it knows: that its page may
        // call.
        if let Some(preflight) = web_origin.and_then(|origin| Preflight::of(head, origin)) {
            return Err(ProxyError::Preflight(preflight));
        }
        if let Some(name) = self.guard.secret_header() {
            self.guard.admits_secret(head.all(name))?;
        }
        if head.method == "CONNECT" {
            return Err(ProxyError::Connect);
        }
        if head.has_lower_case_method() {
            return Err(ProxyError::Method);
        }
        let route = self.permit(head)?;
        let identity = route.credential.identity(now)?;
        let fields = route.fields.as_ref().map(|fields| fields.load());
        let fields = fields.as_deref().map_or(&[][..], |fields| fields.as_slice());
        let added = Added {
            guard: Some(&self.guard),
            user_agent: self.user_agent(),
            codings: (!members.is_empty()).then_some(CODINGS),
            ..route.added(&identity, fields)
        };
        let mut out = buffers.head();
        let lines = head.write(&added, head.length(), &mut out);
        Ok(Sent { head: out, lines, identity, route })
    }
}

/// The origin that a client has come to, if it is one of the proxy's: whoever names another gets no answer of AEM's.
fn named(scheme: &str, asked: &Asked<'_>, admitted: Result<Option<&str>, GuardError>) -> Rc<[u8]> {
    match (asked.for_host(), admitted) {
        (Err(_), Ok(_)) => [scheme, UNIX_HOST].concat().into_bytes().into(),
        (Err(_), _) | (_, Err(GuardError::NoHost | GuardError::Host)) => Rc::from([]),
        (Ok(host), _) => [scheme, host].concat().into_bytes().into(),
    }
}

/// The content codings that can be undone. Not brotli, whose window may take 16 MiB.
const CODINGS: &[u8] = b"gzip, deflate";

/// Closing a socket with unread bytes resets it, and the reset may overtake our answer (RFC 9112, section 9.6).
async fn linger(stream: &mut Socket) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut unread = vec![0; 16 * 1024];
    let drained = async { while let Ok(Ok(1..)) = timeout(LINGER, stream.read(&mut unread)).await {} };
    let _ = timeout(LINGER_MAX, drained).await;
}

/// How long a worker that stops waits for the first request of a connection, from its beginning: some round trips.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// One is for a body that ends with a line end too many, and the others for who does that twice.
const EMPTY_LINES_MAX: u8 = 4;

/// How long a client that was answered may be silent before the connection is closed.
const LINGER: Duration = Duration::from_secs(2);

/// How long it may go on sending what nobody reads.
const LINGER_MAX: Duration = Duration::from_secs(10);
