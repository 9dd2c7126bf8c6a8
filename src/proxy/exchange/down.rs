//! The response, from AEM to the client.

use std::{io, sync::Arc, time::Duration};

use memchr::memchr;

use crate::{
    clock::Clock,
    proxy::{
        Limits,
        buffer::Buffer,
        fields::storage_for,
        framing::{Decoder, Encoding, Length},
        link::LinkError,
        refusal::Refusal,
        request::Asking,
        response::{AnswerTo, BadResponse, Body, Renamed, ResponseHead},
        rewrite::{self, Coding, Links, Members, Names, Progress, Rewriter},
        trailers::{Behind, trailers},
        withheld::Withheld,
    },
};

/// A response on its way.
pub(super) struct Down<'w> {
    pub(super) stage: Stage,
    /// A head of which only the beginning has come; or a response that is held, as far as it has come.
    partial: Vec<u8>,
    /// The status of the final response, once there is one.
    pub(super) status: Option<u16>,
    /// AEM does not take the token, and says so in this way.
    pub(super) refusal: Option<Refusal>,
    /// AEM keeps the connection.
    reusable: bool,
    /// Something went wrong with the connection that an answer may not show.
    pub(super) spoiled: bool,
    /// AEM answered before it had the whole request: nobody knows whether it takes the rest for a part of that, or for the
    /// beginning of the next one.
    pub(super) early: bool,
    /// The client is told that its connection ends.
    pub(super) close: bool,
    /// AEM said `100 Continue`.
    pub(super) continued: bool,
    /// How many interim responses there were.
    interim: u8,
    /// So many fields were cut, since they held the credential of the request.
    pub(super) cut: usize,
    /// What the client asked to go on in.
    protocol: Option<Box<[u8]>>,
    names: Names<'w>,
    /// What of a body of JSON is renamed.
    members: Members,
}

pub(super) enum Stage {
    Head,
    /// The client does not get to see it yet: there may be a better one.
    Held(Held),
    Body(Decoder, Encoding),
    Renamed(Box<RenamedBody>),
    Done,
    /// The connection goes on in another protocol.
    Tunnel,
}

/// A body that names AEM, and us when it leaves.
pub(super) struct RenamedBody {
    decoder: Decoder,
    rewriter: Rewriter,
    encoding: Encoding,
}

/// How a body is renamed.
enum Renaming<'b> {
    None,
    /// As it comes.
    Streams(Coding),
    /// At once: this is all of it.
    Whole(&'b [u8]),
}

/// Why a response is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// AEM does not take the token: another one may do.
    Refused(Refusal),
    /// AEM is busy, and says when to come back.
    Busy(Duration),
}

/// What a response is held for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holds {
    /// For another token.
    pub(super) refusals: bool,
    /// For a later time, and at most so long.
    pub(super) busy: Option<Duration>,
}

impl Holds {
    /// Every response is passed on.
    pub(super) const NOTHING: Self = Self { refusals: false, busy: None };
}

/// What decides how a response's head is passed on.
#[derive(Clone, Copy)]
pub(super) struct Facing<'w> {
    pub(super) to: AnswerTo<'w>,
    pub(super) asking: Asking,
    pub(super) holds: Holds,
    pub(super) limits: &'w Limits,
    /// The whole request has gone to AEM.
    pub(super) uploaded: bool,
    /// The client waits to hear whether it shall send its body.
    pub(super) held_back: bool,
    pub(super) stopping: bool,
}

impl<'w> Down<'w> {
    pub(super) fn new(protocol: Option<Box<[u8]>>, names: Names<'w>, members: Members) -> Self {
        Self {
            stage: Stage::Head,
            partial: Vec::new(),
            status: None,
            refusal: None,
            reusable: false,
            spoiled: false,
            early: false,
            close: false,
            continued: false,
            interim: 0,
            cut: 0,
            protocol,
            names,
            members,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Tunnel)
    }

    /// Bytes of memory that it takes.
    pub(super) fn held_bytes(&self) -> usize {
        let renamed = if let Stage::Renamed(renamed) = &self.stage { renamed.rewriter.held() } else { 0 };
        self.partial.capacity() + renamed
    }

