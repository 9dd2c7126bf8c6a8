//! The search for secrets: every secret that the stand-ins and a test know, in every form in which something might write it.

use std::fmt::Write as _;

use aem_auth_proxy::{config::keys, standin::StandIns};
use aho_corasick::AhoCorasick;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// What must not be seen, each with what it is.
#[derive(Default)]
pub struct Secrets(Vec<(String, Vec<u8>)>);

/// The same, ready to be looked for.
pub struct Search {
    /// What it is, and in which form.
    names: Vec<String>,
    forms: Option<AhoCorasick>,
}

impl Secrets {
    /// All that these stand-ins know of at this time.
    pub fn of(standins: &StandIns) -> Self {
        let mut secrets = Self::default();
        let integration = &standins.credentials_document["integration"];
        let text = |value: &serde_json::Value| value.as_str().expect("the document is whole").to_owned();
        secrets.add("the document's client secret", text(&integration["technicalAccount"]["clientSecret"]));
        secrets.add_key(&text(&integration["privateKey"]));
        for secret in standins.oauth.client_secrets().iter().chain(&standins.ims.oauth_secrets()) {
            secrets.add("a client secret of OAuth", secret.expose_secret());
        }
        for token in standins.ledger.tokens() {
            secrets.add_token("an access token", &token);
        }
        if let Some(assertion) = standins.ims.last_assertion() {
            secrets.add_token("an assertion", &assertion);
        }
        secrets
    }

    /// Every value of these variables that is one of a secret key: not what is as short as `admin`, which stands anywhere.
    pub fn add_variables(&mut self, variables: &[(String, String)]) {
        for (name, value) in variables {
            let path = name.strip_prefix(keys::PREFIX).unwrap_or_default().to_lowercase().replace("__", ".");
            if keys::find(&path).is_some_and(|key| key.secret) && value.len() >= LEAST {
                self.add(&format!("the value of {name}"), value.as_str());
            }
            if let Some((user_information, _)) =
                value.rsplit_once('@').filter(|_| path.starts_with("egress."))
            {
                self.add_user_information(
                    user_information.split_once("://").map_or(user_information, |(_, rest)| rest),
                );
            }
        }
    }

    /// The password of a URL, as it stands there and decoded: from the mark that the tests' secrets begin with, since a
    /// parser may cut what stands before it.
    pub fn add_user_information(&mut self, text: &str) {
        let password = text.rsplit_once("p8e").map(|(_, end)| format!("p8e{end}"));
        let password = password.or_else(|| Some(text.split_once(':')?.1.to_owned())).unwrap_or_default();
        self.add("the password of a URL, decoded", percent_decoded(password.as_bytes()));
        self.add("the password of a URL", password);
    }

    pub fn add(&mut self, what: &str, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        if secret.len() >= LEAST {
            self.0.push((what.to_owned(), secret.to_owned()));
        }
    }

    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// The end of a token: it is in the whole one, and in what is left when somebody cuts its beginning. What stands before it
    /// is no secret.
    pub fn add_token(&mut self, what: &str, token: &str) {
        self.add(what, &token[token.len().saturating_sub(40)..]);
    }

    /// A few lines of a key, which nobody writes without the others, as text and as the bytes that they stand for.
    pub fn add_key(&mut self, pem: &str) {
        for line in pem.lines().filter(|line| line.len() == 64).step_by(8) {
            self.add("a line of the private key", line);
            self.add("bytes of the private key", STANDARD.decode(line).expect("a line of base64"));
        }
    }

    pub fn search(&self) -> Search {
        let (mut names, mut forms) = (Vec::new(), Vec::new());
        for (what, secret) in &self.0 {
            for (form, bytes) in forms_of(secret) {
                names.push(format!("{what}, {form}"));
                forms.push(bytes);
            }
        }
        let forms = (!forms.is_empty()).then(|| AhoCorasick::new(forms).expect("not too many"));
        Search { names, forms }
    }

