use std::sync::Arc;

use engine::function::{Similarity, Unary};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::clip::{symmetric, two_columns};
use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::miner::key_of;
use crate::objective::{Distance, LossParameter, Needs, Sizes, registry};

/// Two copies of the model agree on a text and disagree on different ones.
///
/// ```text
/// z_ij = f1(text i) . f2(text j)
/// loss = sum over i of ln(1 + e^(-z_ii)) + sum over pos_neg_ratio - 1 drawn j of ln(1 + e^(z_ij))
/// ```
///
/// f1 starts as a copy of the model and learns beside it by the same optimiser, clipped by its own norm; f2 is the model, and
/// f1 is forgotten. Texts that are known to match are not drawn. Weights, gradients and moments take twice the memory. The
/// sum grows with the batch, as the original's does, so the learning rate has to fall with it.
///
/// Use it for texts alone; `ContrastiveTensionLossInBatchNegatives` learns more from a batch, and two dropout views of one
/// model (`MultipleNegativesRankingLoss`) cost half.
///
/// Reference: `ContrastiveTensionLoss` of sentence-transformers, whose data loader draws the pairs; Carlsson et al. 2021
/// (ICLR).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveTensionLoss {
    /// Pairs of a text for each one that it makes with itself. Default 8.
    pub pos_neg_ratio: usize,
}

impl Default for ContrastiveTensionLoss {
    fn default() -> Self {
        ContrastiveTensionLoss { pos_neg_ratio: 8 }
    }
}

impl Loss for ContrastiveTensionLoss {
    fn needs(&self) -> Needs {
        Needs::Pairs
    }

    fn needs_twin(&self) -> bool {
        true
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (first, second) = two_columns(tape, batch)?;
        let count = first.value().rows();
        let labels = &batch.layout.labels;
        let (mut ones, mut others, mut signs) = (Vec::new(), Vec::new(), Vec::new());
        let key = key_of(first.value());
        for row in 0..count {
            ones.push(row as u32);
            others.push(row as u32);
            signs.push(-1.0);
            let mut free: Vec<usize> = (0..count).filter(|other| labels[count + other] != labels[row]).collect();
            let key = key.part(row as u64);
            for drawn in 0..self.pos_neg_ratio.saturating_sub(1).min(free.len()) {
                let place = drawn + (key.uniform(drawn as u64) * (free.len() - drawn) as f64) as usize;
                free.swap(drawn, place);
                ones.push(row as u32);
                others.push(free[drawn] as u32);
                signs.push(1.0);
            }
        }
        let ones = tape.rows(&first, Arc::from(ones))?;
        let others = tape.rows(&second, Arc::from(others))?;
        let z = tape.paired_similarities(Similarity::Dot { normalize: false }, &ones, &others)?;
        let signs = tape.constant(Tensor::from_vec(signs, z.value().shape())?);
        let z = tape.multiply(&z, &signs)?;
        let losses = tape.unary(Unary::Softplus { scale: 1.0 }, &z)?;
        Ok(tape.sum(&losses, None)?)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let few = self.pos_neg_ratio < 2;
        few.then(|| ("pos_neg_ratio", format!("expected 2 or more, got {}", self.pos_neg_ratio))).into_iter().collect()
    }
}

/// Two copies of the model find each other's embedding of a text among those of the batch.
///
/// ```text
/// z_ij = e^logit_scale similarity(f1(text i), f2(text j))    logit_scale = ln(scale) at first
/// loss = 1/2 mean over i of cross-entropy(z_i., i) + 1/2 mean over j of cross-entropy(z_.j, j)
/// ```
///
/// f1 starts as a copy of the model and learns beside it, see `ContrastiveTensionLoss`; `logit_scale` is learned by
/// `loss_optimizer` without weight decay. Texts that are known to match stand in no denominator.
///
/// Use it for texts alone, in large batches.
///
/// Reference: `ContrastiveTensionLossInBatchNegatives` of sentence-transformers; Carlsson et al. 2021 (ICLR).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveTensionLossInBatchNegatives {
    /// Where e^logit_scale starts. Default 20.
    pub scale: f64,
    /// Default `cosine`.
    pub similarity_fct: Distance,
}

impl Default for ContrastiveTensionLossInBatchNegatives {
    fn default() -> Self {
        ContrastiveTensionLossInBatchNegatives { scale: 20.0, similarity_fct: Distance::Cosine }
    }
}

impl Loss for ContrastiveTensionLossInBatchNegatives {
    fn needs(&self) -> Needs {
        Needs::Pairs
    }

    fn needs_twin(&self) -> bool {
        true
    }

    fn parameters(&self, _: &Sizes) -> Result<Vec<LossParameter>> {
        Ok(vec![LossParameter::scalar("logit_scale", self.scale.ln())])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        symmetric(tape, batch, self.similarity_fct)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("scale", self.scale).into_iter().collect()
    }
}
