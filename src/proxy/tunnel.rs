//! A connection that is no longer HTTP: bytes both ways, until both sides have ended or none has sent any for
//! `timeouts.idle`.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{io::AsyncWrite, time::Instant};
use tracing::debug;

use super::{
    Worker,
    client::Client,
    connection::End,
    link::{Came, Link, LinkError},
};

struct Tunnel<'a> {
    client: &'a mut Client,
    worker: &'a Worker,
    link: Link,
    up: Side,
    down: Side,
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Open,
    /// The source has ended; the other end is to be told once everything has reached it.
    Ending,
    Ended,
}

pub(super) async fn run(client: &mut Client, worker: &Worker, link: Link, idle: Duration) -> End {
    client.watch.begin(idle, Instant::now());
    // AEM may have ended with its first word.
    let down = if link.has_ended() { Side::Ending } else { Side::Open };
    let mut tunnel = Tunnel { client, worker, link, up: Side::Open, down };
    match poll_fn(|cx| tunnel.poll(cx)).await {
        Ok(true) => debug!("Tunnel ended"),
        Ok(false) => debug!("Tunnel closed, nothing moves in it"),
        Err(error) => debug!(%error, "Tunnel broke off"),
    }
    End::Close
}

impl Tunnel<'_> {
    /// Ready when both directions have ended, or when nothing moves any more: `false` then.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, LinkError>> {
        let moved = self.poll_up(cx)? | self.poll_down(cx)?;
        if self.up == Side::Ended && self.down == Side::Ended {
            return Poll::Ready(Ok(true));
        }
        if moved {
            self.client.watch.moved();
        }
        let held = self.link.held();
        self.client.waits(held, !self.client.output.is_empty());
        self.client.watch.poll(cx).map(|()| Ok(false))
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<bool, LinkError> {
        let buffers = &self.worker.buffers;
        let mut moved = false;
        loop {
            if !self.client.input.is_empty() && self.link.is_flushed() {
                self.link.push(self.client.input.filled(), buffers)?;
                self.client.input.clear();
                buffers.release(&mut self.client.input);
            }
            match self.link.poll_flush(cx, buffers) {
                Ok(sent) => moved |= sent > 0,
                Err(_) => {
                    // AEM takes no more. What it still says is to arrive.
                    self.link.forget(buffers);
                    self.up = Side::Ended;
                }
            }
            if self.up == Side::Ended || !self.link.is_flushed() {
                return Ok(moved);
            }
            match self.up {
                Side::Open => match self.client.poll_read(cx, buffers) {
                    Poll::Ready(Ok(0)) => {
                        self.link.end(buffers);
                        self.up = Side::Ending;
                    }
                    Poll::Ready(Ok(_)) => moved = true,
                    Poll::Ready(Err(error)) => return Err(error.into()),
                    Poll::Pending => return Ok(moved),
                },
                Side::Ending => match self.link.poll_shutdown(cx) {
                    Poll::Ready(_) => self.up = Side::Ended,
                    Poll::Pending => return Ok(moved),
                },
                Side::Ended => return Ok(moved),
            }
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<bool, LinkError> {
        let buffers = &self.worker.buffers;
        let mut moved = false;
        loop {
            moved |= self.client.poll_flush(cx, buffers)? > 0;
            if !self.client.output.is_empty() {
                return Ok(moved);
            }
            match self.down {
                Side::Open => {
                    if buffers.poll_room(cx).is_pending() {
                        return Ok(moved);
                    }
                    let output = &mut self.client.output;
                    let came = self.link.poll_read(cx, buffers, |data| {
                        buffers.equip(output);
                        output.push(data);
                        Ok::<_, LinkError>(())
                    });
                    match came {
                        Poll::Ready(came) => {
                            moved = true;
                            if came? != Came::Bytes {
                                self.down = Side::Ending;
                            }
                        }
                        Poll::Pending => return Ok(moved),
                    }
                }
                Side::Ending => match self.shutdown(cx) {
                    Poll::Ready(_) => self.down = Side::Ended,
                    Poll::Pending => return Ok(moved),
                },
                Side::Ended => return Ok(moved),
            }
        }
    }

    fn shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client.stream).poll_shutdown(cx)
    }
}
