use std::fs;

use base64::{Engine, engine::general_purpose};
use serde_json::{Value, json};

use super::*;
use crate::clock::rfc3339;

const DOCUMENT: &str = include_str!("../../tests/fixtures/service_token.json");
const KEY: &str = include_str!("../../tests/fixtures/private_key.pem");
const CERTIFICATE: &str = include_str!("../../tests/fixtures/certificate.pem");
const SECRET: &str = "p8e-made-up-client-secret-0";

/// The fixture after `change`.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut document = serde_json::from_str(DOCUMENT).unwrap();
    change(&mut document);
    document.to_string().into_bytes()
}

/// The fixture with another value at a place such as `/integration/id`.
fn with(place: &str, value: impl Into<Value>) -> Vec<u8> {
    let (parent, name) = place.rsplit_once('/').unwrap();
    changed(|document| document.pointer_mut(parent).unwrap()[name] = value.into())
}

fn without(place: &str) -> Vec<u8> {
    let (parent, name) = place.rsplit_once('/').unwrap();
    changed(|document| {
        document.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    })
}

/// The object within the wrapper, after `change`.
fn bare(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    changed(|document| {
        *document = document["integration"].take();
        change(document);
    })
}

#[track_caller]
fn jwt(credentials: Credentials) -> JwtCredentials {
    match credentials {
        Credentials::Jwt(credentials) => credentials,
        other => panic!("another kind: {other:?}"),
    }
}

#[track_caller]
fn check(name: &str, parsed: Result<Credentials, CredentialsError>) -> JwtCredentials {
    let credentials = jwt(parsed.unwrap_or_else(|error| panic!("{name}: {error}")));
    assert_eq!(credentials.ims_endpoint, "ims-na1.adobelogin.com", "{name}");
    assert_eq!(credentials.client_id, "cm-p1-e2-integration-0", "{name}");
    assert_eq!(credentials.client_secret.expose_secret(), SECRET, "{name}");
    assert_eq!(credentials.technical_account_id, "0123456789ABCDEF01234567@techacct.adobe.com", "{name}");
    assert_eq!(credentials.org, "89ABCDEF0123456789ABCDEF@AdobeOrg", "{name}");
    assert_eq!(credentials.metascopes, ["ent_aem_cloud_api"], "{name}");
    let key = PrivateKey::from_pem(KEY).unwrap();
    assert_eq!(credentials.private_key.public_key(), key.public_key(), "{name}");
    credentials
}

#[track_caller]
fn check_refused(name: &str, parsed: Result<Credentials, CredentialsError>, expected: &str) {
    let error = parsed.expect_err(name).to_string();
    assert!(error.starts_with(expected), "{name}: {error}");
    assert!(error.contains(": ") && !error.ends_with('.'), "{name} does not say what to do: {error}");
}

#[test]
fn the_document_is_read_as_the_console_gives_it() {
    let credentials = check("as downloaded", Credentials::parse(DOCUMENT.as_bytes(), None));
    assert_eq!(credentials.email.as_deref(), Some("00000000-1111-4222-8333-444444444444@techacct.adobe.com"));
    assert_eq!(credentials.certificate.unwrap().common_name(), Some("cm-p1-e2-integration-0"));
}

#[test]
fn the_document_is_read_in_every_shape_in_which_it_goes_round() {
    let bare_document = bare(|_| {});
    for (name, document) in [
        ("byte order mark", format!("\u{feff}{DOCUMENT}").into_bytes()),
        ("CRLF", DOCUMENT.replace('\n', "\r\n").into_bytes()),
        ("without ok", without("/ok")),
        ("without statusCode", without("/statusCode")),
        ("bare", bare_document),
        ("bare, with ok", bare(|document| document["ok"] = true.into())),
        ("unknown fields", with("/proxy", json!({"host": "proxy.example", "port": 3128}))),
        ("unknown fields within", with("/integration/technicalAccount/new", json!([1, null]))),
        ("a token beside it", with("/accessToken", "token")),
        ("cert", changed(|document| rename(&mut document["integration"], "publicKey", "cert"))),
        ("bare, cert", bare(|document| rename(document, "publicKey", "cert"))),
        ("id in technicalAccount", changed(|document| move_in(&mut document["integration"], "id"))),
        ("org in technicalAccount", changed(|document| move_in(&mut document["integration"], "org"))),
        (
            "bare, both in technicalAccount",
            bare(|document| {
                move_in(document, "id");
                move_in(document, "org");
            }),
        ),
        ("white space", with("/integration/technicalAccount/clientSecret", format!(" {SECRET}\n"))),
        ("null certificate", with("/integration/publicKey", Value::Null)),
        ("no certificate", without("/integration/publicKey")),
        ("no email", without("/integration/email")),
        ("blank email", with("/integration/email", " ")),
    ] {
        check(name, Credentials::parse(&document, None));
    }
}

