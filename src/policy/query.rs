//! Operations that a query names in place of the method.

use super::decode;
use crate::steps;

/// Whether a query names a method or an operation of its own: Sling's `:operation`, `:http-equiv-...` and `_method`, which some
/// applications read. In another character set than UTF-8 (`_charset_`) Sling may read anything.
pub fn names_operation(query: &[u8]) -> bool {
    steps::over(query).split(|byte| b"&;".contains(byte)).any(|pair| {
        let (name, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len()));
        let name = decode::loosely(name).to_ascii_lowercase();
        let name = name.trim_ascii();
        OPERATIONS.iter().any(|own| name.starts_with(own))
            || name == b"_method"
            || name == b"_charset_" && !decode::loosely(value).eq_ignore_ascii_case(b"=utf-8")
    })
}

const OPERATIONS: [&[u8]; 3] = [b":operation", b":http-equiv", b":method"];

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
            ("_charset_=utf-8&a=b", false),
            ("_charset_=UTF%2D8", false),
            ("operation=delete", false),
            ("q=:operation", false),
            ("my_method=x", false),
            ("", false),
        ] {
            assert_eq!(names_operation(query.as_bytes()), names, "{query}");
        }
    }
}
