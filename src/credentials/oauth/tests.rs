use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::*;
use crate::credentials::Credentials;

const CLIENT_ID: &str = "0123456789abcdef0123456789abcdef";
const FIRST: &str = "p8e-first-made-up";
const SECOND: &str = "p8e-second-made-up";

/// The details within a project, which are what `aio` has alone but for the organisation.
fn details() -> Value {
    json!({
        "client_id": CLIENT_ID,
        "client_secrets": [FIRST, SECOND],
        "technical_account_email": "one@techacct.adobe.com",
        "technical_account_id": "ABC@techacct.adobe.com",
        "scopes": ["openid", "AdobeID", "read_pc.dma_aem_cloud"],
    })
}

fn entry(name: &str) -> Value {
    json!({"id": format!("id-{name}"), "name": name, "integration_type": OAUTH, OAUTH: details()})
}

fn project(credentials: Value) -> Value {
    json!({
        "project": {
            "id": "1",
            "name": "Shop",
            "org": {"id": "2", "name": "Shop Ltd", "ims_org_id": "DEF@AdobeOrg"},
            "workspace": {"id": "3", "name": "Production", "details": {"credentials": credentials, "services": []}},
        },
    })
}

fn parse(document: &Value, name: Option<&str>) -> Result<Credentials, CredentialsError> {
    Credentials::parse(document.to_string().as_bytes(), name)
}

#[track_caller]
fn read(name: &str, parsed: Result<Credentials, CredentialsError>) -> OAuthCredentials {
    match parsed {
        Ok(Credentials::OAuth(credentials)) => credentials,
        other => panic!("{name}: {other:?}"),
    }
}

#[track_caller]
fn check(name: &str, parsed: Result<Credentials, CredentialsError>) {
    let credentials = read(name, parsed);
    assert_eq!(credentials.client_id, CLIENT_ID, "{name}");
    let secrets: Vec<_> = credentials.client_secrets.iter().map(SecretString::expose_secret).collect();
    assert_eq!(secrets, [FIRST, SECOND], "{name}");
    assert_eq!(credentials.scopes, ["openid", "AdobeID", "read_pc.dma_aem_cloud"], "{name}");
    assert_eq!(credentials.technical_account_id.as_deref(), Some("ABC@techacct.adobe.com"), "{name}");
    assert_eq!(credentials.email.as_deref(), Some("one@techacct.adobe.com"), "{name}");
    assert_eq!(credentials.org.as_deref(), Some("DEF@AdobeOrg"), "{name}");
    assert_eq!(credentials.ims_endpoint, None, "{name}");
}

#[track_caller]
fn check_refused(name: &str, parsed: Result<Credentials, CredentialsError>, expected: &str) {
    let error = parsed.expect_err(name).to_string();
    assert!(error.starts_with(expected), "{name}: {error}");
    assert!(error.contains(": ") && !error.ends_with('.'), "{name} does not say what to do: {error}");
    assert!(!error.contains("p8e-"), "{name}: {error}");
}

fn aio() -> Value {
    let mut document = details();
    document["ims_org_id"] = "DEF@AdobeOrg".into();
    document["oauth_enabled"] = true.into();
    document
}

fn upper_case() -> Value {
    json!({
        "CLIENT_ID": CLIENT_ID,
        "CLIENT_SECRETS": [FIRST, SECOND],
        "TECHNICAL_ACCOUNT_ID": "ABC@techacct.adobe.com",
        "TECHNICAL_ACCOUNT_EMAIL": "one@techacct.adobe.com",
        "IMS_ORG_ID": "DEF@AdobeOrg",
        "SCOPES": ["openid", "AdobeID", "read_pc.dma_aem_cloud"],
    })
}

fn camel_case() -> Value {
    json!({
        "clientId": CLIENT_ID,
        "clientSecrets": [FIRST, SECOND],
        "technicalAccountId": "ABC@techacct.adobe.com",
        "technicalAccountEmail": "one@techacct.adobe.com",
        "orgId": "DEF@AdobeOrg",
        "scopes": ["openid", "AdobeID", "read_pc.dma_aem_cloud"],
    })
}

/// The document after `change`.
fn with(mut document: Value, name: &str, value: Value) -> Value {
    document[name] = value;
    document
}

