//! Adobe's documents become [`Credentials`].
//!
//! The documents are foreign and travel through environment variables, secret stores and editors, so
//! every form in which they are met is read, and none of their content is ever shown: an error says
//! where, what and what to do, in our words.

mod access_token;
mod certificate;
mod document;
mod environment;
mod error;
mod jwt;
mod local_token;
mod oauth;
mod pem;
mod private_key;
mod watch;

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime},
};

use url::Url;
use zeroize::Zeroizing;

pub(crate) use self::access_token::{Claims, millis, number};
pub use self::{
    certificate::{Certificate, CertificateError},
    environment::Environment,
    error::CredentialsError,
    jwt::JwtCredentials,
    local_token::{LocalToken, LocalTokenError},
    oauth::OAuthCredentials,
    private_key::{PrivateKey, PrivateKeyError},
    watch::Watch,
};
use self::{
    document::{Document, Fields},
    oauth::Project,
};
use crate::secret::SecretString;

/// What Adobe hands out to get into AEM, of one of three kinds.
#[derive(Debug)]
pub enum Credentials {
    /// Service credentials of the AEM Developer Console, which sign a JWT for each exchange.
    Jwt(JwtCredentials),
    /// An OAuth Server-to-Server credential of the Adobe Developer Console.
    OAuth(OAuthCredentials),
    /// A developer's own token of the AEM Developer Console, which nothing renews.
    LocalToken(LocalToken),
}

impl Credentials {
    /// Reads a JSON document, or a bare local token. Where the document names a key file, the path is relative to the
    /// working directory.
    ///
    /// `name` chooses a credential of a project that has several: its name, id or client id. Other documents hold one.
    ///
    /// # Errors
    /// When it is not usable as it is: see [`CredentialsError`].
    pub fn parse(document: &[u8], name: Option<&str>) -> Result<Self, CredentialsError> {
        Self::parse_in(Path::new(""), document, name)
    }

    /// Reads the value of an environment variable: what [`Credentials::parse`] takes, or base64 of it in the usual or
    /// the URL alphabet, padded or not, in one line or in many.
    ///
    /// # Errors
    /// When it is not usable as it is: see [`CredentialsError`].
    pub fn parse_json_or_base64(value: &str, name: Option<&str>) -> Result<Self, CredentialsError> {
        let value = value.trim_matches(is_blank);
        if value.is_empty() || is_document(value) {
            return Self::parse(value.as_bytes(), name);
        }
        let document = pem::decode_base64(value).ok_or(CredentialsError::NeitherJsonNorBase64)?;
        match std::str::from_utf8(&document) {
            Ok(text) if is_document(text) => Self::parse(&document, name),
            _ => Err(CredentialsError::Base64OfSomethingElse),
        }
    }

