use http::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder};

use super::*;
use crate::standin::{
    keys,
    ledger::Look,
    server::Server,
    tests::{claims, client, form, sign},
};

const HOST: &str = "ims.example";

struct Fixture {
    server: Server,
    client: Client,
    document: Value,
    oauth: OAuthCredential,
    ledger: Ledger,
    switches: Switches,
}

async fn ims() -> Fixture {
    let credentials = keys::tests::credentials(HOST);
    let ledger = Ledger::new(Clock::system(), credentials.client_id(), credentials.id());
    let switches = Switches::new(Duration::from_secs(60));
    let document = credentials.document();
    let oauth = OAuthCredential::generate(HOST);
    let router = router(credentials, oauth.clone(), ledger.clone(), switches.clone(), Clock::system());
    let server = Server::start(router, ([127, 0, 0, 1], 0).into(), None).await.unwrap();
    Fixture { server, client: client(None), document, oauth, ledger, switches }
}

impl Fixture {
    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.server.addr()))
    }

    /// Sends what is right except for what `edit` does to the claims.
    async fn claim(&self, edit: impl FnOnce(&mut Map<String, Value>)) -> (u16, Value) {
        let mut claims = claims(&self.document, HOST);
        edit(claims.as_object_mut().unwrap());
        self.send(&form(&self.document, &sign(&self.document, &claims))).await
    }

    async fn send(&self, form: &[(&str, String)]) -> (u16, Value) {
        let answer = self.post("/ims/exchange/jwt").form(form).send().await.unwrap();
        let status = answer.status().as_u16();
        assert!(answer.headers().contains_key("x-debug-id") && answer.headers().contains_key(DATE));
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }
}

/// The parameters as documented, with one of the two secrets.
fn parameters(oauth: &OAuthCredential, secret: usize) -> Vec<(&'static str, String)> {
    vec![
        ("grant_type", "client_credentials".to_owned()),
        ("client_id", oauth.client_id().to_owned()),
        ("client_secret", oauth.client_secrets()[secret].expose_secret().to_owned()),
        ("scope", oauth.scopes().join(",")),
    ]
}

async fn read(asked: RequestBuilder) -> (u16, Value) {
    let answer = asked.send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

#[track_caller]
fn check((status, answer): (u16, Value), expected: (u16, &str)) {
    assert_eq!((status, answer["error"].as_str().unwrap_or("none")), expected, "{answer}");
}

fn multipart(fields: &[(&str, String)]) -> String {
    let part = |(name, value): &(&str, String)| {
        format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    fields.iter().map(part).chain(["--edge--\r\n".to_owned()]).collect()
}

#[tokio::test]
async fn a_right_assertion_gets_a_token_in_both_forms_on_both_paths() {
    let ims = ims().await;
    let claims = claims(&ims.document, HOST);
    let fields = form(&ims.document, &sign(&ims.document, &claims));
    for path in ["/ims/exchange/jwt", "/ims/exchange/jwt/"] {
        let multipart = ims
            .post(path)
            .header(CONTENT_TYPE, "multipart/form-data; boundary=edge")
            .body(multipart(&fields));
        let urlencoded = ims.post(path).form(&fields);
        for (asked, kind) in [(urlencoded, FormKind::UrlEncoded), (multipart, FormKind::Multipart)] {
            let answer = asked.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{path} {kind:?}");
            let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("bearer"), &json!(60_000)));
            assert_eq!(ims.ledger.verdict(answer["access_token"].as_str().unwrap()), Verdict::Live);
            assert_eq!(ims.switches.last_form_kind(), Some(kind));
        }
    }
    assert_eq!(ims.switches.last_assertion_claims(), Some(claims));
    assert_eq!((ims.switches.attempts(), ims.switches.exchanges()), (4, 4));
    ims.switches.exchanges_reach(4).await;
}

