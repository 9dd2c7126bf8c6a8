//! The first names of a path, with what rules and presets want to know of each: found once for all of them.

use std::cell::Cell;

use memchr::memchr;

use super::{closed, methods::is_read, normal::Reading, words};
use crate::steps;

/// A reading of a path, and its first names.
#[derive(Debug, Clone)]
pub(super) struct Outline<'r> {
    pub(super) reading: Reading<'r>,
    names: [Name<'r>; INLINE],
    count: usize,
    /// Those behind [`INLINE`], where a rule asks for as many.
    more: Vec<Name<'r>>,
    /// Whether the path is closed for a method that reads, and for one that does not, once that was asked.
    closed: [Cell<Option<bool>>; 2],
}

/// One name of a path.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Name<'r> {
    pub(super) text: &'r [u8],
    /// Without the space around it.
    pub(super) trimmed: &'r [u8],
    /// Whether Sling answers with what is below, too.
    pub(super) dumps: bool,
}

impl<'r> Outline<'r> {
    /// The first `depth` names of a reading, or all where it has fewer.
    pub(super) fn of(reading: Reading<'r>, depth: usize) -> Self {
        let mut outline = Self {
            reading,
            names: [Name::default(); INLINE],
            count: 0,
            more: Vec::new(),
            closed: Default::default(),
        };
        let mut rest = reading.path;
        while outline.count < depth {
            let end = memchr(b'/', rest).unwrap_or(rest.len());
            if end > 0 {
                outline.push(&rest[..end]);
            }
            match rest.get(end + 1..) {
                Some(behind) => rest = behind,
                None => break,
            }
        }
        outline
    }

    fn push(&mut self, text: &'r [u8]) {
        steps::over(text);
        let name = Name { text, trimmed: text.trim_ascii(), dumps: words::dumps(text) };
        match self.names.get_mut(self.count) {
            Some(place) => *place = name,
            None => self.more.push(name),
        }
        self.count += 1;
    }

    /// The name at `at`, from the root on; `None` behind the last one.
    pub(super) fn name(&self, at: usize) -> Option<&Name<'r>> {
        let name = self.names.get(at).or_else(|| self.more.get(at - INLINE));
        name.filter(|_| at < self.count)
    }

    /// Whether the path is closed by default.
    pub(super) fn is_closed(&self, method: &str) -> bool {
        let known = &self.closed[usize::from(is_read(method))];
        let is_closed = known.get().unwrap_or_else(|| closed::covers(method, self.reading.path));
        known.set(Some(is_closed));
        is_closed
    }
}

/// Few rules go deeper.
const INLINE: usize = 8;
