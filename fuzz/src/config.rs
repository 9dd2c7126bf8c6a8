//! The configuration: a file, and environment variables.

use std::collections::BTreeMap;

use aem_auth_proxy::fuzzing::{self, Loaded};
use toml_edit::{DocumentMut, Item};

use super::leaks::Secrets;

/// The input is lines of `NAME=VALUE`, a line `---`, and TOML; or TOML alone. What is wrong is told without a secret; what
/// is printed is TOML without a secret; and if the configuration loads, that says the same and loads.
pub fn check(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let (variables, toml) = input.split_once("---\n").unwrap_or(("", input));
    let pairs = variables.lines().filter_map(|line| line.split_once('='));
    let variables: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let loaded = fuzzing::load(Some(toml), &variables);
    check_hidden(&loaded, toml);
    let Ok(described) = &loaded.described else {
        assert!(loaded.config.is_err(), "what cannot be printed is loaded");
        return;
    };
    let again = fuzzing::load(Some(described), &[]);
    let before = values(described);
    match &again.described {
        Ok(printed) => assert_eq!(before, values(printed), "what is printed says another thing"),
        // What is wrong in a variable is as wrong in a file.
        Err(error) => assert!(loaded.config.is_err(), "{error}: what is printed cannot be read\n{described}"),
    }
    // A secret that is not shown is lost.
    if loaded.config.is_ok() && !described.contains("(redacted)") {
        let error = again.config.err().map(|error| error.to_string());
        assert!(error.is_none(), "{error:?}: what is printed does not load\n{described}");
    }
}

fn check_hidden(loaded: &Loaded, toml: &str) {
    let mut secrets = Secrets::default();
    if loaded.described.is_err() && toml.parse::<DocumentMut>().is_err() {
        // Nobody knows what is a secret in it.
        secrets.add(toml);
    }
    let texts = |secret| loaded.settings.iter().filter(move |setting| setting.secret == secret);
    texts(true).flat_map(|setting| &setting.texts).for_each(|text| secrets.add(text));
    texts(false).flat_map(|setting| &setting.texts).for_each(|text| secrets.remove(text));
    loaded.settings.iter().for_each(|setting| secrets.remove(&setting.key));
    match &loaded.config {
        Ok(config) => secrets.check_debug(&format!("{config:?}")),
        Err(error) => secrets.check_message(&error.to_string()),
    }
    match &loaded.described {
        Ok(text) => secrets.check_message(text),
        Err(error) => secrets.check_message(&error.to_string()),
    }
}

/// The value of each key of a TOML document, as it stands there.
fn values(toml: &str) -> BTreeMap<String, String> {
    let document: DocumentMut =
        toml.parse().unwrap_or_else(|error| panic!("this is no TOML: {error}\n{toml}"));
    let mut values = BTreeMap::new();
    walk("", document.as_item(), &mut values);
    values
}

fn walk(path: &str, item: &Item, values: &mut BTreeMap<String, String>) {
    match item {
        Item::None => {}
        Item::Value(value) => {
            let value = value.clone().decorated("", "");
            values.insert(path.to_owned(), value.to_string());
        }
        Item::Table(table) => {
            table.iter().for_each(|(name, item)| walk(&format!("{path}.{name}"), item, values));
        }
        Item::ArrayOfTables(tables) => {
            for (number, table) in tables.iter().enumerate() {
                walk(&format!("{path}.{number}"), &Item::Table(table.clone()), values);
            }
        }
    }
}
