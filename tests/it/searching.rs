//! The search for secrets finds them.

use std::fmt::Write as _;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use serde_json::Value;

use crate::{
    harness::{Setup, standin_options},
    leaks::{Secrets, hex},
    log,
};

const MADE_UP: [&str; 4] = [
    r#"s8e-live"value\of+the/environment%42"#,
    r#"pässword"read\from+a/file%47"#,
    r#"app"s\own+secret/word%4b"#,
    "MIIEpAIBAAKCAQEA",
];

#[test]
fn a_secret_would_be_found_in_every_form_and_in_no_other_text() {
    for secret in MADE_UP {
        let mut secrets = Secrets::default();
        secrets.add("it", secret);
        let json = |text: &str| Value::from(text).to_string();
        let every: String = secret.bytes().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "%{byte:02x}");
            text
        });
        let mut written = vec![
            secret.to_owned(),
            json(secret),
            json(&json(secret)),
            format!("{secret:?}"),
            format!("{:?}", Some(json(secret))),
            url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            every.to_uppercase(),
            every,
            hex(secret),
            hex(secret).to_uppercase(),
            format!("{:?}", secret.as_bytes()),
            format!("{:?}", bytes::Bytes::from(secret)),
        ];
        for before in ["", "a", "ab", "abc", "user:"] {
            for behind in ["", "z", "yz", "\n"] {
                let around = format!("{before}{secret}{behind}");
                written.extend([STANDARD.encode(&around), URL_SAFE.encode(&around)]);
                written.extend([STANDARD_NO_PAD.encode(&around), URL_SAFE_NO_PAD.encode(&around)]);
                written.push(
                    url::form_urlencoded::byte_serialize(STANDARD.encode(&around).as_bytes()).collect(),
                );
            }
        }
        for written in written {
            let line = format!("TRACE something: value={written} and=more");
            let seen = secrets.seen_in(&format!("a line\n{line}\nanother"));
            assert!(!seen.is_empty(), "{secret} in {line}");
            assert!(seen.iter().all(|seen| seen.starts_with("it, ") && !seen.contains(secret)), "{seen:?}");
        }
        secrets.add("another", "another one");
        assert!(secrets.seen_in("TRACE something: value=(redacted) and=more 100% \\ %4 +").is_empty());
    }
}

#[tokio::test]
async fn every_secret_of_the_stand_ins_would_be_found_in_the_log() {
    let proxy = Setup::default().set("BASIC__PASSWORD", "a-password-of-some-length").start().await;
    let document = &proxy.standins.credentials_document["integration"];
    let key = document["privateKey"].as_str().unwrap().to_owned();
    for (secret, what) in [
        (document["technicalAccount"]["clientSecret"].as_str().unwrap().to_owned(), "client secret"),
        (key.lines().nth(1).unwrap().to_owned(), "private key"),
        (proxy.standins.ledger.last_issued().unwrap(), "access token"),
        (proxy.standins.ims.last_assertion().unwrap(), "assertion"),
        (proxy.standins.oauth.client_secrets()[0].expose_secret().to_owned(), "OAuth"),
        ("a-password-of-some-length".to_owned(), "AEM_PROXY_BASIC__PASSWORD"),
    ] {
        let seen = proxy.secrets().seen_in(&format!("2026 TRACE somewhere: it is {} there", hex(&secret)));
        assert!(!seen.is_empty(), "{what} is not found");
        assert!(
            seen[0].contains(what) && seen[0].contains("in hex") && seen[0].contains("TRACE"),
            "{seen:?}"
        );
    }
    proxy.stop().await;
}

#[tokio::test]
#[should_panic(expected = "an access token, in capital hex at byte")]
async fn a_test_whose_proxy_logs_a_secret_fails() {
    let proxy = Setup { standins: standin_options(), ..Setup::default() }.start().await;
    log::write(&hex(proxy.standins.ledger.last_issued().unwrap()).to_uppercase());
    proxy.stop().await;
}
