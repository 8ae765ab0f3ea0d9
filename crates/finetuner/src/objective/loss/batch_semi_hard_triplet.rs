use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::batch_hard_triplet::EUCLIDEAN;
use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::Candidate;
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer};

/// Every positive pair against the nearest negative that is farther than the positive; where none is, against the
/// farthest.
///
/// ```text
/// loss(a, p) = max(0, d_ap - d_an + margin)
/// ```
///
/// The mean over all positive pairs; those of anchors without negatives count 0.
///
/// Use it for classes with some wrong labels: the very hardest negatives are left alone.
///
/// Reference: `BatchSemiHardTripletLoss` of sentence-transformers; Schroff, Kalenichenko, Philbin 2015 (1503.03832).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchSemiHardTripletLoss {
    /// How vectors are compared: `euclidean` or `cosine`. Default `euclidean`.
    pub distance_metric: Distance,
    /// Default 5.
    pub margin: f64,
}

impl Default for BatchSemiHardTripletLoss {
    fn default() -> Self {
        BatchSemiHardTripletLoss { distance_metric: EUCLIDEAN, margin: 5.0 }
    }
}

impl Loss for BatchSemiHardTripletLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn mines(&self) -> bool {
        false
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let margin = self.margin;
        let pairs = batch.labelled_pairs();
        batch.per_anchor(tape, self.distance_metric, &Reducer::Mean, Of::Pairs, pairs, move |anchor, terms| {
            let mut negatives = anchor.negatives.clone();
            negatives.sort_by(|one, other| one.distance.total_cmp(&other.distance));
            for p in &anchor.positives {
                let farther = negatives.partition_point(|n| n.distance <= p.distance);
                let Some(n): Option<&Candidate> = negatives.get(farther).or(negatives.last()) else {
                    terms.add(1.0, 0.0);
                    continue;
                };
                let loss = p.distance - n.distance + margin;
                if terms.add(1.0, loss.max(0.0)) && loss > 0.0 {
                    terms.slope(p, 1.0);
                    terms.slope(n, -1.0);
                }
            }
        })
    }
}
