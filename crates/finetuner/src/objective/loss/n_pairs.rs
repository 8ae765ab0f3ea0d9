use std::collections::BTreeSet;

use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::log_sum_exp;
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer};

/// One positive pair of each class, its anchor against the positives of all.
///
/// ```text
/// loss(a) = ln sum over the chosen positives p' of e^(s_ap') - s_ap
/// ```
///
/// The pair of a class is the first by row of anchor, then of positive. Classes without a pair are left out.
///
/// Use it for classes of which a batch holds exactly two items each.
///
/// Reference: `NPairsLoss` of pytorch-metric-learning; Sohn 2016 (NIPS).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NPairsLoss {
    /// Default `DotProductSimilarity`, which normalises as in the original; `dot` does not. Distances are negated.
    pub distance: Distance,
    /// Over the classes. Default `mean`.
    pub reducer: Reducer,
}

impl Default for NPairsLoss {
    fn default() -> Self {
        NPairsLoss { distance: Distance::Cosine, reducer: Reducer::Mean }
    }
}

impl Loss for NPairsLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let pairs = batch.pairs(tape, false);
        let (rows, columns) = (batch.layout.labels.len(), batch.other_labels().len());
        // By anchor the place of its class's pair, and the positives of all.
        let (mut places, mut positives, mut seen) = (vec![None; rows], Vec::new(), BTreeSet::new());
        for (row, place) in places.iter_mut().enumerate() {
            if let Some(column) = (0..columns).find(|&column| pairs.weights(row, column).0 != 0.0)
                && seen.insert(batch.layout.labels[row])
            {
                *place = Some(positives.len());
                positives.push(column);
            }
        }
        batch.per_anchor(tape, self.distance, &self.reducer, Of::Elements, pairs, move |anchor, terms| {
            let Some(place) = places[anchor.row] else { return };
            let total = log_sum_exp(positives.iter().map(|&column| (-anchor.distances[column], 1.0)));
            if terms.add(1.0, total + anchor.distances[positives[place]]) {
                for &column in &positives {
                    terms.slope_at(column, -(-anchor.distances[column] - total).exp());
                }
                terms.slope_at(positives[place], 1.0);
            }
        })
    }
}
