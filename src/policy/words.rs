//! Names in paths: which are the same to AEM, or to somebody before it.

use memchr::memchr;

/// Whether a segment is the one called `name`, in whatever case, and with whatever stands behind a name: selectors, an
/// extension, parameters.
pub(super) fn begins_with_name(segment: &[u8], name: &[u8]) -> bool {
    let segment = segment.trim_ascii();
    let mut ends = segment.iter().enumerate().filter(|(_, byte)| ends_name(**byte)).map(|(at, _)| at);
    same(segment, name) || ends.any(|end| same(&segment[..end], name))
}

/// Whether two names are the same but for their case. Sling writes `jcr:content` as `_jcr_content`, too.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.eq_ignore_ascii_case(b) || same_letters(a, b) || is_mangled(a, b) || is_mangled(b, a)
}

/// The same for letters that are not ASCII.
fn same_letters(a: &[u8], b: &[u8]) -> bool {
    if a.is_ascii() || b.is_ascii() {
        return false;
    }
    let (Ok(a), Ok(b)) = (str::from_utf8(a), str::from_utf8(b)) else { return false };
    a.chars().flat_map(char::to_lowercase).eq(b.chars().flat_map(char::to_lowercase))
}

/// Whether `mangled` is Sling's way of writing `name`, which has a namespace.
fn is_mangled(mangled: &[u8], name: &[u8]) -> bool {
    let Some(rest) = mangled.strip_prefix(b"_") else { return false };
    let Some(at) = rest.iter().position(|byte| *byte == b'_').filter(|at| *at > 0) else { return false };
    name.get(at) == Some(&b':')
        && rest[..at].eq_ignore_ascii_case(&name[..at])
        && same(&rest[at + 1..], &name[at + 1..])
}

/// A path with its names as the repository takes them: without the index behind a name, or the empty namespace before it; `None`
/// where there is neither. To Apache Jackrabbit Oak, `/etc[1]` and `/{}etc` are `/etc` (JCR 2.0, sections 3.2.5 and 3.4.3).
pub(super) fn in_repository(path: &[u8]) -> Option<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').map(|name| {
        let mut name = name.strip_prefix(b"{}").unwrap_or(name).to_vec();
        while let Some(begin) = memchr(b'[', &name)
            && let Some(length) = memchr(b']', &name[begin..])
        {
            name.drain(begin..=begin + length);
        }
        name
    });
    let names: Vec<_> = names.collect();
    Some(names.join(&b'/')).filter(|taken| taken != path)
}

/// Whether a name has its whole namespace before it, as in `/{http://www.jcp.org/jcr/1.0}content`, which is `/jcr:content`:
/// which prefix that is, the repository knows.
pub(super) fn spells_namespace(path: &[u8]) -> bool {
    let mut rest = path;
    while let Some(at) = rest.windows(2).position(|two| two == b"/{") {
        rest = &rest[at + 2..];
        let namespace = &rest[..memchr(b'}', rest).unwrap_or(0)];
        if namespace.contains(&b':') || namespace == b"internal" {
            return true;
        }
    }
    false
}

/// Whether Sling answers with what is below, too: `.infinity.json`, `.3.json`, and all XML.
pub(super) fn dumps(segment: &[u8]) -> bool {
    let mut parts = segment.split(|byte| *byte == b'.');
    let (Some(_), Some(extension)) = (parts.next(), parts.next_back()) else { return false };
    extension.eq_ignore_ascii_case(b"xml") || extension.eq_ignore_ascii_case(b"json") && parts.any(is_deep)
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

/// Whether the words of `pattern` stand in `text` in their order, whatever stands between them. Nobody can say of `text` more
/// than that: what it is made of may be there or not.
pub(super) fn in_order(pattern: &[u8], text: &[u8]) -> bool {
    let stand_in = |text: &[u8]| {
        let mut words = words(text);
        self::words(pattern).all(|own| words.any(|word| same(word, own)))
    };
    let is_odd = |byte: &u8| byte.is_ascii_control() || *byte == b'%';
    stand_in(text)
        || text.iter().any(is_odd) && {
            let without: Vec<u8> = text.iter().copied().filter(|byte| !is_odd(byte)).collect();
            stand_in(&without)
        }
}

/// What is left when everything is cut that can stand between names or behind one.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = |byte: &u8| byte.is_ascii_control() || b"/\\ .;,?#'\"=&%[]{}".contains(byte);
    text.split(ends).filter(|word| !word.is_empty())
}

/// Whether a name ends here: what follows are selectors, parameters, or what somebody may take for a query.
pub(super) fn ends_name(byte: u8) -> bool {
    b".;?# ".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("etc.json", false),
            ("infinity.json", false),
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
