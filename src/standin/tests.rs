use http::{StatusCode, header::USER_AGENT};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, RequestBuilder};
use rustls::pki_types::{PrivatePkcs1KeyDer, pem::PemObject};
use serde_json::json;

use super::{ims::Fault, keys::tests::credentials, *};

/// A client that follows no redirects and trusts nobody but `ca_pem`.
pub(super) fn client(ca_pem: Option<&str>) -> Client {
    // An error says only that it was installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let roots = ca_pem.map(|pem| reqwest::Certificate::from_pem(pem.as_bytes()).unwrap());
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only(roots)
        .build()
        .unwrap()
}

/// What Adobe's client library claims.
pub(super) fn claims(document: &Value, host: &str) -> Value {
    let integration = &document["integration"];
    let client_id = integration["technicalAccount"]["clientId"].as_str().unwrap();
    json!({
        "iss": integration["org"],
        "sub": integration["id"],
        "aud": format!("https://{host}/c/{client_id}"),
        "exp": Clock::system().unix_seconds() + 300,
        format!("https://{host}/s/ent_aem_cloud_api"): true,
    })
}

pub(super) fn sign(document: &Value, claims: &Value) -> String {
    crate::jwt::install();
    let pem = document["integration"]["privateKey"].as_str().unwrap();
    let key = PrivatePkcs1KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = EncodingKey::from_rsa_der(key.secret_pkcs1_der());
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), claims, &key).unwrap()
}

pub(super) fn form(document: &Value, assertion: &str) -> Vec<(&'static str, String)> {
    let account = &document["integration"]["technicalAccount"];
    vec![
        ("client_id", account["clientId"].as_str().unwrap().to_owned()),
        ("client_secret", account["clientSecret"].as_str().unwrap().to_owned()),
        ("jwt_token", assertion.to_owned()),
    ]
}

fn options(tls_names: &[&str]) -> Options {
    let tls_names = tls_names.iter().map(|name| (*name).to_owned()).collect();
    Options { credentials: Some(credentials("elsewhere")), tls_names, ..Options::default() }
}

/// Exchanges as a client would that knows nothing but the document.
async fn exchange(client: &Client, document: &Value) -> reqwest::Result<Value> {
    let endpoint = document["integration"]["imsEndpoint"].as_str().unwrap();
    let (url, host) = match endpoint.strip_prefix("http://") {
        Some(host) => (endpoint.to_owned(), host),
        None => (format!("https://{endpoint}"), endpoint),
    };
    let assertion = sign(document, &claims(document, host));
    let asked = client.post(format!("{url}/ims/exchange/jwt")).form(&form(document, &assertion));
    let answer = asked.send().await?.error_for_status()?.text().await?;
    Ok(serde_json::from_str(&answer).unwrap())
}

#[track_caller]
fn token(answer: &Value) -> &str {
    answer["access_token"].as_str().unwrap()
}

async fn assets(client: &Client, origin: &str, token: &str) -> StatusCode {
    let asked = client.get(format!("{origin}/api/assets.json")).bearer_auth(token);
    asked.header(USER_AGENT, "test").send().await.unwrap().status()
}

#[tokio::test]
async fn a_token_of_this_ims_opens_this_aem_with_and_without_tls() {
    for names in [&[][..], &["127.0.0.1", "localhost"]] {
        let standins = StandIns::start(options(names)).await.unwrap();
        assert_eq!(standins.ims_endpoint, standins.credentials_document["integration"]["imsEndpoint"]);
        let client = client(standins.ca_pem.as_deref());
        let answer = exchange(&client, &standins.credentials_document).await.unwrap();
        assert_eq!(answer["expires_in"], 86_399_999);
        assert_eq!(assets(&client, &standins.aem_origin, token(&answer)).await, StatusCode::OK);
        assert_eq!(assets(&client, &standins.aem_origin, "made-up").await, StatusCode::UNAUTHORIZED);

        standins.ledger.revoke_all();
        assert_eq!(assets(&client, &standins.aem_origin, token(&answer)).await, StatusCode::UNAUTHORIZED);
        assert_eq!((standins.aem.requests(), standins.aem.refused()), (3, 2));
        assert_eq!(standins.aem.expired_seen(), 0);
    }
}

#[tokio::test]
async fn ims_can_go_down_and_come_back_with_what_it_knew() {
    let mut standins = StandIns::start(options(&[])).await.unwrap();
    let client = client(None);
    let before = exchange(&client, &standins.credentials_document).await.unwrap();
    standins.ims_server.stop().await;
    assert!(exchange(&client, &standins.credentials_document).await.unwrap_err().is_connect());
    standins.ims_server.restart().await.unwrap();
    standins.ims.push(Fault::internal_error());
    let error = exchange(&client, &standins.credentials_document).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::INTERNAL_SERVER_ERROR));
    exchange(&client, &standins.credentials_document).await.unwrap();
    assert_eq!(standins.ledger.verdict(token(&before)), ledger::Verdict::Live);
    assert_eq!((standins.ims.attempts(), standins.ims.exchanges(), standins.ledger.issued()), (3, 2, 2));
}

#[tokio::test]
async fn a_local_token_opens_aem_until_its_end() {
    let standins = StandIns::start(options(&[])).await.unwrap();
    let client = client(None);
    let hour = Duration::from_secs(3600);
    let token = standins.local_token(hour);
    assert_eq!(assets(&client, &standins.aem_origin, &token).await, StatusCode::OK);
    let ended = standins.local_token_of(Clock::system().now() - hour, hour);
    assert_eq!(assets(&client, &standins.aem_origin, &ended).await, StatusCode::UNAUTHORIZED);
    assert_eq!(standins.aem.expired_seen(), 1);
    let document = StandIns::local_token_document(&token);
    assert_eq!(document["accessToken"], token);
    assert_eq!(standins.ims.attempts(), 0);
}

