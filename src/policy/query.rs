//! Operations that a query names in place of the method.

use super::decode;

/// Whether a query names a method or an operation of its own: Sling's `:operation`, `:http-equiv-...` and `_method`, which some
/// applications read.
pub fn names_operation(query: &[u8]) -> bool {
    let pairs = query.split(|byte| b"&;".contains(byte));
    let mut names = pairs.map(|pair| pair.split(|byte| *byte == b'=').next().unwrap_or_default());
    names.any(|name| {
        let name = decode::all(name).to_ascii_lowercase();
        let name = name.trim_ascii();
        OPERATIONS.iter().any(|own| name.starts_with(own)) || name == b"_method"
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
            ("operation=delete", false),
            ("q=:operation", false),
            ("my_method=x", false),
            ("", false),
        ] {
            assert_eq!(names_operation(query.as_bytes()), names, "{query}");
        }
    }
}
