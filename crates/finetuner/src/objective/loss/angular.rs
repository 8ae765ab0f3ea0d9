use std::sync::Arc;

use engine::function::{MatrixFunction, Similarity};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::anchor::{Pairs, Within, log_sum_exp, logistic, softplus};
use crate::objective::reducer::Of;
use crate::objective::{Needs, Reducer};

/// The angle at the negative of the triangle that it makes with a positive pair.
///
/// ```text
/// loss(a, p) = ln(1 + sum over negatives n of e^(4 t (a + p) . n - 2 (1 + t) a . p)),  t = tan(alpha)^2
/// ```
///
/// with a and p normalised and n as it is, as in the original. All of the anchor's negatives take part, mined or not.
///
/// Use it for classes whose distances differ in scale: it compares angles.
///
/// Reference: `AngularLoss` of pytorch-metric-learning; Wang et al. 2017 (1708.01682).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AngularLoss {
    /// In degrees. Default 40.
    pub alpha: f64,
    /// Over the positive pairs. Default `mean`.
    pub reducer: Reducer,
}

impl Default for AngularLoss {
    fn default() -> Self {
        AngularLoss { alpha: 40.0, reducer: Reducer::Mean }
    }
}

impl Loss for AngularLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn matrices(&self) -> usize {
        7
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let dot = Similarity::Dot { normalize: false };
        let rows = tape.normalize(batch.embeddings)?;
        let (others, unit) = (batch.others(), tape.normalize(batch.others())?);
        // Below the anchors stand the positives, where those are not the anchors themselves.
        let above = if batch.reference.is_some() { rows.value().rows() } else { 0 };
        let left = if above > 0 { tape.stacked(&[&rows, &unit])? } else { rows };
        let (cosines, products) = (tape.similarities(dot, &left, &unit)?, tape.similarities(dot, &left, others)?);
        let x = tape.side_by_side(&[&cosines, &products])?;
        let pairs = batch.pairs(tape, self.reducer.counts_repetitions());
        let function = AngularRows {
            tangent: self.alpha.to_radians().tan().powi(2),
            rows: batch.layout.labels.len(),
            above,
            any: pairs.any() == (true, true),
            within: Within(self.reducer.bounds(Of::Pairs)),
            labels: batch.labelled_pairs(),
            pairs,
        };
        let rows = function.rows;
        let (sums, counts) = tape.matrix_rows(&x, Arc::new(function))?;
        let column = |tape: &mut Tape<'_>, x: &Var| -> Result<Var> {
            let x = tape.reshape(x, &[x.value().len(), 1])?;
            let x = tape.row_range(&x, 0..rows)?;
            Ok(tape.reshape(&x, &[rows])?)
        };
        let (sums, counts) = (column(tape, &sums)?, column(tape, &counts)?);
        self.reducer.of_rows(tape, &sums, &counts, Of::Pairs, &batch.layout.labels)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let valid = 0.0 < self.alpha && self.alpha < 90.0;
        (!valid)
            .then(|| ("alpha", format!("expected degrees between 0 and 90, got {}", self.alpha)))
            .into_iter()
            .collect()
    }
}

/// The losses of each anchor's positive pairs, from a matrix that holds for every row first its cosines with all others
/// and then its products with them as they are.
struct AngularRows {
    tangent: f64,
    pairs: Pairs,
    /// All pairs of the labels.
    labels: Pairs,
    any: bool,
    within: Within,
    rows: usize,
    /// Where the positives begin.
    above: usize,
}

fn at(x: &Tensor, row: usize, column: usize) -> f64 {
    f64::from(x.data()[row * x.columns() + column])
}

/// A positive pair that counts: how often, its loss, the slope of that, and the soft maximum over the negatives.
struct Term {
    weight: f64,
    loss: f64,
    slope: f64,
    negatives: f64,
}

impl AngularRows {
    fn negatives(&self, anchor: usize, columns: usize) -> Vec<usize> {
        (0..columns).filter(|&n| self.labels.weights(anchor, n).1 != 0.0).collect()
    }

    /// The exponent of a negative, without the part that is the same for all.
    fn exponent(&self, x: &Tensor, anchor: usize, p: usize, n: usize) -> f64 {
        let columns = x.columns() / 2;
        4.0 * self.tangent * (at(x, anchor, columns + n) + at(x, self.above + p, columns + n))
    }

    fn term(&self, x: &Tensor, anchor: usize, p: usize, among: &[usize]) -> Option<Term> {
        let weight = self.pairs.weights(anchor, p).0;
        if weight == 0.0 || !self.any {
            return None;
        }
        let negatives = log_sum_exp(among.iter().map(|&n| (self.exponent(x, anchor, p, n), 1.0)));
        let z = negatives - 2.0 * (1.0 + self.tangent) * at(x, anchor, p);
        let loss = softplus(z);
        self.within.holds(loss).then_some(Term { weight, loss, slope: logistic(z), negatives })
    }
}

impl MatrixFunction for AngularRows {
    fn row(&self, row: usize, x: &Tensor) -> (f64, f64) {
        let columns = x.columns() / 2;
        if row >= self.rows {
            return (0.0, 0.0);
        }
        let among = self.negatives(row, columns);
        let terms = (0..columns).filter_map(|p| self.term(x, row, p, &among));
        terms.fold((0.0, 0.0), |(sum, count), term| (sum + term.weight * term.loss, count + term.weight))
    }

    fn gradient(&self, row: usize, x: &Tensor, dy: &[f32], gradient: &mut [f64]) {
        let columns = x.columns() / 2;
        let mut pull = |anchor: usize, p: usize, among: &[usize], as_anchor: bool| {
            let Some(term) = self.term(x, anchor, p, among) else { return };
            let slope = f64::from(dy[anchor]) * term.weight * term.slope;
            for &n in among {
                let share = (self.exponent(x, anchor, p, n) - term.negatives).exp();
                gradient[columns + n] += 4.0 * self.tangent * slope * share;
            }
            if as_anchor {
                gradient[p] -= 2.0 * (1.0 + self.tangent) * slope;
            }
        };
        if row < self.rows {
            let among = self.negatives(row, columns);
            (0..columns).for_each(|p| pull(row, p, &among, true));
        }
        if row >= self.above {
            let p = row - self.above;
            for anchor in (0..self.rows).filter(|&anchor| self.pairs.weights(anchor, p).0 != 0.0) {
                pull(anchor, p, &self.negatives(anchor, columns), false);
            }
        }
    }
}