#[test]
fn the_credential_is_read_in_every_shape_in_which_it_goes_round() {
    let mut old = upper_case();
    old["ORG_ID"] = old["IMS_ORG_ID"].take();
    for (name, document) in [
        ("a project", project(json!([entry("one")]))),
        ("aio", aio()),
        ("upper case", upper_case()),
        ("upper case of the times of JWT", old),
        ("upper case, migrated", with(upper_case(), "META_SCOPES", json!(["ent_aem_cloud_sdk"]))),
        ("upper case in integration", json!({"ok": true, "integration": upper_case(), "statusCode": 200})),
        ("lower case in integration", json!({"integration": aio()})),
        ("camel case", camel_case()),
        ("a token beside it", with(camel_case(), "accessToken", json!("token"))),
        ("the first secret once more", with(aio(), "client_secret", json!(FIRST))),
        (
            "secrets in two fields",
            with(with(aio(), "client_secrets", json!([FIRST])), "client_secret", json!(SECOND)),
        ),
        (
            "holes in the list",
            with(aio(), "client_secrets", json!([null, FIRST, " ", format!("{SECOND}\n")])),
        ),
        ("scopes with commas", with(aio(), "scopes", json!("openid,AdobeID, read_pc.dma_aem_cloud"))),
        (
            "scopes with blanks",
            with(camel_case(), "scopes", json!(" openid AdobeID\nread_pc.dma_aem_cloud ")),
        ),
        (
            "scopes with both",
            with(aio(), "scopes", json!(["openid, AdobeID", null, "", "read_pc.dma_aem_cloud,"])),
        ),
        ("no endpoint", with(aio(), "ims_endpoint", Value::Null)),
        ("a blank endpoint", with(aio(), "imsEndpoint", json!(" "))),
    ] {
        check(name, parse(&document, None));
        check(
            name,
            Credentials::parse_json_or_base64(
                &STANDARD.encode(document.to_string()),
                Some("any one").filter(|_| document["project"].is_null()),
            ),
        );
    }
}

#[test]
fn one_secret_is_enough_and_the_rest_may_be_missing() {
    for (name, document) in [
        ("lower case", json!({"client_id": CLIENT_ID, "client_secret": FIRST})),
        ("upper case", json!({"CLIENT_ID": CLIENT_ID, "CLIENT_SECRET": FIRST})),
        ("camel case", json!({"clientId": CLIENT_ID, "clientSecret": FIRST})),
        ("a text for the list", json!({"client_id": CLIENT_ID, "client_secrets": FIRST})),
    ] {
        let credentials = read(name, parse(&document, None));
        assert_eq!((credentials.client_secrets.len(), credentials.scopes.len()), (1, 0), "{name}");
        assert_eq!(credentials.client_secrets[0].expose_secret(), FIRST, "{name}");
        assert!(credentials.org.is_none() && credentials.technical_account_id.is_none(), "{name}");
    }
}

#[test]
fn an_endpoint_is_honoured_where_there_is_one() {
    let place = "/project/workspace/details/credentials/0/oauth_server_to_server";
    let mut within = project(json!([entry("one")]));
    within.pointer_mut(place).unwrap()["ims_endpoint"] = json!("https://ims.example/");
    for (name, document) in [
        ("lower case", with(aio(), "ims_endpoint", json!("ims.example"))),
        ("upper case", with(upper_case(), "IMS_ENDPOINT", json!("ims.example"))),
        ("as in service credentials", with(upper_case(), "imsEndpoint", json!("ims.example"))),
        ("within a project", within),
        ("beside a project", with(project(json!([entry("one")])), "imsEndpoint", json!("ims.example"))),
    ] {
        assert_eq!(read(name, parse(&document, None)).ims_endpoint.as_deref(), Some("ims.example"), "{name}");
    }
    let wrong = with(aio(), "ims_endpoint", json!("https://ims.example/ims/token/v3"));
    check_refused("a path", parse(&wrong, None), "`ims_endpoint` is not a host name");
}

