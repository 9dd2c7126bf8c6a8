//! The package manager, as far as tools that push content need it: a package comes, and is said to be installed.

use axum::{
    Router,
    extract::{DefaultBodyLimit, Multipart, State, multipart::Field},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{StatusCode, header::CONTENT_TYPE};

use super::Aem;

/// One endpoint for everything.
pub(super) fn routes() -> Router<Aem> {
    // A package may be of any size, and nothing of it is kept.
    Router::new().route("/crx/packmgr/service.jsp", post(install).layer(DefaultBodyLimit::disable()))
}

/// The answer says of itself how it went; its status says nothing.
async fn install(State(aem): State<Aem>, multipart: Multipart) -> Response {
    let Ok(form) = Form::read(multipart).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if !form.is_package {
        return answer("", "500", "package file is missing or no package");
    }
    if form.install {
        aem.switches.count(|counts| counts.packages_installed += 1);
    }
    answer(&format!("{} bytes\nsaving...\nPackage imported.", form.length), "200", "ok")
}

#[derive(Default)]
struct Form {
    is_package: bool,
    install: bool,
    length: u64,
}

impl Form {
    async fn read(mut multipart: Multipart) -> Result<Self, Response> {
        let mut form = Self::default();
        while let Some(field) = multipart.next_field().await.map_err(IntoResponse::into_response)? {
            match field.name() {
                Some("file") => form.file(field).await?,
                Some("install") => form.install = field.text().await.is_ok_and(|value| value == "true"),
                _ => {}
            }
        }
        Ok(form)
    }

    async fn file(&mut self, mut field: Field<'_>) -> Result<(), Response> {
        let mut begin = Vec::new();
        while let Some(chunk) = field.chunk().await.map_err(IntoResponse::into_response)? {
            let missing = ZIP.len().saturating_sub(begin.len()).min(chunk.len());
            begin.extend_from_slice(&chunk[..missing]);
            self.length += chunk.len() as u64;
        }
        self.is_package = begin == ZIP;
        Ok(())
    }
}

fn answer(log: &str, code: &str, text: &str) -> Response {
    let body = format!(
        "<crx version=\"1.0\" user=\"technical account\" workspace=\"crx.default\">\n  <request/>\n  <response>\n    \
         <data><log>{log}</log></data>\n    <status code=\"{code}\">{text}</status>\n  </response>\n</crx>\n"
    );
    ([(CONTENT_TYPE, "text/plain;charset=utf-8")], body).into_response()
}

/// How an archive begins that has something in it.
const ZIP: &[u8] = b"PK\x03\x04";

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, aem};
    use super::*;

    async fn push(aem: &Fixture, file: &str, install: &str) -> (StatusCode, String) {
        let boundary = "----b";
        let part = |name: &str, value: &str| {
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"x\"\r\n\r\n{value}\r\n"
            )
        };
        let body = [part("file", file), part("force", "true"), part("install", install)].concat();
        let request = aem
            .post("/crx/packmgr/service.jsp")
            .header(CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"))
            .body(format!("{body}--{boundary}--\r\n"));
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn a_package_is_installed_and_anything_else_is_not() {
        let aem = aem().await;
        let (status, answer) = push(&aem, "PK\x03\x04 and so on", "true").await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            answer.contains("<status code=\"200\">ok</status>") && answer.contains("14 bytes"),
            "{answer}"
        );
        assert!(push(&aem, "PK\x03\x04", "false").await.1.contains("code=\"200\""));
        for file in ["", "PK", "no archive"] {
            assert!(push(&aem, file, "true").await.1.contains("code=\"500\""), "{file}");
        }
        assert_eq!(aem.switches.packages_installed(), 1);
        let other = aem.post("/crx/packmgr/service.jsp").body("PK").send().await.unwrap();
        assert_eq!(other.status(), StatusCode::BAD_REQUEST);
        aem.ledger.revoke_all();
        assert_eq!(push(&aem, "PK\x03\x04", "true").await.0, StatusCode::UNAUTHORIZED);
    }
}
