//! Percent-encoding and its abuses, UTF-8 and characters that look like others.

use memchr::memchr;

use crate::steps;

/// Undoes percent-encoding once, as every server does (RFC 3986, section 2.1); `None` where an escape is none.
pub(super) fn once(path: &[u8]) -> Option<Vec<u8>> {
    steps::over(path);
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'%' => {
                decoded.push(escaped(rest)?);
                &rest[3..]
            }
            byte => {
                decoded.push(byte);
                after
            }
        };
    }
    Some(decoded)
}

/// Undoes percent-encoding until nothing is left to undo. What is no escape stays. The order in which escapes are undone
/// makes no difference: no two of them overlap.
pub(super) fn all(path: &[u8]) -> Vec<u8> {
    let mut decoded: Vec<u8> = Vec::with_capacity(path.len());
    for &byte in steps::over(path) {
        decoded.push(byte);
        while let Some(begin) = decoded.len().checked_sub(3)
            && let Some(byte) = escaped(&decoded[begin..])
        {
            steps::add(1);
            decoded.truncate(begin);
            decoded.push(byte);
        }
    }
    decoded
}

/// The same with escapes that only Jetty knows: `%u002f`, and digits that are none (`%6@` is `%69`).
pub(super) fn loosely(path: &[u8]) -> Vec<u8> {
    let mut decoded: Vec<u8> = Vec::with_capacity(path.len());
    for &byte in steps::over(path) {
        decoded.push(byte);
        while let Some((length, text)) = escaped_loosely(&decoded) {
            steps::add(1);
            decoded.truncate(decoded.len() - length);
            decoded.extend(text.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    decoded
}

/// How long an escape at the end of `bytes` is, and what it stands for. A byte that is no ASCII is none.
fn escaped_loosely(bytes: &[u8]) -> Option<(usize, char)> {
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0, |number, digit| Some(number << 4 | u32::from(loose_digit(*digit)?)))
    };
    if let Some([b'%', digits @ ..]) = bytes.last_chunk::<3>()
        && let Some(byte) = number(digits)
    {
        return Some((3, char::from_u32(byte).filter(char::is_ascii).unwrap_or('\0')));
    }
    let [b'%', b'u', digits @ ..] = bytes.last_chunk::<6>()? else { return None };
    Some((6, char::from_u32(number(digits)?).unwrap_or('\0')))
}

/// A hexadecimal digit as Jetty's `TypeUtil.convertHexDigit` takes it, which looks at some of its bits only.
fn loose_digit(byte: u8) -> Option<u8> {
    ((byte & 0x1f) + (byte >> 6) * 0x19).checked_sub(0x10).filter(|digit| *digit < 16 && byte.is_ascii())
}

/// Whether there is an escape that anybody may undo.
pub(super) fn has_escape(bytes: &[u8]) -> bool {
    (1..=steps::over(bytes).len()).any(|end| escaped_loosely(&bytes[..end]).is_some())
}

/// The byte that an escape at the beginning of `bytes` stands for.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |digit: u8| char::from(digit).to_digit(16);
    Some((digit(*high)? << 4 | digit(*low)?) as u8)
}

/// A byte that no name has and nobody shows.
pub(super) fn is_control(byte: u8) -> bool {
    byte < b' ' || byte == 0x7f
}

/// `text` with ASCII in place of the characters that stand for it under some folding; `None` where there is none of them.
pub(super) fn folded(text: &str) -> Option<Vec<u8>> {
    if text.is_ascii() {
        return None;
    }
    steps::over(text.as_bytes());
    let mut changed = false;
    let mut folded = String::with_capacity(text.len());
    for character in text.chars() {
        match lookalike(character) {
            Some(ascii) => {
                changed = true;
                folded.push_str(ascii.encode(&mut [0; 3]));
            }
            None => folded.push(character),
        }
    }
    changed.then(|| folded.into_bytes())
}

/// Both forms of [`Settled`], one behind the other. `None` if undoing does not end.
pub(super) fn lenient(path: &[u8]) -> Option<Vec<u8>> {
    Settled::of(path).map(Settled::joined)
}

