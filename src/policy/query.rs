//! Parameters of a query that change what a request does, or who it is from.
//!
//! Sources: Apache Sling, `SlingPostConstants` (`:operation`, `:http-equiv-accept`), `ParameterSupport` (`_charset_`),
//! `SlingAuthenticator` (`sudo`).

use std::borrow::Cow;

use memchr::memchr_iter;

use super::decode;
use crate::steps;

/// What a query's parameters ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asks {
    /// A method or an operation in place of the request's own: Sling's `:operation`, `:http-equiv-...`, and `_method`, which
    /// some applications read. In another character set than UTF-8 (`_charset_`) Sling may read anything.
    pub operation: bool,
    /// Another user in place of the credential's: Sling's `sudo`.
    pub user: bool,
}

impl Asks {
    /// Reads the parameters of `query`, however they are spelled.
    pub fn of(query: &[u8]) -> Self {
        let mut asks = Self::default();
        if query.is_empty() {
            return asks;
        }
        for pair in steps::over(query).split(|byte| b"&;".contains(byte)) {
            let (name, value) =
                pair.split_at(pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len()));
            let Some(text) = text_of(name) else { return Self { operation: true, user: true } };
            // What is undone in several ways stands there one way behind the other.
            for name in text.split(|byte| *byte == b'/') {
                let name = visible(name);
                asks.operation |= names_operation(name, value);
                asks.user |= SUDO.iter().any(|own| name.eq_ignore_ascii_case(own));
            }
        }
        asks
    }
}

/// A name with all undone that anybody may undo; `None` where that has no end.
fn text_of(name: &[u8]) -> Option<Cow<'_, [u8]>> {
    let is_plain = |byte: &u8| byte.is_ascii() && *byte != b'%';
    if steps::over(name).iter().all(is_plain) {
        return Some(Cow::Borrowed(name));
    }
    decode::lenient(name).map(Cow::Owned)
}

/// A name without what some reader may not see at its ends: spaces, control characters, characters that are not ASCII.
fn visible(name: &[u8]) -> &[u8] {
    let is_seen = |byte: &u8| byte.is_ascii_graphic() && *byte != b'+';
    let begin = steps::over(name).iter().position(is_seen).unwrap_or(name.len());
    let end = name.iter().rposition(is_seen).map_or(begin, |last| last + 1);
    &name[begin..end]
}

fn names_operation(name: &[u8], value: &[u8]) -> bool {
    let begins =
        |text: &[u8], own: &[u8]| text.get(..own.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(own));
    let operates = |at: usize| OPERATIONS.iter().any(|own| begins(&name[at..], own));
    memchr_iter(b':', name).any(operates)
        || name.eq_ignore_ascii_case(b"_method")
        || name.eq_ignore_ascii_case(b"_charset_") && !decode::loosely(value).eq_ignore_ascii_case(b"=utf-8")
}

const OPERATIONS: [&[u8]; 3] = [b":operation", b":http-equiv", b":method"];

const SUDO: [&[u8]; 2] = [b"sudo", b"sling.sudo"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_found_however_it_is_spelled() {
        for (query, names) in [
            (":operation=delete", true),
            ("a=b&%3AOperation=delete", true),
            ("a=b;:operation", true),
            ("%253aoperation=delete", true),
            (":http-equiv-accept=json", true),
            ("_method=DELETE", true),
            ("%u003aoperation=delete", true),
            ("%3:operation=delete", true),
            ("_charset_=UTF-16BE&%00:%00o=x", true),
            ("+:operation=delete", true),
            ("%0a:operation%09=delete", true),
            ("\u{ff1a}operation=delete", true),
            ("%EF%BC%9Aoperation=delete", true),
            ("\u{3000}:operation=delete", true),
            ("\u{ff41}:operation=delete", true),
            ("%E3%80%80:operation=delete", true),
            (":\u{ff4f}peration=delete", true),
            (":oper\u{200b}ation=delete", true),
            ("\u{feff}_method=x", true),
            ("\u{ff3f}method=x", true),
            ("%c0%ba:operation=delete", true),
            ("\u{fc}_method=x", true),
            ("_charset_=utf-8&a=b", false),
            ("_charset_=UTF%2D8", false),
            ("operation=delete", false),
            ("q=:operation", false),
            ("my_method=x", false),
            ("stra\u{df}e=\u{ff1a}operation", false),
            ("", false),
        ] {
            assert_eq!(Asks::of(query.as_bytes()).operation, names, "{query}");
        }
    }

    #[test]
    fn another_user_is_found_however_it_is_spelled() {
        for (query, is) in [
            ("sudo=admin", true),
            ("a=b&SUDO=admin", true),
            ("sling.sudo=admin", true),
            ("sling%2Esudo=-", true),
            ("%73udo=admin", true),
            ("\u{ff53}udo=admin", true),
            ("\u{17f}udo", true),
            ("%20sudo+=admin", true),
            ("x=sudo", false),
            ("sudoku=1", false),
            ("my.sudo=1", false),
        ] {
            assert_eq!(Asks::of(query.as_bytes()).user, is, "{query}");
        }
    }
}
