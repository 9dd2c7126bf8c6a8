//! Service credentials of the AEM Developer Console.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use zeroize::Zeroizing;

use super::{
    Certificate, CredentialsError, PrivateKey, document::Fields, host_and_scheme, pem, read_limited,
};
use crate::{secret::SecretString, text_file};

/// Service credentials of an AEM technical account, which IMS exchanges for a token (JWT exchange).
///
/// The document is the one that the AEM Developer Console gives under Integrations: `{ok, integration,
/// statusCode}` (Adobe's page "Generating Access Tokens for Server-Side APIs").
#[derive(Debug)]
pub struct JwtCredentials {
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
    /// The files of key and certificate, where the document names any: key first.
    pub files: Vec<PathBuf>,
}

impl JwtCredentials {
    /// When the credentials end: with the certificate, or else on the day that the document names.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.certificate.as_ref().map(Certificate::not_after).or(self.certificate_expiration_date)
    }

    /// `directory` is where relative paths of key files begin.
    pub(super) fn read(integration: &Fields<'_>, directory: &Path) -> Result<Self, CredentialsError> {
        let account = integration.object("technicalAccount")?;
        // Some descriptions put both beside the client id; Adobe's documents have them one level up.
        let id_or_org = |name| {
            let moved = !integration.has(name) && account.has(name);
            if moved { account.text(name) } else { integration.text(name) }
        };
        let mut files = Files { directory, read: Vec::new() };
        let private_key = private_key(integration, &mut files)?;
        Ok(Self {
            ims_endpoint: host_and_scheme(integration, "imsEndpoint")?,
            client_id: account.text("clientId")?.to_owned(),
            client_secret: account.text("clientSecret")?.into(),
            technical_account_id: id_or_org("id")?.to_owned(),
            email: integration.optional_text("email")?.map(str::to_owned),
            org: id_or_org("org")?.to_owned(),
            metascopes: integration.comma_separated("metascopes")?,
            certificate: certificate(integration, &mut files, &private_key)?,
            private_key,
            certificate_expiration_date: certificate_expiration_date(integration),
            files: files.read,
        })
    }
}

fn private_key(integration: &Fields<'_>, files: &mut Files<'_>) -> Result<PrivateKey, CredentialsError> {
    let name = "privateKey";
    PrivateKey::from_pem(&files.pem_text(integration, name)?)
        .map_err(|problem| CredentialsError::PrivateKey { field: integration.path(name), problem })
}

/// The certificate of the key. Adobe calls it `publicKey`, a description that goes round `cert`.
fn certificate(
    integration: &Fields<'_>,
    files: &mut Files<'_>,
    private_key: &PrivateKey,
) -> Result<Option<Certificate>, CredentialsError> {
    let Some(name) = ["publicKey", "cert"].into_iter().find(|name| integration.has(name)) else {
        return Ok(None);
    };
    let certificate = Certificate::from_pem(&files.pem_text(integration, name)?)
        .map_err(|problem| CredentialsError::Certificate { field: integration.path(name), problem })?;
    if certificate.public_key() != private_key.public_key() {
        return Err(CredentialsError::OtherKey {
            certificate: integration.path(name),
            private_key: integration.path("privateKey"),
        });
    }
    Ok(Some(certificate))
}

/// The files that a document names.
struct Files<'a> {
    directory: &'a Path,
    read: Vec<PathBuf>,
}

impl Files<'_> {
    /// The field's text, or that of the file which it names. A text that is neither PEM nor a path is returned
    /// as it is, for the reader of PEM to say so.
    fn pem_text(&mut self, fields: &Fields<'_>, name: &str) -> Result<Zeroizing<String>, CredentialsError> {
        let text = fields.lines(name)?;
        let path = self.directory.join(text.trim());
        if pem::unfold(&text).is_some() || !path.exists() {
            return Ok(text);
        }
        let bytes = read_limited(&path)
            .map_err(|problem| CredentialsError::PemFile { field: fields.path(name), problem })?;
        self.read.push(path);
        let bytes = text_file::pem(bytes)
            .map_err(|problem| CredentialsError::PemEncoding { field: fields.path(name), problem })?;
        Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// RFC 3339 with milliseconds, in UTC.
fn certificate_expiration_date(integration: &Fields<'_>) -> Option<SystemTime> {
    let date = integration.text("certificateExpirationDate").ok()?;
    humantime::parse_rfc3339(date).ok()
}
