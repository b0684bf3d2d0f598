//! The file as tables and fields. Each field is taken once, by name; what nobody took is an error. Every field knows
//! its line and its path, so that whoever finds it wrong can say where it is.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::CONFIG_BYTES_MAX;
use super::problem::{ConfigError, Problem};

/// Characters of a value that a message shows.
const SHOWN: usize = 72;

/// The whole file, if it is no larger than a configuration may be.
pub(super) fn whole(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |source: io::Error| ConfigError::Unreadable { file: file.to_owned(), source };
    let mut text = String::new();
    let read = File::open(file).map_err(unreadable)?.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text);
    let read = read.map_err(unreadable)?;
    if u64::try_from(read).is_ok_and(|read| read <= CONFIG_BYTES_MAX) {
        Ok(text)
    } else {
        Err(ConfigError::TooLong { file: file.to_owned(), most: CONFIG_BYTES_MAX })
    }
}

/// A text, and the file it is from.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) file: &'a Path,
    text: &'a str,
    /// Every field that was asked for, with `[]` for a place in a list.
    asked: RefCell<BTreeSet<String>>,
}

/// A table whose fields are being taken.
#[derive(Debug)]
pub(super) struct Table<'s, 'a> {
    source: &'s Source<'a>,
    /// Empty for the file itself.
    path: String,
    at: usize,
    fields: &'s DeTable<'a>,
    asked: BTreeSet<&'static str>,
}

/// A field that is there.
#[derive(Debug, Clone)]
pub(super) struct Field<'s, 'a> {
    source: &'s Source<'a>,
    path: String,
    value: &'s Spanned<DeValue<'a>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text, asked: RefCell::default() }
    }

    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'a>>, ConfigError> {
        DeTable::parse(self.text).map_err(|error| ConfigError::Syntax {
            file: self.file.to_owned(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })
    }

    pub(super) fn root<'s>(&'s self, table: &'s Spanned<DeTable<'a>>) -> Table<'s, 'a> {
        Table { source: self, path: String::new(), at: 0, fields: table.get_ref(), asked: BTreeSet::new() }
    }

    #[cfg(test)]
    pub(super) fn asked(self) -> BTreeSet<String> {
        self.asked.into_inner()
    }

    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }

    fn error(&self, at: usize, problem: Problem) -> ConfigError {
        ConfigError::Field { file: self.file.to_owned(), line: self.line(at), problem: Box::new(problem) }
    }

    fn shown(&self, span: Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        let first: String = text.lines().next().unwrap_or_default().chars().take(SHOWN).collect();
        if first.len() < text.len() { format!("{first}...") } else { first }
    }
}

impl<'s, 'a> Table<'s, 'a> {
    /// The field with this name, if it is there.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Field<'s, 'a>> {
        self.asked.insert(name);
        let path = join(&self.path, name);
        self.source.asked.borrow_mut().insert(without_places(&path));
        let (_, value) = self.fields.iter().find(|(key, _)| key.get_ref() == name)?;
        Some(Field { source: self.source, path, value })
    }

    /// The field with this name.
    pub(super) fn need(&mut self, name: &'static str, allowed: &str, fix: &str) -> Result<Field<'s, 'a>, ConfigError> {
        self.take(name).ok_or_else(|| self.missing(name, allowed, fix))
    }

    pub(super) fn missing(&self, name: &str, allowed: &str, fix: &str) -> ConfigError {
        let problem = Problem {
            field: join(&self.path, name),
            value: None,
            wrong: "missing".to_owned(),
            allowed: allowed.to_owned(),
            fix: fix.to_owned(),
        };
        self.source.error(self.at, problem)
    }

    /// The tables of `[[name]]`, in order.
    pub(super) fn tables(&mut self, name: &'static str) -> Result<Vec<Self>, ConfigError> {
        let Some(field) = self.take(name) else { return Ok(Vec::new()) };
        let form = format!("any number of [[{name}]] sections");
        field.list(&form)?.into_iter().map(|each| each.table(&form)).collect()
    }

    /// Nothing may be left that nobody asked for.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let left = self.fields.iter().find(|(key, _)| !self.asked.contains(key.get_ref().as_ref()));
        let Some((key, value)) = left else { return Ok(()) };
        let name = key.get_ref().as_ref();
        let known: Vec<&str> = self.asked.iter().copied().collect();
        let near =
            known.iter().copied().filter(|each| alike(each, name)).min_by_key(|each| each.len().abs_diff(name.len()));
        let fix = near.map_or_else(|| "remove it".to_owned(), |near| format!("write {near}, or remove it"));
        let problem = Problem {
            field: join(&self.path, name),
            value: (!value.get_ref().is_table()).then(|| self.source.shown(value.span())),
            wrong: "there is no such field".to_owned(),
            allowed: known.join(", "),
            fix,
        };
        Err(self.source.error(key.span().start, problem))
    }
}

