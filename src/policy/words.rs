//! Names in paths: which are the same to AEM, or to somebody before it.

use memchr::{memchr, memchr_iter, memchr2};

use crate::steps;

/// Whether a segment is the one called `name`, in whatever case, and with whatever stands behind a name: selectors, an
/// extension, parameters.
pub(super) fn begins_with_name(segment: &[u8], name: &[u8]) -> bool {
    let segment = segment.trim_ascii();
    same_until(segment, name, 0, &|end| segment.get(end).is_none_or(|byte| ends_name(*byte)))
}

/// Whether two names are the same but for their case. Sling writes `jcr:content` as `_jcr_content`, too.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    same_until(a, b, 0, &|end| end == a.len())
}

/// Whether what stands in `text` between `at` and some `end` is the same as `name`. Reads no more of `text` than a name as
/// long as `name` can take.
fn same_until(text: &[u8], name: &[u8], at: usize, is_end: &dyn Fn(usize) -> bool) -> bool {
    let Some(rest) = text.get(at..) else { return false };
    steps::add(name.len().min(rest.len()));
    let is_plainly = rest.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
    is_plainly && is_end(at + name.len())
        || letters(rest, name).is_some_and(|length| is_end(at + length))
        || namespace(rest, name)
            .is_some_and(|length| same_until(text, &name[length + 1..], at + length + 2, is_end))
        || namespace(name, rest)
            .is_some_and(|length| same_until(text, &name[length + 2..], at + length + 1, is_end))
}

/// The length of the beginning of `text` that has the same letters as `name`, where both have some that are not ASCII.
fn letters(text: &[u8], name: &[u8]) -> Option<usize> {
    if name.is_ascii() {
        return None;
    }
    let mut wanted = str::from_utf8(name).ok()?.chars().flat_map(char::to_lowercase).peekable();
    let (mut length, mut is_ascii) = (0, true);
    while wanted.peek().is_some() {
        steps::add(1);
        let character = first_character(&text[length..])?;
        if character.to_lowercase().any(|lower| wanted.next() != Some(lower)) {
            return None;
        }
        is_ascii &= character.is_ascii();
        length += character.len_utf8();
    }
    (!is_ascii).then_some(length)
}

fn first_character(text: &[u8]) -> Option<char> {
    let begin = &text[..text.len().min(char::MAX.len_utf8())];
    begin.utf8_chunks().next()?.valid().chars().next()
}

/// The length of the namespace's prefix where `mangled` begins as Sling writes `name`, which has one.
fn namespace(mangled: &[u8], name: &[u8]) -> Option<usize> {
    let rest = mangled.strip_prefix(b"_")?;
    let longest = name.len().min(rest.len());
    let length = memchr(b'_', &rest[..longest]).filter(|length| *length > 0)?;
    (name[length] == b':' && rest[..length].eq_ignore_ascii_case(&name[..length])).then_some(length)
}

/// A path with its names as the repository takes them: without the index behind a name, or the empty namespace before it; `None`
/// where there is neither. To Apache Jackrabbit Oak, `/etc[1]` and `/{}etc` are `/etc` (JCR 2.0, sections 3.2.5 and 3.4.3).
pub(super) fn in_repository(path: &[u8]) -> Option<Vec<u8>> {
    // Most have neither.
    memchr2(b'[', b'{', steps::over(path))?;
    let mut taken = Vec::with_capacity(path.len());
    for (number, name) in path.split(|byte| *byte == b'/').enumerate() {
        if number > 0 {
            taken.push(b'/');
        }
        let mut rest = name.strip_prefix(b"{}").unwrap_or(name);
        while let Some(begin) = memchr(b'[', rest)
            && let Some(length) = memchr(b']', &rest[begin..])
        {
            taken.extend_from_slice(&rest[..begin]);
            rest = &rest[begin + length + 1..];
        }
        taken.extend_from_slice(rest);
    }
    steps::over(path);
    (taken.len() < path.len()).then_some(taken)
}

