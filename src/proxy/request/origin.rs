//! A URL on its way to AEM that names us.

use super::super::buffer::Buffer;

/// Writes `value`; where it is an absolute URL whose origin `is_local`, with `upstream` in place of that.
pub(super) fn to_upstream(value: &[u8], upstream: &[u8], is_local: impl Fn(&[u8]) -> bool, out: &mut Buffer) {
    let origin = origin(value).unwrap_or_default();
    if !origin.is_empty() && is_local(origin) {
        out.push(upstream);
        out.push(&value[origin.len()..]);
    } else {
        out.push(value);
    }
}

/// Scheme and authority of an absolute URL.
fn origin(value: &[u8]) -> Option<&[u8]> {
    let authority = value.windows(3).position(|part| part == b"://")? + 3;
    let end = value[authority..].iter().position(|byte| b"/?#".contains(byte));
    Some(&value[..end.map_or(value.len(), |end| authority + end)])
}
