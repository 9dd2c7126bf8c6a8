//! The admin listener: meaning, names, and no secrets.

use crate::{
    harness::{Proxy, Setup, client},
    log::secret_in,
};

#[tokio::test]
async fn a_running_proxy_is_live_started_and_ready() {
    let proxy = Proxy::start().await;
    for path in ["/live", "/startup", "/ready"] {
        assert_eq!(proxy.ask(path).await.0, 200, "{path}");
    }
    assert_eq!(proxy.ask("/nothing").await.0, 404);
    proxy.stop().await;
}

#[tokio::test]
async fn aem_being_down_does_not_change_readiness() {
    let mut proxy = Setup::default().set("TIMEOUTS__RECONNECT", "0s").start().await;
    proxy.standins.aem_server.stop().await;
    assert_eq!(proxy.get("/").await.status(), 502);
    assert_eq!(proxy.ask("/ready").await.0, 200);
    proxy.stop().await;
}

#[tokio::test]
async fn status_tells_all_that_is_known_but_no_secret() {
    let proxy = Proxy::start().await;
    let status = proxy.status().await;
    let credential = &status["credentials"][0];
    let document = &proxy.standins.credentials_document["integration"];
    assert_eq!(credential["kind"], "jwt");
    assert_eq!(credential["client_id"], document["technicalAccount"]["clientId"]);
    assert_eq!(credential["technical_account"], document["id"]);
    assert_eq!(credential["token"]["generation"], 1);
    for name in ["issued_at", "expires_at", "next_refresh"] {
        assert!(credential["token"][name].as_str().unwrap().ends_with('Z'), "{name}");
    }
    assert!(credential["certificate_expires_at"].is_string());
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["uptime_seconds"].is_u64());
    assert_eq!(status["proxies"][0]["auth"], "bearer");
    for path in ["/status", "/", "/metrics", "/ready"] {
        let (_, text) = proxy.ask(path).await;
        assert_eq!(secret_in(&text), None, "{path}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn metrics_have_the_names_of_the_contract() {
    let proxy = Proxy::start().await;
    proxy.get("/api/assets.json").await;
    let response = client().get(format!("http://{}/metrics", proxy.admin)).send().await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = response.text().await.unwrap();
    for line in [
        "aem_proxy_requests_total{method=\"GET\",proxy=\"default\",status_class=\"2xx\"} 1",
        "aem_proxy_request_duration_seconds_count{proxy=\"default\"} 1",
        "aem_proxy_requests_in_flight{proxy=\"default\"} 0",
        "aem_proxy_token_refreshes_total{credential=\"default\",outcome=\"success\"} 1",
        "aem_proxy_token_expiry_timestamp_seconds{credential=\"default\"} 1",
        "aem_proxy_certificate_expiry_timestamp_seconds{credential=\"default\"} 1",
        "aem_proxy_upstream_unauthorized_total{outcome=\"passed\",proxy=\"default\"} 0",
        "aem_proxy_build_info{",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_page_of_another_site_cannot_read_the_status() {
    let proxy = Proxy::start().await;
    let url = format!("http://{}/status", proxy.admin);
    for (field, value) in [("host", "evil.example"), ("origin", "https://evil.example")] {
        let response = client().get(&url).header(field, value).send().await.unwrap();
        assert_eq!(response.status(), 403);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn only_get_is_answered() {
    let proxy = Proxy::start().await;
    let response = client().post(format!("http://{}/ready", proxy.admin)).send().await.unwrap();
    assert_eq!(response.status(), 405);
    proxy.stop().await;
}
