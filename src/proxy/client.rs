//! The client's side of a connection: its socket, what came and what is to go, and one timer for all the waits.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::{
    Limits, Place,
    buffer::{Buffer, Buffers},
    socket::Socket,
};

/// A client's connection.
pub(super) struct Client {
    pub stream: Socket,
    /// Came, and is not used yet.
    pub input: Buffer,
    /// Is to be sent.
    pub output: Buffer,
    pub watch: Watch,
    /// An answer has begun and not ended.
    pub half: bool,
    /// It sends no more: how long it may wait for an answer of which nothing comes.
    ended: Option<Pin<Box<Sleep>>>,
    /// Where it says what memory it holds; none for a connection that is only turned away.
    place: Option<Place>,
}

impl Drop for Client {
    /// However a connection ends, half an answer must not look whole.
    fn drop(&mut self) {
        if self.half {
            self.stream.reset();
        }
    }
}

impl Client {
    pub(super) fn new(stream: Socket, limits: &Limits, place: Option<Place>) -> Self {
        let (input, output) = (Buffer::default(), Buffer::default());
        Self { stream, input, output, watch: Watch::new(limits), half: false, ended: None, place }
    }

    /// Its place among the connections of the thread.
    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Says that it waits, whether for the client, and what memory is held for it: its own buffers, and so many bytes of others.
    pub(super) fn waits(&mut self, others: usize, on_client: bool) {
        if let Some(place) = &self.place {
            let held = self.input.capacity() + self.output.capacity() + self.stream.held() + others;
            place.waits(held, on_client, self.watch.since);
        }
    }

    /// Reads once, when there is room in the memory budget. 0 is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> Poll<io::Result<usize>> {
        ready!(buffers.poll_room(cx));
        self.poll_fill(cx, buffers)
    }

    /// Reads once what may belong to a request's head.
    pub(super) fn poll_read_head(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        ready!(buffers.poll_room_for_head(cx));
        self.poll_fill(cx, buffers)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> Poll<io::Result<usize>> {
        buffers.equip(&mut self.input);
        let read = self.input.poll_fill(&mut self.stream, cx);
        buffers.release(&mut self.input);
        if let Poll::Ready(Ok(bytes)) = &read {
            self.watch.pace.bytes += bytes;
        }
        read
    }

    /// Gives a buffer of the thread's back in which only a part of a head waits for the rest.
    pub(super) fn pack_input(&mut self, buffers: &Buffers) {
        if buffers.is_shared(&self.input) && self.input.len() <= PACKED_MAX {
            let packed = self.input.packed();
            buffers.release(&mut std::mem::replace(&mut self.input, packed));
        }
    }

    /// Sends what the socket takes; tells how much that was.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> io::Result<usize> {
        let sent = self.output.poll_drain(&mut self.stream, cx)?;
        buffers.release(&mut self.output);
        self.watch.pace.bytes += sent;
        if let Some(ended) = self.ended.as_mut().filter(|_| sent > 0) {
            ended.as_mut().reset(Instant::now() + ENDED_PATIENCE);
        }
        Ok(sent)
    }

    /// Ready when the client has left. A client that sends the next request early has not; nor can one be seen to
    /// leave behind it, but for a stream of HTTP/2. One that has only ended its side may still read (RFC 9112, section 9.6): whether it does shows when
    /// something is sent, and until then it has some time.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> Poll<()> {
        if !self.input.is_empty() {
            return self.stream.poll_reset(cx);
        }
        if self.ended.is_none() {
            match ready!(self.poll_read(cx, buffers)) {
                Ok(1..) => return self.stream.poll_reset(cx),
                Ok(0) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        let patience = || Box::pin(tokio::time::sleep(ENDED_PATIENCE));
        self.ended.get_or_insert_with(patience).as_mut().poll(cx)
    }
}

/// A limit on how long something may take or stand still, and one on how slow the client may be. No timer is set for a request:
/// the one there is looks, when it goes off, whether anything is overdue.
pub(super) struct Watch {
    timer: Pin<Box<Sleep>>,
    since: Instant,
    limit: Duration,
    /// As often as the shortest of the usual limits asks: nothing that begins after a look is missed by the next.
    every: Duration,
    pace: Pace,
}

/// How far behind a client is. While it is waited for it owes so many bytes in a second, of a request's body or taken of an
/// answer: a byte now and then must not hold a connection to AEM for ever. While AEM is waited for it owes nothing, nor is it
/// given anything for having been fast before.
struct Pace {
    /// Bytes in a second; 0 where it may be as slow as it likes.
    rate: usize,
    /// How far it may be behind.
    most: Duration,
    behind: Duration,
    /// Since when it is waited for.
    waiting: Option<Instant>,
    /// Moved since it was looked at last.
    bytes: usize,
}

