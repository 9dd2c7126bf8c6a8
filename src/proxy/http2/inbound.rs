//! One request of a client's on a connection that it uses for several, spoken to in HTTP/1.1 by the engine.

use std::{
    collections::VecDeque,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{Method, Request, StatusCode, header};
use tokio::io::ReadBuf;

use super::{
    flow::{Flow, Metered},
    heads, io_error,
};
use crate::proxy::{
    buffer::Buffer,
    framing::{Decoder, Length},
    streams::ClientStreams,
};

/// A request, as the only one on a connection.
pub(in crate::proxy) struct Inbound {
    method: Method,
    body: RecvStream,
    /// The request's body comes in chunks.
    chunked: bool,
    /// Came, and was not read yet.
    came: VecDeque<Bytes>,
    /// A head that says that there is no body, until it has shown: a request with one is malformed, and is not for AEM (RFC 9113,
    /// section 8.1.1).
    head: Option<Bytes>,
    /// The whole request has come.
    complete: bool,
    /// Nobody reads on.
    left: bool,
    answer: Answer,
    flow: Rc<Flow>,
    streams: ClientStreams,
}

/// The way back.
enum Answer {
    /// Nothing was said yet, or only the beginning of a head.
    Head(SendResponse<Metered>, Vec<u8>),
    Body(SendStream<Metered>, Decoder),
    /// All was said, or the stream was reset.
    Over,
}

impl Inbound {
    pub(super) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Metered>,
        flow: &Rc<Flow>,
        streams: ClientStreams,
    ) -> Self {
        let (head, body) = request.into_parts();
        flow.begin(body.stream_id().into());
        let complete = body.is_end_stream();
        let mut written = Buffer::default();
        let chunked = heads::write_request(&head, !complete, &mut written);
        let written = Bytes::from(written.into_vec());
        let no_body = head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
        let (came, head_waits) =
            if no_body && !complete { (None, Some(written)) } else { (Some(written), None) };
        Self {
            method: head.method,
            body,
            chunked,
            came: came.into_iter().collect(),
            head: head_waits,
            complete,
            left: false,
            answer: Answer::Head(respond, Vec::new()),
            flow: Rc::clone(flow),
            streams,
        }
    }

    /// Those of its connection.
    pub(in crate::proxy) fn streams(&self) -> &ClientStreams {
        &self.streams
    }

    /// Bytes of the request that have come and were not read.
    pub(in crate::proxy) fn held(&mut self) -> usize {
        let came: usize = self.came.iter().map(Bytes::len).sum();
        came + self.body.flow_control().used_capacity()
    }

    /// Reads as from a socket. The end is there when request and answer are whole: no second request follows.
    pub(in crate::proxy) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.left {
                return Poll::Ready(Ok(()));
            }
            if let Some(part) = self.came.front_mut() {
                let now = part.split_to(part.len().min(buf.remaining()));
                buf.put_slice(&now);
                if part.is_empty() {
                    self.came.pop_front();
                }
                return Poll::Ready(Ok(()));
            }
            match (self.complete, &self.answer) {
                (true, Answer::Over) => return Poll::Ready(Ok(())),
                (true, _) => return self.poll_reset(cx).map(Err),
                (false, _) => {}
            }
            ready!(self.poll_body(cx))?;
        }
    }

    /// Ready when the client does not wait for the answer any more.
    pub(in crate::proxy) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let reset = match &mut self.answer {
            Answer::Head(respond, _) => ready!(respond.poll_reset(cx)),
            Answer::Body(stream, _) => ready!(stream.poll_reset(cx)),
            Answer::Over => return Poll::Pending,
        };
        Poll::Ready(match reset {
            Ok(reason) => io_error(reason.into()),
            Err(error) => io_error(error),
        })
    }

    /// The next part of the body. The client may send as much again once it is here, since it was asked for.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.body.poll_data(cx)) {
            Some(Ok(data)) => {
                self.flow.read(self.body.stream_id().into());
                self.body.flow_control().release_capacity(data.len()).map_err(io_error)?;
                match (data.is_empty(), self.chunked) {
                    (true, _) => {}
                    (false, false) => self.came.push_back(data),
                    (false, true) => {
                        self.came.push_back(format!("{:x}\r\n", data.len()).into());
                        self.came.push_back(data);
                        self.came.push_back(Bytes::from_static(b"\r\n"));
                    }
                }
            }
            Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            None => {
                let trailers = ready!(self.body.poll_trailers(cx)).map_err(io_error)?;
                self.complete = true;
                self.came.extend(self.head.take());
                if self.chunked {
                    let mut end = Buffer::default();
                    heads::write_trailers(trailers.as_ref(), &mut end);
                    self.came.push_back(Bytes::copy_from_slice(end.filled()));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes as to a socket: as much as the client takes.
    pub(in crate::proxy) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.answer {
            Answer::Head(..) => Poll::Ready(self.write_head(buf)),
            Answer::Body(stream, decoder) => {
                ready!(self.flow.poll_ready(cx));
                let used = ready!(poll_write_body(stream, decoder, &self.flow, cx, buf))?;
                if decoder.is_done() {
                    self.answer = Answer::Over;
                }
                Poll::Ready(Ok(used))
            }
            Answer::Over => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn write_head(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Answer::Head(respond, partial) = &mut self.answer else { return Ok(0) };
        let earlier = partial.len();
        partial.extend_from_slice(buf);
        let Some(taken) = heads::response(partial, &self.method)? else { return Ok(buf.len()) };
        partial.clear();
        let used = taken.bytes.saturating_sub(earlier);
        let status = taken.head.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if status.is_informational() {
            respond.send_informational(taken.head).map_err(io_error)?;
            return Ok(used);
        }
        let bodiless = taken.length == Length::Exact(0);
        let stream = respond.send_response(taken.head, bodiless).map_err(io_error)?;
        // The engine has looked at how large trailers are.
        self.answer = if bodiless {
            Answer::Over
        } else {
            Answer::Body(stream, Decoder::new(taken.length, usize::MAX))
        };
        Ok(used)
    }

    /// No more will be read or written. A request without an answer then is one that was not looked at, since the worker
    /// stops: it may be sent again (RFC 9113, section 8.7).
    pub(in crate::proxy) fn end(&mut self) {
        self.left = true;
        if let Answer::Head(respond, _) = &mut self.answer {
            respond.send_reset(Reason::REFUSED_STREAM);
            self.answer = Answer::Over;
        }
        self.reset();
    }

    /// Gives up what was not said to its end: nobody shall take it for whole.
    pub(in crate::proxy) fn reset(&mut self) {
        match std::mem::replace(&mut self.answer, Answer::Over) {
            Answer::Head(mut respond, _) => respond.send_reset(Reason::INTERNAL_ERROR),
            Answer::Body(mut stream, _) => stream.send_reset(Reason::INTERNAL_ERROR),
            Answer::Over => {}
        }
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.flow.end(self.body.stream_id().into());
        self.reset();
    }
}

/// Writes a part of the body, or its end.
fn poll_write_body(
    stream: &mut SendStream<Metered>,
    decoder: &mut Decoder,
    flow: &Rc<Flow>,
    cx: &mut Context<'_>,
    buf: &[u8],
) -> Poll<io::Result<usize>> {
    let most = ready!(poll_capacity(stream, cx, buf.len()))?;
    let mut used = 0;
    // Chunks of a few bytes go together: the crate takes some hundred bytes for each frame that waits.
    let mut body = Vec::new();
    while used < most && !decoder.is_done() {
        let (taken, data) = decoder.decode(&buf[used..most]).map_err(io::Error::other)?;
        used += taken;
        body.extend_from_slice(data);
    }
    let has_trailers = decoder.is_done() && decoder.trailers().len() > b"\r\n".len();
    let ends = decoder.is_done() && !has_trailers;
    if !body.is_empty() || ends {
        stream.send_data(flow.meter(body.into()), ends).map_err(io_error)?;
    }
    if has_trailers {
        stream.send_trailers(heads::trailers(decoder.trailers())?).map_err(io_error)?;
    }
    Poll::Ready(Ok(used))
}

/// How much of so many bytes the client takes now.
fn poll_capacity(
    stream: &mut SendStream<Metered>,
    cx: &mut Context<'_>,
    wanted: usize,
) -> Poll<io::Result<usize>> {
    stream.reserve_capacity(wanted);
    loop {
        match stream.capacity() {
            0 => match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            },
            capacity => return Poll::Ready(Ok(capacity.min(wanted))),
        }
    }
}
