use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer};

/// A regulariser that holds positives above one cosine and negatives below another, the same for all classes.
///
/// ```text
/// loss = lambda_plus mean of (margin_plus - s) over positive pairs with s <= margin_plus
///      + lambda_minus mean of (s - margin_minus) over negative pairs with s >= margin_minus
/// ```
///
/// There is no reducer. Usually added to another loss.
///
/// Use it beside another loss in `MultipleLosses`, where one threshold must serve all classes.
///
/// Reference: `ThresholdConsistentMarginLoss` of pytorch-metric-learning; Zhang et al. 2023 (2307.04047).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThresholdConsistentMarginLoss {
    /// Weight of the positives. Default 1.
    pub lambda_plus: f64,
    /// Weight of the negatives. Default 1.
    pub lambda_minus: f64,
    /// Cosine that positives should reach. Default 0.9.
    pub margin_plus: f64,
    /// Cosine that negatives should not reach. Default 0.5.
    pub margin_minus: f64,
}

impl Default for ThresholdConsistentMarginLoss {
    fn default() -> Self {
        ThresholdConsistentMarginLoss { lambda_plus: 1.0, lambda_minus: 1.0, margin_plus: 0.9, margin_minus: 0.5 }
    }
}

impl Loss for ThresholdConsistentMarginLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (plus, minus) = (-self.margin_plus, -self.margin_minus);
        let pairs = batch.pairs(tape, true);
        let (mean, of) = (&Reducer::Mean, Of::Pairs);
        // Distances are negated cosines.
        let positive = batch.per_anchor(tape, Distance::Cosine, mean, of, pairs.clone(), move |anchor, terms| {
            for p in anchor.positives.iter().filter(|p| p.distance >= plus) {
                terms.add(p.weight, p.distance - plus);
                terms.slope(p, p.weight);
            }
        })?;
        let negative = batch.per_anchor(tape, Distance::Cosine, mean, of, pairs, move |anchor, terms| {
            for n in anchor.negatives.iter().filter(|n| n.distance <= minus) {
                terms.add(n.weight, minus - n.distance);
                terms.slope(n, -n.weight);
            }
        })?;
        let positive = tape.affine(&positive, self.lambda_plus, 0.0)?;
        let negative = tape.affine(&negative, self.lambda_minus, 0.0)?;
        Ok(tape.add(&positive, &negative)?)
    }
}
