//! `token`: gets a token, and prints what is known of it.

use clap::Args;
use secrecy::ExposeSecret;

use super::{Failure, block_on, init_quiet_telemetry, print};
use crate::{
    app,
    clock::{Clock, rfc3339},
    config::{Config, Sources},
    ims::{Exchange, Grant, ImsError},
    tls,
    token::Cache,
};

#[derive(Args)]
pub(super) struct Token {
    /// Print the token alone, for scripts; it is a secret for as long as it lives
    #[arg(long)]
    raw: bool,
}

impl Token {
    pub(super) fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let config = Config::load(sources)?;
        init_quiet_telemetry(sources)?;
        let grant = grant(&config)?;
        if self.raw {
            print(&format!("{}\n", grant.token.expose_secret()));
        } else {
            print(&shown(&grant));
        }
        Ok(())
    }
}

/// The token that the running proxy keeps in its cache file, or else a new one.
fn grant(config: &Config) -> Result<Grant, Failure> {
    tls::install();
    let clock = Clock::system();
    let Some(exchange) = app::exchange(config, &clock)? else {
        return Err(Failure::config("auth is not \"bearer\": there is no token"));
    };
    let cache = config.token.cache_file.clone().and_then(|path| Cache::new(path, &exchange));
    if let Some(grant) = cache.and_then(|cache| cache.load(clock.now())) {
        return Ok(grant);
    }
    block_on(exchange.exchange())?.map_err(|error| Failure::wrong(in_words(&error)))
}

/// An error of IMS with what it means, for people.
pub(super) fn in_words(error: &ImsError) -> String {
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
        grant.client_id,
        rfc3339(grant.issued_at),
        rfc3339(grant.expires_at),
    )
}
