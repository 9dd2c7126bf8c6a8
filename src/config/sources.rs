//! Where values come from: defaults, the TOML file, the environment, flags; lowest first.

use std::{borrow::Cow, ffi::OsString, fmt, io, path::PathBuf};

use figment::{
    Error, Metadata, Profile, Provider,
    error::{Actual, Kind as ErrorKind},
    util::nest,
    value::{Dict, Map, Value},
};
use toml_edit::{ImDocument, Item};
use zeroize::{Zeroize, Zeroizing};

use super::{
    ConfigError, Problem,
    environment::{is_of_service, of_environment_file, path_of},
    keys::{self, KEYS, Key, Kind, PREFIX},
};
use crate::{
    secret::never,
    text_file::{self, EncodingError, SAVE_AS_UTF8},
};

/// What there is to read, gathered by the caller, so that tests need no process of their own.
/// It may hold secrets, and has no `Debug`.
#[derive(Default)]
pub struct Sources {
    /// The file named by `--config`.
    pub file: Option<PathBuf>,
    /// The environment.
    pub variables: Variables,
    /// Flags that were given: the key's name and the value.
    pub flags: Vec<(&'static str, String)>,
}

/// Environment variables with their values. They may be secrets: there is no `Debug`, and they are wiped. (The system's own
/// copy stays where it is for as long as the process lives.)
#[derive(Default)]
pub struct Variables(pub(crate) Vec<(OsString, OsString)>);

never!(Sources: fmt::Debug, fmt::Display, serde::Serialize, Clone);
never!(Setting: fmt::Debug, fmt::Display, serde::Serialize, Clone);

impl FromIterator<(OsString, OsString)> for Variables {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl Drop for Variables {
    fn drop(&mut self) {
        for (_, value) in self.0.drain(..) {
            value.into_encoded_bytes().zeroize();
        }
    }
}

/// One value of one key, with where it stands. It may be a secret: there is no `Debug`, and it is wiped.
pub struct Setting {
    /// The key's name, with the user's own words in it.
    pub key: String,
    /// The value, not yet read.
    pub value: Value,
    /// Where it stands.
    pub source: Source,
}

impl Drop for Setting {
    fn drop(&mut self) {
        wipe(&mut self.value);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(_, text) => text.zeroize(),
        Value::Array(_, items) => items.iter_mut().for_each(wipe),
        Value::Dict(_, items) => items.values_mut().for_each(wipe),
        _ => {}
    }
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody gave one.
    Default,
    /// A file, and the line where one is known.
    File(PathBuf, Option<usize>),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, Some(line)) => write!(f, "{}:{line}", in_one_line(&path.to_string_lossy())),
            Self::File(path, None) => f.write_str(&in_one_line(&path.to_string_lossy())),
            Self::Variable(name) | Self::Flag(name) => f.write_str(&in_one_line(name)),
        }
    }
}

/// A name with what would end a line, or is none of a comment's in TOML, spelled out. Variables and files may be called so.
fn in_one_line(name: &str) -> Cow<'_, str> {
    if !name.contains(char::is_control) {
        return Cow::Borrowed(name);
    }
    let spelled = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    Cow::Owned(name.chars().map(spelled).collect())
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let Value::Dict(_, dict) = nest(&self.key, self.value.clone()) else {
            return Ok(Map::new());
        };
        Ok(Profile::Default.collect(dict))
    }
}

