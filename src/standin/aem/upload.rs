//! Direct binary upload: AEM says where the parts of a file go, the client brings them to the blob storage, and tells
//! AEM when they are there (Adobe's page "Assets developer reference", section "Direct binary upload").

use axum::{
    Form, Json, Router,
    extract::{DefaultBodyLimit, FromRequest, Path, Request, State},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Aem,
    content::not_found,
    dam::{Asset, Node},
    origin,
};
use crate::standin::blob::{Incomplete, MAX_PART_SIZE, Part};

/// Folders take files, the top one too, and what they have taken can be asked for.
pub(super) fn routes() -> Router<Aem> {
    let top = |suffix: &str| format!("{DAM}{suffix}");
    Router::new()
        .route(&top(INITIATE), posted())
        .route(&top(COMPLETE), posted())
        .route(&top("/{*path}"), posted().get(digests))
        .layer(DefaultBodyLimit::max(FORM_MAX))
}

fn posted() -> MethodRouter<Aem> {
    post(act).fallback(not_found)
}

/// A selector at the end of a folder's path says what is to be done.
async fn act(State(aem): State<Aem>, path: Option<Path<String>>, request: Request) -> Response {
    let path = path.map_or_else(|| request.uri().path().replacen(DAM, "", 1), |Path(path)| path);
    if let Some(folder) = path.strip_suffix(INITIATE) {
        initiate(&aem, folder, request).await
    } else if let Some(folder) = path.strip_suffix(COMPLETE) {
        complete(&aem, folder, request).await
    } else {
        not_found().await
    }
}

async fn initiate(aem: &Aem, folder: &str, request: Request) -> Response {
    if !aem.dam.has_folder(folder) {
        return not_found().await;
    }
    let complete_uri = complete_uri(aem, &request);
    let files = match Fields::read(request).await {
        Ok(fields) => fields.files(),
        Err(response) => return response,
    };
    let Some(files) = files else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let files: Vec<Value> = files.iter().map(|(name, size)| offer(aem, name, *size)).collect();
    let folder_path = format!("{DAM}/{folder}");
    let answer = json!({
        "completeURI": complete_uri,
        "folderPath": folder_path.trim_end_matches('/'),
        "files": files,
    });
    (StatusCode::CREATED, Json(answer)).into_response()
}

/// On AEM's own origin, with the path as the client wrote it.
fn complete_uri(aem: &Aem, request: &Request) -> String {
    let path = request.uri().path();
    let path = format!("{}{COMPLETE}", path.strip_suffix(INITIATE).unwrap_or(path));
    if aem.switches.completes_relatively() { path } else { format!("{}{path}", origin(request)) }
}

fn offer(aem: &Aem, name: &str, size: u64) -> Value {
    let parts = size.div_ceil(MAX_PART_SIZE).clamp(1, PARTS_MAX);
    let offer = aem.storage.offer(usize::try_from(parts).unwrap_or(1));
    json!({
        "fileName": name,
        "mimeType": mime_type(name),
        "uploadToken": offer.token,
        "uploadURIs": offer.uris,
        "minPartSize": MIN_PART_SIZE,
        "maxPartSize": MAX_PART_SIZE,
    })
}

async fn complete(aem: &Aem, folder: &str, request: Request) -> Response {
    let fields = match Fields::read(request).await {
        Ok(fields) => fields,
        Err(response) => return response,
    };
    let size = fields.one("fileSize").and_then(|size| size.parse().ok());
    let needed = (fields.one("fileName"), fields.one("mimeType"), fields.one("uploadToken"), size);
    let (Some(name), Some(mime_type), Some(token), Some(size)) = needed else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let parts = match aem.storage.complete(token, size) {
        Ok(parts) => parts,
        Err(Incomplete::Unknown) => return StatusCode::NOT_FOUND.into_response(),
        Err(Incomplete::PartsMissing) => return StatusCode::BAD_REQUEST.into_response(),
    };
    let path = format!("{folder}/{name}");
    let asset = Asset { title: name.to_owned(), mime_type: mime_type.to_owned(), parts };
    aem.dam.set(path.trim_start_matches('/'), Node::Asset(asset));
    aem.switches.count(|counts| counts.uploads_completed += 1);
    Json(json!({"path": format!("{DAM}/{}", path.trim_start_matches('/'))})).into_response()
}

/// `<asset>.sha256.json`: what has come of an asset, part by part, so that who has the file can hash it alike.
async fn digests(State(aem): State<Aem>, Path(path): Path<String>) -> Response {
    let Some(Node::Asset(asset)) = path.strip_suffix(DIGESTS).and_then(|path| aem.dam.node(path)) else {
        return not_found().await;
    };
    let part = |part: &Part| json!({"length": part.length, "sha256": part.sha256});
    let parts: Vec<Value> = asset.parts.iter().map(part).collect();
    Json(json!({
        "mimeType": asset.mime_type,
        "length": asset.parts.iter().map(|part| part.length).sum::<u64>(),
        "parts": parts,
        // Of the whole storage, since it started.
        "storage": {"refused": aem.storage.refused(), "authorizationSeen": aem.storage.authorization_seen()},
    }))
    .into_response()
}

