//! URLs in JSON (RFC 8259), renamed while it streams.
//!
//! Nothing is parsed into values and nothing is written anew: bytes pass as they are, and where a value begins with AEM's
//! origin, the local one goes out in its place. Held back is at most what may become that origin.

mod member;
mod nesting;
mod spelling;

use std::sync::Arc;

use memchr::memchr2;

use self::{
    member::MemberName,
    nesting::{Kind, Nesting},
    spelling::{Beginning, Spelling},
};
use super::{
    Members, Origin,
    members::Name::{self, Href, Links as LinksName, Other, Renamed},
};

/// One body of JSON on its way. Several documents behind each other are as good as one.
///
/// What is no JSON passes as it is, from where it stops being any.
pub(in crate::proxy) struct Links {
    members: Members,
    origin: Arc<Origin>,
    local: Box<[u8]>,
    state: State,
    nesting: Nesting,
    name: MemberName,
    /// The beginning of a value that may become AEM's origin.
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between strings.
    Between(Place),
    /// In the name of a member.
    Name,
    /// At the beginning of a value that is renamed, with what is held of it.
    Value,
    /// In a string that passes as it is.
    Text {
        /// A backslash came last.
        escaped: bool,
    },
    /// This is no JSON.
    Lost,
}

/// What may come next.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The name of a member, or the end of the object.
    Name,
    /// The colon behind a name.
    Colon(Name),
    /// The value of a member, or of an array.
    Value(Name),
    /// A comma or an end; at the top, another document.
    Behind,
}

