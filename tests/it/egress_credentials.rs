//! The credentials for an egress proxy, in every form in which people write them: sent as they are meant, shown nowhere.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    commands,
    egress::{Egress, NAME, setup},
    harness::file,
    leaks::Secrets,
    log,
};

/// User information as it stands in the URL, and what the egress proxy is to get.
const FORMS: [(&str, &str); 8] = [
    ("admin@corp.example:p8e-at@home", "admin@corp.example:p8e-at@home"),
    ("admin:p8e-at#home", "admin:p8e-at#home"),
    ("admin:p8e-at/home", "admin:p8e-at/home"),
    ("admin:1/p8e-at?home", "admin:1/p8e-at?home"),
    ("admin:a://p8e-at:home", "admin:a://p8e-at:home"),
    ("admin:p8e-at\\home%", "admin:p8e-at\\home%"),
    ("admin:p8e%2dat%40home%C3%BC", "admin:p8e-at@homeü"),
    ("CORP\\admin:p8e-at-home", "CORP\\admin:p8e-at-home"),
];

/// The password, decoded and as it stands in the URL.
fn secrets(user_information: &str, pair: &str) -> Secrets {
    let mut secrets = Secrets::default();
    secrets.add_user_information(user_information);
    secrets.add("the pair", pair);
    secrets
}

#[tokio::test]
async fn they_are_sent_as_they_are_meant_and_shown_on_no_page() {
    for (written, pair) in FORMS {
        let (egress, since) = (Egress::leading().await, log::position());
        let url = format!("http://{written}@{}", egress.addr());
        let proxy = setup().set("EGRESS__AEM_PROXY", &url).set("EGRESS__IMS_PROXY", &url).start().await;
        assert_eq!(proxy.get("/api/assets.json").await.status(), 200);
        let sent = format!("proxy-authorization: basic {}", STANDARD.encode(pair)).to_lowercase();
        let heads = egress.asked();
        assert!(
            heads.len() >= 2 && heads.iter().all(|head| head.to_lowercase().contains(&sent)),
            "{heads:?}"
        );
        let secrets = secrets(written, pair);
        for path in ["/status", "/metrics", "/"] {
            assert_eq!(secrets.seen_in(&proxy.ask(path).await.1), [""; 0], "{written} in {path}");
        }
        proxy.stop().await;
        log::assert_holds_none_of(&secrets, since);
    }
}

#[tokio::test]
async fn no_command_and_no_problem_document_shows_them() {
    for (written, pair) in FORMS {
        let egress = Egress::saying("HTTP/1.1 407 Who?\r\n\r\n").await;
        let (url, secrets) = (format!("http://{written}@{}", egress.addr()), secrets(written, pair));
        let proxy =
            setup().set("EGRESS__AEM_PROXY", &url).set("EGRESS__IMS_PROXY", &url).start_without_token().await;
        let problem = proxy.get("/").await.text().await.unwrap();
        assert_eq!(secrets.seen_in(&problem), [""; 0], "{written}");
        assert_eq!(secrets.seen_in(&proxy.ask("/status").await.1), [""; 0], "{written}");
        let (credentials, ca) = (
            proxy.standins.credentials_document.to_string(),
            file(proxy.standins.ca_pem.as_ref().expect("stand-ins with TLS")),
        );
        let way_of_keys =
            [("AEM_PROXY_EGRESS__AEM_PROXY", url.as_str()), ("AEM_PROXY_EGRESS__IMS_PROXY", &url)];
        let broken = url.replace("http://", "https://");
        let cut = format!("http://{written}");
        for way in [
            &way_of_keys[..],
            &[("HTTPS_PROXY", &url)],
            &[("AEM_PROXY_EGRESS__AEM_PROXY", &broken)],
            &[("ALL_PROXY", &broken)],
            &[("AEM_PROXY_EGRESS__IMS_PROXY", &cut)],
            &[("HTTPS_PROXY", &cut)],
        ] {
            let mut variables = vec![
                ("AEM_PROXY_UPSTREAM", proxy.standins.aem_origin.as_str()),
                ("AEM_PROXY_CA_FILE", commands::path(ca.path())),
                ("AEM_PROXY_CREDENTIALS_JSON", &credentials),
                ("AEM_PROXY_LOG__LEVEL", "trace"),
                ("AEM_PROXY_TIMEOUTS__RECONNECT", "0s"),
            ];
            variables.extend_from_slice(way);
            for args in [&["check"][..], &["check", "--output", "json"], &["config"], &["token"]] {
                let (_, out, err) = commands::text(&commands::run(args, &variables).await);
                assert_eq!(secrets.seen_in(&format!("{out}\n{err}")), [""; 0], "{written} {way:?} {args:?}");
            }
        }
        proxy.stop().await;
    }
}

/// A proxy without a token asks for one, through an address that is none: the URL is refused before anything listens.
#[tokio::test]
async fn what_is_no_address_ends_the_start_without_being_quoted() {
    for url in [
        format!("http://admin:p8e-at-home@{NAME}:1/path"),
        "http://admin:p8e-at-home".to_owned(),
        "http://admin:1/p8e-at-home".to_owned(),
        "http://admin:p8e-at-home@".to_owned(),
        "http://admin:p8e-at-home@two words:1".to_owned(),
        "http://admin:p8e-at-home%0d%0a@one:1".to_owned(),
    ] {
        for variable in ["AEM_PROXY_EGRESS__AEM_PROXY", "HTTPS_PROXY"] {
            let aem = format!("https://{NAME}");
            let variables = [
                ("AEM_PROXY_UPSTREAM", aem.as_str()),
                ("AEM_PROXY_AUTH", "none"),
                ("AEM_PROXY_LISTEN", "127.0.0.1:0"),
                ("AEM_PROXY_ADMIN__LISTEN", "off"),
                (variable, &url),
            ];
            let (code, out, err) = commands::text(&commands::run(&[], &variables).await);
            assert_eq!(code, 78, "{url} {variable}: {out}{err}");
            assert!(err.contains("is not a proxy"), "{url} {variable}: {err}");
            assert!(!err.contains("at-home") && !out.contains("at-home"), "{url} {variable}: {err}");
        }
    }
}
