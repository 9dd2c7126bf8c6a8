//! Text files as editors on Windows write them: with a byte order mark, with CR at the end of lines, in UTF-16.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    commands::{run, text},
    harness::{Setup, with_upstream},
};

const MARK: &str = "\u{feff}";

/// A text in the forms that mean the same.
fn forms(line: &str) -> Vec<String> {
    let marked = format!("{MARK}{line}");
    vec![
        line.to_owned(),
        format!("{line}\n"),
        format!("{line}\r\n"),
        format!("{line}\r"),
        marked.clone(),
        format!("{marked}\r\n"),
        format!("{MARK}{marked}\n"),
    ]
}

fn write(directory: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = directory.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn neither_a_mark_nor_the_end_of_a_line_is_a_part_of_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["password", "field", "secret"];
    let values = [forms("s8e-password"), forms("s8e-field"), forms("s8e-shared-secret")];
    for number in 0..values[0].len() {
        let paths: Vec<_> = names
            .iter()
            .zip(&values)
            .map(|(name, forms)| write(directory.path(), name, &forms[number]))
            .collect();
        let toml = format!(
            "{MARK}auth = 'basic'\r\n[basic]\r\npassword_file = '{}'\r\n[proxies.default]\r\nheader_files = {{ X-Filed = '{}' }}\r\n\
             [guard]\r\nsecret_file = '{}'\r\n",
            paths[0], paths[1], paths[2]
        );
        let (proxy, upstream) = with_upstream(Setup::default().toml(toml)).await;
        let mut app = proxy.connect().await;
        app.send("GET / HTTP/1.1\r\nhost: localhost\r\nx-aem-proxy-secret: s8e-shared-secret\r\n\r\n").await;
        let head = upstream.accept().await.until("\r\n\r\n").await.to_lowercase();
        let sent =
            format!("authorization: basic {}\r\n", STANDARD.encode("admin:s8e-password")).to_lowercase();
        assert!(head.contains(&sent) && head.contains("x-filed: s8e-field\r\n"), "{number}: {head}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn certificates_keys_and_documents_are_read_with_a_mark() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = Setup::default().tls().start().await;
    let pem = proxy.standins.ca_pem.as_ref().expect("stand-ins with TLS");
    let document = proxy.standins.credentials_document.to_string();
    // Two files that were put together, each with its mark.
    let twice = format!("{MARK}{pem}\r\n{MARK}{pem}");
    for (number, pem) in [format!("{MARK}{pem}"), twice, pem.replace('\n', "\r\n")].iter().enumerate() {
        let ca = write(directory.path(), "ca.pem", pem);
        let credentials = write(directory.path(), "document.json", format!("{MARK}{document}\r\n"));
        let origin = proxy.standins.aem_origin.as_str();
        let args = ["check", "--upstream", origin, "--ca-file", &ca, "--credentials-file", &credentials];
        let (code, out, err) = text(&run(&args, &[]).await);
        assert_eq!(code, 0, "{number}: {out}{err}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn utf_16_is_named_wherever_it_is_met() {
    let directory = tempfile::tempdir().unwrap();
    let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
    let pem = include_str!("../fixtures/private_key.pem");
    for (number, encode) in [&little as &dyn Fn(&str) -> Vec<u8>, &big].iter().enumerate() {
        for mark in ["", MARK] {
            let file =
                |name: &str, text: &str| write(directory.path(), name, encode(&format!("{mark}{text}")));
            let secret = file("secret", "s8e-a-secret-that-is-long-enough\r\n");
            let (certificate, key) = (file("certificate.pem", pem), file("key.pem", pem));
            let document = file("document.json", "{\"ok\": true}");
            let toml = file("proxy.toml", "auth = 'none'\r\n");
            let aem = ("AEM_PROXY_UPSTREAM", "https://author-p1-e2.adobeaemcloud.com");
            let none = ("AEM_PROXY_AUTH", "none");
            for variables in [
                &[("AEM_PROXY_AUTH", "basic"), ("AEM_PROXY_BASIC__PASSWORD_FILE", &secret)][..],
                &[none, ("AEM_PROXY_GUARD__SECRET_FILE", &secret)],
                &[none, ("AEM_PROXY_CA_FILE", &certificate)],
                &[none, ("AEM_PROXY_TLS__CERTIFICATE_FILE", &certificate), ("AEM_PROXY_TLS__KEY_FILE", &key)],
                &[("AEM_PROXY_CREDENTIALS_FILE", &document)],
                &[none, ("AEM_PROXY_CONFIG", &toml)],
            ] {
                let mut all =
                    vec![aem, ("AEM_PROXY_LISTEN", "127.0.0.1:0"), ("AEM_PROXY_ADMIN__LISTEN", "off")];
                all.extend_from_slice(variables);
                let (code, _, err) = text(&run(&[], &all).await);
                assert!(
                    code == 78 && err.contains("UTF-16"),
                    "{number} {mark:?} {variables:?}: {code} {err}"
                );
            }
        }
    }
}
