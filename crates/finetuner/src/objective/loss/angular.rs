use std::ops::Range;
use std::sync::Arc;

use engine::function::{MatrixFunction, Similarity};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::by_class::ByClass;
use super::row_blocks::row_blocks;
use super::{Batch, Loss, Miner};
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

    fn matrices(&self, miner: Option<&dyn Miner>) -> usize {
        if self.reducer.adds_up() && miner.is_none() { 0 } else { 7 }
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let labels = &batch.layout.labels;
        let rows = labels.len();
        let blocks = row_blocks(rows, 2 * rows);
        if blocks.len() > 1 && self.reducer.adds_up() && batch.reference.is_none() && batch.miner.is_none() {
            return self.by_class(tape, batch, blocks);
        }
        let (unit, others) = (tape.normalize(batch.embeddings)?, tape.normalize(batch.others())?);
        // Below the anchors stand the positives, where those are not the anchors themselves.
        let above = if batch.reference.is_some() { rows } else { 0 };
        let left = if above > 0 { tape.stacked(&[&unit, &others])? } else { unit };
        let (pairs, negatives) = (batch.pairs(tape, self.reducer.counts_repetitions()), batch.labelled_pairs());
        let function = self.rows((0..rows, 0, above), pairs.any(), (pairs, negatives));
        let (sums, counts) = self.sums(tape, (&left, &others, batch.others()), function)?;
        self.reducer.of_rows(tape, &sums, &counts, Of::Pairs, labels)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let valid = 0.0 < self.alpha && self.alpha < 90.0;
        (!valid)
            .then(|| ("alpha", format!("expected degrees between 0 and 90, got {}", self.alpha)))
            .into_iter()
            .collect()
    }
}

impl AngularLoss {
    /// The loss of some anchors at a time, class after class: an anchor's positives are of its own class, so that no products of
    /// other rows are needed.
    fn by_class(&self, tape: &mut Tape<'_>, batch: &Batch<'_>, blocks: Vec<Range<usize>>) -> Result<Var> {
        let classes = ByClass::new(&batch.layout.labels);
        let of_place = |place: usize| classes.of_row[classes.order[place] as usize];
        let labels: Vec<u32> = (0..classes.order.len()).map(of_place).collect();
        let sorted = tape.rows(batch.embeddings, classes.order.clone().into())?;
        let unit = tape.normalize(&sorted)?;
        let own = (0..labels.len() as u32).collect();
        let pairs = Pairs::Labels { rows: labels.clone(), columns: labels.clone(), own };
        let any = pairs.any();
        self.reducer.of_blocks(tape, &[&sorted, &unit], (blocks, Of::Pairs, &[]), |tape, inputs, anchors| {
            let first = classes.places(labels[anchors.start]).start;
            let last = classes.places(labels[anchors.end - 1]).end;
            let left = tape.row_range(&inputs[1], first..last)?;
            let function = self.rows((anchors, first, 0), any, (pairs.clone(), pairs.clone()));
            self.sums(tape, (&left, &inputs[1], &inputs[0]), function)
        })
    }

    fn rows(
        &self,
        (anchors, first, above): (Range<usize>, usize, usize),
        any: (bool, bool),
        (pairs, labels): (Pairs, Pairs),
    ) -> AngularRows {
        AngularRows {
            tangent: self.alpha.to_radians().tan().powi(2),
            pairs,
            labels,
            any: any == (true, true),
            within: Within(self.reducer.bounds(Of::Pairs)),
            anchors,
            first,
            above,
        }
    }

