//! Where a message's body ends (RFC 9112, sections 6 and 7), and chunks taken apart and made anew.
//!
//! Chunks are decoded and encoded again rather than copied: what leaves is framed by us, so that no odd framing that
//! comes in can mean one thing here and another there.

mod size;

use std::io::Write;

use memchr::{memchr, memchr_iter, memrchr};

use self::size::{begins_chunk_size, chunk_size};
use super::{
    buffer::Buffer,
    fields::{TRAILERS_MAX, is_field_line, is_token},
};

/// How a message says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// `Content-Length`, or no body at all.
    Exact(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// With the connection; responses only.
    UntilClose,
}

/// The framing is broken; the message cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is badly framed: {0}")]
pub(super) struct FramingError(&'static str);

/// Finds the body's bytes in those of the connection.
pub(super) struct Decoder {
    state: State,
    /// The bytes of a chunk-size line so far, or the fields after the last chunk.
    line: Vec<u8>,
    trailers_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes, then the end.
    Exact(u64),
    UntilClose,
    /// In the line with a chunk's size.
    Size,
    /// In a chunk, so many bytes before its end.
    Chunk(u64),
    /// At the line end after a chunk.
    ChunkEnd,
    /// After the last chunk.
    Trailers,
    Done,
    /// Nothing that follows means anything.
    Broken,
}

impl Decoder {
    /// `trailers_max` bounds the fields after a chunked body, in bytes.
    pub(super) fn new(length: Length, trailers_max: usize) -> Self {
        let state = match length {
            Length::Exact(0) => State::Done,
            Length::Exact(bytes) => State::Exact(bytes),
            Length::Chunked => State::Size,
            Length::UntilClose => State::UntilClose,
        };
        Self { state, line: Vec::new(), trailers_max }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection is the end of the body.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// The next bytes of the body in `input`, and how much of `input` is dealt with; call again until all of it is.
    ///
    /// # Errors
    /// When the framing is broken.
    pub(super) fn decode<'a>(&mut self, input: &'a [u8]) -> Result<(usize, &'a [u8]), FramingError> {
        match self.state {
            State::Exact(left) => {
                let data = up_to(input, left);
                let left = left - data.len() as u64;
                self.state = if left == 0 { State::Done } else { State::Exact(left) };
                Ok((data.len(), data))
            }
            State::UntilClose => Ok((input.len(), input)),
            State::Chunk(left) => {
                let data = up_to(input, left);
                let left = left - data.len() as u64;
                self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                Ok((data.len(), data))
            }
            State::Size | State::ChunkEnd | State::Trailers => {
                let taken = self.line(input);
                if taken.is_err() {
                    self.state = State::Broken;
                }
                Ok((taken?, &[]))
            }
            State::Done => Ok((0, &[])),
            State::Broken => Err(FramingError("nobody knows where it goes on")),
        }
    }

    /// Takes bytes up to the end of a line, and the line when it is whole.
    fn line(&mut self, input: &[u8]) -> Result<usize, FramingError> {
        let (taken, whole) = match memchr(b'\n', input) {
            Some(end) => (end + 1, true),
            None => (input.len(), false),
        };
        let most = match self.state {
            State::Trailers => self.trailers_max,
            State::ChunkEnd => b"\r\n".len(),
            _ => SIZE_LINE_MAX,
        };
        if self.line.len() + taken > most {
            return Err(FramingError("a line between chunks is too long"));
        }
        self.line.extend_from_slice(&input[..taken]);
        if whole {
            self.lined()?;
        } else {
            self.begun()?;
        }
        Ok(taken)
    }

    fn lined(&mut self) -> Result<(), FramingError> {
        self.state = match self.state {
            State::ChunkEnd if self.line == b"\r\n" => State::Size,
            State::ChunkEnd => return Err(OVERLONG),
            State::Size => match chunk_size(&self.line)? {
                0 => State::Trailers,
                size => State::Chunk(size),
            },
            // The fields stay in `line`, to be read when the empty line has come.
            _ => {
                if is_end_of_fields(&self.line)? {
                    self.state = State::Done;
                }
                return Ok(());
            }
        };
        self.line.clear();
        Ok(())
    }

    /// Whether what has come of a line can become one: whoever waits for its end waits for ever otherwise.
    fn begun(&self) -> Result<(), FramingError> {
        match self.state {
            State::ChunkEnd if self.line != b"\r" => Err(OVERLONG),
            State::Size if !begins_chunk_size(&self.line) => Err(NO_SIZE),
            State::Trailers if !begins_field_line(&self.line) => Err(NO_FIELD),
            _ => Ok(()),
        }
    }

    /// The fields after a chunked body, each with its line end, once all is decoded.
    pub(super) fn trailers(&self) -> &[u8] {
        if self.is_done() { &self.line } else { &[] }
    }
}

fn up_to(input: &[u8], left: u64) -> &[u8] {
    &input[..usize::try_from(left).unwrap_or(usize::MAX).min(input.len())]
}

/// Whether the last of these lines is the empty one, behind fields that are some.
fn is_end_of_fields(lines: &[u8]) -> Result<bool, FramingError> {
    let bad = FramingError("what stands behind the last chunk is no field");
    let before = lines.strip_suffix(b"\r\n").ok_or(bad)?;
    let line = &before[memrchr(b'\n', before).map_or(0, |end| end + 1)..];
    if !line.is_empty() {
        return if is_field_line(line) { Ok(false) } else { Err(bad) };
    }
    if memchr_iter(b'\n', before).count() > TRAILERS_MAX {
        return Err(FramingError("there are too many fields behind the last chunk"));
    }
    Ok(true)
}

/// How a body is framed on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is: its length was said, or the connection will end.
    Identity,
    Chunked,
}