fn rename(object: &mut Value, from: &str, to: &str) {
    object[to] = object[from].take();
}

fn move_in(integration: &mut Value, name: &str) {
    integration["technicalAccount"][name] = integration[name].take();
}

#[test]
fn keys_and_certificates_are_read_whatever_became_of_their_lines() {
    for (field, pem) in [("/integration/privateKey", KEY), ("/integration/publicKey", CERTIFICATE)] {
        let lines = |end: &str| json!(pem.lines().map(|line| format!("{line}{end}")).collect::<Vec<_>>());
        let crlf = pem.replace('\n', "\r\n");
        let spelled_out = pem.replace('\n', "\\n");
        for (name, value) in [
            ("LF", pem.into()),
            ("CRLF", crlf.clone().into()),
            ("spelled out LF", spelled_out.clone().into()),
            ("spelled out CRLF", pem.replace('\n', "\\r\\n").into()),
            ("blanks for line ends", pem.replace('\n', " ").into()),
            ("white space round it", format!("\n\t {pem} \n\n").into()),
            ("no last line end", pem.trim_end().into()),
            ("base64", general_purpose::STANDARD.encode(pem).into()),
            ("base64 of CRLF", general_purpose::STANDARD.encode(&crlf).into()),
            ("base64 of spelled out LF", general_purpose::STANDARD.encode(&spelled_out).into()),
            ("URL base64 without padding", general_purpose::URL_SAFE_NO_PAD.encode(pem).into()),
            ("base64 in lines", in_lines(&general_purpose::STANDARD.encode(pem)).into()),
            ("lines", lines("")),
            ("lines with LF", lines("\n")),
            ("lines with CRLF", lines("\r\n")),
            ("lines with spelled out LF", lines("\\n")),
            ("all in one line of an array", json!([pem])),
        ] {
            let credentials = check(name, Credentials::parse(&with(field, value), None));
            assert!(credentials.certificate.is_some(), "{name}");
        }
    }
}

fn in_lines(base64: &str) -> String {
    base64.as_bytes().chunks(76).map(|line| format!("{}\n", str::from_utf8(line).unwrap())).collect()
}

#[test]
fn an_environment_variable_holds_the_document_or_its_base64() {
    let standard = general_purpose::STANDARD.encode(DOCUMENT);
    for (name, value) in [
        ("JSON", DOCUMENT.to_owned()),
        ("JSON with white space", format!("\n {DOCUMENT}\n")),
        ("JSON with a byte order mark", format!("\u{feff}{DOCUMENT}")),
        ("base64", standard.clone()),
        ("base64 in lines", in_lines(&standard)),
        ("base64 without padding", standard.trim_end_matches('=').to_owned()),
        ("URL base64", general_purpose::URL_SAFE.encode(DOCUMENT)),
        ("URL base64 without padding", general_purpose::URL_SAFE_NO_PAD.encode(DOCUMENT)),
        ("base64 with a byte order mark", general_purpose::STANDARD.encode(format!("\u{feff}{DOCUMENT}"))),
        ("base64 of the bare object", general_purpose::STANDARD.encode(bare(|_| {}))),
    ] {
        check(name, Credentials::parse_json_or_base64(&value, None));
    }
}

