//! AEM does not take the token: another one is bought once, and the request is sent again where that can be done.

use std::{sync::Arc, time::Duration};

use aem_auth_proxy::standin::{
    ims::Fault,
    pattern::{pattern, sha256_hex},
};
use tokio::{sync::Barrier, task::JoinSet};

use crate::harness::{Proxy, Raw, Setup, Upstream, with_upstream};

const UNAUTHORIZED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 4\r\n\r\nno! ";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn outcome(proxy: &Proxy, outcome: &str) -> f64 {
    proxy
        .metric(&format!("aem_proxy_upstream_unauthorized_total{{outcome=\"{outcome}\",proxy=\"default\"}}"))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_with_bodies_notice_nothing_of_a_revoked_token() {
    let proxy = Arc::new(Setup::default().tls().start().await);
    let exchanges = proxy.standins.ims.exchanges();
    let revoked = Arc::new(Barrier::new(65));
    let mut clients = JoinSet::new();
    for number in 0..64 {
        let (proxy, revoked) = (proxy.clone(), revoked.clone());
        clients.spawn(async move {
            let body = pattern(16 * 1024);
            // Some are known to be as long as they are, some are not.
            let (head, end) = if number % 2 == 0 {
                (format!("content-length: {}\r\n\r\n", body.len()), "")
            } else {
                (format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len()), "\r\n0\r\n\r\n")
            };
            let mut app = proxy.connect().await;
            for round in 0..10 {
                if round == 3 {
                    revoked.wait().await;
                    revoked.wait().await;
                }
                app.send(format!("POST /upload HTTP/1.1\r\nhost: localhost\r\n{head}")).await;
                app.send(&body).await;
                app.send(end).await;
                let answer = app.response().await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                assert!(answer.contains(&sha256_hex(&body)), "{answer}");
            }
        });
    }
    revoked.wait().await;
    proxy.standins.ledger.revoke_all();
    revoked.wait().await;
    while let Some(client) = clients.join_next().await {
        client.expect("no client sees a refusal");
    }
    assert_eq!(proxy.standins.ims.exchanges() - exchanges, 1);
    assert!(outcome(&proxy, "replayed").await >= 1.0);
    for other in ["passed", "refused_again", "cooling_down", "no_new_token"] {
        assert_eq!(outcome(&proxy, other).await, 0.0, "{other}");
    }
}

#[tokio::test]
async fn a_permanent_refusal_costs_one_replay_and_one_exchange_in_each_cooldown() {
    let proxy = Setup::default().set("TOKEN__COOLDOWN", "1h").start().await;
    let exchanges = proxy.standins.ims.exchanges();
    // AEM takes no token of this client's here.
    proxy.standins.aem.reserve("/echo", "somebody-else");
    for _ in 0..20 {
        assert_eq!(proxy.get("/echo").await.status(), 401);
    }
    assert_eq!(proxy.standins.ims.exchanges() - exchanges, 1);
    // The first one was replayed; the others knew better.
    assert_eq!(proxy.standins.aem.requests(), 21);
    assert_eq!(outcome(&proxy, "replayed").await, 1.0);
    assert_eq!(outcome(&proxy, "refused_again").await, 1.0);
    assert_eq!(outcome(&proxy, "cooling_down").await, 19.0);
    // What AEM takes elsewhere goes on.
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    proxy.stop().await;
}

/// The token that a request carries.
fn token_of(request: &str) -> &str {
    let line = request.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
    line.expect("a request has a token")
}

#[tokio::test]
async fn the_replay_is_the_same_request_with_another_token() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("PATCH /x;y=%2f HTTP/1.1\r\nhost: localhost\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello").await;
    let mut aem = upstream.accept().await;
    let first = aem.until("hello").await;
    aem.send(UNAUTHORIZED).await;
    // The connection is in order, and serves the second attempt.
    let second = aem.until("hello").await;
    aem.send(OK).await;
    assert!(app.response().await.starts_with("HTTP/1.1 200 OK"));
    let (old, new) = (token_of(&first).to_owned(), token_of(&second).to_owned());
    assert_ne!(old, new);
    assert_eq!(first.replace(&old, "T"), second.replace(&new, "T"));
    proxy.stop().await;
}

