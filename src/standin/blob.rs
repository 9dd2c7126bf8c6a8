//! A stand-in for the blob storage behind AEM as a Cloud Service: another origin, which takes parts of binaries
//! straight from clients. It knows no tokens: who has a signed URL may use it, and who shows it any other credentials
//! is refused (Adobe's page "Direct binary upload").

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
    routing::put,
};
use http::{StatusCode, header::AUTHORIZATION};

use super::{
    random_hex,
    received::{Received, drain},
};

/// The storage, to be served at the origin that it was made for.
pub fn router(storage: Storage) -> Router {
    Router::new().route("/{upload}/{part}", put(put_part)).with_state(storage)
}

/// What is in it, without the bytes. Clones share it.
#[derive(Clone, Debug)]
pub struct Storage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: String,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// The oldest first.
    uploads: VecDeque<Upload>,
    parts: usize,
    refused: usize,
    authorization_seen: usize,
}

#[derive(Debug)]
struct Upload {
    name: String,
    token: String,
    slots: Vec<Slot>,
}

/// The place for one part.
#[derive(Debug)]
struct Slot {
    signature: String,
    part: Option<Part>,
}

/// What has come for one of the URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its bytes.
    pub length: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

/// Where the parts of one file go.
pub(super) struct Offer {
    pub(super) token: String,
    pub(super) uris: Vec<String>,
}

/// Why an upload cannot be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incomplete {
    /// Nobody began it, or it is completed already.
    Unknown,
    /// Parts are missing.
    PartsMissing,
}

impl Storage {
    /// An empty storage that clients reach at this origin.
    pub fn new(origin: String) -> Self {
        Self(Arc::new(Inner { origin, book: Mutex::default() }))
    }

    /// How many parts have come, and come again.
    pub fn parts(&self) -> usize {
        self.book().parts
    }

    /// How many requests were turned away.
    pub fn refused(&self) -> usize {
        self.book().refused
    }

    /// How many of them for credentials that are none of its business: a token of AEM's, that is.
    pub fn authorization_seen(&self) -> usize {
        self.book().authorization_seen
    }

    /// Opens an upload of as many parts, or fewer.
    pub(super) fn offer(&self, parts: usize) -> Offer {
        let slot = |_| Slot { signature: signature(), part: None };
        let slots: Vec<Slot> = (0..parts).map(slot).collect();
        let upload = Upload { name: random_hex(16), token: random_hex(32), slots };
        let uri = |(index, slot): (usize, &Slot)| {
            format!("{}/{}/{index}?{}", self.0.origin, upload.name, slot.signature)
        };
        let uris = upload.slots.iter().enumerate().map(uri).collect();
        let offer = Offer { token: upload.token.clone(), uris };
        let mut book = self.book();
        if book.uploads.len() == UPLOADS_MAX {
            book.uploads.pop_front();
        }
        book.uploads.push_back(upload);
        offer
    }

    /// Closes an upload whose parts make up this many bytes.
    pub(super) fn complete(&self, token: &str, length: u64) -> Result<Vec<Part>, Incomplete> {
        let mut book = self.book();
        let found = book.uploads.iter().position(|upload| upload.token == token);
        let index = found.ok_or(Incomplete::Unknown)?;
        // A client need not use all URLs, but those that it uses from the first one on.
        let parts: Vec<Part> = book.uploads[index].slots.iter().map_while(|slot| slot.part.clone()).collect();
        if parts.iter().map(|part| part.length).sum::<u64>() != length {
            return Err(Incomplete::PartsMissing);
        }
        book.uploads.remove(index);
        Ok(parts)
    }

    fn is_open(&self, place: &Place, signature: &str) -> bool {
        self.book().slot(place).is_some_and(|slot| slot.signature == signature)
    }

