//! Bytes that look random and are the same each time, so that both ends of a transfer can tell what the
//! other one should have.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use ring::digest::{Digest, SHA256, digest};

/// The first `length` bytes.
pub fn pattern(length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(WORD) as u64).flat_map(|index| word(index).to_le_bytes());
    words.take(length).collect()
}

/// SHA-256 in lower-case hexadecimal, as `/upload` and `/echo` answer it.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&digest(&SHA256, bytes))
}

pub(super) fn hex(digest: &Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A body of pattern bytes, made while it is sent.
#[derive(Debug)]
pub struct PatternBody {
    sent: u64,
    length: u64,
    declared: bool,
    ending: Ending,
    flushed: bool,
}

/// What becomes of a body on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It arrives.
    Whole,
    /// The connection is cut after this many bytes, or fewer where the socket is full; the head arrives.
    BreakAt(u64),
    /// Nothing comes after this many bytes, and nothing ends.
    StallAt(u64),
}

impl PatternBody {
    /// A body of this many bytes with a known length.
    pub fn new(length: u64) -> Self {
        Self { sent: 0, length, declared: true, ending: Ending::Whole, flushed: false }
    }

    /// The same with an unknown length, so that it is sent in chunks (RFC 9112, section 7.1).
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.declared = false;
        self
    }

    /// The same with another ending.
    #[must_use]
    pub fn ending(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    fn end(&self) -> u64 {
        match self.ending {
            Ending::Whole => self.length,
            Ending::BreakAt(end) | Ending::StallAt(end) => end.min(self.length),
        }
    }
}

impl Body for PatternBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let left = self.end() - self.sent;
        if left > 0 {
            let chunk = chunk_at(self.sent, left);
            self.sent += chunk.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match self.ending {
            Ending::Whole => Poll::Ready(None),
            // The server flushes when a body makes it wait, and an error drops what is not flushed.
            Ending::BreakAt(_) if !self.flushed => {
                self.flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ending::BreakAt(_) => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
            // Whoever gave up on it drops it.
            Ending::StallAt(_) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ending == Ending::Whole && self.sent == self.length
    }

    fn size_hint(&self) -> SizeHint {
        if self.declared { SizeHint::with_exact(self.length - self.sent) } else { SizeHint::default() }
    }
}

/// `offset` is where a chunk ended, so a multiple of the word unless the body ended there.
fn chunk_at(offset: u64, left: u64) -> Bytes {
    let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
    let first = offset / WORD as u64;
    let mut chunk = Vec::with_capacity(length + WORD);
    for index in first..first + length.div_ceil(WORD) as u64 {
        chunk.extend_from_slice(&word(index).to_le_bytes());
    }
    chunk.truncate(length);
    chunk.into()
}

/// The finalizer of the SplitMix64 generator: any place of the stream without the places before it.
fn word(index: u64) -> u64 {
    let mut word = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

const WORD: usize = size_of::<u64>();
/// A multiple of the word, and what a socket takes in one go.
const CHUNK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_body_has_the_bytes_of_the_pattern_whatever_its_length() {
        for length in [0, 1, 7, 8, 9, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let body = PatternBody::new(length as u64).chunked().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), length);
            assert!(body == pattern(length), "{length}");
        }
    }

    #[tokio::test]
    async fn a_body_can_break_off() {
        let mut body = PatternBody::new(10).ending(Ending::BreakAt(3));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), pattern(3));
        assert!(body.frame().await.unwrap().is_err());
    }
}