impl Encoding {
    /// Adds a part of the body.
    pub(super) fn data(self, data: &[u8], out: &mut Buffer) {
        if data.is_empty() {
            return;
        }
        match self {
            Self::Identity => out.push(data),
            Self::Chunked => {
                let room = out.room(data.len() + CHUNK_EXTRA);
                let rest = room.len();
                let mut line = &mut room[..];
                // The room is there.
                let _ = write!(line, "{:x}\r\n", data.len());
                let size = rest - line.len();
                out.fill(size);
                out.push(data);
                out.push(b"\r\n");
            }
        }
    }

    /// Adds the end of the body, with `fields` after it: whole lines, without the empty one.
    pub(super) fn end(self, fields: &[u8], out: &mut Buffer) {
        if self == Self::Chunked {
            out.push(b"0\r\n");
            out.push(fields);
            out.push(b"\r\n");
        }
    }
}

/// A size in sixteen digits with a line end, and the line end after the chunk.
const CHUNK_EXTRA: usize = 20;

/// A size with some extension.
const SIZE_LINE_MAX: usize = 1024;

/// Whether the last of `lines`, which has no end yet, may become a field line or the empty line.
fn begins_field_line(lines: &[u8]) -> bool {
    let line = &lines[memrchr(b'\n', lines).map_or(0, |end| end + 1)..];
    let text = line.strip_suffix(b"\r").unwrap_or(line);
    // Its name alone has come, or nothing.
    let begins_name = memchr(b':', text).is_none() && text.len() == line.len() && is_token(text);
    text.is_empty() || begins_name || is_field_line(text)
}

const NO_FIELD: FramingError = FramingError("there is no field behind the last chunk");
const NO_SIZE: FramingError = FramingError("a chunk's size is no number");
const OVERLONG: FramingError = FramingError("a chunk is longer than its size");

#[cfg(test)]
mod tests {
    #[test]
    fn what_cannot_become_a_trailer_is_not_waited_for() {
        for (begun, fine) in [
            (&b"0\r\n"[..], true),
            (b"0\r\n\r", true),
            (b"0\r\nx-sum", true),
            (b"0\r\nx-sum: a b\r", true),
            (b"0\r\nx-sum: 1\r\n\r", true),
            (b"0\r\nx-sum: 1\r\n\r\x7f", false),
            (b"0\r\nx-sum: 1\rx", false),
            (b"0\r\nx-sum\r", false),
            (b"0\r\nx sum", false),
            (b"0\r\nx-sum: \0", false),
        ] {
            let mut decoder = Decoder::new(Length::Chunked, 100);
            let mut rest = begun;
            let read = loop {
                match decoder.decode(rest) {
                    Ok((used, _)) if used < rest.len() => rest = &rest[used..],
                    read => break read.is_ok(),
                }
            };
            assert_eq!(read, fine, "{}", begun.escape_ascii());
        }
    }

    use super::*;

    /// Body, trailers and what is left, fed in pieces of `step` bytes.
    fn decode(input: &[u8], length: Length, step: usize) -> Result<(Vec<u8>, Vec<u8>, usize), FramingError> {
        let mut decoder = Decoder::new(length, 1000);
        let (mut body, mut used) = (Vec::new(), 0);
        for piece in input.chunks(step) {
            let mut at = 0;
            while at < piece.len() && !decoder.is_done() {
                let (taken, data) = decoder.decode(&piece[at..])?;
                body.extend_from_slice(data);
                at += taken;
            }
            used += at;
        }
        if !decoder.is_done() {
            return Err(FramingError("unfinished"));
        }
        Ok((body, decoder.trailers().to_vec(), input.len() - used))
    }