#[test]
fn an_environment_variable_that_holds_something_else_is_refused() {
    let base64 = |value: &[u8]| general_purpose::STANDARD.encode(value);
    for (name, value, expected) in [
        ("nothing", String::new(), "is empty"),
        ("blanks", " \n".to_owned(), "is empty"),
        ("a path", "/run/secrets/service_token.json".to_owned(), "is neither a JSON object, nor base64"),
        ("a token without claims", "eyJh.eyJi.c2ln".to_owned(), "is not an access token"),
        ("quoted JSON", format!("'{DOCUMENT}'"), "is neither a JSON object, nor base64"),
        ("a list", format!("[{DOCUMENT}]"), "is neither a JSON object, nor base64"),
        ("base64 of a word", base64(b"secret"), "is base64, but not of a JSON object"),
        ("base64 of bytes", base64(&[0xff, 0xfe, 0x00]), "is base64, but not of a JSON object"),
        ("base64 of a key", base64(KEY.as_bytes()), "is base64, but not of a JSON object"),
        (
            "base64 twice",
            base64(base64(DOCUMENT.as_bytes()).as_bytes()),
            "is base64, but not of a JSON object",
        ),
        ("half of the JSON", DOCUMENT[..90].to_owned(), "is not valid JSON at line 5"),
        ("base64 of half", base64(&DOCUMENT.as_bytes()[..90]), "is not valid JSON at line 5"),
    ] {
        check_refused(name, Credentials::parse_json_or_base64(&value, None), expected);
    }
}

#[test]
fn a_key_file_is_looked_for_beside_the_document() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("service_token.json");
    fs::create_dir(directory.path().join("keys")).unwrap();
    fs::write(directory.path().join("keys/private.key"), KEY).unwrap();
    fs::write(directory.path().join("keys/base64.key"), general_purpose::STANDARD.encode(KEY)).unwrap();
    fs::write(directory.path().join("keys/private.der"), [0x30, 0xff]).unwrap();
    fs::write(directory.path().join("certificate.pem"), CERTIFICATE).unwrap();
    let absolute = directory.path().join("keys/private.key");

    for (field, value) in [
        ("/integration/privateKey", "keys/private.key"),
        ("/integration/privateKey", " keys/private.key\n"),
        ("/integration/privateKey", "keys/base64.key"),
        ("/integration/privateKey", absolute.to_str().unwrap()),
        ("/integration/publicKey", "certificate.pem"),
    ] {
        fs::write(&path, with(field, value)).unwrap();
        let read = check(value, Credentials::read(&path, None)).files;
        assert_eq!(read, [directory.path().join(value.trim())]);
    }
    for (value, expected) in [
        ("keys/none.key", "`integration.privateKey` is neither PEM"),
        ("keys/private.der", "`integration.privateKey` is neither PEM"),
        ("certificate.pem", "`integration.privateKey` is PEM without a private key"),
        ("keys", "`integration.privateKey` names a file that cannot be read: "),
    ] {
        fs::write(&path, with("/integration/privateKey", value)).unwrap();
        check_refused(value, Credentials::read(&path, None), expected);
    }
}

#[test]
fn both_files_that_a_document_names_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("service_token.json");
    fs::write(directory.path().join("key.pem"), KEY).unwrap();
    fs::write(directory.path().join("certificate.pem"), CERTIFICATE).unwrap();
    let document = changed(|document| {
        document["integration"]["privateKey"] = "key.pem".into();
        document["integration"]["publicKey"] = "certificate.pem".into();
    });
    fs::write(&path, document).unwrap();
    let credentials = Credentials::read(&path, None).unwrap();
    assert_eq!(
        credentials.files(),
        [directory.path().join("key.pem"), directory.path().join("certificate.pem")]
    );
    assert!(Credentials::parse(DOCUMENT.as_bytes(), None).unwrap().files().is_empty());
}

#[test]
fn a_key_file_of_a_document_without_a_place_is_looked_for_in_the_working_directory() {
    let document = with("/integration/privateKey", "tests/fixtures/private_key_pkcs8.pem");
    check("relative", Credentials::parse(&document, None));
}

#[test]
fn a_file_that_cannot_be_read_is_told_from_one_that_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("service_token.json");
    check_refused("none", Credentials::read(&path, None), "not found: ");
    check_refused("a directory", Credentials::read(directory.path(), None), "cannot be read: ");
    fs::write(&path, vec![b' '; (MAX_FILE_BYTES + 1) as usize]).unwrap();
    check_refused("too large", Credentials::read(&path, None), "cannot be read: file too large");
    fs::write(&path, "").unwrap();
    check_refused("empty", Credentials::read(&path, None), "is empty: ");
    fs::write(&path, DOCUMENT).unwrap();
    check("a file", Credentials::read(&path, None));
}

