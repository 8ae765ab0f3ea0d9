//! Losses as functions of one anchor: its distances to all that it is compared with, and which of those are positives
//! and negatives. The matrix of distances is never held as a whole, and nothing in it is rounded.

use std::sync::Arc;

use engine::function::RowFunction;
use engine::{Tape, Var};

use super::loss::Batch;
use super::reducer::Of;
use super::{Distance, Masks, Reducer};
use crate::error::Result;

/// One of those that an anchor is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) column: usize,
    /// Smaller is closer: similarities are negated.
    pub(super) distance: f64,
    /// How often the pair takes part.
    pub(super) weight: f64,
}

/// A row of the batch and its pairs, in the order of columns.
pub(super) struct Anchor<'a> {
    pub(super) row: usize,
    /// To every column, pair or not; smaller is closer.
    pub(super) distances: &'a [f64],
    pub(super) positives: Vec<Candidate>,
    pub(super) negatives: Vec<Candidate>,
}

impl Anchor<'_> {
    /// The first of the nearest.
    pub(super) fn nearest(of: &[Candidate]) -> Option<Candidate> {
        of.iter().copied().reduce(|best, next| if next.distance < best.distance { next } else { best })
    }

    /// The first of the farthest.
    pub(super) fn farthest(of: &[Candidate]) -> Option<Candidate> {
        of.iter().copied().reduce(|best, next| if next.distance > best.distance { next } else { best })
    }
}

/// Bounds of the losses that a reducer counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within(pub(super) (f64, f64));

impl Within {
    /// Whether a loss counts. One that is no number does, so that it is noticed.
    pub(super) fn holds(self, loss: f64) -> bool {
        let Within((low, high)) = self;
        let outside = (low != f64::NEG_INFINITY && loss <= low) || (high != f64::INFINITY && loss >= high);
        !outside
    }
}

/// Collects the losses of an anchor and their derivatives.
pub(super) struct Terms<'a> {
    within: Within,
    sum: f64,
    count: f64,
    gradient: Option<&'a mut [f64]>,
}

impl Terms<'_> {
    /// Adds a loss that counts `weight` times; whether it lies where the reducer counts it at all. Only then its
    /// derivatives belong into [`Terms::slope`].
    pub(super) fn add(&mut self, weight: f64, loss: f64) -> bool {
        let counts = self.within.holds(loss);
        if counts {
            self.sum += weight * loss;
            self.count += weight;
        }
        counts
    }

    /// Adds to the derivative of the sum of all losses by a distance.
    pub(super) fn slope(&mut self, candidate: &Candidate, slope: f64) {
        self.slope_at(candidate.column, slope);
    }

    /// The same for a column.
    pub(super) fn slope_at(&mut self, column: usize, slope: f64) {
        if let Some(gradient) = &mut self.gradient {
            gradient[column] += slope;
        }
    }
}

/// Which pairs there are.
#[derive(Debug, Clone)]
pub(super) enum Pairs {
    /// All that the labels make.
    Labels {
        rows: Vec<u32>,
        columns: Vec<u32>,
        /// For each row the column that is itself; empty if none is.
        own: Vec<u32>,
    },
    /// Those that a miner chose, and how often.
    Mined(Masks),
}

impl Pairs {
    /// How often a pair takes part as a positive and as a negative one.
    pub(super) fn weights(&self, row: usize, column: usize) -> (f64, f64) {
        match self {
            Pairs::Labels { rows, columns, own } => match own.get(row) == Some(&(column as u32)) {
                true => (0.0, 0.0),
                false if rows[row] == columns[column] => (1.0, 0.0),
                false => (0.0, 1.0),
            },
            Pairs::Mined(masks) => {
                let at = row * masks.positives.columns() + column;
                (f64::from(masks.positives.data()[at]), f64::from(masks.negatives.data()[at]))
            }
        }
    }

    /// Whether there is any positive and any negative pair.
    pub(super) fn any(&self) -> (bool, bool) {
        let (mut positive, mut negative) = (false, false);
        for (row, column) in (0..self.rows()).flat_map(|row| (0..self.columns()).map(move |column| (row, column))) {
            let weights = self.weights(row, column);
            (positive, negative) = (positive || weights.0 != 0.0, negative || weights.1 != 0.0);
            if positive && negative {
                break;
            }
        }
        (positive, negative)
    }

    /// Whether a row has both a positive and a negative.
    pub(super) fn has_triplet(&self, row: usize) -> bool {
        let has = |part: fn((f64, f64)) -> f64| (0..self.columns()).any(|c| part(self.weights(row, c)) != 0.0);
        has(|weights| weights.0) && has(|weights| weights.1)
    }

    fn rows(&self) -> usize {
        match self {
            Pairs::Labels { rows, .. } => rows.len(),
            Pairs::Mined(masks) => masks.positives.rows(),
        }
    }

