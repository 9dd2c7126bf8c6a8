//! Bodies that arrive and are not kept.

use std::time::Duration;

use axum::{body::Body, extract::Request};
use http::{HeaderMap, header::EXPECT};
use http_body_util::{BodyExt, Limited};
use ring::digest::{Context as Hasher, SHA256};
use tokio::time::timeout;

use super::pattern::hex;

/// What is left of a body that was read to its end.
pub(super) struct Received {
    pub(super) length: u64,
    pub(super) sha256: String,
    pub(super) trailers: HeaderMap,
}

impl Received {
    pub(super) async fn all_of(mut body: Body) -> Result<Self, axum::Error> {
        let (mut length, mut hasher, mut trailers) = (0, Hasher::new(&SHA256), HeaderMap::new());
        while let Some(frame) = body.frame().await.transpose()? {
            match frame.into_data() {
                Ok(data) => {
                    length += data.len() as u64;
                    hasher.update(&data);
                }
                Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
            }
        }
        Ok(Self { length, sha256: hex(&hasher.finish()), trailers })
    }
}

/// Takes what a refused client still sends, within bounds: closing on unread bytes resets the connection,
/// and the client would see that instead of the answer. One that asked first has sent nothing.
pub(super) async fn drain(request: Request) {
    if !request.headers().contains_key(EXPECT) {
        let _ = timeout(DRAIN_MAX, Limited::new(request.into_body(), DRAIN_MAX_BYTES).collect()).await;
    }
}

const DRAIN_MAX: Duration = Duration::from_secs(1);
const DRAIN_MAX_BYTES: usize = 1024 * 1024;
