//! Writes to file descriptors of the process that others may share, close, fill or make non-blocking.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

/// Writes all of `text` to the standard output, waiting for its reader. A reader that is gone (`| head`) is no error: it has
/// what it wanted.
///
/// # Errors
/// When it cannot be written otherwise, as to a full disk.
pub fn write_stdout(text: &[u8]) -> io::Result<()> {
    match write_all(io::stdout().as_fd(), text) {
        Err((_, error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes all of `bytes`, waiting where the descriptor is non-blocking. Without the lock of `std::io`: a thread that waits here
/// holds up no other.
///
/// # Errors
/// How much was written before the error.
pub(super) fn write_all(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(descriptor, &bytes[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // An error of `poll` is one of the next write, too.
                let _ = poll(&mut [PollFd::new(&descriptor, PollFlags::OUT)], None);
                // There may be room, but not for this.
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err((written, error.into())),
        }
    }
    Ok(())
}

const PAUSE: Duration = Duration::from_millis(1);
