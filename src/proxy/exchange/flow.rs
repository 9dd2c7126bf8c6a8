//! Both directions of a request at once, in one task: nothing is handed to another.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use super::{
    Failed, Request, Sent, broken_off,
    down::{CONTINUE, Down, Facing, Held, Holds, Stage},
    request_broken,
};
use crate::{
    deliberate::panic_if_asked,
    metrics::{Ended, Outcome},
    network::Cause,
    proxy::{
        Upstream, Worker,
        buffer::Buffer,
        client::Client,
        error::ProxyError,
        link::{Came, Link, LinkError},
        refusal::{self, Refusal},
        response::{AnswerTo, BadResponse},
        rewrite::Names,
    },
};

/// One attempt at a request.
pub(super) struct Exchange<'a, 'w> {
    pub(super) client: &'a mut Client,
    pub(super) worker: &'a Worker,
    pub(super) link: Link,
    pub(super) down: Down<'w>,
    pub(super) request: &'a mut Request<'w>,
    pub(super) sent: &'a mut Sent<'w>,
    holds: Holds,
    /// AEM's socket has taken something of the request, or may have.
    pub(super) has_left: bool,
    /// What is told of a refusal that is passed on.
    pub(super) outcome: Outcome,
}

/// How far an exchange has come.
pub(super) enum Turn {
    /// Both directions are over.
    Over,
    /// The response is not passed on before it is known that there is no better one.
    Held(Held),
}

impl<'a, 'w> Exchange<'a, 'w> {
    pub(super) fn new(
        client: &'a mut Client,
        worker: &'a Worker,
        link: Link,
        request: &'a mut Request<'w>,
        sent: &'a mut Sent<'w>,
        (holds, outcome): (Holds, Outcome),
    ) -> Self {
        let names = Names { origin: sent.route.upstream.names(), local: Rc::clone(&request.local) };
        let down = Down::new(request.protocol.clone(), names, request.members);
        // Whether the head has left is known to the connection that requests share, which does not tell.
        let has_left = matches!(link, Link::Stream(_));
        Self { client, worker, link, down, request, sent, holds, has_left, outcome }
    }