/// Whether a name has its whole namespace before it, as in `/{http://www.jcp.org/jcr/1.0}content`, which is `/jcr:content`:
/// which prefix that is, the repository knows.
pub(super) fn spells_namespace(path: &[u8]) -> bool {
    let mut ends = Ahead::of(b'}');
    let mut colons = Ahead::of(b':');
    for brace in memchr_iter(b'{', steps::over(path)) {
        if brace == 0 || path[brace - 1] != b'/' {
            continue;
        }
        let begin = brace + 1;
        let Some(end) = ends.from(path, begin) else { return false };
        if colons.from(path, begin).is_some_and(|colon| colon < end) || &path[begin..end] == b"internal" {
            return true;
        }
    }
    false
}

/// Where a byte stands next, asked for places that follow each other: each part of the text is searched once.
struct Ahead {
    byte: u8,
    /// Nothing is known yet, or there is none behind the last place, or it stands here.
    found: Option<Option<usize>>,
}

impl Ahead {
    fn of(byte: u8) -> Self {
        Self { byte, found: None }
    }

    /// The first place of the byte at `begin` or behind it.
    fn from(&mut self, text: &[u8], begin: usize) -> Option<usize> {
        match self.found {
            Some(None) => None,
            Some(Some(at)) if at >= begin => Some(at),
            _ => {
                let length = memchr(self.byte, &text[begin..]);
                steps::add(length.unwrap_or(text.len() - begin));
                self.found = Some(length.map(|length| begin + length));
                self.found.flatten()
            }
        }
    }
}

/// Whether Sling answers with what is below, too: `.infinity.json`, `.3.json`, and all XML. A name may end before a
/// space, `#`, `?` or `;`, which came encoded: `.infinity.json%20`.
pub(super) fn dumps(segment: &[u8]) -> bool {
    let mut parts = steps::over(segment).split(|byte| *byte == b'.').skip(1).peekable();
    let mut is_deep_so_far = false;
    while let Some(part) = parts.next() {
        let part = part.trim_ascii_start();
        let word = &part[..part.iter().position(|byte| ends_name(*byte)).unwrap_or(part.len())];
        let may_be_last = word.len() < part.len() || parts.peek().is_none();
        if may_be_last
            && (word.eq_ignore_ascii_case(b"xml") || is_deep_so_far && word.eq_ignore_ascii_case(b"json"))
        {
            return true;
        }
        is_deep_so_far |= is_deep(word);
    }
    false
}

/// The same of what nobody can read: whether its words say so.
pub(super) fn may_dump(text: &[u8]) -> bool {
    let without: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_control()).collect();
    [text, &without].into_iter().flat_map(|text| text.split(|byte| b"/\\".contains(byte))).any(|segment| {
        let has = |is: fn(&[u8]) -> bool| words(segment).any(is);
        has(|word| word.eq_ignore_ascii_case(b"xml"))
            || has(|word| word.eq_ignore_ascii_case(b"json")) && has(is_deep)
    })
}

fn is_deep(selector: &[u8]) -> bool {
    let number = selector.strip_prefix(b"-").unwrap_or(selector);
    let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    is_number || DEEP.iter().any(|deep| selector.eq_ignore_ascii_case(deep))
}

const DEEP: [&[u8]; 3] = [b"infinity", b"sysview", b"docview"];

/// What is left when everything is cut that can stand between names or behind one.
pub(super) fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    steps::over(text).split(|byte| ENDS_WORD[usize::from(*byte)]).filter(|word| !word.is_empty())
}

/// The bytes of which no word is made.
static ENDS_WORD: [bool; 256] = {
    let mut ends = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        ends[byte] = matches!(
            byte as u8,
            0..0x20
                | 0x7f
                | b'/'
                | b'\\'
                | b' '
                | b'.'
                | b';'
                | b','
                | b'?'
                | b'#'
                | b'\''
                | b'"'
                | b'='
                | b'&'
                | b'%'
                | b'['
                | b']'
                | b'{'
                | b'}'
        );
        byte += 1;
    }
    ends
};