impl<'s, 'a> Field<'s, 'a> {
    pub(super) fn text(&self, form: &str) -> Result<&'s str, ConfigError> {
        self.value.get_ref().as_str().ok_or_else(|| self.other_type("a text in quotes", form))
    }

    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        self.value.get_ref().as_bool().ok_or_else(|| self.other_type("true or false", "true or false"))
    }

    pub(super) fn integer(&self, form: &str) -> Result<i64, ConfigError> {
        let integer = self.value.get_ref().as_integer();
        let integer = integer.and_then(|digits| i64::from_str_radix(digits.as_str(), digits.radix()).ok());
        integer.ok_or_else(|| self.other_type("a whole number without quotes", form))
    }

    pub(super) fn list(&self, form: &str) -> Result<Vec<Self>, ConfigError> {
        let list = self.value.get_ref().as_array().ok_or_else(|| self.other_type("a list in [ ]", form))?;
        let place = |(at, value)| Self { source: self.source, path: format!("{}[{at}]", self.path), value };
        Ok(list.iter().enumerate().map(place).collect())
    }

    pub(super) fn table(&self, form: &str) -> Result<Table<'s, 'a>, ConfigError> {
        let fields = self.value.get_ref().as_table().ok_or_else(|| self.other_type("a table", form))?;
        let at = self.value.span().start;
        Ok(Table { source: self.source, path: self.path.clone(), at, fields, asked: BTreeSet::new() })
    }

    /// A text that `read` understands.
    pub(super) fn parsed<T, E: std::fmt::Display>(
        &self,
        form: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        let text = self.text(form)?;
        // Some parsers say it in several lines.
        let said = |error: E| error.to_string().trim_end().replace('\n', "\n    ");
        read(text).map_err(|error| self.wrong(&said(error), form, &format!("write {form}")))
    }

    /// One of some words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let allowed = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let text = self.text(&allowed)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.ok_or_else(|| self.wrong("this word is not known here", &allowed, "write one of the allowed words"))
    }

    /// The whole value as JSON, for settings that only a plugin understands.
    pub(super) fn json(&self) -> Result<serde_json::Value, ConfigError> {
        json(self.value.get_ref())
            .ok_or_else(|| self.wrong("no JSON", "texts, numbers, booleans, lists and tables", "write dates as texts"))
    }

    pub(super) fn wrong(&self, wrong: &str, allowed: &str, fix: &str) -> ConfigError {
        let problem = Problem {
            field: self.path.clone(),
            value: Some(self.source.shown(self.value.span())),
            wrong: wrong.to_owned(),
            allowed: allowed.to_owned(),
            fix: fix.to_owned(),
        };
        self.source.error(self.value.span().start, problem)
    }

    fn other_type(&self, needed: &str, form: &str) -> ConfigError {
        let wrong = format!("this is {}, not {needed}", kind_of(self.value.get_ref()));
        self.wrong(&wrong, form, &format!("write {form}"))
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix()).ok()?.into(),
        DeValue::Float(digits) => serde_json::Number::from_f64(digits.as_str().parse().ok()?)?.into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(_) => return None,
        DeValue::Array(list) => list.iter().map(|each| json(each.get_ref())).collect::<Option<Vec<_>>>()?.into(),
        DeValue::Table(fields) => {
            let fields = fields.iter().map(|(key, each)| Some((key.get_ref().to_string(), json(each.get_ref())?)));
            serde_json::Value::Object(fields.collect::<Option<_>>()?)
        }
    })
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// `pair[3].name` as `pair[].name`.
fn without_places(path: &str) -> String {
    let pieces = path.split('[').map(|piece| match piece.split_once(']') {
        Some((_, rest)) => format!("]{rest}"),
        None => piece.to_owned(),
    });
    pieces.collect::<Vec<_>>().join("[")
}

/// May one be a slip of the other? The same letters but for case, joints and an ending, or the same beginning.
fn alike(known: &str, written: &str) -> bool {
    let bare =
        |text: &str| -> String { text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase() };
    let (known, written) = (bare(known), bare(written));
    let shared = known.chars().zip(written.chars()).take_while(|(one, other)| one == other).count();
    shared >= 3 && shared + 3 >= known.len().max(written.len())
}