#[cfg(unix)]
#[test]
fn a_file_is_world_readable_when_others_than_its_group_can_read_or_change_it() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    for (mode, expected) in
        [(0o600, false), (0o640, false), (0o660, false), (0o644, true), (0o602, true), (0o601, false)]
    {
        file.as_file().set_permissions(fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(world_readable(file.path()), expected, "{mode:o}");
    }
    assert!(!world_readable(Path::new("no such file")));
}

#[test]
fn metascopes_come_as_one_string_or_as_several() {
    for (value, expected) in [
        (json!("ent_aem_cloud_api"), vec!["ent_aem_cloud_api"]),
        (json!(" ent_aem_cloud_sdk , ,ent_cloudmgr_sdk,"), vec!["ent_aem_cloud_sdk", "ent_cloudmgr_sdk"]),
        (json!(["ent_aem_cloud_sdk", " ent_cloudmgr_sdk"]), vec!["ent_aem_cloud_sdk", "ent_cloudmgr_sdk"]),
        (json!(["a,b", "", "c"]), vec!["a", "b", "c"]),
        (json!("https://ims.example/s/x,y"), vec!["https://ims.example/s/x", "y"]),
    ] {
        let credentials = jwt(Credentials::parse(&with("/integration/metascopes", value), None).unwrap());
        assert_eq!(credentials.metascopes, expected);
    }
}

#[test]
fn the_endpoint_is_a_host_and_keeps_http_only() {
    for (value, expected) in [
        ("ims-na1.adobelogin.com", Some("ims-na1.adobelogin.com")),
        ("https://ims-na1.adobelogin.com", Some("ims-na1.adobelogin.com")),
        ("HTTPS://ims-na1.adobelogin.com/", Some("ims-na1.adobelogin.com")),
        (" ims-na1.adobelogin.com/ ", Some("ims-na1.adobelogin.com")),
        ("ims.example:8443", Some("ims.example:8443")),
        ("http://127.0.0.1:8090/", Some("http://127.0.0.1:8090")),
        ("http://[::1]:8090", Some("http://[::1]:8090")),
        ("ims.example/ims/exchange/jwt", None),
        ("https://user@ims.example", None),
        ("https://ims.example?x=1", None),
        ("ims.example#x", None),
        ("ims .example", None),
        ("ims.example\\x", None),
        ("ims.example:port", None),
        ("ftp://ims.example", None),
        ("https://", None),
        ("/", None),
    ] {
        let parsed = Credentials::parse(&with("/integration/imsEndpoint", value), None);
        match expected {
            Some(expected) => assert_eq!(parsed.unwrap().ims_endpoint().unwrap(), expected),
            None => check_refused(value, parsed, "`integration.imsEndpoint` is not a host name"),
        }
    }
}

#[test]
fn the_end_is_that_of_the_certificate_or_else_the_date_in_the_document() {
    let date = |value: Value| {
        changed(|document| {
            document["integration"]["publicKey"].take();
            document["integration"]["certificateExpirationDate"] = value;
        })
    };
    for (name, document, expected) in [
        (
            "both",
            with("/integration/certificateExpirationDate", "2030-01-01T00:00:00.000Z"),
            Some("2120-01-01T00:00:00Z"),
        ),
        ("no date", without("/integration/certificateExpirationDate"), Some("2120-01-01T00:00:00Z")),
        ("no certificate", date("2026-02-14T00:28:07.133Z".into()), Some("2026-02-14T00:28:07Z")),
        ("neither", date(Value::Null), None),
        ("not a date", date("next year".into()), None),
        ("not a string", date(1_900_000_000.into()), None),
    ] {
        let credentials = check(name, Credentials::parse(&document, None));
        assert_eq!(credentials.expires_at().map(rfc3339).as_deref(), expected, "{name}");
    }
}

#[test]
fn what_the_key_signs_the_certificate_verifies() {
    crate::jwt::install();
    let credentials = jwt(Credentials::parse(DOCUMENT.as_bytes(), None).unwrap());
    let claims = json!({"sub": credentials.technical_account_id});
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
    let token = jsonwebtoken::encode(&header, &claims, &credentials.private_key.signing_key()).unwrap();

    let (message, signature) = token.rsplit_once('.').unwrap();
    let key = jsonwebtoken::DecodingKey::from_rsa_der(credentials.certificate.as_ref().unwrap().public_key());
    let verified =
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, jsonwebtoken::Algorithm::RS256);
    assert!(verified.unwrap());
}

