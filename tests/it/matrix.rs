//! Every kind and variant of credentials in every way of giving it: the table in `docs/credentials.md`, cell by cell.
//!
//! Each cell has a proxy of its own, in the simple form of the configuration and in the full one.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::Arc,
    time::Duration,
};

use aem_auth_proxy::{
    config::keys,
    secret::SecretString,
    standin::{LOCAL_CLIENT_ID, StandIns, oauth},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::harness::{Proxy, Setup, Upstream};

/// A row of the table.
struct Variant {
    id: &'static str,
    who: Who,
    made: Made,
}

/// Whom AEM is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Jwt,
    OAuth,
    Local,
    User,
}

/// What a variant is made of.
enum Made {
    /// A text, and which credential in it is meant.
    Document(fn(&Place<'_>) -> String, Option<&'static str>),
    /// Keys of a credential and their values.
    Values(fn(&Place<'_>) -> Keys),
}

/// A key's last word, or its whole name, and what it is set to.
type Keys = Vec<(String, Set)>;

enum Set {
    One(String),
    List(Vec<String>),
}

/// Where a variant is made.
struct Place<'a> {
    standins: &'a StandIns,
    dir: &'a Path,
    way: Way,
}

const VARIANTS: [Variant; 23] = [
    document("jwt", Who::Jwt, |place| jwt(place, |_| {})),
    document("jwt-plain", Who::Jwt, |place| {
        jwt(place, |document| {
            remove(document, "ok");
            remove(document, "statusCode");
        })
    }),
    document("jwt-bare", Who::Jwt, |place| jwt(place, |document| *document = document["integration"].take())),
    document("jwt-cert", Who::Jwt, |place| {
        integration(place, |integration| integration["cert"] = remove(integration, "publicKey"))
    }),
    document("jwt-account", Who::Jwt, |place| {
        integration(place, |integration| {
            for name in ["id", "org"] {
                integration["technicalAccount"][name] = remove(integration, name);
            }
        })
    }),
    document("jwt-pkcs8", Who::Jwt, |place| {
        with_key(place, |_| include_str!("../fixtures/private_key_pkcs8.pem").into())
    }),
    document("jwt-escaped", Who::Jwt, |place| with_key(place, |pem| pem.replace("\r\n", "\\n").into())),
    document("jwt-base64-key", Who::Jwt, |place| with_key(place, |pem| STANDARD.encode(pem).into())),
    document("jwt-lines", Who::Jwt, |place| with_key(place, |pem| pem.lines().collect())),
    document("jwt-key-file", Who::Jwt, |place| with_key(place, |pem| key_file(place, pem).into())),
    document("oauth-project", Who::OAuth, |place| place.standins.oauth.lone_project_document().to_string()),
    Variant {
        id: "oauth-project-several",
        who: Who::OAuth,
        made: Made::Document(|place| place.standins.oauth.project_document().to_string(), Some(oauth::NAME)),
    },
    document("oauth-lower", Who::OAuth, |place| place.standins.oauth.aio_document().to_string()),
    document("oauth-upper", Who::OAuth, |place| place.standins.oauth.upper_case_document().to_string()),
    document("oauth-integration", Who::OAuth, |place| {
        json!({"ok": true, "integration": place.standins.oauth.upper_case_document()}).to_string()
    }),
    document("oauth-camel", Who::OAuth, |place| place.standins.oauth.camel_case_document().to_string()),
    values("oauth-values", Who::OAuth, |place| client(place, "client_secret", place.secrets()[0].clone())),
    values("oauth-secret-file", Who::OAuth, |place| {
        let secrets = place.secrets();
        place.standins.ims.set_oauth_secrets(&[SecretString::from(secrets[1].as_str())]);
        client(place, "client_secret_file", place.file("secrets", &format!("{}\n", secrets.join("\n"))))
    }),
    document("local", Who::Local, |place| StandIns::local_token_document(&place.token()).to_string()),
    document("local-unwrapped", Who::Local, |place| json!({"accessToken": place.token()}).to_string()),
    document("local-bare", Who::Local, |place| format!("{}\n", place.token())),
    values("basic", Who::User, |_| user("password", PASSWORD.to_owned())),
    values("basic-file", Who::User, |place| {
        user("password_file", place.file("password", &format!("{PASSWORD}\n")))
    }),
];

const fn document(id: &'static str, who: Who, text: fn(&Place<'_>) -> String) -> Variant {
    Variant { id, who, made: Made::Document(text, None) }
}

const fn values(id: &'static str, who: Who, keys: fn(&Place<'_>) -> Keys) -> Variant {
    Variant { id, who, made: Made::Values(keys) }
}

