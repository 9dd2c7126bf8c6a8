//! What a path says, however it is spelled.
//!
//! Sources: Jetty's `URIUtil` (parameters go segment by segment, then escapes), Apache Sling's `ResourceUtil.normalize` (`.`, `..`, `//`)
//! and `ParsedParameters` (`;v='1.0'` may stand before an extension), Apache Jackrabbit Oak's `NamePathMapperImpl` (`[1]`, `{}`); RFC
//! 3986, sections 3.3 and 5.2.4.

use memchr::memchr;

use super::{
    decode::{self, Settled},
    words,
};
use crate::steps;

mod persisted;

/// The path of a request, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path<'p> {
    /// Spelled as it is meant.
    Plain(&'p [u8]),
    /// Spelled otherwise, and no doubt of what is meant.
    Read(Readings),
    /// It can be read in several ways, or in none.
    Ambiguous {
        /// As it came.
        raw: &'p [u8],
        /// Everything undone that somebody may undo; `None` where that has no end.
        words: Option<Vec<u8>>,
        /// What a persisted query with its values may be taken for, if no reading leaves the place of
        /// these queries.
        persisted: Option<Box<Readings>>,
    },
}

/// What a path that is not [`Path::Plain`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readings {
    /// The normal form, then what a part of AEM may read instead: all of these are harmless, or the path is not.
    exact: Vec<Vec<u8>>,
    /// The same with ASCII in place of what looks like it.
    folded: Vec<Vec<u8>>,
}

/// One way to read a path: decoded, without parameters, `.`, `..` and `//`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading<'r> {
    /// The path.
    pub path: &'r [u8],
    /// Whether lookalikes were taken for what they look like.
    pub folded: bool,
}

impl<'p> Path<'p> {
    /// Reads a target's path; the query behind it, if there is one, is no part of it. Takes one look and no memory where all
    /// is spelled as it is meant.
    pub fn of(target: &'p [u8]) -> Self {
        let path = without_query(target);
        if is_plain(path) {
            return Self::Plain(path);
        }
        match Readings::of(path) {
            Some(readings) => Self::Read(readings),
            None => {
                let settled = Settled::of(path);
                let persisted =
                    settled.as_ref().and_then(|settled| persisted::readings(path, settled)).map(Box::new);
                Self::ambiguous(path, settled, persisted)
            }
        }
    }

    /// What may be a path or not: no more is known of it than its words.
    pub fn in_doubt(text: &'p [u8]) -> Self {
        Self::ambiguous(text, Settled::of(text), None)
    }

    fn ambiguous(text: &'p [u8], settled: Option<Settled>, persisted: Option<Box<Readings>>) -> Self {
        let mut words = settled.map(Settled::joined).filter(|words| !words::spells_namespace(words));
        if let Some(words) = &mut words
            && let Some(taken) = words::in_repository(words)
        {
            words.push(b'/');
            words.extend(taken);
        }
        Self::Ambiguous { raw: text, words, persisted }
    }

    /// The normal form: what AEM takes the path for. `None` where nobody can tell.
    pub fn normal_form(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(path) => Some(path),
            Self::Read(readings) => readings.exact.first().map(Vec::as_slice),
            Self::Ambiguous { .. } => None,
        }
    }

    /// Everything that it may be taken for, the normal form first; nothing where nobody can tell.
    pub fn readings(&self) -> impl Iterator<Item = Reading<'_>> {
        let (plain, read) = match self {
            Self::Plain(path) => (Some(*path), None),
            Self::Read(readings) => (None, Some(readings)),
            Self::Ambiguous { .. } => (None, None),
        };
        let reading = |folded| move |path| Reading { path, folded };
        let exact = read.into_iter().flat_map(|read| &read.exact).map(Vec::as_slice);
        let folded = read.into_iter().flat_map(|read| &read.folded).map(Vec::as_slice);
        plain.into_iter().chain(exact).map(reading(false)).chain(folded.map(reading(true)))
    }
}

/// The path of a target, as it came.
pub fn without_query(target: &[u8]) -> &[u8] {
    &target[..memchr(b'?', target).unwrap_or(target.len())]
}

/// The names of a path, from the root on.
pub(super) fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    steps::over(path).split(|byte| *byte == b'/').filter(|segment| !segment.is_empty())
}

impl Readings {
    /// Of a persisted query that can be read in more than one way: the query without its values.
    pub fn query(&self) -> &[u8] {
        self.exact.first().map(Vec::as_slice).unwrap_or_default()
    }

