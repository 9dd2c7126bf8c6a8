//! Adobe's JSON documents become [`Credentials`].
//!
//! The documents are foreign and travel through environment variables, secret stores and editors, so
//! every form in which they are met is read, and none of their content is ever shown: an error says
//! where, what and what to do, in our words.

mod certificate;
mod document;
mod pem;
mod private_key;
mod watch;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::SystemTime,
};

use secrecy::{SecretString, zeroize::Zeroizing};
use url::Url;

use self::document::{Document, Fields};
pub use self::{
    certificate::{Certificate, CertificateError},
    private_key::{PrivateKey, PrivateKeyError},
    watch::Watch,
};

/// Service credentials of an AEM technical account, which IMS exchanges for a token (JWT exchange).
///
/// The document is the one that the AEM Developer Console gives under Integrations: `{ok, integration,
/// statusCode}` (Adobe's page "Generating Access Tokens for Server-Side APIs").
#[derive(Debug)]
pub struct Credentials {
    /// `integration.imsEndpoint`: `host` or `host:port`, without `https://` and without a slash at the end.
    /// An `http://` that stands in the document stays, for the caller to judge.
    pub ims_endpoint: String,
    /// `integration.technicalAccount.clientId`, such as `cm-p1-e2-integration-0`.
    pub client_id: String,
    /// `integration.technicalAccount.clientSecret`.
    pub client_secret: SecretString,
    /// `integration.id`, `...@techacct.adobe.com`: the JWT's `sub`.
    pub technical_account_id: String,
    /// `integration.email`: the login name of the user that AEM makes for the account.
    pub email: Option<String>,
    /// `integration.org`, `...@AdobeOrg`: the JWT's `iss`.
    pub org: String,
    /// `integration.metascopes`, at least one: each is a claim of the JWT.
    pub metascopes: Vec<String>,
    /// `integration.privateKey`, or the file of which the path stands there: signs the JWT.
    pub private_key: PrivateKey,
    /// `integration.publicKey` (or `cert`), likewise; of the same key as `private_key`.
    pub certificate: Option<Certificate>,
    /// `integration.certificateExpirationDate`, which older documents do not have. Absent too where it is
    /// not readable as a time: it is only told to the user, so it keeps nobody from starting.
    pub certificate_expiration_date: Option<SystemTime>,
}

