//! `check` says in words what is right, what is wrong, and what to do.

use std::time::Duration;

use aem_auth_proxy::{
    clock::Clock,
    secret::SecretString,
    standin::{
        StandIns,
        ims::{Fault, GrantKind},
        keys::ServiceCredentials,
    },
};
use http::StatusCode;

use crate::{
    commands::{path, run, text},
    harness::{Setup, Upstream, file},
};

/// Stand-ins over TLS, and a configuration for two credentials at two routes.
struct Checked {
    standins: StandIns,
    config: tempfile::NamedTempFile,
    _ca: tempfile::NamedTempFile,
}

impl Checked {
    async fn new(setup: Setup) -> Self {
        let standins = setup.tls().start_standins().await;
        let ca = file(standins.ca_pem.as_deref().unwrap());
        let oauth = &standins.oauth;
        let secrets: Vec<_> = oauth.client_secrets().iter().map(SecretString::expose_secret).collect();
        let config = file(&format!(
            "ca_file = '{}'
            [credentials.main]
            json = '{}'
            fallback = 'open-api'
            [credentials.open-api]
            client_id = '{}'
            client_secret = {secrets:?}
            scopes = {:?}
            ims_endpoint = '{}'
            [proxies.author]
            listen = '127.0.0.1:0'
            upstream = '{}'
            [[proxies.author.routes]]
            path = '/adobe/*'
            credentials = 'open-api'",
            path(ca.path()),
            // In a literal string of TOML the escapes of JSON stay as they are.
            standins.credentials_document,
            oauth.client_id(),
            oauth.scopes(),
            standins.ims_endpoint,
            standins.aem_origin,
        ));
        Self { standins, config, _ca: ca }
    }

    async fn check(&self, more: &[&str]) -> (i32, String) {
        let mut args = vec!["check", "--config", path(self.config.path())];
        args.extend(more);
        let (code, out, err) = text(&run(&args, &[]).await);
        assert_eq!(err, "");
        (code, out)
    }
}

#[track_caller]
fn assert_has(out: &str, lines: &[&str]) {
    for line in lines {
        let found = out.lines().any(|found| {
            let mut rest = found;
            line.split(" .. ").all(|part| match rest.find(part) {
                Some(at) => {
                    rest = &rest[at + part.len()..];
                    true
                }
                None => false,
            })
        });
        assert!(found, "{line} in\n{out}");
    }
}

#[tokio::test]
async fn each_credential_and_each_route_is_tried() {
    let checked = Checked::new(Setup::default()).await;
    let (code, out) = checked.check(&[]).await;
    assert_eq!(code, 0, "{out}");
    assert_has(
        &out,
        &[
            "ok .. credentials .. main .. service credentials (JWT) .. key matches certificate, fallback open-api",
            "ok .. certificate .. main .. days left",
            "ok .. ims .. main .. gave a token",
            "ok .. clock .. main",
            "ok .. credentials .. open-api .. OAuth Server-to-Server .. 2 secrets",
            "ok .. ims .. open-api .. scopes openid",
            "ok .. aem .. author with open-api .. GET /adobe/",
            "ok .. aem .. author with main .. answered 200 to GET /api/assets.json",
            // The fallback has to work where it would take over.
            "ok .. aem .. author with open-api .. answered 200 to GET /api/assets.json",
        ],
    );
    let (code, out) = checked.check(&["--path", "/content/dam.json"]).await;
    assert_has(&out, &["author with main .. GET /content/dam.json"]);
    assert_eq!(code, 0, "{out}");
    let args = ["check", "--path", "content", "--config", path(checked.config.path())];
    let (code, _, err) = text(&run(&args, &[]).await);
    assert!(code == 64 && err.contains("begin with /"), "{err}");
}

