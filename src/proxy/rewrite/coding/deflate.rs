//! `deflate`, which is zlib's format (RFC 1950) around deflate's (RFC 1951). "Some non-conformant implementations" send
//! the latter alone (RFC 9110, section 8.4.1.2).

use flate2::{Decompress, FlushDecompress, Status};

use super::{CodingError, Step};

#[derive(Default)]
pub(super) struct Deflate {
    /// None until the first byte has said which format it is.
    decompress: Option<Decompress>,
    over: bool,
}

impl Deflate {
    pub(super) fn step(&mut self, data: &[u8], window: &mut [u8]) -> Result<Step, CodingError> {
        if self.decompress.is_none() {
            self.decompress = data.first().map(|first| Decompress::new(is_zlib(*first)));
        }
        let mut step = Step::default();
        if let Some(decompress) = self.decompress.as_mut().filter(|_| !self.over) {
            (step, self.over) = inflate(decompress, data, window)?;
        }
        if self.over && step.read < data.len() { Err(CodingError::Broken) } else { Ok(step) }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.over || self.decompress.is_none()
    }
}

/// One step, and whether it was the last.
pub(super) fn inflate(
    decompress: &mut Decompress,
    data: &[u8],
    window: &mut [u8],
) -> Result<(Step, bool), CodingError> {
    let (read, written) = (decompress.total_in(), decompress.total_out());
    let status = decompress.decompress(data, window, FlushDecompress::None);
    let over = status.map_err(|_| CodingError::Broken)? == Status::StreamEnd;
    let read = (decompress.total_in() - read) as usize;
    let written = (decompress.total_out() - written) as usize;
    Ok((Step { read, written }, over))
}

/// Whether zlib's header begins so: method 8, window of 32 KiB at most (RFC 1950, section 2.2). To deflate alone it would
/// be a stored block with a bit set that is padding, which nobody sets.
fn is_zlib(first: u8) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7
}