    /// Reads a file. Where the document names a key file, the path is relative to the document's directory.
    ///
    /// # Errors
    /// When the file cannot be read, or is not usable as it is: see [`CredentialsError`].
    pub fn read(path: &Path, name: Option<&str>) -> Result<Self, CredentialsError> {
        let document = read_limited(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CredentialsError::NotFound,
            io::ErrorKind::PermissionDenied => CredentialsError::PermissionDenied,
            _ => CredentialsError::Unreadable(error),
        })?;
        Self::parse_in(path.parent().unwrap_or(Path::new("")), &document, name)
    }

    /// `directory` is where relative paths of key files begin.
    fn parse_in(directory: &Path, document: &[u8], name: Option<&str>) -> Result<Self, CredentialsError> {
        if let Some(token) = std::str::from_utf8(document).ok().and_then(local_token::bare) {
            return LocalToken::parse(token).map(Self::LocalToken).map_err(CredentialsError::LocalToken);
        }
        let document = Document::parse(document)?;
        match Kind::of(&document.fields()?)? {
            Kind::Jwt(integration) => JwtCredentials::read(&integration, directory).map(Self::Jwt),
            Kind::OAuth(fields) => OAuthCredentials::read(&fields).map(Self::OAuth),
            Kind::Project(project) => OAuthCredentials::choose(&project, name).map(Self::OAuth),
            Kind::LocalToken(top) => LocalToken::read(&top).map(Self::LocalToken),
        }
    }

    /// Whether both show the same to IMS. Documents with the same credentials may differ in what is for people alone.
    pub(crate) fn authenticate_like(&self, other: &Self) -> bool {
        let secret = SecretString::expose_secret;
        match (self, other) {
            (Self::Jwt(own), Self::Jwt(other)) => {
                own.client_id == other.client_id
                    && secret(&own.client_secret) == secret(&other.client_secret)
                    && own.technical_account_id == other.technical_account_id
                    && own.org == other.org
                    && own.metascopes == other.metascopes
                    && own.private_key.is_same(&other.private_key)
            }
            (Self::OAuth(own), Self::OAuth(other)) => {
                own.client_id == other.client_id
                    && own.client_secrets.iter().map(secret).eq(other.client_secrets.iter().map(secret))
                    && own.scopes == other.scopes
            }
            (Self::LocalToken(own), Self::LocalToken(other)) => {
                own.authorization().as_bytes() == other.authorization().as_bytes()
            }
            _ => false,
        }
    }

    /// `jwt`, `oauth` or `local`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Jwt(_) => "jwt",
            Self::OAuth(_) => "oauth",
            Self::LocalToken(_) => "local",
        }
    }

    /// The client id; a local token's is that of the console, if it says so.
    pub fn client_id(&self) -> Option<&str> {
        match self {
            Self::Jwt(credentials) => Some(&credentials.client_id),
            Self::OAuth(credentials) => Some(&credentials.client_id),
            Self::LocalToken(token) => token.client_id(),
        }
    }

    /// The organisation, `...@AdobeOrg`.
    pub fn org(&self) -> Option<&str> {
        match self {
            Self::Jwt(credentials) => Some(&credentials.org),
            Self::OAuth(credentials) => credentials.org.as_deref(),
            Self::LocalToken(_) => None,
        }
    }

    /// The technical account, `...@techacct.adobe.com`; a local token is a person's.
    pub fn technical_account_id(&self) -> Option<&str> {
        match self {
            Self::Jwt(credentials) => Some(&credentials.technical_account_id),
            Self::OAuth(credentials) => credentials.technical_account_id.as_deref(),
            Self::LocalToken(_) => None,
        }
    }

    /// The technical account's login name in AEM.
    pub fn email(&self) -> Option<&str> {
        match self {
            Self::Jwt(credentials) => credentials.email.as_deref(),
            Self::OAuth(credentials) => credentials.email.as_deref(),
            Self::LocalToken(_) => None,
        }
    }

    /// What is asked for, or what a local token allows. Service credentials call theirs metascopes.
    pub fn scopes(&self) -> &[String] {
        match self {
            Self::Jwt(credentials) => &credentials.metascopes,
            Self::OAuth(credentials) => &credentials.scopes,
            Self::LocalToken(token) => token.scopes(),
        }
    }

    /// Whether a text from outside holds one of the secrets, a good part of one, or a token: then it is not repeated.
    pub(crate) fn are_given_away_by(&self, text: &str) -> bool {
        let secrets = match self {
            Self::Jwt(credentials) => std::slice::from_ref(&credentials.client_secret),
            Self::OAuth(credentials) => &credentials.client_secrets,
            Self::LocalToken(_) => &[],
        };
        let is_in = |secret: &SecretString| {
            let secret = secret.expose_secret();
            text.contains(secret) || text.len() >= PART_BYTES && secret.contains(text)
        };
        text.contains(JWT) || secrets.iter().any(is_in)
    }

    /// Where IMS is, if the document says so: see [`JwtCredentials::ims_endpoint`].
    pub fn ims_endpoint(&self) -> Option<&str> {
        match self {
            Self::Jwt(credentials) => Some(&credentials.ims_endpoint),
            Self::OAuth(credentials) => credentials.ims_endpoint.as_deref(),
            Self::LocalToken(_) => None,
        }
    }

    /// When the certificate ends. OAuth secrets have no end of their own, and a local token's end is its grant's.
    pub fn expires_at(&self) -> Option<SystemTime> {
        match self {
            Self::Jwt(credentials) => credentials.expires_at(),
            Self::OAuth(_) | Self::LocalToken(_) => None,
        }
    }

    /// The files that were read beside the document, since it names them; relative ones as they were opened. A change
    /// of them is a change of the credentials.
    pub fn files(&self) -> &[PathBuf] {
        match self {
            Self::Jwt(credentials) => &credentials.files,
            Self::OAuth(_) | Self::LocalToken(_) => &[],
        }
    }
}

