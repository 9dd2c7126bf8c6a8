//! The origin over HTTP/2: the answers of the others, for `upstreams.NAME.http = "2"`.

use std::{collections::HashMap, io, sync::Arc};

use ::http::{Request, Response, header};
use bytes::Bytes;
use h2::server::SendResponse;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Origin;

/// Answers by path, taken apart once.
pub type Answers = HashMap<&'static str, (Response<()>, Bytes)>;

/// Takes whole responses of HTTP/1.1 apart; those in chunks are left out.
pub fn answers(whole: &HashMap<&'static str, Arc<[u8]>>) -> Answers {
    whole.iter().filter_map(|(path, answer)| Some((*path, apart(answer)?))).collect()
}

fn apart(answer: &[u8]) -> Option<(Response<()>, Bytes)> {
    let mut storage = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut storage);
    let Ok(httparse::Status::Complete(bytes)) = head.parse(answer) else { return None };
    let mut response = Response::builder().status(head.code?);
    for field in &*head.headers {
        response = response.header(field.name, field.value);
    }
    let response = response.body(()).ok()?;
    let known = response.headers().contains_key(header::CONTENT_LENGTH);
    known.then(|| (response, Bytes::copy_from_slice(&answer[bytes..])))
}

impl Origin {
    /// One connection of AEM's.
    pub(super) async fn serve_http2<S>(&self, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut connection = h2::server::Builder::new()
            .max_concurrent_streams(STREAMS)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        while let Some(asked) = connection.accept().await {
            let (request, respond) = asked.map_err(io::Error::other)?;
            self.answer(&request, respond).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn answer<B>(&self, request: &Request<B>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
        let given = request.headers().get(header::AUTHORIZATION).map(::http::HeaderValue::as_bytes);
        let status = if !self.is_good(given.unwrap_or_default()) {
            401
        } else if let Some((head, body)) = self.answers_http2.get(request.uri().path()) {
            // As much as waits for the window is kept by the connection.
            return respond.send_response(head.clone(), false)?.send_data(body.clone(), true);
        } else {
            404
        };
        let mut refusal = Response::new(());
        *refusal.status_mut() = ::http::StatusCode::from_u16(status).unwrap_or_default();
        respond.send_response(refusal, true).map(drop)
    }
}

/// Requests at once on a connection, as servers have it by default.
const STREAMS: u32 = 128;
