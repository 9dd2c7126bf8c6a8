//! The names of members.

/// A name as it comes, byte by byte, decoded. Of a name that is too long to be one of ours only the end is looked for.
#[derive(Debug, Default)]
pub(super) struct MemberName {
    bytes: [u8; LONGEST],
    /// More than [`LONGEST`]: it is none of ours.
    length: usize,
    escape: Escape,
}

#[derive(Debug, Default, Clone, Copy)]
enum Escape {
    #[default]
    None,
    /// Behind a backslash.
    Begun,
    /// Behind `\u`.
    Hex { digits: u8, value: u16 },
}

impl MemberName {
    /// Takes from behind the opening quote, or from where it stopped; the length, if the closing quote is there.
    pub(super) fn take(&mut self, data: &[u8]) -> Option<usize> {
        let end = data.iter().position(|byte| self.step(*byte))?;
        Some(end + 1)
    }

    pub(super) fn decoded(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Whether `byte` is the closing quote.
    fn step(&mut self, byte: u8) -> bool {
        match (std::mem::take(&mut self.escape), byte) {
            (Escape::None, b'"') => return true,
            (Escape::None, b'\\') => self.escape = Escape::Begun,
            (Escape::None, _) => self.add(byte),
            (Escape::Begun, b'u') => self.escape = Escape::Hex { digits: 0, value: 0 },
            // None of the characters that have a short escape is in our names.
            (Escape::Begun, _) => self.length = TOO_LONG,
            (Escape::Hex { digits, value }, _) => match char::from(byte).to_digit(16) {
                Some(digit) => self.hex(digits + 1, value << 4 | digit as u16),
                None => {
                    self.length = TOO_LONG;
                    return self.step(byte);
                }
            },
        }
        false
    }

    fn hex(&mut self, digits: u8, value: u16) {
        match u8::try_from(value) {
            _ if digits < 4 => self.escape = Escape::Hex { digits, value },
            Ok(byte) if byte.is_ascii() => self.add(byte),
            _ => self.length = TOO_LONG,
        }
    }

    fn add(&mut self, byte: u8) {
        if let Some(free) = self.bytes.get_mut(self.length) {
            *free = byte;
            self.length += 1;
        } else {
            self.length = TOO_LONG;
        }
    }
}

/// `completeURI` and `_publishUrl` are the longest names that are looked for.
const LONGEST: usize = 11;

const TOO_LONG: usize = LONGEST + 1;