impl Place<'_> {
    /// The path of a new file that holds `text`.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn token(&self) -> String {
        self.standins.local_token(Duration::from_secs(3600))
    }

    fn secrets(&self) -> Vec<String> {
        let secrets = self.standins.oauth.client_secrets().iter();
        secrets.map(|secret| secret.expose_secret().to_owned()).collect()
    }
}

fn jwt(place: &Place<'_>, change: impl FnOnce(&mut Value)) -> String {
    let mut document = place.standins.credentials_document.clone();
    change(&mut document);
    // In lines, as it is downloaded.
    serde_json::to_string_pretty(&document).unwrap()
}

fn integration(place: &Place<'_>, change: impl FnOnce(&mut Value)) -> String {
    jwt(place, |document| change(&mut document["integration"]))
}

fn with_key(place: &Place<'_>, change: impl FnOnce(&str) -> Value) -> String {
    integration(place, |integration| {
        let key = remove(integration, "privateKey");
        integration["privateKey"] = change(key.as_str().unwrap());
    })
}

fn remove(object: &mut Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name).unwrap()
}

/// A file's document may name its neighbour; what is no file has none.
fn key_file(place: &Place<'_>, pem: &str) -> String {
    let path = place.file("private.key", pem);
    if place.way == Way::File { "private.key".to_owned() } else { path }
}

fn client(place: &Place<'_>, name: &str, value: String) -> Keys {
    let oauth = &place.standins.oauth;
    let scopes = oauth.scopes().iter().map(|scope| (*scope).to_owned()).collect();
    vec![
        ("client_id".to_owned(), Set::One(oauth.client_id().to_owned())),
        (name.to_owned(), Set::One(value)),
        ("scopes".to_owned(), Set::List(scopes)),
        ("ims_endpoint".to_owned(), Set::One(place.standins.ims_endpoint.clone())),
    ]
}

fn user(name: &str, value: String) -> Keys {
    vec![("user".to_owned(), Set::One(USER.to_owned())), (name.to_owned(), Set::One(value))]
}

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    File,
    JsonInToml,
    JsonInEnvironment,
    Base64InEnvironment,
    ValuesInToml,
    ValuesInEnvironment,
}

/// The columns by their heads.
const WAYS: [(&str, Way); 6] = [
    ("file", Way::File),
    ("json in TOML", Way::JsonInToml),
    ("json in the environment", Way::JsonInEnvironment),
    ("base64 in the environment", Way::Base64InEnvironment),
    ("values in TOML", Way::ValuesInToml),
    ("values in the environment", Way::ValuesInEnvironment),
];

/// How the configuration names things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `credentials_file` and its neighbours, which stand for the credential `default`.
    Simple,
    /// `[credentials.main]`
    Full,
}

impl Variant {
    fn can_be(&self, way: Way) -> bool {
        matches!(self.made, Made::Values(_)) == matches!(way, Way::ValuesInToml | Way::ValuesInEnvironment)
    }

    /// The simple form has no keys for the values of an OAuth client.
    fn forms(&self) -> &'static [Form] {
        match (&self.made, self.who) {
            (Made::Values(_), Who::OAuth) => &[Form::Full],
            _ => &[Form::Simple, Form::Full],
        }
    }

    /// The keys with their whole names, and whether they stand in a file.
    fn keys(&self, place: &Place<'_>, form: Form) -> (Keys, bool) {
        let simple = match (form, self.who) {
            (Form::Full, _) => "credentials.main.",
            (Form::Simple, Who::User) => "basic.",
            (Form::Simple, _) => "credentials_",
        };
        let mut keys = match &self.made {
            Made::Values(keys) => keys(place),
            Made::Document(text, name) => {
                let text = text(place);
                let (key, value) = match place.way {
                    Way::File => ("file", place.file("document.json", &text)),
                    Way::Base64InEnvironment => ("json", STANDARD.encode(text)),
                    _ => ("json", text),
                };
                let name = name.map(|name| ("name".to_owned(), Set::One(name.to_owned())));
                [(key.to_owned(), Set::One(value))].into_iter().chain(name).collect()
            }
        };
        for (key, _) in &mut keys {
            key.insert_str(0, simple);
        }
        if (form, self.who) == (Form::Simple, Who::User) {
            keys.push(("auth".to_owned(), Set::One("basic".to_owned())));
        }
        let in_toml = match place.way {
            Way::JsonInToml | Way::ValuesInToml => true,
            // A path may stand in either.
            Way::File => form == Form::Full,
            Way::JsonInEnvironment | Way::Base64InEnvironment | Way::ValuesInEnvironment => false,
        };
        (keys, in_toml)
    }
}

