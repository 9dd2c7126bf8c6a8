//! The full form: several listeners, credentials and routes in one process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aem_auth_proxy::standin::StandIns;
use tokio::{task::JoinSet, time::timeout};

use crate::harness::{PATIENCE, Proxy, Seen, Setup, client, file, with_upstream};

/// JWT credentials called `main`, OAuth credentials called `open-api`.
pub fn both(setup: Setup, standins: &StandIns) -> Setup {
    let oauth = &standins.oauth;
    setup
        .set("CREDENTIALS__MAIN__JSON", standins.credentials_document.to_string())
        .set("CREDENTIALS__OPEN-API__CLIENT_ID", oauth.client_id())
        .set("CREDENTIALS__OPEN-API__CLIENT_SECRET", oauth.client_secrets()[0].expose_secret())
        .set("CREDENTIALS__OPEN-API__SCOPES", oauth.scopes().join(","))
        .set("CREDENTIALS__OPEN-API__ORG_ID", "0123456789@AdobeOrg")
        .set("CREDENTIALS__OPEN-API__IMS_ENDPOINT", standins.ims_endpoint.clone())
}

/// Author, publish and preview at three listeners; `/adobe/` of author with OAuth.
async fn three_listeners(setup: Setup) -> Proxy {
    let standins = setup.start_standins().await;
    let aem = standins.aem_origin.clone();
    standins.aem.reserve("/adobe/", standins.oauth.client_id());
    let mut setup = both(setup, &standins).set("UPSTREAMS__AEM__URL", aem);
    for name in ["AUTHOR", "PREVIEW", "PUBLISH"] {
        setup = setup
            .set(&format!("PROXIES__{name}__LISTEN"), "127.0.0.1:0")
            .set(&format!("PROXIES__{name}__CREDENTIALS"), "main");
    }
    setup
        .set("PROXIES__AUTHOR__ROUTES__0__PATH", "/adobe/*")
        .set("PROXIES__AUTHOR__ROUTES__0__CREDENTIALS", "open-api")
        .set("PROXIES__AUTHOR__ROUTES__0__X_API_KEY", "true")
        .set("PROXIES__AUTHOR__ROUTES__0__X_GW_IMS_ORG_ID", "true")
        .start_with(standins)
        .await
}

