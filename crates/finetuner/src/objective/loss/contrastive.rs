use engine::function::Unary;
use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, Needs, Reducer};

/// Positive pairs together, negative pairs at least a margin apart.
///
/// ```text
/// loss = reduce of max(0, d - pos_margin) over positive pairs + reduce of max(0, neg_margin - d) over negative pairs
/// ```
///
/// With a similarity the differences change sign, and the margins are similarities: `pos_margin` 1, `neg_margin` 0
/// suit the cosine.
///
/// Reference: `ContrastiveLoss` of pytorch-metric-learning; Hadsell, Chopra, LeCun 2006.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveLoss {
    /// Default 0.
    pub pos_margin: f64,
    /// Default 1.
    pub neg_margin: f64,
    /// Default `l2`, between normalised vectors.
    pub distance: Distance,
    /// Of each of the two parts. Default `avg_non_zero`.
    pub reducer: Reducer,
}

impl Default for ContrastiveLoss {
    fn default() -> Self {
        ContrastiveLoss { pos_margin: 0.0, neg_margin: 1.0, distance: Distance::L2, reducer: Reducer::AvgNonZero }
    }
}

impl Loss for ContrastiveLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let distances = self.distance.distances(tape, batch.embeddings, batch.others())?;
        let labels = batch.masks();
        let mined = batch.mined(tape, self.distance, distances.value(), &labels);
        let pairs = mined.pairs(tape.device(), &labels);
        let too_far = tape.affine(&distances, 1.0, -self.distance.threshold(self.pos_margin))?;
        let too_far = tape.unary(Unary::Relu, &too_far)?;
        let too_near = tape.affine(&distances, -1.0, self.distance.threshold(self.neg_margin))?;
        let too_near = tape.unary(Unary::Relu, &too_near)?;
        let positive = self.reducer.reduce(tape, &too_far, Some(&pairs.positives))?;
        let negative = self.reducer.reduce(tape, &too_near, Some(&pairs.negatives))?;
        Ok(tape.add(&positive, &negative)?)
    }
}
