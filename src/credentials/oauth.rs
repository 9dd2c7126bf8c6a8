//! OAuth Server-to-Server credentials of the Adobe Developer Console, in the shapes that its download, the `aio` command
//! line and Adobe's libraries give them.

use super::{CredentialsError, document::Fields, host_and_scheme};
use crate::secret::SecretString;

/// An OAuth Server-to-Server credential, which IMS exchanges for a token (`client_credentials`).
///
/// Source: Adobe Developer Console, "OAuth Server-to-Server credential implementation guide".
#[derive(Debug)]
pub struct OAuthCredentials {
    /// `client_id`.
    pub client_id: String,
    /// `client_secrets` or `client_secret`: at least one, in the order in which they are tried. Two live at once while
    /// one takes the place of the other.
    pub client_secrets: Vec<SecretString>,
    /// `scopes`, one by one; none where the document has none.
    pub scopes: Vec<String>,
    /// `technical_account_id`, `...@techacct.adobe.com`.
    pub technical_account_id: Option<String>,
    /// `technical_account_email`: the login name of the technical account.
    pub email: Option<String>,
    /// `ims_org_id`, `...@AdobeOrg`.
    pub org: Option<String>,
    /// `ims_endpoint`, which Adobe's own documents do not have; as [`super::JwtCredentials::ims_endpoint`].
    pub ims_endpoint: Option<String>,
}

impl OAuthCredentials {
    /// One credential, in whichever spelling.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, CredentialsError> {
        let names = Spelling::of(fields);
        // What marks a JWT credential of the Adobe Developer Console; one that was migrated has scopes beside it.
        if fields.has_any(names.of_jwt) && !fields.has_any(names.scopes) {
            return Err(CredentialsError::JwtOfAdobeDeveloperConsole);
        }
        Ok(Self {
            client_id: fields.text(names.client_id)?.to_owned(),
            client_secrets: client_secrets(fields, names)?,
            scopes: fields.optional_list(fields.first_of(names.scopes))?,
            technical_account_id: text(fields, &[names.technical_account_id])?,
            email: text(fields, names.email)?,
            org: text(fields, names.org)?,
            ims_endpoint: ims_endpoint(fields)?,
        })
    }

    /// The credential of a project that `name` means, or the only one that there is.
    pub(super) fn choose(project: &Project<'_>, name: Option<&str>) -> Result<Self, CredentialsError> {
        let chosen = project.choose(name)?;
        let mut credentials = Self::read(&chosen.details()?)?;
        if credentials.org.is_none() {
            credentials.org = project.org()?;
        }
        if credentials.ims_endpoint.is_none() {
            credentials.ims_endpoint = ims_endpoint(&project.top)?;
        }
        Ok(credentials)
    }
}

/// Whether an object is one OAuth credential: it need not be a whole one, but nothing else looks so.
pub(super) fn is_one(fields: &Fields<'_>) -> bool {
    let [lower, upper, camel] = &SPELLINGS;
    // The client id of camel case is a name that other things have, too.
    let is_camel = fields.has(camel.client_id) && fields.has_any(&["orgId", "imsOrgId", "scopes"]);
    has_secret(fields) || fields.has(lower.client_id) || fields.has(upper.client_id) || is_camel
}

/// Whether an object has a client secret in whichever spelling.
pub(super) fn has_secret(fields: &Fields<'_>) -> bool {
    SPELLINGS.iter().any(|names| fields.has_any(&names.client_secrets))
}

/// At least one; a list may have holes where a secret was deleted.
fn client_secrets(fields: &Fields<'_>, names: &Spelling) -> Result<Vec<SecretString>, CredentialsError> {
    let name = fields.first_of(&names.client_secrets);
    let mut secrets: Vec<&str> = fields.texts(name)?;
    for other in names.client_secrets.iter().filter(|other| **other != name && fields.has(other)) {
        // Most often the first of the list once more, alone.
        let more = fields.texts(other)?;
        secrets.extend(more.into_iter().filter(|secret| !secrets.contains(secret)).collect::<Vec<_>>());
    }
    if secrets.is_empty() {
        return Err(fields.empty(name));
    }
    Ok(secrets.into_iter().map(SecretString::from).collect())
}

fn text(fields: &Fields<'_>, names: &[&'static str]) -> Result<Option<String>, CredentialsError> {
    Ok(fields.optional_text(fields.first_of(names))?.map(str::to_owned))
}

/// Ours, not Adobe's: for an IMS other than the usual one.
fn ims_endpoint(fields: &Fields<'_>) -> Result<Option<String>, CredentialsError> {
    let name = fields.first_of(&["ims_endpoint", "imsEndpoint", "IMS_ENDPOINT"]);
    match fields.optional_text(name)? {
        Some(_) => host_and_scheme(fields, name).map(Some),
        None => Ok(None),
    }
}

/// The names of a credential's fields in one of the ways in which they are spelled.
struct Spelling {
    client_id: &'static str,
    client_secrets: [&'static str; 2],
    scopes: &'static [&'static str],
    org: &'static [&'static str],
    technical_account_id: &'static str,
    email: &'static [&'static str],
    /// What only a JWT credential has.
    of_jwt: &'static [&'static str],
}

