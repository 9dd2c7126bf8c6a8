//! Assets HTTP API: folders and assets in Siren, whose links are absolute (Adobe's page "Assets HTTP API"). Each change
//! is written down.

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Path, Query, Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{Aem, content::not_found, dam::Node, origin};

/// The top folder and all below it.
pub(super) fn routes() -> Router<Aem> {
    Router::new().route("/api/assets.json", any(resource)).route("/api/assets/{*path}", any(resource))
}

/// A request that changed something, or would have on a real AEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetChange {
    /// Its method.
    pub method: String,
    /// What it was about, below `/api/assets/`, decoded.
    pub path: String,
    /// `X-Destination` as it came.
    pub destination: Option<String>,
}

async fn resource(
    State(aem): State<Aem>,
    path: Option<Path<String>>,
    Query(page): Query<Page>,
    request: Request,
) -> Response {
    let own = origin(&request);
    let Ok(origin) = Url::parse(&own) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let path = path.map_or_else(String::new, |Path(path)| path);
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return show(&aem, &origin, path.strip_suffix(".json").unwrap_or(&path), page).await;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, SIREN_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let response = match parts.method.as_str() {
        "POST" => create(&aem, &path, &body),
        "PUT" | "PATCH" => update(&aem, &path, &body),
        "DELETE" => delete(&aem, &path),
        method @ ("COPY" | "MOVE") => transfer(&aem, &own, &path, &parts.headers, method == "MOVE"),
        "PROPFIND" => multistatus(&aem, &origin, &path),
        _ => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    if response.status().is_success() {
        let destination = destination(&parts.headers).map(str::to_owned);
        aem.switches.changed(AssetChange { method: parts.method.to_string(), path, destination });
    }
    response
}

#[derive(Clone, Copy, Deserialize)]
#[serde(default)]
struct Page {
    offset: usize,
    limit: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self { offset: 0, limit: 20 }
    }
}

async fn show(aem: &Aem, origin: &Url, path: &str, page: Page) -> Response {
    match aem.dam.node(path) {
        Some(Node::Asset(asset)) => Json(entity(origin, path, &Node::Asset(asset))).into_response(),
        _ if aem.dam.has_folder(path) => Json(folder(aem, origin, path, page)).into_response(),
        _ => not_found().await,
    }
}

fn folder(aem: &Aem, origin: &Url, path: &str, page: Page) -> Value {
    let children = aem.dam.children(path);
    let entities: Vec<Value> = children
        .iter()
        .skip(page.offset)
        .take(page.limit)
        .map(|(path, node)| entity(origin, path, node))
        .collect();
    let listing = if path.is_empty() { "/api/assets.json".to_owned() } else { self_path(path) };
    let at = |rel: &str, offset: usize| {
        let href = format!("{}?offset={offset}&limit={}", link(origin, &listing), page.limit);
        json!({"rel": [rel], "href": href})
    };
    let mut links = vec![at("self", page.offset)];
    if page.offset > 0 {
        links.push(at("prev", page.offset.saturating_sub(page.limit)));
    }
    if page.offset + page.limit < children.len() {
        links.push(at("next", page.offset + page.limit));
    }
    json!({
        "class": ["assets/folder"],
        "properties": {
            "name": if path.is_empty() { "assets" } else { name(path) },
            "srn:paging": {"total": children.len(), "offset": page.offset, "limit": page.limit},
        },
        "links": links,
        "entities": entities,
    })
}

fn entity(origin: &Url, path: &str, node: &Node) -> Value {
    let (class, title) = match node {
        Node::Folder { title } => ("assets/folder", title),
        Node::Asset(asset) => ("assets/asset", &asset.title),
    };
    json!({
        "class": [class],
        "rel": ["child"],
        "properties": {"name": name(path), "dc:title": title},
        "links": [
            {"rel": ["self"], "href": link(origin, &self_path(path))},
            {"rel": ["content"], "href": link(origin, &format!("/content/dam/{path}"))},
        ],
    })
}

fn self_path(path: &str) -> String {
    format!("/api/assets/{path}.json")
}