impl Watch {
    fn new(limits: &Limits) -> Self {
        let timeouts = &limits.timeouts;
        let every = timeouts.keep_alive.min(timeouts.response_head).min(timeouts.idle);
        let timer = Box::pin(tokio::time::sleep(every));
        let most = timeouts.slow_client.min(timeouts.idle);
        let pace = Pace { rate: limits.min_rate, most, behind: Duration::ZERO, waiting: None, bytes: 0 };
        Self { timer, since: Instant::now(), limit: timeouts.keep_alive, every, pace }
    }

    /// From now on `limit` holds.
    pub(super) fn begin(&mut self, limit: Duration, now: Instant) {
        self.limit = limit;
        self.since = now;
    }

    /// Something moved: the limit begins anew.
    pub(super) fn moved(&mut self) {
        self.since = Instant::now();
    }

    /// Since when its limit has held.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Ready when the limit has passed, and then once a second: it may take some time until that helps.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.since + self.limit;
        let due = self.pace.due().map_or(due, |pace| pace.min(due));
        if due < self.timer.deadline() {
            self.timer.as_mut().reset(due);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= due {
                self.timer.as_mut().reset(now + OVERDUE_PAUSE);
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due.min(now + self.every));
        }
    }

    /// The same for a request on its way; `waits` tells whether it is the client that it waits for.
    pub(super) fn poll_pace(&mut self, cx: &mut Context<'_>, waits: bool) -> Poll<()> {
        self.pace.look(waits);
        self.poll(cx)
    }

    /// Whether it is the client's pace that is overdue.
    pub(super) fn is_slow(&self) -> bool {
        self.pace.due().is_some_and(|due| due <= Instant::now())
    }

    /// The next request owes nothing yet.
    pub(super) fn rest(&mut self) {
        self.pace = Pace { behind: Duration::ZERO, waiting: None, bytes: 0, ..self.pace };
    }
}

impl Pace {
    fn look(&mut self, waits: bool) {
        if !(waits || self.waiting.is_some()) {
            self.bytes = 0;
            return;
        }
        let now = Instant::now();
        if let Some(since) = self.waiting {
            self.behind += now - since;
        }
        let bytes = std::mem::take(&mut self.bytes);
        if self.rate > 0 {
            self.behind =
                self.behind.saturating_sub(Duration::from_secs_f64(bytes as f64 / self.rate as f64));
        }
        self.waiting = waits.then_some(now);
    }

    fn due(&self) -> Option<Instant> {
        let since = self.waiting.filter(|_| self.rate > 0)?;
        Some(since + self.most.saturating_sub(self.behind))
    }
}

/// As long as AEM takes for most answers. Whoever has closed his connection altogether looks the same until then.
const ENDED_PATIENCE: Duration = Duration::from_secs(5);

/// Between finding something overdue and looking whether that helped.
const OVERDUE_PAUSE: Duration = Duration::from_secs(1);

/// As much of a head as is worth to be put elsewhere: most heads are shorter.
const PACKED_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_pays_for_the_time_it_takes_with_bytes() {
        let limit = Duration::from_secs(10);
        let new = || Pace { rate: 100, most: limit, behind: Duration::ZERO, waiting: None, bytes: 0 };
        // How long it lasts with so many bytes each second, of which AEM holds it up for a part.
        let lasts = async |bytes: usize, held_up: bool| {
            let mut pace = new();
            for second in 0..1000 {
                pace.look(!held_up || second % 2 == 0);
                tokio::time::advance(Duration::from_secs(1)).await;
                pace.bytes += bytes;
                if pace.due().is_some_and(|due| due < Instant::now()) {
                    return Some(second);
                }
            }
            None
        };
        assert_eq!(lasts(0, false).await, Some(10));
        assert_eq!(lasts(1, false).await, Some(10));
        assert_eq!(lasts(50, false).await, Some(19));
        assert_eq!(lasts(100, false).await, None);
        assert_eq!(lasts(0, true).await, Some(20));
        let mut pace = new();
        pace.bytes = 1 << 30;
        pace.look(true);
        assert_eq!(pace.due(), Some(Instant::now() + limit), "haste is not saved up");
        pace.look(false);
        assert_eq!(pace.due(), None);
        let any = Pace { rate: 0, waiting: Some(Instant::now()), ..new() };
        assert_eq!(any.due(), None);
    }
}
