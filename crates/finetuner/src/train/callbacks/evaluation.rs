//! `EvaluationCallback`: what is measured before training and while it goes on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data::{Modality, RetrievalSet};
use crate::error::{Error, Result, nearest};
use crate::evaluate::Similarity;
use crate::evaluate::report::EXAMPLES;

/// The distances by name, and what ranks documents as they do: a square changes no order.
const DISTANCES: [(&str, Similarity); 3] =
    [("cosine", Similarity::Cosine), ("euclidean", Similarity::Euclidean), ("sqeuclidean", Similarity::Euclidean)];

/// The towers of a model, by the original's names and in short.
const TOWERS: [(&str, Modality); 5] = [
    ("clip-text", Modality::Text),
    ("clip-vision", Modality::Image),
    ("text", Modality::Text),
    ("image", Modality::Image),
    ("vision", Modality::Image),
];

fn tower(name: &str) -> Option<Modality> {
    TOWERS.iter().find(|(known, _)| *known == name).map(|(_, modality)| *modality)
}

/// Measures retrieval before training, after every epoch and at the end, and reports it.
///
/// Use it for more than one set of queries, or to measure within epochs; one set alone is `query_data` of the run.
///
/// Reference: `EvaluationCallback` of Finetuner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EvaluationCallback {
    /// The queries. Required.
    pub(crate) query_data: PathBuf,
    /// What they search; without it the queries are searched in themselves.
    pub(crate) index_data: Option<PathBuf>,
    /// Hits looked at. Default 20.
    pub(crate) limit: usize,
    /// Whether a query that is itself in the index is left out of its hits. Default true.
    pub(crate) exclude_self: bool,
    /// `cosine`, `euclidean` or `sqeuclidean`. Default `cosine`.
    distance: String,
    /// Measure after every so many batches instead of after every epoch.
    pub(crate) steps_per_interval: Option<usize>,
    /// Whether the report shows `num_example_queries` queries of each sort instead of [`EXAMPLES`]. Default false.
    gather_examples: bool,
    /// Default 5.
    num_example_queries: usize,
    /// A prefix of the names of the metrics.
    caption: Option<String>,
    /// Whether the model's name is a prefix of the names of the metrics, after the caption. Default false.
    output_model_names: bool,
    /// Measure a random sample of so many queries.
    pub(crate) query_sample_size: Option<usize>,
    /// Without effect: items are packed by tokens. Default 32.
    batch_size: usize,
    /// Without effect: every thread of the run is used. Default 8.
    num_workers: usize,
    /// The tower that reads the queries: `clip-text` or `clip-vision`, in short `text` or `image`. The data says what its items
    /// are; data of the other sort is refused.
    model: Option<String>,
    /// The same of what they search.
    index_model: Option<String>,
    /// Without effect: the data says what items are. Default false.
    multi_modal: bool,
}

impl Default for EvaluationCallback {
    fn default() -> Self {
        EvaluationCallback {
            query_data: PathBuf::new(),
            index_data: None,
            limit: crate::evaluate::K,
            exclude_self: true,
            distance: "cosine".into(),
            steps_per_interval: None,
            gather_examples: false,
            num_example_queries: 5,
            caption: None,
            output_model_names: false,
            query_sample_size: None,
            batch_size: 32,
            num_workers: 8,
            model: None,
            index_model: None,
            multi_modal: false,
        }
    }
}

impl EvaluationCallback {
    /// What is asked for and cannot be had.
    pub(super) fn problem(&self) -> Option<String> {
        if self.query_data.as_os_str().is_empty() {
            return Some("needs `query_data`".into());
        }
        if self.known_distance().is_none() {
            let hint = nearest(&self.distance, DISTANCES.iter().map(|(name, _)| *name));
            return Some(format!("`distance`: `{}` is not known{hint}", self.distance));
        }
        let zero = [
            ("limit", Some(self.limit)),
            ("batch_size", Some(self.batch_size)),
            ("steps_per_interval", self.steps_per_interval),
            ("query_sample_size", self.query_sample_size),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, number)| *number == Some(0)) {
            return Some(format!("`{name}`: expected 1 or more, got 0"));
        }
        let towers = [("model", &self.model), ("index_model", &self.index_model)];
        towers.into_iter().find_map(|(field, name)| {
            let name = name.as_deref().filter(|name| tower(name).is_none())?;
            let hint = nearest(name, TOWERS.iter().map(|(name, _)| *name));
            Some(format!("`{field}`: the run has no model `{name}`{hint}"))
        })
    }

    /// Whether the data is what the towers read that are asked for.
    ///
    /// # Errors
    /// [`Error::Spec`] if it is not.
    pub(crate) fn check(&self, set: &RetrievalSet) -> Result<()> {
        let columns = [
            ("model", &self.model, "queries", set.query_modality),
            ("index_model", &self.index_model, "documents", set.document_modality),
        ];
        for (field, name, what, found) in columns {
            if let Some((name, asked)) = name.as_deref().and_then(|name| Some((name, tower(name)?)))
                && asked != found
            {
                let problem = format!(
                    "EvaluationCallback: `{field}`: `{name}` reads {}s, but the {what} of `{}` are {}s",
                    asked.noun(),
                    self.query_data.display(),
                    found.noun()
                );
                return Err(Error::spec("callbacks", problem));
            }
        }
        Ok(())
    }

    fn known_distance(&self) -> Option<Similarity> {
        DISTANCES.iter().find(|(name, _)| *name == self.distance).map(|(_, similarity)| *similarity)
    }

    /// What documents are ranked by.
    pub(crate) fn similarity(&self) -> Similarity {
        self.known_distance().unwrap_or_default()
    }

    /// Queries that the report shows of each sort.
    pub(crate) fn examples(&self) -> usize {
        if self.gather_examples { self.num_example_queries } else { EXAMPLES }
    }

    /// What stands before the names of its metrics: `caption_model_`.
    pub(crate) fn prefix(&self, model: &str) -> Option<String> {
        let model = model.trim_end_matches('/').rsplit('/').next().filter(|_| self.output_model_names);
        let parts: Vec<&str> = self.caption.as_deref().into_iter().chain(model).collect();
        (!parts.is_empty()).then(|| parts.join("_") + "_")
    }

    /// A sentence on the fields that are given and change nothing.
    pub(crate) fn without_effect(&self) -> Option<String> {
        let default = Self::default();
        let given = [
            ("batch_size", self.batch_size != default.batch_size),
            ("num_workers", self.num_workers != default.num_workers),
            ("multi_modal", self.multi_modal),
            ("num_example_queries", !self.gather_examples && self.num_example_queries != default.num_example_queries),
        ];
        let reason = |name| match name {
            "batch_size" => "texts are packed by their tokens",
            "multi_modal" => "the data says what items are",
            "num_workers" => "`threads` says how many threads work",
            _ => "it needs `gather_examples=True`",
        };
        let given = given.iter().filter(|(_, given)| *given);
        let sentences: Vec<String> = given.map(|(name, _)| format!("`{name}` is not used: {}", reason(name))).collect();
        (!sentences.is_empty()).then(|| format!("EvaluationCallback: {}", sentences.join("; ")))
    }
}