    fn columns(&self) -> usize {
        match self {
            Pairs::Labels { columns, .. } => columns.len(),
            Pairs::Mined(masks) => masks.positives.columns(),
        }
    }

    /// The pairs of a row.
    fn anchor<'a>(&self, row: usize, distances: &'a [f64]) -> Anchor<'a> {
        let (mut positives, mut negatives) = (Vec::new(), Vec::new());
        for (column, &distance) in distances.iter().enumerate() {
            let (positive, negative) = self.weights(row, column);
            if positive != 0.0 {
                positives.push(Candidate { column, distance, weight: positive });
            }
            if negative != 0.0 {
                negatives.push(Candidate { column, distance, weight: negative });
            }
        }
        Anchor { row, distances, positives, negatives }
    }
}

struct PerAnchor<F> {
    pairs: Pairs,
    within: Within,
    loss: F,
}

impl<F: Fn(&Anchor<'_>, &mut Terms<'_>) + Send + Sync> RowFunction for PerAnchor<F> {
    fn row(&self, row: usize, x: &[f64], gradient: Option<&mut [f64]>) -> (f64, f64) {
        let mut terms = Terms { within: self.within, sum: 0.0, count: 0.0, gradient };
        (self.loss)(&self.pairs.anchor(row, x), &mut terms);
        (terms.sum, terms.count)
    }
}

impl Batch<'_> {
    /// The pairs that the miner chooses, or all. A pair of several mined triplets takes part `repeatedly` or once.
    pub(super) fn pairs(&self, tape: &Tape<'_>, repeatedly: bool) -> Pairs {
        if self.miner.is_none() {
            return self.labelled_pairs();
        }
        let (device, labels) = (tape.device(), self.masks());
        let mined = self.mine(tape, &labels);
        Pairs::Mined(if repeatedly { mined.pairs(device, &labels) } else { mined.present(device, &labels) })
    }

    /// How much each row counts: how often the miner chooses it, beside the one chosen most often; 1 without a miner, or
    /// where it chooses nothing.
    pub(super) fn anchor_weights(&self, tape: &Tape<'_>) -> Vec<f64> {
        let rows = self.layout.labels.len();
        if self.miner.is_none() {
            return vec![1.0; rows];
        }
        let labels = self.masks();
        let counts = self.mine(tape, &labels).times_chosen(tape.device(), &labels, self.reference.is_none());
        let largest = counts.iter().copied().fold(0.0, f64::max);
        if largest == 0.0 { vec![1.0; rows] } else { counts.into_iter().map(|count| count / largest).collect() }
    }

    /// All pairs, whatever a miner would choose.
    pub(super) fn labelled_pairs(&self) -> Pairs {
        Pairs::Labels {
            rows: self.layout.labels.clone(),
            columns: self.other_labels().to_vec(),
            own: match self.reference {
                None => (0..self.layout.labels.len() as u32).collect(),
                Some(reference) => reference.own.clone(),
            },
        }
    }

    /// The reduced losses that `loss` gives for each anchor; they are [`Of`] anchors or pairs.
    pub(super) fn per_anchor(
        &self,
        tape: &mut Tape<'_>,
        distance: Distance,
        reducer: &Reducer,
        of: Of,
        pairs: Pairs,
        loss: impl Fn(&Anchor<'_>, &mut Terms<'_>) + Send + Sync + 'static,
    ) -> Result<Var> {
        let (sums, counts) = self.anchor_rows(tape, distance, reducer.bounds(of), pairs, loss)?;
        reducer.of_rows(tape, &sums, &counts, of, &self.layout.labels)
    }

    /// The sum and the number of each anchor's losses that lie within the bounds, `[rows]` each.
    pub(super) fn anchor_rows(
        &self,
        tape: &mut Tape<'_>,
        distance: Distance,
        bounds: (f64, f64),
        pairs: Pairs,
        loss: impl Fn(&Anchor<'_>, &mut Terms<'_>) + Send + Sync + 'static,
    ) -> Result<(Var, Var)> {
        let (similarity, scale) = (distance.similarity(), if distance.inverted() { -1.0 } else { 1.0 });
        let function = Arc::new(PerAnchor { pairs, within: Within(bounds), loss });
        Ok(tape.similarity_rows(similarity, scale, self.embeddings, self.others(), function)?)
    }
}

/// `ln sum weight e^z` over `(z, weight)`; minus infinity of nothing. The share of one of them is
/// `weight e^(z - result)`.
pub(super) fn log_sum_exp(terms: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let largest = terms.clone().map(|(z, _)| z).fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + terms.map(|(z, weight)| weight * (z - largest).exp()).sum::<f64>().ln()
}

/// `ln(1 + e^z)` without overflow.
pub(super) fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

/// `1 / (1 + e^-z)`, the derivative of [`softplus`], without overflow.
pub(super) fn logistic(z: f64) -> f64 {
    if z >= 0.0 { 1.0 / (1.0 + (-z).exp()) } else { z.exp() / (1.0 + z.exp()) }
}
