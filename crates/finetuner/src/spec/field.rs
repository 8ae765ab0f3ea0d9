//! What is known about a field of a spec: its name, its type, its default, what it means.

use std::path::PathBuf;

use serde_json::Value;

use super::{Options, RunSpec, value};
use crate::error::{Error, Result, nearest};

/// One field of [`RunSpec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// As in the file, in Python and, with dashes, on the command line.
    pub name: &'static str,
    /// What it holds.
    pub value: FieldType,
    /// Whether it may be left open; an empty text in the environment or on the command line leaves it open.
    pub optional: bool,
    /// What it means, in one line.
    pub doc: &'static str,
}

/// What a field holds, and how that is written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// Any text.
    Text,
    /// A file or folder, `DIR:split`, or `FILE:role=column`.
    Path,
    /// A whole number of 0 or more.
    Integer,
    /// A finite number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// Texts: a JSON list, or joined by commas; commas within brackets or quotes do not separate.
    Texts,
    /// Tables of fields: a JSON list of objects, or one table as `key=value,key=value`.
    Tables,
    /// `key=value,key=value` or a JSON object; see [`parse_options`](super::parse_options).
    Options,
}

impl std::fmt::Display for FieldType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            FieldType::Text => "a text",
            FieldType::Path => "a path",
            FieldType::Integer => "a whole number",
            FieldType::Number => "a number",
            FieldType::Boolean => "`true` or `false`",
            FieldType::Texts => "a list of texts",
            FieldType::Tables => "tables of fields (`key=value,key=value`, or tables in a file)",
            FieldType::Options => "options (`key=value,key=value`, or a table in a file)",
        })
    }
}

/// The Rust types that fields have.
pub(super) trait Typed {
    const TYPE: FieldType;
    const OPTIONAL: bool = false;
}

impl<T: Typed> Typed for Option<T> {
    const TYPE: FieldType = T::TYPE;
    const OPTIONAL: bool = true;
}

macro_rules! typed {
    ($($rust:ty => $field:ident),*) => { $(impl Typed for $rust { const TYPE: FieldType = FieldType::$field; })* };
}
typed!(String => Text, PathBuf => Path, usize => Integer, u64 => Integer, f64 => Number, bool => Boolean,
       Vec<String> => Texts, Vec<Options> => Tables, Options => Options);

impl Field {
    /// The command line's name: `--learning-rate`.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }

    /// The environment variable: `FINETUNER_LEARNING_RATE`.
    pub fn variable(&self) -> String {
        format!("FINETUNER_{}", self.name.to_uppercase())
    }

    /// The default as text; `None` where the field is open or empty unless given.
    pub fn default(&self) -> Option<String> {
        match serde_json::to_value(RunSpec::default()).ok()?.get(self.name)? {
            Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(number) => match number.as_f64()? {
                small if small > 0.0 && small < 1e-3 => Some(format!("{small:e}")),
                number => Some(number.to_string()),
            },
            _ => None,
        }
    }

    /// Whether a value of a file is of the field's type.
    pub fn accepts(&self, value: &Value) -> bool {
        match self.value {
            _ if value.is_null() => self.optional,
            FieldType::Text | FieldType::Path => value.is_string(),
            FieldType::Integer => value.is_u64(),
            FieldType::Number => value.is_number(),
            FieldType::Boolean => value.is_boolean(),
            FieldType::Texts => value.as_array().is_some_and(|texts| texts.iter().all(Value::is_string)),
            FieldType::Tables => value.as_array().is_some_and(|tables| tables.iter().all(Value::is_object)),
            FieldType::Options => value.is_object(),
        }
    }

    /// Reads a value as it is written in a flag or in the environment; or the problem.
    pub(super) fn parse(&self, text: &str) -> std::result::Result<Value, String> {
        let expected = || format!("expected {}, got `{text}`", self.value);
        let trimmed = text.trim();
        Ok(match self.value {
            _ if trimmed.is_empty() && self.optional => Value::Null,
            FieldType::Text | FieldType::Path => text.into(),
            FieldType::Integer => trimmed.replace('_', "").parse::<u64>().map_err(|_| expected())?.into(),
            FieldType::Number => {
                let number = trimmed.replace('_', "").parse::<f64>().ok().filter(|number| number.is_finite());
                number.ok_or_else(expected)?.into()
            }
            FieldType::Boolean => match trimmed.to_lowercase().as_str() {
                "true" | "1" | "yes" => true.into(),
                "false" | "0" | "no" => false.into(),
                _ => return Err(expected()),
            },
            FieldType::Texts => value::split_list(text)?.into(),
            FieldType::Tables if trimmed.is_empty() => Value::Array(Vec::new()),
            FieldType::Tables if trimmed.starts_with('[') => {
                serde_json::from_str(trimmed).ok().filter(|tables| self.accepts(tables)).ok_or_else(expected)?
            }
            FieldType::Tables => vec![Value::Object(value::parse_options(text)?)].into(),
            FieldType::Options => value::parse_options(text)?.into(),
        })
    }
}

impl RunSpec {
    /// The field of a name, with underscores or dashes.
    ///
    /// # Errors
    /// [`Error::Spec`] with the nearest known name.
    pub fn field(name: &str) -> Result<&'static Field> {
        let written = name.replace('-', "_");
        Self::FIELDS
            .iter()
            .find(|field| field.name == written)
            .ok_or_else(|| Error::spec(name, format!("is no field of a run{}", Self::nearest_field(&written))))
    }

    /// `, did you mean …?`
    pub(super) fn nearest_field(written: &str) -> String {
        nearest(written, Self::FIELDS.iter().map(|field| field.name))
    }
}
