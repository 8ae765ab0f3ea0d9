use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::{Candidate, log_sum_exp};
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer};

/// Positives inside a sphere, negatives outside a larger one; those on the wrong side weigh the more the farther.
///
/// ```text
/// loss(i) = (1 - imbalance) sum over positives p with u > 0 of e^(Tp u) u / (sum of e^(Tp u) + 1e-5 rows)
///         + imbalance       sum over negatives n with v > 0 of e^(Tn v) v / (sum of e^(Tn v) + 1e-5 rows)
///           with u = d_ip - (alpha - margin), v = alpha - d_in
/// ```
///
/// Use it for classes whose items may differ: positives are drawn into a ball, not onto a point.
///
/// Reference: `RankedListLoss` of pytorch-metric-learning; Wang et al. 2019 (1903.03238).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RankedListLoss {
    /// Between the two spheres; to be given.
    pub margin: Option<f64>,
    /// How much farther violations of negatives count more; to be given. Usually 10.
    #[serde(rename = "Tn")]
    pub tn: Option<f64>,
    /// Share of the negatives. Default 0.5.
    pub imbalance: f64,
    /// Radius that negatives stay out of. Default 1 + margin / 2.
    pub alpha: Option<f64>,
    /// As `Tn`, for positives. Default 0.
    #[serde(rename = "Tp")]
    pub tp: f64,
    /// Default `l2`, between normalised vectors; no similarity.
    pub distance: Distance,
    /// Over the anchors. Default `mean`.
    pub reducer: Reducer,
}

impl Default for RankedListLoss {
    fn default() -> Self {
        RankedListLoss {
            margin: None,
            tn: None,
            imbalance: 0.5,
            alpha: None,
            tp: 0.0,
            distance: Distance::L2,
            reducer: Reducer::Mean,
        }
    }
}

impl Loss for RankedListLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn mines(&self) -> bool {
        false
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let margin = self.margin.unwrap_or_default();
        let alpha = self.alpha.unwrap_or(1.0 + margin / 2.0);
        let near = alpha - margin;
        let (tp, tn, imbalance) = (self.tp, self.tn.unwrap_or_default(), self.imbalance);
        let pairs = batch.labelled_pairs();
        batch.per_anchor(tape, self.distance, &self.reducer, Of::Elements, pairs, move |anchor, terms| {
            let tiny = 1e-5 * anchor.distances.len() as f64;
            // Those on the wrong side, with how far, and its sign in the distance.
            let positive = |p: &Candidate| (p.distance > near && p.distance > 0.0).then_some((*p, p.distance - near));
            let negative = |n: &Candidate| (n.distance < alpha && n.distance > 0.0).then_some((*n, alpha - n.distance));
            let positives = Violations::new(anchor.positives.iter().filter_map(positive).collect(), tp, tiny);
            let negatives = Violations::new(anchor.negatives.iter().filter_map(negative).collect(), tn, tiny);
            if terms.add(1.0, (1.0 - imbalance) * positives.mean + imbalance * negatives.mean) {
                positives.slopes().for_each(|(p, slope)| terms.slope(&p, (1.0 - imbalance) * slope));
                negatives.slopes().for_each(|(n, slope)| terms.slope(&n, -imbalance * slope));
            }
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for (key, value) in [("margin", self.margin), ("Tn", self.tn)] {
            if value.is_none() {
                problems.push((key, "has to be given".to_owned()));
            }
        }
        if !(0.0..=1.0).contains(&self.imbalance) {
            problems.push(("imbalance", format!("expected a number from 0 to 1, got {}", self.imbalance)));
        }
        if self.distance.inverted() {
            problems.push(("distance", "expected a distance: the spheres have radii".to_owned()));
        }
        problems
    }
}

/// Violations and their mean, weighted by `e^(temperature violation)`.
struct Violations {
    violations: Vec<(Candidate, f64)>,
    temperature: f64,
    /// Sum of the weights and what keeps it from 0, as a logarithm.
    total: f64,
    mean: f64,
}

impl Violations {
    fn new(violations: Vec<(Candidate, f64)>, temperature: f64, tiny: f64) -> Self {
        let weights = violations.iter().map(|(_, violation)| (temperature * violation, 1.0));
        let total = log_sum_exp(weights.chain([(tiny.ln(), 1.0)]));
        let mean = violations.iter().map(|(_, v)| (temperature * v - total).exp() * v).sum();
        Violations { violations, temperature, total, mean }
    }

    /// The derivative of the mean by each violation.
    fn slopes(&self) -> impl Iterator<Item = (Candidate, f64)> {
        self.violations.iter().map(|(candidate, v)| {
            let weight = (self.temperature * v - self.total).exp();
            (*candidate, weight * (1.0 + self.temperature * (v - self.mean)))
        })
    }
}
