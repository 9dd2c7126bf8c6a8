//! IMS down, refusing, throttling, talking nonsense: what the app gets, what is logged, when it is asked again.

use std::time::Duration;

use aem_auth_proxy::standin::ims::Fault;
use http::StatusCode;
use serde_json::json;

use crate::{
    harness::{PATIENCE, Proxy, Setup},
    log,
};

#[tokio::test]
async fn ims_down_at_start_is_waited_out() {
    let setup = Setup::default();
    let mut standins = setup.start_standins().await;
    standins.ims_server.stop().await;
    let mut proxy = setup.start_with(standins).await;
    proxy.until("/status", 200).await;
    assert_eq!(proxy.ask("/live").await.0, 200);
    assert_eq!(proxy.ask("/startup").await.0, 503);
    assert_eq!(proxy.ask("/ready").await.0, 503);
    check_no_token(&proxy).await;
    assert_eq!(proxy.standins.aem.requests(), 0, "something left without a token");

    proxy.standins.ims_server.restart().await.unwrap();
    proxy.ready().await;
    assert_eq!(proxy.ask("/startup").await.0, 200);
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    proxy.stop().await;
}

#[tokio::test]
async fn ims_down_later_leaves_the_old_token_to_its_end() {
    let setup = Setup::default().token_lifetime(Duration::from_secs(2));
    let mut proxy = setup.start().await;
    proxy.standins.ims_server.stop().await;
    let mut served = 0;
    let refused = loop {
        let response = proxy.get("/api/assets.json").await;
        if response.status() != 200 {
            break response;
        }
        served += 1;
    };
    assert!(served > 0 && refused.status() == 503);
    assert_eq!((proxy.standins.aem.expired_seen(), proxy.standins.aem.refused()), (0, 0));
    assert_eq!((proxy.ask("/ready").await.0, proxy.ask("/startup").await.0), (503, 200));

    proxy.standins.ims_server.restart().await.unwrap();
    proxy.ready().await;
    proxy.stop().await;
}

async fn check_no_token(proxy: &Proxy) {
    let response = proxy.get("/api/assets.json").await;
    assert_eq!(response.status(), 503);
    let headers = response.headers();
    let retry_after: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=300).contains(&retry_after));
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["proxy-status"], "aem-auth-proxy; error=destination_unavailable; details=\"token\"");
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!(problem["status"], 503);
}

