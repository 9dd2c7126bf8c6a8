//! The JSON of a credentials document: fields by name and place, their values never shown.

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::CredentialsError;
use crate::{
    secret::{never, wipe_json},
    text_file::{self, EncodingError},
};

/// A parsed document, wiped from memory when dropped.
pub(super) struct Document(Value);

impl Document {
    /// Parses UTF-8 JSON, with or without a byte order mark.
    pub(super) fn parse(json: &[u8]) -> Result<Self, CredentialsError> {
        let json = text_file::decode(json).map_err(CredentialsError::Encoding)?;
        if json.trim().is_empty() {
            return Err(CredentialsError::Empty);
        }
        // No JSON holds one.
        if json.contains('\0') {
            return Err(CredentialsError::Encoding(EncodingError::NotUtf8));
        }
        // The place only: the parser's own message may quote what stands there.
        serde_json::from_str(json)
            .map(Self)
            .map_err(|error| CredentialsError::Json { line: error.line(), column: error.column() })
    }

    /// The fields of the outermost object.
    pub(super) fn fields(&self) -> Result<Fields<'_>, CredentialsError> {
        let object = self.0.as_object().ok_or(CredentialsError::NotAnObject)?;
        Ok(Fields { object, path: String::new() })
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        wipe_json(&mut self.0);
    }
}

never!(Document: std::fmt::Debug, serde::Serialize, Clone);
never!(Fields<'_>: std::fmt::Debug, serde::Serialize);

/// One object of the document and the way to it. A field that is `null` counts as absent.
#[derive(Clone)]
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Names with a dot after each, such as `integration.technicalAccount.`; empty at the top.
    path: String,
}

impl<'a> Fields<'a> {
    /// Where a field stands, as errors name it.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.has(name))
    }

    /// The first of these names that is there, or else the first of all: the one to ask for.
    pub(super) fn first_of(&self, names: &[&'static str]) -> &'static str {
        let there = names.iter().find(|name| self.has(name));
        there.or(names.first()).copied().unwrap_or_default()
    }

    /// Whether the field is there and is the JSON value `false`.
    pub(super) fn is_false(&self, name: &str) -> bool {
        self.find(name) == Some(&Value::Bool(false))
    }

    pub(super) fn object(&self, name: &str) -> Result<Fields<'a>, CredentialsError> {
        let object = self.required(name)?.as_object().ok_or_else(|| self.wrong(name, "an object"))?;
        Ok(Fields { object, path: format!("{}.", self.path(name)) })
    }

    /// The objects of a list, none where the list is absent. What is no object is passed over.
    pub(super) fn objects(&self, name: &str) -> Result<Vec<Fields<'a>>, CredentialsError> {
        let Some(list) = self.find(name) else { return Ok(Vec::new()) };
        let list = list.as_array().ok_or_else(|| self.wrong(name, "a list"))?;
        let numbered = list.iter().enumerate();
        let objects = numbered.filter_map(|(index, value)| {
            Some(Fields { object: value.as_object()?, path: format!("{}[{index}].", self.path(name)) })
        });
        Ok(objects.collect())
    }

    /// A string without white space round it; at least one character.
    pub(super) fn text(&self, name: &str) -> Result<&'a str, CredentialsError> {
        let text = self.required(name)?.as_str().ok_or_else(|| self.wrong(name, "a string"))?.trim();
        if text.is_empty() { Err(self.empty(name)) } else { Ok(text) }
    }

    /// A string, or nothing where the field is absent or blank.
    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&'a str>, CredentialsError> {
        match self.text(name) {
            Ok(text) => Ok(Some(text)),
            Err(CredentialsError::Missing { .. } | CredentialsError::EmptyField { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a comma separates, in one string or in several, trimmed; at least one.
    pub(super) fn comma_separated(&self, name: &str) -> Result<Vec<String>, CredentialsError> {
        let items: Vec<String> = self
            .strings(name)?
            .iter()
            .flat_map(|text| text.split(','))
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect();
        if items.is_empty() { Err(self.empty(name)) } else { Ok(items) }
    }

    /// What commas or white space separate, in one string or in several; none where the field is absent or blank.
    pub(super) fn optional_list(&self, name: &str) -> Result<Vec<String>, CredentialsError> {
        let texts = if self.has(name) { self.texts(name)? } else { Vec::new() };
        let items = texts.iter().flat_map(|text| text.split(|c: char| c == ',' || c.is_whitespace()));
        Ok(items.filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    /// The strings of a list, or the one string that stands in its place, trimmed; without those that are `null` or
    /// blank, so there may be none.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<&'a str>, CredentialsError> {
        let texts = self.strings(name)?.into_iter().map(str::trim);
        Ok(texts.filter(|text| !text.is_empty()).collect())
    }

    /// A text of lines, in one string or in an array of them; at least one character.
    pub(super) fn lines(&self, name: &str) -> Result<Zeroizing<String>, CredentialsError> {
        let text = Zeroizing::new(self.strings(name)?.join("\n"));
        if text.trim().is_empty() { Err(self.empty(name)) } else { Ok(text) }
    }

    fn strings(&self, name: &str) -> Result<Vec<&'a str>, CredentialsError> {
        let strings = match self.required(name)? {
            Value::String(text) => Some(vec![text.as_str()]),
            Value::Array(items) => items.iter().filter(|item| !item.is_null()).map(Value::as_str).collect(),
            _ => None,
        };
        strings.ok_or_else(|| self.wrong(name, "a string or an array of strings"))
    }

    fn required(&self, name: &str) -> Result<&'a Value, CredentialsError> {
        self.find(name).ok_or_else(|| CredentialsError::Missing { field: self.path(name) })
    }

    fn find(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn empty(&self, name: &str) -> CredentialsError {
        CredentialsError::EmptyField { field: self.path(name) }
    }

    fn wrong(&self, name: &str, expected: &'static str) -> CredentialsError {
        CredentialsError::WrongType { field: self.path(name), expected }
    }
}