/// A text with everything undone that anybody may undo: escapes, overlong UTF-8, lookalikes. What is no text becomes a NUL.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    text: Vec<u8>,
    /// The same with the escapes undone, too, that only some servers undo; `None` if that is the same.
    loose: Option<Vec<u8>>,
}

impl Settled {
    /// `None` if undoing does not end.
    pub(super) fn of(path: &[u8]) -> Option<Self> {
        let (text, has_rest) = settled(path, all)?;
        if !has_rest {
            return Some(Self { text, loose: None });
        }
        let (loose, _) = settled(path, |text| loosely(&all(text)))?;
        let loose = (loose != text).then_some(loose);
        Some(Self { text, loose })
    }

    /// Both forms, or the only one.
    pub(super) fn forms(&self) -> impl Iterator<Item = &[u8]> + Clone {
        [Some(&self.text), self.loose.as_ref()].into_iter().flatten().map(Vec::as_slice)
    }

    /// Both forms, one behind the other, as names of one path.
    pub(super) fn joined(self) -> Vec<u8> {
        let mut text = self.text;
        if let Some(loose) = self.loose {
            text.push(b'/');
            text.extend(loose);
        }
        text
    }
}

/// The text in which nothing is left to undo, and whether a `%` was left over on the way: only then there may be escapes that
/// others undo.
fn settled(path: &[u8], undo: fn(&[u8]) -> Vec<u8>) -> Option<(Vec<u8>, bool)> {
    let mut text = path.to_vec();
    let mut has_rest = false;
    for _ in 0..ROUNDS_MAX {
        if text.is_ascii() && memchr(b'%', steps::over(&text)).is_none() {
            return Some((text, has_rest));
        }
        let undone = undo(&text);
        has_rest |= memchr(b'%', steps::over(&undone)).is_some();
        let decoded = text_of(undone);
        if decoded == text {
            return Some((text, has_rest));
        }
        text = decoded;
    }
    None
}

/// Bytes as text, overlong sequences too, which old decoders take (CVE-2008-2938).
fn text_of(bytes: Vec<u8>) -> Vec<u8> {
    if steps::over(&bytes).is_ascii() {
        return bytes;
    }
    if let Some(spelled) = overlong(&bytes) {
        return spelled;
    }
    let mut text = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        match folded(chunk.valid()) {
            Some(folded) => text.extend(folded),
            None => text.extend(chunk.valid().as_bytes()),
        }
        text.extend(chunk.invalid().iter().map(|_| 0));
    }
    text
}

/// `bytes` with the characters of overlong sequences in their places, if it has some.
fn overlong(bytes: &[u8]) -> Option<Vec<u8>> {
    steps::over(bytes);
    let mut spelled = Vec::new();
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        let tail =
            |count: usize| rest.get(1..=count).filter(|tail| tail.iter().all(|byte| byte >> 6 == 0b10));
        let last = match first {
            0xc0 | 0xc1 => tail(1).map(|tail| (2, first << 6 | tail[0] & 0x3f)),
            0xe0 => tail(2).filter(|tail| tail[0] < 0x82).map(|tail| (3, tail[0] << 6 | tail[1] & 0x3f)),
            0xf0 => tail(3)
                .filter(|tail| tail[0] == 0x80 && tail[1] < 0x82)
                .map(|tail| (4, tail[1] << 6 | tail[2] & 0x3f)),
            _ => None,
        };
        let (length, byte) = last.unwrap_or((1, first));
        spelled.push(byte);
        rest = &rest[length..];
    }
    (spelled.len() < bytes.len()).then_some(spelled)
}

/// ASCII that a character may become.
#[derive(Clone, Copy)]
enum Ascii {
    One(char),
    /// So many dots.
    Dots(usize),
    Nothing,
}

impl Ascii {
    fn encode(self, room: &mut [u8; 3]) -> &str {
        match self {
            Self::One(character) => character.encode_utf8(room),
            Self::Dots(count) => &"..."[..count],
            Self::Nothing => "",
        }
    }
}

