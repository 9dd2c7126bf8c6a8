//! The paths that a rule or a preset is for.

use std::{fmt, str::FromStr};

use memchr::memchr;

use super::{
    RuleError, decode,
    methods::is_read,
    normal::{Path, Reading, segments},
    outline::{Name, Outline},
    words,
};
use crate::steps;

/// A resource, or one and all below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// As it was written.
    text: String,
    /// Decoded.
    segments: Vec<Vec<u8>>,
    /// The same with ASCII in place of what looks like it.
    folded: Vec<Vec<u8>>,
    /// Whether it is for what is below, too.
    below: bool,
}

impl Pattern {
    /// `/x` is the resource `/x`, with selectors and an extension or without; `/x/*` is that, and all below.
    pub(super) fn allows(&self, outline: &Outline<'_>) -> bool {
        let own = self.names(outline.reading);
        for (at, name) in own.iter().enumerate() {
            let Some(Name { text, .. }) = outline.name(at) else { return false };
            steps::add(name.len().min(text.len()));
            let Some(behind) = text.strip_prefix(name.as_slice()) else { return false };
            let is_last = || at + 1 == own.len() && outline.name(at + 1).is_none();
            if !(behind.is_empty() || behind.starts_with(b".") && is_last()) {
                return false;
            }
        }
        self.below || outline.name(own.len()).is_none()
    }

    /// The same in whatever case; a name ends at its first dot, whatever stands behind it, a suffix too. A dump of what is above
    /// shows what is below. A slash before the first dot says nothing: `/x/.json` is `/x.json`.
    pub(super) fn denies(&self, outline: &Outline<'_>) -> bool {
        let own = self.names(outline.reading);
        let mut has_suffix = false;
        for (at, name) in own.iter().enumerate() {
            let Some(Name { text, trimmed, dumps }) = outline.name(at) else { return false };
            if *dumps && text.starts_with(b".") {
                return true;
            }
            if !words::begins_with_name(trimmed, name) {
                return false;
            }
            has_suffix = !words::same(text, name);
            if at + 1 < own.len() && *dumps && has_suffix {
                return true;
            }
        }
        self.below || has_suffix || outline.name(own.len()).is_none_or(|name| name.text.starts_with(b"."))
    }

    /// How many names of a path it looks at.
    pub(super) fn depth(&self) -> usize {
        self.segments.len() + 1
    }

    /// What a path that nobody can read may have of it.
    pub(super) fn words(&self) -> Vec<u8> {
        self.folded.join(&b'/')
    }

    fn names(&self, reading: Reading<'_>) -> &[Vec<u8>] {
        if reading.folded { &self.folded } else { &self.segments }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Pattern {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (path, below) = match text.strip_suffix("/*") {
            Some("") => ("/", true),
            Some(path) => (path, true),
            None => (text, false),
        };
        if path.contains(['*', '?', '#']) {
            return Err(RuleError::Pattern);
        }
        let read = Path::of(path.as_bytes());
        let normal = read.normal_form().ok_or(RuleError::Ambiguous)?;
        let plainly = decode::once(path.as_bytes()).ok_or(RuleError::Ambiguous)?;
        if normal != plainly {
            return Err(RuleError::Ambiguous);
        }
        let fold = |segment: &[u8]| {
            let folded = str::from_utf8(segment).ok().and_then(decode::folded);
            folded.unwrap_or_else(|| segment.to_vec())
        };
        let folded = segments(normal).map(fold).collect();
        let segments = segments(normal).map(<[u8]>::to_vec).collect();
        Ok(Self { text: text.to_owned(), segments, folded, below })
    }
}

/// Whether a path is `place`, with selectors and an extension or without, or below it: as `place/*` in an allowing rule.
pub(super) fn is_within(path: &[u8], place: &str) -> bool {
    match path.strip_prefix(place.as_bytes()) {
        Some(b"" | [b'/', ..]) => true,
        Some([b'.', rest @ ..]) => memchr(b'/', steps::over(rest)).is_none(),
        _ => false,
    }
}

/// Whether a reading method asks for a path that is `place` itself.
pub(super) fn reads(method: &str, path: &[u8], place: &str) -> bool {
    is_read(method) && path == place.as_bytes()
}
