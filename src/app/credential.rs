//! From the configuration to credentials at work, and again when they have changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tracing::{info, warn};

use super::{
    StartError,
    keeper::{Fingerprint, Keeper, Values},
};
use crate::{
    admin::{CredentialView, Facts},
    clock::Clock,
    config::{self, Config, CredentialSource, Secret, Secrets},
    credentials::{self, Credentials, OAuthCredentials},
    egress::{self, To},
    ims::{self, CredentialExchange, DEFAULT_ENDPOINT, Endpoint, Http},
    metrics::Metrics,
    proxy::Credential,
    secret::{Authorization, SecretString},
    text_file::{self, SAVE_AS_UTF8},
    tls,
    token::{self, Cache, Refresher, TokenHandle},
};

/// What the proxies and the admin listener get of the credentials, and what keeps them alive.
#[derive(Default)]
pub(super) struct Wired {
    /// By their names.
    pub(super) credentials: BTreeMap<String, Credential>,
    pub(super) bearers: Vec<Bearer>,
    pub(super) passwords: Vec<Values>,
    pub(super) views: Vec<CredentialView>,
}

/// What a credential that gets tokens needs to live.
pub(super) struct Bearer {
    pub(super) refresher: Refresher<CredentialExchange>,
    pub(super) keeper: Keeper,
}

/// Wires every credential that somebody uses; one exchange serves all of them.
pub(super) fn wire(
    config: &Arc<Config>,
    clock: &Clock,
    metrics: &Metrics,
    tls: &tls::Current,
) -> Result<Wired, StartError> {
    let sent: BTreeSet<_> = config.sent().collect();
    let fallbacks: BTreeSet<_> =
        sent.iter().filter_map(|name| config.credential(name)?.fallback.as_deref()).collect();
    let mut wired = Wired::default();
    let mut tokens: BTreeMap<&str, TokenHandle> = BTreeMap::new();
    // Fallbacks first: the others take hold of them. They have none themselves.
    let (first, then): (Vec<_>, Vec<_>) =
        config.credentials.iter().partition(|credential| fallbacks.contains(credential.name.as_str()));
    for credential in first.into_iter().chain(then) {
        let name = credential.name.as_str();
        let is_sent = sent.contains(name);
        if !is_sent && !fallbacks.contains(name) {
            warn!(credential = name, "No proxy uses these credentials");
            continue;
        }
        if let CredentialSource::Basic { user, password } = &credential.source {
            let (wired_as, values) = self::user(name, user, password)?;
            wired.credentials.insert(name.to_owned(), wired_as);
            wired.passwords.extend(values);
            continue;
        }
        let fallback =
            credential.fallback.as_deref().and_then(|name| Some((name, tokens.get(name)?.clone())));
        let (token, bearer, view) = bearer(config, credential, fallback, is_sent, clock, metrics, tls)?;
        tokens.insert(name, token.clone());
        wired.credentials.insert(name.to_owned(), Credential::Bearer(token));
        wired.bearers.push(bearer);
        wired.views.push(view);
    }
    wired
        .views
        .sort_by_key(|view| config.credentials.iter().position(|credential| credential.name == view.name));
    Ok(wired)
}

/// What is sent for a user and a password.
///
/// # Errors
/// When the password cannot be read.
pub fn basic(name: &str, user: &str, password: &Secret) -> Result<Authorization, StartError> {
    let password = read_secret(&format!("the password of `{name}`"), password)?;
    Ok(Authorization::basic(user, &password))
}

/// User and password, read anew when the password's file changes.
fn user(name: &str, user: &str, password: &Secret) -> Result<(Credential, Option<Values>), StartError> {
    let read = {
        let (name, user, password) = (name.to_owned(), user.to_owned(), password.clone());
        move || basic(&name, &user, &password)
    };
    let files: Vec<_> = password.file().cloned().into_iter().collect();
    let tried = Fingerprint::of(&files);
    let value = Arc::new(ArcSwap::from_pointee(read()?));
    let values = Values::of(files, tried, {
        let value = Arc::clone(&value);
        move || {
            value.store(Arc::new(read()?));
            Ok(())
        }
    });
    Ok((Credential::Fixed(value), values))
}