/// The tables of `keys`, those without one first.
fn toml(mut keys: Keys) -> String {
    let table = |key: &str| key.rsplit_once('.').map_or("", |(table, _)| table).to_owned();
    keys.sort_by_key(|(key, _)| table(key));
    let mut text = String::new();
    let mut open = String::new();
    for (key, set) in keys {
        if table(&key) != open {
            open = table(&key);
            text.push_str(&format!("[{open}]\n"));
        }
        let name = key.rsplit('.').next().unwrap_or_default();
        // Literal strings, as one pastes JSON.
        let value = match set {
            Set::One(value) => format!("'''\n{value}'''"),
            Set::List(items) => format!("['{}']", items.join("', '")),
        };
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

fn variables(keys: Keys) -> impl Iterator<Item = (String, String)> {
    keys.into_iter().map(|(key, set)| {
        let value = match set {
            Set::One(value) => value,
            Set::List(items) => items.join(","),
        };
        (keys::variable(&key), value)
    })
}

/// A proxy with nothing else, up to an answer of AEM's.
async fn run(variant: &Variant, way: Way, form: Form) {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::default();
    let standins = setup.start_standins().await;
    let (keys, in_toml) = variant.keys(&Place { standins: &standins, dir: dir.path(), way }, form);
    if in_toml {
        setup = setup.toml(toml(keys));
    } else {
        setup.variables.extend(variables(keys));
    }
    if variant.who == Who::User {
        return assert_user_gets_in(setup, standins).await;
    }
    let proxy = setup.start_with(standins).await;
    proxy.ready().await;
    let name = if form == Form::Simple { "default" } else { "main" };
    assert_client_gets_in(&proxy, variant, name).await;
    proxy.stop().await;
}

async fn assert_client_gets_in(proxy: &Proxy, variant: &Variant, name: &str) {
    let standins = &proxy.standins;
    let jwt = &standins.credentials_document["integration"]["technicalAccount"]["clientId"];
    let (kind, client) = match variant.who {
        Who::Jwt => ("jwt", jwt.as_str().unwrap()),
        Who::OAuth => ("oauth", standins.oauth.client_id()),
        Who::Local => ("local", LOCAL_CLIENT_ID),
        Who::User => panic!("a user is no client"),
    };
    let answer = proxy.get("/api/assets.json").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-standin-client"], client);

    let credential = &proxy.status().await["credentials"][0];
    assert_eq!((&credential["name"], &credential["kind"]), (&json!(name), &json!(kind)));
    assert_eq!(credential["client_id"], client);
    let exchanges = (standins.ims.jwt_exchanges(), standins.ims.oauth_exchanges());
    let expected = (usize::from(variant.who == Who::Jwt), usize::from(variant.who == Who::OAuth));
    assert_eq!(exchanges, expected, "exchanges of JWTs and of OAuth credentials");
}

/// The stand-in AEM takes tokens alone, so another one looks at what comes.
async fn assert_user_gets_in(setup: Setup, standins: StandIns) {
    let aem = Upstream::bind().await;
    let proxy = setup.upstream(aem.origin()).start_with(standins).await;
    proxy.ready().await;
    let mut app = proxy.connect().await;
    app.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut seen = aem.accept().await;
    let head = seen.until("\r\n\r\n").await.to_lowercase();
    let expected = format!("\r\nauthorization: Basic {}\r\n", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    assert!(head.contains(&expected.to_lowercase()), "another field than the user's came");
    seen.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert!(app.until("\r\n\r\nok").await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(proxy.standins.ims.attempts(), 0);
    proxy.stop().await;
}

/// The cells of the table that say yes.
fn promised(text: &str) -> BTreeSet<(&'static str, Way)> {
    let mut lines = text.lines().skip_while(|line| cells(line)[0] != "variant");
    let head = cells(lines.next().expect("docs/credentials.md has no table that begins with `variant`"));
    let column = |head: &&str| {
        let known = WAYS.iter().find(|(name, _)| name == head);
        known.unwrap_or_else(|| panic!("no test gives credentials by `{head}`")).1
    };
    let ways: Vec<Way> = head[1..].iter().map(column).collect();
    assert_eq!(BTreeSet::from_iter(&ways).len(), WAYS.len(), "the columns are {head:?}");
    assert_eq!(ways.len(), WAYS.len(), "the columns are {head:?}");

    let mut rows = BTreeSet::new();
    let mut promised = BTreeSet::new();
    for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
        let cells = cells(line);
        let id = cells[0].strip_prefix('`').and_then(|rest| rest.split_once('`')).map(|(id, _)| id);
        let id = id.unwrap_or_else(|| panic!("no id in backticks at the beginning of {line}"));
        let variant = VARIANTS.iter().find(|variant| variant.id == id);
        let id = variant.unwrap_or_else(|| panic!("no test knows the variant `{id}`")).id;
        assert!(rows.insert(id), "`{id}` has two rows");
        assert_eq!(cells.len() - 1, ways.len(), "`{id}` has not a cell for each column");
        for (cell, way) in cells[1..].iter().zip(&ways) {
            match *cell {
                "yes" => promised.insert((id, *way)),
                "-" => false,
                other => panic!("`{id}` says {other:?} of {way:?}, neither yes nor -"),
            };
        }
    }
    let known: BTreeSet<_> = VARIANTS.iter().map(|variant| variant.id).collect();
    let missing: Vec<_> = known.difference(&rows).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    promised
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_variant_gets_into_aem_in_every_way_that_the_documentation_promises() {
    let text = std::fs::read_to_string(TABLE).unwrap();
    let promised = promised(&text);
    let possible: BTreeSet<_> = VARIANTS
        .iter()
        .flat_map(|variant| WAYS.iter().map(move |(_, way)| (variant, *way)))
        .filter(|(variant, way)| variant.can_be(*way))
        .map(|(variant, way)| (variant.id, way))
        .collect();
    let more: Vec<_> = promised.difference(&possible).collect();
    assert!(more.is_empty(), "promised, but there is no way to give them so: {more:?}");
    let less: Vec<_> = possible.difference(&promised).collect();
    assert!(less.is_empty(), "denied, but tried here: {less:?}");

    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    let mut names = HashMap::new();
    for variant in &VARIANTS {
        for (_, way) in promised.iter().filter(|(id, _)| *id == variant.id) {
            for form in variant.forms() {
                let (gate, way, form) = (Arc::clone(&gate), *way, *form);
                let task = tasks.spawn(async move {
                    let _turn = gate.acquire_owned().await.unwrap();
                    run(variant, way, form).await;
                });
                names.insert(task.id(), format!("{} {way:?} {form:?}", variant.id));
            }
        }
    }
    let mut failed = Vec::new();
    while let Some(ended) = tasks.join_next_with_id().await {
        if let Err(error) = ended {
            failed.push(names[&error.id()].clone());
        }
    }
    failed.sort();
    assert!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), names.len());
}

#[test]
#[should_panic = "no test knows the variant `jwt-new`"]
fn a_row_that_nobody_tries_is_noticed() {
    let text = std::fs::read_to_string(TABLE).unwrap();
    promised(&text.replace("| `jwt-lines`", "| `jwt-new`"));
}

#[test]
#[should_panic = "not in the table: [\"jwt-lines\"]"]
fn a_row_that_is_missing_is_noticed() {
    let text = std::fs::read_to_string(TABLE).unwrap();
    let rows: Vec<_> = text.lines().filter(|line| !line.starts_with("| `jwt-lines`")).collect();
    promised(&rows.join("\n"));
}

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/credentials.md");

/// How many proxies run beside each other: each has threads and reads the system's certificates.
const AT_ONCE: usize = 4;

/// Both are looked for in the log.
const USER: &str = "admin";
const PASSWORD: &str = "p8e-password";