    #[test]
    fn chunks_are_found_however_they_are_cut() {
        let input = b"5\r\nhello\r\n00A;name=\"x\"\r\n0123456789\r\n0\r\nx-sum: 1\r\nx-b: 2\r\n\r\nnext";
        for step in 1..input.len() {
            let (body, trailers, left) = decode(input, Length::Chunked, step).unwrap();
            assert_eq!(body, b"hello0123456789");
            assert_eq!(trailers, b"x-sum: 1\r\nx-b: 2\r\n\r\n");
            assert_eq!(left, 4);
        }
    }

    #[test]
    fn a_length_ends_a_body_and_what_follows_is_left() {
        assert_eq!(decode(b"helloGET", Length::Exact(5), 3).unwrap(), (b"hello".to_vec(), Vec::new(), 3));
        assert_eq!(decode(b"GET", Length::Exact(0), 3).unwrap(), (Vec::new(), Vec::new(), 3));
    }

    #[test]
    fn broken_chunks_are_refused() {
        for input in [
            &b"x\r\n"[..],
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n",
            b"5\r\nhello\r\r\n",
            b"5\nhello\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"\r\n",
            b";a\r\n",
            b"0x5\r\nhello\r\n",
            b"11111111111111111\r\n",
            b"8000000000000000\r\n",
            b"00000000000000005\r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\t\r\nhello\r\n",
            b"5\rhello\r\n",
            b"5,\r\nhello\r\n",
            b"5;\r\nhello\r\n",
            b"5;a=\r\nhello\r\n",
            b"5;=b\r\nhello\r\n",
            b"5;a=\"b\r\nhello\r\n",
            b"5;a=\"b\"c\r\nhello\r\n",
            b"5;a b\r\nhello\r\n",
            b"5;a\0\r\nhello\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"5;a\nhello\r\n",
            b"5;a=\"\\\x7f\"\r\nhello\r\n",
            &[b'1'; 5000],
            &[&b"5;a="[..], &[b'b'; 2000]].concat(),
            b"0\r\n\n",
            b"0\r\na: b\n\r\n",
            b"0\r\na: b\r\n\n",
            b"0\r\n a: b\r\n\r\n",
            b"0\r\na: b\r\n c\r\n\r\n",
            b"0\r\na : b\r\n\r\n",
            b"0\r\na\r\n\r\n",
            b"0\r\n: b\r\n\r\n",
            b"0\r\na: \0\r\n\r\n",
            b"0\r\na: b\rc\r\n\r\n",
        ] {
            for step in [1, 7, input.len()] {
                let refused = decode(input, Length::Chunked, step);
                let text = input[..input.len().min(50)].escape_ascii();
                assert!(refused.is_err_and(|error| error.0 != "unfinished"), "{text}, {step}");
            }
        }
        for endless in ["a".repeat(2000), "a: b\r\n".repeat(101) + "\r\n"] {
            let endless = format!("0\r\n{endless}");
            let refused = decode(endless.as_bytes(), Length::Chunked, 100);
            assert!(refused.is_err_and(|error| error.0 != "unfinished"));
        }
    }

    #[test]
    fn what_has_been_broken_stays_broken() {
        let mut decoder = Decoder::new(Length::Chunked, 1000);
        assert!(decoder.decode(b"x").is_err());
        assert!(decoder.decode(b"0\r\n\r\n").is_err() && !decoder.is_done());
    }

    #[test]
    fn extensions_are_read_over() {
        for extension in
            [";a", ";a=b", "; a = b ;c", " ;a", ";a=\"\"", ";a=\"x;\\\"y\";b", "\t;a", ";a=\"\u{fc}\""]
        {
            let input = format!("2{extension}\r\nok\r\n000{extension}\r\n\r\n");
            for step in [1, 3, 100] {
                let (body, ..) = decode(input.as_bytes(), Length::Chunked, step).expect(extension);
                assert_eq!(body, b"ok");
            }
        }
    }

    #[test]
    fn a_body_is_encoded_as_asked() {
        let mut out = Buffer::default();
        for part in [&b"hello"[..], b"", &[b'x'; 26]] {
            Encoding::Chunked.data(part, &mut out);
        }
        Encoding::Chunked.end(b"x-sum: 1\r\n", &mut out);
        let expected = format!("5\r\nhello\r\n1a\r\n{}\r\n0\r\nx-sum: 1\r\n\r\n", "x".repeat(26));
        assert_eq!(out.filled(), expected.as_bytes());
    }
}