    /// Whether AEM's connection serves no other request, nor the rest of this one.
    pub(super) fn is_used_up(&self) -> bool {
        self.spoiled || !self.reusable
    }

    /// Takes bytes of AEM's, and adds what becomes of them to `out`.
    pub(super) fn take(
        &mut self,
        mut data: &[u8],
        facing: Facing<'_>,
        out: &mut Buffer,
    ) -> Result<(), LinkError> {
        while !data.is_empty() {
            match &mut self.stage {
                Stage::Head => data = self.head(data, facing, out)?,
                Stage::Body(decoder, encoding) => {
                    let (used, part) = decoder.decode(data)?;
                    encoding.data(part, out);
                    data = &data[used..];
                    self.end_if_done(facing, out);
                }
                Stage::Renamed(renamed) => {
                    let (used, part) = renamed.decoder.decode(data)?;
                    renamed.rewriter.push(part);
                    data = &data[used..];
                    if renamed.decoder.is_done() {
                        renamed.rewriter.end();
                        self.spoiled |= !data.is_empty();
                        return Ok(());
                    }
                }
                Stage::Tunnel => {
                    out.push(data);
                    return Ok(());
                }
                Stage::Held(_) => {
                    self.partial.extend_from_slice(data);
                    return Ok(());
                }
                Stage::Done => {
                    // More than an answer: whatever it is, it is not the next one.
                    self.spoiled = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Takes bytes of a head; gives back those behind it.
    fn head<'a>(
        &mut self,
        data: &'a [u8],
        facing: Facing<'_>,
        out: &mut Buffer,
    ) -> Result<&'a [u8], LinkError> {
        if self.partial.is_empty() {
            return match self.whole_head(data, facing, out)? {
                Some(used) => Ok(&data[used..]),
                None => {
                    self.partial.extend_from_slice(data);
                    self.check_size(facing)
                }
            };
        }
        let mut partial = std::mem::take(&mut self.partial);
        let earlier = partial.len();
        partial.extend_from_slice(data);
        // A head whose bytes come one by one is not read with each of them.
        let has_doubled = earlier.leading_zeros() != partial.len().leading_zeros();
        if memchr(b'\n', data).is_none() && !has_doubled {
            self.partial = partial;
            return self.check_size(facing);
        }
        match self.whole_head(&partial, facing, out)? {
            Some(0) => {
                self.partial = partial;
                Ok(&[])
            }
            Some(used) => Ok(&data[used.saturating_sub(earlier)..]),
            None => {
                self.partial = partial;
                self.check_size(facing)
            }
        }
    }

    fn check_size<'a>(&self, facing: Facing<'_>) -> Result<&'a [u8], LinkError> {
        if self.partial.len() > facing.limits.head { Err(LinkError::HeadTooLarge) } else { Ok(&[]) }
    }