fn bearer(
    config: &Arc<Config>,
    credential: &config::Credential,
    fallback: Option<(&str, TokenHandle)>,
    is_sent: bool,
    clock: &Clock,
    metrics: &Metrics,
    tls: &tls::Current,
) -> Result<(TokenHandle, Bearer, CredentialView), StartError> {
    let Read { exchange, files, fingerprint } = read(config, credential, files(credential), clock, tls)?;
    if let (Some(endpoint), Some(proxy)) = (exchange.endpoint(), exchange.egress()) {
        info!(credential = credential.name, ims = endpoint.authority(), %proxy, "IMS is reached through an egress proxy");
    }
    let facts = Arc::new(ArcSwap::from_pointee(Facts::of(&exchange)));
    let fallback_name = fallback.as_ref().map(|(name, _)| *name);
    let metrics = metrics.credential(&credential.name, fallback_name);
    metrics.certificate_expires_at(exchange.credentials().expires_at().map(crate::clock::unix_seconds));

    let cache = cache(config, credential, &exchange);
    let cached = cache.as_ref().and_then(|cache| cache.load(clock.now()));
    let (token, mut refresher) =
        token::channel(exchange, clock.clone(), config.token.refresh_at, metrics.clone());
    refresher.keep_in(cache);
    let token = token.with_cooldown(config.token.cooldown);
    if config.credentials.len() > 1 {
        refresher.is_called(&credential.name);
    }
    if let Some(grant) = cached {
        refresher.start_with(grant);
    }
    let token = match fallback {
        Some((name, other)) => {
            refresher.falls_back_to(name);
            token.with_fallback(name, other)
        }
        None => token,
    };
    let keeper = Keeper::new(
        Arc::clone(config),
        credential.clone(),
        clock.clone(),
        Arc::clone(tls),
        (files, fingerprint),
        refresher.replacer(),
        token.clone(),
        (Arc::clone(&facts), metrics.clone()),
    );
    let view =
        CredentialView { name: credential.name.clone(), is_sent, token: token.clone(), metrics, facts };
    Ok((token, Bearer { refresher, keeper }, view))
}

/// The cache of a credential's tokens, if there is to be one. Each credential has a file of its own.
pub fn cache(
    config: &Config,
    credential: &config::Credential,
    exchange: &CredentialExchange,
) -> Option<Cache> {
    let mut path = config.token.cache_file.clone()?.into_os_string();
    if credential.name != config::DEFAULT {
        path.push(format!(".{}", credential.name));
    }
    Cache::new(PathBuf::from(path), exchange)
}

/// The exchange of a credential that gets tokens.
///
/// # Errors
/// When the credentials, IMS's address or the CA file are unusable.
pub fn exchange(
    config: &Config,
    credential: &config::Credential,
    clock: &Clock,
) -> Result<CredentialExchange, StartError> {
    let tls = tls::client_config(tls::roots(config.ca_file.as_deref())?)?;
    exchange_over(config, credential, clock, &tls::current(tls))
}

