//! Content codings (RFC 9110, section 8.4.1), undone on the way to a renamed body.

mod deflate;
mod gzip;

use self::{deflate::Deflate, gzip::Gzip};
use super::Links;
use crate::proxy::buffer::Buffer;

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Coding {
    Identity,
    Gzip,
    Deflate,
}

impl Coding {
    /// What a `Content-Encoding` says. None where it is more than one, or one that AEM was not asked for: such a body passes
    /// as it is.
    pub(in crate::proxy) fn of(content_encoding: &[u8]) -> Option<Self> {
        let is = |name: &str| content_encoding.trim_ascii().eq_ignore_ascii_case(name.as_bytes());
        let codings = [
            ("", Self::Identity),
            ("identity", Self::Identity),
            ("gzip", Self::Gzip),
            ("x-gzip", Self::Gzip),
            ("deflate", Self::Deflate),
        ];
        codings.into_iter().find(|(name, _)| is(name)).map(|(_, coding)| coding)
    }
}

/// A body on its way: what comes is coded, what goes is not, and names the local origin.
///
/// What comes waits inside until it is asked for, so that a few bytes which become very many never stand in memory.
/// In addition it holds what its coding needs: for gzip and deflate the last 32 KiB of the body and their tables.
pub(in crate::proxy) struct Rewriter {
    decoder: Decoder,
    links: Links,
    /// As it came.
    pending: Buffer,
    ended: bool,
}

/// How a body goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Progress {
    /// By itself: there is more to be had.
    More,
    /// When more has come, or the end.
    Starved,
    /// It is over, and whole.
    Done,
}

/// The body cannot be decoded. What went out of it is not the whole, and must not look like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum CodingError {
    /// It ended before its coding did.
    #[error("the body ends before its content coding does")]
    Truncated,
    /// Not what its coding says, or something behind its end. That could be ignored, as some do; but it may as well be
    /// the broken rest of the body.
    #[error("the body is not what its content coding says")]
    Broken,
}

enum Decoder {
    Identity,
    Gzip(Gzip),
    Deflate(Deflate),
}

/// How far a decoder has come in one step. Nowhere when it needs more.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Step {
    read: usize,
    written: usize,
}

impl Rewriter {
    /// Nothing has come yet of a body that is coded so.
    pub(in crate::proxy) fn new(coding: Coding, links: Links) -> Self {
        let decoder = match coding {
            Coding::Identity => Decoder::Identity,
            Coding::Gzip => Decoder::Gzip(Gzip::default()),
            Coding::Deflate => Decoder::Deflate(Deflate::default()),
        };
        Self { decoder, links, pending: Buffer::default(), ended: false }
    }

    /// Bytes of memory that it takes.
    pub(in crate::proxy) fn held(&self) -> usize {
        let decoder = if let Decoder::Identity = self.decoder { 0 } else { INFLATE };
        self.pending.capacity() + decoder
    }

    /// Takes what has come. Best when [`Progress::Starved`]: it adds to what still waits.
    pub(in crate::proxy) fn push(&mut self, data: &[u8]) {
        self.pending.push(data);
    }

    /// No more will come.
    pub(in crate::proxy) fn end(&mut self) {
        self.ended = true;
    }

    /// Gives out about `budget` bytes, or what there is.
    ///
    /// # Errors
    /// When the body is not what its coding says. It is not to be gone on with.
    pub(in crate::proxy) fn advance(
        &mut self,
        budget: usize,
        out: &mut impl FnMut(&[u8]),
    ) -> Result<Progress, CodingError> {
        let mut window = [0; WINDOW];
        let mut left = budget;
        while left > 0 {
            let window = &mut window[..left.min(WINDOW)];
            let step = self.decoder.step(self.pending.filled(), window)?;
            if step == Step::default() {
                return self.pause(out);
            }
            self.pending.consume(step.read);
            self.links.push(&window[..step.written], out);
            left -= step.written;
        }
        Ok(Progress::More)
    }

    fn pause(&mut self, out: &mut impl FnMut(&[u8])) -> Result<Progress, CodingError> {
        // A decoder takes what there is, or it is stuck.
        if !self.pending.is_empty() {
            return Err(CodingError::Broken);
        }
        if !self.ended {
            return Ok(Progress::Starved);
        }
        if !self.decoder.is_whole() {
            return Err(CodingError::Truncated);
        }
        self.links.end(out);
        Ok(Progress::Done)
    }
}

impl Decoder {
    fn step(&mut self, data: &[u8], window: &mut [u8]) -> Result<Step, CodingError> {
        match self {
            Self::Identity => {
                let bytes = data.len().min(window.len());
                window[..bytes].copy_from_slice(&data[..bytes]);
                Ok(Step { read: bytes, written: bytes })
            }
            Self::Gzip(gzip) => gzip.step(data, window),
            Self::Deflate(deflate) => deflate.step(data, window),
        }
    }

    /// Whether the body may end here. A body of no bytes at all is whole in every coding: servers send it so.
    fn is_whole(&self) -> bool {
        match self {
            Self::Identity => true,
            Self::Gzip(gzip) => gzip.is_whole(),
            Self::Deflate(deflate) => deflate.is_whole(),
        }
    }
}

/// What a decoder takes, in bytes: the last 32 KiB of the body, and the tables of its codes.
const INFLATE: usize = 44 * 1024;

/// What is decoded at a time: it stands on the stack, and in the processor's nearest cache.
const WINDOW: usize = 8 * 1024;

#[cfg(test)]
mod tests;
