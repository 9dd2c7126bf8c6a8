//! One strict reading of a stream of HTTP/1.1 requests, by RFC 9110 and RFC 9112 alone: slow, naive, and without a line of the
//! proxy's. It says which requests a stream holds, where that ends, and which of them are legal but nothing that anybody sends:
//! those may be refused.

/// A name in small letters, and a value.
pub type Field = (String, Vec<u8>);

pub type Fields = Vec<Field>;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query, or `*`.
    pub target: Vec<u8>,
    pub chunked: bool,
    pub body: Vec<u8>,
    /// Those that begin with `x-`.
    pub fields: Fields,
    pub trailers: Fields,
}

/// What a stream holds.
#[derive(Debug)]
pub struct Reading {
    /// Each with whether it is odd.
    pub requests: Vec<(Request, bool)>,
    pub end: End,
    /// The client waits to hear whether it shall send the body of the last one, which has not come.
    pub expects: bool,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a whole request.
    Whole,
    /// Within one.
    Partial,
    /// With something that is none.
    Broken(&'static str),
}

use End::{Broken, Partial};

type Read<T> = Result<T, End>;

/// Reads a stream.
pub fn read(bytes: &[u8]) -> Reading {
    let mut reader = Reader { bytes, at: 0, odd: false, expects: false };
    let mut requests = Vec::new();
    loop {
        reader.odd = false;
        let mut empty = 0;
        while reader.rest().starts_with(b"\r\n") {
            reader.at += 2;
            empty += 1;
        }
        reader.odd |= empty > 1;
        if reader.rest().is_empty() {
            return Reading { requests, end: End::Whole, expects: false };
        }
        match reader.request() {
            Ok((request, last)) => {
                requests.push((request, reader.odd));
                reader.expects = false;
                if last {
                    return Reading { requests, end: End::Whole, expects: false };
                }
            }
            Err(end) => return Reading { requests, end, expects: reader.expects && end == Partial },
        }
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    odd: bool,
    expects: bool,
}

impl Reader<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// A line without its end.
    fn line(&mut self) -> Read<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            let Some(byte) = self.bytes.get(self.at) else { return Err(Partial) };
            self.at += 1;
            match byte {
                b'\n' => return Err(Broken("a bare LF")),
                b'\r' => match self.bytes.get(self.at) {
                    Some(b'\n') => {
                        self.at += 1;
                        return Ok(line);
                    }
                    Some(_) => return Err(Broken("a bare CR")),
                    None => return Err(Partial),
                },
                byte => line.push(*byte),
            }
        }
    }

    /// The next request, and whether the connection ends with it.
    fn request(&mut self) -> Read<(Request, bool)> {
        let begin = self.at;
        let line = self.line()?;
        let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [method, target, version] = parts[..] else { return Err(Broken("no request line")) };
        if method.is_empty() || !method.iter().all(|byte| is_tchar(*byte)) {
            return Err(Broken("no method"));
        }
        let minor = match version {
            b"HTTP/1.1" => 1,
            b"HTTP/1.0" => 0,
            _ => return Err(Broken("no version of ours")),
        };
        let method = String::from_utf8(method.to_vec()).unwrap();
        self.odd |= method.len() > 20 || method.to_uppercase() != method || method == "CONNECT";
        let (target, authority) = self.target(&method, target)?;
        let fields = self.fields()?;
        self.host(&fields, authority.as_deref(), minor)?;
        self.expectation(&fields, minor)?;
        let (chunked, length) = self.length(&fields, minor)?;
        self.odd |= self.at - begin > 60_000;
        let (body, trailers) = if chunked { self.chunks()? } else { (self.exactly(length)?, Vec::new()) };
        let connection = list(&fields, "connection");
        let has = |option: &str| connection.iter().any(|own| own.eq_ignore_ascii_case(option));
        let last = has("close") || (minor == 0 && !has("keep-alive"));
        // Whatever `Connection` names stays here.
        let fields = fields.into_iter().filter(|(name, _)| is_told(name) && !has(name)).collect();
        Ok((Request { method, target, chunked, body, fields, trailers }, last))
    }

    fn target(&mut self, method: &str, target: &[u8]) -> Read<(Vec<u8>, Option<String>)> {
        let bad = Broken("no target");
        if target.is_empty() || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f || *byte == b'#') {
            return Err(bad);
        }
        let text = String::from_utf8_lossy(target).into_owned();
        if method == "CONNECT" {
            return if text.contains(':') && !text.contains('/') {
                Ok((target.to_vec(), None))
            } else {
                Err(bad)
            };
        }
        if target == b"*" {
            return if method == "OPTIONS" { Ok((target.to_vec(), None)) } else { Err(bad) };
        }
        if target[0] == b'/' {
            return Ok((target.to_vec(), None));
        }
        if !text.to_lowercase().starts_with("http://") {
            return Err(bad);
        }
        let rest = &target[7..];
        let end = rest.iter().position(|byte| *byte == b'/' || *byte == b'?').unwrap_or(rest.len());
        let authority = String::from_utf8_lossy(&rest[..end]).into_owned();
        let mut path = rest[end..].to_vec();
        if !path.starts_with(b"/") {
            path.insert(0, b'/');
        }
        if authority.is_empty() || authority.contains('@') { Err(bad) } else { Ok((path, Some(authority))) }
    }

    fn fields(&mut self) -> Read<Fields> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                self.odd |= fields.len() > 100;
                return Ok(fields);
            }
            fields.push(field(&line).ok_or(Broken("no field"))?);
        }
    }

    fn host(&mut self, fields: &[Field], authority: Option<&str>, minor: u8) -> Read<()> {
        let hosts: Vec<_> = all(fields, "host");
        match hosts[..] {
            [] if minor == 0 => self.odd = true,
            [host] => {
                let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
                if host.is_empty() || !host.iter().all(plain) {
                    return Err(Broken("no host"));
                }
                // The target's counts, and a client is to say the same.
                let host = String::from_utf8_lossy(host).to_lowercase();
                self.odd |= authority.is_some_and(|authority| authority.to_lowercase() != host);
                self.odd |= host != "localhost";
            }
            _ => return Err(Broken("no single host")),
        }
        Ok(())
    }

    fn expectation(&mut self, fields: &[Field], minor: u8) -> Read<()> {
        let expected = all(fields, "expect");
        if expected.is_empty() || minor == 0 {
            return Ok(());
        }
        self.expects = true;
        if expected.len() > 1 || !expected[0].eq_ignore_ascii_case(b"100-continue") {
            return Err(Broken("an expectation that nobody knows"));
        }
        Ok(())
    }

    /// Whether the body comes in chunks, and how long it is if not.
    fn length(&mut self, fields: &[Field], minor: u8) -> Read<(bool, u64)> {
        let (said, coded) = (all(fields, "content-length"), all(fields, "transfer-encoding"));
        for (name, _) in fields {
            self.odd |= ["content_length", "transfer_encoding"].contains(&&**name);
        }
        self.odd |= all(fields, "content-type").len() > 1;
        self.odd |= all(fields, "destination").len() + all(fields, "x-destination").len() > 1;
        match (&said[..], &coded[..]) {
            ([], []) => Ok((false, 0)),
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && minor == 1 => Ok((true, 0)),
            ([length], []) => {
                let text = String::from_utf8_lossy(length);
                let digits = !text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit());
                self.odd |= text.len() > 1 && text.starts_with('0');
                let length = text.parse::<i64>().ok().filter(|_| digits).ok_or(Broken("no length"))?;
                Ok((false, length as u64))
            }
            _ => Err(Broken("no single length")),
        }
    }

    fn exactly(&mut self, length: u64) -> Read<Vec<u8>> {
        let length = usize::try_from(length).map_err(|_| Partial)?;
        let body = self.rest().get(..length).ok_or(Partial)?.to_vec();
        self.at += length;
        Ok(body)
    }

    fn chunks(&mut self) -> Read<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            self.odd |= line.len() > 500;
            let size = self.chunk_size(&line).ok_or(Broken("no chunk"))?;
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size)?);
            match self.rest() {
                [b'\r', b'\n', ..] => self.at += 2,
                [] | [b'\r'] => return Err(Partial),
                _ => return Err(Broken("a chunk is longer than its size")),
            }
        }
        let begin = self.at;
        let mut trailers = self.fields()?;
        self.odd |= self.at - begin > 60_000;
        trailers.retain(|(name, _)| TRAILERS.contains(&&**name));
        Ok((body, trailers))
    }

    fn chunk_size(&mut self, line: &[u8]) -> Option<u64> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extensions) = line.split_at(digits);
        if !extensions.is_empty() {
            // Whatever is legal in there is nothing that anybody sends.
            self.odd = true;
            let legal = extensions.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
            let begins = String::from_utf8_lossy(extensions).trim_start().starts_with(';');
            if !legal || !begins {
                return None;
            }
        }
        self.odd |= size.len() > 16;
        let size = String::from_utf8_lossy(size);
        i64::from_str_radix(&size, 16).ok().map(|size| size as u64)
    }
}

fn field(line: &[u8]) -> Option<Field> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let legal = value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
    if name.is_empty() || !name.iter().all(|byte| is_tchar(*byte)) || !legal {
        return None;
    }
    let mut value = value;
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    Some((String::from_utf8(name.to_ascii_lowercase()).unwrap(), value.to_vec()))
}

fn all<'f>(fields: &'f [Field], name: &str) -> Vec<&'f [u8]> {
    fields.iter().filter(|(own, _)| own == name).map(|(_, value)| &**value).collect()
}

fn list(fields: &[Field], name: &str) -> Vec<String> {
    let values = all(fields, name).into_iter().map(|value| String::from_utf8_lossy(value).into_owned());
    values
        .flat_map(|value| value.split(',').map(|member| member.trim().to_owned()).collect::<Vec<_>>())
        .collect()
}

/// Whether a field says something to AEM, and nothing to anybody between.
fn is_told(name: &str) -> bool {
    name.starts_with("x-") && !name.starts_with("x-forwarded") && name != "x-destination"
}

/// What passes behind a body.
const TRAILERS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(byte as char)
}
