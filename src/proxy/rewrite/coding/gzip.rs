//! `gzip` (RFC 1952): members, one after the other.
//!
//! flate2 reads members from a stream of its own, which cannot be asked for what it still has when no more has come. So
//! the little that is around the compressed data is read here.

use flate2::{Crc, Decompress};

use super::{CodingError, Step, deflate::inflate};

pub(super) struct Gzip {
    part: Part,
    decompress: Decompress,
    crc: Crc,
}

/// What is read of a member.
#[derive(Debug, Clone, Copy)]
enum Part {
    Header {
        flags: u8,
        at: Header,
    },
    Data,
    /// The sum and the size of the data, little-endian, as far as they have come.
    Trailer {
        bytes: [u8; TRAILER],
        length: usize,
    },
}

/// What is read of a header.
#[derive(Debug, Clone, Copy)]
enum Header {
    /// So many bytes of the part that is always there.
    Fixed(usize),
    ExtraLength,
    /// With the low byte of the length.
    ExtraLengthHigh(u8),
    /// So many bytes are left.
    Skipped(u16),
    /// A name or a comment, until a zero.
    Text,
}

impl Default for Gzip {
    fn default() -> Self {
        Self { part: START, decompress: Decompress::new(false), crc: Crc::new() }
    }
}

impl Gzip {
    pub(super) fn step(&mut self, data: &[u8], window: &mut [u8]) -> Result<Step, CodingError> {
        if let Part::Data = self.part {
            let (step, over) = inflate(&mut self.decompress, data, window)?;
            self.crc.update(&window[..step.written]);
            if over {
                self.part = Part::Trailer { bytes: [0; TRAILER], length: 0 };
            }
            if step != Step::default() || !over {
                return Ok(step);
            }
        }
        let mut read = 0;
        while let (Some(byte), false) = (data.get(read), matches!(self.part, Part::Data)) {
            self.part = self.around(*byte)?;
            read += 1;
        }
        Ok(Step { read, written: 0 })
    }

    /// Another member may begin, or none.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.part, Part::Header { at: Header::Fixed(0), .. })
    }

    /// What `byte`, which is not of the data, leads to.
    fn around(&mut self, byte: u8) -> Result<Part, CodingError> {
        match self.part {
            Part::Header { flags, at } => header(flags, at, byte),
            Part::Trailer { mut bytes, length } => {
                bytes[length] = byte;
                if length + 1 == TRAILER {
                    self.check(bytes)
                } else {
                    Ok(Part::Trailer { bytes, length: length + 1 })
                }
            }
            Part::Data => Ok(Part::Data),
        }
    }

    fn check(&mut self, trailer: [u8; TRAILER]) -> Result<Part, CodingError> {
        let said = u64::from_le_bytes(trailer);
        if said != u64::from(self.crc.amount()) << 32 | u64::from(self.crc.sum()) {
            return Err(CodingError::Broken);
        }
        self.crc.reset();
        self.decompress.reset(false);
        Ok(START)
    }
}

/// What `byte` of a header leads to (RFC 1952, section 2.3).
fn header(flags: u8, at: Header, byte: u8) -> Result<Part, CodingError> {
    let at = match at {
        Header::Fixed(at) => {
            let flags = if at == FLAGS { byte } else { flags };
            let known = MAGIC.get(at).is_none_or(|expected| byte == *expected) && flags & RESERVED == 0;
            return match at + 1 {
                _ if !known => Err(CodingError::Broken),
                FIXED => Ok(next(flags)),
                at => Ok(Part::Header { flags, at: Header::Fixed(at) }),
            };
        }
        Header::ExtraLength => Header::ExtraLengthHigh(byte),
        Header::ExtraLengthHigh(low) => match u16::from_le_bytes([low, byte]) {
            0 => return Ok(next(flags)),
            length => Header::Skipped(length),
        },
        Header::Skipped(1) => return Ok(next(flags)),
        Header::Skipped(left) => Header::Skipped(left - 1),
        Header::Text if byte == 0 => return Ok(next(flags)),
        Header::Text => Header::Text,
    };
    Ok(Part::Header { flags, at })
}

/// The first of what `flags` says is still to come, in the order in which it does.
fn next(flags: u8) -> Part {
    let (flag, at) = match flags {
        _ if flags & EXTRA != 0 => (EXTRA, Header::ExtraLength),
        _ if flags & NAME != 0 => (NAME, Header::Text),
        _ if flags & COMMENT != 0 => (COMMENT, Header::Text),
        // Its sum is not asked for: no byte of the header goes anywhere.
        _ if flags & HEADER_SUM != 0 => (HEADER_SUM, Header::Skipped(2)),
        _ => return Part::Data,
    };
    Part::Header { flags: flags & !flag, at }
}

const START: Part = Part::Header { flags: 0, at: Header::Fixed(0) };

/// Identification, and the one method that there is.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// Where the flags are.
const FLAGS: usize = 3;

const FIXED: usize = 10;

const HEADER_SUM: u8 = 1 << 1;

const EXTRA: u8 = 1 << 2;

const NAME: u8 = 1 << 3;

const COMMENT: u8 = 1 << 4;

/// Nobody knows what comes with these.
const RESERVED: u8 = 0xe0;

const TRAILER: usize = 8;