impl Sources {
    /// The sources of this process.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(&'static str, String)>) -> Self {
        let is_ours = |name: &OsString| name.to_str().is_some_and(is_ours);
        Self { file, variables: std::env::vars_os().filter(|(name, _)| is_ours(name)).collect(), flags }
    }

    /// Every value of every source, lowest first.
    pub(super) fn settings(&self) -> Result<Vec<Setting>, ConfigError> {
        let (settings, problems) = self.read();
        if problems.is_empty() { Ok(settings) } else { Err(ConfigError(problems)) }
    }

    /// The same with what cannot be read.
    pub(super) fn read(&self) -> (Vec<Setting>, Vec<Problem>) {
        self.read_with(self.path().map(|path| {
            let text = std::fs::read(&path)
                .map(Zeroizing::new)
                .and_then(|bytes| text_file::decode(&bytes).map(str::to_owned).map_err(io::Error::other));
            (path, text)
        }))
    }

    /// The same with this `file`, whatever file is named.
    pub(super) fn read_with(
        &self,
        file: Option<(PathBuf, io::Result<String>)>,
    ) -> (Vec<Setting>, Vec<Problem>) {
        let mut settings: Vec<_> = defaults().collect();
        let mut problems = Vec::new();
        if let Some((path, text)) = file {
            read_file(path, text, &mut settings, &mut problems);
        }
        self.read_environment(&mut settings, &mut problems);
        settings.extend(self.flags.iter().map(|(name, value)| Setting {
            key: (*name).to_owned(),
            value: Value::from(value.as_str()),
            source: Source::Flag(format!("--{}", name.replace(['.', '_'], "-"))),
        }));
        (settings, problems)
    }

    fn path(&self) -> Option<PathBuf> {
        let variable = || self.variables.0.iter().find(|(name, _)| *name == *CONFIG_VARIABLE);
        self.file.clone().or_else(|| {
            variable().map(|(_, path)| path.into()).filter(|path: &PathBuf| path.as_os_str() != "")
        })
    }

    fn read_environment(&self, settings: &mut Vec<Setting>, problems: &mut Vec<Problem>) {
        let mut ours = Vec::new();
        for (name, value) in &self.variables.0 {
            let Some(name) = name.to_str() else { continue };
            if name == CONFIG_VARIABLE {
                problems.extend(of_environment_file(name, value));
            } else if is_ours(name) && !is_of_service(name, &value.to_string_lossy()) {
                // An empty variable is one that was not set: compose files pass them on so.
                if !value.is_empty() {
                    ours.push((name, value));
                }
            }
        }
        // Our own name for the level stands above the one that every Rust program has.
        ours.sort_by_key(|(name, _)| (*name != RUST_LOG, *name));
        for (name, value) in ours {
            if let Some(problem) = of_environment_file(name, value) {
                problems.push(problem);
                continue;
            }
            match variable(name, value) {
                Ok(mut setting) => {
                    let known = settings.iter().map(|setting| setting.key.as_str());
                    setting.key = keys::spelled_as_known(&setting.key, known);
                    settings.push(setting);
                }
                Err(problem) => problems.push(problem),
            }
        }
    }
}

fn read_file(
    path: PathBuf,
    text: io::Result<String>,
    settings: &mut Vec<Setting>,
    problems: &mut Vec<Problem>,
) {
    let text = match text {
        Ok(text) => Zeroizing::new(text),
        Err(error) => {
            let encoding = error.get_ref().and_then(|inner| inner.downcast_ref::<EncodingError>());
            let (what, hint) = match encoding {
                Some(encoding) => (encoding.to_string(), SAVE_AS_UTF8),
                None => (format!("cannot be read: {}", error.kind()), "check --config or AEM_PROXY_CONFIG"),
            };
            return problems.push(Problem {
                key: String::new(),
                source: Some(Source::File(path, None)),
                what,
                mend: hint.to_owned(),
            });
        }
    };
    match ImDocument::parse(text.as_str()) {
        Ok(document) => {
            let mut file = TomlFile { path, text: &text, settings, problems };
            file.walk("", document.as_item());
        }
        Err(error) => {
            let line = error.span().map(|span| line_of(&text, span.start));
            // The message alone: the error's Display quotes the line, which may hold a secret.
            let what = without_words(error.message().lines().next().unwrap_or_default(), &text);
            problems.push(Problem {
                key: String::new(),
                source: Some(Source::File(path, line)),
                what: format!("is not TOML: {what}"),
                mend: "mend that line; strings stand in quotes".to_owned(),
            });
        }
    }
}

