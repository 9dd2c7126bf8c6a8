//! TLS on a connection to AEM: rustls without buffers of its own, so that records are opened where they were read and
//! sealed where they are written from.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig,
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus},
};

use super::buffer::Buffer;

/// One TLS session.
pub(super) struct Session {
    tls: UnbufferedClientConnection,
    /// AEM said that it sends no more.
    ended: bool,
    /// What came together with the end of the handshake, opened.
    early: Vec<u8>,
}

/// What a handshake needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handshake {
    /// That `sealed` is written, and that more is read.
    More,
    /// Nothing: requests may be sent.
    Done,
}

impl Session {
    /// AEM may choose one of `protocols`, if there are any.
    pub(super) fn new(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        protocols: &[&[u8]],
    ) -> Result<Self, rustls::Error> {
        let protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let tls = UnbufferedClientConnection::new_with_alpn(config, name, protocols)?;
        Ok(Self { tls, ended: false, early: Vec::new() })
    }

    /// What AEM has chosen of the protocols.
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// Whether AEM has ended its side in order, so that what has come is whole.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes what came together with the end of the handshake, if it was not taken before.
    pub(super) fn take_early(&mut self) -> Option<Vec<u8>> {
        (!self.early.is_empty()).then(|| std::mem::take(&mut self.early))
    }

    /// Whether something came together with the end of the handshake, and was not taken yet.
    pub(super) fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Goes on with the handshake as far as `wire` reaches; what is to be sent is added to `sealed`.
    pub(super) fn shake_hands(
        &mut self,
        wire: &mut Buffer,
        sealed: &mut Buffer,
    ) -> Result<Handshake, rustls::Error> {
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(wire.filled_mut());
            let next = match state {
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    encode(|room| message.encode(room), sealed)?;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(message)) => {
                    message.done();
                    None
                }
                // A server may speak first. Over TLS 1.2 that comes with its last message, and rustls hands it over before it
                // says that the handshake is done.
                Ok(ConnectionState::ReadTraffic(mut records)) => {
                    let mut read = Ok(());
                    while let Some(record) = records.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                self.early.extend_from_slice(record.payload);
                            }
                            Err(error) => read = Err(error),
                        }
                    }
                    read.err().map(Err)
                }
                Ok(ConnectionState::WriteTraffic(_)) => Some(Ok(Handshake::Done)),
                Ok(ConnectionState::BlockedHandshake) => Some(Ok(Handshake::More)),
                Ok(_) => Some(Err(rustls::Error::General("the handshake was not finished".to_owned()))),
                Err(error) => Some(Err(error)),
            };
            wire.consume(discard);
            if matches!(next, Some(Err(_))) {
                self.complain(wire, sealed);
            }
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// Tells AEM in an alert what went wrong, where there is something to tell.
    fn complain(&mut self, wire: &mut Buffer, sealed: &mut Buffer) {
        if let Ok(ConnectionState::EncodeTlsData(mut alert)) =
            self.tls.process_tls_records(wire.filled_mut()).state
        {
            // Without the alert the other side has less to read in its log; nothing else depends on it.
            let _ = encode(|room| alert.encode(room), sealed);
        }
    }

    /// Opens every record that is whole in `wire` and hands its bytes to `take`.
    ///
    /// # Errors
    /// When a record is not what the peer sealed, or when `take` fails.
    pub(super) fn open<E: From<rustls::Error>>(
        &mut self,
        wire: &mut Buffer,
        sealed: &mut Buffer,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(wire.filled_mut());
            let mut blocked = false;
            match state? {
                ConnectionState::ReadTraffic(mut records) => {
                    while let Some(record) = records.next_record() {
                        let record = record?;
                        discard += record.discard;
                        take(record.payload)?;
                    }
                }
                // A key update wants its answer.
                ConnectionState::EncodeTlsData(mut message) => encode(|room| message.encode(room), sealed)?,
                ConnectionState::TransmitTlsData(message) => message.done(),
                ConnectionState::PeerClosed => self.ended = true,
                _ => blocked = true,
            }
            wire.consume(discard);
            if blocked {
                return Ok(());
            }
        }
    }

    /// Seals `plain` and adds it to `sealed`. `wire` holds what is not opened yet: rustls remembers where in it the
    /// beginning of a message lies, and has to find it there.
    pub(super) fn seal(
        &mut self,
        plain: &[u8],
        wire: &mut Buffer,
        sealed: &mut Buffer,
    ) -> Result<(), rustls::Error> {
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(wire.filled_mut());
            let mut done = false;
            match state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let room = sealed.room(plain.len() + (plain.len() / RECORD_MAX + 1) * RECORD_EXTRA);
                    let bytes = traffic.encrypt(plain, room).map_err(unsealed)?;
                    sealed.fill(bytes);
                    done = true;
                }
                ConnectionState::EncodeTlsData(mut message) => encode(|room| message.encode(room), sealed)?,
                ConnectionState::TransmitTlsData(message) => message.done(),
                ConnectionState::PeerClosed => self.ended = true,
                _ => return Err(rustls::Error::General("the session takes no data".to_owned())),
            }
            wire.consume(discard);
            if done {
                return Ok(());
            }
        }
    }

    /// Adds the word that nothing more will come.
    pub(super) fn end(&mut self, wire: &mut Buffer, sealed: &mut Buffer) {
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) =
            self.tls.process_tls_records(wire.filled_mut()).state
        {
            // At the end of a connection nothing depends on it any more.
            if let Ok(bytes) = traffic.queue_close_notify(sealed.room(RECORD_EXTRA * 2)) {
                sealed.fill(bytes);
            }
        }
    }
}

/// Encodes one message; rustls says how much room it wants.
fn encode(
    mut message: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
    sealed: &mut Buffer,
) -> Result<(), rustls::Error> {
    let mut wanted = 0;
    loop {
        match message(sealed.room(wanted)) {
            Ok(bytes) => {
                sealed.fill(bytes);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                wanted = required_size;
            }
            Err(EncodeError::AlreadyEncoded) => return Ok(()),
        }
    }
}

fn unsealed(error: EncryptError) -> rustls::Error {
    rustls::Error::General(error.to_string())
}

impl From<rustls::Error> for super::link::LinkError {
    fn from(error: rustls::Error) -> Self {
        Self::Io(io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// The most that one record holds (RFC 8446, section 5.1).
const RECORD_MAX: usize = 16 * 1024;

/// Header, content type, nonce and tag, of every version and suite.
const RECORD_EXTRA: usize = 64;
