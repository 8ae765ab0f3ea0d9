use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer};

/// Positive pairs together, negative pairs at least a margin apart, on average over all pairs of the batch.
///
/// ```text
/// loss = mean of d over positive and max(0, margin - d) over negative pairs
/// ```
///
/// `cosine` is 1 - cos here; vectors are as they are otherwise.
///
/// Use it to repeat runs of the original's version 0.4.1.
///
/// Reference: `SiameseLoss` of Finetuner 0.4.1; Hadsell, Chopra, LeCun 2006.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiameseLoss {
    /// `cosine`, `euclidean` or `sqeuclidean`. Default `cosine`.
    pub distance: Distance,
    /// Default 1.
    pub margin: f64,
}

impl Default for SiameseLoss {
    fn default() -> Self {
        SiameseLoss { distance: Distance::Cosine, margin: 1.0 }
    }
}

impl Loss for SiameseLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (margin, shift) = (self.margin, if self.distance.inverted() { 1.0 } else { 0.0 });
        let pairs = batch.pairs(tape, true);
        batch.per_anchor(tape, self.distance, &Reducer::Mean, Of::Pairs, pairs, move |anchor, terms| {
            for p in &anchor.positives {
                terms.add(p.weight, shift + p.distance);
                terms.slope(p, p.weight);
            }
            for n in &anchor.negatives {
                let too_near = (margin - shift - n.distance).max(0.0);
                terms.add(n.weight, too_near);
                terms.slope(n, if too_near > 0.0 { -n.weight } else { 0.0 });
            }
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let dot = self.distance == Distance::Dot;
        dot.then(|| ("distance", "expected `cosine`, `euclidean` or `sqeuclidean`".to_owned())).into_iter().collect()
    }
}
