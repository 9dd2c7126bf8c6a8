//! One request on a connection to AEM that others share, spoken to in HTTP/1.1.

use std::{
    future::Future,
    io,
    io::Write,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{Method, header};

use super::{connection::Seat, heads, io_error};
use crate::proxy::{
    buffer::Buffer,
    framing::{Decoder, Length},
    link::{Came, LinkError},
};

/// A request's place on a connection, and the request.
pub(in crate::proxy) struct Stream {
    seat: Option<Seat>,
    /// None before the request's head is there.
    up: Option<Up>,
    down: Down,
    /// AEM has said that it has done nothing for the request (RFC 9113, section 8.7).
    unprocessed: bool,
}

/// What goes to AEM.
struct Up {
    stream: SendStream<Bytes>,
    decoder: Decoder,
    /// Waits until AEM takes it.
    waiting: BytesMut,
    /// AEM has been told that this is all.
    ended: bool,
}

/// What comes from AEM.
enum Down {
    /// Nothing was asked yet.
    Nothing,
    Head {
        response: ResponseFuture,
        asked_head: bool,
    },
    Body {
        stream: RecvStream,
        framing: Framing,
    },
    Over,
}

/// How the engine sees the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// So many bytes are left.
    Exact(u64),
    Chunked,
}

impl Stream {
    pub(super) fn new(seat: Seat) -> Self {
        Self { seat: Some(seat), up: None, down: Down::Nothing, unprocessed: true }
    }

    /// Whether it is certain that AEM has done nothing for the request: it may be sent again, whatever its method.
    pub(in crate::proxy) fn was_unprocessed(&self) -> bool {
        self.unprocessed
    }

    /// Adds to what is to be sent. The first bytes begin with the whole head.
    pub(in crate::proxy) fn push(&mut self, plain: &[u8]) -> Result<(), LinkError> {
        let body = if self.up.is_none() { &plain[self.begin(plain)?..] } else { plain };
        match &mut self.up {
            Some(up) => up.push(body),
            None => Ok(()),
        }
    }

    /// Sends the head at the beginning of `plain`; tells its length.
    fn begin(&mut self, plain: &[u8]) -> io::Result<usize> {
        let taken = heads::request(plain)?;
        let asked_head = taken.head.method() == Method::HEAD;
        let bodiless = taken.length == Length::Exact(0);
        let Some(seat) = &self.seat else { return Err(io::ErrorKind::NotConnected.into()) };
        let (response, stream) = seat.send(taken.head, bodiless).map_err(io_error)?;
        self.unprocessed = false;
        // The engine has looked at how large trailers are.
        let decoder = Decoder::new(taken.length, usize::MAX);
        self.up = Some(Up { stream, decoder, waiting: BytesMut::new(), ended: bodiless });
        self.down = Down::Head { response, asked_head };
        Ok(taken.bytes)
    }

    /// Bytes that have come and were not read, and bytes that wait to be sent.
    pub(in crate::proxy) fn held(&mut self) -> usize {
        let waiting = self.up.as_ref().map_or(0, |up| up.waiting.capacity());
        waiting
            + if let Down::Body { stream, .. } = &mut self.down {
                stream.flow_control().used_capacity()
            } else {
                0
            }
    }

    /// Whether AEM, or the connection's own buffer, has everything.
    pub(in crate::proxy) fn is_flushed(&self) -> bool {
        self.up.as_ref().is_none_or(Up::is_flushed)
    }

