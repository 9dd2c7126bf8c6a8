//! `token`: gets a token, and prints what is known of it.

use clap::Args;

use super::{Failure, block_on, init_quiet_telemetry, keep_to_itself, print};
use crate::{
    app,
    clock::{Clock, rfc3339},
    config::{Config, Credential, Sources},
    ims::{Exchange, Grant, ImsError},
    tls,
};

#[derive(Args)]
pub(super) struct Token {
    /// Print the token alone, for scripts; it is a secret for as long as it lives
    #[arg(long)]
    raw: bool,
    /// Whose token, where there are several credentials
    #[arg(long, value_name = "NAME")]
    credential: Option<String>,
}

impl Token {
    pub(super) fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let config = Config::load(sources)?;
        init_quiet_telemetry(sources)?;
        keep_to_itself(&config);
        let grant = grant(&config, self.credential(&config)?)?;
        if self.raw {
            print(&format!("{}\n", grant.authorization.expose_credentials()))
        } else {
            print(&shown(&grant))
        }
    }

    /// The credential that is meant: the one that is named, or the only one that gets tokens.
    fn credential<'a>(&self, config: &'a Config) -> Result<&'a Credential, Failure> {
        let bearers: Vec<_> = config.credentials.iter().filter(|credential| credential.is_bearer()).collect();
        let names: Vec<_> = bearers.iter().map(|credential| credential.name.as_str()).collect();
        // What nobody uses is meant only where it is named.
        let used: Vec<_> = bearers
            .iter()
            .copied()
            .filter(|credential| config.sent().any(|name| name == credential.name))
            .collect();
        let choice = if used.is_empty() { &bearers } else { &used };
        match (&self.credential, &choice[..]) {
            (_, []) => Err(Failure::config("auth is not \"bearer\": there is no token")),
            (None, [only]) => Ok(only),
            (None, _) => Err(Failure::config(format!(
                "say whose token: --credential with one of {}",
                names.join(", ")
            ))),
            (Some(name), _) => {
                bearers.iter().find(|credential| credential.name == *name).copied().ok_or_else(|| {
                    Failure::config(format!(
                        "there is no credential {name} that gets tokens, but {}",
                        names.join(", ")
                    ))
                })
            }
        }
    }
}

/// The token that the running proxy keeps in its cache file, or else a new one.
fn grant(config: &Config, credential: &Credential) -> Result<Grant, Failure> {
    tls::install();
    let clock = Clock::system();
    let exchange = app::exchange(config, credential, &clock)?;
    let cache = app::cache(config, credential, &exchange);
    if let Some(grant) = cache.and_then(|cache| cache.load(clock.now())) {
        return Ok(grant);
    }
    block_on(exchange.exchange())?.map_err(|error| Failure::wrong(in_words(&error)))
}

/// An error of IMS with what it means, for people.
fn in_words(error: &ImsError) -> String {
    let mut text = error.to_string();
    if let Some(hint) = error.hint() {
        text.push_str(&format!("; {hint}"));
    }
    if let Some(id) = error.answer().and_then(|answer| answer.debug_id.as_deref()) {
        text.push_str(&format!(" (for Adobe's support: x-debug-id {id})"));
    }
    text
}

fn shown(grant: &Grant) -> String {
    let scopes = if grant.scopes.is_empty() { "not told".to_owned() } else { grant.scopes.join(", ") };
    format!(
        "subject  {}\nclient   {}\nscopes   {scopes}\nissued   {}\nexpires  {}\n",
        grant.user_id.as_deref().unwrap_or("not told"),
        if grant.client_id.is_empty() { "not told" } else { grant.client_id.as_str() },
        rfc3339(grant.issued_at),
        rfc3339(grant.expires_at),
    )
}