impl Spelling {
    /// The one in which the id or a secret is there.
    fn of(fields: &Fields<'_>) -> &'static Self {
        let known = |names: &&Self| fields.has(names.client_id) || fields.has_any(&names.client_secrets);
        SPELLINGS.iter().find(known).unwrap_or(&SPELLINGS[0])
    }
}

static SPELLINGS: [Spelling; 3] = [
    // The `aio` command line, and within a project's download.
    Spelling {
        client_id: "client_id",
        client_secrets: ["client_secrets", "client_secret"],
        scopes: &["scopes", "scope"],
        org: &["ims_org_id", "org_id"],
        technical_account_id: "technical_account_id",
        email: &["technical_account_email", "email"],
        of_jwt: &["meta_scopes", "metascopes", "private_key"],
    },
    // The download of one credential; `ORG_ID` is from the times of JWT.
    Spelling {
        client_id: "CLIENT_ID",
        client_secrets: ["CLIENT_SECRETS", "CLIENT_SECRET"],
        scopes: &["SCOPES", "SCOPE"],
        org: &["IMS_ORG_ID", "ORG_ID"],
        technical_account_id: "TECHNICAL_ACCOUNT_ID",
        email: &["TECHNICAL_ACCOUNT_EMAIL", "EMAIL"],
        of_jwt: &["META_SCOPES", "METASCOPES", "PRIVATE_KEY", "PUBLIC_KEYS_WITH_EXPIRY"],
    },
    // Parameters of Adobe's library for App Builder (aio-lib-core-auth).
    Spelling {
        client_id: "clientId",
        client_secrets: ["clientSecrets", "clientSecret"],
        scopes: &["scopes", "scope"],
        org: &["orgId", "imsOrgId"],
        technical_account_id: "technicalAccountId",
        email: &["technicalAccountEmail", "email"],
        of_jwt: &["metaScopes", "metascopes"],
    },
];

/// The download of a project or workspace of the Adobe Developer Console, which lists credentials of many kinds.
pub(super) struct Project<'a> {
    top: Fields<'a>,
}

impl<'a> Project<'a> {
    /// `top`, if it is such a download.
    pub(super) fn of(top: &Fields<'a>) -> Option<Self> {
        let project = top.object("project").ok()?;
        project.has_any(&["workspace", "org"]).then(|| Self { top: top.clone() })
    }

    fn org(&self) -> Result<Option<String>, CredentialsError> {
        let project = self.top.object("project")?;
        if project.has("org") { text(&project.object("org")?, &["ims_org_id"]) } else { Ok(None) }
    }

    fn choose(&self, name: Option<&str>) -> Result<Entry<'a>, CredentialsError> {
        let workspace = self.top.object("project")?.object("workspace")?;
        let all = workspace.object("details")?.objects("credentials")?;
        let (fit, others): (Vec<_>, Vec<_>) = all.into_iter().map(Entry).partition(Entry::is_oauth);
        if fit.is_empty() {
            return Err(CredentialsError::NoOAuthCredential { found: kinds(&others) });
        }
        let names = names(&fit);
        let count = fit.len();
        let mut meant = fit.into_iter().filter(|entry| name.is_none_or(|name| entry.is_called(name)));
        match (meant.next(), meant.next()) {
            (Some(entry), None) => Ok(entry),
            (Some(_), Some(_)) => Err(CredentialsError::SeveralCredentials { count, names }),
            (None, _) => Err(CredentialsError::NoSuchName { names }),
        }
    }
}

/// One of a project's credentials.
struct Entry<'a>(Fields<'a>);

impl<'a> Entry<'a> {
    fn kind(&self) -> &'a str {
        self.0.optional_text("integration_type").ok().flatten().unwrap_or_default()
    }

    /// One that is being migrated from JWT is of a type of its own (Adobe's aio command line).
    fn is_oauth(&self) -> bool {
        [OAUTH, "oauth_server_to_server_migrate"].contains(&self.kind())
    }

    fn details(&self) -> Result<Fields<'a>, CredentialsError> {
        self.0.object(OAUTH)
    }

    fn name(&self) -> Option<&'a str> {
        self.0.optional_text("name").ok().flatten()
    }

    fn is_called(&self, name: &str) -> bool {
        let client_id = self.details().ok().and_then(|details| details.text("client_id").ok());
        let id = self.0.optional_text("id").ok().flatten();
        [self.name(), id, client_id].contains(&Some(name.trim()))
    }
}

/// The names of the credentials that fit, for people. They come from a secret document, so there is a bound to what is
/// shown of them.
fn names(entries: &[Entry<'_>]) -> String {
    let shown = |entry: &Entry<'_>| match entry.name() {
        Some(name) => format!("`{}`", printable(name)),
        None => "one without a name".to_owned(),
    };
    let mut names: Vec<String> = entries.iter().take(NAMES_MAX).map(shown).collect();
    if entries.len() > NAMES_MAX {
        names.push(format!("{} more", entries.len() - NAMES_MAX));
    }
    names.join(", ")
}

fn printable(name: &str) -> String {
    let is_printable = |c: &char| c.is_alphanumeric() || *c == ' ' || c.is_ascii_punctuation();
    name.chars().filter(is_printable).take(NAME_MAX).collect()
}

/// The kinds of credentials that do not fit, each once, in words of ours.
fn kinds(entries: &[Entry<'_>]) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for entry in entries {
        let kind = match entry.kind() {
            "service" | "service_account" | "jwt" => "service account (JWT)",
            "apikey" | "api_key" => "API key",
            "oauth_web" | "oauthweb" | "oauth_web_app" => "OAuth Web App",
            "oauth_single_page_app" | "oauth_spa" => "OAuth Single-Page App",
            "oauth_native_app" | "oauth_native" => "OAuth Native App",
            _ => "another kind",
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() { "none at all".to_owned() } else { format!("only {}", kinds.join(", ")) }
}

/// Both the type and the name of the object with its details.
const OAUTH: &str = "oauth_server_to_server";

/// A project has a few credentials.
const NAMES_MAX: usize = 10;
/// In characters; the console takes no longer ones.
const NAME_MAX: usize = 60;

#[cfg(test)]
mod tests;
