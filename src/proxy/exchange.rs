//! One request and its answer. Both directions move at once, in one task: nothing is handed to another.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};
use tracing::warn;

use super::{
    Proxy, Upstream, Worker,
    buffer::Buffer,
    client::Client,
    connection::End,
    error::ProxyError,
    fields::{storage, trailers},
    framing::{Decoder, Encoding, FramingError, Length},
    http2,
    link::{Came, Link, LinkError},
    response::{AnswerTo, BadResponse, Body, ResponseHead},
    tunnel,
};
use crate::metrics::InFlight;

/// A request whose head has come.
pub(super) struct Request<'w> {
    /// As AEM is to see it, and which; or why it is not to.
    pub head: Result<(Buffer, &'w Upstream), ProxyError>,
    /// Whom it came to.
    pub proxy: &'w Proxy,
    pub up: Up,
    pub to: AnswerTo,
    /// It asks to become a WebSocket.
    pub websocket: bool,
    /// Counts the request when it is dropped.
    pub in_flight: InFlight,
    /// When its head was whole.
    pub began: Instant,
}

/// What comes after an answer.
pub(super) enum Then {
    /// The next request.
    Next,
    /// Nothing.
    End(End),
}

/// Why an exchange did not come to its end.
enum Failed {
    /// Nobody waits for the answer any more.
    Gone,
    /// The answer is ours to give.
    Answer(ProxyError),
    /// AEM broke off, or the client stopped reading, after the answer had begun.
    Cut,
    /// The client has its whole answer; only the rest of its body did not get through.
    Over,
}

/// The request's body, from the client to AEM.
pub(super) struct Up {
    decoder: Decoder,
    encoding: Encoding,
    gate: Option<Gate>,
    /// Nobody reads the rest.
    abandoned: bool,
}

/// Holds a body back until AEM has said `100 Continue`, or has been silent for so long that it never will: so the client
/// hears it when AEM has said it, and hears AEM's refusal instead where there is one.
#[derive(Default)]
struct Gate {
    /// Begins when AEM has the head.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Up {
    /// `trailers_max` bounds the fields after a chunked body; `expects` is `Expect: 100-continue`.
    pub(super) fn new(length: Length, trailers_max: usize, expects: bool) -> Self {
        let encoding = if length == Length::Chunked { Encoding::Chunked } else { Encoding::Identity };
        let gate = expects.then(Gate::default);
        Self { decoder: Decoder::new(length, trailers_max), encoding, gate, abandoned: false }
    }

    /// Whether the whole body has come.
    fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether no more of it goes to AEM.
    fn is_over(&self) -> bool {
        self.abandoned || self.is_done()
    }

    /// Moves what has come of the body to `take`.
    fn pass(
        &mut self,
        input: &mut Buffer,
        mut take: impl FnMut(&[u8]) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let mut chunks = Buffer::default();
        while !input.is_empty() && !self.decoder.is_done() {
            let (used, data) = self.decoder.decode(input.filled())?;
            match self.encoding {
                Encoding::Identity => take(data)?,
                Encoding::Chunked => self.encoding.data(data, &mut chunks),
            }
            input.consume(used);
        }
        if self.encoding == Encoding::Chunked {
            if self.decoder.is_done() {
                self.encoding.end(&trailers(self.decoder.trailers()), &mut chunks);
            }
            take(chunks.filled())?;
        }
        Ok(())
    }

    /// Reads what is left of the body, as far as it has come: AEM does not get it. Tells whether that was all.
    fn skip(&mut self, input: &mut Buffer) -> bool {
        if self.gate.is_some() {
            // The client may send it or not: nobody knows where the next request begins.
            return false;
        }
        self.encoding = Encoding::Identity;
        self.pass(input, |_| Ok(())).is_ok() && self.is_done()
    }
}

