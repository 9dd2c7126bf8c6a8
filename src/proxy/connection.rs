//! One client connection, from its first byte to its last: a request, its answer, the next request.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::futures::OwnedNotified,
    time::{Instant, timeout},
};
use tracing::debug;

use super::{
    Proxy, Worker,
    buffer::{Buffer, Buffers},
    client::Client,
    cors::Preflight,
    error::{ProxyError, not_a_request},
    exchange::{self, Request, Sent, Then, Up},
    fields::{BadFraming, storage},
    framing::Length,
    guard::{Asked, GuardError, Local},
    http2::{self, Beginning},
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
    /// What came was no request; the status says why.
    Refuse(u16),
    /// What came is the beginning of HTTP/2.
    Http2,
    /// The client has left.
    Gone,
}

impl Worker {
    /// Serves one connection until it ends, or until the worker stops and the request in flight then is answered.
    ///
    /// `proxy` is the number of the proxy that the connection was made to.
    pub async fn serve(self: Rc<Self>, stream: Stream, proxy: usize) {
        let local = stream.local_ip();
        let Some(mut connection) = self.connection(Socket::Own(stream), proxy, local) else { return };
        let end = connection.converse().await;
        if end != End::Http2 {
            return connection.part(end).await;
        }
        let early = std::mem::take(&mut connection.client.input);
        let stream = connection.client.stream.hand_over();
        drop(connection);
        if let Some(stream) = stream {
            // Few need it: not a part of every connection's task.
            Box::pin(http2::serve(Rc::clone(&self), proxy, (stream, early), local)).await;
        }
    }

    /// Serves the one request of a stream.
    pub(super) async fn serve_stream(self: Rc<Self>, stream: Socket, proxy: usize, local: Local) {
        let Some(mut connection) = self.connection(stream, proxy, local) else { return };
        let end = connection.converse().await;
        connection.part(end).await;
    }

    fn connection(&self, stream: Socket, proxy: usize, local: Local) -> Option<Connection<'_>> {
        let proxy = self.proxies.get(proxy)?;
        let begins = matches!(stream, Socket::Own(_));
        let client = Client::new(stream, &proxy.limits.timeouts);
        let stopped = Box::pin(Arc::clone(&self.stopped).notified_owned());
        let named = Rc::from([]);
        Some(Connection { worker: self, proxy, client, local, stopped, begins, seen: 0, named })
    }
}

struct Connection<'w> {
    worker: &'w Worker,
    proxy: &'w Proxy,
    client: Client,
    local: Local,
    stopped: Pin<Box<OwnedNotified>>,
    /// Nothing is known of it yet: it may be HTTP/2.
    begins: bool,
    /// How much of the input is known to hold no whole head.
    seen: usize,
    /// The origin that the client has come to with its last request: most often it comes to it again.
    named: Rc<[u8]>,
}

impl<'w> Connection<'w> {
    async fn converse(&mut self) -> End {
        // The task is woken when the worker stops. That is all that this is for: whether it has is in the worker.
        let _ = poll_fn(|cx| Poll::Ready(self.stopped.as_mut().poll(cx))).await;
        loop {
            let request = match poll_fn(|cx| self.poll_request(cx)).await {
                Ok(request) => request,
                Err(end) => return end,
            };
            match exchange::run(&mut self.client, self.worker, request).await {
                Then::Next => {}
                Then::End(end) => return end,
            }
        }
    }

