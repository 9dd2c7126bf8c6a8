//! One strict reading of a head, and the plainest one of what a client or AEM may have meant.

/// A head of which every byte is as RFC 9112 has it.
pub struct Head<'h> {
    /// The first line.
    pub start: &'h str,
    fields: Vec<(String, &'h [u8])>,
}

impl<'h> Head<'h> {
    /// Reads a head that we have written.
    ///
    /// # Panics
    /// When it could be read in another way.
    pub fn of_ours(bytes: &'h [u8]) -> Self {
        let shown = bytes.escape_ascii();
        let lines = bytes.strip_suffix(b"\r\n\r\n").unwrap_or_else(|| panic!("no end: {shown}"));
        let mut lines = split(lines);
        let start = lines.remove(0);
        assert!(start.iter().all(is_plain), "a control character: {shown}");
        let fields = lines.into_iter().map(|line| {
            let colon =
                line.iter().position(|byte| *byte == b':').unwrap_or_else(|| panic!("no field: {shown}"));
            let (name, value) = line.split_at(colon);
            assert!(!name.is_empty() && name.iter().all(is_token), "no name: {shown}");
            let value = value.strip_prefix(b": ").unwrap_or_else(|| panic!("no space: {shown}"));
            assert!(value.iter().all(is_plain), "a control character: {shown}");
            (lower(name), value)
        });
        let fields = fields.collect();
        // A target may be of bytes that are no text: those are compared as bytes.
        Self { start: std::str::from_utf8(start).unwrap_or_default(), fields }
    }

    /// The values of all fields of this name, in their order.
    pub fn all(&self, name: &str) -> Vec<&'h [u8]> {
        self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| *value).collect()
    }

    /// The names and values of the fields that `is_wanted`.
    pub fn those(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<(&str, &'h [u8])> {
        let own = self.fields.iter().map(|(name, value)| (name.as_str(), *value));
        own.filter(|(name, _)| is_wanted(name)).collect()
    }
}

/// A head as the plainest reader takes it: lines, and what stands before and behind their first colon.
pub struct Naive<'h> {
    /// The first line.
    pub start: &'h [u8],
    /// Names in small letters, and values without white space round them.
    pub fields: Vec<(String, &'h [u8])>,
}

impl<'h> Naive<'h> {
    /// Reads a head that was accepted.
    pub fn read(bytes: &'h [u8]) -> Self {
        let mut lines =
            bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let start = lines.find(|line| !line.is_empty()).unwrap_or_default();
        let fields = lines.take_while(|line| !line.is_empty()).map(|line| {
            let mut parts = line.splitn(2, |byte| *byte == b':');
            let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            (lower(name), trim(value))
        });
        Self { start, fields: fields.collect() }
    }

    /// The values of all fields of this name.
    pub fn all(&self, name: &str) -> Vec<&'h [u8]> {
        self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| *value).collect()
    }

    /// The names and values of the fields that `is_wanted`.
    pub fn those(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<(&str, &'h [u8])> {
        let own = self.fields.iter().map(|(name, value)| (name.as_str(), *value));
        own.filter(|(name, _)| is_wanted(name)).collect()
    }

    /// The members of a list, in small letters.
    pub fn members(&self, name: &str) -> Vec<String> {
        let members = self.all(name).into_iter().flat_map(|value| value.split(|byte| *byte == b','));
        members.map(|member| lower(trim(member))).filter(|member| !member.is_empty()).collect()
    }
}

fn split(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(end) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    lines
}

fn trim(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

/// What may stand in a value, and in a reason (RFC 9112, section 4): a tab, and nothing else that has no face.
fn is_plain(byte: &u8) -> bool {
    *byte == b'\t' || *byte >= b' ' && *byte != 0x7f
}

/// In small letters.
pub fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase()
}

/// RFC 9110, section 5.6.2.
pub fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}
