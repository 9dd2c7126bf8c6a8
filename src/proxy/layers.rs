//! The layers of the data path one by one, for `benches/layers.rs`. Not an interface: it changes with what it measures.

use std::sync::Arc;

use rustls::{ClientConfig, pki_types::ServerName};

use super::{
    buffer::Buffer,
    fields::storage,
    framing::{Decoder, Encoding, Length},
    guard::{Guard, Local},
    request::{Added, RequestHead},
    response::{AnswerTo, ResponseHead},
    session::{Handshake, Session},
};

/// What writes into memory that is used again.
#[derive(Default)]
pub struct Heads(Buffer);

impl Heads {
    /// Reads a request's head, admits it, and writes it for AEM; its length there. 0 when it is none.
    pub fn request(&mut self, bytes: &[u8], guard: &Guard, authorization: &[u8]) -> usize {
        self.0.clear();
        let mut storage = storage();
        let Ok(Some(head)) = RequestHead::parse(bytes, &mut storage) else { return 0 };
        let Ok(_) = guard.admit(&head.asked, Local::Unknown) else { return 0 };
        let added = Added {
            host: b"author-p1-e2.adobeaemcloud.com",
            origin: b"https://author-p1-e2.adobeaemcloud.com",
            guard: Some(guard),
            authorization: Some(authorization),
            ..Added::default()
        };
        head.write(&added, head.length(), &mut self.0);
        self.0.len()
    }

    /// Reads a response's head, and writes it for the client; its length there. 0 when it is none.
    pub fn response(&mut self, bytes: &[u8]) -> usize {
        self.0.clear();
        let mut storage = storage();
        let to = AnswerTo { minor: 1, keep_alive: true, ..AnswerTo::default() };
        let Ok(Some(head)) = ResponseHead::parse(bytes, &mut storage) else { return 0 };
        let Ok(body) = head.body(to) else { return 0 };
        head.write(body, to, None, false, &mut self.0);
        self.0.len()
    }

    /// Takes chunks apart and makes them anew; the length of what comes out.
    pub fn chunks(&mut self, mut bytes: &[u8]) -> usize {
        self.0.clear();
        let mut decoder = Decoder::new(Length::Chunked, 1024);
        while !bytes.is_empty() && !decoder.is_done() {
            let Ok((used, data)) = decoder.decode(bytes) else { return 0 };
            Encoding::Chunked.data(data, &mut self.0);
            bytes = &bytes[used..];
        }
        Encoding::Chunked.end(&[], &mut self.0);
        self.0.len()
    }
}

/// The client's side of a TLS session without a socket.
pub struct Tls {
    session: Session,
    wire: Buffer,
    sealed: Buffer,
}

impl Tls {
    /// A session that is yet to shake hands.
    ///
    /// # Errors
    /// When `config` allows none.
    pub fn new(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        let session = Session::new(config, name, &[])?;
        Ok(Self { session, wire: Buffer::default(), sealed: Buffer::default() })
    }

    /// Goes on with the handshake: what is to be sent, and whether that was all.
    ///
    /// # Errors
    /// When the handshake fails.
    pub fn shake_hands(&mut self, received: &[u8]) -> Result<(Vec<u8>, bool), rustls::Error> {
        self.wire.push(received);
        let step = self.session.shake_hands(&mut self.wire, &mut self.sealed)?;
        let sent = self.sealed.filled().to_vec();
        self.sealed.clear();
        Ok((sent, step == Handshake::Done))
    }

    /// Seals bytes; the length of the records. 0 when it cannot.
    pub fn seal(&mut self, plain: &[u8]) -> usize {
        self.sealed.clear();
        self.session.seal(plain, &mut self.wire, &mut self.sealed).map_or(0, |()| self.sealed.len())
    }

    /// Opens records; the length of what was in them. 0 when it cannot.
    pub fn open(&mut self, records: &[u8]) -> usize {
        self.wire.push(records);
        let mut bytes = 0;
        let opened = self.session.open(&mut self.wire, &mut self.sealed, |data| {
            bytes += data.len();
            Ok::<_, rustls::Error>(())
        });
        opened.map_or(0, |()| bytes)
    }
}