/// A form, in which names can repeat.
struct Fields(Vec<(String, String)>);

impl Fields {
    async fn read(request: Request) -> Result<Self, Response> {
        let form = Form::<Vec<(String, String)>>::from_request(request, &()).await;
        form.map(|Form(fields)| Self(fields)).map_err(IntoResponse::into_response)
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The names and sizes, of which there are equally many.
    fn files(&self) -> Option<Vec<(String, u64)>> {
        let names: Vec<String> = self.all("fileName").map(str::to_owned).collect();
        let sizes: Vec<u64> = self.all("fileSize").map(str::parse).collect::<Result<_, _>>().ok()?;
        let fit = !names.is_empty() && names.len() == sizes.len() && !names.iter().any(String::is_empty);
        fit.then(|| names.into_iter().zip(sizes).collect())
    }
}

fn mime_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("png") => "image/png",
        Some("pdf") => "application/pdf",
        Some("mp4") => "video/mp4",
        _ => "application/octet-stream",
    }
}

const DAM: &str = "/content/dam";
const INITIATE: &str = ".initiateUpload.json";
const COMPLETE: &str = ".completeUpload.json";
const DIGESTS: &str = ".sha256.json";
/// Smaller than AEM's, for small tests.
const MIN_PART_SIZE: u64 = 1024 * 1024;
/// 10 GB, more than AEM takes by default.
const PARTS_MAX: u64 = 512;
/// A few hundred files at once.
const FORM_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{
        super::tests::{Fixture, aem},
        *,
    };

    async fn initiate(aem: &Fixture, folder: &str, fields: &[(&str, &str)]) -> (u16, Value) {
        let request = aem.post(&format!("{folder}{INITIATE}")).form(fields);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    const FILE: [(&str, &str); 2] = [("fileName", "a.png"), ("fileSize", "209715200")];

    #[tokio::test]
    async fn every_file_gets_its_own_urls_at_the_blob_storage() {
        let aem = aem().await;
        let two = [FILE[0], ("fileName", "b"), FILE[1], ("fileSize", "0")];
        let (status, begun) = initiate(&aem, "/content/dam", &two).await;
        let files = begun["files"].as_array().unwrap();
        assert_eq!((status, &begun["folderPath"], files.len()), (201, &json!("/content/dam"), 2));
        for (file, (name, mime_type, parts)) in
            files.iter().zip([("a.png", "image/png", 10), ("b", "application/octet-stream", 1)])
        {
            assert_eq!((&file["fileName"], &file["mimeType"]), (&json!(name), &json!(mime_type)));
            let uris = file["uploadURIs"].as_array().unwrap();
            assert_eq!(uris.len(), parts);
            assert!(uris.iter().all(|uri| uri.as_str().unwrap().starts_with("http://blob.example/")));
            assert_eq!(file["maxPartSize"], 20 * 1024 * 1024);
        }
        assert_ne!(files[0]["uploadToken"], files[1]["uploadToken"]);
    }

    #[tokio::test]
    async fn where_to_complete_is_on_aem_s_own_origin_or_a_path() {
        let aem = aem().await;
        let (_, begun) = initiate(&aem, "/content/dam/%77knd", &FILE).await;
        let complete_uri = "/content/dam/%77knd.completeUpload.json";
        assert_eq!(begun["completeURI"], format!("http://{}{complete_uri}", aem.server.addr()));
        assert_eq!(begun["folderPath"], "/content/dam/wknd");
        aem.switches.relative_complete_uri(true);
        assert_eq!(initiate(&aem, "/content/dam/%77knd", &FILE).await.1["completeURI"], complete_uri);
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused() {
        let aem = aem().await;
        for (folder, fields, status) in [
            ("/content/dam/nowhere", &FILE[..], 404),
            ("/content/dam/surfing.jpg", &FILE, 404),
            ("/content/dam/wknd", &FILE[..1], 400),
            ("/content/dam/wknd", &[], 400),
            ("/content/dam/wknd", &[FILE[0], ("fileSize", "many")], 400),
        ] {
            assert_eq!(initiate(&aem, folder, fields).await.0, status, "{folder} {fields:?}");
        }
        for (path, status) in [("wknd.completeUpload.json", 400), ("wknd.html", 404)] {
            let answer = aem.post(&format!("/content/dam/{path}")).form(&FILE).send().await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
        }
        for (method, path) in
            [(Method::PUT, "wknd.initiateUpload.json"), (Method::GET, "nothing.sha256.json")]
        {
            let request = aem.anonymous(method, &format!("/content/dam/{path}")).bearer_auth(&aem.token);
            assert_eq!(request.send().await.unwrap().status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