#[test]
fn the_facts_of_a_credential_are_told_for_all_kinds_alike() {
    let credentials = parse(&aio(), None).unwrap();
    assert_eq!((credentials.kind(), credentials.client_id()), ("oauth", Some(CLIENT_ID)));
    assert_eq!(
        (credentials.org(), credentials.email()),
        (Some("DEF@AdobeOrg"), Some("one@techacct.adobe.com"))
    );
    assert_eq!(credentials.technical_account_id(), Some("ABC@techacct.adobe.com"));
    assert_eq!(credentials.scopes().len(), 3);
    assert!(credentials.ims_endpoint().is_none() && credentials.expires_at().is_none());
    assert!(credentials.files().is_empty());
}

fn others() -> [Value; 5] {
    [
        json!({"id": "4", "name": "JWT", "integration_type": "service", "jwt": {"client_id": "x", "client_secret": "p8e-x"}}),
        json!({"id": "5", "name": "Web", "integration_type": "oauth_web", "oauth2": {"client_id": "y"}}),
        json!({"id": "6", "name": "Key", "integration_type": "apikey", "api_key": {"client_id": "z"}}),
        json!({"id": "7", "name": "No type"}),
        json!(null),
    ]
}

#[test]
fn a_project_is_searched_for_the_credential_that_fits() {
    let all = [&others()[..], &[entry("one")], &others()[..2]].concat();
    check("the only one that fits", parse(&project(json!(all)), None));
    for name in ["one", "id-one", CLIENT_ID, " one "] {
        check(name, parse(&project(json!(all)), Some(name)));
    }
    let mut migrating = entry("one");
    migrating["integration_type"] = "oauth_server_to_server_migrate".into();
    check("one that is being migrated", parse(&project(json!([others()[0], migrating])), None));

    let mut another = entry("two");
    another[OAUTH]["client_id"] = "another".into();
    let two = project(json!([another, others()[1], entry("one")]));
    for name in ["one", "id-one", CLIENT_ID] {
        check(name, parse(&two, Some(name)));
    }
    assert_eq!(read("two", parse(&two, Some("two"))).client_id, "another");
}

#[test]
fn several_credentials_that_fit_are_listed_by_name() {
    let two = project(json!([entry("Shop author"), others()[0], entry("Shop publish")]));
    let listed = "`Shop author`, `Shop publish`";
    let expected = format!("is a project with 2 OAuth Server-to-Server credentials, {listed}: set `name`");
    check_refused("no name", parse(&two, None), &expected);
    // Both have the same client id here.
    check_refused("a name of two", parse(&two, Some(CLIENT_ID)), &expected);
    let error = parse(&two, Some("JWT")).unwrap_err().to_string();
    assert!(
        error.contains("no OAuth Server-to-Server credential has that `name`") && error.ends_with(listed),
        "{error}"
    );
    check_refused(
        "one, of another name",
        parse(&project(json!([entry("one")])), Some("two")),
        "is a project in which no",
    );
}

/// Names come from a document that holds secrets, and go to terminals.
#[test]
fn what_is_shown_of_names_is_bounded_and_printable() {
    let mut nameless = entry("x");
    nameless["name"].take();
    let long = format!("\u{1b}[31m\u{202e}ü {}", "x".repeat(500));
    let mut many = vec![nameless, entry(&long)];
    many.extend((0..30).map(|number| entry(&format!("n{number}"))));
    let error = parse(&project(json!(many)), None).unwrap_err().to_string();
    assert!(error.contains("credentials, one without a name, `[31mü xxx"), "{error}");
    assert!(error.contains("`n7`, 22 more: ") && !error.contains("`n8`"), "{error}");
    assert!(!error.contains(&"x".repeat(NAME_MAX)) && !error.contains(['\u{1b}', '\u{202e}']), "{error}");
}

#[test]
fn a_project_without_a_credential_that_fits_tells_what_it_has() {
    let [jwt, web, key, untyped, _] = others();
    for (credentials, found) in [
        (json!([jwt, web, jwt, key]), "only service account (JWT), OAuth Web App, API key"),
        (json!([untyped, {"integration_type": "p8e-secret"}]), "only another kind"),
        (json!([]), "none at all"),
        (json!([null, 1]), "none at all"),
        (Value::Null, "none at all"),
    ] {
        let expected =
            format!("is a project without an OAuth Server-to-Server credential, with {found}: add one");
        check_refused(found, parse(&project(credentials), None), &expected);
    }
    for (document, expected) in [
        (project(json!("x")), "`project.workspace.details.credentials` is not a list"),
        (json!({"project": {"workspace": {}}}), "`project.workspace.details` is missing"),
        (json!({"project": {"org": {}}}), "`project.workspace` is missing"),
        (json!({"project": "x"}), "is not a document that is known here"),
        (json!({"project": {"name": "Shop"}}), "is not a document that is known here"),
    ] {
        check_refused(expected, parse(&document, None), expected);
    }
}

