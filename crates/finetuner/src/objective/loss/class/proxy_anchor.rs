use engine::function::RowFunction;
use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{class_count, classes, mined_weights, rows};
use crate::error::Result;
use crate::objective::loss::{Batch, Loss};
use crate::objective::reducer::Of;
use crate::objective::{Distance, Initial, LossParameter, Needs, Reducer, Sizes, registry};

/// Each proxy draws its class's rows and pushes all others away, the hard ones most.
///
/// ```text
/// loss = 1 / C+ sum over classes c of ln(1 + sum over rows of c of e^(-alpha (s - margin)))
///      + 1 / C  sum over classes c of ln(1 + sum over other rows of e^(alpha (s + margin)))
/// ```
///
/// with s the similarity of row and proxy, C the number of classes and C+ that of classes in the batch. The proxies
/// `[num_classes, dimension]` start normally distributed with variance `2 / num_classes` and are learned by
/// `loss_optimizer`. A miner's tuples become weights w of the rows, and `w - 1` is added to a row's exponents.
///
/// Use it for classes with few items each: it learns fast and batches need not hold whole classes.
///
/// Reference: `ProxyAnchorLoss` of pytorch-metric-learning; Kim et al. 2020 (2003.13911).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyAnchorLoss {
    /// Classes of the data or more. Default: those of the data.
    pub num_classes: Option<usize>,
    /// Checked against the model. Default: the model's.
    pub embedding_size: Option<usize>,
    /// Default 0.1.
    pub margin: f64,
    /// Default 32.
    pub alpha: f64,
    /// Default `cosine`; with a distance the margins are distances.
    pub distance: Distance,
    /// Of each of the two parts, `pos_loss` and `neg_loss`. Default `divisor`: as in the formula.
    pub reducer: Reducer,
}

impl Default for ProxyAnchorLoss {
    fn default() -> Self {
        ProxyAnchorLoss {
            num_classes: None,
            embedding_size: None,
            margin: 0.1,
            alpha: 32.0,
            distance: Distance::Cosine,
            reducer: Reducer::Divisor,
        }
    }
}

impl Loss for ProxyAnchorLoss {
    fn needs(&self) -> Needs {
        Needs::Classes
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        let count = class_count(self.num_classes, self.embedding_size, sizes)?;
        // Kaiming's normal initialisation by the outputs of a layer `[classes, dimension]`.
        let initial = Initial::Normal { deviation: (2.0 / count.max(1) as f64).sqrt() };
        Ok(vec![LossParameter::vectors("proxies", count, sizes, initial)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let proxies = batch.parameter(0)?;
        let count = proxies.value().rows();
        let labels = classes(batch, count)?;
        let shifts = match mined_weights(tape, batch, true) {
            Some(weights) => weights.into_iter().map(|weight| weight - 1.0).collect(),
            None => vec![0.0; labels.len()],
        };
        let proxies_classes: Vec<u32> = (0..count as u32).collect();
        // Similarities may be negated distances: the margin is one of what is compared.
        let margin = -self.distance.threshold(self.margin);
        let mut present = labels.clone();
        present.sort_unstable();
        present.dedup();
        let mut total: Option<Var> = None;
        for (positive, divisor, part) in [(true, present.len(), "pos_loss"), (false, count, "neg_loss")] {
            let function = Term { positive, alpha: self.alpha, margin, labels: labels.clone(), shifts: shifts.clone() };
            let losses = rows(tape, self.distance, proxies, batch.embeddings, function)?;
            let reduced = match self.reducer.part(part) {
                Reducer::Divisor => {
                    let sum = tape.sum(&losses, None)?;
                    tape.affine(&sum, 1.0 / divisor.max(1) as f64, 0.0)?
                }
                reducer => reducer.reduce_labelled(tape, &losses, None, Of::Elements, &proxies_classes)?,
            };
            total = Some(match total {
                Some(total) => tape.add(&total, &reduced)?,
                None => reduced,
            });
        }
        total.ok_or_else(|| engine::Error::shape("objective", "two terms", "none").into())
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("alpha", self.alpha).into_iter().collect()
    }
}

/// `ln(1 + sum of e^z)` over the rows of a proxy's class, or over all others.
struct Term {
    positive: bool,
    alpha: f64,
    margin: f64,
    labels: Vec<u32>,
    /// Added to the exponents of each row.
    shifts: Vec<f64>,
}

impl RowFunction for Term {
    fn row(&self, class: usize, x: &[f64], gradient: Option<&mut [f64]>) -> (f64, f64) {
        let sign = if self.positive { -self.alpha } else { self.alpha };
        let chosen = |row: &usize| (self.labels[*row] as usize == class) == self.positive;
        let exponent = |row: usize| {
            let apart = if self.positive { x[row] - self.margin } else { x[row] + self.margin };
            sign * apart + self.shifts[row]
        };
        let largest = (0..x.len()).filter(chosen).map(exponent).fold(0.0, f64::max);
        let sum: f64 = (0..x.len()).filter(chosen).map(|row| (exponent(row) - largest).exp()).sum();
        let value = if largest == 0.0 { sum.ln_1p() } else { largest + ((-largest).exp() + sum).ln() };
        if let Some(gradient) = gradient {
            (0..x.len()).filter(chosen).for_each(|row| gradient[row] += sign * (exponent(row) - value).exp());
        }
        (value, 1.0)
    }
}
