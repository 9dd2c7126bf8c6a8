//! Bodies that follow from a number, so that both ends know every byte.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use fastrand::Rng;
use http_body::{Body, Frame, SizeHint};

/// The bytes that belong to a number.
pub fn bytes(number: u64, length: usize) -> Bytes {
    let mut random = Rng::with_seed(number);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.u64(..).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// A body in parts, whose length is announced or not.
pub struct Parts {
    parts: VecDeque<Bytes>,
    announced: Option<u64>,
}

impl Parts {
    /// With its length.
    pub fn whole(bytes: Bytes) -> Self {
        let announced = Some(bytes.len() as u64);
        Self { parts: if bytes.is_empty() { VecDeque::new() } else { [bytes].into() }, announced }
    }

    /// In parts of up to `size`, without its length.
    pub fn chunked(mut bytes: Bytes, size: usize) -> Self {
        let mut parts = VecDeque::new();
        while !bytes.is_empty() {
            parts.push_back(bytes.split_to(size.clamp(1, bytes.len())));
        }
        Self { parts, announced: None }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.parts.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
