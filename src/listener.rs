//! Sockets to listen on, TCP and Unix, as one type.

mod unix;

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
};
use tracing::{info, warn};

use self::unix::SocketFile;
use crate::{
    config::Listen,
    network::{bound_unsent, descriptors::Permit},
};

/// One address of a listener, bound.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// In a row, of accepting a connection.
    failures: AtomicUsize,
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

/// The address at which a connection arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// The IP address that the client dialled.
    Ip(IpAddr),
    /// A Unix socket.
    UnixSocket,
    /// The system does not tell.
    Unknown,
}

/// A client's connection. Its descriptor is given back when it is dropped, wherever it is then.
#[derive(Debug)]
pub struct Stream {
    socket: ClientSocket,
    permit: Option<Permit>,
}

#[derive(Debug)]
enum ClientSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A client's connection between two threads.
#[derive(Debug)]
pub struct Detached {
    socket: DetachedClientSocket,
    permit: Option<Permit>,
}

#[derive(Debug)]
enum DetachedClientSocket {
    Tcp(std::net::TcpStream),
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
                Ok(vec![Socket::Unix(file, UnixListener::from_std(socket)?).into()])
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
        Ok(Socket::Tcp(socket.listen(BACKLOG)?).into())
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
        Ok(socket.into())
    }

    /// The address, with the port that port 0 became; none for a Unix socket.
    pub fn addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// The next connection. Errors of a single connection, or of a process out of file descriptors, are waited
    /// out: a listener does not die of its clients. Logged are the first failure and the next success.
    pub async fn accept(&self) -> Stream {
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener) => listener.accept().await.map(|(stream, _)| stream.into()),
                Socket::Unix(_, listener) => listener.accept().await.map(|(stream, _)| stream.into()),
            };
            match accepted {
                Ok(stream) => {
                    let failures = self.failures.swap(0, Relaxed);
                    if failures > 0 {
                        info!(listener = %self, failures, "Connections can be accepted again");
                    }
                    return Stream::tuned(stream);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if self.failures.fetch_add(1, Relaxed) == 0 {
                        warn!(listener = %self, %error, "Connections cannot be accepted; trying again every 100 ms");
                    }
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
                    TcpStream::from_std(stream).map(ClientSocket::from)
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
                    UnixStream::from_std(stream).map(ClientSocket::from)
                };
                all_waiting(accept)
            }
        }
    }
}

/// What `accept` returns until there is no more.
fn all_waiting(accept: impl Fn() -> io::Result<ClientSocket>) -> Vec<Stream> {
    let accepted = std::iter::repeat_with(accept).take(BACKLOG as usize);
    let is_left = |accepted: &io::Result<_>| match accepted {
        Ok(_) => true,
        Err(error) => is_of_one_connection(error),
    };
    accepted.take_while(is_left).flatten().map(Stream::tuned).collect()
}

impl From<Socket> for Listener {
    fn from(socket: Socket) -> Self {
        Self { socket, failures: AtomicUsize::new(0) }
    }
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
    /// Small answers leave at once, and the system keeps little of a large one.
    fn tuned(socket: ClientSocket) -> Self {
        if let ClientSocket::Tcp(stream) = &socket {
            let _ = stream.set_nodelay(true);
            bound_unsent(stream);
        }
        Self { socket, permit: None }
    }

    /// The same with its descriptor's permit.
    #[must_use]
    pub fn permitted(self, permit: Permit) -> Self {
        Self { permit: Some(permit), ..self }
    }

    /// Where the client connected to.
    pub fn local(&self) -> Local {
        match &self.socket {
            ClientSocket::Tcp(stream) => {
                stream.local_addr().map_or(Local::Unknown, |addr| Local::Ip(addr.ip().to_canonical()))
            }
            ClientSocket::Unix(_) => Local::UnixSocket,
        }
    }

    /// The user at the other end of a Unix socket; `None` for TCP, which does not tell.
    pub fn peer_uid(&self) -> Option<io::Result<u32>> {
        match &self.socket {
            ClientSocket::Tcp(_) => None,
            ClientSocket::Unix(stream) => Some(stream.peer_cred().map(|peer| peer.uid())),
        }
    }

    /// Takes the connection from this thread's runtime, for another's.
    ///
    /// # Errors
    /// When the system does not let go of it.
    pub fn detach(self) -> io::Result<Detached> {
        let socket = match self.socket {
            ClientSocket::Tcp(stream) => DetachedClientSocket::Tcp(stream.into_std()?),
            ClientSocket::Unix(stream) => DetachedClientSocket::Unix(stream.into_std()?),
        };
        Ok(Detached { socket, permit: self.permit })
    }

    /// Gives the connection to this thread's runtime.
    ///
    /// # Errors
    /// When the system does not take it.
    pub fn attach(detached: Detached) -> io::Result<Self> {
        let socket = match detached.socket {
            DetachedClientSocket::Tcp(stream) => TcpStream::from_std(stream)?.into(),
            DetachedClientSocket::Unix(stream) => UnixStream::from_std(stream)?.into(),
        };
        Ok(Self { socket, permit: detached.permit })
    }

    /// The connection will end with a reset, which nobody takes for the end of a message.
    pub fn reset(&self) {
        if let ClientSocket::Tcp(stream) = &self.socket {
            let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

impl From<TcpStream> for ClientSocket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for ClientSocket {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

#[cfg(test)]
impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self { socket: stream.into(), permit: None }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            ClientSocket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            ClientSocket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            ClientSocket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            ClientSocket::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            ClientSocket::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            ClientSocket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            ClientSocket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            ClientSocket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