    /// Each of them, the normal form first.
    pub(super) fn each(&self) -> impl Iterator<Item = Reading<'_>> {
        let exact = self.exact.iter().map(|path| Reading { path, folded: false });
        exact.chain(self.folded.iter().map(|path| Reading { path, folded: true }))
    }

    /// What `path` says, if that is one thing.
    fn of(path: &[u8]) -> Option<Self> {
        let once = decode::once(path)?;
        let text = str::from_utf8(&once).ok()?;
        if is_in_doubt(path, &once) {
            return None;
        }
        let mut readings = Self { exact: Vec::new(), folded: Vec::new() };
        resolve(&without_parameters(&once), &mut readings.exact)?;
        if once.contains(&b';') {
            // Jetty takes the parameters away before it decodes, Sling knows them with quotes and before an extension, and
            // others say that they end the path.
            let decoded = |segment: &[u8]| decode::once(segment).unwrap_or_default();
            let others = [
                by_segments(path, |segment, out| out.extend_from_slice(cut(&decoded(segment)))),
                sling_parameters(&once),
                cut(&once).to_vec(),
                by_segments(path, |segment, out| out.extend(decoded(cut(segment)))),
            ];
            for other in others {
                resolve(&other, &mut readings.exact)?;
            }
        }
        if let Some(folded) = decode::folded(text) {
            let mut folded = decode::all(&folded);
            folded.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
            resolve(&without_parameters(&folded), &mut readings.folded)?;
            resolve(cut(&folded), &mut readings.folded)?;
        }
        for list in [&mut readings.exact, &mut readings.folded] {
            *list = as_named(list)?;
        }
        Some(readings)
    }
}

/// Each reading as the repository names it, and as it is: servlets have names of their own.
fn as_named(list: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let mut named = Vec::with_capacity(list.len());
    for reading in list {
        if let Some(taken) = words::in_repository(reading) {
            resolve(&taken, &mut named)?;
        }
        resolve(reading, &mut named)?;
    }
    Some(named)
}

/// Whether nothing in `path` is to be undone: one pass, without a branch for a byte.
fn is_plain(path: &[u8]) -> bool {
    let (mut odd, mut before) = (0, 0);
    for byte in steps::over(path) {
        let class = CLASSES[usize::from(*byte)];
        odd |= class & ODD | before & class;
        before = class >> 1 & AFTER_SLASH;
    }
    path.first() == Some(&b'/') && odd == 0
}

/// Whether AEM, or somebody before it, may read `path` otherwise than as `once`, which is `path` decoded once.
fn is_in_doubt(path: &[u8], once: &[u8]) -> bool {
    let is_odd = |byte: &u8| decode::is_control(*byte) || *byte == b'\\';
    !path.starts_with(b"/")
        || path.iter().any(|byte| b" #".contains(byte))
        || once.iter().any(is_odd)
        || decode::has_escape(once)
        || hides_slash(path)
        || quotes_slash(once)
        || climbs_in_doubt(path, once)
        || words::spells_namespace(once)
        || nests_names(&without_parameters(once))
}

/// Whether there is half an index, or an index or namespace without which there is another one, or an escape: what is left then
/// depends on who takes it away.
fn nests_names(path: &[u8]) -> bool {
    let Some(taken) = words::in_repository(path) else { return memchr(b'[', path).is_some() };
    taken.iter().any(|byte| b"[]".contains(byte))
        || words::in_repository(&taken).is_some()
        || words::spells_namespace(&taken)
        || decode::has_escape(&taken)
}

/// Whether a `/` is encoded, but for those in a parameter of the same segment: GraphQL's variables have paths in them.
fn hides_slash(path: &[u8]) -> bool {
    steps::over(path).split(|byte| *byte == b'/').any(|segment| {
        let encoded = |code: &[u8]| segment.windows(3).position(|three| three.eq_ignore_ascii_case(code));
        let parameters = memchr(b';', segment).into_iter().chain(encoded(b"%3b")).min();
        encoded(b"%2f").is_some_and(|slash| parameters.is_none_or(|begin| slash < begin))
    })
}

/// Whether a parameter's value in quotes holds a `/`, or may: to Sling it is a part of the value, to Jetty the end of it.
fn quotes_slash(once: &[u8]) -> bool {
    if memchr(b';', steps::over(once)).is_none() {
        return false;
    }
    let mut rest = once;
    while let Some(at) = rest.windows(2).position(|two| two == b"='") {
        steps::add(at + 2);
        rest = &rest[at + 2..];
        let value = &rest[..memchr(b'\'', rest).unwrap_or(rest.len())];
        // What is looked for next stands behind the value, or ends it: no byte is looked at often.
        if memchr(b'/', steps::over(value)).is_some() {
            return true;
        }
    }
    false
}

