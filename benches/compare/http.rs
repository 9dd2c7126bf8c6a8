//! As much of HTTP/1.1 (RFC 9112) as the origin and the load need of each other: whole heads, lengths, chunks.

/// The length of the head at the beginning of `bytes`, its empty line included; none while it has not come in whole.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of the first field called `name`, which is in lower case.
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(name.as_bytes()).then(|| line[colon + 1..].trim_ascii())
    })
}

/// `Content-Length`, where there is one that is a number.
pub fn content_length(head: &[u8]) -> Option<u64> {
    std::str::from_utf8(field(head, "content-length")?).ok()?.parse().ok()
}

/// Whether the body comes in chunks.
pub fn is_chunked(head: &[u8]) -> bool {
    field(head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"))
}

/// The status code of a response's head; 0 where there is none.
pub fn status(head: &[u8]) -> u16 {
    let code = head.get(9..12).and_then(|code| std::str::from_utf8(code).ok());
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// Method and path of a request's head.
pub fn target(head: &[u8]) -> Option<(&str, &str)> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let (method, rest) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    Some((method, rest.split(' ').next()?))
}

/// Where a reader is in a chunked body (RFC 9112, section 7.1). Trailers are not understood: no origin here sends any.
#[derive(Debug, Default)]
pub struct Chunks {
    /// Bytes of the current chunk still to come, its line end included.
    left: u64,
    /// The digits of a size line that has not come in whole.
    line: Vec<u8>,
    /// Whether the chunk of size 0 has been seen, and the bytes of its line end still to come.
    last: Option<u64>,
    /// Bytes of the body so far.
    pub length: u64,
}

impl Chunks {
    /// Takes what has come. Returns whether the body is whole; everything is taken, as nobody here pipelines.
    ///
    /// # Errors
    /// When a size is not a number.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<bool, std::num::ParseIntError> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len() as u64);
                self.left -= taken;
                bytes = &bytes[usize::try_from(taken).unwrap_or(bytes.len())..];
                continue;
            }
            if self.last.is_some() {
                break;
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.line.extend_from_slice(bytes);
                return Ok(false);
            };
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = String::from_utf8_lossy(&self.line).into_owned();
            let size = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)?;
            self.line.clear();
            self.length += size;
            self.left = size + 2;
            if size == 0 {
                self.last = Some(0);
            }
        }
        Ok(self.last.is_some() && self.left == 0)
    }
}