/// Which document it is, and the object of it that counts.
enum Kind<'a> {
    Jwt(Fields<'a>),
    OAuth(Fields<'a>),
    Project(Project<'a>),
    LocalToken(Fields<'a>),
}

impl<'a> Kind<'a> {
    /// What can be renewed goes before a token that cannot, where somebody stored both.
    fn of(top: &Fields<'a>) -> Result<Self, CredentialsError> {
        if top.is_false("ok") {
            return Err(CredentialsError::NotOk);
        }
        if let Some(project) = Project::of(top) {
            return Ok(Self::Project(project));
        }
        let wrapped = top.has("integration");
        let fields = if wrapped { top.object("integration")? } else { top.clone() };
        if fields.has_any(&["technicalAccount", "privateKey"]) {
            return Ok(Self::Jwt(fields));
        }
        // Adobe's headless client tells a local token by this field, too.
        if !wrapped && fields.has("accessToken") && !oauth::has_secret(&fields) {
            return Ok(Self::LocalToken(fields));
        }
        if oauth::is_one(&fields) {
            return Ok(Self::OAuth(fields));
        }
        if wrapped || fields.has_any(&["imsEndpoint", "metascopes"]) {
            return Ok(Self::Jwt(fields));
        }
        Err(CredentialsError::UnknownDocument)
    }
}

/// Whether a text is meant as a document, whatever is wrong with it.
fn is_document(text: &str) -> bool {
    text.trim_start_matches(is_blank).starts_with('{') || local_token::bare(text).is_some()
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

/// The field's `host` or `host:port`, behind `http://` if that stood there. Nothing else may be there: the endpoint is
/// part of the JWT's audience, letter by letter, and the secrets are sent to it.
fn host_and_scheme(fields: &Fields<'_>, name: &str) -> Result<String, CredentialsError> {
    let endpoint = fields.text(name)?;
    let (scheme, authority) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "https" => Some(""),
        "http" => Some("http://"),
        _ => None,
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let is_other = |c: char| c.is_whitespace() || c.is_control() || "/\\?#@".contains(c);
    let valid = !authority.contains(is_other) && Url::parse(&format!("https://{authority}")).is_ok();
    scheme
        .filter(|_| valid)
        .map(|scheme| format!("{scheme}{authority}"))
        .ok_or_else(|| CredentialsError::ImsEndpoint { field: fields.path(name) })
}

/// The whole of a small file. Pipes are read, too (password managers give secrets so), but nobody waits for ever for
/// somebody who writes into one.
pub(crate) fn read_limited(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    read_within(path, PIPE_WAIT)
}

fn read_within(path: &Path, wait: Duration) -> io::Result<Zeroizing<Vec<u8>>> {
    let metadata = path.metadata()?;
    if metadata.is_file() || metadata.is_dir() {
        return read_at_once(path);
    }
    let (give, taken) = mpsc::sync_channel(1);
    let path = path.to_owned();
    let waiting = PipeThread::begin()?;
    thread::Builder::new().name("pipe".to_owned()).spawn(move || {
        drop(give.send(read_at_once(&path)));
        drop(waiting);
    })?;
    taken.recv_timeout(wait).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A thread that reads a pipe, and waits for as long as nobody writes into it.
struct PipeThread;

impl PipeThread {
    fn begin() -> io::Result<Self> {
        let room = |threads| (threads < PIPE_THREADS).then_some(threads + 1);
        match PIPES.fetch_update(Relaxed, Relaxed, room) {
            Ok(_) => Ok(Self),
            Err(_) => Err(io::Error::new(io::ErrorKind::ResourceBusy, "too many pipes without a writer")),
        }
    }
}

impl Drop for PipeThread {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Relaxed);
    }
}

static PIPES: AtomicUsize = AtomicUsize::new(0);

fn read_at_once(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
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
/// So much of a secret helps whoever guesses the rest.
const PART_BYTES: usize = 8;
/// How every JWT begins, access tokens and assertions alike: `{"` in base64.
const JWT: &str = "eyJ";
/// Pipes that are read at once, those included that were given up: a thread ends only when something writes into its pipe.
pub(crate) const PIPE_THREADS: usize = 4;
/// What writes into a pipe may have to ask a server first.
const PIPE_WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
