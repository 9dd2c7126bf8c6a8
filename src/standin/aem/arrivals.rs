//! Which requests have arrived, and which of them in full: the proof that nothing was carried out twice.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http::{HeaderMap, HeaderName};
use http_body::{Body as _, Frame, SizeHint};

use super::Switches;

/// How often the requests with one number came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrival {
    /// Their head.
    pub(super) seen: usize,
    /// All of them.
    pub(super) written: usize,
}

/// By number.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<HashMap<u64, Arrival>>);

impl Arrivals {
    pub(super) fn of(&self, id: u64) -> Arrival {
        self.book().get(&id).copied().unwrap_or_default()
    }

    /// The number of a request, if it has one, and from now on one more of it.
    pub(super) fn seen(&self, headers: &HeaderMap) -> Option<u64> {
        let id = headers.get(ID)?.to_str().ok()?.parse().ok()?;
        let mut book = self.book();
        if book.len() >= IDS_MAX && !book.contains_key(&id) {
            return None;
        }
        book.entry(id).or_default().seen += 1;
        Some(id)
    }

    fn written(&self, id: u64) {
        self.book().entry(id).or_default().written += 1;
    }

    fn book(&self) -> MutexGuard<'_, HashMap<u64, Arrival>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that says when it has been read to its end.
pub(super) struct Watched {
    inner: Body,
    /// Gone once it is written down.
    end: Option<(Switches, u64)>,
}

impl Watched {
    pub(super) fn new(inner: Body, switches: Switches, id: u64) -> Self {
        let mut watched = Self { inner, end: Some((switches, id)) };
        watched.note_end();
        watched
    }

    /// Some readers do not ask again after the last byte.
    fn note_end(&mut self) {
        if self.inner.is_end_stream() {
            self.ended();
        }
    }

    fn ended(&mut self) {
        if let Some((switches, id)) = self.end.take() {
            switches.arrivals().written(id);
            switches.count(|counts| counts.writes += 1);
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            None => self.ended(),
            Some(Ok(_)) => self.note_end(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The number of a request, for tests; the real AEM knows no such field.
const ID: HeaderName = HeaderName::from_static("x-standin-id");
/// More than a test sends, and a bound for a demo that runs for days.
const IDS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};
    use tokio::{io::AsyncWriteExt, net::TcpStream};

    use super::super::tests::aem;

    #[tokio::test]
    async fn requests_are_counted_by_their_number_once_they_are_whole() {
        let aem = aem().await;
        let of = |id| (aem.switches.seen_of(id), aem.switches.writes_of(id));
        for (id, times) in [(1, 1), (2, 3)] {
            for _ in 0..times {
                let request = aem.post("/echo").header("x-standin-id", id).body(vec![0; 100_000]);
                assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
            }
        }
        let bodiless = aem.get("/echo").header("x-standin-id", 4);
        assert_eq!(bodiless.send().await.unwrap().status(), StatusCode::OK);
        let refused = aem.anonymous(Method::POST, "/echo").header("x-standin-id", 5).body("x");
        assert_eq!(refused.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert_eq!([of(1), of(2), of(3), of(4), of(5)], [(1, 1), (3, 3), (0, 0), (1, 1), (1, 0)]);
        aem.switches.writes_reach(5).await;
    }

    #[tokio::test]
    async fn half_a_request_is_seen_but_not_written() {
        let aem = aem().await;
        let addr = aem.server.addr();
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let head = format!(
            "POST /echo HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {}\r\nx-standin-id: 7\r\n\
             Content-Length: 10\r\n\r\nhello",
            aem.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        aem.switches.requests_reach(1).await;
        drop(stream);
        assert_eq!((aem.switches.seen_of(7), aem.switches.writes_of(7)), (1, 0));
    }
}
