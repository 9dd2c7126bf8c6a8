//! Text files as editors write them: a byte order mark is no part of a text, and UTF-16 is named as such.

use std::borrow::Cow;

use memchr::memmem;
use zeroize::Zeroizing;

/// Why a file is not a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// Notepad's "Unicode", and what PowerShell's `>` writes.
    #[error("is UTF-16 text (PowerShell's `>` writes it)")]
    Utf16,
    /// Another encoding, or no text at all.
    #[error("is not UTF-8 text")]
    NotUtf8,
}

/// What to do about either.
pub const SAVE_AS_UTF8: &str = "save it as UTF-8";

/// The text of a file, without the marks in front of it.
///
/// # Errors
/// When the file is in another encoding.
pub fn decode(bytes: &[u8]) -> Result<&str, EncodingError> {
    if is_utf16(bytes) {
        return Err(EncodingError::Utf16);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| EncodingError::NotUtf8)?;
    Ok(text.trim_start_matches(BYTE_ORDER_MARK))
}

/// The value of a file that holds one: without marks in front of it and without line ends behind it.
///
/// # Errors
/// When the file is in another encoding.
pub fn decode_value(bytes: &[u8]) -> Result<&str, EncodingError> {
    Ok(decode(bytes)?.trim_end_matches(['\r', '\n']))
}

/// A line of a file, without white space round it and without the mark that stands there where two files were put together.
pub fn trim_line(line: &str) -> &str {
    line.trim_matches(|c: char| c.is_whitespace() || c == BYTE_ORDER_MARK)
}

/// The bytes of a PEM file without any mark: there is one at each beginning where files were put together. What stands between
/// the blocks may be in any encoding (RFC 7468, section 2).
///
/// # Errors
/// When the file is UTF-16.
pub fn pem(bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, EncodingError> {
    if is_utf16(&bytes) {
        return Err(EncodingError::Utf16);
    }
    match without_marks(&bytes) {
        Cow::Borrowed(_) => Ok(bytes),
        Cow::Owned(plain) => Ok(Zeroizing::new(plain)),
    }
}

fn without_marks(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut marks = memmem::find_iter(bytes, MARK).peekable();
    if marks.peek().is_none() {
        return Cow::Borrowed(bytes);
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut from = 0;
    for at in marks {
        plain.extend_from_slice(&bytes[from..at]);
        from = at + MARK.len();
    }
    plain.extend_from_slice(&bytes[from..]);
    Cow::Owned(plain)
}

/// Whether these are the code units of UTF-16: they begin with its mark, or every second byte is NUL. A text in ASCII is such in
/// either order of bytes; UTF-8 text has no NUL.
pub fn is_utf16(bytes: &[u8]) -> bool {
    let all_nul = |first: usize| bytes.iter().skip(first).step_by(2).all(|byte| *byte == 0);
    let marked = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    marked || bytes.len() >= 2 && bytes.len().is_multiple_of(2) && (all_nul(0) || all_nul(1))
}

/// Windows editors put it in front of UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';
const MARK: &[u8] = "\u{feff}".as_bytes();

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn marks_and_line_ends_are_no_part_of_a_value() {
        for text in [
            "pass",
            "pass\n",
            "pass\r\n",
            "pass\r",
            "\u{feff}pass",
            "\u{feff}\u{feff}pass\r\n",
            "pass\r\r\n\n",
        ] {
            assert_eq!(decode_value(text.as_bytes()), Ok("pass"), "{text:?}");
        }
        assert_eq!(decode_value("\u{feff} pass word \n".as_bytes()), Ok(" pass word "));
        assert_eq!(decode_value(b""), Ok(""));
        assert_eq!(decode_value(b"p\xe4ss"), Err(EncodingError::NotUtf8));
    }

    #[test]
    fn pem_loses_every_mark_and_nothing_else() {
        let pem = |text: &[u8]| pem(Zeroizing::new(text.to_vec())).map(|bytes| bytes.to_vec());
        assert_eq!(pem("\u{feff}a\n\u{feff}b".as_bytes()), Ok(b"a\nb".to_vec()));
        assert_eq!(pem(b"Issuer: M\xfcller\na\n"), Ok(b"Issuer: M\xfcller\na\n".to_vec()));
        assert_eq!(pem(b"\xff\xfea\0"), Err(EncodingError::Utf16));
    }

    proptest! {
        #[test]
        fn any_value_is_read_as_it_is_behind_any_number_of_marks(
            value in "[!-~ü€]{1,40}", marks in 0_usize..3, end in "[\r\n]{0,3}",
        ) {
            let text = format!("{}{value}{end}", "\u{feff}".repeat(marks));
            prop_assert_eq!(decode_value(text.as_bytes()), Ok(value.as_str()));
        }

        #[test]
        fn ascii_in_utf16_is_named(value in "[!-~]{1,40}", marked: bool, little: bool) {
            let text = format!("{}{value}", if marked { "\u{feff}" } else { "" });
            let code = if little { u16::to_le_bytes } else { u16::to_be_bytes };
            let bytes: Vec<u8> = text.encode_utf16().flat_map(code).collect();
            prop_assert_eq!(decode(&bytes), Err(EncodingError::Utf16));
        }
    }
}