impl Links {
    /// Renames `members` from `origin` to `local`, `scheme://authority` as the client named the proxy.
    ///
    /// `local` goes into strings as it is: it is made of what the guard lets into a `Host`.
    pub(in crate::proxy) fn new(members: Members, origin: Arc<Origin>, local: &[u8]) -> Self {
        debug_assert!(local.iter().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(byte)));
        Self {
            members,
            origin,
            local: local.into(),
            state: State::Between(Place::Behind),
            nesting: Nesting::default(),
            name: MemberName::default(),
            held: Vec::new(),
        }
    }

    /// Takes what comes next of the body, and gives out what can be told of it.
    pub(in crate::proxy) fn push(&mut self, data: &[u8], out: &mut impl FnMut(&[u8])) {
        let mut given = self.resume(data, out);
        let mut at = given;
        while at < data.len() {
            at = match self.state {
                State::Between(place) => self.between(place, data, at),
                State::Name => self.member_name(data, at),
                State::Text { escaped } => self.text(escaped, data, at),
                State::Lost => data.len(),
                State::Value => {
                    give(&data[given..at], out);
                    given = at + self.value(&data[at..], out);
                    given
                }
            };
        }
        give(&data[given..], out);
    }

    /// A body that is there as a whole.
    pub(in crate::proxy) fn whole(mut self, data: &[u8]) -> Vec<u8> {
        let mut renamed = Vec::with_capacity(data.len());
        let mut out = |data: &[u8]| renamed.extend_from_slice(data);
        self.push(data, &mut out);
        self.end(&mut out);
        renamed
    }

    /// No more will come: gives out what was held.
    pub(in crate::proxy) fn end(&mut self, out: &mut impl FnMut(&[u8])) {
        give(&self.held, out);
        self.held.clear();
        self.state = State::Lost;
    }

    /// A value begins with `data`. Tells how much of it went out, or is held.
    fn value(&mut self, data: &[u8], out: &mut impl FnMut(&[u8])) -> usize {
        match Spelling::at(data, &self.origin) {
            Beginning::Undecided => {
                self.held.extend_from_slice(data);
                data.len()
            }
            Beginning::Other => {
                self.state = State::Text { escaped: false };
                0
            }
            Beginning::Origin(spelling) => {
                self.state = State::Text { escaped: false };
                spelling.write(&self.local, out);
                spelling.bytes
            }
        }
    }

    /// Goes on with a value that is held. Tells how much of `data` went out, or is held.
    fn resume(&mut self, data: &[u8], out: &mut impl FnMut(&[u8])) -> usize {
        if self.held.is_empty() {
            return 0;
        }
        let earlier = self.held.len();
        let most = Spelling::longest(&self.origin).saturating_sub(earlier);
        self.held.extend_from_slice(&data[..data.len().min(most)]);
        let renamed = match Spelling::at(&self.held, &self.origin) {
            Beginning::Undecided => return data.len(),
            Beginning::Other => 0,
            Beginning::Origin(spelling) => {
                spelling.write(&self.local, out);
                spelling.bytes
            }
        };
        // What of it came earlier and does not belong to the origin may end within an escape.
        let held = std::mem::take(&mut self.held);
        let rest = held.get(renamed..earlier).unwrap_or_default();
        self.text(false, rest, 0);
        give(rest, out);
        renamed.saturating_sub(earlier)
    }

    fn text(&mut self, escaped: bool, data: &[u8], mut at: usize) -> usize {
        at += usize::from(escaped);
        while let Some(found) = memchr2(b'"', b'\\', data.get(at..).unwrap_or_default()) {
            at += found + 1;
            if data[at - 1] == b'"' {
                self.state = State::Between(Place::Behind);
                return at;
            }
            at += 1;
        }
        self.state = State::Text { escaped: at > data.len() };
        data.len()
    }

    fn member_name(&mut self, data: &[u8], at: usize) -> usize {
        let Some(length) = self.name.take(&data[at..]) else { return data.len() };
        self.state = State::Between(Place::Colon(self.members.name(self.name.decoded())));
        at + length
    }

    fn between(&mut self, mut place: Place, data: &[u8], at: usize) -> usize {
        for (at, byte) in data.iter().enumerate().skip(at) {
            self.state = self.step(place, *byte);
            match self.state {
                State::Between(next) => place = next,
                _ => return at + 1,
            }
        }
        data.len()
    }

    fn step(&mut self, place: Place, byte: u8) -> State {
        match (byte, place) {
            (b' ' | b'\t' | b'\n' | b'\r', _) => State::Between(place),
            _ if self.nesting.is_too_deep() => self.step_deep(byte),
            (b'"', _) => self.open_string(place),
            (b'{', _) => self.open(Kind::Object, place),
            (b'[', _) => self.open(Kind::Array, place),
            (b'}', Place::Name | Place::Behind) => self.close(Kind::Object),
            (b']', Place::Value(_) | Place::Behind) => self.close(Kind::Array),
            (b':', Place::Colon(name)) => State::Between(Place::Value(name)),
            (b',', Place::Behind) => match self.nesting.kind() {
                Some(Kind::Object) => State::Between(Place::Name),
                Some(Kind::Array) => State::Between(Place::Value(Other)),
                None => State::Lost,
            },
            // Numbers and literals, and whatever looks like them.
            (
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'+' | b'.',
                Place::Value(_) | Place::Behind,
            ) => State::Between(Place::Behind),
            // A byte order mark (RFC 8259, section 8.1).
            (0xef | 0xbb | 0xbf, Place::Behind) if self.nesting.kind().is_none() => State::Between(place),
            _ => State::Lost,
        }
    }

    /// Too deep for us to know what is a name: only the way back is looked for.
    fn step_deep(&mut self, byte: u8) -> State {
        match byte {
            b'"' => return State::Text { escaped: false },
            b'{' | b'[' => self.nesting.open(Kind::Array, false),
            b'}' | b']' => self.nesting.close(),
            _ => {}
        }
        State::Between(Place::Behind)
    }

    fn open_string(&mut self, place: Place) -> State {
        if let Place::Name = place {
            self.name = MemberName::default();
            return State::Name;
        }
        match self.awaited(place) {
            Some(Renamed) => State::Value,
            Some(Href) if self.nesting.is_link() => State::Value,
            Some(_) => State::Text { escaped: false },
            None => State::Lost,
        }
    }

    fn open(&mut self, kind: Kind, place: Place) -> State {
        let Some(name) = self.awaited(place) else { return State::Lost };
        let in_links = self.nesting.is_links() && kind == Kind::Object;
        self.nesting.open(kind, name == LinksName || in_links);
        match kind {
            Kind::Object => State::Between(Place::Name),
            Kind::Array => State::Between(Place::Value(Other)),
        }
    }

    fn close(&mut self, kind: Kind) -> State {
        if self.nesting.kind() != Some(kind) {
            return State::Lost;
        }
        self.nesting.close();
        State::Between(Place::Behind)
    }

    /// The name of the member whose value may come here.
    fn awaited(&self, place: Place) -> Option<Name> {
        match place {
            Place::Value(name) => Some(name),
            Place::Behind if self.nesting.kind().is_none() => Some(Other),
            _ => None,
        }
    }
}

fn give(bytes: &[u8], out: &mut impl FnMut(&[u8])) {
    if !bytes.is_empty() {
        out(bytes);
    }
}

#[cfg(test)]
mod tests;
