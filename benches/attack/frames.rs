//! HTTP/2 on the client's side, frame by frame, so that every abuse of it can be written.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{harness::Conn, target::Target};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// No type that RFC 9113 knows: such frames are ignored.
pub const UNKNOWN: u8 = 0xfa;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The largest window (RFC 9113, section 6.9.1).
pub const WINDOW_MAX: u32 = (1 << 31) - 1;
/// The largest frame before settings say otherwise.
pub const FRAME_MAX: usize = 1 << 14;
/// Streams on one connection, which the proxy allows or not.
pub const STREAMS: usize = 128;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9 + payload.len());
    push(&mut bytes, kind, flags, stream, payload);
    bytes
}

/// Adds one frame.
pub fn push(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

/// A field block as a HEADERS frame and as many CONTINUATION frames as it takes, each of at most
/// `size` bytes. The block is left unfinished where `ends` is false.
pub fn head(stream: u32, flags: u8, block: &[u8], size: usize, ends: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let parts: Vec<&[u8]> = block.chunks(size).collect();
    for (index, part) in parts.iter().enumerate() {
        let last = if ends && index + 1 == parts.len() { END_HEADERS } else { 0 };
        let (kind, flags) = if index == 0 { (HEADERS, flags | last) } else { (CONTINUATION, last) };
        push(&mut bytes, kind, flags, stream, part);
    }
    bytes
}

/// The pseudo-header fields of a request, none of them indexed (RFC 7541, section 6.2.2).
pub fn request(method: &str, path: &[u8], target: &Target) -> Vec<u8> {
    let mut block = Vec::with_capacity(64 + path.len());
    match method {
        "GET" => block.push(0x82),
        "POST" => block.push(0x83),
        _ => {
            block.push(0x02);
            string(&mut block, method.as_bytes());
        }
    }
    block.push(if target.tls.is_some() { 0x87 } else { 0x86 });
    block.push(0x04);
    string(&mut block, path);
    block.push(0x01);
    string(&mut block, target.addr.to_string().as_bytes());
    block
}

/// A field that is not indexed.
pub fn field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0x00);
    string(block, name);
    string(block, value);
}

/// A field that enters the dynamic table, where it then has index 62: one byte, [`NEWEST`].
pub fn indexed_field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0x40);
    string(block, name);
    string(block, value);
}

/// The newest entry of the dynamic table.
pub const NEWEST: u8 = 0x80 | 62;

/// `accept-charset` without a value, from the static table: one byte on the wire.
pub const STATIC_FIELD: u8 = 0x80 | 15;

/// A string without Huffman coding (RFC 7541, section 5.2).
fn string(block: &mut Vec<u8>, value: &[u8]) {
    if value.len() < 127 {
        block.push(u8::try_from(value.len()).unwrap_or_default());
    } else {
        block.push(127);
        let mut rest = value.len() - 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap_or_default() | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap_or_default());
    }
    block.extend_from_slice(value);
}

/// A connection after the exchange of settings.
pub struct Http2 {
    pub conn: Conn,
    /// The proxy's initial window of a stream.
    pub stream_window: i64,
    /// What may be sent on all streams together.
    pub window: i64,
    /// The proxy's limit of streams.
    pub streams: u32,
    next: u32,
    /// What came and is not yet a whole frame.
    buffer: Vec<u8>,
}

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Http2 {
    /// Opens a connection whose windows for answers are `window` wide.
    pub async fn open(target: &Target, window: u32, receive_buffer: Option<u32>) -> io::Result<Self> {
        let mut conn = target.connect_http2(receive_buffer).await?;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&window.to_be_bytes());
        push(&mut bytes, SETTINGS, 0, 0, &settings);
        let more = window.saturating_sub(65_535).max(1).to_be_bytes();
        push(&mut bytes, WINDOW_UPDATE, 0, 0, &more);
        conn.write_all(&bytes).await?;
        let mut this = Self {
            conn,
            stream_window: 65_535,
            window: 65_535,
            streams: u32::MAX,
            next: 1,
            buffer: Vec::new(),
        };
        while this.read().await?.kind != SETTINGS {}
        this.conn.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
        Ok(this)
    }

    /// The next stream's id.
    pub fn next(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// As many streams as asked for, and as the proxy allows.
    pub fn count(&self, streams: usize) -> usize {
        streams.min(usize::try_from(self.streams).unwrap_or(streams))
    }

    /// Reads one frame, and takes note of settings and windows. It can be cancelled.
    pub async fn read(&mut self) -> io::Result<Frame> {
        let length = loop {
            if let Some(head) = self.buffer.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if self.buffer.len() >= 9 + length {
                    break length;
                }
            }
            if self.conn.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let bytes: Vec<u8> = self.buffer.drain(..9 + length).collect();
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) & WINDOW_MAX;
        let frame = Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() };
        let number =
            |bytes: &[u8]| i64::from(bytes.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)));
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => {
                for setting in frame.payload.chunks_exact(6) {
                    match setting[1] {
                        3 => self.streams = u32::try_from(number(&setting[2..])).unwrap_or(u32::MAX),
                        4 => self.stream_window = number(&setting[2..]),
                        _ => {}
                    }
                }
            }
            WINDOW_UPDATE if frame.stream == 0 => self.window += number(&frame.payload),
            GOAWAY => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => {}
        }
        Ok(frame)
    }

    /// Sends as many requests as are allowed, and reads nothing.
    pub async fn ask(&mut self, target: &Target, streams: usize, flags: u8, block: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for _ in 0..self.count(streams) {
            let stream = self.next();
            bytes.extend_from_slice(&head(stream, flags, block, FRAME_MAX, true));
        }
        target.send(&mut self.conn, &bytes).await
    }

    /// Reads until the proxy closes the connection.
    pub async fn read_all(&mut self) -> io::Result<()> {
        loop {
            self.read().await?;
        }
    }
}
