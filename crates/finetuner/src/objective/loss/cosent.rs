use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, Needs, registry};

/// Pairs in the order of their scores: one number per batch.
///
/// ```text
/// loss = ln(1 + sum over k, l with score_k < score_l of e^(scale (cos_k - cos_l)))
/// ```
///
/// Of triplets, the positives count as scored 1 and the negatives as scored 0. Time `O(n log n)` and memory `O(n)`.
///
/// Use it for scored pairs of which only the order matters, as rank correlations measure it.
///
/// Reference: `CoSENTLoss` of sentence-transformers; Su 2022 (kexue.fm/archives/8847).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoSENTLoss {
    /// Default 20.
    pub scale: f64,
    /// Default `cosine`.
    pub similarity_fct: Distance,
}

impl Default for CoSENTLoss {
    fn default() -> Self {
        CoSENTLoss { scale: 20.0, similarity_fct: Distance::Cosine }
    }
}

impl Loss for CoSENTLoss {
    fn needs(&self) -> Needs {
        Needs::RankedScores
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (first, second, scores) = batch.ranked_pairs(tape)?;
        let similarities = self.similarity_fct.paired(tape, &first, &second)?;
        Ok(tape.ranked_pairs(&similarities, &scores.into(), self.scale)?)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("scale", self.scale).into_iter().collect()
    }
}
