use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::{Candidate, log_sum_exp, logistic, softplus};
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer, registry};

/// Each positive pair against all negatives of its anchor at once, with a slack angle.
///
/// ```text
/// loss(a, p) = ln(1 + sum over negatives n of e^(scale (cos(angle_an) - cos(angle_ap - margin))))
/// ```
///
/// Use it for classes with many negatives in a batch, where triplets learn slowly.
///
/// Reference: `TupletMarginLoss` of pytorch-metric-learning; Yu, Tao 2019 (ICCV).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TupletMarginLoss {
    /// In degrees. Default 5.73.
    pub margin: f64,
    /// Default 64.
    pub scale: f64,
    /// Over the positive pairs. Default `mean`.
    pub reducer: Reducer,
}

impl Default for TupletMarginLoss {
    fn default() -> Self {
        TupletMarginLoss { margin: 5.73, scale: 64.0, reducer: Reducer::Mean }
    }
}

impl Loss for TupletMarginLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (margin, scale) = (self.margin.to_radians(), self.scale);
        let pairs = batch.pairs(tape, self.reducer.counts_repetitions());
        batch.per_anchor(tape, Distance::Cosine, &self.reducer, Of::Pairs, pairs, move |anchor, terms| {
            let near = |n: &Candidate| (-scale * n.distance, n.weight);
            let negatives = log_sum_exp(anchor.negatives.iter().map(near));
            let mut pushed = 0.0;
            for p in &anchor.positives {
                let angle = (-p.distance).clamp(-1.0, 1.0).acos();
                let z = negatives - scale * (angle - margin).cos();
                if terms.add(p.weight, softplus(z)) {
                    let slope = p.weight * scale * logistic(z);
                    // The derivative by the cosine is infinite between equal vectors, where nothing is left to pull.
                    terms.slope(p, slope * (angle - margin).sin() / angle.sin().max(1e-6));
                    pushed += slope;
                }
            }
            for n in anchor.negatives.iter().filter(|_| pushed != 0.0) {
                terms.slope(n, -pushed * n.weight * (-scale * n.distance - negatives).exp());
            }
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("scale", self.scale).into_iter().collect()
    }
}
