//! The blind relay: bytes from one TCP connection to another and back. No TLS, no HTTP, no token.
//!
//! It is the floor: what a proxy costs at least, in Rust and on tokio, with a system call to read and one to write in
//! each direction. So it does as little as it can. There is one thread, one task for each pair of connections, and one
//! buffer for all: what was read is written at once, and only what the other side does not take is kept.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context as Poller, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

use crate::failure::{Context, Result};

/// Where it listens and what it connects to.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// Where each connection goes
    #[arg(long)]
    to: SocketAddr,
}

/// Relays until it is ended.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let listener = TcpListener::bind(arguments.listen).await.context(arguments.listen)?;
    let to = arguments.to;
    loop {
        let (client, _) = listener.accept().await.context("accept")?;
        tokio::spawn(async move {
            // A connection that breaks ends its pair, and nothing else.
            let _ = pair(client, to).await;
        });
    }
}

async fn pair(mut client: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut up, mut down) = (Direction::default(), Direction::default());
    poll_fn(|poller| {
        let going_up = up.poll(&mut client, &mut server, poller)?;
        let going_down = down.poll(&mut server, &mut client, poller)?;
        if going_up.is_ready() && going_down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// One way through a pair.
#[derive(Default)]
struct Direction {
    /// What was read and is not written yet, from `written` on.
    kept: Vec<u8>,
    written: usize,
    has_ended: bool,
}

impl Direction {
    /// Moves what can be moved; ready at the end of `from`, which is passed on.
    fn poll(
        &mut self,
        from: &mut TcpStream,
        into: &mut TcpStream,
        poller: &mut Poller<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.has_ended {
            while self.written < self.kept.len() {
                self.written += ready!(Pin::new(&mut *into).poll_write(poller, &self.kept[self.written..]))?;
            }
            let moved = BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *from).poll_read(poller, &mut read))?;
                let bytes = read.filled();
                let mut written = 0;
                while written < bytes.len() {
                    match Pin::new(&mut *into).poll_write(poller, &bytes[written..])? {
                        Poll::Ready(more) => written += more,
                        Poll::Pending => break,
                    }
                }
                self.kept.clear();
                self.kept.extend_from_slice(&bytes[written..]);
                self.written = 0;
                Poll::Ready(io::Result::Ok(bytes.len()))
            });
            if ready!(moved)? == 0 {
                ready!(Pin::new(&mut *into).poll_shutdown(poller))?;
                self.has_ended = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}

thread_local! {
    /// All pairs read into this one.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

/// As much as a loopback socket gives at once.
const BUFFER_BYTES: usize = 64 * 1024;