/// What was read, and the files that it was read from.
pub(super) struct Read {
    pub(super) exchange: CredentialExchange,
    pub(super) files: Vec<PathBuf>,
    /// Taken before they were read: what changes meanwhile differs from it.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// Reads a credential that gets tokens. `files` are those of which it was made before; the document may name others, and
/// then all are read once more, so that the fingerprint is of what is in use.
///
/// # Errors
/// As [`exchange`].
pub(super) fn read(
    config: &Config,
    credential: &config::Credential,
    mut files: Vec<PathBuf>,
    clock: &Clock,
    tls: &tls::Current,
) -> Result<Read, StartError> {
    loop {
        let fingerprint = Fingerprint::of(&files);
        let exchange = exchange_over(config, credential, clock, tls)?;
        let mut found = self::files(credential);
        found.extend(exchange.credentials().files().iter().cloned());
        // A pipe cannot be read twice.
        if found == files || fingerprint.is_none() {
            return Ok(Read { exchange, files: found, fingerprint });
        }
        files = found;
    }
}

/// The same over TLS that has been set up already: reading the system's roots takes longer than all the rest.
pub(super) fn exchange_over(
    config: &Config,
    credential: &config::Credential,
    clock: &Clock,
    tls: &tls::Current,
) -> Result<CredentialExchange, StartError> {
    let credentials = match read_credentials(credential)? {
        Credentials::LocalToken(token) => {
            return Ok(CredentialExchange::of_local_token(token, clock.clone()));
        }
        credentials => Arc::new(credentials),
    };
    let (place, text) = match &credential.ims_endpoint {
        Some(given) => (format!("`{}` ({})", given.key, given.source), given.text.as_str()),
        None => {
            let own = credentials.ims_endpoint().unwrap_or(DEFAULT_ENDPOINT);
            ("the credentials' imsEndpoint".to_owned(), own)
        }
    };
    let endpoint: Endpoint = text.parse().map_err(|error| StartError::Endpoint { place, error })?;
    let limits = ims::Limits { connect: config.timeouts.ims_connect, total: config.timeouts.ims };
    let egress = egress::proxy(&config.egress.ims, To::Ims, endpoint.token())?;
    let http = Http::new(Arc::clone(tls), limits, egress)
        .map_err(|error| StartError::internal("the client for IMS")(error.into()))?;
    Ok(CredentialExchange::at_ims(http, endpoint, credentials, clock.clone()))
}

/// Reads and checks a credential that gets tokens, and warns of a file that everybody may read.
///
/// # Errors
/// When it is unusable, with the place and the field.
fn read_credentials(credential: &config::Credential) -> Result<Credentials, StartError> {
    let at = |place: String| move |error| StartError::Credentials { place, error };
    let mut credentials = match &credential.source {
        CredentialSource::File { path, pick } => {
            let read = Credentials::read(path, pick.as_deref()).map_err(at(path.display().to_string()))?;
            warn_of_readers(path);
            read
        }
        CredentialSource::Inline { document, place, pick } => {
            Credentials::parse_json_or_base64(document.expose_secret(), pick.as_deref())
                .map_err(at(place.clone()))?
        }
        CredentialSource::Client { id, secrets, org } => Credentials::OAuth(OAuthCredentials {
            client_id: id.clone(),
            client_secrets: read_secrets(credential, secrets)?,
            scopes: Vec::new(),
            technical_account_id: None,
            email: None,
            org: org.clone(),
            ims_endpoint: None,
        }),
        CredentialSource::Basic { .. } => return Err(StartError::NoToken { name: credential.name.clone() }),
    };
    let name = || credential.name.clone();
    match &mut credentials {
        Credentials::OAuth(oauth) => {
            if !credential.scopes.is_empty() {
                oauth.scopes.clone_from(&credential.scopes);
            }
            if oauth.scopes.is_empty() {
                return Err(StartError::NoScopes { name: name() });
            }
        }
        _ if !credential.scopes.is_empty() => return Err(StartError::UselessScopes { name: name() }),
        _ => {}
    }
    Ok(credentials)
}

/// The files that a credential is made of, as far as the configuration names them.
pub(super) fn files(credential: &config::Credential) -> Vec<PathBuf> {
    match &credential.source {
        CredentialSource::File { path, .. } => vec![path.clone()],
        CredentialSource::Client { secrets: Secrets::File(path), .. } => vec![path.clone()],
        _ => Vec::new(),
    }
}

fn read_secrets(credential: &config::Credential, secrets: &Secrets) -> Result<Vec<SecretString>, StartError> {
    match secrets {
        Secrets::Given(secrets) => Ok(secrets.clone()),
        Secrets::File(path) => {
            let place = format!("`credentials.{}.client_secret_file`", credential.name);
            let text = read_secret(&place, &Secret::File(path.clone()))?;
            let lines =
                text.expose_secret().lines().map(text_file::trim_line).filter(|line| !line.is_empty());
            Ok(lines.map(SecretString::from).collect())
        }
    }
}

/// A secret, without the line end after it. `place` is for errors.
pub(super) fn read_secret(place: &str, secret: &Secret) -> Result<SecretString, StartError> {
    let path = match secret {
        Secret::Given(secret) => return Ok(secret.clone()),
        Secret::File(path) => path,
    };
    let wrong = |what: String| StartError::SecretFile {
        place: place.to_owned(),
        path: path.display().to_string(),
        what,
    };
    let bytes = credentials::read_limited(path).map_err(|error| {
        wrong(format!("cannot be read: {}: is the file there, and may this user read it?", error.kind()))
    })?;
    let secret =
        text_file::decode_value(&bytes).map_err(|error| wrong(format!("{error}: {SAVE_AS_UTF8}")))?;
    if secret.trim().is_empty() {
        return Err(wrong("is empty: put the secret there".to_owned()));
    }
    warn_of_readers(path);
    Ok(SecretString::from(secret))
}

pub(super) fn warn_of_readers(path: &Path) {
    if credentials::world_readable(path) {
        warn!(
            file = %path.display(),
            "Every user of this machine can read the credentials: chmod 600, or mount the secret with mode 0440"
        );
    }
}
