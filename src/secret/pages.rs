//! Memory for secrets: kept out of swap where the system allows it, and wiped when it is not needed any more.
//!
//! A page is locked as a whole, and unlocked as a whole. So no two secrets share one, and a page that was locked stays so: it
//! goes to the next secret. There are as many as there were secrets at once.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tracing::debug;
use zeroize::Zeroize;

/// Bytes in pages of their own. No `Debug`: nobody is to see them.
pub(crate) struct Sealed {
    run: Run,
    bytes: usize,
}

/// Whole pages, most likely locked. Where they are not in use they are blank.
#[derive(Default)]
struct Run {
    memory: Vec<u8>,
    /// Where the first page begins.
    start: usize,
}

impl Sealed {
    /// The `parts`, one behind the other.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let mut run = Run::with(bytes);
        let mut at = run.start;
        for part in parts {
            run.memory[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Self { run, bytes }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.run.memory[self.run.start..][..self.bytes]
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        let mut run = std::mem::take(&mut self.run);
        run.memory[run.start..][..self.bytes].zeroize();
        free().push(run);
    }
}

impl Run {
    /// Blank pages for so many bytes.
    fn with(bytes: usize) -> Self {
        let mut free = free();
        let fits = |run: &Self| run.room() >= bytes;
        match free.iter().position(fits) {
            Some(at) => free.swap_remove(at),
            None => Self::new(bytes),
        }
    }

    fn new(bytes: usize) -> Self {
        let bytes = bytes.max(1).next_multiple_of(PAGE);
        let memory = vec![0; bytes + PAGE];
        let start = memory.as_ptr().align_offset(PAGE);
        match region::lock(&raw const memory[start], bytes) {
            // They stay locked: see above.
            Ok(guard) => std::mem::forget(guard),
            Err(error) => not_locked(&error),
        }
        Self { memory, start }
    }

    fn room(&self) -> usize {
        (self.memory.len() - self.start) / PAGE * PAGE
    }
}

fn free() -> MutexGuard<'static, Vec<Run>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Once: `RLIMIT_MEMLOCK` will not grow.
fn not_locked(error: &region::Error) {
    if REFUSED.set(error.to_string()).is_ok() {
        tell();
    }
}

/// Says so where memory could not be locked; the first secrets are there before the log is.
pub(super) fn tell() {
    if let Some(error) = REFUSED.get() {
        debug!(error, "Memory of secrets cannot be locked, and may be swapped out");
    }
}

static FREE: Mutex<Vec<Run>> = Mutex::new(Vec::new());

static REFUSED: OnceLock<String> = OnceLock::new();

/// The smallest page of any system that this runs on. Where they are larger, a neighbour is locked with it.
const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        for bytes in [0, 1, PAGE, PAGE + 1, 20 * PAGE] {
            let secret = vec![b'x'; bytes];
            let sealed = Sealed::of(&[&secret[..bytes / 2], &secret[bytes / 2..]]);
            assert_eq!(sealed.bytes(), secret);
            assert_eq!(sealed.bytes().as_ptr().align_offset(PAGE), 0, "it begins a page");
        }
    }

    #[test]
    fn no_two_secrets_share_a_page() {
        let (one, two) = (Sealed::of(&[b"one"]), Sealed::of(&[b"two"]));
        let page = |sealed: &Sealed| sealed.bytes().as_ptr().addr() / PAGE;
        assert_ne!(page(&one), page(&two));
    }

    #[test]
    fn a_page_is_blank_as_soon_as_its_secret_is_dropped() {
        // So large that no other test takes it meanwhile.
        let secret = vec![b'x'; 64 * PAGE];
        drop(Sealed::of(&[&secret]));
        let free = free();
        let run = free.iter().find(|run| run.room() == 64 * PAGE).expect("the pages are kept");
        assert!(run.memory.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn every_page_that_waits_is_blank() {
        drop(Sealed::of(&[b"secret"]));
        for run in free().iter() {
            assert!(run.memory.iter().all(|byte| *byte == 0));
        }
    }
}
