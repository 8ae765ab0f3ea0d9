use engine::function::Unary;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::reducer::{Of, divided};
use crate::objective::{Distance, Needs, Reducer};

/// A regulariser that draws the similarities of all positive pairs towards their mean, and those of all negative pairs.
///
/// ```text
/// loss = reduce of max(0, (1 - pos_eps) mean - s)^2 over positive pairs, mean of their s
///      + reduce of max(0, s - (1 + neg_eps) mean)^2 over negative pairs, mean of theirs
/// ```
///
/// Usually added to another loss. With a distance the two sides of each difference change places.
///
/// Reference: `IntraPairVarianceLoss` of pytorch-metric-learning; Yu, Tao 2019 (ICCV).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntraPairVarianceLoss {
    /// Default 0.01.
    pub pos_eps: f64,
    /// Default 0.01.
    pub neg_eps: f64,
    /// Default `cosine`.
    pub distance: Distance,
    /// Of each of the two parts, `pos_loss` and `neg_loss`. Default `mean`.
    pub reducer: Reducer,
}

impl Default for IntraPairVarianceLoss {
    fn default() -> Self {
        IntraPairVarianceLoss { pos_eps: 0.01, neg_eps: 0.01, distance: Distance::Cosine, reducer: Reducer::Mean }
    }
}

impl Loss for IntraPairVarianceLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let values = self.distance.values(tape, batch.embeddings, batch.others())?;
        let labels = batch.masks();
        let mined = batch.mine(tape, &labels);
        let pairs = mined.pairs(tape.device(), &labels);
        let mut side = |mask: &Tensor, eps: f64, increase: bool, part: &str| -> Result<Var> {
            let sum = tape.sum(&values, Some(mask))?;
            let counts = tape.constant(mask.clone());
            let mean = divided(tape, &sum, &counts)?;
            let limit = tape.affine(&mean, if increase { 1.0 - eps } else { 1.0 + eps }, 0.0)?;
            let beyond = tape.subtract(&values, &limit)?;
            let beyond = tape.affine(&beyond, if increase { -1.0 } else { 1.0 }, 0.0)?;
            let beyond = tape.unary(Unary::Relu, &beyond)?;
            let squares = tape.unary(Unary::Square, &beyond)?;
            self.reducer.part(part).reduce_labelled(tape, &squares, Some(mask), Of::Pairs, &batch.layout.labels)
        };
        let inverted = self.distance.inverted();
        let positive = side(&pairs.positives, self.pos_eps, inverted, "pos_loss")?;
        let negative = side(&pairs.negatives, self.neg_eps, !inverted, "neg_loss")?;
        Ok(tape.add(&positive, &negative)?)
    }
}