#[test]
fn a_field_that_is_missing_empty_or_of_another_type_is_named_by_its_place() {
    let credentials = "project.workspace.details.credentials[1].oauth_server_to_server";
    for (name, document, expected) in [
        ("no id", json!({"client_secret": FIRST}), "`client_id` is missing"),
        ("no id, upper case", json!({"CLIENT_SECRETS": [FIRST]}), "`CLIENT_ID` is missing"),
        ("no id, camel case", json!({"clientSecret": FIRST}), "`clientId` is missing"),
        ("no secret", json!({"client_id": CLIENT_ID}), "`client_secrets` is missing"),
        (
            "no secret, upper case",
            json!({"integration": {"CLIENT_ID": "x"}}),
            "`integration.CLIENT_SECRETS` is missing",
        ),
        ("no secret, camel case", json!({"clientId": "x", "scopes": []}), "`clientSecrets` is missing"),
        ("an empty list", json!({"client_id": "x", "client_secrets": []}), "`client_secrets` is empty"),
        (
            "blank secrets",
            json!({"client_id": "x", "client_secrets": [" ", null]}),
            "`client_secrets` is empty",
        ),
        ("a blank secret", json!({"clientId": "x", "clientSecret": ""}), "`clientSecret` is empty"),
        ("a number", with(aio(), "client_secrets", json!(1)), "`client_secrets` is not a string or an array"),
        (
            "objects",
            with(aio(), "client_secrets", json!([{"secret": FIRST}])),
            "`client_secrets` is not a string or",
        ),
        ("scopes of numbers", with(aio(), "scopes", json!([1])), "`scopes` is not a string or an array"),
        ("a list for the org", with(aio(), "ims_org_id", json!([])), "`ims_org_id` is not a string"),
        (
            "within a project",
            project(json!([others()[0], {"integration_type": OAUTH, OAUTH: {"client_secrets": [FIRST]}}])),
            &format!("`{credentials}.client_id` is missing"),
        ),
        (
            "no details",
            project(json!([others()[0], {"integration_type": OAUTH}])),
            &format!("`{credentials}` is missing"),
        ),
    ] {
        check_refused(name, parse(&document, None), expected);
    }
}

#[test]
fn a_jwt_credential_of_this_console_is_called_by_its_name() {
    let mut jwt = upper_case();
    jwt["META_SCOPES"] = jwt["SCOPES"].take();
    let expected = "is a service account (JWT) credential of the Adobe Developer Console";
    for (name, document) in [
        ("as downloaded", jwt),
        ("with its key", json!({"CLIENT_ID": "x", "CLIENT_SECRETS": [FIRST], "PRIVATE_KEY": "p8e-key"})),
        (
            "of aio",
            json!({"client_id": "x", "client_secret": FIRST, "meta_scopes": ["a"], "ims_org_id": "y"}),
        ),
        ("camel case", json!({"clientId": "x", "clientSecret": FIRST, "orgId": "y", "metaScopes": "a"})),
    ] {
        check_refused(name, parse(&document, None), expected);
    }
}

#[test]
fn no_error_and_no_debug_output_shows_a_secret() {
    let credentials = parse(&project(json!([entry("one")])), None).unwrap();
    assert!(!format!("{credentials:?} {credentials:#?}").contains("p8e-"));
    let mut refused = 0;
    for document in [aio(), upper_case(), camel_case(), project(json!([entry("one"), entry("two")]))] {
        let text = document.to_string();
        for end in (0..text.len()).step_by(7) {
            let Err(error) = Credentials::parse_json_or_base64(&text[..end], None) else { continue };
            refused += 1;
            assert!(!format!("{error} {error:?}").contains("p8e-"), "{error}");
        }
    }
    assert!(refused > 150, "only {refused} documents were refused");
}
