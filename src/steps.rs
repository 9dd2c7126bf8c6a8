//! Counts steps, so that tests can compare the work for an input with its length.
//!
//! Code whose work depends on what a client or AEM sends adds its steps here: a byte that is looked at, or a comparison. The
//! counter exists where `debug_assertions` are on, which is in tests and in fuzzing. A release build counts nothing.

#[cfg(any(test, debug_assertions))]
use std::cell::Cell;

/// Adds so many steps.
#[inline(always)]
pub(crate) fn add(steps: usize) {
    #[cfg(any(test, debug_assertions))]
    COUNT.set(COUNT.get().wrapping_add(steps as u64));
    #[cfg(not(any(test, debug_assertions)))]
    let _ = steps;
}

/// Adds a step for each of `bytes`, all of which the caller is about to read.
#[inline(always)]
pub(crate) fn over(bytes: &[u8]) -> &[u8] {
    add(bytes.len());
    bytes
}

/// The steps that `work` takes on this thread; 0 in a release build.
pub fn of<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = count();
    let done = work();
    (done, count().wrapping_sub(before))
}

fn count() -> u64 {
    #[cfg(any(test, debug_assertions))]
    return COUNT.get();
    #[cfg(not(any(test, debug_assertions)))]
    0
}

#[cfg(any(test, debug_assertions))]
thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}
