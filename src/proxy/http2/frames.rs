//! Where the frames of an HTTP/2 stream of bytes end (RFC 9113, section 4.1): as much as it takes to hand the h2 crate one
//! request head at a time.

/// Follows a client's bytes from frame to frame, after its connection preface.
pub(super) struct Frames {
    /// Bytes of the preface that have not come yet.
    preface: usize,
    header: [u8; HEADER],
    /// How much of the header has come.
    have: usize,
    /// Bytes of the payload that have not come yet.
    left: usize,
}

impl Frames {
    /// Nothing has come yet, not even the preface of `preface` bytes.
    pub(super) fn new(preface: usize) -> Self {
        Self { preface, header: [0; HEADER], have: 0, left: 0 }
    }

    /// Takes bytes up to the end of the first field block (HEADERS with its CONTINUATIONs) in them, or all of them; tells how
    /// many these are, and whether a field block ends there. Calls `data` with the stream of each DATA frame that begins.
    pub(super) fn take(&mut self, bytes: &[u8], mut data: impl FnMut(u32)) -> (usize, bool) {
        let mut at = self.preface.min(bytes.len());
        self.preface -= at;
        while at < bytes.len() {
            if self.have < HEADER {
                let part = (HEADER - self.have).min(bytes.len() - at);
                self.header[self.have..self.have + part].copy_from_slice(&bytes[at..at + part]);
                self.have += part;
                at += part;
                if self.have < HEADER {
                    break;
                }
                let [high, middle, low, ..] = self.header;
                self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                let [_, _, _, kind, _, stream @ ..] = self.header;
                if kind == DATA {
                    data(u32::from_be_bytes(stream) & STREAM);
                }
            }
            let part = self.left.min(bytes.len() - at);
            self.left -= part;
            at += part;
            if self.left == 0 {
                self.have = 0;
                if self.ends_block() {
                    return (at, true);
                }
            }
        }
        (at, false)
    }

    fn ends_block(&self) -> bool {
        let [_, _, _, kind, flags, ..] = self.header;
        matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0
    }
}

/// A frame's header.
const HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// A stream's identifier, without the reserved bit.
const STREAM: u32 = u32::MAX >> 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER + length, 0xff);
        frame
    }

    #[test]
    fn bytes_are_cut_behind_each_field_block_however_they_come() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let parts = [
            [preface.clone(), frame(4, 0, 0), frame(1, 4, 5)].concat(),
            [frame(0, 1, 300), frame(1, 0, 7), frame(9, 0, 0), frame(9, 4, 2)].concat(),
            frame(1, 5, 0),
        ];
        let all = [&parts.concat()[..], &frame(6, 0, 8)].concat();
        let ends = [parts[0].len(), parts[0].len() + parts[1].len(), all.len() - HEADER - 8];
        for size in 1..all.len() {
            let mut frames = Frames::new(preface.len());
            let (mut at, mut found, mut data) = (0, Vec::new(), Vec::new());
            for chunk in all.chunks(size) {
                let mut rest = chunk;
                while !rest.is_empty() {
                    let (taken, ends) = frames.take(rest, |stream| data.push(stream));
                    assert!(taken > 0);
                    at += taken;
                    rest = &rest[taken..];
                    if ends {
                        found.push(at);
                    }
                }
            }
            assert_eq!((at, &found[..], &data[..]), (all.len(), &ends[..], &[1][..]), "{size}");
        }
    }
}
