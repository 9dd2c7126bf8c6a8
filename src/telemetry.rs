//! Logs: `tracing-subscriber`, once, on the standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::config::{Log, LogFormat};

/// `log.level` is neither a level nor a filter.
#[derive(Debug, thiserror::Error)]
#[error("neither a level nor a filter")]
pub struct BadFilter;

/// Starts logging. A second call changes nothing.
///
/// # Errors
/// When `log.level` is neither a level nor a filter.
pub fn init(log: &Log) -> Result<(), BadFilter> {
    let filter = filter(&log.level)?;
    let is_terminal = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = match log.format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // An error says only that logging was started before.
    let _ = if json {
        tracing::subscriber::set_global_default(subscriber.json().flatten_event(true).finish())
    } else {
        tracing::subscriber::set_global_default(subscriber.with_ansi(is_terminal).with_target(false).finish())
    };
    Ok(())
}

/// A lone word has to be a level: as a filter it would name a module that there is not, and silence everything.
fn filter(text: &str) -> Result<EnvFilter, BadFilter> {
    let is_filter = text.contains(['=', ',', '[']);
    if !is_filter && text.parse::<LevelFilter>().is_err() {
        return Err(BadFilter);
    }
    EnvFilter::builder().parse(text).map_err(|_| BadFilter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_taken_and_typing_errors_are_not() {
        for text in ["info", "TRACE", "off", "info,hyper=debug", "aem_auth_proxy=debug"] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for text in ["lout", "a=b=c"] {
            assert!(filter(text).is_err(), "{text}");
        }
    }
}
