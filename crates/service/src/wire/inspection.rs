//! Uploaded data looked over before a run.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Asks what uploaded files are: the data fields of a spec, each the id of a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewInspection {
    /// What is to be learnt from: a table, or a zip of pictures.
    pub train_data: String,
    /// Held-out examples of the same kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_data: Option<String>,
    /// Queries to measure with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_data: Option<String>,
    /// What the queries search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_data: Option<String>,
    /// The kind of the rows; taken from the header where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// What data was taken for, what is wrong with it, and what could be done with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Inspection {
    /// `pairs`, `triplets`, `labelled`, `scored`, `single`, `scored_triplets` or `labelled_pairs`.
    pub kind: String,
    /// One sentence on what was read and how it was understood.
    pub description: String,
    /// Rows.
    pub rows: u64,
    /// Distinct texts.
    pub texts: u64,
    /// Distinct pictures.
    pub pictures: u64,
    /// Classes, where rows have labels.
    pub classes: u64,
    /// What the cells of a row are: `anchor`, `positive`, `negative 1` …, `item`, `label`, `first`, `second`, `score`.
    pub columns: Vec<String>,
    /// The first rows.
    pub first: Vec<Row>,
    /// How each file was understood, a sentence each.
    pub data: Vec<String>,
    /// What was found, the worst first. A run refuses data with an `error`.
    pub findings: Vec<Finding>,
    /// What could be done with it.
    pub suggestion: Suggestion,
}

/// A row to look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Row {
    /// Its line, counted from 1; of Parquet files the row, of pictures in folders the number.
    pub line: u64,
    /// What stands in it, a cell a column.
    pub cells: Vec<Cell>,
}

/// A text, or a picture: one of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Cell {
    /// The text, cut to 160 letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The name of the picture's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// A small copy of the picture, a JPEG in base64; missing where it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jpeg: Option<String>,
}

/// One thing found in data, in all the rows where it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Finding {
    /// The rule's name, as in `duplicates`.
    pub rule: String,
    /// `error`, `warning` or `note`.
    pub severity: String,
    /// How many rows, texts or classes it is about.
    pub count: u64,
    /// What was found, as a sentence.
    pub message: String,
    /// What comes of it and what to do.
    pub consequence: String,
    /// The first of them, at most three.
    pub examples: Vec<Place>,
    /// Numbers of the rule's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = Option<Object>))]
    pub details: Option<Value>,
}

/// A row to look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Place {
    /// The file's name.
    pub path: String,
    /// The line, counted from 1.
    pub line: u64,
    /// The text, cut to 80 letters.
    pub text: String,
    /// What is special about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What could be done with data. Of each list the first is the suggestion; a spec is made by bringing together the fields of
/// one of each and of `fields`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Suggestion {
    /// What the model is to learn.
    pub goals: Vec<Choice>,
    /// What it starts from.
    pub models: Vec<Choice>,
    /// How long it may take.
    pub efforts: Vec<Choice>,
    /// Fields that suit the data whatever is chosen.
    #[cfg_attr(feature = "server", schema(value_type = Object))]
    pub fields: Map<String, Value>,
    /// Why, a sentence each.
    pub reasons: Vec<String>,
}

/// One of several things to choose from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Choice {
    /// For programs.
    pub name: String,
    /// For people.
    pub title: String,
    /// What it means.
    #[serde(default)]
    pub description: String,
    /// Of a model: whether it has to be downloaded first.
    #[serde(default)]
    pub download: bool,
    /// Fields of a spec.
    #[cfg_attr(feature = "server", schema(value_type = Object))]
    pub fields: Map<String, Value>,
}
