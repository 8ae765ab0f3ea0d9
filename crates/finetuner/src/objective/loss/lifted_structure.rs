use std::sync::Arc;

use engine::function::MatrixFunction;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss, MINED, Miner};
use crate::error::Result;
use crate::objective::anchor::{Pairs, Within, log_sum_exp};
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer};

/// Each positive pair against all negatives of both its rows.
///
/// ```text
/// loss(i, j) = max(0, ln sum of e^(neg_margin - d) over the negative pairs of i and of j + d_ij - pos_margin)^2 / 2
/// ```
///
/// The logarithm of an empty sum counts as 0. With a similarity the differences change sign, and the margins are
/// similarities.
///
/// Use it for classes where each positive pair should meet the negatives of both its items.
///
/// Reference: `LiftedStructureLoss` of pytorch-metric-learning; Oh Song et al. 2016 (1511.06452).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiftedStructureLoss {
    /// Default 1.
    pub neg_margin: f64,
    /// Default 0.
    pub pos_margin: f64,
    /// Default `l2`, between normalised vectors.
    pub distance: Distance,
    /// Over the positive pairs. Default `mean`.
    pub reducer: Reducer,
}

impl Default for LiftedStructureLoss {
    fn default() -> Self {
        LiftedStructureLoss { neg_margin: 1.0, pos_margin: 0.0, distance: Distance::L2, reducer: Reducer::Mean }
    }
}

impl Loss for LiftedStructureLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn matrices(&self, miner: Option<&dyn Miner>) -> usize {
        3 + miner.map_or(0, |_| MINED)
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let distances = self.distance.distances(tape, batch.embeddings, batch.others())?;
        let pairs = batch.pairs(tape, self.reducer.counts_repetitions());
        let near = self.distance.threshold(self.neg_margin);
        let x = distances.value();
        let of_row = |row: usize| {
            let terms = (0..x.columns()).map(|column| (near - at(x, row, column), pairs.weights(row, column).1));
            log_sum_exp(terms.filter(|(_, weight)| *weight != 0.0))
        };
        let negatives: Vec<f64> = (0..x.rows()).map(of_row).collect();
        let function = LiftedRows {
            any: negatives.iter().any(|sum| *sum > f64::NEG_INFINITY),
            negatives,
            within: Within(self.reducer.bounds(Of::Pairs)),
            far: self.distance.threshold(self.pos_margin),
            near,
            symmetric: batch.reference.is_none(),
            pairs,
        };
        let (sums, counts) = tape.matrix_rows(&distances, Arc::new(function))?;
        self.reducer.of_rows(tape, &sums, &counts, Of::Pairs, &batch.layout.labels)
    }
}

/// The losses of each row's positive pairs.
struct LiftedRows {
    pairs: Pairs,
    /// Per row the soft maximum over its negatives.
    negatives: Vec<f64>,
    any: bool,
    within: Within,
    far: f64,
    near: f64,
    /// Whether columns are rows, too, so that the second row of a pair has negatives.
    symmetric: bool,
}

fn at(x: &Tensor, row: usize, column: usize) -> f64 {
    f64::from(x.data()[row * x.columns() + column])
}

impl LiftedRows {
    /// The soft maximum over the negatives of both rows.
    fn both(&self, i: usize, j: usize) -> f64 {
        let second = if self.symmetric { self.negatives[j] } else { f64::NEG_INFINITY };
        log_sum_exp([(self.negatives[i], 1.0), (second, 1.0)].into_iter())
    }

    /// The part of a row in such a soft maximum.
    fn share(&self, row: usize, both: f64) -> f64 {
        if self.negatives[row] == f64::NEG_INFINITY { 0.0 } else { (self.negatives[row] - both).exp() }
    }

    /// Weight, loss, and what is squared in it, of a pair that counts.
    fn term(&self, x: &Tensor, i: usize, j: usize) -> Option<(f64, f64, f64)> {
        let weight = self.pairs.weights(i, j).0;
        if weight == 0.0 || !self.any {
            return None;
        }
        let both = self.both(i, j);
        let both = if both == f64::NEG_INFINITY { 0.0 } else { both };
        let above = (both + at(x, i, j) - self.far).max(0.0);
        let loss = above * above / 2.0;
        self.within.holds(loss).then_some((weight, loss, above))
    }
}

impl MatrixFunction for LiftedRows {
    fn row(&self, row: usize, x: &Tensor) -> (f64, f64) {
        let terms = (0..x.columns()).filter_map(|column| self.term(x, row, column));
        terms.fold((0.0, 0.0), |(sum, count), (weight, loss, _)| (sum + weight * loss, count + weight))
    }

    fn gradient(&self, row: usize, x: &Tensor, dy: &[f32], gradient: &mut [f64]) {
        // What reaches this row's negatives, through pairs in which it is the first or the second.
        let mut reached = 0.0;
        for other in 0..x.columns() {
            if let Some((weight, _, above)) = self.term(x, row, other) {
                let slope = f64::from(dy[row]) * weight * above;
                gradient[other] += slope;
                reached += slope * self.share(row, self.both(row, other));
            }
            if self.symmetric
                && let Some((weight, _, above)) = self.term(x, other, row)
            {
                let slope = f64::from(dy[other]) * weight * above;
                reached += slope * self.share(row, self.both(other, row));
            }
        }
        if self.negatives[row] == f64::NEG_INFINITY {
            return;
        }
        for (column, gradient) in gradient.iter_mut().enumerate() {
            let weight = self.pairs.weights(row, column).1;
            if weight != 0.0 {
                *gradient -= reached * weight * (self.near - at(x, row, column) - self.negatives[row]).exp();
            }
        }
    }
}
