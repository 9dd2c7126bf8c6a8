//! Which objects and arrays are open.

/// What is open around a value, in a memory that does not grow.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    depth: usize,
    objects: Bits,
    links: Bits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
}

impl Nesting {
    /// `links` marks a link, or a list of links. Below [`LEVELS`] it is only counted.
    pub(super) fn open(&mut self, kind: Kind, links: bool) {
        if self.depth < LEVELS {
            self.objects.set(self.depth, kind == Kind::Object);
            self.links.set(self.depth, links);
        }
        self.depth = self.depth.saturating_add(1);
    }

    pub(super) fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// What is open innermost; none at the top. Not to be asked below [`LEVELS`].
    pub(super) fn kind(&self) -> Option<Kind> {
        let level = self.depth.checked_sub(1)?;
        Some(if self.objects.is_set(level) { Kind::Object } else { Kind::Array })
    }

    /// Nothing is known but how many are open.
    pub(super) fn is_too_deep(&self) -> bool {
        self.depth > LEVELS
    }

    /// The innermost is an object that is a link.
    pub(super) fn is_link(&self) -> bool {
        self.kind() == Some(Kind::Object) && self.is_marked()
    }

    /// The innermost is an array of links.
    pub(super) fn is_links(&self) -> bool {
        self.kind() == Some(Kind::Array) && self.is_marked()
    }

    fn is_marked(&self) -> bool {
        self.depth.checked_sub(1).is_some_and(|level| self.links.is_set(level))
    }
}

/// One bit for each level.
#[derive(Debug, Default)]
struct Bits([u64; LEVELS / WORD]);

impl Bits {
    fn set(&mut self, level: usize, value: bool) {
        if let Some(word) = self.0.get_mut(level / WORD) {
            *word = *word & !(1 << (level % WORD)) | u64::from(value) << (level % WORD);
        }
    }

    fn is_set(&self, level: usize) -> bool {
        self.0.get(level / WORD).is_some_and(|word| word >> (level % WORD) & 1 == 1)
    }
}

/// More than AEM's content is deep. What is deeper passes as it is.
pub(super) const LEVELS: usize = 256;

const WORD: usize = u64::BITS as usize;
