//! The request's body, from the client to AEM.

use std::pin::Pin;

use tokio::time::Sleep;

use crate::proxy::{
    buffer::Buffer,
    framing::{Decoder, Encoding, Length},
    link::LinkError,
    trailers::{Behind, trailers},
    withheld::Withheld,
};

/// A body on its way.
pub(in crate::proxy) struct Up {
    decoder: Decoder,
    encoding: Encoding,
    pub(super) gate: Option<Gate>,
    /// Nobody reads the rest.
    pub(super) abandoned: bool,
    /// What has gone to AEM, as it went, for a second attempt; none when it was too much.
    kept: Option<Vec<u8>>,
    kept_max: usize,
    /// The length of the body where it is known and kept: memory that grows leaves gaps.
    expected: usize,
}

/// Holds a body back until AEM has said `100 Continue`, or has been silent for so long that it never will: so the client
/// hears it when AEM has said it, and hears AEM's refusal instead where there is one.
#[derive(Default)]
pub(super) struct Gate {
    /// Begins when AEM has the head.
    pub(super) patience: Option<Pin<Box<Sleep>>>,
}

impl Up {
    /// `trailers_max` bounds the fields after a chunked body; `expects` is `Expect: 100-continue`; up to `kept_max` bytes
    /// are kept for a second attempt.
    pub(in crate::proxy) fn new(length: Length, trailers_max: usize, expects: bool, kept_max: usize) -> Self {
        let encoding = if length == Length::Chunked { Encoding::Chunked } else { Encoding::Identity };
        let gate = expects.then(Gate::default);
        // A body that is known to be too long is not kept to begin with.
        let fits = !matches!(length, Length::Exact(bytes) if bytes > kept_max as u64);
        let expected = match length {
            Length::Exact(bytes) if fits => usize::try_from(bytes).unwrap_or_default(),
            _ => 0,
        };
        Self {
            decoder: Decoder::new(length, trailers_max),
            encoding,
            gate,
            abandoned: false,
            kept: fits.then(Vec::new),
            expected,
            kept_max,
        }
    }

    /// Whether the whole body has come.
    pub(super) fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether no more of it goes to AEM.
    pub(super) fn is_over(&self) -> bool {
        self.abandoned || self.is_done()
    }

    /// What AEM was sent of it so far, if it can be sent once more.
    pub(super) fn kept(&self) -> Option<&[u8]> {
        self.kept.as_deref()
    }

    /// Bytes of memory that it takes.
    pub(super) fn held(&self) -> usize {
        self.kept.as_ref().map_or(0, Vec::capacity)
    }

    /// There will be no second attempt.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    /// From here on it goes to another connection.
    pub(super) fn begin_again(&mut self) {
        self.abandoned = false;
        if let Some(gate) = &mut self.gate {
            gate.patience = None;
        }
    }

    /// Moves what has come of the body to `take`.
    pub(super) fn pass(
        &mut self,
        input: &mut Buffer,
        mut take: impl FnMut(&[u8]) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let mut chunks = Buffer::default();
        while !input.is_empty() && !self.decoder.is_done() {
            let (used, data) = self.decoder.decode(input.filled())?;
            match self.encoding {
                Encoding::Identity => {
                    keep(&mut self.kept, self.kept_max, self.expected, data);
                    take(data)?;
                }
                Encoding::Chunked => self.encoding.data(data, &mut chunks),
            }
            input.consume(used);
        }
        if self.encoding == Encoding::Chunked {
            if self.decoder.is_done() {
                self.encoding.end(
                    &trailers(self.decoder.trailers(), Behind::Request, Withheld::NOTHING).0,
                    &mut chunks,
                );
            }
            keep(&mut self.kept, self.kept_max, self.expected, chunks.filled());
            take(chunks.filled())?;
        }
        Ok(())
    }

    /// Reads what is left of the body, as far as it has come: AEM does not get it. Tells whether that was all.
    pub(super) fn skip(&mut self, input: &mut Buffer) -> bool {
        if self.gate.is_some() {
            // The client may send it or not: nobody knows where the next request begins.
            return false;
        }
        self.encoding = Encoding::Identity;
        self.forget();
        self.pass(input, |_| Ok(())).is_ok() && self.is_done()
    }
}

fn keep(kept: &mut Option<Vec<u8>>, max: usize, expected: usize, data: &[u8]) {
    if let Some(bytes) = kept {
        if bytes.len() + data.len() <= max {
            if bytes.capacity() == 0 {
                bytes.reserve_exact(expected.max(data.len()));
            }
            bytes.extend_from_slice(data);
        } else {
            *kept = None;
        }
    }
}
