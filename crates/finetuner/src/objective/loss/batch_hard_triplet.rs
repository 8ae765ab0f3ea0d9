use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::{Anchor, logistic, softplus};
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer};

/// An anchor's farthest positive against its nearest negative.
///
/// ```text
/// loss(i) = max(0, max over positives p of d_ip - min over negatives n of d_in + margin)
/// ```
///
/// The mean over all rows; without a positive its distance counts as 0, and rows without a negative have loss 0. A batch
/// without any triplet has loss 0.
///
/// Use it for clean classes: one wrong label is the hardest positive every time.
///
/// Reference: `BatchHardTripletLoss` of sentence-transformers; Hermans, Beyer, Leibe 2017 (1703.07737).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchHardTripletLoss {
    /// How vectors are compared: `euclidean` or `cosine`. Default `euclidean`.
    pub distance_metric: Distance,
    /// Default 5.
    pub margin: f64,
}

impl Default for BatchHardTripletLoss {
    fn default() -> Self {
        BatchHardTripletLoss { distance_metric: EUCLIDEAN, margin: 5.0 }
    }
}

impl Loss for BatchHardTripletLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn mines(&self) -> bool {
        false
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let margin = self.margin;
        hardest(tape, batch, self.distance_metric, move |z| {
            ((z + margin).max(0.0), f64::from(u8::from(z + margin > 0.0)))
        })
    }
}

/// [`BatchHardTripletLoss`] with `ln(1 + e^v)` in place of a margin.
///
/// ```text
/// loss(i) = ln(1 + e^(max over positives p of d_ip - min over negatives n of d_in))
/// ```
///
/// Use it as `BatchHardTripletLoss`, where no margin is known to be right.
///
/// Reference: `BatchHardSoftMarginTripletLoss` of sentence-transformers; Hermans, Beyer, Leibe 2017 (1703.07737).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchHardSoftMarginTripletLoss {
    /// How vectors are compared: `euclidean` or `cosine`. Default `euclidean`.
    pub distance_metric: Distance,
}

impl Default for BatchHardSoftMarginTripletLoss {
    fn default() -> Self {
        BatchHardSoftMarginTripletLoss { distance_metric: EUCLIDEAN }
    }
}

impl Loss for BatchHardSoftMarginTripletLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn mines(&self) -> bool {
        false
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        hardest(tape, batch, self.distance_metric, |z| (softplus(z), logistic(z)))
    }
}

/// sentence-transformers' default, between vectors as they are.
pub(super) const EUCLIDEAN: Distance = Distance::Euclidean { normalize: false, squared: false };

/// The mean over all rows of a function of how much farther the farthest positive is than the nearest negative; it
/// gives its derivative, too.
fn hardest(
    tape: &mut Tape<'_>,
    batch: &Batch<'_>,
    distance: Distance,
    loss: impl Fn(f64) -> (f64, f64) + Send + Sync + 'static,
) -> Result<Var> {
    let pairs = batch.labelled_pairs();
    let any = (0..batch.layout.labels.len()).any(|row| pairs.has_triplet(row));
    batch.per_anchor(tape, distance, &Reducer::Mean, Of::Elements, pairs, move |anchor, terms| {
        let (Some(n), true) = (Anchor::nearest(&anchor.negatives), any) else {
            terms.add(1.0, 0.0);
            return;
        };
        let p = Anchor::farthest(&anchor.positives);
        // A cosine distance is 1 - cos: where there is no positive, its 0 is a cosine of 1.
        let none = if distance.inverted() { -1.0 } else { 0.0 };
        let (value, slope) = loss(p.map_or(none, |p| p.distance) - n.distance);
        if terms.add(1.0, value) {
            p.iter().for_each(|p| terms.slope(p, slope));
            terms.slope(&n, -slope);
        }
    })
}