    /// Passes a head on if it is whole; tells its length.
    fn whole_head(
        &mut self,
        bytes: &[u8],
        facing: Facing<'_>,
        out: &mut Buffer,
    ) -> Result<Option<usize>, LinkError> {
        let mut storage = storage_for(facing.limits.fields);
        let Some(head) = ResponseHead::parse(bytes, &mut storage)? else { return Ok(None) };
        if head.bytes > facing.limits.head {
            return Err(LinkError::HeadTooLarge);
        }
        if head.status < 200 {
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(BadResponse::Interim.into());
            }
        }
        match head.status {
            101 if self.asked_for(head.protocol()) => {
                self.status = Some(101);
                self.stage = Stage::Tunnel;
                self.cut += head.write(Body::NONE, facing.to, Some(&self.names), false, out);
            }
            101 => return Err(LinkError::UnaskedUpgrade),
            100 => {
                if facing.held_back {
                    out.push(CONTINUE);
                }
                self.continued = true;
            }
            102..200 => {
                // An old client knows of one answer only (RFC 9110, section 15.2).
                if facing.to.minor > 0 && facing.to.interim {
                    self.cut += head.write_interim(facing.to, Some(&self.names), out);
                }
            }
            _ => {
                self.early |= !facing.uploaded;
                self.refusal = Refusal::of(&head, facing.asking);
                if let Some(held) = self.holds(&head, facing) {
                    self.stage = Stage::Held(held);
                    // The head is kept with what follows it.
                    return Ok(Some(0));
                }
                let taken = self.begin(&head, &bytes[head.bytes..], facing, out)?;
                return Ok(Some(head.bytes + taken));
            }
        }
        Ok(Some(head.bytes))
    }

    /// Whether `protocol` is the one that was asked for.
    fn asked_for(&self, protocol: Option<&[u8]>) -> bool {
        let asked = self.protocol.as_deref().zip(protocol);
        asked.is_some_and(|(asked, protocol)| asked.eq_ignore_ascii_case(protocol))
    }

    /// Whether the client is not to see this response yet.
    fn holds(&self, head: &ResponseHead<'_, '_>, facing: Facing<'_>) -> Option<Held> {
        let refused = self.refusal.filter(|_| facing.holds.refusals).map(Held::Refused);
        let longest = facing.holds.busy.filter(|_| matches!(head.status, 429 | 503));
        let busy = || {
            let wait = head.retry_after.map_or(Some(BUSY_WAIT), retry_after)?;
            (wait <= longest?).then_some(Held::Busy(wait))
        };
        refused.or_else(|| longest.and_then(|_| busy()))
    }

    /// Why the response is held, if it is.
    pub(super) fn held(&self) -> Option<Held> {
        if let Stage::Held(held) = self.stage { Some(held) } else { None }
    }

    /// Passes a held response on after all.
    pub(super) fn release(&mut self, facing: Facing<'_>, out: &mut Buffer) -> Result<(), LinkError> {
        let bytes = std::mem::take(&mut self.partial);
        self.stage = Stage::Head;
        self.take(&bytes, Facing { holds: Holds::NOTHING, ..facing }, out)
    }

    /// Passes the final response's head on, and a body that is renamed at once; tells how much of `rest` that took.
    fn begin(
        &mut self,
        head: &ResponseHead<'_, '_>,
        rest: &[u8],
        facing: Facing<'_>,
        out: &mut Buffer,
    ) -> Result<usize, LinkError> {
        let mut body = head.body(facing.to)?;
        let renaming = self.renaming(head, body, rest, facing);
        let mut whole = None;
        match &renaming {
            Renaming::None => {}
            Renaming::Streams(_) => body = body.renamed(Renamed::Streams, facing.to),
            Renaming::Whole(bytes) => {
                let renamed = self.links().whole(bytes);
                body = body.renamed(Renamed::Whole(renamed.len() as u64), facing.to);
                whole = Some((bytes.len(), renamed));
            }
        }
        let is_clean = body.length != Length::UntilClose && !facing.asking.unexpected_body;
        self.reusable = head.keeps_alive() && is_clean;
        // A body that AEM will not read, or that the client was never asked for, leaves no way to the next request.
        let unread = !facing.uploaded && (self.is_used_up() || facing.held_back);
        self.close = body.closes || facing.stopping || !facing.to.keep_alive || unread;
        self.cut += head.write(body, facing.to, Some(&self.names), self.close, out);
        self.status = Some(head.status);
        if let Some((bytes, renamed)) = whole {
            out.push(&renamed);
            self.stage = Stage::Done;
            return Ok(bytes);
        }
        let decoder = Decoder::new(body.length, facing.limits.head);
        self.stage = match renaming {
            Renaming::Streams(coding) if !decoder.is_done() => {
                let rewriter = Rewriter::new(coding, self.links());
                Stage::Renamed(Box::new(RenamedBody { decoder, rewriter, encoding: body.encoding }))
            }
            _ => Stage::Body(decoder, body.encoding),
        };
        self.end_if_done(facing, out);
        Ok(0)
    }

    fn links(&self) -> Links {
        Links::new(self.members, Arc::clone(self.names.origin), &self.names.local)
    }

    /// Whether a body names AEM where it is to name us.
    fn renaming<'b>(
        &self,
        head: &ResponseHead<'_, '_>,
        body: Body,
        rest: &'b [u8],
        facing: Facing<'_>,
    ) -> Renaming<'b> {
        let is_json = || head.content_type.is_some_and(rewrite::is_json);
        // A part of a body does not tell what its bytes belong to.
        if self.members.is_empty() || matches!(head.status, 204 | 206 | 304) || !is_json() {
            return Renaming::None;
        }
        let coding = Coding::of(head.content_encoding.unwrap_or_default());
        let whole = match body.length {
            Length::Exact(bytes) if coding == Some(Coding::Identity) && !facing.to.head => {
                usize::try_from(bytes).ok().and_then(|bytes| rest.get(..bytes))
            }
            _ => None,
        };
        match (coding, whole) {
            (None, _) => Renaming::None,
            (Some(_), Some(whole)) if !self.names.origin.occurs_in(whole) => Renaming::None,
            (Some(_), Some(whole)) => Renaming::Whole(whole),
            (Some(coding), None) => Renaming::Streams(coding),
        }
    }

    /// Goes on with a body that is renamed, as far as one step leads. Tells whether there was anything to do.
    pub(super) fn advance(&mut self, withheld: Withheld<'_>, out: &mut Buffer) -> Result<bool, LinkError> {
        let Stage::Renamed(renamed) = &mut self.stage else { return Ok(false) };
        let RenamedBody { decoder, rewriter, encoding } = &mut **renamed;
        let before = out.len();
        let mut chunk = Buffer::default();
        let progress = rewriter.advance(STEP, &mut |data| chunk.push(data))?;
        encoding.data(chunk.filled(), out);
        if progress == Progress::Done {
            let (kept, cut) = trailers(decoder.trailers(), Behind::RenamedResponse, withheld);
            encoding.end(&kept, out);
            self.cut += cut;
            self.stage = Stage::Done;
            return Ok(true);
        }
        Ok(progress == Progress::More || out.len() > before)
    }

    fn end_if_done(&mut self, facing: Facing<'_>, out: &mut Buffer) {
        if let Stage::Body(decoder, encoding) = &self.stage
            && decoder.is_done()
        {
            if *encoding == Encoding::Chunked {
                let (kept, cut) = trailers(decoder.trailers(), Behind::Response, facing.to.withheld);
                encoding.end(&kept, out);
                self.cut += cut;
            }
            self.stage = Stage::Done;
        }
    }

    /// AEM's connection has ended, in order or not.
    pub(super) fn ended(&mut self, in_order: bool, out: &mut Buffer) -> Result<(), LinkError> {
        self.spoiled = true;
        match &mut self.stage {
            Stage::Done | Stage::Tunnel => Ok(()),
            Stage::Renamed(renamed) if in_order && renamed.decoder.ends_with_connection() => {
                renamed.rewriter.end();
                Ok(())
            }
            Stage::Body(decoder, encoding) if in_order && decoder.ends_with_connection() => {
                encoding.end(&[], out);
                self.stage = Stage::Done;
                Ok(())
            }
            // All of it has come, and some of it is still to be passed on.
            Stage::Renamed(renamed) if renamed.decoder.is_done() => Ok(()),
            // How it ended is seen once it is passed on.
            Stage::Held(_) => Ok(()),
            Stage::Head | Stage::Body(..) | Stage::Renamed(_) => {
                Err(LinkError::Io(io::ErrorKind::UnexpectedEof.into()))
            }
        }
    }
}

/// How much of a body is renamed before it is sent on, and before other connections may have their turn.
const STEP: usize = 16 * 1024;

/// What `Retry-After` asks for (RFC 9110, section 10.2.3).
fn retry_after(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            Some(date.duration_since(Clock::system().now()).unwrap_or_default())
        }
    }
}

/// AEM's word, passed on, or ours when it has been silent for long.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// One says `Continue`, a few give hints, and 102 comes now and then while something takes long.
const INTERIM_MAX: u8 = 32;

/// Where AEM does not say when to come back.
const BUSY_WAIT: Duration = Duration::from_secs(1);