/// The response, from AEM to the client.
struct Down {
    stage: Stage,
    /// A head of which only the beginning has come.
    partial: Vec<u8>,
    /// The status of the final response, once there is one.
    status: Option<u16>,
    /// AEM keeps the connection.
    reusable: bool,
    /// Something went wrong with the connection that an answer may not show.
    spoiled: bool,
    /// The client is told that its connection ends.
    close: bool,
    /// AEM said `100 Continue`.
    continued: bool,
}

enum Stage {
    Head,
    Body(Decoder, Encoding),
    Done,
    /// The connection has become a WebSocket.
    Tunnel,
}

/// What decides how a response's head is passed on.
#[derive(Clone, Copy)]
struct Facing {
    to: AnswerTo,
    head_max: usize,
    websocket: bool,
    /// The whole request has gone to AEM.
    uploaded: bool,
    /// The client waits to hear whether it shall send its body.
    held_back: bool,
    stopping: bool,
}

impl Down {
    fn new() -> Self {
        Self {
            stage: Stage::Head,
            partial: Vec::new(),
            status: None,
            reusable: false,
            spoiled: false,
            close: false,
            continued: false,
        }
    }

    fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Tunnel)
    }

    /// Whether AEM's connection serves no other request, nor the rest of this one.
    fn is_used_up(&self) -> bool {
        self.spoiled || !self.reusable
    }

    /// Takes bytes of AEM's, and adds what becomes of them to `out`.
    fn take(&mut self, mut data: &[u8], facing: Facing, out: &mut Buffer) -> Result<(), LinkError> {
        while !data.is_empty() {
            match &mut self.stage {
                Stage::Head => data = self.head(data, facing, out)?,
                Stage::Body(decoder, encoding) => {
                    let (used, part) = decoder.decode(data)?;
                    encoding.data(part, out);
                    data = &data[used..];
                    self.end_if_done(out);
                }
                Stage::Tunnel => {
                    out.push(data);
                    return Ok(());
                }
                Stage::Done => {
                    // More than an answer: whatever it is, it is not the next one.
                    self.spoiled = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Takes bytes of a head; gives back those behind it.
    fn head<'a>(&mut self, data: &'a [u8], facing: Facing, out: &mut Buffer) -> Result<&'a [u8], LinkError> {
        if self.partial.is_empty() {
            return match self.whole_head(data, facing, out)? {
                Some(used) => Ok(&data[used..]),
                None => {
                    self.partial.extend_from_slice(data);
                    self.check_size(facing)
                }
            };
        }
        let mut partial = std::mem::take(&mut self.partial);
        let earlier = partial.len();
        partial.extend_from_slice(data);
        match self.whole_head(&partial, facing, out)? {
            Some(used) => Ok(&data[used.saturating_sub(earlier)..]),
            None => {
                self.partial = partial;
                self.check_size(facing)
            }
        }
    }

    fn check_size<'a>(&self, facing: Facing) -> Result<&'a [u8], LinkError> {
        if self.partial.len() > facing.head_max { Err(LinkError::HeadTooLarge) } else { Ok(&[]) }
    }

    /// Passes a head on if it is whole; tells its length.
    fn whole_head(
        &mut self,
        bytes: &[u8],
        facing: Facing,
        out: &mut Buffer,
    ) -> Result<Option<usize>, LinkError> {
        let mut storage = storage();
        let Some(head) = ResponseHead::parse(bytes, &mut storage)? else { return Ok(None) };
        if head.bytes > facing.head_max {
            return Err(LinkError::HeadTooLarge);
        }
        match head.status {
            101 if facing.websocket && head.is_websocket() => {
                self.status = Some(101);
                self.stage = Stage::Tunnel;
                let body = Body { length: Length::Exact(0), encoding: Encoding::Identity, closes: false };
                head.write(body, facing.to, false, out);
            }
            101 => return Err(LinkError::UnaskedUpgrade),
            100 => {
                if facing.held_back {
                    out.push(CONTINUE);
                }
                self.continued = true;
            }
            102..200 => {
                // An old client knows of one answer only (RFC 9110, section 15.2).
                if facing.to.minor > 0 {
                    head.write_interim(facing.to, out);
                }
            }
            _ => self.begin(&head, facing, out)?,
        }
        Ok(Some(head.bytes))
    }

    /// Passes the final response's head on.
    fn begin(
        &mut self,
        head: &ResponseHead<'_, '_>,
        facing: Facing,
        out: &mut Buffer,
    ) -> Result<(), LinkError> {
        let body = head.body(facing.to)?;
        self.reusable = head.keeps_alive() && body.length != Length::UntilClose && !head.is_contradictory();
        // A body that AEM will not read, or that the client was never asked for, leaves no way to the next request.
        let unread = !facing.uploaded && (self.is_used_up() || facing.held_back);
        self.close = body.closes || facing.stopping || !facing.to.keep_alive || unread;
        head.write(body, facing.to, self.close, out);
        self.status = Some(head.status);
        self.stage = Stage::Body(Decoder::new(body.length, facing.head_max), body.encoding);
        self.end_if_done(out);
        Ok(())
    }

    fn end_if_done(&mut self, out: &mut Buffer) {
        if let Stage::Body(decoder, encoding) = &self.stage
            && decoder.is_done()
        {
            if *encoding == Encoding::Chunked {
                encoding.end(&trailers(decoder.trailers()), out);
            }
            self.stage = Stage::Done;
        }
    }

    /// AEM's connection has ended, in order or not.
    fn ended(&mut self, in_order: bool, out: &mut Buffer) -> Result<(), LinkError> {
        self.spoiled = true;
        match &self.stage {
            Stage::Done | Stage::Tunnel => Ok(()),
            Stage::Body(decoder, encoding) if in_order && decoder.ends_with_connection() => {
                encoding.end(&[], out);
                self.stage = Stage::Done;
                Ok(())
            }
            Stage::Head | Stage::Body(..) => Err(LinkError::Io(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Answers a request: with AEM's answer, or with one of our own.
pub(super) async fn run(client: &mut Client, worker: &Worker, mut request: Request<'_>) -> Then {
    match forward(client, worker, &mut request).await {
        Ok(then) => then,
        Err(Failed::Gone) => Then::End(End::Gone),
        Err(Failed::Cut) => Then::End(End::Abort),
        Err(Failed::Over) => {
            client.half = false;
            Then::End(End::Linger)
        }
        Err(Failed::Answer(error)) => answer(client, worker, request, &error).await,
    }
}

async fn forward(client: &mut Client, worker: &Worker, request: &mut Request<'_>) -> Result<Then, Failed> {
    let head = std::mem::replace(&mut request.head, Err(ProxyError::Draining));
    let (mut head, upstream) = head.map_err(Failed::Answer)?;
    let (buffers, pool) = (&worker.buffers, worker.pool(upstream));
    let mut since = request.began;
    // Over HTTP/2 there is no upgrade, and not every target.
    let alone = upstream.takes_http2() && (request.websocket || !http2::carries(head.filled()));
    let mut link = match worker.at_hand(upstream, alone) {
        Some(link) => link,
        None => {
            // Many may wait for a connection at once: no longer than it must in a buffer of the thread's.
            let waiting = head.packed();
            buffers.release(&mut std::mem::replace(&mut head, waiting));
            let link = connect(client, worker, upstream, alone).await?;
            since = Instant::now();
            link
        }
    };
    if request.up.gate.is_none() && !request.up.is_done() {
        // What is there of the body travels with the head.
        let body = request.up.pass(&mut client.input, |data| {
            head.push(data);
            Ok(())
        });
        body.map_err(|error| Failed::Answer(request_broken(error)))?;
        buffers.release(&mut client.input);
    }
    let pushed = link.push(head.filled(), buffers);
    head.clear();
    buffers.release(&mut head);
    pushed.map_err(|error| Failed::Answer(ProxyError::BrokenOff(Box::new(error))))?;
    let limits = &request.proxy.limits.timeouts;
    let limit = if request.up.is_done() { limits.response_head } else { limits.idle };
    client.watch.begin(limit, since);
    let mut exchange = Exchange { client, worker, link, down: Down::new(), request };
    poll_fn(|cx| exchange.poll(cx)).await?;
    let Exchange { down, link, .. } = exchange;
    if matches!(down.stage, Stage::Tunnel) {
        return Ok(Then::End(tunnel::run(client, worker, link, limits.idle).await));
    }
    client.half = false;
    let now = Instant::now();
    request.in_flight.ended(now);
    client.watch.begin(limits.keep_alive, now);
    if !down.is_used_up() && request.up.is_done() && link.is_flushed() {
        pool.keep(link, now, buffers);
    } else {
        link.close(buffers);
    }
    Ok(match (request.up.is_done(), down.close) {
        (true, false) => Then::Next,
        (true, true) => Then::End(End::Close),
        (false, _) => Then::End(End::Linger),
    })
}

async fn connect(
    client: &mut Client,
    worker: &Worker,
    upstream: &Upstream,
    alone: bool,
) -> Result<Link, Failed> {
    let mut connecting = pin!(worker.connect(upstream, alone));
    poll_fn(|cx| {
        if let Poll::Ready(result) = connecting.as_mut().poll(cx) {
            return Poll::Ready(
                result.map_err(|error| Failed::Answer(ProxyError::Unreachable(error.cause, Box::new(error)))),
            );
        }
        client.poll_gone(cx, &worker.buffers).map(|()| Err(Failed::Gone))
    })
    .await
}

struct Exchange<'a, 'w> {
    client: &'a mut Client,
    worker: &'a Worker,
    link: Link,
    down: Down,
    request: &'a mut Request<'w>,
}

impl Exchange<'_, '_> {
    /// Moves both directions as far as they go; ready when both are over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let mut moved = false;
        loop {
            moved |= self.poll_up(cx)?;
            moved |= self.poll_down(cx)?;
            if !self.request.up.is_over() && self.leaves_body() {
                self.request.up.abandoned = true;
            }
            let opened = self.down.continued && self.request.up.gate.take().is_some();
            if !opened && self.link.is_flushed() {
                break;
            }
            if !opened {
                // What waits here waits for AEM to take it: it was tried above, unless the answer has just made it.
                if self.poll_flush(cx) == 0 {
                    break;
                }
                moved = true;
            }
        }
        let delivered = self.is_delivered();
        if delivered && self.is_uploaded() {
            return Poll::Ready(Ok(()));
        }
        if !delivered
            && self.request.up.is_over()
            && self.client.poll_gone(cx, &self.worker.buffers).is_ready()
        {
            return Poll::Ready(Err(Failed::Gone));
        }
        if moved {
            self.client.watch.moved();
        }
        match self.client.watch.poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(self.overdue())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether the rest of a body has nowhere to go: the answer has begun and the client was not asked for the body, or
    /// the answer is complete and AEM will not read on.
    fn leaves_body(&self) -> bool {
        match self.down.stage {
            Stage::Head => false,
            Stage::Body(..) => self.request.up.gate.is_some(),
            Stage::Done | Stage::Tunnel => self.down.is_used_up() || self.request.up.gate.is_some(),
        }
    }

    /// Whether the client has its whole answer.
    fn is_delivered(&self) -> bool {
        self.down.is_done() && self.client.output.is_empty()
    }

    /// Whether AEM has the whole body, as far as it will have it.
    fn is_uploaded(&self) -> bool {
        self.request.up.abandoned || (self.request.up.is_done() && self.link.is_flushed())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> usize {
        match self.link.poll_flush(cx, &self.worker.buffers) {
            Ok(sent) => sent,
            Err(_) => {
                // AEM takes no more. It may have said why: that is for `poll_down` to find.
                self.link.forget(&self.worker.buffers);
                self.down.spoiled = true;
                self.request.up.abandoned |= !self.request.up.is_done();
                0
            }
        }
    }

    /// From the client to AEM. Tells whether a part of the body moved.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<bool, Failed> {
        let mut moved = false;
        loop {
            let sent = self.poll_flush(cx);
            let up = &mut self.request.up;
            if up.is_over() {
                return Ok(moved);
            }
            moved |= sent > 0;
            if !self.link.is_flushed() {
                // While AEM takes nothing, nothing is read: but a client that leaves is to be noticed.
                return match self.client.poll_gone(cx, &self.worker.buffers) {
                    Poll::Ready(()) => Err(if self.is_delivered() { Failed::Over } else { Failed::Gone }),
                    Poll::Pending => Ok(moved),
                };
            }
            if !self.poll_gate(cx)? {
                return Ok(moved);
            }
            let buffers = &self.worker.buffers;
            if self.client.input.is_empty() {
                match self.client.poll_read(cx, buffers) {
                    // The answer was enough for it.
                    Poll::Ready(Ok(0)) if self.is_delivered() => return Err(Failed::Over),
                    Poll::Ready(Ok(0)) => {
                        let broken = io::Error::from(io::ErrorKind::UnexpectedEof);
                        return Err(self.failed(ProxyError::RequestBroken(Box::new(broken))));
                    }
                    Poll::Ready(Ok(_)) => moved = true,
                    Poll::Ready(Err(_)) => return Err(Failed::Gone),
                    Poll::Pending => return Ok(moved),
                }
            }
            let (up, link) = (&mut self.request.up, &mut self.link);
            let passed = up.pass(&mut self.client.input, |data| link.push(data, buffers));
            buffers.release(&mut self.client.input);
            if let Err(error) = passed {
                return Err(self.failed(request_broken(error)));
            }
            if self.request.up.is_done() && self.down.status.is_none() {
                // Now it is AEM's turn.
                self.client.watch.begin(self.request.proxy.limits.timeouts.response_head, Instant::now());
            }
        }
    }

    /// Whether the body may be asked for.
    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Result<bool, Failed> {
        let Some(gate) = &mut self.request.up.gate else { return Ok(true) };
        let patience = || Box::pin(tokio::time::sleep(CONTINUE_PATIENCE));
        if !self.client.input.is_empty() {
            // It came without being asked for.
        } else if gate.patience.get_or_insert_with(patience).as_mut().poll(cx).is_ready() {
            self.client.output.push(CONTINUE);
        } else {
            // Should it come all the same, or the client leave, that is to be noticed.
            match self.client.poll_read(cx, &self.worker.buffers) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Err(Failed::Gone),
                Poll::Pending => return Ok(false),
            }
        }
        self.request.up.gate = None;
        Ok(true)
    }

    /// From AEM to the client. Tells whether anything moved.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<bool, Failed> {
        let buffers = &self.worker.buffers;
        let mut moved = false;
        loop {
            match self.client.poll_flush(cx, buffers) {
                Ok(sent) => moved |= sent > 0,
                Err(_) => return Err(Failed::Gone),
            }
            if self.down.is_done() || !self.client.output.is_empty() {
                return Ok(moved);
            }
            let facing = self.facing();
            let (down, output) = (&mut self.down, &mut self.client.output);
            buffers.equip(output);
            let came = self.link.poll_read(cx, buffers, |data| down.take(data, facing, output));
            let result = match came {
                Poll::Pending => {
                    buffers.release(&mut self.client.output);
                    return Ok(moved);
                }
                Poll::Ready(Ok(Came::Bytes)) => Ok(()),
                Poll::Ready(Ok(Came::End)) => down.ended(true, output),
                Poll::Ready(Ok(Came::Cut)) => down.ended(false, output),
                Poll::Ready(Err(error)) => Err(error),
            };
            self.note_status();
            // A head has a limit as a whole: a byte now and then does not extend it.
            moved |= self.down.status.is_some();
            match result {
                Err(_) if self.down.is_done() => self.down.spoiled = true,
                Err(error) => return Err(self.broken(error)),
                Ok(()) => {}
            }
        }
    }

    fn facing(&self) -> Facing {
        Facing {
            to: self.request.to,
            head_max: self.request.proxy.limits.head,
            websocket: self.request.websocket,
            uploaded: self.request.up.is_done(),
            held_back: self.request.up.gate.is_some(),
            stopping: self.worker.is_stopping(),
        }
    }

    /// The first sight of the response: it is counted, and from now on only standing still is overdue.
    fn note_status(&mut self) {
        let Some(status) = self.down.status else { return };
        if self.request.in_flight.answered(status) {
            self.client.half = status != 101;
            if status == 401 {
                self.request.proxy.metrics.upstream_unauthorized();
            }
            if !self.down.is_done() || !self.request.up.is_over() {
                self.client.watch.begin(self.request.proxy.limits.timeouts.idle, Instant::now());
            }
        }
    }

    /// The connection to AEM is of no use any more.
    fn broken(&self, error: LinkError) -> Failed {
        if self.down.status.is_some() {
            warn!(%error, "AEM broke off in the body of its response, cutting the client's connection");
            return Failed::Cut;
        }
        Failed::Answer(match error {
            LinkError::Response(BadResponse::Coding) => ProxyError::ResponseCoding,
            LinkError::Response(BadResponse::TooLarge) | LinkError::HeadTooLarge => {
                ProxyError::ResponseHeadTooLarge
            }
            LinkError::Response(error) => ProxyError::BadResponse(Box::new(error)),
            LinkError::UnaskedUpgrade => ProxyError::UnaskedUpgrade,
            LinkError::Io(_) | LinkError::Framing(_) => ProxyError::BrokenOff(Box::new(error)),
        })
    }

    /// The request cannot go on: ours to answer, unless AEM has begun to.
    fn failed(&self, error: ProxyError) -> Failed {
        match self.down.status {
            None => Failed::Answer(error),
            Some(_) if self.is_delivered() => Failed::Over,
            Some(_) => Failed::Cut,
        }
    }

    fn overdue(&self) -> Failed {
        let stalled = !self.request.up.is_over();
        self.failed(if stalled { ProxyError::RequestStalled } else { ProxyError::ResponseTimeout })
    }
}

fn request_broken(error: LinkError) -> ProxyError {
    match error {
        LinkError::Framing(FramingError { .. }) => ProxyError::RequestBroken(Box::new(error)),
        error => ProxyError::BrokenOff(Box::new(error)),
    }
}

/// Gives one of our own answers.
async fn answer(client: &mut Client, worker: &Worker, mut request: Request<'_>, error: &ProxyError) -> Then {
    error.log();
    if let Some(reason) = error.denied() {
        request.proxy.metrics.denied(reason);
    }
    let read = request.up.skip(&mut client.input);
    let close = !read || !request.to.keep_alive || worker.is_stopping();
    let (status, close) = error.write(request.to, close, &mut client.output);
    request.in_flight.answered(status);
    client.watch.begin(request.proxy.limits.timeouts.idle, Instant::now());
    let flushed = poll_fn(|cx| match client.poll_flush(cx, &worker.buffers) {
        Err(_) => Poll::Ready(End::Gone),
        Ok(_) if client.output.is_empty() => Poll::Ready(End::Close),
        Ok(sent) => {
            if sent > 0 {
                client.watch.moved();
            }
            client.watch.poll(cx).map(|()| End::Abort)
        }
    });
    let now = match flushed.await {
        End::Close => Instant::now(),
        end => return Then::End(end),
    };
    client.watch.begin(request.proxy.limits.timeouts.keep_alive, now);
    worker.buffers.release(&mut client.input);
    match (close, read) {
        (false, _) => Then::Next,
        (true, true) => Then::End(End::Close),
        (true, false) => Then::End(End::Linger),
    }
}

/// AEM's word, passed on, or ours after [`CONTINUE_PATIENCE`].
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// As long as curl waits by itself before it sends the body anyway.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);
