//! Web origins that may call.

use url::Url;

use super::Checker;

impl Checker<'_> {
    /// Each as a browser writes it into `Origin`, where it is compared whole (RFC 6454, section 6.1). `null` is what every
    /// sandboxed frame and every file says.
    pub(super) fn web_origins(&mut self, origins: &[String]) {
        for text in origins {
            let origin = text.trim_end_matches('/');
            match as_browsers_write(origin) {
                Some(written) if written.eq_ignore_ascii_case(origin) => {}
                Some(written) => {
                    let mend = format!("write {written}");
                    self.wrong(KEY, "has an origin that no browser writes so", mend);
                }
                None => {
                    let mend = "give scheme, host and port of each page, as in http://localhost:3000";
                    self.wrong(KEY, "has what is no web origin", mend);
                }
            }
        }
    }
}

fn as_browsers_write(text: &str) -> Option<String> {
    let (_, host) = text.split_once("://")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if host.is_empty() || !host.bytes().all(plain) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    // Of other schemes, an app's own or an extension's, it is the whole.
    Some(if url.origin().is_tuple() { url.origin().ascii_serialization() } else { text.to_owned() })
}

const KEY: &str = "guard.allowed_origins";