/// What Unicode's compatibility forms and Java's comparison without case make of a character, as far as it is ASCII that
/// names and paths are made of.
fn lookalike(character: char) -> Option<Ascii> {
    Some(match character {
        '\u{ff01}'..='\u{ff5e}' => {
            Ascii::One(char::from_u32(u32::from(character) - 0xff01 + 0x21).unwrap_or(character))
        }
        '\u{3002}' | '\u{ff61}' | '\u{fe12}' | '\u{fe52}' | '\u{2024}' => Ascii::Dots(1),
        '\u{2025}' | '\u{fe30}' => Ascii::Dots(2),
        '\u{2026}' => Ascii::Dots(3),
        '\u{2044}' | '\u{2215}' | '\u{29f8}' => Ascii::One('/'),
        '\u{2216}' | '\u{29f5}' | '\u{29f9}' | '\u{fe68}' => Ascii::One('\\'),
        '\u{37e}' | '\u{fe54}' | '\u{fe14}' => Ascii::One(';'),
        '\u{fe6a}' => Ascii::One('%'),
        '\u{17f}' => Ascii::One('s'),
        '\u{212a}' => Ascii::One('k'),
        '\u{130}' | '\u{131}' => Ascii::One('i'),
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => {
            Ascii::One(' ')
        }
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' => Ascii::Nothing,
        _ => return None,
    })
}

/// How often escapes may hide in lookalikes of `%`.
const ROUNDS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_undone_once_or_as_far_as_they_go() {
        for (path, decoded, entirely) in [
            ("/a%20b", Some("/a b"), "/a b"),
            ("/%2525%32%35", Some("/%2525"), "/%"),
            ("/%25%34%31", Some("/%41"), "/A"),
            ("/%", None, "/%"),
            ("/%4", None, "/%4"),
            ("/%zz%41", None, "/%zzA"),
            ("/%2%35", None, "/%"),
        ] {
            assert_eq!(once(path.as_bytes()).as_deref(), decoded.map(str::as_bytes), "{path}");
            let rest = all(path.as_bytes());
            assert!(!has_escape(&rest), "{path}");
            assert_eq!(rest, entirely.as_bytes(), "{path}");
        }
    }

    #[test]
    fn what_looks_like_ascii_is_ascii_in_the_end() {
        for (path, text) in [
            ("/%c0%afcrx", "//crx"),
            ("/%e0%80%aecrx", "/.crx"),
            ("/%f0%80%80%afcrx", "//crx"),
            ("/%EF%BD%83rx", "/crx"),
            ("/\u{ff05}63rx", "/crx"),
            ("/%e2%80%a5/x", "/../x"),
            ("/con\u{17f}ole\u{200b}", "/console"),
            ("/a%ffb", "/a\0b"),
            ("/caf%C3%A9", "/caf\u{e9}"),
            ("/%u0063rx", "/%u0063rx//crx"),
            ("/%u002525%3:", "/%u002525%3://%:"),
            ("/s%7@stem", "/s%7@stem//system"),
            ("/s%%37@stem", "/s%7@stem//system"),
            ("/100%.jpg", "/100%.jpg"),
        ] {
            assert_eq!(lenient(path.as_bytes()).unwrap(), text.as_bytes(), "{path}");
        }
        let nested = format!("/{}41", "%EF%BC%85".replace('%', "%EF%BC%85").repeat(3));
        assert!(lenient(nested.as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn undoing_all_is_undoing_one_by_one(path in "/[%0-9a-fA-F/.;x]{0,40}") {
            let mut slowly = path.clone().into_bytes();
            while let Some(at) = slowly.windows(3).position(|three| escaped(three).is_some()) {
                let byte = escaped(&slowly[at..]).unwrap();
                slowly.splice(at..at + 3, [byte]);
            }
            prop_assert_eq!(all(path.as_bytes()), slowly);
        }
    }
}