/// The TOML reader's message without what it quotes of the file, but for signs and for names of ours: who knows what else stands
/// where a name belongs. A file with backticks may end a quotation where it likes: nothing is quoted of it.
fn without_words(message: &str, file: &str) -> String {
    let is_ours = |word: &str| KEYS.iter().flat_map(|key| key.name.split('.')).any(|name| name == word);
    let is_shown = |quoted: &str| !quoted.contains(char::is_alphanumeric) || quoted.split('.').all(is_ours);
    let mut pieces = message.split('`');
    if file.contains('`') {
        return pieces.next().unwrap_or_default().to_owned() + "...";
    }
    let shown: Vec<_> = pieces
        .enumerate()
        .map(|(at, piece)| if at % 2 == 0 || is_shown(piece) { piece } else { "..." })
        .collect();
    shown.join("`")
}

fn variable(name: &str, value: &std::ffi::OsStr) -> Result<Setting, Problem> {
    let source = Source::Variable(name.to_owned());
    let path = path_of(name);
    let Some(key) = keys::find(&path) else {
        return Err(unknown(&path, source, keys::variable));
    };
    let text = value.to_str().ok_or_else(|| Problem {
        key: path.clone(),
        source: Some(source.clone()),
        what: "is not UTF-8".to_owned(),
        mend: "give text".to_owned(),
    })?;
    Ok(Setting { value: from_text(key, text), key: path, source })
}

fn defaults() -> impl Iterator<Item = Setting> {
    KEYS.iter().filter_map(|key| {
        let value = from_text(key, key.default?);
        Some(Setting { key: key.name.to_owned(), value, source: Source::Default })
    })
}

/// The value that stands above all others of its key.
pub(super) fn effective<'a>(settings: &'a [Setting], key: &str) -> Option<&'a Setting> {
    settings.iter().rev().find(|setting| setting.key == key)
}

/// The keys in which the user has named something, once each: in the order of the table of keys, but with all that
/// belongs to one name together.
pub(super) fn named(settings: &[Setting]) -> Vec<&str> {
    let mut paths: Vec<_> = settings
        .iter()
        .filter_map(|setting| {
            let path = setting.key.as_str();
            let key = KEYS.iter().position(|key| key.is_pattern() && key.is_at(path))?;
            let mut parts = path.split('.');
            let (table, name) = (parts.next()?, parts.next()?);
            let kind = KEYS.iter().position(|key| key.name.starts_with(&format!("{table}.")))?;
            let number = parts.nth(1).and_then(|part| part.parse::<u16>().ok());
            Some(((kind, name, number, key), path))
        })
        .collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().map(|(_, path)| path).collect()
}

/// Reads text as the key's kind asks; what does not fit stays text, and is refused where it is read.
fn from_text(key: &Key, text: &str) -> Value {
    match key.kind {
        Kind::Text => Value::from(text),
        Kind::List => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect::<Vec<_>>().into()
        }
        Kind::Share => text.parse::<f64>().map_or_else(|_| Value::from(text), Value::from),
        Kind::Flag => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Value::from(true),
            "false" | "0" => Value::from(false),
            _ => Value::from(text),
        },
    }
}

fn is_ours(name: &str) -> bool {
    name == RUST_LOG || name.starts_with(PREFIX)
}

struct TomlFile<'a> {
    path: PathBuf,
    text: &'a str,
    settings: &'a mut Vec<Setting>,
    problems: &'a mut Vec<Problem>,
}

