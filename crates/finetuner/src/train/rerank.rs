//! Measuring a cross-encoder: on scored pairs, or on the order it gives to what an embedding model found.

use engine::Device;

use super::measure::{Measurement, Target};
use crate::data::{Example, Modality};
use crate::encoder::{CrossEncoder, Model, Role};
use crate::error::{Error, Result};
use crate::evaluate::{Correlation, Evaluation, Similarity, depth};

impl Target {
    /// Measures a cross-encoder. Scored pairs: the correlation of its scores. Retrieval: `first` finds documents by
    /// cosine, the cross-encoder sorts the `rerank` best of them anew, and the metrics look at `k` hits. `progress`
    /// hears a phase, how much of it is done and how much there is; it ends the work with its error.
    ///
    /// # Errors
    /// [`Error::Spec`] for retrieval without `first`; those of the models; that of `progress`.
    pub fn measure_cross_encoder(
        &self,
        cross_encoder: &CrossEncoder,
        first: Option<&Model>,
        device: &dyn Device,
        k: usize,
        rerank: usize,
        progress: &mut dyn FnMut(&str, usize, usize) -> Result<()>,
    ) -> Result<Measurement> {
        match self {
            Target::Scored(dataset) => {
                let rows: Vec<((&str, &str), f64)> = dataset
                    .examples
                    .iter()
                    .filter_map(|example| match example {
                        Example::Scored { first, second, score } => {
                            Some(((dataset.items.get(*first), dataset.items.get(*second)), f64::from(*score)))
                        }
                        _ => None,
                    })
                    .collect();
                let pairs: Vec<(&str, &str)> = rows.iter().map(|(pair, _)| *pair).collect();
                let total = pairs.len();
                let found = cross_encoder.scores(device, &pairs, |done| progress("score", done, total))?;
                let both: Vec<(f64, f64)> =
                    found.into_iter().zip(rows).map(|(found, (_, score))| (f64::from(found), score)).collect();
                Ok(Measurement::Scored(Correlation::new(&both)))
            }
            Target::Retrieval(set) => {
                let Some(first) = first else {
                    let problem = "a cross-encoder orders what an embedding model has found: give one as `model`, and this as `cross_encoder`";
                    return Err(Error::spec("model", problem));
                };
                let plain = set.exclude.is_some();
                let role = |role| if plain { Role::Plain } else { role };
                let (dimension, total) = (first.encoder.dimension(), set.documents.len());
                let (documents, _) =
                    first.embed(device, &set.documents, (Modality::Text, role(Role::Document)), |done| {
                        progress("embed documents", done, total)
                    })?;
                let total = set.queries.len();
                let (queries, _) = first.embed(device, &set.queries, (Modality::Text, role(Role::Query)), |done| {
                    progress("embed queries", done, total)
                })?;
                let deep = depth(&set.relevant, k).max(rerank);
                let mut hits =
                    Similarity::Cosine.top_k(&queries, &documents, dimension, deep, set.exclude.as_deref())?;

                let pairs: Vec<(&str, &str)> = set
                    .queries
                    .iter()
                    .zip(&hits)
                    .flat_map(|(query, hits)| {
                        let best = hits.iter().take(rerank);
                        best.map(|hit| (query.as_str(), set.documents[hit.document as usize].as_str()))
                    })
                    .collect();
                let total = pairs.len();
                let scores = cross_encoder.scores(device, &pairs, |done| progress("rerank", done, total))?;
                let mut scores = scores.into_iter();
                for hits in &mut hits {
                    let best = rerank.min(hits.len());
                    let best = &mut hits[..best];
                    best.iter_mut().zip(&mut scores).for_each(|(hit, score)| hit.score = score);
                    best.sort_unstable(); // the rest stays behind, as it was
                }
                Ok(Measurement::Retrieval(Evaluation::new(&hits, &set.relevant, k)?))
            }
        }
    }
}