    /// What of them is in `text`, and in which form.
    pub fn seen_in(&self, text: &str) -> Vec<String> {
        self.search().seen_in(text.as_bytes())
    }
}

impl Search {
    /// What of the secrets is in `text`, in which form, and where: never the secret.
    pub fn seen_in(&self, text: &[u8]) -> Vec<String> {
        let Some(forms) = &self.forms else { return Vec::new() };
        let mut seen = Vec::new();
        for reading in readings(text) {
            for found in forms.find_iter(&reading) {
                let line =
                    reading[..found.start()].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                // Time, level and target; a JSON line's likewise.
                let place: Vec<_> =
                    reading[line..found.start()].split(|byte| *byte == b' ').take(3).collect();
                let place = String::from_utf8_lossy(&place.join(&b' ')).chars().take(80).collect::<String>();
                seen.push(format!("{} at byte {} ({place} ...)", self.names[found.pattern()], found.start()));
            }
        }
        seen.dedup();
        seen
    }
}

/// The text as it is and percent-decoded in both ways, all without backslashes: so it does not matter how often a secret was
/// quoted, or which of its letters were encoded.
fn readings(text: &[u8]) -> Vec<Vec<u8>> {
    let plain = without_backslashes(text);
    let mut readings = Vec::new();
    if memchr::memchr2(b'%', b'+', text).is_some() {
        // Lines without either read the same.
        let coded: Vec<_> = text.split(|byte| *byte == b'\n').filter(|line| is_coded(line)).collect();
        let decoded = percent_decoded(&coded.join(&b'\n'));
        let spaced = decoded.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect::<Vec<_>>();
        readings.extend([without_backslashes(&decoded), without_backslashes(&spaced)]);
    }
    readings.push(plain);
    readings
}

fn is_coded(line: &[u8]) -> bool {
    memchr::memchr2(b'%', b'+', line).is_some()
}

/// What to look for in them, each with its name.
fn forms_of(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let spaced: Vec<_> = secret.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let mut forms = vec![
        ("as it is", without_backslashes(secret)),
        ("of a form", without_backslashes(&spaced)),
        ("decoded once too often", without_backslashes(&percent_decoded(secret))),
    ];
    // Base64 of a text that holds the secret: three bytes are four letters, so it depends on where it begins.
    for before in 0..3 {
        let bytes = [&[0; 2][..before], secret].concat();
        // What a neighbour has a part in is left out.
        let whole = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        forms.push(("in base64", STANDARD_NO_PAD.encode(&bytes).as_bytes()[whole.clone()].to_owned()));
        forms.push(("in base64url", URL_SAFE_NO_PAD.encode(&bytes).as_bytes()[whole].to_owned()));
    }
    let hex = hex(secret);
    forms.push(("in capital hex", hex.to_uppercase().into_bytes()));
    forms.push(("in hex", hex.into_bytes()));
    // `{:?}` of bytes.
    let numbers: Vec<_> = secret.iter().map(u8::to_string).collect();
    forms.push(("in numbers", numbers.join(", ").into_bytes()));
    // `b"..."` of `bytes`, which escapes what is no ASCII: backslashes go.
    forms.push(("escaped", without_backslashes(secret.escape_ascii().to_string().as_bytes())));
    forms
}

fn without_backslashes(text: &[u8]) -> Vec<u8> {
    let mut parts = text.split(|byte| *byte == b'\\');
    let mut plain = Vec::with_capacity(text.len());
    plain.extend_from_slice(parts.next().unwrap_or_default());
    parts.for_each(|part| plain.extend_from_slice(part));
    plain
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let code = behind.get(..2).filter(|code| *first == b'%' && code.iter().all(u8::is_ascii_hexdigit));
        let byte = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    bytes
}

pub fn hex(text: impl AsRef<[u8]>) -> String {
    text.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// What is shorter stands anywhere, in base64 above all.
const LEAST: usize = 8;