/// Whether a name ends here: what follows are selectors, parameters, or what somebody may take for a query.
pub(super) fn ends_name(byte: u8) -> bool {
    b".;?# ".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::{super::sequences::Sequences, *};

    fn in_order(pattern: &[u8], text: &[u8]) -> bool {
        Sequences::new([pattern]).find(text).holds(0)
    }

    #[test]
    fn a_name_is_known_by_its_letters() {
        for (segment, name, is) in [
            ("console", "console", true),
            ("CONSOLE.html", "console", true),
            ("console;x=1", "console", true),
            ("console ", "console", true),
            ("consoles", "console", false),
            ("console-x", "console", false),
            ("service.jsp", "service.jsp", true),
            ("service.jsp.html", "service.jsp", true),
            ("service", "service.jsp", false),
            ("_jcr_content.json", "jcr:content", true),
            ("_JCR_content", "jcr:content", true),
            ("jcr:content", "_jcr_content", true),
            ("__content", ":content", false),
            ("B\u{dc}RO.json", "b\u{fc}ro", true),
        ] {
            assert_eq!(begins_with_name(segment.as_bytes(), name.as_bytes()), is, "{segment} {name}");
        }
    }

    #[test]
    fn the_repository_knows_a_name_with_its_index_and_in_no_namespace() {
        for (path, taken) in [
            ("/etc[1]/packages", Some("/etc/packages")),
            ("/a/etc[01].json/x[+1]", Some("/a/etc.json/x")),
            ("/{}etc/{}{}x", Some("/etc/{}x")),
            ("/a[1][2]b", Some("/ab")),
            ("/etc[1", None),
            ("/a{}b/{x}", None),
            ("/etc", None),
        ] {
            assert_eq!(in_repository(path.as_bytes()).as_deref(), taken.map(str::as_bytes), "{path}");
        }
        for (path, is) in [
            ("/a/{http://www.jcp.org/jcr/1.0}content", true),
            ("/{internal}policy", true),
            ("/{}etc/{a:b}c", true),
            ("/{lang}/x:y", false),
            ("/a{b:c}", false),
            ("/{", false),
        ] {
            assert_eq!(spells_namespace(path.as_bytes()), is, "{path}");
        }
    }

    #[test]
    fn a_dump_shows_what_is_below() {
        for (segment, is) in [
            ("etc.infinity.json", true),
            ("etc.tidy.-1.JSON", true),
            (".5.json", true),
            ("etc.xml", true),
            ("etc.infinity.json ", true),
            ("etc.infinity.json#x.html", true),
            ("etc.infinity.json?x", true),
            ("etc.infinity .json", true),
            ("etc. infinity. json", true),
            ("etc.xml#", true),
            ("etc.json", false),
            ("infinity.json", false),
            ("etc.json.infinity", false),
            ("etc.infinity.html", false),
        ] {
            assert_eq!(dumps(segment.as_bytes()), is, "{segment}");
            assert!(!is || may_dump(segment.as_bytes()), "{segment}");
        }
        assert!(may_dump(b"/a/\0.inf\x01inity;x=.json"));
        assert!(!may_dump(b"/infinity/a.json"));
    }

    #[test]
    fn words_stand_in_their_order_whatever_is_between() {
        for (text, is) in [
            ("/system/console", true),
            ("/x/../system\\;a='/'/./Console.html", true),
            ("/sys\0tem/con%sole", true),
            ("/system\0/console\u{1}", true),
            ("/console/system", false),
            ("/systems/console", false),
        ] {
            assert_eq!(in_order(b"/system/console", text.as_bytes()), is, "{text}");
        }
        assert!(in_order(b"/", b"/anything"));
    }
}
