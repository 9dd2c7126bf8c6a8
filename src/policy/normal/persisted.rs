//! Persisted queries whose values can be read in more than one way, such as `C:\temp`, `100%` or a
//! line end.
//!
//! The query decides what a value means, as long as it stays a value. So two things are checked: the
//! path before the values is plain, and no server can take the path for one outside the place of
//! persisted queries. Only `..` leads out of it, and each `..` needs a slash of its own, with nothing
//! behind it but dots and what a server may remove. These slashes are counted in the text in which
//! everything is decoded that any server decodes. A server that decodes less, or removes something,
//! sees fewer of them.

use std::iter;

use memchr::memchr2;

use super::{Readings, cut, is_plain, resolve, segments, sling_parameters, without_parameters};
use crate::{
    policy::{
        decode::{self, Settled},
        presets::PERSISTED,
    },
    steps,
};

/// What `path` may be taken for: first the query alone, then the others. `None` if it is not a
/// persisted query with values as `encodeURIComponent` writes them, or if one of the readings is not
/// below the first name behind [`PERSISTED`].
pub(super) fn readings(path: &[u8], settled: &Settled) -> Option<Readings> {
    path.strip_prefix(PERSISTED.as_bytes())?.strip_prefix(b"/")?;
    let (query, values) = path.split_at(memchr2(b';', b'%', path)?);
    let begins = values.starts_with(b";") || values.get(..3)?.eq_ignore_ascii_case(b"%3b");
    if !begins || !is_plain(query) || query.ends_with(b"/") || !steps::over(values).iter().all(is_written) {
        return None;
    }
    let once = decode::once(path)?;
    str::from_utf8(&once).ok()?;
    let names = segments(query).count() - segments(PERSISTED.as_bytes()).count();
    // Two dots make a `..`, wherever they stand: what is between them may be removed.
    let dots = settled.forms().flat_map(|form| form.iter().skip(query.len())).filter(|byte| **byte == b'.');
    if dots.count() > 1 && !stays_below(names, values)? {
        return None;
    }
    let mut readings = Readings { exact: Vec::new(), folded: Vec::new() };
    // The first one decides about the route.
    for reading in [cut(&once), &without_parameters(&once), &sling_parameters(&once), &once] {
        resolve(reading, &mut readings.exact)?;
    }
    for form in settled.forms() {
        let mut form = form.to_vec();
        form.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
        for reading in [&without_parameters(&form), &sling_parameters(&form), &form] {
            resolve(reading, &mut readings.folded)?;
        }
    }
    // Names as the repository takes them are in the words, by which rules deny.
    Some(readings)
}

/// A byte that `encodeURIComponent` writes, or that stands between values (ECMA-262, section 19.2.6.4).
fn is_written(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()%;=".contains(byte)
}

/// Whether no `..` in `values` leads above the first of the `names` that stand before them. The
/// values belong to the last of these names. `None` if decoding does not end.
///
/// A name within a value is one more to climb out of only if every server sees it: its slash is
/// encoded once, it begins with a letter or a digit, and no parameter before it may include it.
fn stays_below(names: usize, values: &[u8]) -> Option<bool> {
    let mut depth = names;
    let (mut is_open, mut is_quoted) = (false, false);
    for (number, part) in slash_separated(values).enumerate() {
        let settled = Settled::of(part)?;
        let begins_with_name = decode::once(part)?.first().is_some_and(u8::is_ascii_alphanumeric);
        depth += usize::from(number > 0 && begins_with_name && !is_open && !is_quoted);
        let climbs = settled.forms().map(|form| climbs_at_most(form, number > 0)).sum();
        depth = match depth.checked_sub(climbs) {
            None | Some(0) => return Some(false),
            Some(depth) => depth,
        };
        // For Sling a parameter may end at a dot only, and a quoted one at the next quote.
        is_open = part.iter().rfind(|byte| b";.".contains(byte)).map_or(is_open, |byte| *byte == b';');
        is_quoted |= settled.forms().any(|form| form.contains(&b'\''));
    }
    Some(true)
}

/// What stands between encoded slashes.
fn slash_separated(values: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(steps::over(values));
    iter::from_fn(move || {
        let part = rest?;
        let Some(end) = part.windows(3).position(|three| three.eq_ignore_ascii_case(b"%2f")) else {
            return rest.take();
        };
        rest = Some(&part[end + 3..]);
        Some(&part[..end])
    })
}

/// The most `..` that a server may find behind the slashes of a decoded text. A slash may stand
/// before the text, too.
fn climbs_at_most(form: &[u8], is_behind_slash: bool) -> usize {
    let names = steps::over(form).split(|byte| b"/\\".contains(byte)).skip(usize::from(!is_behind_slash));
    names.filter(|name| may_climb(name)).count()
}

/// Whether a name, or the beginning of one, becomes `..` for a server that ends it early, or that removes parameters, indexes
/// and namespaces (with whatever is in them, slashes too), blanks, control characters, or all that is
/// not ASCII.
fn may_climb(name: &[u8]) -> bool {
    let mut dots = 0;
    for byte in name {
        match byte {
            b'.' if dots < 2 => dots += 1,
            b';' | b'[' | b'{' => return true,
            b'#' | b'?' => return dots == 2,
            b'+' | b'%' | ..=b' ' | 0x7f.. if dots == 2 => return true,
            b'+' | b'%' | ..=b' ' | 0x7f.. => {}
            _ => return false,
        }
    }
    dots == 2
}

#[cfg(test)]
mod tests;
