use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::log_sum_exp;
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer, registry};

/// Every positive and every negative of an anchor, the harder the heavier: weights follow from the similarity itself and
/// from how it compares with the others'.
///
/// ```text
/// loss(i) = ln(1 + sum over positives p of e^(-alpha (s_ip - base))) / alpha
///         + ln(1 + sum over negatives n of e^(beta (s_in - base))) / beta
/// ```
///
/// Usually with `MultiSimilarityMiner`.
///
/// Use it for classes, with `MultiSimilarityMiner`: among the best of its family without much tuning.
///
/// Reference: `MultiSimilarityLoss` of pytorch-metric-learning; Wang et al. 2019 (1904.06627).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultiSimilarityLoss {
    /// Steepness for positives. Default 2.
    pub alpha: f64,
    /// Steepness for negatives. Default 50.
    pub beta: f64,
    /// Similarity between positives and negatives, in the distance's own direction. Default 0.5.
    pub base: f64,
    /// Default `cosine`.
    pub distance: Distance,
    /// Over the anchors. Default `mean`.
    pub reducer: Reducer,
}

impl Default for MultiSimilarityLoss {
    fn default() -> Self {
        MultiSimilarityLoss { alpha: 2.0, beta: 50.0, base: 0.5, distance: Distance::Cosine, reducer: Reducer::Mean }
    }
}

impl Loss for MultiSimilarityLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (alpha, beta, base) = (self.alpha, self.beta, self.distance.threshold(self.base));
        let pairs = batch.pairs(tape, false);
        batch.per_anchor(tape, self.distance, &self.reducer, Of::Elements, pairs, move |anchor, terms| {
            let far = |distance: f64| alpha * (distance - base);
            let near = |distance: f64| beta * (base - distance);
            let one = [(0.0, 1.0)];
            let positive = log_sum_exp(anchor.positives.iter().map(|p| (far(p.distance), 1.0)).chain(one));
            let negative = log_sum_exp(anchor.negatives.iter().map(|n| (near(n.distance), 1.0)).chain(one));
            if terms.add(1.0, positive / alpha + negative / beta) {
                anchor.positives.iter().for_each(|p| terms.slope(p, (far(p.distance) - positive).exp()));
                anchor.negatives.iter().for_each(|n| terms.slope(n, -(near(n.distance) - negative).exp()));
            }
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        [("alpha", self.alpha), ("beta", self.beta)]
            .into_iter()
            .filter_map(|(key, value)| registry::positive(key, value))
            .collect()
    }
}
