//! The line before a chunk: its size, and extensions.

use super::{FramingError, NO_SIZE};
use crate::proxy::fields::{LENGTH_MAX, is_text, is_token};

/// The size in a line (RFC 9112, section 7.1). Extensions after it mean nothing to anybody, and have to be some: what is hidden
/// in a broken one has been a request to others. `httparse::parse_chunk_size` takes an empty line for a size of 0.
pub(super) fn chunk_size(line: &[u8]) -> Result<u64, FramingError> {
    let line = line.strip_suffix(b"\r\n").ok_or(NO_SIZE)?;
    let (size, extensions) = line.split_at(hex_digits(line));
    if size.len() > SIZE_DIGITS_MAX || !are_extensions(extensions) {
        return Err(NO_SIZE);
    }
    let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
    size.filter(|size| *size <= LENGTH_MAX).ok_or(NO_SIZE)
}

/// Whether what has come of such a line can become one.
pub(super) fn begins_chunk_size(line: &[u8]) -> bool {
    let digits = hex_digits(line);
    let may_follow = line.get(digits).is_none_or(|byte| digits > 0 && b" \t;\r".contains(byte));
    let text = line.strip_suffix(b"\r").unwrap_or(line);
    digits <= SIZE_DIGITS_MAX && may_follow && text.iter().all(|byte| is_text(*byte))
}

fn hex_digits(line: &[u8]) -> usize {
    line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count()
}

/// `;name`, `;name=token`, `;name="text"`, any number of times (RFC 9112, section 7.1.1).
fn are_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(extension) = blank(rest).strip_prefix(b";").map(blank) else { return false };
        let (name, behind) = token(extension);
        if name.is_empty() {
            return false;
        }
        rest = behind;
        if let Some(value) = blank(behind).strip_prefix(b"=").map(blank) {
            let Some(behind) = behind_value(value) else { return false };
            rest = behind;
        }
    }
    true
}

fn behind_value(value: &[u8]) -> Option<&[u8]> {
    let Some(mut rest) = value.strip_prefix(b"\"") else {
        let (text, behind) = token(value);
        return (!text.is_empty()).then_some(behind);
    };
    loop {
        rest = match rest {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', byte, behind @ ..] | [byte, behind @ ..] if is_text(*byte) => behind,
            _ => return None,
        };
    }
}

fn token(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| is_token(&[**byte])).count())
}

/// `text` without what is blank before it.
fn blank(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|byte| b" \t".contains(byte)).count()..]
}

/// Those of 64 bits.
const SIZE_DIGITS_MAX: usize = 16;
