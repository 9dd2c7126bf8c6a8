//! IMS's answers as they come, for [`crate::fuzzing`].

use std::time::SystemTime;

use http::HeaderMap;

use super::{Grant, ImsError, answer::Answered, error::retry_after, exchange::answer_of};
use crate::credentials::Credentials;

/// Reads an answer to an exchange of `credentials` that was asked for, and came, at `now`.
///
/// # Errors
/// As an exchange.
pub fn answer(
    credentials: &Credentials,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> Result<Grant, ImsError> {
    Answered {
        answer: answer_of(credentials, status, headers, now),
        retry_after: retry_after(headers, now),
        body,
        asked_at: now,
        credentials,
        now,
    }
    .read()
}