/// Why there are no credentials. Messages go behind the name of the file or variable, and hold nothing
/// of the document but names of fields.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// There is no such file.
    #[error(
        "not found: download the service credentials from the AEM Developer Console (Integrations) and give \
         the path of that file"
    )]
    NotFound,
    /// The file is not ours to read.
    #[error("permission denied: let the user who runs the proxy read the file")]
    PermissionDenied,
    /// The file is there and cannot be read all the same.
    #[error("cannot be read: {0}: give the path of a regular file of at most {MAX_FILE_MIB} MiB")]
    Unreadable(io::Error),
    /// Nothing but white space; a file that is just being written looks so, too.
    #[error("is empty: put the service credentials of the AEM Developer Console there")]
    Empty,
    /// UTF-16, most likely.
    #[error("is not UTF-8 text (PowerShell's `>` writes UTF-16): save it as UTF-8")]
    NotUtf8,
    /// The place alone, in the text after base64 was undone.
    #[error(
        "is not valid JSON at line {line}, column {column}: download the document again; within it, line \
         ends of keys must stay spelled out as `\\n`"
    )]
    Json {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes; 0 where the break before the line is the fault.
        column: usize,
    },
    /// A list, a string or a number.
    #[error("is JSON, but not an object: use the whole document of the AEM Developer Console")]
    NotAnObject,
    /// A value of the environment that is neither form.
    #[error(
        "is neither a JSON object nor base64 of one: give the document itself or its base64, without quotes \
         round it; the path of a file belongs in `credentials_file`"
    )]
    NeitherJsonNorBase64,
    /// A value of the environment that is base64, though not of the document.
    #[error("is base64, but not of a JSON object: encode the document itself, and once only")]
    Base64OfSomethingElse,
    /// The console could not give the credentials and wrote that down.
    #[error("says `ok: false`, so it holds an error in place of credentials: download the document again")]
    NotOk,
    /// The developer's own token of at most a day.
    #[error(
        "is a local development token (`accessToken`); this version takes service credentials (JWT): in the \
         AEM Developer Console, use Integrations, Technical Accounts"
    )]
    LocalDevelopmentToken,
    /// A project of the other console, or one credential of it.
    #[error(
        "is a project or an OAuth server-to-server credential of the Adobe Developer Console; this version \
         takes service credentials (JWT): in the AEM Developer Console, use Integrations, Technical Accounts"
    )]
    OAuthServerToServer,
    /// A field is absent or `null`.
    #[error("`{field}` is missing: use the whole document as the AEM Developer Console gives it")]
    Missing {
        /// The field's path from the top of the document.
        field: String,
    },
    /// A field holds only white space, an empty list or commas.
    #[error("`{field}` is empty: use the whole document as the AEM Developer Console gives it")]
    EmptyField {
        /// The field's path from the top of the document.
        field: String,
    },
    /// A field is of another JSON type.
    #[error("`{field}` is not {expected}: use the whole document as the AEM Developer Console gives it")]
    WrongType {
        /// The field's path from the top of the document.
        field: String,
        /// The JSON type that would do, with its article.
        expected: &'static str,
    },
    /// The endpoint is more than a host, or less.
    #[error("`{field}` is not a host name: put a name such as `ims-na1.adobelogin.com` there, and no path")]
    ImsEndpoint {
        /// The field's path from the top of the document.
        field: String,
    },
    /// The key cannot sign.
    #[error("`{field}` {problem}")]
    PrivateKey {
        /// The field's path from the top of the document.
        field: String,
        /// What is wrong with the key; part of the message, so not a source.
        problem: PrivateKeyError,
    },
    /// The certificate is none.
    #[error("`{field}` {problem}")]
    Certificate {
        /// The field's path from the top of the document.
        field: String,
        /// What is wrong with the certificate; part of the message, so not a source.
        problem: CertificateError,
    },
    /// The field is a path, and the file there cannot be read.
    #[error("`{field}` names a file that cannot be read: {problem}: let the proxy's user read it")]
    PemFile {
        /// The field's path from the top of the document.
        field: String,
        /// What the system said; part of the message, so not a source.
        problem: io::Error,
    },
    /// IMS would refuse every signature.
    #[error(
        "`{certificate}` is not of the key in `{private_key}`: take both from one download, or leave \
         `{certificate}` out"
    )]
    OtherKey {
        /// The certificate's path from the top of the document.
        certificate: String,
        /// The key's path from the top of the document.
        private_key: String,
    },
}

impl Credentials {
    /// Reads a JSON document. Where it names a key file, the path is relative to the working directory.
    ///
    /// # Errors
    /// When it is not usable as it is: see [`CredentialsError`].
    pub fn parse(document: &[u8]) -> Result<Self, CredentialsError> {
        Self::from_document(&Document::parse(document)?, Path::new(""))
    }

    /// Reads the value of an environment variable: the JSON document, or base64 of it in the usual or the
    /// URL alphabet, padded or not, in one line or in many.
    ///
    /// # Errors
    /// When it is not usable as it is: see [`CredentialsError`].
    pub fn parse_json_or_base64(value: &str) -> Result<Self, CredentialsError> {
        let value = value.trim_matches(is_blank);
        if value.is_empty() || value.starts_with('{') {
            return Self::parse(value.as_bytes());
        }
        let document = pem::decode_base64(value).ok_or(CredentialsError::NeitherJsonNorBase64)?;
        match std::str::from_utf8(&document) {
            Ok(text) if text.trim_start_matches(is_blank).starts_with('{') => Self::parse(&document),
            _ => Err(CredentialsError::Base64OfSomethingElse),
        }
    }

