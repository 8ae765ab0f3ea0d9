use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::{log_sum_exp, logistic, softplus};
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer, registry};

/// Positives towards similarity 1 and negatives towards 0, each with a weight of its own that grows with how far it has
/// to go; the weights carry no gradient.
///
/// ```text
/// loss(i) = ln(1 + sum over negatives n of e^(gamma max(0, s_in + m) (s_in - m))
///                  * sum over positives p of e^(-gamma max(0, 1 + m - s_ip) (s_ip - 1 + m)))
/// ```
///
/// with cosines s; anchors that lack positives or negatives have loss 0.
///
/// Use it for classes, fine-grained ones above all: pairs far from their optimum weigh more.
///
/// Reference: `CircleLoss` of pytorch-metric-learning; Sun et al. 2020 (2002.10857).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CircleLoss {
    /// Relaxation: positives aim at 1 + m, negatives at -m. Default 0.4.
    pub m: f64,
    /// Scale. Default 80.
    pub gamma: f64,
    /// Over the anchors. Default `avg_non_zero`.
    pub reducer: Reducer,
}

impl Default for CircleLoss {
    fn default() -> Self {
        CircleLoss { m: 0.4, gamma: 80.0, reducer: Reducer::AvgNonZero }
    }
}

impl Loss for CircleLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (m, gamma) = (self.m, self.gamma);
        let pairs = batch.pairs(tape, false);
        batch.per_anchor(tape, Distance::Cosine, &self.reducer, Of::Elements, pairs, move |anchor, terms| {
            if anchor.positives.is_empty() || anchor.negatives.is_empty() {
                terms.add(1.0, 0.0);
                return;
            }
            // Distances are negated cosines.
            let far = |distance: f64| gamma * (1.0 + m + distance).max(0.0);
            let near = |distance: f64| gamma * (m - distance).max(0.0);
            let positive = |distance: f64| far(distance) * (distance + 1.0 - m);
            let negative = |distance: f64| near(distance) * (-distance - m);
            let positives = log_sum_exp(anchor.positives.iter().map(|p| (positive(p.distance), 1.0)));
            let negatives = log_sum_exp(anchor.negatives.iter().map(|n| (negative(n.distance), 1.0)));
            if terms.add(1.0, softplus(positives + negatives)) {
                let slope = logistic(positives + negatives);
                for p in &anchor.positives {
                    terms.slope(p, slope * (positive(p.distance) - positives).exp() * far(p.distance));
                }
                for n in &anchor.negatives {
                    terms.slope(n, -slope * (negative(n.distance) - negatives).exp() * near(n.distance));
                }
            }
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("gamma", self.gamma).into_iter().collect()
    }
}