/// Whether there are `.` or `..` of which it is not plain where they lead: in escapes, with an index, beside parameters, which some
/// take for a part of the name, beside `//`, of which some climb out first, above the root, or more than anybody writes.
fn climbs_in_doubt(path: &[u8], once: &[u8]) -> bool {
    let mut depth = 0;
    let (mut dots, mut climbs) = (0, 0);
    let mut has_empty = once.windows(2).any(|two| two == b"//");
    for segment in segments(once) {
        let name = cut(segment);
        match words::in_repository(name).as_deref().unwrap_or(name).trim_ascii() {
            b"" => has_empty = true,
            b"." => dots += 1,
            b".." if depth == 0 || climbs == CLIMBS_MAX => return true,
            b".." => {
                (dots, climbs) = (dots + 1, climbs + 1);
                depth -= 1;
            }
            _ => depth += 1,
        }
    }
    let literal = segments(path).filter(|segment| matches!(*segment, b"." | b"..")).count();
    literal != dots || dots > 0 && (once.contains(&b';') || has_empty)
}

/// Takes `.`, `..` and `//` out of a decoded path, and adds it to `readings`. So does each place that it climbs out of, since
/// not everybody climbs.
fn resolve(path: &[u8], readings: &mut Vec<Vec<u8>>) -> Option<()> {
    let mut stack: Vec<&[u8]> = Vec::new();
    let mut places = Vec::new();
    let mut ends_in_slash = true;
    for segment in steps::over(path).split(|byte| *byte == b'/') {
        ends_in_slash = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => {
                places.push(joined(&stack, false));
                stack.pop();
            }
            name => stack.push(name),
        }
        if places.len() > CLIMBS_MAX {
            return None;
        }
    }
    for reading in [joined(&stack, ends_in_slash)].into_iter().chain(places) {
        steps::over(&reading);
        steps::add(readings.iter().filter(|other| other.len() == reading.len()).map(Vec::len).sum());
        if !readings.contains(&reading) {
            readings.push(reading);
        }
    }
    Some(())
}

fn joined(segments: &[&[u8]], ends_in_slash: bool) -> Vec<u8> {
    let mut path = Vec::new();
    for segment in segments {
        path.push(b'/');
        path.extend_from_slice(segment);
    }
    if ends_in_slash || path.is_empty() {
        path.push(b'/');
    }
    path
}

/// Without parameters, which begin with `;` and end with their segment.
fn without_parameters(once: &[u8]) -> Vec<u8> {
    by_segments(once, |segment, out| out.extend_from_slice(cut(segment)))
}

/// What `each` adds for every segment, with the slashes between them.
fn by_segments(path: &[u8], each: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for (number, segment) in steps::over(path).split(|byte| *byte == b'/').enumerate() {
        if number > 0 {
            out.push(b'/');
        }
        each(segment, &mut out);
    }
    out
}

/// Without parameters that end where an extension begins, or another segment. Quoted values may have dots in them.
fn sling_parameters(once: &[u8]) -> Vec<u8> {
    let mut path = Vec::new();
    let (mut within, mut quoted, mut before) = (false, false, 0);
    for &byte in steps::over(once) {
        match byte {
            b'\'' if quoted => quoted = false,
            b'\'' if within && before == b'=' => quoted = true,
            b';' => within = true,
            b'.' | b'/' if !quoted => within = false,
            _ => {}
        }
        if !within {
            path.push(byte);
        }
        before = byte;
    }
    path
}

/// What stands before the first `;`.
fn cut(text: &[u8]) -> &[u8] {
    &text[..memchr(b';', text).unwrap_or(text.len())]
}

/// More `..` than this stand in no path that somebody means.
const CLIMBS_MAX: usize = 8;

/// Bytes that may have to be undone.
const ODD: u8 = 1;
/// Bytes that are odd behind a `/`.
const AFTER_SLASH: u8 = 2;
const SLASH: u8 = 4;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'%' | b';' | b'[' | b'\\' | b'#' | 0..=b' ' | 0x7f.. => ODD,
            b'/' => SLASH | AFTER_SLASH,
            b'.' | b'{' => AFTER_SLASH,
            _ => 0,
        };
        byte += 1;
    }
    classes
}

#[cfg(test)]
mod tests;