    /// Each anchor's sum of the losses that count, and their number. `left` are normalised anchors and positives, `unit` the
    /// normalised rows of `others`.
    fn sums(
        &self,
        tape: &mut Tape<'_>,
        (left, unit, others): (&Var, &Var, &Var),
        function: AngularRows,
    ) -> Result<(Var, Var)> {
        let dot = Similarity::Dot { normalize: false };
        let (cosines, products) = (tape.similarities(dot, left, unit)?, tape.similarities(dot, left, others)?);
        let x = tape.side_by_side(&[&cosines, &products])?;
        let anchors = function.anchors.start - function.first..function.anchors.end - function.first;
        let (sums, counts) = tape.matrix_rows(&x, Arc::new(function))?;
        let mut of_anchors = |x: &Var| -> Result<Var> {
            let x = tape.reshape(x, &[x.value().len(), 1])?;
            let x = tape.row_range(&x, anchors.clone())?;
            Ok(tape.reshape(&x, &[anchors.len()])?)
        };
        Ok((of_anchors(&sums)?, of_anchors(&counts)?))
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
    /// Those whose losses are wanted.
    anchors: Range<usize>,
    /// The anchor, and the positive, with which the matrix begins.
    first: usize,
    /// Rows of the matrix that stand above the positives.
    above: usize,
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

    /// A number of an anchor's row in the matrix.
    fn of_anchor(&self, x: &Tensor, anchor: usize, column: usize) -> f64 {
        f64::from(x.data()[(anchor - self.first) * x.columns() + column])
    }

    /// A number of a positive's row in the matrix.
    fn of_positive(&self, x: &Tensor, p: usize, column: usize) -> f64 {
        f64::from(x.data()[(self.above + p - self.first) * x.columns() + column])
    }

    /// The exponent of a negative, without the part that is the same for all.
    fn exponent(&self, x: &Tensor, anchor: usize, p: usize, n: usize) -> f64 {
        let column = x.columns() / 2 + n;
        4.0 * self.tangent * (self.of_anchor(x, anchor, column) + self.of_positive(x, p, column))
    }

    fn term(&self, x: &Tensor, anchor: usize, p: usize, among: &[usize]) -> Option<Term> {
        let weight = self.pairs.weights(anchor, p).0;
        if weight == 0.0 || !self.any {
            return None;
        }
        let negatives = log_sum_exp(among.iter().map(|&n| (self.exponent(x, anchor, p, n), 1.0)));
        let z = negatives - 2.0 * (1.0 + self.tangent) * self.of_anchor(x, anchor, p);
        let loss = softplus(z);
        self.within.holds(loss).then_some(Term { weight, loss, slope: logistic(z), negatives })
    }
}

impl MatrixFunction for AngularRows {
    fn row(&self, row: usize, x: &Tensor) -> (f64, f64) {
        let (columns, anchor) = (x.columns() / 2, row + self.first);
        if !self.anchors.contains(&anchor) {
            return (0.0, 0.0);
        }
        let among = self.negatives(anchor, columns);
        let terms = (0..columns).filter_map(|p| self.term(x, anchor, p, &among));
        terms.fold((0.0, 0.0), |(sum, count), term| (sum + term.weight * term.loss, count + term.weight))
    }

    fn gradient(&self, row: usize, x: &Tensor, dy: &[f32], gradient: &mut [f64]) {
        let columns = x.columns() / 2;
        let mut pull = |anchor: usize, p: usize, among: &[usize], as_anchor: bool| {
            let Some(term) = self.term(x, anchor, p, among) else { return };
            let slope = f64::from(dy[anchor - self.first]) * term.weight * term.slope;
            for &n in among {
                let share = (self.exponent(x, anchor, p, n) - term.negatives).exp();
                gradient[columns + n] += 4.0 * self.tangent * slope * share;
            }
            if as_anchor {
                gradient[p] -= 2.0 * (1.0 + self.tangent) * slope;
            }
        };
        let anchor = row + self.first;
        if self.anchors.contains(&anchor) {
            let among = self.negatives(anchor, columns);
            (0..columns).for_each(|p| pull(anchor, p, &among, true));
        }
        if row >= self.above {
            let p = row - self.above + self.first;
            for anchor in self.anchors.clone().filter(|&anchor| self.pairs.weights(anchor, p).0 != 0.0) {
                pull(anchor, p, &self.negatives(anchor, columns), false);
            }
        }
    }
}