#[tokio::test]
async fn new_credentials_are_made_when_none_are_given() {
    let standins = StandIns::start(Options::default()).await.unwrap();
    exchange(&client(None), &standins.credentials_document).await.unwrap();
}

#[tokio::test]
async fn a_file_goes_to_the_blob_storage_and_its_digests_can_be_had_from_aem() {
    for names in [&[][..], &["127.0.0.1", "localhost"]] {
        let standins = StandIns::start(options(names)).await.unwrap();
        let client = client(standins.ca_pem.as_deref());
        let folder = format!("{}/content/dam/wknd", standins.aem_origin);
        let file = [("fileName", "a b.jpg"), ("fileSize", "26214400")];
        let bytes = pattern::pattern(26_214_400);
        let parts: Vec<&[u8]> = bytes.chunks(13 * 1024 * 1024).collect();

        let begin = client.post(format!("{folder}.initiateUpload.json")).form(&file);
        let (status, begun) = authorized(&standins, begin).await;
        assert_eq!((status, &begun["folderPath"]), (201, &json!("/content/dam/wknd")));
        assert_eq!(begun["completeURI"], format!("{folder}.completeUpload.json"));
        assert_eq!(begun["files"][0]["mimeType"], "image/jpeg");
        bring(&client, &standins, &parts, &begun["files"][0]["uploadURIs"]).await;

        let token = begun["files"][0]["uploadToken"].as_str().unwrap();
        let completion = [&file[..], &[("mimeType", "image/jpeg"), ("uploadToken", token)]].concat();
        let complete = async |fields: &[(&str, &str)]| {
            let request = client.post(begun["completeURI"].as_str().unwrap()).form(fields);
            authorized(&standins, request).await
        };
        assert_eq!(complete(&completion[..2]).await.0, 400);
        assert_eq!(complete(&completion).await, (200, json!({"path": "/content/dam/wknd/a b.jpg"})));
        assert_eq!(complete(&completion).await.0, 404, "done already");

        let (_, digests) = authorized(&standins, client.get(format!("{folder}/a%20b.jpg.sha256.json"))).await;
        let part = |bytes: &&[u8]| json!({"length": bytes.len(), "sha256": pattern::sha256_hex(bytes)});
        assert_eq!(digests["parts"], json!(parts.iter().map(part).collect::<Vec<_>>()));
        assert_eq!((&digests["length"], &digests["mimeType"]), (&json!(bytes.len()), &json!("image/jpeg")));
        assert_eq!(digests["storage"], json!({"refused": 0, "authorizationSeen": 0}));
        assert_eq!((standins.blob.parts(), standins.aem.uploads_completed()), (2, 1));
    }
}

/// Status and JSON of what is asked with a good token.
async fn authorized(standins: &StandIns, request: RequestBuilder) -> (u16, Value) {
    let token = standins.ledger.issue(Duration::from_secs(60));
    let answer = request.bearer_auth(token).send().await.unwrap();
    let (status, body) = (answer.status().as_u16(), answer.text().await.unwrap());
    (status, serde_json::from_str(&body).unwrap_or_default())
}

/// Each part to its URL, which is at the blob storage.
async fn bring(client: &Client, standins: &StandIns, parts: &[&[u8]], uris: &Value) {
    assert_eq!(uris.as_array().unwrap().len(), parts.len());
    for (part, uri) in parts.iter().zip(uris.as_array().unwrap()) {
        let uri = uri.as_str().unwrap();
        assert!(uri.starts_with(&format!("{}/", standins.blob_origin)), "{uri}");
        let answer = client.put(uri).body(part.to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
    }
}

#[tokio::test]
async fn aem_can_ask_for_a_certificate_which_ims_does_not() {
    let asking = Options { client_certificates: true, http2: true, ..options(&["127.0.0.1"]) };
    let standins = StandIns::start(asking).await.unwrap();
    let stranger = client(standins.ca_pem.as_deref());
    let answer = exchange(&stranger, &standins.credentials_document).await.unwrap();
    let url = format!("{}/api/assets.json", standins.aem_origin);
    assert!(stranger.get(&url).bearer_auth(token(&answer)).send().await.is_err());
    let (certificate, key) = standins.tls.as_ref().unwrap().client_certificate().unwrap();
    let identity = reqwest::Identity::from_pem((certificate + &key).as_bytes()).unwrap();
    let roots = reqwest::Certificate::from_pem(standins.ca_pem.as_ref().unwrap().as_bytes()).unwrap();
    let known = Client::builder().no_proxy().tls_certs_only([roots]).identity(identity).build().unwrap();
    assert_eq!(assets(&known, &standins.aem_origin, token(&answer)).await, StatusCode::OK);
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let standins = StandIns::start(options(&[])).await.unwrap();
    let again = Options { aem: standins.aem_server.addr(), ..options(&[]) };
    let error = StandIns::start(again).await.err().unwrap();
    assert_eq!(error.to_string(), format!("cannot listen on {}", standins.aem_server.addr()));
}

#[test]
fn an_authority_leaves_out_https_s_port_and_puts_ipv6_in_brackets() {
    assert_eq!(authority("localhost", 8443), "localhost:8443");
    assert_eq!(authority("ims.example", 443), "ims.example");
    assert_eq!(authority("::1", 8443), "[::1]:8443");
}
