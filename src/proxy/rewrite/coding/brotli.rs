//! `br` (RFC 7932).

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::{CodingError, Step};

#[derive(Default)]
pub(super) struct Brotli {
    /// None until something has come. Large, and so not here.
    state: Option<Box<State>>,
    over: bool,
}

type State = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

impl Brotli {
    pub(super) fn step(&mut self, data: &[u8], window: &mut [u8]) -> Result<Step, CodingError> {
        if self.state.is_none() && !data.is_empty() {
            self.state = Some(state());
        }
        let mut step = Step::default();
        if let Some(state) = self.state.as_mut().filter(|_| !self.over) {
            (step, self.over) = decompress(state, data, window)?;
        }
        if self.over && step.read < data.len() { Err(CodingError::Broken) } else { Ok(step) }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.over || self.state.is_none()
    }
}

/// One step, and whether it was the last.
fn decompress(state: &mut State, data: &[u8], window: &mut [u8]) -> Result<(Step, bool), CodingError> {
    let mut step = Step::default();
    let (mut unread, mut room) = (data.len(), window.len());
    let result = BrotliDecompressStream(
        &mut unread,
        &mut step.read,
        data,
        &mut room,
        &mut step.written,
        window,
        &mut 0,
        state,
    );
    match result {
        BrotliResult::ResultFailure => Err(CodingError::Broken),
        BrotliResult::ResultSuccess => Ok((step, true)),
        BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => Ok((step, false)),
    }
}

/// Strict: without the windows of up to 1 GiB that are no part of the RFC.
fn state() -> Box<State> {
    let alloc = StandardAlloc::default;
    Box::new(State::new_strict(alloc(), alloc(), alloc()))
}
