use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::{log_sum_exp, logistic, softplus};
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer, registry};

/// Neighbourhood components analysis: the chance that a neighbour, drawn by nearness, is a positive.
///
/// ```text
/// loss(i) = -ln(sum over positives p of e^(-softmax_scale d_ip) / sum over all k != i of e^(-softmax_scale d_ik))
/// ```
///
/// Anchors without positives are left out. A miner weights anchors by how often it chooses them.
///
/// Use it for classes that neighbours will vote on.
///
/// Reference: `NCALoss` of pytorch-metric-learning; Goldberger et al. 2004.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NCALoss {
    /// Factor on the distances. Default 1.
    pub softmax_scale: f64,
    /// Default `l2_squared`, between normalised vectors.
    pub distance: Distance,
    /// Over the anchors. Default `mean`.
    pub reducer: Reducer,
}

impl Default for NCALoss {
    fn default() -> Self {
        NCALoss {
            softmax_scale: 1.0,
            distance: Distance::Euclidean { normalize: true, squared: true },
            reducer: Reducer::Mean,
        }
    }
}

impl Loss for NCALoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let scale = self.softmax_scale;
        let weights = batch.anchor_weights(tape);
        let pairs = batch.labelled_pairs();
        batch.per_anchor(tape, self.distance, &self.reducer, Of::Elements, pairs, move |anchor, terms| {
            if anchor.positives.is_empty() {
                return;
            }
            let positives = log_sum_exp(anchor.positives.iter().map(|p| (-scale * p.distance, 1.0)));
            let negatives = log_sum_exp(anchor.negatives.iter().map(|n| (-scale * n.distance, 1.0)));
            let weight = weights[anchor.row];
            if terms.add(1.0, weight * softplus(negatives - positives)) {
                let slope = weight * scale * logistic(negatives - positives);
                for p in &anchor.positives {
                    terms.slope(p, slope * (-scale * p.distance - positives).exp());
                }
                for n in &anchor.negatives {
                    terms.slope(n, -slope * (-scale * n.distance - negatives).exp());
                }
            }
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("softmax_scale", self.softmax_scale).into_iter().collect()
    }
}