    pub(super) fn upstream(&self) -> &'w Upstream {
        &self.sent.route.upstream
    }

    /// Moves both directions as far as they go; ready when both are over, or when the response is held.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Turn, Failed>> {
        let mut moved = false;
        let (mut up, mut down) = (Turns(TURNS_MAX), Turns(TURNS_MAX));
        loop {
            moved |= self.poll_up(&mut up, cx)?;
            moved |= self.poll_down(&mut down, cx)?;
            if let Some(held) = self.down.held() {
                return Poll::Ready(Ok(Turn::Held(held)));
            }
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
            return Poll::Ready(Ok(Turn::Over));
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
        let others = self.link.held() + self.request.up.held() + self.down.held_bytes();
        let waits = self.waits_for_client();
        self.client.waits(others, waits);
        match self.client.watch.poll_pace(cx, waits) {
            Poll::Ready(()) => Poll::Ready(Err(self.overdue())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether it is the client that has to send, or to take.
    fn waits_for_client(&self) -> bool {
        let sends = !self.request.up.is_over() && self.request.up.gate.is_none() && self.link.is_flushed();
        sends || !self.client.output.is_empty()
    }

    /// Whether the rest of a body has nowhere to go: the answer has begun and the client was not asked for the body, or
    /// the answer is complete and AEM will not read on.
    fn leaves_body(&self) -> bool {
        match self.down.stage {
            Stage::Head | Stage::Held(_) => false,
            Stage::Body(..) | Stage::Renamed(_) => self.request.up.gate.is_some(),
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
        let waiting = self.link.waiting();
        match self.link.poll_flush(cx, &self.worker.buffers) {
            Ok(sent) => {
                self.has_left |= sent > 0;
                sent
            }
            Err(_) => {
                // Something may have gone before the rest did not.
                self.has_left |= self.link.waiting() < waiting;
                // AEM takes no more. It may have said why: that is for `poll_down` to find.
                self.link.forget(&self.worker.buffers);
                self.down.spoiled = true;
                self.request.up.abandoned |= !self.request.up.is_done();
                0
            }
        }
    }

    /// From the client to AEM. Tells whether a part of the body moved.
    fn poll_up(&mut self, turns: &mut Turns, cx: &mut Context<'_>) -> Result<bool, Failed> {
        let mut moved = false;
        while turns.take(cx) {
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
        Ok(moved)
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
    fn poll_down(&mut self, turns: &mut Turns, cx: &mut Context<'_>) -> Result<bool, Failed> {
        let buffers = &self.worker.buffers;
        let mut moved = false;
        while turns.take(cx) {
            match self.client.poll_flush(cx, buffers) {
                Ok(sent) => moved |= sent > 0,
                Err(_) => return Err(Failed::Gone),
            }
            let waits = self.down.is_done() || self.down.held().is_some();
            if waits || !self.client.output.is_empty() {
                return Ok(moved);
            }
            if matches!(self.down.stage, Stage::Renamed(_)) {
                buffers.equip(&mut self.client.output);
            }
            let withheld = self.sent.identity.withheld();
            match self.down.advance(withheld, &mut self.client.output) {
                Ok(true) => {
                    self.note_cut();
                    continue;
                }
                Ok(false) => {}
                Err(error) => return Err(self.broken(error)),
            }
            let facing = self.facing();
            let facing = Facing { to: AnswerTo { withheld, ..facing.to }, ..facing };
            let (down, output) = (&mut self.down, &mut self.client.output);
            let room = match down.stage {
                Stage::Head => buffers.poll_room_for_answer(cx),
                _ => buffers.poll_room(cx),
            };
            // Memory only where something has come: most looks find nothing.
            let came = match room {
                Poll::Ready(()) => self.link.poll_read(cx, buffers, |data| {
                    buffers.equip(output);
                    down.take(data, facing, output)
                }),
                Poll::Pending => Poll::Pending,
            };
            let result = match came {
                Poll::Pending => {
                    buffers.release(&mut self.client.output);
                    return Ok(moved);
                }
                Poll::Ready(Ok(Came::Bytes)) => Ok(()),
                Poll::Ready(Ok(came @ (Came::End | Came::Cut))) => {
                    buffers.equip(output);
                    down.ended(came == Came::End, output)
                }
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
        Ok(moved)
    }

    /// Passes on what was held, and whatever comes after it.
    pub(super) fn release(&mut self) -> Result<(), Failed> {
        let facing = self.facing();
        let withheld = self.sent.identity.withheld();
        let facing = Facing { to: AnswerTo { withheld, ..facing.to }, ..facing };
        self.worker.buffers.equip(&mut self.client.output);
        let mut released = self.down.release(facing, &mut self.client.output);
        if released.is_ok() && self.link.has_ended() {
            // It came with what was held, and is not said a second time.
            released = self.down.ended(true, &mut self.client.output);
        }
        self.note_status();
        released.map_err(|error| self.broken(error))
    }

    /// Is done with a response that nobody will see. The connection is kept where that is all that AEM had to say.
    pub(super) fn dismiss(mut self) {
        let (facing, buffers) = (self.facing(), &self.worker.buffers);
        let mut unseen = Buffer::default();
        let read = self.down.release(facing, &mut unseen);
        let whole = read.is_ok() && self.down.is_done() && !self.down.is_used_up() && !self.down.early;
        if whole && self.request.up.is_done() && self.link.is_flushed() {
            return self.worker.pool(self.upstream()).keep(self.link, Instant::now(), buffers);
        }
        self.link.close(buffers);
    }

    fn facing(&self) -> Facing<'w> {
        // What was sent cannot be sent again: there is no use in waiting.
        let kept = self.request.up.kept().is_some();
        Facing {
            to: self.request.to,
            asking: self.request.asking,
            holds: if kept { self.holds } else { Holds::NOTHING },
            limits: &self.request.proxy.limits,
            uploaded: self.request.up.is_done(),
            held_back: self.request.up.gate.is_some(),
            stopping: self.worker.is_stopping(),
        }
    }

    /// The first sight of the response: it is counted, and from now on only standing still is overdue.
    fn note_status(&mut self) {
        self.note_cut();
        let Some(status) = self.down.status else { return };
        if self.request.in_flight.answered(status) {
            panic_if_asked("response");
            self.client.half = status != 101;
            // The answer is on its way to the client: there will be no other one.
            self.request.up.forget();
            match self.down.refusal {
                Some(refusal) => self.refused(refusal),
                None if refusal::accepts_token(status) => self.accepted(),
                None => {}
            }
            if !self.down.is_done() || !self.request.up.is_over() {
                self.client.watch.begin(self.request.proxy.limits.timeouts.idle, Instant::now());
            }
        }
    }

    /// AEM has sent the credential back, and the client does not get it.
    fn note_cut(&mut self) {
        if self.down.cut > 0 {
            self.request.proxy.metrics.echoed(std::mem::take(&mut self.down.cut));
        }
    }

    /// The client gets to see that AEM does not take our token. The next request is to fare better.
    fn refused(&self, refusal: Refusal) {
        self.request.proxy.metrics.refused(refusal, self.outcome);
        match (self.outcome, self.sent.token()) {
            (Outcome::Passed, Some((token, lease))) => token.refused(lease, self.sent.kind()),
            (Outcome::RefusedAgain, Some((token, lease))) => token.refused_again(lease, self.sent.kind()),
            _ => {}
        }
    }

    /// AEM has taken our token: if it refuses it later, the token was revoked.
    fn accepted(&self) {
        if let Some((token, lease)) = self.sent.token() {
            lease.accept();
            if self.outcome == Outcome::RefusedAgain {
                token.helped(lease, self.sent.kind());
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
            LinkError::Framing(_) | LinkError::Coding(_) => ProxyError::BrokenOff(Box::new(error)),
            // In TLS 1.3 AEM looks at our certificate after we have begun to send (RFC 8446, section 4.4.2.4). It
            // would not like it better on another connection.
            LinkError::Io(io) if Cause::of(&io) == Cause::ClientCertificate => broken_off(LinkError::Io(io)),
            LinkError::Io(_) => return Failed::Broken(error),
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
        if self.client.watch.is_slow() {
            self.request.proxy.metrics.connection_ended(Ended::Slow);
        }
        let stalled = !self.request.up.is_over();
        self.failed(if stalled { ProxyError::RequestStalled } else { ProxyError::ResponseTimeout })
    }
}

/// How often one direction of a connection may move in a row. Then the other connections of the thread have their turn.
struct Turns(u32);

impl Turns {
    /// Whether there is one left. If not, the task is woken to go on later.
    fn take(&mut self, cx: &mut Context<'_>) -> bool {
        if self.0 == 0 {
            cx.waker().wake_by_ref();
            return false;
        }
        self.0 -= 1;
        true
    }
}

/// A read, and what is left of it. To pass on what one read brings may take a millisecond, if it is chunks of one byte.
const TURNS_MAX: u32 = 2;

/// As long as curl waits by itself before it sends the body anyway.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::{Wake, Waker},
    };

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_direction_without_turns_left_goes_on_later() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut turns = Turns(TURNS_MAX);
        let taken = (0..TURNS_MAX).filter(|_| turns.take(&mut cx)).count();
        assert_eq!((taken, count.0.load(Relaxed)), (TURNS_MAX as usize, 0));
        assert!(!turns.take(&mut cx));
        assert_eq!(count.0.load(Relaxed), 1);
        assert!(!turns.take(&mut cx), "however often it is asked within one poll");
    }
}
