//! What came of a run, to look at and to try.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Cell;

/// Searches with both models of a run: by a text, or for what is like a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewSearch {
    /// A text to search with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The number of a document, counted from 0, in place of `query`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<usize>,
    /// Hits of each model, at most 50. Default 10.
    #[serde(default = "ten")]
    pub k: usize,
    /// What is searched, at most 1,000 texts. Default: the documents of the run's `index_data`, else of its `query_data`, else
    /// of its training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<Vec<String>>,
}

fn ten() -> usize {
    10
}

/// What both models of a run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Found {
    /// What was searched, in a few words.
    pub description: String,
    /// How many documents were searched.
    pub documents: u64,
    /// What was searched for, where it was a document.
    pub like: Option<Cell>,
    /// By the model that the run started from, the best first.
    pub pretrained: Vec<Match>,
    /// By the model that came of it.
    pub finetuned: Vec<Match>,
}

/// A document that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Match {
    /// Its number, counted from 0.
    pub document: u64,
    /// Cosine similarity to the query.
    pub score: f64,
    /// The document.
    pub item: Cell,
}

/// A query of the evaluation, with what stood first before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Sample {
    /// The query.
    pub query: Cell,
    /// The most relevant document.
    pub expected: Cell,
    /// By the model that the run started from.
    pub before: Side,
    /// By the model that came of it.
    pub after: Side,
}

/// What one model found for a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Side {
    /// The rank of the first relevant document, from 1; none where it is not among those that were looked at.
    pub rank: Option<u64>,
    /// What stood first.
    pub hits: Vec<Hit>,
}

/// A document that stood among the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Hit {
    /// The document.
    pub item: Cell,
    /// Whether it is relevant.
    pub relevant: bool,
}

/// The sample queries of a run: those that gained most, that lost most, and some that stayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Samples {
    /// The queries; none where no retrieval was measured.
    pub data: Vec<Sample>,
}

/// An address from which anybody may download, for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Link {
    /// The address, below this server.
    pub url: String,
    /// Seconds in which a download must begin.
    pub expires_in: u64,
}

/// A field of a spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct SpecField {
    /// Its name.
    pub name: String,
    /// What it holds, in words.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its default, where it has one.
    pub default: Option<Value>,
    /// What it means.
    pub description: String,
}