/// Until then the attempts of the back-off come late; now requests wait, and with them comes the token.
#[tokio::test]
async fn requests_make_the_token_come_soon_after_ims_is_well() {
    for hangs in [false, true] {
        let standins = Setup::default().start_standins().await;
        standins.ims.set_always(Some(if hangs { Fault::Hang } else { Fault::internal_error() }));
        // Longer than a test waits: an attempt that hangs must not be waited for.
        let proxy = Setup::default().set("TIMEOUTS__IMS", "1h").start_with(standins).await;
        let asked = async {
            while proxy.standins.ims.attempts() < if hangs { 2 } else { 4 } {
                assert_eq!(proxy.get("/api/assets.json").await.status(), 503);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(2 * PATIENCE, asked).await.expect("requests cause attempts");
        proxy.standins.ims.set_always(None);
        let served = async {
            while proxy.get("/api/assets.json").await.status() != 200 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, served).await.expect("a token comes");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn no_request_makes_ims_be_asked_before_the_time_that_it_has_said() {
    let (proxy, _) = after(Fault::throttled(Some(3600))).await;
    for _ in 0..200 {
        assert_eq!(proxy.get("/api/assets.json").await.status(), 503);
    }
    for _ in 0..20 {
        proxy.hang_up().await;
    }
    // One more time for each signal: what a signal asks for, it has asked for by then.
    for _ in 0..20 {
        proxy.status().await;
    }
    assert_eq!(proxy.standins.ims.attempts(), 1);
    proxy.stop().await;
}

/// Starts with `fault` for the first exchange, and tells the credential's status after it.
async fn after(fault: Fault) -> (Proxy, serde_json::Value) {
    let setup = Setup::default();
    let standins = setup.start_standins().await;
    standins.ims.push(fault);
    let proxy = setup.start_with(standins).await;
    let failed = async {
        loop {
            let token = proxy.status().await["credentials"][0]["token"].clone();
            if token["failures"].as_u64() > Some(0) || token["valid"] == true {
                return token;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let token = tokio::time::timeout(PATIENCE, failed).await.expect("the exchange ends");
    (proxy, token)
}

fn wait_seconds(token: &serde_json::Value) -> u64 {
    let at = |value: &serde_json::Value| humantime::parse_rfc3339(value.as_str().unwrap()).unwrap();
    at(&token["next_refresh"]).duration_since(at(&token["last_error"]["at"])).unwrap().as_secs()
}

/// Adobe's table of refusals: each is permanent, is logged with its code and hint and with nothing of the description,
/// and is tried again after 15 s at first: Adobe may need minutes to know a new secret.
#[tokio::test]
async fn a_refusal_is_told_with_its_meaning_and_retried_slowly() {
    let bindings = "Could not match JWT signature to any of the bindings";
    for (status, code, description, hint) in [
        (400, "invalid_client", "echo-1 eyJhbGciOiJub25lIn0", "does not know the client id"),
        (401, "invalid_client", "echo-2 p8e-echoed", "do not belong together"),
        (400, "invalid_token", "echo-3", "gave no reason that can be seen"),
        (400, "invalid_token", bindings, "no certificate at Adobe matches"),
        (400, "invalid_signature", "echo-4", "no certificate at Adobe matches"),
        (400, "invalid_scope", "echo-5", "not bound to this technical account"),
        (400, "bad_request", "echo-6", "id or org in the document is malformed"),
    ] {
        let fault = Fault::refusal(StatusCode::from_u16(status).unwrap(), code, description);
        let (proxy, token) = after(fault).await;
        let error = &token["last_error"];
        assert_eq!(error["class"], "refused", "{code}");
        assert_eq!(error["message"], format!("IMS refused the credentials (status {status}, {code})"));
        assert!(error["hint"].as_str().unwrap().contains(hint), "{error}");
        assert!((11..=15).contains(&wait_seconds(&token)), "{token}");
        check_no_token(&proxy).await;
        let metric = "aem_proxy_token_refreshes_total{credential=\"default\",outcome=\"refused\"}";
        assert_eq!(proxy.metric(metric).await, 1.0);
        proxy.stop().await;
    }
    assert!(log::count("debug_id=") >= 7, "x-debug-id is for Adobe's support");
    assert_eq!(log::count("echo-") + log::count(bindings), 0, "a description was logged");
    assert!(log::count("trying again will not help") >= 7);
}

#[tokio::test]
async fn trouble_at_ims_is_retried_soon() {
    let html = Fault::raw(StatusCode::OK, "text/html", "<html>log in</html>");
    let no_token = Fault::json(StatusCode::OK, &json!({"token_type": "bearer"}));
    let cut = Fault::raw(StatusCode::OK, "application/json", "{\"access_token\":\"ey");
    let gateway = Fault::raw(StatusCode::FORBIDDEN, "text/html", "blocked");
    let busy = Fault::raw(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "later");
    for (fault, class, hint) in [
        (Fault::internal_error(), "unavailable", Some("moved to OAuth Server-to-Server")),
        (busy, "unavailable", Some("trouble of its own")),
        (Fault::throttled(None), "throttled", None),
        (html, "malformed", Some("somebody else may have answered")),
        (no_token, "malformed", Some("somebody else")),
        (cut, "malformed", Some("somebody else")),
        (gateway, "malformed", Some("somebody else")),
        (Fault::Close, "unreachable", None),
    ] {
        let (proxy, token) = after(fault).await;
        if token["valid"] != true {
            let error = &token["last_error"];
            assert_eq!(error["class"], class, "{error}");
            if let Some(hint) = hint {
                assert!(error["hint"].as_str().unwrap().contains(hint), "{error}");
            }
            assert!(wait_seconds(&token) <= 1, "{token}");
        }
        // The loop goes on, whatever came.
        proxy.ready().await;
        let metric = format!("aem_proxy_token_refreshes_total{{credential=\"default\",outcome=\"{class}\"}}");
        assert_eq!(proxy.metric(&metric).await, 1.0, "{class}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn retry_after_decides_when_ims_is_asked_again() {
    for fault in [Fault::throttled(Some(40)), Fault::internal_error().with_header("retry-after", "40")] {
        let (proxy, token) = after(fault).await;
        assert!((40..=45).contains(&wait_seconds(&token)), "{token}");
        let retry_after = proxy.get("/").await.headers()["retry-after"].to_str().unwrap().to_owned();
        assert!((10..=46).contains(&retry_after.parse::<u64>().unwrap()), "{retry_after}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn an_ims_that_hangs_is_given_up_in_time_and_asked_again() {
    let setup = Setup::default().set("TIMEOUTS__IMS", "200ms");
    let standins = setup.start_standins().await;
    standins.ims.push(Fault::Hang);
    let proxy = setup.start_with(standins).await;
    proxy.ready().await;
    let metric = "aem_proxy_token_refreshes_total{credential=\"default\",outcome=\"unreachable\"}";
    assert_eq!(proxy.metric(metric).await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_wrong_clock_is_measured_and_told() {
    let setup = Setup::default();
    let standins = setup.start_standins().await;
    standins.ims.set_date_offset_seconds(3600);
    standins.ims.push(Fault::refusal(StatusCode::BAD_REQUEST, "invalid_token", ""));
    let proxy = setup.start_with(standins).await;
    let told = async {
        loop {
            let error = proxy.status().await["credentials"][0]["token"]["last_error"]["hint"].clone();
            if let Some(hint) = error.as_str() {
                return hint.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let hint = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(hint.starts_with("this machine's clock is 3") && hint.contains("behind IMS's"), "{hint}");
    proxy.stop().await;
}
