//! Which requests of a client's HTTP/2 connection may have a connection to AEM of their own: one always may, further ones
//! while the process has descriptors for them.

use std::{cell::Cell, rc::Rc};

use crate::network::descriptors::{Descriptors, Exhausted, Share};

/// The streams of one connection of a client.
#[derive(Clone, Default)]
pub(super) struct ClientStreams {
    /// One of them has the connection to AEM that every connection of a client may have.
    first: Rc<Cell<bool>>,
}

/// A stream's right to a connection to AEM, until it is dropped.
pub(super) enum StreamShare<'d> {
    First(Rc<Cell<bool>>),
    Further(#[expect(dead_code, reason = "it is given back")] Share<'d>),
}

impl ClientStreams {
    /// The right to a connection to AEM.
    ///
    /// # Errors
    /// When another stream has one already, and there is no descriptor for a further one.
    pub(super) fn share<'d>(&self, descriptors: &'d Descriptors) -> Result<StreamShare<'d>, Exhausted> {
        if self.first.replace(true) {
            return descriptors.stream().map(StreamShare::Further);
        }
        Ok(StreamShare::First(Rc::clone(&self.first)))
    }
}

impl Drop for StreamShare<'_> {
    fn drop(&mut self) {
        if let Self::First(first) = self {
            first.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::network::descriptors::Limits;

    #[test]
    fn one_stream_of_each_connection_has_its_right_whatever_the_others_use() {
        let descriptors = Descriptors::new(Arc::default());
        descriptors.open(Limits { streams: 1, ..Limits::default() });
        let (greedy, modest) = (ClientStreams::default(), ClientStreams::default());
        let first = greedy.share(&descriptors).unwrap();
        let further = greedy.share(&descriptors).unwrap();
        assert!(greedy.share(&descriptors).is_err());
        let own = modest.share(&descriptors).unwrap();
        assert!(modest.share(&descriptors).is_err());
        drop(first);
        let again = greedy.share(&descriptors).unwrap();
        assert!(greedy.share(&descriptors).is_err());
        drop((further, own, again));
        let both = (modest.share(&descriptors).unwrap(), modest.share(&descriptors));
        assert!(both.1.is_ok());
    }
}
