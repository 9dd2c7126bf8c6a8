//! Sequences of words, all looked for in one pass over a text.

use crate::steps;

use super::words::{same, words};

/// Sequences of words that share their beginnings, as a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sequences {
    /// Every word that stands in one of them, by its key.
    words: Vec<Word>,
    /// The parents of all nodes but the root, which is number 0 and stands for no word.
    parents: Vec<usize>,
    /// The node at which each sequence ends.
    ends: Vec<usize>,
    /// The first bytes of all keys, as a set.
    firsts: [u64; 4],
}

/// A word, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    key: Vec<u8>,
    text: Vec<u8>,
    nodes: Vec<usize>,
}

/// Which sequences a text holds.
#[derive(Debug, Clone)]
pub(super) struct Found(Vec<bool>);

impl Found {
    /// Whether it holds the sequence with this number.
    pub(super) fn holds(&self, number: usize) -> bool {
        self.0.get(number).copied().unwrap_or_default()
    }
}

impl Sequences {
    /// The words of each of `texts`; they are numbered in their order.
    pub(super) fn new<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut sequences = Self::default();
        for text in texts {
            let end = words(text.as_ref()).fold(0, |parent, word| sequences.child(parent, word));
            sequences.ends.push(end);
        }
        sequences
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn child(&mut self, parent: usize, text: &[u8]) -> usize {
        let known = self.words.iter().position(|word| word.text == text);
        let at = known.unwrap_or_else(|| {
            let mut key = Vec::new();
            key_of(text, &mut key);
            // One without a first byte is looked up for any word.
            match key.first() {
                Some(first) => self.firsts[usize::from(first / 64)] |= 1 << (first % 64),
                None => self.firsts = [u64::MAX; 4],
            }
            let at = self.words.partition_point(|word| word.key <= key);
            self.words.insert(at, Word { key, text: text.to_vec(), nodes: Vec::new() });
            at
        });
        let nodes = &mut self.words[at].nodes;
        if let Some(node) = nodes.iter().find(|node| self.parents[**node - 1] == parent) {
            return *node;
        }
        self.parents.push(parent);
        nodes.push(self.parents.len());
        self.parents.len()
    }

    /// Looks for all of them in a text of which nobody can say more than that its words may be there or not: they may
    /// stand there as it is, or as it is without control characters and `%`.
    pub(super) fn find(&self, text: &[u8]) -> Found {
        if self.words.is_empty() {
            return Found(vec![true; self.ends.len()]);
        }
        let mut reached = self.reached(text);
        let is_odd = |byte: &u8| byte.is_ascii_control() || *byte == b'%';
        if steps::over(text).iter().any(is_odd) {
            let without: Vec<u8> = text.iter().copied().filter(|byte| !is_odd(byte)).collect();
            let others = self.reached(&without);
            reached.iter_mut().zip(others).for_each(|(reached, other)| *reached |= other);
        }
        Found(self.ends.iter().map(|end| reached[*end]).collect())
    }

    /// The nodes to which the words of `text` lead, in their order, whatever stands between them.
    fn reached(&self, text: &[u8]) -> Vec<bool> {
        let mut reached = vec![false; self.parents.len() + 1];
        reached[0] = true;
        let (mut key, mut fresh) = (Vec::new(), Vec::<usize>::new());
        for word in words(text) {
            if !self.may_begin(word) {
                continue;
            }
            key.clear();
            key_of(word, &mut key);
            let first = self.words.partition_point(|own| own.key < key);
            for own in self.words[first..].iter().take_while(|own| own.key == key) {
                if !same(word, &own.text) {
                    continue;
                }
                steps::add(own.nodes.len());
                // A word stands for one of a sequence, not for two.
                fresh.extend(own.nodes.iter().copied().filter(|node| reached[self.parents[*node - 1]]));
            }
            fresh.drain(..).for_each(|node| reached[node] = true);
        }
        reached
    }

    /// Whether a key may begin as that of `word` does.
    fn may_begin(&self, word: &[u8]) -> bool {
        let first = word.iter().find(|byte| !is_left_out(**byte)).map_or(0x80, u8::to_ascii_lowercase);
        // What becomes of a letter that is not ASCII is not looked at here.
        first >= 0x80 || self.firsts[usize::from(first / 64)] & 1 << (first % 64) != 0
    }
}

/// What two words have in common that are [`same`]: their small letters, without what stands for the `:` of a namespace.
fn key_of(word: &[u8], key: &mut Vec<u8>) {
    steps::over(word);
    if word.is_ascii() {
        let kept = word.iter().filter(|byte| !is_left_out(**byte));
        return key.extend(kept.map(u8::to_ascii_lowercase));
    }
    for chunk in word.utf8_chunks() {
        for character in chunk.valid().chars().filter(|character| !"_:".contains(*character)) {
            for lower in character.to_lowercase() {
                key.extend(lower.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        key.extend(chunk.invalid());
    }
}

fn is_left_out(byte: u8) -> bool {
    byte == b'_' || byte == b':'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plainest way to look for one sequence.
    fn stands_in(pattern: &[u8], text: &[u8]) -> bool {
        let mut words_of_text = words(text);
        words(pattern).all(|own| words_of_text.any(|word| same(word, own)))
    }

    fn part() -> impl Strategy<Value = &'static str> {
        prop::sample::select(
            &[
                "a", "B", "b", "_a_b", "a:b", "a:_b_c", "_a_b:c", "\u{fc}", "\u{dc}", "/", "/", ".", "K",
                "\u{212a}", "_", ":",
            ][..],
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn all_are_found_that_one_would_find_alone(
            patterns in prop::collection::vec(prop::collection::vec(part(), 0..6), 1..6),
            text in prop::collection::vec(part(), 0..20),
        ) {
            let patterns: Vec<String> = patterns.iter().map(|parts| parts.concat()).collect();
            let text = text.concat();
            let found = Sequences::new(&patterns).find(text.as_bytes());
            for (number, pattern) in patterns.iter().enumerate() {
                let expected = stands_in(pattern.as_bytes(), text.as_bytes());
                prop_assert_eq!(found.holds(number), expected, "{} in {}", pattern, text);
            }
        }
    }
}