    fn store(&self, place: &Place, part: Part) {
        let mut book = self.book();
        book.parts += 1;
        if let Some(slot) = book.slot(place) {
            slot.part = Some(part);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn slot(&mut self, (name, index): &Place) -> Option<&mut Slot> {
        self.uploads.iter_mut().find(|upload| upload.name == *name)?.slots.get_mut(*index)
    }
}

/// An upload, and which of its parts.
type Place = (String, usize);

/// `Put Blob` and its kin: 201 for a part, 403 for who may not.
async fn put_part(State(storage): State<Storage>, Path(place): Path<Place>, request: Request) -> Response {
    let credentials = request.headers().contains_key(AUTHORIZATION);
    let signature = request.uri().query().unwrap_or_default();
    if credentials || !storage.is_open(&place, signature) {
        {
            let mut book = storage.book();
            book.refused += 1;
            book.authorization_seen += usize::from(credentials);
        }
        drain(request).await;
        return StatusCode::FORBIDDEN.into_response();
    }
    match Received::all_of(request.into_body()).await {
        Ok(received) if received.length > MAX_PART_SIZE => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Ok(Received { length, sha256, .. }) => {
            storage.store(&place, Part { length, sha256 });
            StatusCode::CREATED.into_response()
        }
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// A query with Base64's special characters in it, so that who decodes and encodes it again breaks it.
fn signature() -> String {
    format!("sv=2024-11-04&sig={}%2B{}%2f%3D", random_hex(12), random_hex(12))
}

/// In the form of AEM's answer: larger ones are refused here.
pub(super) const MAX_PART_SIZE: u64 = 20 * 1024 * 1024;
/// Those that nobody completes give way to newer ones: Adobe's client begins two for each file.
const UPLOADS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use http::Method;
    use reqwest::RequestBuilder;

    use super::*;
    use crate::standin::{
        pattern::{pattern, sha256_hex},
        server::Server,
        tests::client,
    };

    /// A storage, and what serves it.
    async fn storage() -> (Storage, Server) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let storage = Storage::new(format!("http://{addr}"));
        (storage.clone(), Server::serve(router(storage), listener, addr, None))
    }

    fn put(uri: &str, body: Vec<u8>) -> RequestBuilder {
        client(None).request(Method::PUT, uri).body(body)
    }

    async fn status(request: RequestBuilder) -> StatusCode {
        request.send().await.unwrap().status()
    }

    #[tokio::test]
    async fn an_upload_is_complete_once_its_parts_make_up_its_length() {
        let (storage, _server) = storage().await;
        let offer = storage.offer(3);
        let (first, second) = (pattern(1000), pattern(500));
        assert_eq!(status(put(&offer.uris[1], second.clone())).await, StatusCode::CREATED);
        assert_eq!(storage.complete(&offer.token, 500), Err(Incomplete::PartsMissing));
        assert_eq!(status(put(&offer.uris[0], first.clone())).await, StatusCode::CREATED);
        assert_eq!(storage.complete(&offer.token, 1501), Err(Incomplete::PartsMissing));
        let part = |bytes: &[u8]| Part { length: bytes.len() as u64, sha256: sha256_hex(bytes) };
        assert_eq!(storage.complete(&offer.token, 1500), Ok(vec![part(&first), part(&second)]));
        assert_eq!(storage.complete(&offer.token, 1500), Err(Incomplete::Unknown));
        assert_eq!((storage.parts(), storage.refused()), (2, 0));
    }

    #[tokio::test]
    async fn only_the_signature_counts_and_other_credentials_are_refused() {
        let (storage, _server) = storage().await;
        let offer = storage.offer(1);
        let uri = &offer.uris[0];
        let with_token = put(uri, pattern(10)).bearer_auth("token");
        assert_eq!(status(with_token).await, StatusCode::FORBIDDEN);
        assert_eq!((storage.refused(), storage.authorization_seen()), (1, 1));
        let (path, _) = uri.split_once('?').unwrap();
        for wrong in [path.to_owned(), uri.replace("%2f", "%2F"), uri.replace("/0?", "/1?")] {
            assert_eq!(status(put(&wrong, pattern(10))).await, StatusCode::FORBIDDEN, "{wrong}");
        }
        assert_eq!((storage.refused(), storage.authorization_seen(), storage.parts()), (4, 1, 0));
        assert_eq!(status(put(uri, pattern(10))).await, StatusCode::CREATED);
    }

    #[test]
    fn what_nobody_completes_gives_way() {
        let storage = Storage::new(String::new());
        let first = storage.offer(1);
        let newer: Vec<Offer> = (0..UPLOADS_MAX).map(|_| storage.offer(1)).collect();
        assert_eq!(storage.complete(&first.token, 0), Err(Incomplete::Unknown));
        assert_eq!(storage.complete(&newer[0].token, 0), Ok(Vec::new()));
    }
}