/// Whose token AEM got for `path`, which it took.
async fn whose(client: &reqwest::Client, addr: SocketAddr, path: &str) -> String {
    let answer = client.get(format!("http://{addr}{path}")).send().await.expect("the proxy answers");
    assert_eq!(answer.status(), 200, "{path}");
    answer.headers()["x-standin-client"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn sixty_four_clients_of_three_listeners_get_the_right_token_from_two_exchanges() {
    let proxy = three_listeners(Setup::default()).await;
    proxy.ready().await;
    assert_eq!(proxy.addrs.len(), 3);
    let jwt = proxy.standins.credentials_document["integration"]["technicalAccount"]["clientId"].clone();
    let jwt: Arc<str> = jwt.as_str().unwrap().into();
    let oauth: Arc<str> = proxy.standins.oauth.client_id().into();
    let (author, others) = (proxy.addrs[0], [proxy.addrs[1], proxy.addrs[2]]);
    let mut clients = JoinSet::new();
    for number in 0..64 {
        let (jwt, oauth) = (Arc::clone(&jwt), Arc::clone(&oauth));
        clients.spawn(async move {
            let client = client();
            for round in 0..10 {
                assert_eq!(whose(&client, author, "/adobe/sites/cf?limit=1").await, *oauth);
                assert_eq!(whose(&client, author, "/api/assets.json").await, *jwt);
                assert_eq!(whose(&client, others[(number + round) % 2], "/api/assets.json").await, *jwt);
            }
        });
    }
    timeout(PATIENCE * 3, clients.join_all()).await.expect("all answers come");
    let ims = &proxy.standins.ims;
    assert_eq!((ims.jwt_attempts(), ims.oauth_attempts()), (1, 1));
    assert_eq!(proxy.standins.aem.refused(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn each_credential_is_exchanged_once_in_each_refresh_period() {
    let setup = Setup::default().token_lifetime(Duration::from_secs(2));
    let proxy = three_listeners(setup).await;
    proxy.ready().await;
    let addrs = proxy.addrs.clone();
    let load = tokio::spawn(async move {
        let client = client();
        loop {
            for (addr, path) in [(0, "/adobe/x"), (0, "/api/assets.json"), (1, "/api/assets.json")] {
                whose(&client, addrs[addr], path).await;
            }
        }
    });
    let ims = &proxy.standins.ims;
    timeout(PATIENCE, ims.exchanges_reach(8)).await.expect("tokens are refreshed");
    let status = proxy.status().await;
    // Each exchange made the next generation of a token: none was for nothing.
    let generations = |number: usize| status["credentials"][number]["token"]["generation"].as_u64().unwrap();
    let exchanges = (ims.jwt_exchanges() as u64, ims.oauth_exchanges() as u64);
    assert!(exchanges.0 - generations(0) <= 1 && exchanges.1 - generations(1) <= 1, "{status}");
    assert!(exchanges.0.abs_diff(exchanges.1) <= 1, "{exchanges:?}");
    assert!(!load.is_finished(), "a request failed");
    load.abort();
    proxy.stop().await;
}

#[tokio::test]
async fn a_route_sends_the_client_id_and_the_organisation_unless_the_app_does() {
    let proxy = three_listeners(Setup::default()).await;
    proxy.ready().await;
    let ask = async |path: &str, fields: &[(&str, &str)]| {
        let mut request = client().get(proxy.url(path));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        Seen(request.send().await.unwrap().json().await.unwrap())
    };
    let seen = ask("/adobe/x", &[]).await;
    assert_eq!(seen.one("x-api-key").as_deref(), Some(proxy.standins.oauth.client_id()));
    assert_eq!(seen.one("x-gw-ims-org-id").as_deref(), Some("0123456789@AdobeOrg"));
    let seen = ask("/adobe/x", &[("X-API-Key", "own"), ("x-gw-ims-org-id", "mine")]).await;
    assert_eq!(
        (seen.one("x-api-key").as_deref(), seen.one("x-gw-ims-org-id").as_deref()),
        (Some("own"), Some("mine"))
    );
    let seen = ask("/echo", &[]).await;
    assert_eq!((seen.one("x-api-key"), seen.one("x-gw-ims-org-id")), (None, None));
    proxy.stop().await;
}

#[tokio::test]
async fn static_fields_take_the_place_of_the_apps_and_follow_their_files() {
    let secret = file("p8e-one\n");
    let setup = Setup::default();
    let standins = setup.start_standins().await;
    let proxy = setup
        .set("CREDENTIALS__MAIN__JSON", standins.credentials_document.to_string())
        .set("PROXIES__AUTHOR__LISTEN", "127.0.0.1:0")
        .set("PROXIES__AUTHOR__UPSTREAM", standins.aem_origin.clone())
        .set("PROXIES__AUTHOR__HEADERS__X_TENANT", "blue")
        .set("PROXIES__AUTHOR__HEADER_FILES__X_SECRET", secret.path().display().to_string())
        .set("PROXIES__AUTHOR__ROUTES__0__PATH", "/echo")
        .set("PROXIES__AUTHOR__ROUTES__0__HEADERS__X_TENANT", "green")
        .set("WATCH__POLL", "100ms")
        .start_with(standins)
        .await;
    proxy.ready().await;
    let seen = proxy.echo(&[("X-Tenant", "red"), ("x-secret", "guess")]).await;
    assert_eq!(seen.one("x-tenant").as_deref(), Some("green"));
    assert_eq!(seen.one("x-secret").as_deref(), Some("p8e-one"));

    std::fs::write(secret.path(), "p8e-two").unwrap();
    let changed = async {
        while proxy.echo(&[]).await.one("x-secret").as_deref() != Some("p8e-two") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, changed).await.expect("the new secret is sent");
    proxy.stop().await;
}

#[tokio::test]
async fn a_password_follows_its_file_and_an_empty_one_changes_nothing() {
    let password = file("admin\n");
    let setup = Setup::default()
        .set("AUTH", "basic")
        .set("BASIC__PASSWORD_FILE", password.path().display().to_string())
        .set("WATCH__POLL", "100ms");
    let (proxy, upstream) = with_upstream(setup).await;
    let sent = async || {
        let mut connection = proxy.connect().await;
        connection.send("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        let mut aem = upstream.accept().await;
        let head = aem.until("\r\n\r\n").await;
        aem.send("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
        connection.rest().await;
        let value = head.lines().find_map(|line| line.strip_prefix("authorization: Basic "));
        value.unwrap().to_owned()
    };
    assert_eq!(sent().await, "YWRtaW46YWRtaW4=");
    std::fs::write(password.path(), "other").unwrap();
    let changed = async { while sent().await != "YWRtaW46b3RoZXI=" {} };
    timeout(PATIENCE, changed).await.expect("the new password is sent");

    std::fs::write(password.path(), "").unwrap();
    let told = format!("{}) is empty", password.path().display());
    crate::rotation::until_logged(&told, 1).await;
    assert_eq!(sent().await, "YWRtaW46b3RoZXI=");
    proxy.stop().await;
}

#[tokio::test]
async fn a_route_may_go_to_another_aem_and_without_a_token() {
    let other = crate::harness::Upstream::bind().await;
    let setup = Setup::default();
    let standins = setup.start_standins().await;
    let proxy = setup
        .set("CREDENTIALS__MAIN__JSON", standins.credentials_document.to_string())
        .set("PROXIES__AUTHOR__LISTEN", "127.0.0.1:0")
        .set("PROXIES__AUTHOR__UPSTREAM", standins.aem_origin.clone())
        .set("PROXIES__AUTHOR__ROUTES__0__PATH", "/content/public")
        .set("PROXIES__AUTHOR__ROUTES__0__UPSTREAM", other.origin())
        .set("PROXIES__AUTHOR__ROUTES__0__CREDENTIALS", "none")
        .start_with(standins)
        .await;
    proxy.ready().await;
    let mut app = proxy.connect().await;
    // One connection, two upstreams: each has connections of its own.
    for _ in 0..2 {
        app.send("GET /content/public.html?x HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut aem = other.accept().await;
        let head = aem.until("\r\n\r\n").await;
        assert!(
            head.starts_with("GET /content/public.html?x HTTP/1.1\r\n") && !head.contains("authorization"),
            "{head}"
        );
        aem.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        assert!(app.response().await.starts_with("HTTP/1.1 200"));
        app.send("GET /echo HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(app.until("\"authorization\"").await.starts_with("HTTP/1.1 200"));
        app = proxy.connect().await;
    }
    let status = proxy.status().await;
    assert_eq!(status["proxies"][0]["routes"][0]["auth"], "none");
    assert_eq!(status["proxies"][0]["credentials"], "main");
    proxy.stop().await;
}

#[tokio::test]
async fn credentials_of_another_environment_are_warned_of_at_the_start() {
    let setup = Setup::default();
    let standins = setup.start_standins().await;
    let proxy = setup
        .set("CREDENTIALS__ASTRAY__JSON", standins.credentials_document.to_string())
        .set("PROXIES__STAGE__LISTEN", "127.0.0.1:0")
        .set("PROXIES__STAGE__UPSTREAM", "https://author-p9-e8.adobeaemcloud.com")
        .start_with(standins)
        .await;
    let told = "The credentials are of p1-e2, the upstream is p9-e8: AEM will refuse the token credential=\"astray\"";
    crate::rotation::until_logged(told, 1).await;
    proxy.stop().await;
}
