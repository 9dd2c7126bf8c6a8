//! What lies behind the doors of the stand-in AEM: a little content, and endpoints that show what arrived.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, Request, State},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{any, get, put},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, LOCATION, RETRY_AFTER, SET_COOKIE,
        TRAILER, UPGRADE,
    },
    request::Parts,
};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Interval, interval, sleep};

use super::{Aem, CSRF_TOKEN, Visitor, assets, graphql, gzip, origin, packmgr, upload};
use crate::standin::{
    ledger::Verdict,
    pattern::{Ending, PatternBody},
    received::Received,
    server::Connection,
};

/// All of its paths.
pub(super) fn routes(aem: &Aem) -> Router<Aem> {
    let apis = assets::routes().merge(graphql::routes()).merge(upload::routes());
    Router::new()
        .route(CSRF_TOKEN, get(csrf_token))
        .route("/echo", any(echo))
        .route("/echo/", any(echo))
        .route("/echo/{*rest}", any(echo))
        .route("/adobe/{*rest}", any(echo))
        .route("/download/{bytes}", get(download))
        .route("/upload", put(upload).post(upload))
        .route("/trailers", get(trailers))
        .route("/slow", get(slow))
        .route("/hold", any(hold))
        .route("/events", get(events))
        .route("/status/{code}", any(status))
        .route("/redirect", any(redirect))
        .route("/set-cookies", get(set_cookies))
        .route("/upgrade", get(upgrade))
        .merge(apis.layer(from_fn_with_state(aem.clone(), gzip::compress)))
        .merge(packmgr::routes())
        .fallback(not_found)
}

/// Anonymous callers get an empty object, not an error.
async fn csrf_token(State(aem): State<Aem>, Extension(visitor): Extension<Visitor>) -> Response {
    let answer = match visitor {
        Visitor::Authenticated => json!({"token": aem.csrf_tokens.issue()}),
        Visitor::Anonymous => json!({}),
    };
    ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

/// The request as it arrived, with a digest in place of its body.
async fn echo(State(aem): State<Aem>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match Received::all_of(body).await {
        Ok(received) => Json(seen(&aem, &parts, &received)).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn seen(aem: &Aem, parts: &Parts, received: &Received) -> Value {
    let mut headers = fields(&parts.headers);
    let verdict = aem.verdict(&parts.headers);
    for (_, value) in headers.iter_mut().filter(|(name, _)| name == AUTHORIZATION.as_str()) {
        shown(verdict).clone_into(value);
    }
    json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "version": format!("{:?}", parts.version),
        "headers": headers,
        "trailers": fields(&received.trailers),
        "length": received.length,
        "sha256": received.sha256,
    })
}

/// Never the token itself.
fn shown(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Live) => "Bearer (live)",
        Some(Verdict::Expired) => "Bearer (expired)",
        Some(Verdict::Revoked) => "Bearer (revoked)",
        Some(Verdict::Unknown) | None => "(unknown)",
    }
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

async fn upload(request: Request) -> Response {
    match Received::all_of(request.into_body()).await {
        Ok(received) => Json(json!({"length": received.length, "sha256": received.sha256})).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

#[derive(Deserialize)]
struct DownloadQuery {
    #[serde(default)]
    chunked: u8,
    break_at: Option<u64>,
    stall_at: Option<u64>,
}

/// Pattern bytes; with `chunked=1` of undeclared length, with `break_at=` or `stall_at=` not all of them.
async fn download(Path(length): Path<u64>, Query(query): Query<DownloadQuery>) -> Response {
    let ending = match (query.break_at, query.stall_at) {
        (Some(end), _) => Ending::BreakAt(end),
        (None, Some(end)) => Ending::StallAt(end),
        (None, None) => Ending::Whole,
    };
    let mut body = PatternBody::new(length).ending(ending);
    if query.chunked == 1 {
        body = body.chunked();
    }
    ([(CONTENT_TYPE, "application/octet-stream")], Body::new(body)).into_response()
}

/// A body followed by a field, which the client gets if it says `TE: trailers` (RFC 9110, section 6.5.1).
async fn trailers() -> Response {
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-checksum"),
        HeaderValue::from_static("made-up"),
    )]);
    let body = PatternBody::new(1024).chunked().with_trailers(std::future::ready(Some(Ok(trailers))));
    ([(TRAILER, "x-checksum")], Body::new(body)).into_response()
}