#[test]
fn a_document_of_no_kind_is_called_so() {
    let unknown = "is not a document that is known here";
    for (name, document, expected) in [
        ("not ok", json!({"ok": false, "statusCode": 404}), "says `ok: false`"),
        ("an unknown object", json!({"anything": "x"}), unknown),
        ("an empty object", json!({}), unknown),
        ("an empty answer", json!({"ok": true, "integration": null}), unknown),
        ("an empty integration", json!({"integration": {}}), "`integration.technicalAccount` is missing"),
        ("a text in its place", json!({"integration": "x"}), "`integration` is not an object"),
        ("a list", json!([]), "is JSON, but not an object"),
        ("a string", json!(DOCUMENT), "is JSON, but not an object"),
    ] {
        check_refused(name, Credentials::parse(document.to_string().as_bytes(), None), expected);
    }
    check_refused(
        "not ok, though all is there",
        Credentials::parse(&with("/ok", false), None),
        "says `ok: false`",
    );
}

#[test]
fn what_is_not_json_is_refused_by_place() {
    let utf16: Vec<u8> = DOCUMENT.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (name, document, expected) in [
        ("nothing", Vec::new(), "is empty"),
        ("blanks", b" \r\n".to_vec(), "is empty"),
        ("a mark alone", "\u{feff}".into(), "is empty"),
        ("UTF-16", [&[0xff, 0xfe], utf16.as_slice()].concat(), "is UTF-16 text"),
        ("UTF-16 without mark", utf16, "is UTF-16 text"),
        ("Latin-1", b"{\"a\": \"\xe9\"}".to_vec(), "is not UTF-8 text"),
        ("a key", KEY.into(), "is not valid JSON at line 1, column 2"),
        ("half", DOCUMENT[..90].into(), "is not valid JSON at line 5"),
        ("real line ends", DOCUMENT.replace("\\r\\n", "\n").into(), "is not valid JSON at line 14, column 0"),
        ("two documents", format!("{DOCUMENT}{DOCUMENT}").into(), "is not valid JSON at line 19, column 1"),
    ] {
        check_refused(name, Credentials::parse(&document, None), expected);
    }
}

#[test]
fn a_field_that_is_missing_empty_or_of_another_type_is_named_by_its_place() {
    for (field, is_list_too) in [
        ("imsEndpoint", false),
        ("metascopes", true),
        ("technicalAccount.clientId", false),
        ("technicalAccount.clientSecret", false),
        ("id", false),
        ("org", false),
        ("privateKey", true),
    ] {
        let pointer = format!("/{}", field.replace('.', "/"));
        let expected = if is_list_too { "a string or an array of strings" } else { "a string" };
        for (value, expected) in [
            (Value::Null, "is missing: ".to_owned()),
            (json!(""), "is empty: ".to_owned()),
            (json!(" \n"), "is empty: ".to_owned()),
            (json!(1), format!("is not {expected}: ")),
            (json!({}), format!("is not {expected}: ")),
            (json!([1]), format!("is not {expected}: ")),
            (json!([]), if is_list_too { "is empty: ".to_owned() } else { format!("is not {expected}: ") }),
        ] {
            let wrapped = changed(|d| *d["integration"].pointer_mut(&pointer).unwrap() = value.clone());
            let bare = bare(|d| *d.pointer_mut(&pointer).unwrap() = value.clone());
            check_refused(
                field,
                Credentials::parse(&wrapped, None),
                &format!("`integration.{field}` {expected}"),
            );
            check_refused(field, Credentials::parse(&bare, None), &format!("`{field}` {expected}"));
        }
        check_refused(
            field,
            Credentials::parse(&without(&format!("/integration{pointer}")), None),
            &format!("`integration.{field}` is missing: "),
        );
    }
    for (name, document, expected) in [
        ("no account", without("/integration/technicalAccount"), "`integration.technicalAccount` is missing"),
        (
            "a text for the account",
            with("/integration/technicalAccount", "x"),
            "`integration.technicalAccount` is not an object",
        ),
        ("a number for the email", with("/integration/email", 1), "`integration.email` is not a string"),
        ("only commas", with("/integration/metascopes", " , ,"), "`integration.metascopes` is empty"),
        ("an empty certificate", with("/integration/publicKey", ""), "`integration.publicKey` is empty"),
        (
            "a wrong id in the account",
            changed(|document| {
                document["integration"]["id"].take();
                document["integration"]["technicalAccount"]["id"] = json!(1);
            }),
            "`integration.technicalAccount.id` is not a string",
        ),
    ] {
        check_refused(name, Credentials::parse(&document, None), expected);
    }
}

