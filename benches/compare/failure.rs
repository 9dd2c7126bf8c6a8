//! Why a run cannot go on.

use std::fmt::Display;

/// Words for a person: nobody decides anything by them. A run that fails is told of and left out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// What a role or a run returns.
pub type Result<T> = std::result::Result<T, Failure>;

/// Adds to an error what was being done.
pub trait Context<T> {
    /// `doing` comes before the error's own words.
    ///
    /// # Errors
    /// The same error, in words.
    fn context(self, doing: impl Display) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl Display) -> Result<T> {
        self.map_err(|error| Failure(format!("{doing}: {error}")))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, doing: impl Display) -> Result<T> {
        self.ok_or_else(|| Failure(format!("{doing}: nothing there")))
    }
}
