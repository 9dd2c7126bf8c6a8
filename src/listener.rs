//! Sockets to listen on, TCP and Unix, as one type.

mod unix;

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
};
use tracing::warn;

use self::unix::SocketFile;
use crate::config::Listen;

/// One address of a listener, bound.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    /// The file goes before the socket: whoever binds next has a file of their own there.
    Unix(SocketFile, UnixListener),
}

/// A listener between two threads.
#[derive(Debug)]
pub struct DetachedListener(DetachedSocket);

#[derive(Debug)]
enum DetachedSocket {
    Tcp(std::net::TcpListener),
    Unix(SocketFile, std::os::unix::net::UnixListener),
}

/// A client's connection.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

/// A client's connection between two threads.
#[derive(Debug)]
pub enum Detached {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// Unix.
    Unix(std::os::unix::net::UnixStream),
}

impl Listener {
    /// Binds every address that `listen` stands for; `localhost` is two of them where the machine has IPv6. A Unix socket's
    /// file gets `mode`. With `reuse_port` other processes of the same user that do so, too, can have the same TCP port.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub fn bind(listen: &Listen, mode: u32, reuse_port: bool) -> io::Result<Vec<Self>> {
        match listen {
            Listen::Tcp(addr) => Ok(vec![Self::tcp(*addr, reuse_port)?]),
            Listen::Localhost(port) => {
                let v4 = Self::tcp((Ipv4Addr::LOCALHOST, *port).into(), reuse_port)?;
                let port = v4.addr().map_or(*port, |addr| addr.port());
                match Self::tcp((Ipv6Addr::LOCALHOST, port).into(), reuse_port) {
                    Ok(v6) => Ok(vec![v4, v6]),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
                    // A machine without IPv6 has no other half of localhost.
                    Err(_) => Ok(vec![v4]),
                }
            }
            Listen::Unix(path) => {
                let (file, socket) = unix::bind(path, mode, BACKLOG)?;
                Ok(vec![Self { socket: Socket::Unix(file, UnixListener::from_std(socket)?) }])
            }
        }
    }

    fn tcp(addr: SocketAddr, reuse_port: bool) -> io::Result<Self> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart shall not have to wait for the last connections of the process before.
        socket.set_reuseaddr(true)?;
        if reuse_port {
            socket.set_reuseport(true)?;
        }
        socket.bind(addr)?;
        Ok(Self { socket: Socket::Tcp(socket.listen(BACKLOG)?) })
    }

    /// Takes the listener from this thread's runtime, for another's.
    ///
    /// # Errors
    /// When the system does not let go of it.
    pub fn detach(self) -> io::Result<DetachedListener> {
        Ok(DetachedListener(match self.socket {
            Socket::Tcp(listener) => DetachedSocket::Tcp(listener.into_std()?),
            Socket::Unix(file, listener) => DetachedSocket::Unix(file, listener.into_std()?),
        }))
    }

    /// Gives the listener to this thread's runtime.
    ///
    /// # Errors
    /// When the system does not take it.
    pub fn attach(detached: DetachedListener) -> io::Result<Self> {
        let socket = match detached.0 {
            DetachedSocket::Tcp(listener) => Socket::Tcp(TcpListener::from_std(listener)?),
            DetachedSocket::Unix(file, listener) => Socket::Unix(file, UnixListener::from_std(listener)?),
        };
        Ok(Self { socket })
    }

    /// The address, with the port that port 0 became; none for a Unix socket.
    pub fn addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// The next connection. Errors of a single connection, or of a process out of file descriptors, are waited
    /// out: a listener does not die of its clients.
    pub async fn accept(&self) -> Stream {
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
                Socket::Unix(_, listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            };
            match accepted {
                Ok(stream) => return stream.tuned(),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    warn!(%error, "Cannot accept a connection, waiting a moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Closes the listener, and returns the connections that wait to be accepted: the system would reset them.
    pub fn close(self) -> Vec<Stream> {
        match self.socket {
            Socket::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                let accept = || {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok(Stream::Tcp(TcpStream::from_std(stream)?))
                };
                all_waiting(accept)
            }
            Socket::Unix(file, listener) => {
                // From here on nothing comes any more.
                drop(file);
                let Ok(listener) = listener.into_std() else { return Vec::new() };
                let accept = || {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok(Stream::Unix(UnixStream::from_std(stream)?))
                };
                all_waiting(accept)
            }
        }
    }
}

/// What `accept` returns until there is no more.
fn all_waiting(accept: impl Fn() -> io::Result<Stream>) -> Vec<Stream> {
    let accepted = std::iter::repeat_with(accept).take(BACKLOG as usize);
    let is_left = |accepted: &io::Result<_>| match accepted {
        Ok(_) => true,
        Err(error) => is_of_one_connection(error),
    };
    accepted.take_while(is_left).flatten().map(Stream::tuned).collect()
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Socket::Tcp(listener) => match listener.local_addr() {
                Ok(addr) => addr.fmt(f),
                Err(_) => f.write_str("a closed socket"),
            },
            Socket::Unix(file, _) => write!(f, "unix:{}", file.path().display()),
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Connections that wait to be accepted; the system has a bound of its own below which this may end up.
const BACKLOG: u32 = 4096;

/// Out of file descriptors: some connection has to end first.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

impl Stream {
    /// Small answers leave at once.
    fn tuned(self) -> Self {
        if let Self::Tcp(stream) = &self {
            let _ = stream.set_nodelay(true);
        }
        self
    }

    /// The address that the client connected to; none for a Unix socket.
    pub fn local_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok().map(|addr| addr.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }

    /// Takes the connection from this thread's runtime, for another's.
    ///
    /// # Errors
    /// When the system does not let go of it.
    pub fn detach(self) -> io::Result<Detached> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(Detached::Tcp),
            Self::Unix(stream) => stream.into_std().map(Detached::Unix),
        }
    }

    /// Gives the connection to this thread's runtime.
    ///
    /// # Errors
    /// When the system does not take it.
    pub fn attach(detached: Detached) -> io::Result<Self> {
        match detached {
            Detached::Tcp(stream) => TcpStream::from_std(stream).map(Self::Tcp),
            Detached::Unix(stream) => UnixStream::from_std(stream).map(Self::Unix),
        }
    }

    /// The connection will end with a reset, which nobody takes for the end of a message.
    pub fn reset(&self) {
        if let Self::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
