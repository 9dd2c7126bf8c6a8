//! JSON that names AEM.

use aem_auth_proxy::fuzzing;
use serde_json::Value;

use super::cuts::cut;

/// The input is the body of an answer. However it is cut it is renamed in the same way; of a document that is JSON exactly
/// those values that are to be renamed; of anything else, what does not name AEM, nothing.
pub fn check(body: &[u8]) {
    for rule in &RULES {
        let rename = |pieces: Vec<&[u8]>| fuzzing::renamed(rule.path, (UPSTREAM, LOCAL), pieces);
        let whole = rename(vec![body]);
        assert_eq!(text(&whole), text(&rename(cut(body))), "in pieces");
        assert!(whole.len() <= body.len() * GROWS_MAX, "{} bytes of {}", whole.len(), body.len());
        if !fuzzing::names(UPSTREAM, body) {
            assert_eq!(text(&whole), text(body), "AEM is not named");
        }
        let Ok(json) = std::str::from_utf8(body) else { continue };
        if let Ok(document) = serde_json::from_str::<Value>(json) {
            assert_eq!(text(&whole), naive(json, rule), "{} for {}", json.escape_debug(), rule.path);
            let renamed = serde_json::from_slice::<Value>(&whole).expect("JSON stays JSON");
            check_values(&document, &renamed);
        }
    }
}

/// All values are the same, but for some that begin with AEM's origin and now begin with the local one.
fn check_values(before: &Value, after: &Value) {
    match (before, after) {
        (Value::Array(before), Value::Array(after)) => {
            assert_eq!(before.len(), after.len());
            before.iter().zip(after).for_each(|(before, after)| check_values(before, after));
        }
        (Value::Object(before), Value::Object(after)) => {
            assert!(before.keys().eq(after.keys()));
            before.values().zip(after.values()).for_each(|(before, after)| check_values(before, after));
        }
        (Value::String(before), Value::String(after)) if before != after => {
            let rest = after.strip_prefix(LOCAL).unwrap_or_else(|| panic!("{before} became {after}"));
            assert!(rest.is_empty() || rest.starts_with(['/', '?', '#']), "{before} became {after}");
            let origin = before.strip_suffix(rest).map(str::to_ascii_lowercase);
            let origin = origin.as_deref().map(|origin| origin.strip_suffix(":443").unwrap_or(origin));
            assert_eq!(origin, Some(UPSTREAM), "{before} became {after}");
        }
        _ => assert_eq!(before, after),
    }
}

/// What is renamed in answers to requests for a path.
struct Rule {
    path: &'static str,
    members: &'static [&'static str],
    /// `href` of what stands in `links`.
    links: bool,
}

const RULES: [Rule; 3] = [
    Rule { path: "/content/dam/a.initiateUpload.json", members: &["completeURI"], links: false },
    Rule { path: "/api/assets/a.json", members: &["completeURI"], links: true },
    Rule { path: "/graphql/execute.json/a/b", members: &["_publishUrl", "_authorUrl"], links: false },
];

/// Renames a document of which is known that it is JSON, in the plainest way.
fn naive(json: &str, rule: &Rule) -> String {
    let mut reader = Naive { rest: json, out: String::new(), rule };
    reader.value(None, false);
    reader.blank();
    assert!(reader.rest.is_empty(), "more than a document");
    reader.out
}

struct Naive<'j> {
    rest: &'j str,
    out: String,
    rule: &'j Rule,
}

impl<'j> Naive<'j> {
    /// A value of the member called `name`; `linked` if it is an element of a list of links.
    fn value(&mut self, name: Option<(&str, bool)>, linked: bool) {
        self.blank();
        let links = self.rule.links && name.is_some_and(|(name, _)| name == "links");
        match self.rest.as_bytes()[0] {
            b'{' => self.object(links || linked),
            b'[' => self.array(links),
            b'"' => {
                let text = self.string();
                let renamed = name.is_some_and(|(name, in_link)| {
                    self.rule.members.contains(&name) || (self.rule.links && in_link && name == "href")
                });
                let renamed = if renamed { rename(text) } else { text.to_owned() };
                self.out.push('"');
                self.out.push_str(&renamed);
                self.out.push('"');
            }
            _ => {
                let end = self.rest.find([',', ']', '}', ' ', '\t', '\r', '\n']).unwrap_or(self.rest.len());
                self.take(end);
            }
        }
    }

    fn object(&mut self, is_link: bool) {
        self.take(1);
        loop {
            self.blank();
            match self.rest.as_bytes()[0] {
                b'}' => return self.take(1),
                b',' => self.take(1),
                _ => {
                    let name = self.string();
                    self.out += &format!("\"{name}\"");
                    let name: String = serde_json::from_str(&format!("\"{name}\"")).expect("a string");
                    self.blank();
                    self.take(1);
                    self.value(Some((&name, is_link)), false);
                }
            }
        }
    }

    fn array(&mut self, of_links: bool) {
        self.take(1);
        loop {
            self.blank();
            match self.rest.as_bytes()[0] {
                b']' => return self.take(1),
                b',' => self.take(1),
                _ => self.value(None, of_links),
            }
        }
    }

    /// The inside of a string, which is passed over.
    fn string(&mut self) -> &'j str {
        let inside = &self.rest[1..];
        let mut end = 0;
        while inside.as_bytes()[end] != b'"' {
            end += if inside.as_bytes()[end] == b'\\' { 2 } else { 1 };
        }
        self.rest = &inside[end + 1..];
        &inside[..end]
    }

    fn blank(&mut self) {
        self.take(self.rest.len() - self.rest.trim_start_matches([' ', '\t', '\r', '\n']).len());
    }

    fn take(&mut self, bytes: usize) {
        let (taken, rest) = self.rest.split_at(bytes);
        self.out.push_str(taken);
        self.rest = rest;
    }
}

/// The inside of a string with the local origin in place of AEM's, spelled as its first colon and its first slash are.
fn rename(text: &str) -> String {
    for colon in COLONS {
        for slash in SLASHES {
            for second in SLASHES {
                let ports = COLONS.map(|colon| format!("{colon}443"));
                for port in ports.iter().map(String::as_str).chain([""]) {
                    let origin = format!("https{colon}{slash}{second}{HOST}{port}");
                    let Some(rest) = strip(text, &origin) else { continue };
                    if rest.is_empty() || ["?", "#"].iter().chain(&SLASHES).any(|end| rest.starts_with(end)) {
                        return LOCAL.replace('/', slash).replace(':', colon) + rest;
                    }
                }
            }
        }
    }
    text.to_owned()
}

/// What follows an origin, whose scheme has no case.
fn strip<'t>(text: &'t str, origin: &str) -> Option<&'t str> {
    let (scheme, rest) = text.split_at_checked("https".len())?;
    scheme.eq_ignore_ascii_case("https").then(|| rest.strip_prefix(&origin["https".len()..])).flatten()
}

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

const HOST: &str = "aem.example";

const UPSTREAM: &str = "https://aem.example";

const LOCAL: &str = "http://localhost:8080";

const COLONS: [&str; 3] = [":", "\\u003a", "\\u003A"];

const SLASHES: [&str; 4] = ["/", "\\/", "\\u002f", "\\u002F"];

/// The shortest spelling of AEM's origin has 19 bytes, the longest of the local one 41.
const GROWS_MAX: usize = 3;
