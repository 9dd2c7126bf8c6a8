//! PEM (RFC 7468) in the forms in which it comes out of environment files, YAML and shells.
//!
//! Parsers of PEM files want real lines. Here a block is what stands between its two marks, and white
//! space in it means nothing, so that all forms become one without being laid out anew.

use base64::{Engine, engine::general_purpose::STANDARD_PAD_INDIFFERENT};
use zeroize::Zeroizing;

/// One block: `label` is the words between `BEGIN` and the dashes.
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    /// Absent where the block does not end.
    body: Option<&'a str>,
}

impl Block<'_> {
    /// The bytes within; nothing where the block is cut off or is not base64.
    pub(super) fn der(&self) -> Option<Zeroizing<Vec<u8>>> {
        decode_base64(self.body?)
    }

    /// Whether the old header of an encrypted body is there (RFC 1421, section 4.6.1.1).
    pub(super) fn is_encrypted(&self) -> bool {
        self.body.is_some_and(|body| body.trim_start().starts_with("Proc-Type:"))
    }
}

/// The text that holds PEM blocks: `value` itself, with `\n` and `\r` spelled out in two characters made
/// into line ends, or what `value` is the base64 of. Nothing where there is no block in either.
pub(super) fn unfold(value: &str) -> Option<Zeroizing<String>> {
    if value.contains(BEGIN) {
        return Some(real_line_ends(value));
    }
    let decoded = decode_base64(&real_line_ends(value))?;
    let text = std::str::from_utf8(&decoded).ok()?;
    text.contains(BEGIN).then(|| real_line_ends(text))
}

/// The blocks of a text, in order; what stands between them is skipped.
pub(super) fn blocks(text: &str) -> impl Iterator<Item = Block<'_>> {
    text.split(BEGIN).skip(1).filter_map(|rest| {
        let (label, rest) = rest.split_once(DASHES)?;
        let end = rest.find(&format!("-----END {label}{DASHES}"));
        Some(Block { label, body: end.map(|end| &rest[..end]) })
    })
}

/// Base64 in the usual or the URL alphabet, padded or not, with white space anywhere.
pub(super) fn decode_base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut usual = Zeroizing::new(String::with_capacity(text.len()));
    usual.extend(text.chars().filter(|c| !c.is_whitespace()).map(|c| match c {
        '-' => '+',
        '_' => '/',
        other => other,
    }));
    STANDARD_PAD_INDIFFERENT.decode(usual.as_bytes()).ok().map(Zeroizing::new)
}

fn real_line_ends(text: &str) -> Zeroizing<String> {
    let without_cr = Zeroizing::new(text.replace("\\r", "\n"));
    Zeroizing::new(without_cr.replace("\\n", "\n"))
}

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";
