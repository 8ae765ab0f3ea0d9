use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::{Anchor, Candidate, logistic};
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer, registry};

/// Penalises, for every positive, the negatives that rank before it: of smooth average precision only the part that
/// negatives cause.
///
/// ```text
/// R_ip    = sum over negatives n of 1 / (1 + e^((s_ip - s_in) / anneal))
/// loss(i) = mean over positives p, and i itself, of f(R_ip)
/// ```
///
/// with cosines s, and `variant` f: `O` R; `Ds` ln(1 + R); `Dq` 1 - (1 + R)^-alpha; `Iu` (1 + R) ln(1 + R);
/// `Ib` (b R - ln(1 + b R)) / b^2. The mean over the anchors that
/// have positives is taken; there is no reducer.
///
/// Use it where negatives that rank above positives are to be removed, and average precision is the aim.
///
/// Reference: `PNPLoss` of pytorch-metric-learning; Li et al. 2022 (2102.04640).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PNPLoss {
    /// Of `Ib`. Default 2.
    pub b: f64,
    /// Of `Dq`. Default 1.
    pub alpha: f64,
    /// Width of the smooth step, in cosines. Default 0.01.
    pub anneal: f64,
    /// How the number of negatives before a positive counts. Default `O`.
    pub variant: Variant,
}

/// What the rank of a positive among negatives costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Variant {
    /// `R`
    O,
    /// `ln(1 + R)`: badly ranked positives, which may be outliers, count less.
    Ds,
    /// `1 - (1 + R)^-alpha`, even more so.
    Dq,
    /// `(1 + R) ln(1 + R)`: they count more.
    Iu,
    /// `(b R - ln(1 + b R)) / b^2`, even more so at first.
    Ib,
}

impl PNPLoss {
    /// Every negative with how far it ranks before the positive, from 0 to 1.
    fn before<'a>(
        &self,
        anchor: &'a Anchor<'_>,
        p: &Candidate,
    ) -> impl Iterator<Item = (&'a Candidate, f64)> + use<'a> {
        let (anneal, distance) = (self.anneal, p.distance);
        anchor.negatives.iter().map(move |n| {
            let z = (distance - n.distance) / anneal;
            // As the original: beyond 50 the step is flat.
            (n, if z.abs() >= 50.0 { f64::from(u8::from(z > 0.0)) } else { logistic(z) })
        })
    }

    /// The cost of a rank and its derivative.
    fn penalty(&self, rank: f64) -> (f64, f64) {
        let (alpha, b) = (self.alpha, self.b);
        match self.variant {
            Variant::O => (rank, 1.0),
            Variant::Ds => (rank.ln_1p(), 1.0 / (1.0 + rank)),
            Variant::Dq => (1.0 - (1.0 + rank).powf(-alpha), alpha * (1.0 + rank).powf(-alpha - 1.0)),
            Variant::Iu => ((1.0 + rank) * rank.ln_1p(), 1.0 + rank.ln_1p()),
            Variant::Ib => ((b * rank - (b * rank).ln_1p()) / (b * b), rank / (1.0 + b * rank)),
        }
    }
}

impl Default for PNPLoss {
    fn default() -> Self {
        PNPLoss { b: 2.0, alpha: 1.0, anneal: 0.01, variant: Variant::O }
    }
}

impl Loss for PNPLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn mines(&self) -> bool {
        false
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let loss = self.clone();
        let pairs = batch.labelled_pairs();
        batch.per_anchor(tape, Distance::Cosine, &Reducer::Mean, Of::Elements, pairs, move |anchor, terms| {
            if anchor.positives.is_empty() {
                return;
            }
            let itself = Candidate { column: anchor.row, distance: anchor.distances[anchor.row], weight: 1.0 };
            let positives: Vec<Candidate> = anchor.positives.iter().copied().chain([itself]).collect();
            let ranks: Vec<f64> = positives.iter().map(|p| loss.before(anchor, p).map(|(_, s)| s).sum()).collect();
            let share = 1.0 / positives.len() as f64;
            if terms.add(1.0, share * ranks.iter().map(|&rank| loss.penalty(rank).0).sum::<f64>()) {
                for (p, rank) in positives.iter().zip(ranks) {
                    let slope = share * loss.penalty(rank).1 / loss.anneal;
                    for (n, step) in loss.before(anchor, p) {
                        let slope = if 0.0 < step && step < 1.0 { slope * step * (1.0 - step) } else { 0.0 };
                        terms.slope(p, slope);
                        terms.slope(n, -slope);
                    }
                }
            }
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        [("b", self.b), ("alpha", self.alpha), ("anneal", self.anneal)]
            .into_iter()
            .filter_map(|(key, value)| registry::positive(key, value))
            .collect()
    }
}
