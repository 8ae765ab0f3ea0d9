//! Measuring a model on held-out data: retrieval where something is to be found, correlation for scored pairs.

use engine::Device;

use crate::data::{Dataset, Example, ItemId, Kind, Modality, RetrievalSet};
use crate::encoder::{Model, Role};
use crate::error::Result;
use crate::evaluate::{Correlation, Evaluation, Similarity, depth};

/// What a model is measured on.
#[derive(Debug)]
pub enum Target {
    /// Queries, an index and what is relevant.
    Retrieval(RetrievalSet),
    /// Pairs with a similarity each.
    Scored(Dataset),
}

/// Items that are embedded alike.
pub(crate) struct Column<'t> {
    pub(crate) items: Vec<&'t str>,
    pub(crate) read_as: (Modality, Role),
}

/// What was measured.
#[derive(Debug, Clone)]
pub enum Measurement {
    /// Of [`Target::Retrieval`].
    Retrieval(Evaluation),
    /// Of [`Target::Scored`].
    Scored(Correlation),
}

impl Target {
    /// The target that a data set is by itself; `None` for texts alone and pairs with a class, which say nothing about what
    /// matches.
    ///
    /// # Errors
    /// [`crate::Error::Spec`] where no query has a relevant document.
    pub fn of(dataset: &Dataset) -> Result<Option<Self>> {
        Ok(match dataset.kind {
            Kind::Scored => Some(Target::Scored(dataset.clone())),
            Kind::Single | Kind::LabelledPairs => None,
            Kind::Pairs | Kind::Triplets | Kind::ScoredTriplets | Kind::Labelled => {
                Some(Target::Retrieval(RetrievalSet::from_dataset(dataset)?))
            }
        })
    }

    /// One sentence on what is measured.
    pub fn description(&self) -> String {
        match self {
            Target::Retrieval(set) => set.description.clone(),
            Target::Scored(dataset) => format!("{} scored pairs", dataset.examples.len()),
        }
    }

    /// The metric that decides which model is better.
    pub fn main_metric(&self) -> &'static str {
        match self {
            Target::Retrieval(_) => "mrr",
            Target::Scored(_) => "spearman",
        }
    }

    /// How many items a measurement embeds.
    pub fn items(&self) -> usize {
        match self {
            Target::Retrieval(set) => set.queries.len() + set.documents.len(),
            Target::Scored(dataset) => dataset.items.len(),
        }
    }

    /// What is embedded to measure a model; of a retrieval set the documents, then the queries.
    pub(crate) fn columns(&self) -> Vec<Column<'_>> {
        match self {
            Target::Retrieval(set) => {
                let plain = set.exclude.is_some();
                let role = |role| if plain { Role::Plain } else { role };
                let columns = [
                    (&set.documents, set.document_modality, role(Role::Document)),
                    (&set.queries, set.query_modality, role(Role::Query)),
                ];
                let columns = columns.map(|(items, modality, role)| Column {
                    items: items.iter().map(String::as_str).collect(),
                    read_as: (modality, role),
                });
                columns.into()
            }
            Target::Scored(dataset) => {
                let column = |modality| Column {
                    items: dataset.items.ids(modality).map(|id| dataset.items.get(id)).collect(),
                    read_as: (modality, Role::Plain),
                };
                Modality::ALL.into_iter().map(column).collect()
            }
        }
    }

    /// Measures a model, looking at `k` hits. `progress` hears the number of items embedded, and ends the measurement
    /// with its error where it has one.
    ///
    /// # Errors
    /// [`crate::Error::Evaluation`] for embeddings that are not finite; that of `progress`.
    pub fn measure(
        &self,
        model: &Model,
        device: &dyn Device,
        similarity: Similarity,
        k: usize,
        mut progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<Measurement> {
        let mut done = 0;
        let embedded = self.columns().into_iter().map(|column| {
            let (embeddings, _) = model.embed(device, &column.items, column.read_as, |more| progress(done + more))?;
            done += column.items.len();
            Ok(embeddings)
        });
        let embedded = embedded.collect::<Result<Vec<_>>>()?;
        self.judge(&embedded, model.encoder.dimension(), similarity, k)
    }

    /// What the embeddings of its columns say.
    ///
    /// # Errors
    /// As [`Target::measure`].
    pub(crate) fn judge(
        &self,
        embedded: &[Vec<f32>],
        dimension: usize,
        similarity: Similarity,
        k: usize,
    ) -> Result<Measurement> {
        match self {
            Target::Retrieval(set) => {
                let deep = depth(&set.relevant, k);
                let hits = similarity.top_k(&embedded[1], &embedded[0], dimension, deep, set.exclude.as_deref())?;
                Ok(Measurement::Retrieval(Evaluation::new(&hits, &set.relevant, k)?))
            }
            Target::Scored(dataset) => {
                let mut rows: Vec<&[f32]> = vec![&[]; dataset.items.len()];
                for (modality, embeddings) in Modality::ALL.into_iter().zip(embedded) {
                    for (id, row) in dataset.items.ids(modality).zip(embeddings.chunks_exact(dimension)) {
                        rows[id.0 as usize] = row;
                    }
                }
                let row = |id: ItemId| rows[id.0 as usize];
                let pairs: Vec<(f64, f64)> = dataset
                    .examples
                    .iter()
                    .filter_map(|example| match example {
                        Example::Scored { first, second, score } => {
                            let found = similarity.score(row(*first), row(*second));
                            Some((f64::from(found), f64::from(*score)))
                        }
                        _ => None,
                    })
                    .collect();
                Ok(Measurement::Scored(Correlation::new(&pairs)))
            }
        }
    }
}

impl Measurement {
    /// The named numbers, for events and monitors.
    pub fn values(&self) -> Vec<(String, f64)> {
        match self {
            Measurement::Retrieval(evaluation) => {
                let summary = serde_json::to_value(evaluation.summary().metrics).unwrap_or_default();
                let values = summary.as_object().into_iter().flatten();
                values.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect()
            }
            Measurement::Scored(correlation) => {
                let values = [("pearson", correlation.pearson), ("spearman", correlation.spearman)];
                values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
            }
        }
    }

    /// The number that decides which model is better: mRR, or Spearman's correlation.
    pub fn main(&self) -> (&'static str, f64) {
        match self {
            Measurement::Retrieval(evaluation) => ("mrr", evaluation.summary().metrics.mrr),
            Measurement::Scored(correlation) => ("spearman", correlation.spearman.unwrap_or(-1.0)),
        }
    }

    /// As JSON: the summary, or the correlations.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Measurement::Retrieval(evaluation) => serde_json::to_value(evaluation.summary()),
            Measurement::Scored(correlation) => serde_json::to_value(correlation),
        }
        .unwrap_or_default()
    }
}
