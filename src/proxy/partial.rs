//! When a head that has not come whole is read once more.

use memchr::memchr_iter;

use crate::steps;

/// The beginning of a request's head, as far as it was read. The work for a head is in proportion to its length, however it
/// comes.
#[derive(Debug, Default)]
pub(super) struct PartialHead {
    /// So much of the input was read and is no whole head.
    read: usize,
    /// So much of it was looked through for a reason to read it once more.
    scanned: usize,
    /// So often there was one.
    reads: u8,
}

impl PartialHead {
    /// Whether nothing was read yet.
    pub(super) fn is_empty(&self) -> bool {
        self.read == 0
    }

    /// So much of the input was read, and the head does not end in it.
    pub(super) fn has_read(&mut self, length: usize) {
        self.read = length;
    }

    /// Whether `input` has more of the head than was read: its end, something that it may not have, or a lot. A head that
    /// comes byte by byte is not read again with each of them, and one that comes line by line is so for some lines only.
    pub(super) fn should_read(&mut self, input: &[u8]) -> bool {
        if self.is_empty() {
            // Half of an empty line is no request yet.
            return !input.is_empty() && input != b"\r";
        }
        let begin = self.scanned.max(self.read).min(input.len());
        self.scanned = input.len();
        if input.len() > 2 * self.read {
            return true;
        }
        if self.reads == READS_MAX {
            return ends_head(&input[begin.saturating_sub(2)..]);
        }
        let has_more = steps::over(&input[begin..]).iter().any(u8::is_ascii_control);
        self.reads += u8::from(has_more);
        has_more
    }
}

/// Whether a line ends in `bytes`, and the next one is empty.
fn ends_head(bytes: &[u8]) -> bool {
    let is_end = |end| matches!(bytes[end + 1..], [b'\n', ..] | [b'\r', b'\n', ..]);
    memchr_iter(b'\n', steps::over(bytes)).any(is_end)
}

/// As often a head is read whose lines come one by one. Then it is read when its end has come, or twice as much of it.
const READS_MAX: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that are read of a head that comes in pieces of this size, and whether its end is noticed with its last byte.
    fn read(head: &[u8], piece: usize) -> (u64, bool) {
        let mut partial = PartialHead::default();
        let (mut bytes, mut ended) = (0, false);
        let ((), steps) = steps::of(|| {
            for end in (piece..head.len()).step_by(piece).chain([head.len()]) {
                ended = partial.should_read(&head[..end]);
                if ended {
                    bytes += end as u64;
                    partial.has_read(end);
                }
            }
        });
        (bytes + steps, ended)
    }

    #[test]
    fn a_head_that_comes_in_pieces_takes_steps_in_proportion_to_its_length() {
        let families: [fn(usize) -> String; 5] = [
            |bytes| "x: y\r\n".repeat(bytes / 6),
            |bytes| format!("x: {}", "\t".repeat(bytes)),
            |bytes| format!("x: {}", "y".repeat(bytes)),
            |bytes| format!("x: {}\r\n{}", "y".repeat(bytes / 2), "x: y\r\n".repeat(bytes / 12)),
            |bytes| format!("x: {}\r\n{}", "y".repeat(bytes / 2), "\t".repeat(bytes / 2)),
        ];
        for (number, family) in families.into_iter().enumerate() {
            for piece in [1, 3, 6, 100] {
                let [at_4, at_8, at_64] = [4096, 8192, 65_536].map(|bytes| {
                    let head = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", family(bytes));
                    let (steps, ended) = read(head.as_bytes(), piece);
                    assert!(ended, "the end is not noticed: {number}, in pieces of {piece}");
                    steps
                });
                let context = format!("{number}, in pieces of {piece}: {at_4}, {at_8}, {at_64}");
                assert!(at_8 * 10 < at_4 * 23 && at_64 < PER_BYTE_MAX * 65_536, "{context}");
            }
        }
    }

    /// Each of the reads, twice as much with each read behind them, and what is looked through.
    const PER_BYTE_MAX: u64 = 24;

    #[test]
    fn what_may_be_wrong_is_read_at_once() {
        let mut partial = PartialHead::default();
        assert!(!partial.should_read(b"") && !partial.should_read(b"\r"));
        assert!(partial.should_read(b"GET / HTTP/1.1"));
        partial.has_read(14);
        assert!(!partial.should_read(b"GET / HTTP/1.1 "));
        assert!(partial.should_read(b"GET / HTTP/1.1 \0"));
        assert!(partial.should_read(b"GET / HTTP/1.1 \0\n"));
    }
}
