//! Documents of every kind, in every form.

use aem_auth_proxy::credentials::{Credentials, CredentialsError};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::leaks::Secrets;

/// The input is a document. However it is given, it is read or refused; a secret in it is never shown, and what is read
/// in one form is read in all of them.
pub fn check(document: &[u8]) {
    let secrets = secrets(document);
    let read = Credentials::parse(document, None);
    check_hidden(&secrets, &read);
    check_hidden(&secrets, &Credentials::parse(document, Some("main")));
    let Ok(text) = std::str::from_utf8(document) else { return };
    for value in [text, &STANDARD.encode(document)] {
        let again = Credentials::parse_json_or_base64(value, None);
        check_hidden(&secrets, &again);
        if let Ok(read) = &read {
            assert_eq!(
                again.as_ref().map(facts).ok(),
                Some(facts(read)),
                "as a value: {:?}",
                again.as_ref().err()
            );
        }
    }
}

fn check_hidden(secrets: &Secrets, read: &Result<Credentials, CredentialsError>) {
    match read {
        Ok(credentials) => secrets.check_debug(&format!("{credentials:?}")),
        Err(error) => {
            secrets.check_message(&error.to_string());
            secrets.check_debug(&format!("{error:?}"));
        }
    }
}

/// What is known of credentials.
fn facts(of: &Credentials) -> String {
    format!(
        "{} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        of.kind(),
        of.client_id(),
        of.org(),
        of.technical_account_id(),
        of.email(),
        of.scopes(),
        of.ims_endpoint(),
        of.expires_at(),
        of.files()
    )
}

/// The values of the fields that are secret; of what is no JSON, all.
fn secrets(document: &[u8]) -> Secrets {
    let mut secrets = Secrets::default();
    let text = String::from_utf8_lossy(document);
    // Around a value may be more than around JSON.
    match serde_json::from_str(text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')) {
        Ok(value) => {
            walk(&value, false, &mut |text, secret| {
                if secret {
                    secrets.add(text);
                }
            });
            walk(&value, false, &mut |text, secret| {
                if !secret {
                    secrets.remove(text);
                }
            });
        }
        Err(_) => secrets.add(&text),
    }
    secrets
}

/// Every text, and whether it stands in a field that is secret.
fn walk(value: &Value, secret: bool, told: &mut impl FnMut(&str, bool)) {
    match value {
        Value::String(text) => told(text, secret),
        Value::Array(items) => items.iter().for_each(|item| walk(item, secret, told)),
        Value::Object(members) => {
            for (name, value) in members {
                told(name, false);
                walk(value, secret || SECRET.contains(&name.as_str()), told);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

const SECRET: [&str; 6] =
    ["accessToken", "clientSecret", "client_secret", "client_secrets", "privateKey", "refreshToken"];
