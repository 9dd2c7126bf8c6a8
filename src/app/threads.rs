//! Threads other than the workers. They start with the process: a system that gives no thread says so then, and not to a
//! request.
//!
//! A process has at most, besides the main thread: `WORKERS_MAX` workers, [`resolver::THREADS`] for name look-ups,
//! [`FILE_THREADS`] for files, one of notify's for each group of files that is watched, and
//! [`PIPE_THREADS`](crate::credentials::PIPE_THREADS) that wait for the writer of a pipe.

use std::{io, thread, time::Duration};

use crate::network::resolver;

/// Starts those for name look-ups, and the first one for files.
///
/// # Errors
/// When the system gives no thread.
pub(super) async fn start() -> io::Result<()> {
    resolver::process().start()?;
    // `spawn_blocking` panics where there is no thread and none can be started: ask in a way that tells. Once there is one,
    // it is enough.
    thread::Builder::new().spawn(|| {})?.join().map_err(|_| io::Error::other("a thread ended early"))?;
    tokio::task::spawn_blocking(|| {}).await.map_err(io::Error::other)
}

/// Threads of the main runtime for work on files. A file system that does not answer holds one of them for each group of
/// files on it.
pub const FILE_THREADS: usize = 4;

/// They stay: one that ends might not be replaced.
pub const FILE_THREAD_KEEP_ALIVE: Duration = Duration::from_secs(u32::MAX as u64);