#[tokio::test]
async fn what_is_refused_has_its_likely_cause_and_the_rest_is_tried_all_the_same() {
    let checked = Checked::new(Setup::default()).await;
    let dead = Fault::refusal(
        StatusCode::BAD_REQUEST,
        "invalid_token",
        "Could not match JWT signature to any of the bindings",
    );
    checked.standins.ims.set_always_for(GrantKind::Jwt, Some(dead));
    checked.standins.aem.reserve("/adobe/", "somebody-else");
    let (code, out) = checked.check(&[]).await;
    assert_eq!(code, 1, "{out}");
    assert_has(
        &out,
        &[
            "WRONG .. ims .. main .. IMS refused the credentials (status 400, invalid_token) .. x-debug-id",
            "-> no certificate at Adobe matches the private key",
            "ok .. ims .. open-api",
            "WRONG .. aem .. author with open-api .. answered 401 to GET /adobe/",
            "-> .. api.yaml",
            "ok .. aem .. author with open-api .. /api/assets.json",
        ],
    );
    assert!(!out.contains("author with main"), "{out}");
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_noted_and_wrong_for_the_strict() {
    let ends = |days: u64| {
        let mut setup = Setup::default();
        let end = Clock::system().now() + Duration::from_secs(days * 86_400 + 3600);
        let credentials = setup.standins.credentials.take().unwrap();
        setup.standins.credentials = Some(ServiceCredentials::expiring_at(credentials, end).unwrap());
        setup
    };
    for (days, strict, mark, expected) in [
        (40, true, "ok    ", 0),
        (20, true, "note  ", 0),
        (7, true, "note  ", 0),
        (6, false, "note  ", 0),
        (6, true, "WRONG ", 1),
    ] {
        let checked = Checked::new(ends(days)).await;
        let args: &[&str] = if strict { &["--offline", "--strict"] } else { &["--offline"] };
        let (code, out) = checked.check(args).await;
        assert_eq!(code, expected, "{days} {strict}: {out}");
        assert_has(&out, &[&format!("{mark} certificate .. main .. {days} days left")]);
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_noted_though_the_exchange_succeeds() {
    let checked = Checked::new(Setup::default()).await;
    checked.standins.ims.set_date_offset_seconds(-120);
    let (code, out) = checked.check(&[]).await;
    assert_eq!(code, 0, "{out}");
    assert_has(&out, &["note .. clock .. main .. s ahead of IMS's", "-> set it right (NTP)"]);
}

#[tokio::test]
async fn credentials_of_another_environment_and_unused_ones_are_noted_offline() {
    let standins = Setup::default().start_standins().await;
    let config = file(&format!(
        "[credentials.main]
        json = '{}'
        [credentials.spare]
        user = 'admin'
        password = 'admin'
        [proxies.stage]
        listen = '127.0.0.1:0'
        upstream = 'https://author-p9-e8.adobeaemcloud.com'
        credentials = 'main'",
        standins.credentials_document
    ));
    let args = ["check", "--offline", "--config", path(config.path())];
    let (code, out, _) = text(&run(&args, &[]).await);
    assert_eq!(code, 0, "{out}");
    assert_has(
        &out,
        &[
            "note .. credentials .. spare .. no proxy uses them",
            "note .. environment .. stage with main .. the credentials are of p1-e2, author-p9-e8.adobeaemcloud.com is p9-e8",
        ],
    );
    assert_eq!(standins.ims.attempts(), 0);
}

#[tokio::test]
async fn aem_is_asked_with_all_that_a_route_sends() {
    let aem = Upstream::bind().await;
    let config = file(&format!(
        "auth = 'none'
        [proxies.author]
        listen = '127.0.0.1:0'
        upstream = '{}'
        headers = {{ X-Edge-Key = 'sesame' }}",
        aem.origin()
    ));
    let args = ["check", "--config", path(config.path())];
    let answering = async {
        let mut asked = aem.accept().await;
        let head = asked.until("\r\n\r\n").await;
        asked.send("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
        head
    };
    let (output, head) = tokio::join!(run(&args, &[]), answering);
    let (code, out, _) = text(&output);
    assert!(code == 0 && head.contains("\r\nx-edge-key: sesame\r\n"), "{out}\n{head}");
}

#[tokio::test]
async fn a_field_of_a_route_whose_file_is_missing_is_wrong_and_aem_is_not_asked() {
    let origin = Upstream::bind().await.origin();
    let variables = [
        ("AEM_PROXY_AUTH", "none"),
        ("AEM_PROXY_UPSTREAM", origin.as_str()),
        ("AEM_PROXY_PROXIES__DEFAULT__HEADER_FILES__X_SECRET", "/nowhere/secret"),
    ];
    let (code, out, err) = text(&run(&["check"], &variables).await);
    assert_eq!(code, 1, "{out}{err}");
    assert_has(&out, &["WRONG .. fields .. /nowhere/secret) cannot be read"]);
    assert!(!out.contains("aem "), "{out}");
}

#[tokio::test]
async fn an_address_that_cannot_be_listened_at_is_told_with_its_cause() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let variables = |listen: &str, admin: &str| {
        [
            ("AEM_PROXY_UPSTREAM", "http://localhost:1".to_owned()),
            ("AEM_PROXY_AUTH", "none".to_owned()),
            ("AEM_PROXY_LISTEN", listen.to_owned()),
            ("AEM_PROXY_ADMIN__LISTEN", admin.to_owned()),
        ]
    };
    for (listen, admin, words) in [
        (taken.as_str(), "off", ["`listen`", "is in use"]),
        ("127.0.0.1:0", &taken, ["`admin.listen`", "is in use"]),
        ("192.0.2.1:1", "off", ["`listen`", "no address of this machine"]),
    ] {
        let mut variables = variables(listen, admin).to_vec();
        variables.push(("AEM_PROXY_GUARD__ALLOW_REMOTE", "true".to_owned()));
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (_, out, err) = text(&run(&["check", "--offline"], &variables).await);
        assert!(words.iter().all(|words| out.contains(words)), "{listen} {admin}: {out}{err}");
        // The proxy that is running has its addresses: that is no failure.
        assert_eq!(out.contains("WRONG"), words[1] != "is in use", "{out}");
    }
}

#[tokio::test]
async fn an_ims_with_trouble_of_its_own_says_so_with_the_next_step() {
    let standins = Setup::default().start_standins().await;
    let document = standins.credentials_document.to_string();
    for status in [500, 502, 503] {
        let status = StatusCode::from_u16(status).unwrap();
        standins.ims.set_always(Some(Fault::raw(status, "text/html", "<h1>trouble</h1>")));
        let variables =
            [("AEM_PROXY_UPSTREAM", standins.aem_origin.as_str()), ("AEM_PROXY_CREDENTIALS_JSON", &document)];
        let (code, out, err) = text(&run(&["check"], &variables).await);
        assert!(
            code == 1 && out.contains(&format!("IMS is unavailable (status {}", status.as_u16())),
            "{out}{err}"
        );
        assert!(out.contains("status.adobe.com"), "{out}");
    }
}