#[derive(Deserialize)]
struct SlowQuery {
    #[serde(default)]
    ms: u64,
}

async fn slow(Query(query): Query<SlowQuery>) -> Json<Value> {
    sleep(Duration::from_millis(query.ms)).await;
    Json(json!({"waited_ms": query.ms}))
}

/// Takes all of the request, and waits for [`super::Switches::release`].
async fn hold(State(aem): State<Aem>, request: Request) -> Response {
    if Received::all_of(request.into_body()).await.is_err() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    aem.switches.released().await;
    Json(json!({"held": true})).into_response()
}

#[derive(Deserialize)]
#[serde(default)]
struct EventsQuery {
    count: u32,
    interval_ms: u64,
}

impl Default for EventsQuery {
    fn default() -> Self {
        Self { count: 3, interval_ms: 100 }
    }
}

/// Server-sent events, the first at once.
async fn events(Query(query): Query<EventsQuery>) -> Response {
    let period = Duration::from_millis(query.interval_ms.max(1));
    let body = Events { next: 0, count: query.count, interval: interval(period) };
    let fields = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (fields, Body::new(body)).into_response()
}

struct Events {
    next: u32,
    count: u32,
    interval: Interval,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.next == self.count {
            return Poll::Ready(None);
        }
        ready!(self.interval.poll_tick(cx));
        let event = format!("event: tick\nid: {0}\ndata: {{\"tick\":{0}}}\n\n", self.next);
        self.next += 1;
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

#[derive(Deserialize)]
struct StatusQuery {
    retry_after: Option<String>,
}

/// Any final status, with a problem document as AEM's OpenAPI answers (RFC 9457).
async fn status(Path(code): Path<u16>, Query(query): Query<StatusQuery>) -> Response {
    let status = match StatusCode::from_u16(code) {
        Ok(status) if !status.is_informational() => status,
        _ => StatusCode::BAD_REQUEST,
    };
    let problem = json!({"status": status.as_u16(), "title": status.canonical_reason()});
    let mut response = (status, Json(problem)).into_response();
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(CONTENT_TYPE);
    } else {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    }
    if let Some(value) = query.retry_after.and_then(|value| HeaderValue::try_from(value).ok()) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

#[derive(Deserialize)]
struct RedirectQuery {
    to: Option<String>,
}

/// To `/api/assets.json` on its own origin, or to wherever `to=` says.
async fn redirect(Query(query): Query<RedirectQuery>, request: Request) -> Response {
    let location = query.to.unwrap_or_else(|| format!("{}/api/assets.json", origin(&request)));
    (StatusCode::FOUND, [(LOCATION, location)]).into_response()
}

/// The cookie of sticky routing, and two that are bound to AEM's own origin.
async fn set_cookies(request: Request) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let cookies = [
        r#"affinity="0123456789abcdef"; Path=/; HttpOnly"#.to_owned(),
        format!("cq-authoring-mode=TOUCH; Domain={host}; Path=/; Secure"),
        "locale=en; Path=/; Secure; SameSite=None".to_owned(),
    ];
    let mut response = Json(json!({"cookies": cookies.len()})).into_response();
    for cookie in cookies.into_iter().filter_map(|cookie| HeaderValue::try_from(cookie).ok()) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// Changes to whatever protocol was asked for, and in it sends back what it gets (RFC 9110, section 7.8).
async fn upgrade(Extension(connection): Extension<Connection>, mut request: Request) -> Response {
    let Some(protocol) = request.headers().get(UPGRADE).cloned() else {
        return StatusCode::UPGRADE_REQUIRED.into_response();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let repeat = async move {
        if let Ok(upgraded) = upgrade.await {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = connection.closed() => {}
            () = repeat => {}
        }
    });
    let fields = [(CONNECTION, HeaderValue::from_static("upgrade")), (UPGRADE, protocol)];
    (StatusCode::SWITCHING_PROTOCOLS, fields).into_response()
}

/// Sling answers HTML, whatever was asked.
pub(super) async fn not_found() -> Response {
    let page = "<html><head><title>404 Resource not found</title></head>\
         <body><h1>Resource not found</h1></body></html>";
    (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "text/html;charset=utf-8")], page).into_response()
}
