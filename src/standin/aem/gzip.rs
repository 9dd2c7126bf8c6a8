//! Answers in a coding, as AEM and its CDN give them to who asks (RFC 9110, section 8.4).

use std::io::Write;

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY},
};

use super::Aem;

/// JSON in gzip, where a switch says so and the client takes it.
pub(super) async fn compress(State(aem): State<Aem>, request: Request, next: Next) -> Response {
    let wanted = aem.switches.compresses() && accepts_gzip(request.headers());
    let response = next.run(request).await;
    if !wanted || !is_json(response.headers()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Some(body) = to_bytes(body, JSON_MAX).await.ok().and_then(|plain| gzip(&plain).ok()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, Body::from(body))
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim().eq_ignore_ascii_case("gzip") && !matches!(weight.trim(), "q=0" | "q=0.0")
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

fn gzip(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain)?;
    encoder.finish()
}

/// More than a listing or the answer to an upload of hundreds of files.
const JSON_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::{super::tests::aem, *};

    #[tokio::test]
    async fn json_comes_in_gzip_to_who_takes_it_once_the_switch_is_on() {
        let aem = aem().await;
        let ask = async |accept: &str| {
            let request = aem.get("/api/assets.json").header(ACCEPT_ENCODING, accept);
            request.send().await.unwrap()
        };
        let plain = ask("gzip").await;
        assert!(!plain.headers().contains_key(CONTENT_ENCODING), "the switch is off");
        let plain = plain.bytes().await.unwrap();
        aem.switches.compress(true);
        for accept in ["identity", "br, gzip;q=0", "gzipped"] {
            assert!(!ask(accept).await.headers().contains_key(CONTENT_ENCODING), "{accept}");
        }
        let coded = ask("br, GZIP;q=0.5").await;
        assert_eq!(coded.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(coded.headers()[VARY], "Accept-Encoding");
        let coded = coded.bytes().await.unwrap();
        let mut decoded = Vec::new();
        GzDecoder::new(&coded[..]).read_to_end(&mut decoded).unwrap();
        assert!(decoded == plain && coded.len() < plain.len());
    }
}