#[test]
fn a_key_or_certificate_that_is_of_no_use_is_named_by_its_field() {
    for (field, value, expected) in [
        ("privateKey", include_str!("../../tests/fixtures/small_key.pem"), "is an RSA key of 1024 bits"),
        ("privateKey", include_str!("../../tests/fixtures/ec_key.pem"), "is not an RSA key"),
        ("privateKey", include_str!("../../tests/fixtures/encrypted_key.pem"), "is encrypted"),
        ("privateKey", CERTIFICATE, "is PEM without a private key"),
        ("privateKey", "[REDACTED]", "is neither PEM"),
        ("publicKey", KEY, "is PEM without a certificate"),
        ("publicKey", "[REDACTED]", "is neither PEM"),
        (
            "publicKey",
            include_str!("../../tests/fixtures/other_certificate.pem"),
            "is not of the key in `integration.privateKey`",
        ),
    ] {
        let parsed = Credentials::parse(&with(&format!("/integration/{field}"), value), None);
        check_refused(field, parsed, &format!("`integration.{field}` {expected}"));
    }
}

#[test]
fn no_error_and_no_debug_output_shows_a_secret() {
    let mut documents = vec![DOCUMENT.as_bytes().to_vec(), json!(DOCUMENT).to_string().into_bytes()];
    documents.extend((0..DOCUMENT.len()).step_by(40).map(|end| DOCUMENT.as_bytes()[..end].to_vec()));
    let places = [
        "/integration",
        "/integration/imsEndpoint",
        "/integration/metascopes",
        "/integration/technicalAccount",
        "/integration/technicalAccount/clientId",
        "/integration/technicalAccount/clientSecret",
        "/integration/email",
        "/integration/id",
        "/integration/org",
        "/integration/privateKey",
        "/integration/publicKey",
        "/integration/certificateExpirationDate",
    ];
    let broken =
        [json!(1), json!([SECRET, 1]), json!({SECRET: KEY}), json!(&KEY[..800]), json!(&CERTIFICATE[..600])];
    for place in places {
        documents.push(without(place));
        documents.push(with(place, format!("{SECRET}/?")));
        documents.extend(broken.iter().map(|value| with(place, value.clone())));
    }

    let mut refused = 0;
    for document in documents {
        let text = String::from_utf8(document).unwrap();
        for parsed in [
            Credentials::parse(text.as_bytes(), None),
            Credentials::parse_json_or_base64(&text, None),
            Credentials::parse_json_or_base64(&general_purpose::STANDARD.encode(&text), None),
        ] {
            // What is usable may have a secret where a name belongs; nobody can tell the two apart.
            let Err(error) = parsed else { continue };
            refused += 1;
            check_shows_no_secret(&format!("{error} {error:?} {error:#?}"));
        }
    }
    assert!(refused > 300, "only {refused} documents were refused");

    let credentials = Credentials::parse(DOCUMENT.as_bytes(), None).unwrap();
    check_shows_no_secret(&format!("{credentials:?} {credentials:#?}"));
}

#[track_caller]
fn check_shows_no_secret(shown: &str) {
    assert!(!shown.contains(SECRET), "{shown}");
    for line in KEY.lines().chain(CERTIFICATE.lines()).filter(|line| !line.starts_with("-----")) {
        for start in 0..=line.len().saturating_sub(20) {
            let slice = &line[start..line.len().min(start + 20)];
            assert!(slice.len() < 20 || !shown.contains(slice), "{shown}");
        }
    }
    // A list of bytes would show them, too.
    let der = pem::blocks(KEY).next().unwrap().der().unwrap();
    let bytes = format!("{:?}", &der[100..104]);
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
}

#[test]
fn a_pipe_into_which_nobody_writes_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let read = read_within(&path, Duration::from_millis(20)).map(|_| ());
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
}
