//! How an origin can be spelled in a string of JSON.

use crate::proxy::rewrite::Origin;

/// The beginning of a string that is an origin.
#[derive(Debug)]
pub(super) struct Spelling {
    pub(super) bytes: usize,
    colon: &'static [u8],
    slash: &'static [u8],
}

/// What a string begins with, as far as it has come.
#[derive(Debug)]
pub(super) enum Beginning {
    Origin(Spelling),
    Other,
    /// More of it has to come.
    Undecided,
}

impl Spelling {
    /// What `text`, the inside of a string from its beginning on, begins with: [`Origin::rest`] on what the string says.
    ///
    /// Some serialisers escape every slash; others, colons too. Nobody escapes letters, so that they are only looked for
    /// as they are, and those of the host in lower case, as [`Origin::occurs_in`] does.
    pub(super) fn at(text: &[u8], origin: &Origin) -> Beginning {
        let mut reader = Reader { text, at: 0 };
        match reader.origin(origin) {
            Ok((colon, slash)) => Beginning::Origin(Self { bytes: reader.at, colon, slash }),
            Err(Mismatch::Other) => Beginning::Other,
            Err(Mismatch::Short) => Beginning::Undecided,
        }
    }

    /// Within so many bytes it is decided.
    pub(super) fn longest(origin: &Origin) -> usize {
        origin.scheme.len() + origin.host.len() + origin.port.len() + 5 * ESCAPE
    }

    /// Writes `local` in this style.
    pub(super) fn write(&self, local: &[u8], out: &mut impl FnMut(&[u8])) {
        if self.colon == b":" && self.slash == b"/" {
            return out(local);
        }
        for byte in local {
            match byte {
                b':' => out(self.colon),
                b'/' => out(self.slash),
                _ => out(std::slice::from_ref(byte)),
            }
        }
    }
}