    /// Sends as much as AEM takes; tells how much that was.
    pub(in crate::proxy) fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        self.up.as_mut().map_or(Ok(0), |up| up.poll_flush(cx))
    }

    /// Forgets what was not sent: AEM takes no more.
    pub(in crate::proxy) fn forget(&mut self) {
        if let Some(up) = &mut self.up {
            up.waiting = BytesMut::new();
            up.ended = true;
        }
    }

    /// Hands what has come to `take`, as HTTP/1.1. What is taken makes room for more.
    pub(in crate::proxy) fn poll_read<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<Came, E>> {
        match &mut self.down {
            Down::Nothing => Poll::Pending,
            Down::Head { .. } => self.poll_head(cx, take),
            Down::Body { .. } => self.poll_body(cx, take),
            Down::Over => Poll::Ready(Ok(Came::End)),
        }
    }

    fn poll_head<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<Came, E>> {
        let Down::Head { response, asked_head } = &mut self.down else { return Poll::Pending };
        let mut out = Buffer::default();
        let came = match ready!(response.poll_informational(cx)) {
            Some(Ok(interim)) => {
                heads::write_response(interim.status(), interim.headers(), false, &mut out);
                return Poll::Ready(take(out.filled()).map(|()| Came::Bytes));
            }
            Some(Err(error)) => Err(error),
            None => ready!(Pin::new(response).poll(cx)),
        };
        let (head, stream) = match came {
            Ok(response) => response.into_parts(),
            Err(error) => return Poll::Ready(Err(self.broken(error).into())),
        };
        let bodiless = *asked_head || matches!(head.status.as_u16(), 204 | 304);
        let framing = if bodiless {
            heads::write_response(head.status, &head.headers, false, &mut out);
            Framing::Exact(0)
        } else if stream.is_end_stream() && !head.headers.contains_key(header::CONTENT_LENGTH) {
            let mut fields = head.headers;
            fields.insert(header::CONTENT_LENGTH, 0.into());
            heads::write_response(head.status, &fields, false, &mut out);
            Framing::Exact(0)
        } else if heads::write_response(head.status, &head.headers, true, &mut out) {
            Framing::Chunked
        } else {
            Framing::Exact(length(&head.headers))
        };
        self.down = Down::Body { stream, framing };
        Poll::Ready(take(out.filled()).map(|()| Came::Bytes))
    }

    fn poll_body<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Poll<Result<Came, E>> {
        let Down::Body { stream, framing } = &mut self.down else { return Poll::Pending };
        match ready!(stream.poll_data(cx)) {
            Some(Ok(data)) => {
                let taken = framing.pass(&data, take);
                let released = stream.flow_control().release_capacity(data.len());
                Poll::Ready(taken.and(released.map_err(|error| io_error(error).into())).map(|()| Came::Bytes))
            }
            Some(Err(error)) => Poll::Ready(Err(self.broken(error).into())),
            None if *framing == Framing::Chunked => {
                let trailers = match ready!(stream.poll_trailers(cx)) {
                    Ok(trailers) => trailers,
                    Err(error) => return Poll::Ready(Err(self.broken(error).into())),
                };
                let mut end = Buffer::default();
                heads::write_trailers(trailers.as_ref(), &mut end);
                self.down = Down::Over;
                Poll::Ready(take(end.filled()).map(|()| Came::Bytes))
            }
            None => {
                self.down = Down::Over;
                Poll::Ready(Ok(Came::End))
            }
        }
    }

    /// AEM has given the request up, or the connection is gone.
    fn broken(&mut self, error: h2::Error) -> io::Error {
        // A GOAWAY reaches a stream only if it was sent after the last one that AEM looks at.
        let refused = error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM);
        self.unprocessed = matches!(self.down, Down::Head { .. }) && error.is_remote() && refused;
        io_error(error)
    }
}

impl Drop for Stream {
    /// A stream that is not over is reset. AEM may still owe the word that a whole response is over: it is waited for, since
    /// some servers lose patience with clients that reset streams.
    fn drop(&mut self) {
        let asked = self.up.as_ref().is_some_and(|up| up.ended);
        if let Down::Body { stream, framing: Framing::Exact(0) } =
            std::mem::replace(&mut self.down, Down::Over)
            && let Some(seat) = self.seat.take()
            && asked
        {
            seat.leave(stream);
        }
    }
}

impl Up {
    fn is_flushed(&self) -> bool {
        self.waiting.is_empty() && (self.ended || !self.decoder.is_done())
    }

    fn push(&mut self, mut body: &[u8]) -> Result<(), LinkError> {
        while !body.is_empty() && !self.decoder.is_done() {
            let (used, data) = self.decoder.decode(body)?;
            self.waiting.extend_from_slice(data);
            body = &body[used..];
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        let mut sent = 0;
        while !self.waiting.is_empty() {
            let capacity = self.stream.capacity();
            if capacity == 0 {
                self.stream.reserve_capacity(self.waiting.len());
                match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(Some(Err(error))) => return Err(io_error(error)),
                    Poll::Ready(None) => return Err(io::ErrorKind::BrokenPipe.into()),
                    Poll::Pending => return Ok(sent),
                }
            }
            let part = self.waiting.split_to(capacity.min(self.waiting.len())).freeze();
            sent += part.len();
            self.ended = self.waiting.is_empty() && self.decoder.is_done() && !self.has_trailers();
            self.stream.send_data(part, self.ended).map_err(io_error)?;
        }
        if self.decoder.is_done() && !self.ended {
            self.end()?;
        }
        Ok(sent)
    }

    fn has_trailers(&self) -> bool {
        self.decoder.trailers().len() > b"\r\n".len()
    }

    fn end(&mut self) -> io::Result<()> {
        self.ended = true;
        if self.has_trailers() {
            let fields = heads::trailers(self.decoder.trailers())?;
            self.stream.send_trailers(fields).map_err(io_error)
        } else {
            self.stream.send_data(Bytes::new(), true).map_err(io_error)
        }
    }
}

impl Framing {
    /// Hands a part of the body on.
    fn pass<E>(&mut self, data: &[u8], mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Exact(left) => {
                *left = left.saturating_sub(data.len() as u64);
                take(data)
            }
            // One of no size would be the end.
            Self::Chunked if data.is_empty() => Ok(()),
            Self::Chunked => {
                let mut line = [0; SIZE_LINE];
                let mut rest = &mut line[..];
                // The room is there.
                let _ = write!(rest, "{:x}\r\n", data.len());
                let unused = rest.len();
                take(&line[..SIZE_LINE - unused])?;
                take(data)?;
                take(b"\r\n")
            }
        }
    }
}

/// What `Content-Length` says; HTTP/2 has looked whether it is a number.
fn length(fields: &http::HeaderMap) -> u64 {
    let said = fields.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    said.and_then(|said| said.parse().ok()).unwrap_or(0)
}

/// A size in sixteen digits with a line end.
const SIZE_LINE: usize = 18;
