//! One connection to AEM.

use std::{
    future::poll_fn,
    io::{self, Read},
    pin::Pin,
    task::{Context, Poll},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    buffer::{Buffer, Buffers},
    http2::{HTTP_2, Stream},
    session::{Handshake, Session},
    upstream::Lease,
};

/// What carries a request to AEM and its response back.
pub(super) enum Link {
    /// A connection of its own.
    Wire(Box<Wire>),
    /// A stream of an HTTP/2 connection.
    Stream(Box<Stream>),
}

/// A connection to AEM, with TLS where the upstream is `https`.
pub(super) struct Wire {
    socket: TcpStream,
    session: Option<Box<Session>>,
    /// Came, and is not opened yet.
    wire: Buffer,
    /// Is to be sent.
    sealed: Buffer,
    lease: Option<Lease>,
}

/// A connection on its way to another thread: nothing is on it.
pub(super) struct Detached {
    socket: std::net::TcpStream,
    session: Option<Box<Session>>,
    lease: Option<Lease>,
}

/// Why a connection to AEM is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// It broke off, or TLS found something wrong.
    #[error(transparent)]
    Io(io::Error),
    /// What came is not what was waited for.
    #[error(transparent)]
    Response(#[from] super::response::BadResponse),
    /// The body is badly framed.
    #[error(transparent)]
    Framing(#[from] super::framing::FramingError),
    /// The body's content coding is broken.
    #[error(transparent)]
    Coding(#[from] super::rewrite::CodingError),
    /// The head is larger than allowed.
    #[error("the head is too large")]
    HeadTooLarge,
    /// A switch of protocols that nobody asked for.
    #[error("the protocol was switched unasked")]
    UnaskedUpgrade,
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// Bytes; whether any of them were the peer's data was seen by who took them.
    Bytes,
    /// AEM sends no more, and said so.
    End,
    /// The connection ended, and nobody said that this is the end.
    Cut,
}

impl Link {
    /// Whether AEM has said that it sends no more.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Wire(wire) if wire.has_ended())
    }

    /// Whether it is certain that AEM has done nothing for the request: it may be sent again, whatever its method.
    pub(super) fn was_unprocessed(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.was_unprocessed())
    }

    /// Adds `plain` to what is to be sent. The first bytes of a request hold its whole head.
    pub(super) fn push(&mut self, plain: &[u8], buffers: &Buffers) -> Result<(), LinkError> {
        match self {
            Self::Wire(wire) => wire.push(plain, buffers),
            Self::Stream(stream) => stream.push(plain),
        }
    }

    /// Bytes that its buffers take.
    pub(super) fn held(&mut self) -> usize {
        match self {
            Self::Wire(wire) => wire.wire.capacity() + wire.sealed.capacity(),
            Self::Stream(stream) => stream.held(),
        }
    }

    /// Whether everything was sent.
    pub(super) fn is_flushed(&self) -> bool {
        match self {
            Self::Wire(wire) => wire.is_flushed(),
            Self::Stream(stream) => stream.is_flushed(),
        }
    }

    /// How many bytes wait to be sent; a stream's own are not counted.
    pub(super) fn waiting(&self) -> usize {
        match self {
            Self::Wire(wire) => wire.sealed.len(),
            Self::Stream(_) => 0,
        }
    }

    /// Sends what AEM takes; tells how much that was.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> io::Result<usize> {
        match self {
            Self::Wire(wire) => wire.poll_flush(cx, buffers),
            Self::Stream(stream) => stream.poll_flush(cx),
        }
    }

    /// Forgets what was not sent: AEM takes no more.
    pub(super) fn forget(&mut self, buffers: &Buffers) {
        match self {
            Self::Wire(wire) => wire.forget(buffers),
            Self::Stream(stream) => stream.forget(),
        }
    }

    /// Reads once, and hands what has come to `take`. There is room for it in the memory budget: that was asked before.
    pub(super) fn poll_read<E: From<rustls::Error> + From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<Came, E>> {
        match self {
            Self::Wire(wire) => wire.poll_read(cx, buffers, take),
            Self::Stream(stream) => stream.poll_read(cx, take),
        }
    }

    /// Says that no more will be sent. The other direction stays open.
    pub(super) fn end(&mut self, buffers: &Buffers) {
        if let Self::Wire(wire) = self {
            wire.end(buffers);
        }
    }

    /// Closes the sending direction.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Wire(wire) => wire.poll_shutdown(cx),
            Self::Stream(_) => Poll::Ready(Ok(())),
        }
    }

    /// Says good-bye as far as that can be done at once. A stream is over, or reset.
    pub(super) fn close(self, buffers: &Buffers) {
        if let Self::Wire(wire) = self {
            wire.close(buffers);
        }
    }
}