#[tokio::test]
async fn every_way_of_saying_it_gets_another_token() {
    for (says, accept) in [
        (UNAUTHORIZED, "*/*"),
        ("HTTP/1.1 403 Forbidden\r\nx-reason: Authentication Failed\r\ncontent-length: 0\r\n\r\n", "*/*"),
        (
            "HTTP/1.1 302 Found\r\nlocation: /libs/granite/core/content/login.html?resource=%2F\r\n\
             content-length: 0\r\n\r\n",
            "text/html",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>", "application/json"),
    ] {
        let (proxy, upstream) = with_upstream(Setup::default()).await;
        let mut app = proxy.connect().await;
        app.send(format!("GET / HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n")).await;
        let mut aem = upstream.accept().await;
        let first = aem.until("\r\n\r\n").await;
        aem.send(says).await;
        let second = aem.until("\r\n\r\n").await;
        assert_ne!(token_of(&first), token_of(&second), "{says}");
        aem.send(says).await;
        // It is not asked a third time, and the app sees what AEM has said.
        let answer = app.response().await;
        assert_eq!(answer.lines().next(), says.lines().next());
        assert_eq!(outcome(&proxy, "refused_again").await, 1.0, "{says}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_matter_of_rights_gets_no_other_token() {
    for says in [
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nlocation: /content/other.html\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n",
    ] {
        let (proxy, upstream) = with_upstream(Setup::default()).await;
        let mut app = proxy.connect().await;
        app.send("GET /x.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        aem.send(says).await;
        assert_eq!(app.response().await.lines().next(), says.lines().next());
        assert_eq!(proxy.standins.ims.exchanges(), 1, "{says}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_page_in_answer_to_a_write_is_not_asked_for_again() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send(
        "POST /x.json HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\ndone").await;
    assert!(app.response().await.ends_with("done"));
    assert_eq!(proxy.standins.ims.exchanges(), 1);
    proxy.stop().await;
}

/// Sends a request whose body is larger than what is kept.
async fn too_large(app: &mut Raw, upstream: &Upstream) -> Raw {
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 20\r\n\r\n").await;
    app.send([b'x'; 20]).await;
    let mut aem = upstream.accept().await;
    aem.until(&"x".repeat(20)).await;
    aem
}

#[tokio::test]
async fn a_body_that_is_not_kept_is_not_sent_again_but_the_next_request_fares_better() {
    let (proxy, upstream) = with_upstream(Setup::default().set("LIMITS__REPLAY", "19")).await;
    let mut app = proxy.connect().await;
    let mut aem = too_large(&mut app, &upstream).await;
    aem.send(UNAUTHORIZED).await;
    assert!(app.response().await.starts_with("HTTP/1.1 401"));
    assert_eq!(outcome(&proxy, "passed").await, 1.0);
    tokio::time::timeout(Duration::from_secs(20), proxy.standins.ims.exchanges_reach(2)).await.unwrap();
    proxy.stop().await;
}

#[tokio::test]
async fn an_early_refusal_is_replayed_while_the_body_is_still_coming() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nfirst").await;
    let mut aem = upstream.accept().await;
    aem.until("first").await;
    aem.send(UNAUTHORIZED).await;
    // The first connection waits for the rest of the body and is of no use.
    let mut again = upstream.accept().await;
    again.until("first").await;
    app.send("later").await;
    again.until("later").await;
    again.send(OK).await;
    assert!(app.response().await.starts_with("HTTP/1.1 200 OK"));
    assert!(aem.is_ended().await);
    proxy.stop().await;
}

#[tokio::test]
async fn a_refusal_before_the_body_is_asked_for_lets_it_be_asked_for_once() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    let mut app = proxy.connect().await;
    app.send("PUT / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send(UNAUTHORIZED).await;
    let mut again = upstream.accept().await;
    again.until("\r\n\r\n").await;
    again.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    let asked = app.until("\r\n\r\n").await;
    assert_eq!(asked, "HTTP/1.1 100 Continue\r\n\r\n");
    app.send("body").await;
    again.until("body").await;
    again.send(OK).await;
    assert!(app.response().await.starts_with("HTTP/1.1 200 OK"));
    proxy.stop().await;
}

#[tokio::test]
async fn without_another_token_the_client_gets_what_aem_has_said() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    proxy.standins.ims.set_always(Some(Fault::internal_error()));
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send(UNAUTHORIZED).await;
    assert!(app.response().await.ends_with("no! "));
    assert_eq!(outcome(&proxy, "no_new_token").await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_a_token_is_bought_ends_its_request() {
    let (proxy, upstream) = with_upstream(Setup::default()).await;
    proxy.standins.ims.set_always(Some(Fault::Hang));
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut aem = upstream.accept().await;
    aem.until("\r\n\r\n").await;
    aem.send(UNAUTHORIZED).await;
    drop(app);
    assert!(aem.is_ended().await);
    proxy.stop().await;
}

/// 200 with a page, or with what is asked for.
async fn answer_page(app: &mut Raw, aem: &mut Raw, head: &str) -> String {
    app.send(format!("{head}\r\nhost: localhost\r\n\r\n")).await;
    aem.until("\r\n\r\n").await;
    aem.send("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>").await;
    app.response().await
}

#[tokio::test]
async fn a_page_is_no_refusal_where_a_script_takes_pages_too() {
    for head in [
        "GET / HTTP/1.1\r\naccept: application/json, text/plain, */*",
        "GET / HTTP/1.1\r\naccept: application/json, text/javascript, */*; q=0.01",
        "GET / HTTP/1.1\r\naccept: application/json\r\naccept: */*",
        "GET / HTTP/1.1\r\naccept: */*\r\naccept: application/json",
        "GET / HTTP/1.1\r\naccept: application/json, text/*",
        "GET / HTTP/1.1\r\naccept: application/json, TEXT/HTML",
        "GET /content/page.html/x.json HTTP/1.1\r\naccept: */*",
        "GET /content/page.html/a.json/b HTTP/1.1\r\naccept: */*",
        "GET /content/a.json/page.html HTTP/1.1\r\naccept: */*",
        "GET /content/page.html;v='1.json' HTTP/1.1\r\naccept: */*",
    ] {
        let (proxy, upstream) = with_upstream(Setup::default()).await;
        let mut app = proxy.connect().await;
        app.send(format!("{head}\r\nhost: localhost\r\n\r\n")).await;
        let mut aem = upstream.accept().await;
        aem.until("\r\n\r\n").await;
        aem.send("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>").await;
        assert!(app.response().await.ends_with("<html>"), "{head}");
        assert!(answer_page(&mut app, &mut aem, head).await.ends_with("<html>"), "{head}");
        assert_eq!(proxy.standins.ims.exchanges(), 1, "{head}");
        assert_eq!(outcome(&proxy, "replayed").await, 0.0, "{head}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_token_that_is_revoked_again_soon_is_replaced_again() {
    let proxy = Proxy::start().await;
    for round in 1..=4 {
        for _ in 0..40 {
            assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
        }
        assert_eq!(proxy.standins.ims.exchanges(), round);
        proxy.standins.ledger.revoke_all();
    }
    assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    assert_eq!((outcome(&proxy, "replayed").await, outcome(&proxy, "cooling_down").await), (4.0, 0.0));
    proxy.stop().await;
}

#[tokio::test]
async fn a_path_that_no_token_helps_neither_buys_many_nor_holds_up_the_others() {
    let proxy = Setup::default().set("TOKEN__COOLDOWN", "1h").start().await;
    proxy.standins.aem.reserve("/echo", "somebody-else");
    for _ in 0..20 {
        assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
        assert_eq!(proxy.get("/echo").await.status(), 401);
    }
    assert_eq!(proxy.standins.ims.exchanges(), 2, "the first token, and one for all that were refused");
    // Revoked now: what was accepted is not held up by what never was.
    proxy.standins.ledger.revoke_all();
    for _ in 0..20 {
        assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
    }
    assert_eq!(proxy.standins.ims.exchanges(), 3);
    proxy.stop().await;
}