/// What is read is not what was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mismatch {
    Other,
    /// As far as it has come, it is.
    Short,
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    /// Reads an origin, and tells how its first colon and slash are spelled.
    fn origin(&mut self, origin: &Origin) -> Result<(&'static [u8], &'static [u8]), Mismatch> {
        self.plain(origin.scheme, <[u8]>::eq_ignore_ascii_case)?;
        let colon = self.any(&COLON)?;
        let slash = self.any(&SLASH)?;
        self.any(&SLASH)?;
        self.plain(&origin.host, <[u8]>::eq)?;
        match self.any(&COLON) {
            Ok(_) => self.plain(&origin.port, <[u8]>::eq)?,
            Err(Mismatch::Other) if origin.implied => {}
            Err(mismatch) => return Err(mismatch),
        }
        let end = self.at;
        self.any(&END)?;
        self.at = end;
        Ok((colon, slash))
    }

    fn plain(&mut self, expected: &[u8], is: impl Fn(&[u8], &[u8]) -> bool) -> Result<(), Mismatch> {
        let rest = &self.text[self.at..];
        let length = rest.len().min(expected.len());
        if !is(&rest[..length], &expected[..length]) {
            return Err(Mismatch::Other);
        }
        if length < expected.len() {
            return Err(Mismatch::Short);
        }
        self.at += length;
        Ok(())
    }

    fn any(&mut self, spellings: &[&'static [u8]]) -> Result<&'static [u8], Mismatch> {
        let rest = &self.text[self.at..];
        if let Some(found) = spellings.iter().find(|spelling| rest.starts_with(spelling)) {
            self.at += found.len();
            return Ok(found);
        }
        let may_come = spellings.iter().any(|spelling| spelling.starts_with(rest));
        Err(if may_come { Mismatch::Short } else { Mismatch::Other })
    }
}

const COLON: [&[u8]; 3] = [b":", b"\\u003a", b"\\u003A"];

const SLASH: [&[u8]; 4] = [b"/", b"\\/", b"\\u002f", b"\\u002F"];

/// What may stand behind an authority: its URL's path, query or fragment, or nothing.
const END: [&[u8]; 7] = [b"\"", b"/", b"\\/", b"\\u002f", b"\\u002F", b"?", b"#"];

/// The length of the longest spelling of a character.
const ESCAPE: usize = 6;

#[cfg(test)]
mod tests {
    use super::{super::super::tests::origin, *};

    #[track_caller]
    fn begins(url: &str, text: &str) -> Option<usize> {
        match Spelling::at(text.as_bytes(), &origin(url)) {
            Beginning::Origin(spelling) => Some(spelling.bytes),
            Beginning::Other => None,
            Beginning::Undecided => panic!("{text} is undecided"),
        }
    }

    const SPELLINGS: [&str; 6] = [
        "https://aem.example",
        "HTTPS://aem.example",
        r"https:\/\/aem.example",
        r"https\u003a\u002f\u002Faem.example",
        r"https\u003A/\/aem.example\u003a443",
        "https://aem.example:443",
    ];

    #[test]
    fn slashes_and_colons_may_be_escaped() {
        for spelling in SPELLINGS {
            for end in ["\"", "/a", r"\/a", r"\u002fa", r"\u002Fa", "?", "#"] {
                let text = format!("{spelling}{end}");
                assert_eq!(begins("https://aem.example", &text), Some(spelling.len()), "{text}");
            }
        }
        assert_eq!(begins("https://aem.example:8443", "https://aem.example:8443/"), Some(24));
        assert_eq!(begins("http://[::1]:4502", r"http:\/\/[::1]:4502/"), Some(19));
    }

    #[test]
    fn nothing_else_is_taken_for_the_origin() {
        for text in [
            "\"",
            "/content\"",
            " https://aem.example/",
            "http://aem.example/",
            "//aem.example/",
            "https://AEM.example/",
            "https://aem.example.evil.com/",
            "https://aem.example@evil.com/",
            "https://aem.example:8443/",
            "https://aem.example:4430/",
            "https://aem.example:443@evil.com/",
            r"https://aem.example\\evil.com/",
            r#"https://aem.example\"/"#,
            r"https://aem.example\u0040evil.com/",
            r"https://aem.example\u005cevil.com/",
            r"https:\\/\\/aem.example/",
            r"https:\U002f/aem.example/",
            r"https:/\u002e/aem.example/",
            r"https:// aem.example/",
            r"https://\u0061em.example/",
        ] {
            assert_eq!(begins("https://aem.example", text), None, "{text}");
        }
        assert_eq!(begins("https://aem.example:8443", "https://aem.example/"), None);
        assert_eq!(begins("http://[::1]:4502", r"http://[\u003a\u003a1]:4502/"), None);
    }

    #[test]
    fn a_beginning_is_undecided_until_its_authority_has_ended() {
        let origin = origin("https://aem.example");
        for spelling in SPELLINGS {
            for text in (0..=spelling.len()).map(|length| &spelling[..length]) {
                assert!(matches!(Spelling::at(text.as_bytes(), &origin), Beginning::Undecided), "{text}");
                assert!(text.len() < Spelling::longest(&origin));
            }
        }
        for end in ["\\", "\\u", "\\u0", "\\u00", "\\u002"] {
            let text = format!("https://aem.example{end}");
            assert!(matches!(Spelling::at(text.as_bytes(), &origin), Beginning::Undecided), "{text}");
        }
    }

    #[test]
    fn the_local_origin_is_written_in_the_same_style() {
        for (text, expected) in [
            ("https://aem.example/", "http://localhost:8080"),
            (r"https:\/\/aem.example/", r"http:\/\/localhost:8080"),
            (r"https\u003a\u002F\u002Faem.example/", r"http\u003a\u002F\u002Flocalhost\u003a8080"),
        ] {
            let Beginning::Origin(spelling) = Spelling::at(text.as_bytes(), &origin("https://aem.example"))
            else {
                panic!("{text}");
            };
            let mut out = Vec::new();
            spelling.write(b"http://localhost:8080", &mut |bytes| out.extend_from_slice(bytes));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
