use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::log_sum_exp;
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer, registry};

/// The mean over an anchor's positives, each against all other rows of the batch.
///
/// ```text
/// loss(i) = -mean over positives p of (s_ip / temperature - ln sum over k != i of e^(s_ik / temperature))
/// ```
///
/// Anchors without positives have loss 0; a batch without positive or without negative pairs too.
///
/// Use it for classes with several items in each batch; steadier than triplets, and in need of no miner.
///
/// Reference: `SupConLoss` of pytorch-metric-learning; Khosla et al. 2020 (2004.11362).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SupConLoss {
    /// Default 0.1.
    pub temperature: f64,
    /// Default `cosine`; distances are negated.
    pub distance: Distance,
    /// Over the anchors. Default `avg_non_zero`.
    pub reducer: Reducer,
}

impl Default for SupConLoss {
    fn default() -> Self {
        SupConLoss { temperature: 0.1, distance: Distance::Cosine, reducer: Reducer::AvgNonZero }
    }
}

impl Loss for SupConLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let scale = 1.0 / self.temperature;
        let pairs = batch.pairs(tape, false);
        let any = pairs.any() == (true, true);
        batch.per_anchor(tape, self.distance, &self.reducer, Of::Elements, pairs, move |anchor, terms| {
            if anchor.positives.is_empty() || !any {
                terms.add(1.0, 0.0);
                return;
            }
            let others = || anchor.positives.iter().chain(&anchor.negatives);
            let total = log_sum_exp(others().map(|other| (-scale * other.distance, 1.0)));
            let share = 1.0 / anchor.positives.len() as f64;
            let target: f64 = anchor.positives.iter().map(|p| -scale * p.distance * share).sum();
            if terms.add(1.0, total - target) {
                others().for_each(|other| terms.slope(other, -scale * (-scale * other.distance - total).exp()));
                anchor.positives.iter().for_each(|p| terms.slope(p, scale * share));
            }
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("temperature", self.temperature).into_iter().collect()
    }
}