    /// Reads a file. Where the document names a key file, the path is relative to the document's directory.
    ///
    /// # Errors
    /// When the file cannot be read, or is not usable as it is: see [`CredentialsError`].
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let document = read_limited(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CredentialsError::NotFound,
            io::ErrorKind::PermissionDenied => CredentialsError::PermissionDenied,
            _ => CredentialsError::Unreadable(error),
        })?;
        Self::from_document(&Document::parse(&document)?, path.parent().unwrap_or(Path::new("")))
    }

    /// When the credentials end: with the certificate, or else on the day that the document names.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.certificate.as_ref().map(Certificate::not_after).or(self.certificate_expiration_date)
    }

    /// `directory` is where relative paths of key files begin.
    fn from_document(document: &Document, directory: &Path) -> Result<Self, CredentialsError> {
        let integration = integration(document.fields()?)?;
        let account = integration.object("technicalAccount")?;
        // Some descriptions put both beside the client id; Adobe's documents have them one level up.
        let id_or_org = |name| {
            let moved = !integration.has(name) && account.has(name);
            if moved { account.text(name) } else { integration.text(name) }
        };
        let private_key = private_key(&integration, directory)?;
        Ok(Self {
            ims_endpoint: ims_endpoint(&integration)?,
            client_id: account.text("clientId")?.to_owned(),
            client_secret: account.text("clientSecret")?.into(),
            technical_account_id: id_or_org("id")?.to_owned(),
            email: integration.optional_text("email")?.map(str::to_owned),
            org: id_or_org("org")?.to_owned(),
            metascopes: integration.comma_separated("metascopes")?,
            certificate: certificate(&integration, directory, &private_key)?,
            private_key,
            certificate_expiration_date: certificate_expiration_date(&integration),
        })
    }
}