impl TomlFile<'_> {
    fn walk(&mut self, path: &str, item: &Item) {
        let (file, text) = (self.path.clone(), self.text);
        let source = || Source::File(file.clone(), item.span().map(|span| line_of(text, span.start)));
        if let (true, Some(table)) = (keys::is_table(path), item.as_table_like()) {
            for (name, item) in table.iter() {
                if name.is_empty() || name.contains('.') {
                    self.problems.push(Problem {
                        key: path.to_owned(),
                        source: Some(source()),
                        what: "holds a name that is empty or has a dot in it".to_owned(),
                        mend: "choose another name".to_owned(),
                    });
                    continue;
                }
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                self.walk(&path, item);
            }
        } else if let (true, Some(tables)) = (keys::is_list_of_tables(path), tables(item)) {
            for (number, item) in tables.iter().enumerate() {
                self.walk(&format!("{path}.{number}"), item);
            }
        } else if let Some(key) = keys::find(path) {
            match from_toml(key, item) {
                Some(value) => {
                    self.settings.push(Setting { key: path.to_owned(), value, source: source() });
                }
                None => self.problems.push(Problem {
                    key: path.to_owned(),
                    source: Some(source()),
                    what: "has the wrong type".to_owned(),
                    mend: match key.kind {
                        Kind::Text => "give a string",
                        Kind::List => "give a list of strings",
                        Kind::Share => "give a number",
                        Kind::Flag => "give true or false",
                    }
                    .to_owned(),
                }),
            }
        } else {
            self.problems.push(unknown(path, source(), str::to_owned));
        }
    }
}

fn from_toml(key: &Key, item: &Item) -> Option<Value> {
    match key.kind {
        Kind::Text => match item.as_value()? {
            toml_edit::Value::String(text) => Some(Value::from(text.value().as_str())),
            toml_edit::Value::Integer(number) => Some(Value::from(number.value().to_string())),
            _ => None,
        },
        Kind::List if item.is_str() => Some(from_text(key, item.as_str()?)),
        Kind::List => {
            let items = item.as_array()?.iter().map(|item| item.as_str().map(str::to_owned));
            Some(items.collect::<Option<Vec<_>>>()?.into())
        }
        Kind::Share => item.as_float().or_else(|| item.as_integer().map(|n| n as f64)).map(Value::from),
        Kind::Flag => item.as_bool().map(Value::from),
    }
}

/// The tables of a list, in either way of writing it.
fn tables(item: &Item) -> Option<Vec<Item>> {
    match item {
        Item::ArrayOfTables(tables) => Some(tables.iter().cloned().map(Item::Table).collect()),
        Item::Value(toml_edit::Value::Array(items)) => items
            .iter()
            .map(|item| item.as_inline_table().cloned().map(|table| Item::Value(table.into())))
            .collect(),
        _ => None,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn unknown(path: &str, source: Source, spelled: impl Fn(&str) -> String) -> Problem {
    let mend = match keys::nearest(path) {
        Some(name) => format!("did you mean `{}`?", spelled(&name)),
        None => "see `aem-auth-proxy config` for the keys that there are".to_owned(),
    };
    Problem { key: path.to_owned(), source: Some(source), what: "is not a key".to_owned(), mend }
}

/// Puts figment's error into our words: it quotes the value, ours must not.
pub(super) fn problem_of(settings: &[Setting], error: &Error) -> Problem {
    let key = error.path.join(".");
    let set = effective(settings, &key)
        .or_else(|| settings.iter().rev().find(|set| set.key.ends_with(&format!(".{key}"))));
    let (what, mend) = match &error.kind {
        ErrorKind::Message(message) => match message.split_once("; ") {
            Some((what, mend)) => (what.to_owned(), mend.to_owned()),
            None => (message.clone(), "see the documentation".to_owned()),
        },
        ErrorKind::InvalidType(actual, expected) => {
            (format!("is {}, not {expected}", name_of(actual)), "mend the value".to_owned())
        }
        ErrorKind::UnknownVariant(_, known) => {
            ("is not one of its values".to_owned(), format!("give one of {}", known.join(", ")))
        }
        ErrorKind::MissingField(_) => ("is not set".to_owned(), "give it".to_owned()),
        _ => ("cannot be used".to_owned(), "mend the value".to_owned()),
    };
    let key = set.map_or(key, |set| set.key.clone());
    Problem { key, source: set.map(|set| set.source.clone()), what, mend }
}

/// The type of a value, without the value.
fn name_of(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) | Actual::Bytes(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    }
}

const CONFIG_VARIABLE: &str = "AEM_PROXY_CONFIG";
const RUST_LOG: &str = "RUST_LOG";
