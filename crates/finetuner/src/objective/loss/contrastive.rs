use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer};

/// Positive pairs together, negative pairs at least a margin apart.
///
/// ```text
/// loss = reduce of max(0, d - pos_margin) over positive pairs + reduce of max(0, neg_margin - d) over negative pairs
/// ```
///
/// With a similarity the differences change sign, and the margins are similarities: `pos_margin` 1, `neg_margin` 0
/// suit the cosine.
///
/// Use it where one distance must part matches from the rest, as in finding duplicates.
///
/// Reference: `ContrastiveLoss` of pytorch-metric-learning; Hadsell, Chopra, LeCun 2006.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveLoss {
    /// Default 0.
    pub pos_margin: f64,
    /// Default 1.
    pub neg_margin: f64,
    /// Default `l2`, between normalised vectors.
    pub distance: Distance,
    /// Of each of the two parts, `pos_loss` and `neg_loss`. Default `avg_non_zero`.
    pub reducer: Reducer,
}

impl Default for ContrastiveLoss {
    fn default() -> Self {
        ContrastiveLoss { pos_margin: 0.0, neg_margin: 1.0, distance: Distance::L2, reducer: Reducer::AvgNonZero }
    }
}

impl Loss for ContrastiveLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (far, near) = (self.distance.threshold(self.pos_margin), self.distance.threshold(self.neg_margin));
        let (positive, negative) = (self.reducer.part("pos_loss"), self.reducer.part("neg_loss"));
        let pairs = batch.pairs(tape, self.reducer.counts_repetitions());
        let positive =
            batch.per_anchor(tape, self.distance, positive, Of::Pairs, pairs.clone(), move |anchor, terms| {
                for p in &anchor.positives {
                    let too_far = (p.distance - far).max(0.0);
                    if terms.add(p.weight, too_far) && too_far > 0.0 {
                        terms.slope(p, p.weight);
                    }
                }
            })?;
        let negative = batch.per_anchor(tape, self.distance, negative, Of::Pairs, pairs, move |anchor, terms| {
            for n in &anchor.negatives {
                let too_near = (near - n.distance).max(0.0);
                if terms.add(n.weight, too_near) && too_near > 0.0 {
                    terms.slope(n, -n.weight);
                }
            }
        })?;
        Ok(tape.add(&positive, &negative)?)
    }
}

/// [`ContrastiveLoss`] on the signal-to-noise distance: how loud the difference of two embeddings is beside the first.
///
/// ```text
/// loss = reduce of max(0, d - pos_margin) over positive pairs + reduce of max(0, neg_margin - d) over negative pairs
/// d_ij = Var(x_i - x_j) / Var(x_i)
/// ```
///
/// Use it as `ContrastiveLoss`, where embeddings are not normalised.
///
/// Reference: `SignalToNoiseRatioContrastiveLoss` of pytorch-metric-learning; Yuan et al. 2019 (1904.02616).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignalToNoiseRatioContrastiveLoss {
    /// Default 0.
    pub pos_margin: f64,
    /// Default 1.
    pub neg_margin: f64,
    /// `snr` with its options. Default `snr`, of normalised vectors.
    pub distance: Distance,
    /// Of each of the two parts, `pos_loss` and `neg_loss`. Default `avg_non_zero`.
    pub reducer: Reducer,
}

impl Default for SignalToNoiseRatioContrastiveLoss {
    fn default() -> Self {
        let ContrastiveLoss { pos_margin, neg_margin, reducer, .. } = ContrastiveLoss::default();
        SignalToNoiseRatioContrastiveLoss { pos_margin, neg_margin, distance: Distance::SNR, reducer }
    }
}

impl Loss for SignalToNoiseRatioContrastiveLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let SignalToNoiseRatioContrastiveLoss { pos_margin, neg_margin, distance, reducer } = self.clone();
        ContrastiveLoss { pos_margin, neg_margin, distance, reducer }.compute(tape, batch)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let noise = self.distance.is_signal_to_noise();
        (!noise).then(|| ("distance", "expected `snr`".to_owned())).into_iter().collect()
    }
}