#[tokio::test]
async fn each_wrong_claim_is_refused_as_documented() {
    let ims = ims().await;
    let now = Clock::system().unix_seconds();
    let scope = format!("https://{HOST}/s/ent_aem_cloud_api");
    let cases: [(&str, Value, (u16, &str)); 17] = [
        ("iss", json!("other@AdobeOrg"), (400, "bad_request")),
        ("iss", Value::Null, (400, "bad_request")),
        ("sub", json!("other@techacct.adobe.com"), (400, "bad_request")),
        ("sub", json!(7), (400, "bad_request")),
        ("aud", json!("https://ims.example/c/other"), (400, "invalid_client")),
        ("aud", json!("https://ims-na1.adobelogin.com/c/cm-p1-e2-integration-0"), (400, "invalid_client")),
        ("aud", json!("https://ims.example"), (400, "invalid_client")),
        ("exp", json!(now - 31), (400, "invalid_token")),
        ("exp", json!(now - 25), (200, "none")),
        ("exp", json!(now.to_string()), (400, "invalid_token")),
        ("exp", json!(now as f64 + 60.5), (400, "invalid_token")),
        ("jti", json!("4dd5a0c6-7cb6-4a3b-8e4b-b3c34ee3c0f5"), (400, "invalid_token")),
        ("jti", json!(1), (200, "none")),
        ("iat", json!(now), (200, "none")),
        (&scope, json!(false), (400, "invalid_scope")),
        (&scope, json!("true"), (400, "invalid_scope")),
        ("https://ims.example/s/ent_other_sdk", json!(true), (400, "invalid_scope")),
    ];
    for (name, value, expected) in cases {
        let answer = ims.claim(|claims| drop(claims.insert(name.to_owned(), value))).await;
        check(answer, expected);
    }
    for (name, expected) in
        [("exp", (400, "bad_request")), ("aud", (400, "invalid_client")), (&scope, (400, "invalid_scope"))]
    {
        check(ims.claim(|claims| drop(claims.remove(name))).await, expected);
    }
}

