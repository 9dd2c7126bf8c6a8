//! Bytes on their way, and the memory that they stand in.
//!
//! A connection holds memory only while bytes wait in it: a thousand idle connections hold none, and a busy one gets
//! the buffer that was used last, which the processor still has at hand.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    ops::{Deref, DerefMut},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    memory::{Memory, Share},
    secret::{never, wipe},
};

/// Bytes that have come and were not used yet, in order. Without memory until it is equipped or pushed to.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// The memory that it takes, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Room behind the bytes, at least `bytes` long: what is filled in there is added with [`Buffer::fill`].
    #[inline]
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < bytes {
            self.make_room(bytes);
        }
        &mut self.bytes[self.end..]
    }

    #[cold]
    fn make_room(&mut self, bytes: usize) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() - self.end < bytes {
            let mut more = vec![0; (self.end + bytes).max(self.bytes.len() * 2)];
            more[..self.end].copy_from_slice(&self.bytes[..self.end]);
            // It may be a head, with a token in it.
            wipe(&mut self.bytes[..self.end]);
            self.bytes = more;
        }
    }

    /// `bytes` more are filled.
    pub(super) fn fill(&mut self, bytes: usize) {
        self.end += bytes;
        debug_assert!(self.end <= self.bytes.len());
    }

    /// The first `bytes` were used.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// The same for bytes of which the first `secret` hold a token: other bytes may not come over them for long.
    pub(super) fn wipe(&mut self, secret: usize) {
        wipe(&mut self.filled_mut()[..secret]);
        self.clear();
    }

    /// The bytes alone.
    pub(super) fn into_vec(mut self) -> Vec<u8> {
        self.bytes.truncate(self.end);
        self.bytes.drain(..self.start);
        self.bytes
    }

    /// The same bytes in just as much memory as they need; nothing is left here.
    pub(super) fn packed(&mut self) -> Self {
        let bytes = self.filled().to_vec();
        self.clear();
        Self { start: 0, end: bytes.len(), bytes }
    }

    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.fill(bytes.len());
    }

    /// Adds parts one behind the other; the room for them is made once.
    #[inline]
    pub(super) fn push_all(&mut self, parts: &[&[u8]]) {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let mut room = &mut self.room(bytes)[..bytes];
        for part in parts {
            let (own, rest) = std::mem::take(&mut room).split_at_mut(part.len());
            own.copy_from_slice(part);
            room = rest;
        }
        self.fill(bytes);
    }

    /// Reads once, as much as there is up to a bound. 0 is the end of the stream.
    pub(super) fn poll_fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let room = self.room(LEAST);
        let most = room.len().min(MOST);
        let mut read = ReadBuf::new(&mut room[..most]);
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        let bytes = read.filled().len();
        self.fill(bytes);
        Poll::Ready(Ok(bytes))
    }

    /// Writes until nothing is left, or until the stream takes no more; tells how much it took.
    pub(super) fn poll_drain(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> io::Result<usize> {
        let mut drained = 0;
        while !self.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, self.filled()) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => {
                    drained += bytes;
                    self.consume(bytes);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(drained)
    }
}

/// A request's head as it waits for AEM. It holds the token, and is wiped: there is no `Debug`.
pub(super) struct Head(Buffer);

never!(Head: std::fmt::Debug, Clone);
never!(Buffer: std::fmt::Debug, Clone);

impl Deref for Head {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.0
    }
}

impl DerefMut for Head {
    fn deref_mut(&mut self) -> &mut Buffer {
        &mut self.0
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        wipe(self.0.filled_mut());
    }
}

/// The memory that a thread's connections share.
#[derive(Default)]
pub(super) struct Buffers {
    free: RefCell<Vec<Vec<u8>>>,
    /// For heads.
    small: RefCell<Vec<Vec<u8>>>,
    memory: Memory,
    /// Tasks that read on when there is room in the budget, by what they wait to read.
    waiting: RefCell<[VecDeque<Waker>; Share::ALL.len()]>,
}

impl Buffers {
    /// Buffers that grow within the budget of `memory`.
    pub(super) fn within(memory: Memory) -> Self {
        Self { memory, ..Self::default() }
    }

