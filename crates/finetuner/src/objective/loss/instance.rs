use std::collections::{BTreeMap, BTreeSet};

use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::log_sum_exp;
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer, registry};

/// Cross-entropy over the rows of the batch: row i against the row whose place is the rank of i's label among the
/// batch's sorted distinct labels.
///
/// ```text
/// loss(i) = ln sum over all rows k of e^(gamma s_ik) - gamma s_i,rank(i)
/// ```
///
/// It means something only where labels are distinct and in the order of the rows; it is here because others have it.
///
/// Use it for a batch that holds one item of each class, in order.
///
/// Reference: `InstanceLoss` of pytorch-metric-learning; Zheng et al. 2017 (1711.05535).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstanceLoss {
    /// Scale. Default 64.
    pub gamma: f64,
    /// A similarity. Default `cosine`.
    pub distance: Distance,
    /// Over the anchors. Default `mean`.
    pub reducer: Reducer,
}

impl Default for InstanceLoss {
    fn default() -> Self {
        InstanceLoss { gamma: 64.0, distance: Distance::Cosine, reducer: Reducer::Mean }
    }
}

impl Loss for InstanceLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn mines(&self) -> bool {
        false
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let gamma = self.gamma;
        let distinct: BTreeSet<u32> = batch.layout.labels.iter().copied().collect();
        let ranks: BTreeMap<u32, usize> = distinct.into_iter().zip(0..).collect();
        let targets: Vec<usize> = batch.layout.labels.iter().map(|label| ranks[label]).collect();
        let pairs = batch.labelled_pairs();
        batch.per_anchor(tape, self.distance, &self.reducer, Of::Elements, pairs, move |anchor, terms| {
            let total = log_sum_exp(anchor.distances.iter().map(|d| (-gamma * d, 1.0)));
            let target = targets[anchor.row];
            if terms.add(1.0, total + gamma * anchor.distances[target]) {
                for (column, d) in anchor.distances.iter().enumerate() {
                    terms.slope_at(column, -gamma * (-gamma * d - total).exp());
                }
                terms.slope_at(target, gamma);
            }
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let distance = (!self.distance.inverted()).then(|| ("distance", "expected a similarity".to_owned()));
        registry::positive("gamma", self.gamma).into_iter().chain(distance).collect()
    }
}