    /// The next request, or the end of the connection if none comes.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Request<'w>, End>> {
        loop {
            if self.seen == 0 {
                // Some clients end a body with a line end too many (RFC 9112, section 2.2).
                while self.client.input.filled().starts_with(b"\r\n") {
                    self.client.input.consume(2);
                }
            }
            if self.client.input.len() > self.seen {
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
                        self.seen = 0;
                        self.worker.buffers.release(&mut self.client.input);
                        return Poll::Ready(Ok(request));
                    }
                    Ok(None) => {}
                    Err(NoRequest(status)) => return Poll::Ready(Err(End::Refuse(status))),
                }
                let fresh = self.seen == 0;
                self.seen = self.client.input.len();
                if self.seen > self.proxy.limits.head {
                    return Poll::Ready(Err(End::Refuse(431)));
                }
                if fresh {
                    self.client.watch.begin(self.proxy.limits.timeouts.request_head, Instant::now());
                }
            }
            if self.worker.is_stopping() {
                // A request that is not there yet holds nobody up.
                return Poll::Ready(Err(End::Close));
            }
            match self.client.poll_read(cx, &self.worker.buffers) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::Gone)),
                Poll::Pending => break,
            }
        }
        match self.client.watch.poll(cx) {
            Poll::Ready(()) if self.seen > 0 => Poll::Ready(Err(End::Refuse(408))),
            Poll::Ready(()) => Poll::Ready(Err(End::Close)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The request at the beginning of the input, if its head is whole, made ready to be sent.
    fn request(&mut self) -> Result<Option<Request<'w>>, NoRequest> {
        let mut storage = storage();
        let Some(head) = RequestHead::parse(self.client.input.filled(), &mut storage)? else {
            return Ok(None);
        };
        let now = Instant::now();
        let admitted = self.proxy.guard.admit(&head.asked, self.local);
        let to = AnswerTo {
            head: head.method == "HEAD",
            minor: head.minor,
            keep_alive: head.keeps_alive(),
            web_origin: admitted.ok().flatten(),
            no_store: head.is_for_csrf_token(),
            ..AnswerTo::default()
        };
        let in_flight = self.proxy.metrics.start(head.method, now);
        let members = self.proxy.members(&head);
        let sent = self.proxy.prepare(&head, admitted, members, &self.worker.buffers);
        // A body that is coded otherwise has no end that could be found: it is never read.
        let length = head.length().unwrap_or(Length::UntilClose);
        let expects = head.expects_continue && length != Length::Exact(0);
        let limits = &self.proxy.limits;
        let up = Up::new(length, limits.head, expects, limits.replay);
        self.named = named(&self.named, &head.asked);
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
            End::Refuse(status) => {
                let answer = not_a_request(status);
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
        buffers: &Buffers,
    ) -> Result<Sent<'_>, ProxyError> {
        if self.is_draining() {
            return Err(ProxyError::Draining);
        }
        if head.bytes > self.limits.head {
            return Err(ProxyError::RequestHeadTooLarge);
        }
        if let Some(preflight) = admitted?.and_then(|origin| Preflight::of(head, origin)) {
            return Err(ProxyError::Preflight(preflight));
        }
        let length = head.length().map_err(|_: BadFraming| ProxyError::RequestCoding)?;
        if head.method == "CONNECT" {
            return Err(ProxyError::Connect);
        }
        let route = if self.routes.is_empty() { &self.otherwise } else { self.route(head.path()) };
        let identity = route.credential.identity()?;
        let fields = route.fields.as_ref().map(|fields| fields.load());
        let fields = fields.as_deref().map_or(&[][..], |fields| fields.as_slice());
        let added = Added {
            guard: Some(&self.guard),
            user_agent: self.user_agent(),
            codings: (!members.is_empty()).then_some(CODINGS),
            ..route.added(&identity, fields)
        };
        let mut out = Buffer::default();
        buffers.equip(&mut out);
        let written = head.write(&added, length, &mut out);
        // Many may wait for AEM at once: no longer than it must in a buffer of the thread's.
        let written = written.map(|lines| (buffers.copy(out.filled()), lines));
        out.wipe(out.len());
        buffers.release(&mut out);
        let (head, lines) = written.map_err(|_| ProxyError::Target)?;
        Ok(Sent { head, lines, identity, route })
    }
}

/// The origin that a client has come to; `before` where it is that one again.
fn named(before: &Rc<[u8]>, asked: &Asked<'_>) -> Rc<[u8]> {
    // Whoever names none gets no answer of AEM's.
    let host = asked.for_host().unwrap_or_default().as_bytes();
    if before.strip_prefix(LOCAL_SCHEME) == Some(host) {
        Rc::clone(before)
    } else {
        [LOCAL_SCHEME, host].concat().into()
    }
}

/// The content codings that can be undone, but for brotli, which may take 16 MiB to undo.
const CODINGS: &[u8] = b"gzip, deflate";

/// Our listeners speak no TLS.
const LOCAL_SCHEME: &[u8] = b"http://";

/// Closing a socket with unread bytes resets it, and the reset may overtake our answer (RFC 9112, section 9.6).
async fn linger(stream: &mut Socket) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut unread = vec![0; 16 * 1024];
    let drained = async { while let Ok(Ok(1..)) = timeout(LINGER, stream.read(&mut unread)).await {} };
    let _ = timeout(LINGER_MAX, drained).await;
}

/// How long a client that was answered may be silent before the connection is closed.
const LINGER: Duration = Duration::from_secs(2);

/// How long it may go on sending what nobody reads.
const LINGER_MAX: Duration = Duration::from_secs(10);
