//! A connection to AEM as HTTP/2 reads and writes it: bytes of one session, in and out.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Vitals;
use crate::proxy::{
    buffer::{Buffer, Buffers},
    link::{Came, LinkError, Wire},
};

/// One connection under many requests.
pub(super) struct Channel {
    wire: Wire,
    buffers: Rc<Buffers>,
    /// Came, and found no room with the reader.
    plain: Buffer,
    /// Frames that are sealed together: whole records, and one write for all of them.
    frames: Buffer,
    vitals: Rc<Vitals>,
    ended: bool,
}

impl Channel {
    pub(super) fn new(wire: Wire, buffers: Rc<Buffers>, vitals: Rc<Vitals>) -> Self {
        Self { wire, buffers, plain: Buffer::default(), frames: Buffer::default(), vitals, ended: false }
    }

    /// Sends everything that was written.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.wire.poll_flush(cx, &self.buffers)?;
            if !self.wire.is_flushed() {
                return Poll::Pending;
            }
            if self.frames.is_empty() {
                self.buffers.release(&mut self.frames);
                return Poll::Ready(Ok(()));
            }
            self.wire.push(self.frames.filled(), &self.buffers).map_err(into_io)?;
            self.frames.clear();
        }
    }
}

impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.plain.is_empty() {
            ready!(this.buffers.poll_room(cx));
            let plain = &mut this.plain;
            let mut filled = false;
            let came = this.wire.poll_read(cx, &this.buffers, |data| {
                let (now, later) = data.split_at(data.len().min(buf.remaining()));
                buf.put_slice(now);
                filled |= !now.is_empty();
                if !later.is_empty() {
                    this.buffers.equip(plain);
                    plain.push(later);
                }
                Ok::<_, LinkError>(())
            });
            let came = ready!(came).map_err(into_io)?;
            this.vitals.heard();
            match came {
                _ if filled => return Poll::Ready(Ok(())),
                Came::Bytes => {}
                Came::End => return Poll::Ready(Ok(())),
                Came::Cut => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        let bytes = this.plain.len().min(buf.remaining());
        buf.put_slice(&this.plain.filled()[..bytes]);
        this.plain.consume(bytes);
        this.buffers.release(&mut this.plain);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.frames.len() >= FRAMES_MAX {
            ready!(this.poll_drain(cx))?;
        }
        this.buffers.equip(&mut this.frames);
        let mut written = 0;
        for slice in slices {
            let part = &slice[..slice.len().min(FRAMES_MAX - this.frames.len())];
            this.frames.push(part);
            written += part.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if !this.ended {
            this.ended = true;
            this.wire.end(&this.buffers);
            ready!(this.poll_drain(cx))?;
        }
        this.wire.poll_shutdown(cx)
    }
}

fn into_io(error: LinkError) -> io::Error {
    if let LinkError::Io(error) = error { error } else { io::Error::other(error) }
}

/// As much as the thread's buffers hold without growing: four full records.
const FRAMES_MAX: usize = 64 * 1024;
