//! Names in paths: which are the same to AEM, or to somebody before it.

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
    let ends = |byte: &u8| byte.is_ascii_control() || b"/\\ .;,?#'\"=&%".contains(byte);
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