    /// The budget of the process.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Ready while the budget has room for more of a body. All that grows begins with a read, and each read asks here first,
    /// so what waits is not read and its sender is held up.
    #[inline]
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_room_for(Share::Bodies, cx)
    }

    /// The same for what begins a response: a short one comes with its head, and is not to wait for the long ones that fill
    /// the memory.
    #[inline]
    pub(super) fn poll_room_for_answer(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_room_for(Share::Responses, cx)
    }

    /// The same for what begins a request, which may use the whole reserve: else the proxy could not even refuse it.
    #[inline]
    pub(super) fn poll_room_for_head(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_room_for(Share::Requests, cx)
    }

    #[inline]
    fn poll_room_for(&self, share: Share, cx: &mut Context<'_>) -> Poll<()> {
        if self.memory.is_high() { self.poll_room_under_pressure(share, cx) } else { Poll::Ready(()) }
    }

    #[cold]
    fn poll_room_under_pressure(&self, share: Share, cx: &mut Context<'_>) -> Poll<()> {
        self.memory.press();
        if self.room(share) > 0 {
            return Poll::Ready(());
        }
        let waiting = &mut self.waiting.borrow_mut()[share as usize];
        if waiting.len() < WAITING_MAX {
            waiting.push_back(cx.waker().clone());
        } else {
            // Too many to remember: this one looks again at once.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// The bytes that this share may still grow by.
    fn room(&self, share: Share) -> usize {
        let waits_for_system = share == Share::Bodies && self.memory.is_high() && self.memory.is_bloated();
        if waits_for_system { 0 } else { self.memory.room(share) }
    }

    /// Wakes the tasks for which there is room now, those first that have waited for longest. If all of them were woken, a thread
    /// with a thousand would do little else, and each would read a little and look as if it moved.
    pub(super) fn wake_some_waiting(&self) {
        for share in Share::ALL {
            self.wake(share, self.room(share).div_ceil(SIZE_UNDER_PRESSURE));
        }
    }

    /// Wakes all tasks that wait for room.
    pub(super) fn wake_all_waiting(&self) {
        Share::ALL.into_iter().for_each(|share| self.wake(share, usize::MAX));
    }

    /// Wakes so many of the tasks that wait for this share, or all where there are fewer.
    fn wake(&self, share: Share, tasks: usize) {
        let woken: Vec<_> = {
            let waiting = &mut self.waiting.borrow_mut()[share as usize];
            waiting.drain(..tasks.min(waiting.len())).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Gives the memory that is not in use back to the allocator.
    pub(super) fn shrink(&self) {
        self.free.take();
        self.small.take();
    }

    /// Gives `buffer` memory, unless it has some.
    #[inline]
    pub(super) fn equip(&self, buffer: &mut Buffer) {
        if buffer.bytes.is_empty() {
            buffer.bytes = self.take();
        }
    }

    #[inline]
    fn take(&self) -> Vec<u8> {
        self.free.borrow_mut().pop().unwrap_or_else(|| self.allocate())
    }

    #[cold]
    fn allocate(&self) -> Vec<u8> {
        vec![0; if self.memory.is_high() { SIZE_UNDER_PRESSURE } else { SIZE }]
    }

    /// Room for a head. Many may wait for AEM at once, and each has one: so it is small, and grows if it must.
    pub(super) fn head(&self) -> Head {
        let bytes = self.small.borrow_mut().pop().unwrap_or_else(|| vec![0; SMALL]);
        Head(Buffer { bytes, start: 0, end: 0 })
    }

    /// Whether `buffer` has one of the buffers that go round.
    pub(super) fn is_shared(&self, buffer: &Buffer) -> bool {
        buffer.bytes.len() == SIZE
    }

    /// Takes the memory of a head back.
    pub(super) fn take_back(&self, mut head: Head) {
        wipe(head.filled_mut());
        head.clear();
        let mut small = self.small.borrow_mut();
        if head.bytes.len() <= SMALL_MAX && small.len() < FREE_MAX {
            small.push(std::mem::take(&mut head.bytes));
        }
    }

    /// Takes the memory of an empty buffer back.
    #[inline]
    pub(super) fn release(&self, buffer: &mut Buffer) {
        if buffer.is_empty() && !buffer.bytes.is_empty() {
            buffer.clear();
            self.keep(std::mem::take(&mut buffer.bytes));
        }
    }

    fn keep(&self, bytes: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if bytes.len() == SIZE && free.len() < FREE_MAX {
            free.push(bytes);
        }
    }
}

/// What one read or write moves at most: nearly four full TLS records, beyond which a call costs little compared with its bytes.
const MOST: usize = SIZE - 1024;

/// [`MOST`], and what sealing or chunking adds to it: a size class of the allocator.
const SIZE: usize = 64 * 1024;

/// While memory is short, so that a thousand connections have their share, and a short answer need not wait for long ones.
const SIZE_UNDER_PRESSURE: usize = 8 * 1024;

/// An app's head fits, our token with it.
const SMALL: usize = 2 * 1024;

/// The head of nearly every request fits, a browser's too.
const SMALL_MAX: usize = 8 * 1024;

/// A read into less room than this would not be worth its call.
const LEAST: usize = 4 * 1024;

/// Buffers are needed for moments: more than these are given back to the allocator.
const FREE_MAX: usize = 16;

/// Wakers of tasks that wait for room: as many as a thread has connections at most, some of them twice.
const WAITING_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::Wake,
    };

    use super::*;
    use crate::memory::Meter;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut buffer = Buffer::default();
        for round in 0..100 {
            buffer.push(b"0123456789");
            buffer.push(&[b'x'; 300]);
            buffer.consume(310 - usize::from(round == 99));
        }
        assert_eq!(buffer.filled(), b"x");
    }

    #[test]
    fn memory_goes_round() {
        let buffers = Buffers::default();
        let mut buffer = Buffer::default();
        buffers.equip(&mut buffer);
        buffer.push(b"x");
        buffers.release(&mut buffer);
        assert_eq!((buffer.filled(), buffers.free.borrow().len()), (&b"x"[..], 0));
        buffer.consume(1);
        buffers.release(&mut buffer);
        assert_eq!(buffers.free.borrow().len(), 1);
        buffers.equip(&mut buffer);
        assert!(buffers.free.borrow().is_empty());
    }

    #[test]
    fn nothing_of_a_head_stays_in_the_memory_that_goes_round() {
        let buffers = Buffers::default();
        let mut head = buffers.head();
        head.push(b"authorization: Bearer long-token");
        buffers.take_back(head);
        let head = buffers.head();
        assert!(head.is_empty() && head.bytes.iter().all(|byte| *byte == 0));

        let mut buffer = Buffer::default();
        buffer.push(b"Bearer long-token, and a body");
        buffer.wipe(17);
        assert_eq!(buffer.bytes[..29], *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0, and a body");
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_buffer_that_had_to_grow_is_not_kept() {
        let buffers = Buffers::default();
        let mut buffer = Buffer::default();
        buffers.equip(&mut buffer);
        buffer.push(&vec![0; SIZE + 1]);
        buffer.clear();
        buffers.release(&mut buffer);
        assert!(buffers.free.borrow().is_empty());
    }

    #[test]
    fn buffers_are_smaller_while_memory_is_short() {
        for (meter, size) in [((|| 0) as Meter, SIZE), (|| LIMIT / 2 + 10, SIZE_UNDER_PRESSURE)] {
            let buffers = Buffers::within(Memory::metered(LIMIT, meter));
            let mut buffer = Buffer::default();
            buffers.equip(&mut buffer);
            assert_eq!(buffer.capacity(), size);
        }
    }

    #[test]
    fn as_many_tasks_are_woken_as_have_room_and_those_first_that_waited_longest() {
        // Bodies have 65 % of the budget.
        static USED: AtomicUsize = AtomicUsize::new(LIMIT);
        let buffers = Buffers::within(Memory::metered(LIMIT, || USED.load(Relaxed)));
        let tasks: Vec<_> = (0..5).map(|_| Arc::new(Counted::default())).collect();
        let poll = |task: &Arc<Counted>| {
            buffers.poll_room(&mut Context::from_waker(&Waker::from(Arc::clone(task)))).is_ready()
        };
        let woken = || tasks.iter().map(|task| task.0.load(Relaxed)).collect::<Vec<_>>();
        assert!(tasks.iter().all(|task| !poll(task)));
        buffers.wake_some_waiting();
        assert_eq!(woken(), [0, 0, 0, 0, 0], "there is no room");
        USED.store(LIMIT / 20 * 13 - 2 * SIZE_UNDER_PRESSURE, Relaxed);
        buffers.wake_some_waiting();
        assert_eq!(woken(), [1, 1, 0, 0, 0]);
        assert!(poll(&tasks[0]));
        buffers.wake_all_waiting();
        assert_eq!(woken(), [1, 1, 1, 1, 1]);
        buffers.wake_all_waiting();
        assert_eq!(woken(), [1, 1, 1, 1, 1], "none of them waits any more");
    }

    /// Large enough for many buffers.
    const LIMIT: usize = 64 * 1024 * 1024;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }
}