impl Wire {
    /// A connection without TLS.
    pub(super) fn plain(socket: TcpStream) -> Self {
        Self { socket, session: None, wire: Buffer::default(), sealed: Buffer::default(), lease: None }
    }

    /// The same with what it has for its life.
    pub(super) fn leased(self, lease: Lease) -> Self {
        Self { lease: Some(lease), ..self }
    }

    /// Whether it has lived for so long that no request is to be sent on it any more.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.is_over(now))
    }

    /// Takes it from this thread; none where bytes wait in it, or the system does not let go of it.
    pub(super) fn detach(self) -> Option<Detached> {
        let Self { socket, session, wire, sealed, lease } = self;
        let at_rest = wire.is_empty() && sealed.is_empty();
        let socket = socket.into_std().ok().filter(|_| at_rest)?;
        Some(Detached { socket, session, lease })
    }

    /// Closes it, and leaves its lease.
    pub(super) fn end_lease(mut self, buffers: &Buffers) -> Option<Lease> {
        let lease = self.lease.take();
        self.close(buffers);
        lease
    }

    /// A connection with TLS, once hands are shaken.
    ///
    /// The thread's buffers are too large for this: many may shake hands at once, and each waits for the network while
    /// it does.
    pub(super) async fn secure(mut socket: TcpStream, mut session: Session) -> io::Result<Self> {
        let (mut wire, mut sealed) = (Buffer::default(), Buffer::default());
        loop {
            let step = session.shake_hands(&mut wire, &mut sealed);
            socket.write_all(sealed.filled()).await?;
            sealed.clear();
            match step {
                Ok(Handshake::Done) => break,
                Ok(Handshake::More) => {}
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
            if poll_fn(|cx| wire.poll_fill(&mut socket, cx)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        // What came early stays.
        Ok(Self { session: Some(Box::new(session)), wire: wire.packed(), ..Self::plain(socket) })
    }

    /// Makes sure that AEM has sent nothing on a new connection: it would be taken for the response to the first request
    /// (RFC 9112, section 9.2). Over HTTP/2 both sides speak first.
    ///
    /// # Errors
    /// When AEM has sent anything but session tickets, or has closed the connection.
    pub(super) async fn expect_silence(mut self) -> io::Result<Self> {
        if self.protocol() == Some(HTTP_2) {
            return Ok(self);
        }
        if self.session.as_ref().is_some_and(|session| session.has_early()) {
            return Err(unsolicited());
        }
        loop {
            if self.wire.is_empty() {
                // The runtime does not know yet what has come on a new socket: it is asked itself.
                let mut first = [0];
                match (&*SockRef::from(&self.socket)).read(&mut first) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => self.wire.push(&first),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            let Some(session) = &mut self.session else { return Err(unsolicited()) };
            // A record that has come in part may be a session ticket, or the beginning of a response.
            if poll_fn(|cx| self.wire.poll_fill(&mut self.socket, cx)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let take = |data: &[u8]| if data.is_empty() { Ok(()) } else { Err(unsolicited().into()) };
            match session.open(&mut self.wire, &mut self.sealed, take) {
                Ok(()) if session.has_ended() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(()) => {}
                Err(LinkError::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        // Connections at rest keep no memory.
        self.wire = Buffer::default();
        Ok(self)
    }

    /// What AEM has chosen of the protocols that it was offered.
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        self.session.as_ref().and_then(|session| session.protocol())
    }

    /// Whether AEM has said that it sends no more.
    pub(super) fn has_ended(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.has_ended())
    }

    /// Adds `plain` to what is to be sent.
    pub(super) fn push(&mut self, plain: &[u8], buffers: &Buffers) -> Result<(), LinkError> {
        buffers.equip(&mut self.sealed);
        match &mut self.session {
            Some(session) => Ok(session.seal(plain, &mut self.wire, &mut self.sealed)?),
            None => {
                self.sealed.push(plain);
                Ok(())
            }
        }
    }

    /// Whether everything was sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.sealed.is_empty()
    }

    /// Sends what the socket takes; tells how much that was.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> io::Result<usize> {
        let sent = self.sealed.poll_drain(&mut self.socket, cx)?;
        buffers.release(&mut self.sealed);
        Ok(sent)
    }

    /// Forgets what was not sent: AEM takes no more.
    pub(super) fn forget(&mut self, buffers: &Buffers) {
        self.sealed.clear();
        buffers.release(&mut self.sealed);
    }

    /// Reads once, and hands what has come to `take`. There is room for it in the memory budget: that was asked before.
    pub(super) fn poll_read<E: From<rustls::Error> + From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<Came, E>> {
        if let Some(early) = self.session.as_mut().and_then(|session| session.take_early()) {
            return Poll::Ready(take(&early).map(|()| Came::Bytes));
        }
        buffers.equip(&mut self.wire);
        let read = self.wire.poll_fill(&mut self.socket, cx);
        let came = match read {
            Poll::Ready(Ok(0)) => Ok(self.ended()),
            Poll::Ready(Ok(_)) => self.open(take, buffers),
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Pending => {
                buffers.release(&mut self.wire);
                return Poll::Pending;
            }
        };
        buffers.release(&mut self.wire);
        Poll::Ready(came)
    }

    fn open<E: From<rustls::Error>>(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
        buffers: &Buffers,
    ) -> Result<Came, E> {
        match &mut self.session {
            Some(session) => {
                session.open(&mut self.wire, &mut self.sealed, take)?;
                buffers.release(&mut self.sealed);
                Ok(if session.has_ended() { Came::End } else { Came::Bytes })
            }
            None => {
                take(self.wire.filled())?;
                self.wire.clear();
                Ok(Came::Bytes)
            }
        }
    }

    /// The end of a TCP connection is the end of what AEM had to say only where there is no TLS that would have to say
    /// so (RFC 8446, section 6.1).
    fn ended(&self) -> Came {
        match &self.session {
            Some(session) if !session.has_ended() => Came::Cut,
            _ => Came::End,
        }
    }

    /// Whether nothing is left of the last exchange, and nothing has come since: what AEM says before it is asked would
    /// be taken for the answer to the next request. Costs no system call while nothing has come.
    pub(super) fn is_fresh(&mut self, buffers: &Buffers) -> bool {
        if !self.wire.is_empty() || !self.sealed.is_empty() {
            return false;
        }
        // A buffer only where something has come.
        let mut first = [0];
        let fresh = match self.socket.try_read(&mut first) {
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            Ok(0) => false,
            // Session tickets come when AEM likes; everything else is unasked.
            Ok(_) => {
                buffers.equip(&mut self.wire);
                self.wire.push(&first);
                if let Ok(bytes) = self.socket.try_read(self.wire.room(1)) {
                    self.wire.fill(bytes);
                }
                let unasked = |data: &[u8]| {
                    if data.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
                };
                let opened = self.open(|data| unasked(data).map_err(LinkError::Io), buffers);
                matches!(opened, Ok(Came::Bytes)) && self.wire.is_empty() && self.sealed.is_empty()
            }
        };
        self.rest(buffers);
        fresh
    }

    /// Keeps no memory while nothing happens.
    fn rest(&mut self, buffers: &Buffers) {
        buffers.release(&mut self.wire);
        buffers.release(&mut self.sealed);
    }

    /// Says that no more will be sent. The other direction stays open.
    pub(super) fn end(&mut self, buffers: &Buffers) {
        if let Some(session) = &mut self.session {
            buffers.equip(&mut self.sealed);
            session.end(&mut self.wire, &mut self.sealed);
        }
    }

    /// Closes the sending direction of the socket.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Says good-bye as far as that can be done at once.
    pub(super) fn close(mut self, buffers: &Buffers) {
        self.end(buffers);
        // Whoever does not take it is told by the end of the connection.
        let _ = self.socket.try_write(self.sealed.filled());
        self.wire.clear();
        self.sealed.clear();
        self.rest(buffers);
    }
}

fn unsolicited() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "AEM sent bytes before the request was sent")
}

impl Detached {
    /// Gives it to this thread, unless the system does not.
    pub(super) fn attach(self) -> Option<Wire> {
        let Self { socket, session, lease } = self;
        let wire = Wire::plain(TcpStream::from_std(socket).ok()?);
        Some(Wire { session, lease, ..wire })
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream as StdTcpStream},
    };

    use super::*;

    /// A new connection, and AEM's side of it.
    fn connected() -> (StdTcpStream, StdTcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = StdTcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (socket, listener.accept().unwrap().0)
    }

    async fn is_silent(socket: StdTcpStream) -> bool {
        socket.set_nonblocking(true).unwrap();
        Wire::plain(TcpStream::from_std(socket).unwrap()).expect_silence().await.is_ok()
    }

    #[tokio::test]
    async fn a_new_connection_on_which_bytes_have_come_takes_no_request() {
        let (socket, mut aem) = connected();
        aem.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong").unwrap();
        // They are there before the runtime has looked at the socket.
        socket.peek(&mut [0]).unwrap();
        assert!(!is_silent(socket).await);
        let (socket, aem) = connected();
        drop(aem);
        socket.peek(&mut [0]).unwrap();
        assert!(!is_silent(socket).await);
        let (socket, _aem) = connected();
        assert!(is_silent(socket).await);
    }
}
