use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::log_sum_exp;
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer};

/// The soft maximum of an anchor's positive distances below the soft minimum of its negative ones.
///
/// ```text
/// loss(i) = max(0, ln sum over positives p of e^(d_ip - pos_margin) + ln sum over negatives n of e^(neg_margin - d_in))
/// ```
///
/// A logarithm of an empty sum counts as 0. With a similarity the differences change sign, and the margins are
/// similarities.
///
/// Use it for classes where all positives and negatives of an anchor should count, hard ones most.
///
/// Reference: `GeneralizedLiftedStructureLoss` of pytorch-metric-learning; Hermans, Beyer, Leibe 2017 (1703.07737).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneralizedLiftedStructureLoss {
    /// Default 1.
    pub neg_margin: f64,
    /// Default 0.
    pub pos_margin: f64,
    /// Default `l2`, between normalised vectors.
    pub distance: Distance,
    /// Over the anchors. Default `mean`.
    pub reducer: Reducer,
}

impl Default for GeneralizedLiftedStructureLoss {
    fn default() -> Self {
        GeneralizedLiftedStructureLoss {
            neg_margin: 1.0,
            pos_margin: 0.0,
            distance: Distance::L2,
            reducer: Reducer::Mean,
        }
    }
}

impl Loss for GeneralizedLiftedStructureLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let far = self.distance.threshold(self.pos_margin);
        let near = self.distance.threshold(self.neg_margin);
        let pairs = batch.pairs(tape, false);
        batch.per_anchor(tape, self.distance, &self.reducer, Of::Elements, pairs, move |anchor, terms| {
            let or_zero = |sum: f64| if sum == f64::NEG_INFINITY { 0.0 } else { sum };
            let positives = or_zero(log_sum_exp(anchor.positives.iter().map(|p| (p.distance - far, 1.0))));
            let negatives = or_zero(log_sum_exp(anchor.negatives.iter().map(|n| (near - n.distance, 1.0))));
            if terms.add(1.0, (positives + negatives).max(0.0)) && positives + negatives > 0.0 {
                anchor.positives.iter().for_each(|p| terms.slope(p, (p.distance - far - positives).exp()));
                anchor.negatives.iter().for_each(|n| terms.slope(n, -(near - n.distance - negatives).exp()));
            }
        })
    }
}
