use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::{Anchor, Candidate, Pairs, Within};
use crate::objective::reducer::{Of, divided};
use crate::objective::{Distance, Needs, Reducer};

/// A regulariser that draws the similarities of all positive pairs towards their mean, and those of all negative pairs.
///
/// ```text
/// loss = reduce of max(0, (1 - pos_eps) mean - s)^2 over positive pairs, mean of their s
///      + reduce of max(0, s - (1 + neg_eps) mean)^2 over negative pairs, mean of theirs
/// ```
///
/// Usually added to another loss. With a distance the two sides of each difference change places.
///
/// Reference: `IntraPairVarianceLoss` of pytorch-metric-learning; Yu, Tao 2019 (ICCV).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntraPairVarianceLoss {
    /// Default 0.01.
    pub pos_eps: f64,
    /// Default 0.01.
    pub neg_eps: f64,
    /// Default `cosine`.
    pub distance: Distance,
    /// Of each of the two parts, `pos_loss` and `neg_loss`. Default `mean`.
    pub reducer: Reducer,
}

impl Default for IntraPairVarianceLoss {
    fn default() -> Self {
        IntraPairVarianceLoss { pos_eps: 0.01, neg_eps: 0.01, distance: Distance::Cosine, reducer: Reducer::Mean }
    }
}

impl Loss for IntraPairVarianceLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let pairs = batch.pairs(tape, self.reducer.counts_repetitions());
        let positive = self.side(tape, batch, &pairs, true)?;
        let negative = self.side(tape, batch, &pairs, false)?;
        Ok(tape.add(&positive, &negative)?)
    }
}

impl IntraPairVarianceLoss {
    /// The part of the positive or of the negative pairs.
    fn side(&self, tape: &mut Tape<'_>, batch: &Batch<'_>, pairs: &Pairs, positive: bool) -> Result<Var> {
        let (part, eps) = if positive { ("pos_loss", self.pos_eps) } else { ("neg_loss", self.neg_eps) };
        let reducer = self.reducer.part(part);
        let distance = self.distance;
        let of = move |anchor: &Anchor<'_>| if positive { anchor.positives.clone() } else { anchor.negatives.clone() };
        let all = (f64::NEG_INFINITY, f64::INFINITY);
        let (sums, counts) = batch.anchor_rows(tape, distance, all, pairs.clone(), move |anchor, terms| {
            for pair in of(anchor) {
                terms.add(pair.weight, pair.distance);
                terms.slope(&pair, pair.weight);
            }
        })?;
        let sum = tape.sum(&sums, None)?;
        let mean = divided(tape, &sum, &counts)?;
        // Distances are negated similarities: positives lie beyond where they are farther.
        let sign = if positive { 1.0 } else { -1.0 };
        let factor = if positive == distance.inverted() { 1.0 - eps } else { 1.0 + eps };
        let limit = factor * f64::from(mean.value().item());
        let within = Within(reducer.bounds(Of::Pairs));
        let beyond = move |pair: &Candidate| (sign * (pair.distance - limit)).max(0.0);
        let (losses, counts) = batch.anchor_rows(tape, distance, within.0, pairs.clone(), move |anchor, terms| {
            for pair in of(anchor) {
                if terms.add(pair.weight, beyond(&pair).powi(2)) {
                    terms.slope(&pair, 2.0 * sign * pair.weight * beyond(&pair));
                }
            }
        })?;
        // The same by the mean, on which all pairs have an influence: so many times its change.
        let (by_mean, _) = batch.anchor_rows(tape, distance, all, pairs.clone(), move |anchor, terms| {
            for pair in of(anchor).iter().filter(|pair| within.holds(beyond(pair).powi(2))) {
                terms.add(pair.weight, -2.0 * sign * factor * beyond(pair));
            }
        })?;
        let (by_mean, fixed) = (tape.constant(by_mean.into_value()), tape.constant(mean.value().clone()));
        let change = tape.subtract(&mean, &fixed)?;
        let change = tape.multiply(&by_mean, &change)?;
        let losses = tape.add(&losses, &change)?;
        reducer.of_rows(tape, &losses, &counts, Of::Pairs, &batch.layout.labels)
    }
}