/// On AEM's own origin, with what needs it encoded.
fn link(origin: &Url, path: &str) -> String {
    let mut url = origin.clone();
    url.set_path(path);
    url.into()
}

fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// A folder, as Adobe's upload client asks for each one on the way to its target.
fn create(aem: &Aem, path: &str, body: &[u8]) -> Response {
    if aem.dam.node(path).is_some() || path.is_empty() {
        return conflict(path);
    }
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    if !aem.dam.has_folder(parent) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let title = title(body).unwrap_or_else(|| name(path).to_owned());
    aem.dam.set(path, Node::Folder { title });
    let answer = json!({"class": ["core/response"], "properties": {"path": format!("/content/dam/{path}")}});
    (StatusCode::CREATED, Json(answer)).into_response()
}

fn conflict(path: &str) -> Response {
    let answer =
        json!({"class": ["core/response"], "properties": {"status.message": format!("{path} exists")}});
    (StatusCode::CONFLICT, Json(answer)).into_response()
}

fn update(aem: &Aem, path: &str, body: &[u8]) -> Response {
    let Some(mut node) = aem.dam.node(path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if let Some(title) = title(body) {
        match &mut node {
            Node::Folder { title: old } => *old = title,
            Node::Asset(asset) => asset.title = title,
        }
    }
    aem.dam.set(path, node);
    StatusCode::OK.into_response()
}

/// Under whichever of its names.
fn title(siren: &[u8]) -> Option<String> {
    let siren: Value = serde_json::from_slice(siren).ok()?;
    let properties = &siren["properties"];
    ["dc:title", "jcr:title", "title"].iter().find_map(|name| properties[*name].as_str()).map(str::to_owned)
}

fn delete(aem: &Aem, path: &str) -> Response {
    let gone = !path.is_empty() && aem.dam.remove(path);
    if gone { StatusCode::OK } else { StatusCode::NOT_FOUND }.into_response()
}

/// Adobe's page has 412 where the field is missing, and is silent on a destination elsewhere: that gets what WebDAV
/// gives (RFC 4918, section 9.8.5).
fn transfer(aem: &Aem, origin: &str, path: &str, headers: &HeaderMap, moved: bool) -> Response {
    let Some(destination) = destination(headers) else {
        return StatusCode::PRECONDITION_FAILED.into_response();
    };
    let Some(to) = within(origin, destination) else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    if aem.dam.node(path).is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let taken = aem.dam.node(&to).is_some();
    if taken && headers.get("x-overwrite").is_some_and(|value| value == "F") {
        return StatusCode::PRECONDITION_FAILED.into_response();
    }
    aem.dam.copy(path, &to);
    if moved {
        aem.dam.remove(path);
    }
    if taken { StatusCode::NO_CONTENT } else { StatusCode::CREATED }.into_response()
}

fn destination(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-destination")?.to_str().ok()
}

/// Where a path of this API, alone or on AEM's own origin, leads to.
fn within(origin: &str, destination: &str) -> Option<String> {
    let path = destination.strip_prefix(origin).unwrap_or(destination);
    let path = path.strip_prefix("/api/assets/").filter(|path| !path.is_empty())?;
    // What means something in a form, but not in a path.
    let path = path.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(path.as_bytes()).next().map(|(path, _)| path.into_owned())
}

/// RFC 4918, section 9.1, as far as a test needs it.
fn multistatus(aem: &Aem, origin: &Url, path: &str) -> Response {
    let Some(node) = aem.dam.node(path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let href = link(origin, &format!("/api/assets/{path}"));
    let kind = if matches!(node, Node::Folder { .. }) { "<D:collection/>" } else { "" };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><D:multistatus xmlns:D=\"DAV:\"><D:response><D:href>{href}</D:href>\
         <D:propstat><D:prop><D:resourcetype>{kind}</D:resourcetype></D:prop><D:status>HTTP/1.1 200 OK</D:status>\
         </D:propstat></D:response></D:multistatus>"
    );
    let fields = [(CONTENT_TYPE, "application/xml;charset=utf-8")];
    (StatusCode::MULTI_STATUS, fields, Body::from(body)).into_response()
}

/// Properties of one folder or asset.
const SIREN_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests;