#[tokio::test]
async fn each_wrong_field_of_the_form_is_refused_as_documented() {
    let ims = ims().await;
    let right = form(&ims.document, &sign(&ims.document, &claims(&ims.document, HOST)));
    for (index, value, expected) in [
        (0, "cm-p9-e9", (400, "invalid_client")),
        (1, "p8e-wrong", (401, "invalid_client")),
        (2, "", (400, "invalid_token")),
        (2, "not.a.jwt", (400, "invalid_token")),
        // {"alg":"none"}
        (2, "eyJhbGciOiJub25lIn0.e30.", (400, "invalid_token")),
        // {"alg":"HS256"}
        (2, "eyJhbGciOiJIUzI1NiJ9.e30.AAAA", (400, "invalid_signature")),
    ] {
        let mut fields = right.clone();
        value.clone_into(&mut fields[index].1);
        check(ims.send(&fields).await, expected);
        if !value.is_empty() {
            continue;
        }
        fields.remove(index);
        check(ims.send(&fields).await, expected);
    }
    let json = ims.post("/ims/exchange/jwt").header(CONTENT_TYPE, "application/json").body("{}");
    assert_eq!(json.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(ims.ledger.issued(), 0);
}

#[tokio::test]
async fn another_key_matches_none_of_the_bindings() {
    let ims = ims().await;
    let other = ServiceCredentials::generate(HOST).unwrap().document();
    let assertion = sign(&other, &claims(&ims.document, HOST));
    let (status, answer) = ims.send(&form(&ims.document, &assertion)).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_token")));
    assert_eq!(answer["error_description"], "Could not match JWT signature to any of the bindings");
}

#[tokio::test]
async fn expires_in_is_written_as_asked() {
    let ims = ims().await;
    ims.switches.set_token_lifetime(Duration::from_secs(3));
    for (form, expected) in [
        (ExpiresIn::Milliseconds, json!(3000)),
        (ExpiresIn::Text, json!("3000")),
        (ExpiresIn::Omitted, Value::Null),
        (ExpiresIn::Raw(json!(-1)), json!(-1)),
    ] {
        ims.switches.set_expires_in(form);
        assert_eq!(ims.claim(|_| {}).await.1["expires_in"], expected);
    }
}

#[tokio::test]
async fn faults_come_in_their_order_and_then_never_or_always() {
    let ims = ims().await;
    ims.switches.push(Fault::throttled(Some(7)));
    ims.switches.push(Fault::raw(StatusCode::OK, "text/html", "<html>Please log in</html>"));
    ims.switches.push(Fault::Close);
    ims.switches.push(Fault::Delay(Duration::from_millis(1)));
    let fields = form(&ims.document, &sign(&ims.document, &claims(&ims.document, HOST)));
    let send = || ims.post("/ims/exchange/jwt").form(&fields).send();

    let throttled = send().await.unwrap();
    assert_eq!(
        (throttled.status().as_u16(), &throttled.headers()[RETRY_AFTER]),
        (429, &"7".parse().unwrap())
    );
    assert_eq!(send().await.unwrap().text().await.unwrap(), "<html>Please log in</html>");
    assert!(send().await.is_err());
    assert_eq!(ims.claim(|_| {}).await.0, 200);

    ims.switches.set_always(Some(Fault::internal_error()));
    check(ims.claim(|_| {}).await, (500, "internal_error"));
    check(ims.claim(|_| {}).await, (500, "internal_error"));
    ims.switches.set_always(None);
    assert_eq!(ims.claim(|_| {}).await.0, 200);
    assert_eq!((ims.switches.attempts(), ims.switches.exchanges()), (7, 2));
}

#[tokio::test]
async fn a_hanging_ims_has_seen_the_attempt_and_says_nothing() {
    let ims = ims().await;
    ims.switches.push(Fault::Hang);
    let attempt = ims.claim(|_| {});
    tokio::select! {
        answer = attempt => panic!("an answer: {answer:?}"),
        () = ims.switches.attempts_reach(1) => {}
    }
    assert_eq!(ims.switches.exchanges(), 0);
}

#[tokio::test]
async fn the_date_can_be_wrong() {
    let ims = ims().await;
    ims.switches.set_date_offset_seconds(-86_400);
    let answer = ims.post("/ims/exchange/jwt").send().await.unwrap();
    let yesterday = imf_fixdate(Clock::system().now() - Duration::from_secs(86_400)).unwrap();
    assert_eq!(answer.headers()[DATE].to_str().unwrap()[..16], yesterday[..16]);
    assert_eq!(answer.headers().get_all(DATE).iter().count(), 1);
}

#[test]
fn dates_have_the_form_of_http() {
    // The example of RFC 9110, section 5.6.7.
    let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
    assert_eq!(imf_fixdate(time).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
}

#[tokio::test]
async fn a_token_can_be_validated() {
    let ims = ims().await;
    let token = ims.ledger.issue(Duration::from_secs(60));
    for (token, valid) in [(token.as_str(), true), ("made-up", false)] {
        let asked = ims.post("/ims/validate_token/v1").form(&[("type", "access_token"), ("token", token)]);
        let answer: Value = serde_json::from_str(&asked.send().await.unwrap().text().await.unwrap()).unwrap();
        assert_eq!(answer["valid"], valid);
    }
}

#[tokio::test]
async fn an_oauth_credential_gets_a_token_with_either_secret_from_body_or_query() {
    let ims = ims().await;
    for secret in 0..2 {
        let parameters = parameters(&ims.oauth, secret);
        for path in ["/ims/token/v3", "/ims/token/v2"] {
            let query =
                url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&parameters).finish();
            for asked in [ims.post(path).form(&parameters), ims.post(&format!("{path}?{query}"))] {
                let (status, answer) = read(asked).await;
                assert_eq!((status, &answer["expires_in"]), (200, &json!(60)), "{answer}");
                assert_eq!(answer["token_type"], "bearer");
                let holder = ims.ledger.holder(answer["access_token"].as_str().unwrap()).unwrap();
                assert_eq!(holder.client_id, ims.oauth.client_id());
                assert_eq!(holder.user_id, ims.oauth.technical_account_id());
                assert_eq!(holder.scope, ims.oauth.scopes().join(","));
            }
        }
    }
    assert_eq!((ims.switches.oauth_attempts(), ims.switches.oauth_exchanges()), (8, 8));
    assert_eq!((ims.switches.jwt_attempts(), ims.switches.exchanges()), (0, 8));
    assert_eq!(ims.switches.last_scope(), Some(ims.oauth.scopes().join(",")));
}

#[tokio::test]
async fn each_wrong_parameter_of_an_oauth_credential_is_refused_as_documented() {
    let ims = ims().await;
    let right = parameters(&ims.oauth, 0);
    for (index, value, expected) in [
        (0, "authorization_code", (400, "unsupported_grant_type")),
        (1, "cm-p1-e2-integration-0", (400, "invalid_client")),
        (2, "p8e-wrong", (401, "invalid_client")),
        (3, "openid AdobeID", (400, "invalid_scope")),
        (3, "openid, AdobeID", (400, "invalid_scope")),
        (3, "openid,other", (400, "invalid_scope")),
    ] {
        let mut parameters = right.clone();
        value.clone_into(&mut parameters[index].1);
        check(read(ims.post("/ims/token/v3").form(&parameters)).await, expected);
        if index < 3 {
            parameters.remove(index);
            check(read(ims.post("/ims/token/v3").form(&parameters)).await, expected);
        }
    }
    check(read(ims.post("/ims/token/v3").form(&right[..3])).await, (200, "none"));

    ims.switches.set_oauth_secrets(&ims.oauth.client_secrets()[1..]);
    check(read(ims.post("/ims/token/v3").form(&right)).await, (401, "invalid_client"));
    check(read(ims.post("/ims/token/v3").form(&parameters(&ims.oauth, 1))).await, (200, "none"));
}

#[tokio::test]
async fn one_grant_can_go_wrong_while_the_other_works() {
    let ims = ims().await;
    let oauth = parameters(&ims.oauth, 0);
    let oauth = async || read(ims.post("/ims/token/v3").form(&oauth)).await;
    ims.switches.set_always_for(GrantKind::Jwt, Some(Fault::internal_error()));
    check(ims.claim(|_| {}).await, (500, "internal_error"));
    check(oauth().await, (200, "none"));
    ims.switches.set_always_for(GrantKind::Jwt, None);
    ims.switches.push_for(GrantKind::OAuth, Fault::throttled(None));
    check(ims.claim(|_| {}).await, (200, "none"));
    check(oauth().await, (429, "too_many_requests"));
    check(oauth().await, (200, "none"));
    assert_eq!((ims.switches.jwt_exchanges(), ims.switches.oauth_exchanges()), (1, 2));
}

#[tokio::test]
async fn an_answer_can_say_less_than_usual() {
    let ims = ims().await;
    ims.switches.set_token_type(false);
    ims.switches.set_look(Look::Opaque);
    ims.switches.set_expires_in_for(GrantKind::OAuth, ExpiresIn::Omitted);
    let (_, answer) = read(ims.post("/ims/token/v3").form(&parameters(&ims.oauth, 0))).await;
    let token = answer["access_token"].as_str().unwrap();
    assert!(token.starts_with("p8e-") && ims.ledger.verdict(token) == Verdict::Live);
    assert_eq!(answer.as_object().unwrap().len(), 1);
    assert_eq!(ims.claim(|_| {}).await.1["expires_in"], 60_000);
}
