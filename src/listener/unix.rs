//! A Unix socket and its file: with its mode from the first moment, and gone when nobody listens there any more.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// A socket's file, gone when this is dropped: whoever connects next shall find nothing rather than a dead socket.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: what stands there later may be somebody else's.
    own: (u64, u64),
}

/// Listens at `path`, with a file that has `mode`. A file that nobody listens on is left from a process that was killed, and
/// replaced.
///
/// # Errors
/// When somebody listens there, or something else is there, or the directory takes no file.
pub(super) fn bind(path: &Path, mode: u32, backlog: u32) -> io::Result<(SocketFile, UnixListener)> {
    remove_stale(path);
    let permissions = Permissions::from_mode(mode);
    // Linux gives the file the mode of the socket. The umask may still take from it, and other systems do as they like.
    let socket = File::from(OwnedFd::from(Socket::new(Domain::UNIX, Type::STREAM, None)?));
    let _ = socket.set_permissions(permissions.clone());
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&SockAddr::unix(path)?)?;
    let found = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), own: (found.dev(), found.ino()) };
    if found.mode() & MODE_MAX != mode {
        fs::set_permissions(path, permissions)?;
    }
    // Before this nobody can connect, whatever the mode has been.
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok((file, UnixListener::from(OwnedFd::from(socket))))
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.own) {
            // It may be gone by now.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Only a socket is ever removed, and only where nobody answers.
fn remove_stale(path: &Path) {
    if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        return;
    }
    let knock = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Whoever has too many to let in now is there all the same.
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    if knock().is_err_and(|error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused) {
        let _ = fs::remove_file(path);
    }
}

/// What a mode says of who may do what.
const MODE_MAX: u32 = 0o777;

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::UnixStream,
        sync::atomic::{AtomicBool, Ordering::Relaxed},
    };

    use super::*;

    fn mode(path: &Path) -> Option<u32> {
        fs::symlink_metadata(path).ok().map(|found| found.mode() & MODE_MAX)
    }

    #[test]
    fn the_file_never_has_another_mode_while_somebody_could_connect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (done, seen) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    if UnixStream::connect(&path).is_ok() {
                        // It may be the next one by now, or none any more.
                        assert!(matches!(mode(&path), Some(0o600) | None));
                        seen.store(true, Relaxed);
                    }
                }
            });
            // On a busy machine it takes some time until somebody looks.
            for round in 0..200_000 {
                drop(bind(&path, 0o600, 16).unwrap());
                if round >= 2000 && seen.load(Relaxed) {
                    break;
                }
            }
            done.store(true, Relaxed);
        });
        assert!(seen.load(Relaxed), "nobody has looked");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_is_made_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    assert!(matches!(mode(&path), Some(0o600) | None));
                }
            });
            for _ in 0..2000 {
                drop(bind(&path, 0o600, 16).unwrap());
            }
            done.store(true, Relaxed);
        });
    }

    #[test]
    fn what_stands_there_later_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (file, listener) = bind(&path, 0o600, 16).unwrap();
        assert!(bind(&path, 0o600, 16).is_err(), "somebody listens there");
        fs::remove_file(&path).unwrap();
        let (next, _next_listener) = bind(&path, 0o600, 16).unwrap();
        drop((file, listener));
        assert!(UnixStream::connect(&path).is_ok(), "the next one's file is gone");
        drop(next);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_that_nobody_listens_at_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(bind(&path, 0o600, 16).unwrap());
        for other in ["file", "directory", "link"] {
            let path = dir.path().join(other);
            match other {
                "file" => fs::write(&path, "precious").unwrap(),
                "directory" => fs::create_dir(&path).unwrap(),
                _ => std::os::unix::fs::symlink(dir.path().join("gone"), &path).unwrap(),
            }
            assert!(bind(&path, 0o600, 16).is_err(), "{other}");
            assert!(fs::symlink_metadata(&path).is_ok(), "{other}");
        }
    }
}