/// Whether users other than the owner and its group can read or change the file, which is worth a warning.
/// Always `false` where there are no such permissions, and where the file cannot be looked at.
pub fn world_readable(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o006 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// The object with the credentials: `integration`, or the outermost one where it was stored alone.
fn integration(top: Fields<'_>) -> Result<Fields<'_>, CredentialsError> {
    if top.is_false("ok") {
        return Err(CredentialsError::NotOk);
    }
    let wrapped = top.has("integration");
    // Adobe's headless client tells the two documents apart by this field, too.
    if !wrapped && top.has("accessToken") {
        return Err(CredentialsError::LocalDevelopmentToken);
    }
    let bare = !wrapped && top.has_any(&["technicalAccount", "privateKey", "imsEndpoint", "metascopes"]);
    let oauth = is_project(&top) || is_oauth(&top) || wrapped && is_oauth(&top.object("integration")?);
    match (oauth, bare) {
        (true, _) => Err(CredentialsError::OAuthServerToServer),
        (false, true) => Ok(top),
        (false, false) => top.object("integration"),
    }
}

/// The download of a project of the Adobe Developer Console, which lists credentials.
fn is_project(top: &Fields<'_>) -> bool {
    top.object("project")
        .and_then(|project| project.object("workspace"))
        .and_then(|workspace| workspace.object("details"))
        .is_ok_and(|details| details.has("credentials"))
}

/// One OAuth credential, as the Adobe Developer Console, the `aio` command line and Adobe's libraries
/// spell it.
fn is_oauth(fields: &Fields<'_>) -> bool {
    let lower_case = ["client_id", "client_secret", "client_secrets"];
    let upper_case = ["CLIENT_ID", "CLIENT_SECRET", "CLIENT_SECRETS"];
    let camel_case = fields.has("clientId") && fields.has_any(&["clientSecret", "orgId", "scopes"]);
    (camel_case || fields.has_any(&lower_case) || fields.has_any(&upper_case))
        && !fields.has_any(&["technicalAccount", "privateKey"])
}

fn ims_endpoint(integration: &Fields<'_>) -> Result<String, CredentialsError> {
    let name = "imsEndpoint";
    host_and_scheme(integration.text(name)?)
        .ok_or_else(|| CredentialsError::ImsEndpoint { field: integration.path(name) })
}

/// `host` or `host:port`, behind `http://` if that stood there. Nothing else may be there: the endpoint is
/// part of the JWT's audience, letter by letter, and the secrets are sent to it.
fn host_and_scheme(endpoint: &str) -> Option<String> {
    let (scheme, authority) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "https" => "",
        "http" => "http://",
        _ => return None,
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let is_other = |c: char| c.is_whitespace() || c.is_control() || "/\\?#@".contains(c);
    let valid = !authority.contains(is_other) && Url::parse(&format!("https://{authority}")).is_ok();
    valid.then(|| format!("{scheme}{authority}"))
}

fn private_key(integration: &Fields<'_>, directory: &Path) -> Result<PrivateKey, CredentialsError> {
    let name = "privateKey";
    PrivateKey::from_pem(&pem_text(integration, name, directory)?)
        .map_err(|problem| CredentialsError::PrivateKey { field: integration.path(name), problem })
}

/// The certificate of the key. Adobe calls it `publicKey`, a description that goes round `cert`.
fn certificate(
    integration: &Fields<'_>,
    directory: &Path,
    private_key: &PrivateKey,
) -> Result<Option<Certificate>, CredentialsError> {
    let Some(name) = ["publicKey", "cert"].into_iter().find(|name| integration.has(name)) else {
        return Ok(None);
    };
    let certificate = Certificate::from_pem(&pem_text(integration, name, directory)?)
        .map_err(|problem| CredentialsError::Certificate { field: integration.path(name), problem })?;
    if certificate.public_key() != private_key.public_key() {
        return Err(CredentialsError::OtherKey {
            certificate: integration.path(name),
            private_key: integration.path("privateKey"),
        });
    }
    Ok(Some(certificate))
}

/// The field's text, or that of the file which it names. A text that is neither PEM nor a path is returned
/// as it is, for the reader of PEM to say so.
fn pem_text(
    fields: &Fields<'_>,
    name: &str,
    directory: &Path,
) -> Result<Zeroizing<String>, CredentialsError> {
    let text = fields.lines(name)?;
    let path = directory.join(text.trim());
    if pem::unfold(&text).is_some() || !path.exists() {
        return Ok(text);
    }
    let bytes = read_limited(&path)
        .map_err(|problem| CredentialsError::PemFile { field: fields.path(name), problem })?;
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

/// RFC 3339 with milliseconds, in UTC.
fn certificate_expiration_date(integration: &Fields<'_>) -> Option<SystemTime> {
    let date = integration.text("certificateExpirationDate").ok()?;
    humantime::parse_rfc3339(date).ok()
}

fn read_limited(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(USUAL_FILE_BYTES));
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{feff}'
}

/// A document has five KiB; a path given by mistake may lead to a disk or to `/dev/zero`.
const MAX_FILE_MIB: u64 = 1;
const MAX_FILE_BYTES: u64 = MAX_FILE_MIB << 20;
/// More than a document has, so that reading does not leave copies in memory that is given back.
const USUAL_FILE_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::fs;

    use base64::{Engine, engine::general_purpose};
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    use super::*;
    use crate::{clock::rfc3339, jwt};

    const DOCUMENT: &str = include_str!("../tests/fixtures/service_token.json");
    const KEY: &str = include_str!("../tests/fixtures/private_key.pem");
    const CERTIFICATE: &str = include_str!("../tests/fixtures/certificate.pem");
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
    fn check(name: &str, parsed: Result<Credentials, CredentialsError>) -> Credentials {
        let credentials = parsed.unwrap_or_else(|error| panic!("{name}: {error}"));
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
        let credentials = check("as downloaded", Credentials::parse(DOCUMENT.as_bytes()));
        assert_eq!(
            credentials.email.as_deref(),
            Some("00000000-1111-4222-8333-444444444444@techacct.adobe.com")
        );
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
            check(name, Credentials::parse(&document));
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
                let credentials = check(name, Credentials::parse(&with(field, value)));
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
            (
                "base64 with a byte order mark",
                general_purpose::STANDARD.encode(format!("\u{feff}{DOCUMENT}")),
            ),
            ("base64 of the bare object", general_purpose::STANDARD.encode(bare(|_| {}))),
        ] {
            check(name, Credentials::parse_json_or_base64(&value));
        }
    }

    #[test]
    fn an_environment_variable_that_holds_something_else_is_refused() {
        let base64 = |value: &[u8]| general_purpose::STANDARD.encode(value);
        for (name, value, expected) in [
            ("nothing", String::new(), "is empty"),
            ("blanks", " \n".to_owned(), "is empty"),
            ("a path", "/run/secrets/service_token.json".to_owned(), "is neither a JSON object nor base64"),
            ("a token", "eyJh.eyJi.c2ln".to_owned(), "is neither a JSON object nor base64"),
            ("quoted JSON", format!("'{DOCUMENT}'"), "is neither a JSON object nor base64"),
            ("a list", format!("[{DOCUMENT}]"), "is neither a JSON object nor base64"),
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
            check_refused(name, Credentials::parse_json_or_base64(&value), expected);
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
            check(value, Credentials::read(&path));
        }
        for (value, expected) in [
            ("keys/none.key", "`integration.privateKey` is neither PEM"),
            ("keys/private.der", "`integration.privateKey` is neither PEM"),
            ("certificate.pem", "`integration.privateKey` is PEM without a private key"),
            ("keys", "`integration.privateKey` names a file that cannot be read: "),
        ] {
            fs::write(&path, with("/integration/privateKey", value)).unwrap();
            check_refused(value, Credentials::read(&path), expected);
        }
    }

    #[test]
    fn a_key_file_of_a_document_without_a_place_is_looked_for_in_the_working_directory() {
        let document = with("/integration/privateKey", "tests/fixtures/private_key_pkcs8.pem");
        check("relative", Credentials::parse(&document));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_from_one_that_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("service_token.json");
        check_refused("none", Credentials::read(&path), "not found: ");
        check_refused("a directory", Credentials::read(directory.path()), "cannot be read: ");
        fs::write(&path, vec![b' '; (MAX_FILE_BYTES + 1) as usize]).unwrap();
        check_refused("too large", Credentials::read(&path), "cannot be read: file too large");
        fs::write(&path, "").unwrap();
        check_refused("empty", Credentials::read(&path), "is empty: ");
        fs::write(&path, DOCUMENT).unwrap();
        check("a file", Credentials::read(&path));
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
            (
                json!(["ent_aem_cloud_sdk", " ent_cloudmgr_sdk"]),
                vec!["ent_aem_cloud_sdk", "ent_cloudmgr_sdk"],
            ),
            (json!(["a,b", "", "c"]), vec!["a", "b", "c"]),
            (json!("https://ims.example/s/x,y"), vec!["https://ims.example/s/x", "y"]),
        ] {
            let credentials = Credentials::parse(&with("/integration/metascopes", value)).unwrap();
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
            let parsed = Credentials::parse(&with("/integration/imsEndpoint", value));
            match expected {
                Some(expected) => assert_eq!(parsed.unwrap().ims_endpoint, expected),
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
            let credentials = check(name, Credentials::parse(&document));
            assert_eq!(credentials.expires_at().map(rfc3339).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn what_the_key_signs_the_certificate_verifies() {
        jwt::install();
        let credentials = Credentials::parse(DOCUMENT.as_bytes()).unwrap();
        let claims = json!({"sub": credentials.technical_account_id});
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
        let token = jsonwebtoken::encode(&header, &claims, credentials.private_key.signing_key()).unwrap();

        let (message, signature) = token.rsplit_once('.').unwrap();
        let key =
            jsonwebtoken::DecodingKey::from_rsa_der(credentials.certificate.as_ref().unwrap().public_key());
        let verified =
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, jsonwebtoken::Algorithm::RS256);
        assert!(verified.unwrap());
    }

    #[test]
    fn a_document_of_another_kind_is_called_by_its_name() {
        let local = "is a local development token";
        let oauth = "is a project or an OAuth server-to-server credential";
        let details = json!({"credentials": [{"integration_type": "oauth_server_to_server"}]});
        for (name, document, expected) in [
            ("a local token", json!({"accessToken": "token"}), local),
            (
                "a local token with its answer",
                json!({"ok": true, "accessToken": "token", "statusCode": 200}),
                local,
            ),
            ("a project", json!({"project": {"workspace": {"details": details}}}), oauth),
            (
                "flat, of aio",
                json!({"client_id": "id", "client_secrets": ["secret"], "scopes": ["openid"]}),
                oauth,
            ),
            ("flat, upper case", json!({"CLIENT_ID": "id", "CLIENT_SECRET": "secret"}), oauth),
            ("flat, camel case", json!({"clientId": "id", "clientSecret": "secret", "scopes": []}), oauth),
            ("within integration", json!({"integration": {"CLIENT_ID": "id"}}), oauth),
            ("not ok", json!({"ok": false, "statusCode": 404}), "says `ok: false`"),
            ("an unknown object", json!({"project": "x"}), "`integration` is missing"),
            ("an empty object", json!({}), "`integration` is missing"),
            ("an empty answer", json!({"ok": true, "integration": null}), "`integration` is missing"),
            ("a text in its place", json!({"integration": "x"}), "`integration` is not an object"),
            ("a list", json!([]), "is JSON, but not an object"),
            ("a string", json!(DOCUMENT), "is JSON, but not an object"),
        ] {
            check_refused(name, Credentials::parse(document.to_string().as_bytes()), expected);
        }
        check_refused(
            "not ok, though all is there",
            Credentials::parse(&with("/ok", false)),
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
            ("UTF-16", [&[0xff, 0xfe], utf16.as_slice()].concat(), "is not UTF-8 text"),
            ("UTF-16 without mark", utf16, "is not UTF-8 text"),
            ("Latin-1", b"{\"a\": \"\xe9\"}".to_vec(), "is not UTF-8 text"),
            ("a key", KEY.into(), "is not valid JSON at line 1, column 2"),
            ("half", DOCUMENT[..90].into(), "is not valid JSON at line 5"),
            (
                "real line ends",
                DOCUMENT.replace("\\r\\n", "\n").into(),
                "is not valid JSON at line 14, column 0",
            ),
            (
                "two documents",
                format!("{DOCUMENT}{DOCUMENT}").into(),
                "is not valid JSON at line 19, column 1",
            ),
        ] {
            check_refused(name, Credentials::parse(&document), expected);
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
                (
                    json!([]),
                    if is_list_too { "is empty: ".to_owned() } else { format!("is not {expected}: ") },
                ),
            ] {
                let wrapped = changed(|d| *d["integration"].pointer_mut(&pointer).unwrap() = value.clone());
                let bare = bare(|d| *d.pointer_mut(&pointer).unwrap() = value.clone());
                check_refused(
                    field,
                    Credentials::parse(&wrapped),
                    &format!("`integration.{field}` {expected}"),
                );
                check_refused(field, Credentials::parse(&bare), &format!("`{field}` {expected}"));
            }
            check_refused(
                field,
                Credentials::parse(&without(&format!("/integration{pointer}"))),
                &format!("`integration.{field}` is missing: "),
            );
        }
        for (name, document, expected) in [
            (
                "no account",
                without("/integration/technicalAccount"),
                "`integration.technicalAccount` is missing",
            ),
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
            check_refused(name, Credentials::parse(&document), expected);
        }
    }

    #[test]
    fn a_key_or_certificate_that_is_of_no_use_is_named_by_its_field() {
        for (field, value, expected) in [
            ("privateKey", include_str!("../tests/fixtures/small_key.pem"), "is an RSA key of 1024 bits"),
            ("privateKey", include_str!("../tests/fixtures/ec_key.pem"), "is not an RSA key"),
            ("privateKey", include_str!("../tests/fixtures/encrypted_key.pem"), "is encrypted"),
            ("privateKey", CERTIFICATE, "is PEM without a private key"),
            ("privateKey", "[REDACTED]", "is neither PEM"),
            ("publicKey", KEY, "is PEM without a certificate"),
            ("publicKey", "[REDACTED]", "is neither PEM"),
            (
                "publicKey",
                include_str!("../tests/fixtures/other_certificate.pem"),
                "is not of the key in `integration.privateKey`",
            ),
        ] {
            let parsed = Credentials::parse(&with(&format!("/integration/{field}"), value));
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
        let broken = [
            json!(1),
            json!([SECRET, 1]),
            json!({SECRET: KEY}),
            json!(&KEY[..800]),
            json!(&CERTIFICATE[..600]),
        ];
        for place in places {
            documents.push(without(place));
            documents.push(with(place, format!("{SECRET}/?")));
            documents.extend(broken.iter().map(|value| with(place, value.clone())));
        }

        let mut refused = 0;
        for document in documents {
            let text = String::from_utf8(document).unwrap();
            for parsed in [
                Credentials::parse(text.as_bytes()),
                Credentials::parse_json_or_base64(&text),
                Credentials::parse_json_or_base64(&general_purpose::STANDARD.encode(&text)),
            ] {
                // What is usable may have a secret where a name belongs; nobody can tell the two apart.
                let Err(error) = parsed else { continue };
                refused += 1;
                check_shows_no_secret(&format!("{error} {error:?} {error:#?}"));
            }
        }
        assert!(refused > 300, "only {refused} documents were refused");

        let credentials = Credentials::parse(DOCUMENT.as_bytes()).unwrap();
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
}
