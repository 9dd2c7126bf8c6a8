//! The queue between those who log and the descriptor, and the thread that empties it.
//!
//! Who logs never waits for a reader: a line for which there is no room is lost and counted.

use std::{
    collections::VecDeque,
    io,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::time::Instant;
use tracing::{callsite::Identifier, warn};

use super::{descriptor::write_all, line::cut, repeats::Repeats};
use crate::metrics;

/// A bounded queue of lines.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something for the writer to do.
    filled: Condvar,
    /// All lines are written, or lost.
    emptied: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    /// The cost of these lines.
    bytes: usize,
    /// The cost of the line that is being written; 0 without one.
    writing: usize,
    /// Whether the process waits for its end: failed writes are not tried again later.
    is_flushing: bool,
    /// Lines that were lost and are not yet reported.
    lost: u64,
    repeats: Repeats,
}

impl Queue {
    /// Starts the thread that writes to `descriptor`. It lives as long as the process.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(descriptor: impl AsFd + Send + 'static) -> io::Result<Arc<Self>> {
        let queue = Arc::<Self>::default();
        let own = Arc::clone(&queue);
        let write = move || {
            // Without its log the process cannot work.
            if catch_unwind(AssertUnwindSafe(|| own.write_to(&descriptor))).is_err() {
                std::process::exit(1);
            }
        };
        thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok(queue)
    }

    /// Adds a line, or loses it where there is no room.
    pub(super) fn push(&self, line: &[u8]) {
        let line = cut(line, LINE_MAX);
        self.lock().push(&line);
        self.filled.notify_one();
    }

    /// Adds a line unless it repeats another one.
    pub(super) fn push_warning(&self, call_site: &Identifier, line: &[u8]) {
        let now = Instant::now();
        let mut state = self.lock();
        state.push_counts(now);
        if state.repeats.admit(call_site, line, now) {
            state.push(&cut(line, LINE_MAX));
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Waits until all lines are written, or lost, for `max` at most.
    pub(super) fn flush(&self, max: Duration) {
        let mut state = self.lock();
        for line in state.repeats.take_all(Instant::now()) {
            state.push(&line);
        }
        state.is_flushing = true;
        self.filled.notify_one();
        let is_busy = |state: &mut State| state.writing > 0 || !state.lines.is_empty();
        let waited = self.emptied.wait_timeout_while(state, max, is_busy);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_flushing = false;
    }

    /// Writes lines for ever.
    fn write_to(&self, descriptor: &impl AsFd) {
        // A failed write has left the beginning of a line.
        let mut is_within_line = false;
        loop {
            let line = self.next();
            let written = match is_within_line {
                true => write_all(descriptor.as_fd(), &[b"\n", &*line].concat()),
                false => write_all(descriptor.as_fd(), &line),
            };
            match written {
                Ok(()) => {
                    is_within_line = false;
                    self.report_lost();
                }
                Err((written, _)) => {
                    is_within_line |= written > 0;
                    self.pause_after_error();
                }
            }
        }
    }

    /// Waits for the next line.
    fn next(&self) -> Box<[u8]> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            state.writing = 0;
            state.push_counts(now);
            if let Some(line) = state.lines.pop_front() {
                state.writing = cost(&line);
                state.bytes -= state.writing;
                return line;
            }
            self.emptied.notify_all();
            let until = state.repeats.due();
            let wait = until.map_or(Duration::MAX, |until| until.saturating_duration_since(now));
            state = self.filled.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Says how many lines are missing, once there is room again.
    fn report_lost(&self) {
        let mut state = self.lock();
        if state.lost == 0 || state.bytes > BYTES_MAX / 2 {
            return;
        }
        let lines = std::mem::take(&mut state.lost);
        drop(state);
        warn!(lines, "Log lines were lost: the standard error was full, closed or slow");
    }

    /// Loses all lines, and waits a moment: what cannot be written now can be soon, or never.
    fn pause_after_error(&self) {
        let mut state = self.lock();
        let lost = state.lines.len() as u64 + 1;
        state.lines.clear();
        state.lose(lost);
        (state.bytes, state.writing) = (0, 0);
        self.emptied.notify_all();
        let until = Instant::now() + RETRY;
        while !state.is_flushing {
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                break;
            }
            state = self.filled.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, line: &[u8]) {
        if self.bytes + self.writing + cost(line) > BYTES_MAX {
            return self.lose(1);
        }
        self.bytes += cost(line);
        self.lines.push_back(line.into());
    }

    /// Adds the counts of repeated warnings that are due.
    fn push_counts(&mut self, now: Instant) {
        for line in self.repeats.expire(now) {
            self.push(&line);
        }
    }

    fn lose(&mut self, lines: u64) {
        self.lost += lines;
        metrics::log_lines_lost().inc_by(lines);
    }
}

/// What a line takes of the queue.
fn cost(line: &[u8]) -> usize {
    line.len() + size_of::<Box<[u8]>>()
}

/// All lines that wait: some seconds of a busy log.
const BYTES_MAX: usize = 1024 * 1024;

/// The longest line.
const LINE_MAX: usize = 16 * 1024;

/// Between two attempts to write to a descriptor that takes nothing.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{PipeReader, Read, pipe},
        os::fd::OwnedFd,
    };

    use super::*;

    fn read_line(reader: &mut PipeReader) -> String {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while line.last() != Some(&b'\n') {
            reader.read_exact(&mut byte).expect("the queue writes on");
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_pipe_that_is_not_read_holds_up_neither_who_logs_nor_the_end_and_memory_is_bounded() {
        let (mut reader, writer) = pipe().unwrap();
        let queue = Queue::start(writer).unwrap();
        let lines = 3 * BYTES_MAX / 1024;
        let mut line = vec![b'x'; 1023];
        line.push(b'\n');
        for _ in 0..lines {
            queue.push(&line);
        }
        queue.flush(Duration::from_millis(1));
        let (bytes, lost) = {
            let state = queue.lock();
            (state.bytes + state.writing, state.lost)
        };
        assert!(bytes <= BYTES_MAX && lost > 0, "{bytes} {lost}");
        for _ in 0..lines as u64 - lost {
            assert_eq!(read_line(&mut reader).len(), 1024);
        }
        queue.push(b"it flows again\n");
        assert_eq!(read_line(&mut reader), "it flows again\n");
    }

    #[test]
    fn a_full_device_loses_lines_and_nothing_else() {
        let queue = Queue::start(File::options().write(true).open("/dev/full").unwrap()).unwrap();
        for _ in 0..3 {
            queue.push(b"a line\n");
            queue.flush(Duration::from_secs(20));
        }
        assert_eq!(queue.lock().lost, 3);
    }

    #[test]
    fn a_reader_that_is_gone_loses_lines_and_nothing_else() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let queue = Queue::start(writer).unwrap();
        for _ in 0..3 {
            queue.push(b"a line\n");
        }
        queue.flush(Duration::from_secs(20));
        assert_eq!(queue.lock().lost, 3);
    }

    #[test]
    fn a_descriptor_that_does_not_block_gets_every_line_whole() {
        let (mut reader, writer) = pipe().unwrap();
        let writer = OwnedFd::from(writer);
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let queue = Queue::start(writer).unwrap();
        let lines: Vec<_> = (0..40).map(|n| format!("{n} {}\n", "x".repeat(10_000))).collect();
        lines.iter().for_each(|line| queue.push(line.as_bytes()));
        for line in &lines {
            assert!(read_line(&mut reader) == *line);
        }
    }
}
