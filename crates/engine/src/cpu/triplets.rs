//! Losses over all triplets of a batch without listing them: `O(B log B)` per anchor where the loss is piecewise
//! linear and mined by its own distances, direct loops over an anchor's pairs elsewhere; memory `O(B^2)`.

use rayon::prelude::*;

use super::elementwise::{logistic, softplus};
use crate::function::{TripletRule, TripletShape};

/// The matrices of a call, `[anchors, columns]` each.
#[derive(Clone, Copy)]
pub(super) struct Triplets<'a> {
    pub(super) rule: &'a TripletRule,
    pub(super) distances: &'a [f32],
    pub(super) mining: Option<&'a [f32]>,
    pub(super) positives: &'a [f32],
    pub(super) negatives: &'a [f32],
    pub(super) columns: usize,
}

/// The candidates that a row of a mask marks.
fn marked(mask: &[f32]) -> Vec<usize> {
    (0..mask.len()).filter(|&c| mask[c] != 0.0).collect()
}

impl TripletRule {
    /// Loss and its derivative in `v = d_ap - d_an + margin`.
    fn loss(&self, v: f64) -> (f64, f64) {
        match self.shape {
            TripletShape::Hinge if v > 0.0 => (v, 1.0),
            TripletShape::Hinge => (0.0, 0.0),
            TripletShape::Softplus => (softplus(v), logistic(v)),
            TripletShape::Linear => (v, 1.0),
        }
    }
}

impl Triplets<'_> {
    fn row<'m>(&self, matrix: &'m [f32], a: usize) -> &'m [f32] {
        &matrix[a * self.columns..(a + 1) * self.columns]
    }

    fn sorted_path(&self) -> bool {
        self.mining.is_none() && !self.rule.swap && self.rule.shape != TripletShape::Softplus
    }

    /// Sum and count of each anchor.
    pub(super) fn forward(&self, sums: &mut [f32], counts: &mut [f32]) {
        sums.par_iter_mut().zip(counts).enumerate().for_each(|(a, (sum, count))| {
            let (mut total, mut counted) = (0.0, 0u64);
            if self.sorted_path() {
                let negatives = SortedNegatives::new(self, a);
                for p in marked(self.row(self.positives, a)) {
                    let found = negatives.range(self.rule, f64::from(self.row(self.distances, a)[p]));
                    total += found.sum;
                    counted += found.counted as u64;
                }
            } else {
                let negatives = marked(self.row(self.negatives, a));
                for p in marked(self.row(self.positives, a)) {
                    for &n in &negatives {
                        if let Some(term) = self.term(a, p, n) {
                            total += term.loss;
                            counted += 1;
                        }
                    }
                }
            }
            (*sum, *count) = (total as f32, counted as f32);
        });
    }

    /// The gradient of the distances, given that of each anchor's sum.
    pub(super) fn backward(&self, dy: &[f32], gradient: &mut [f32]) {
        gradient.par_chunks_mut(self.columns.max(1)).enumerate().for_each(|(a, gradient)| {
            let mut sums = vec![0.0f64; self.columns];
            if self.sorted_path() {
                self.sorted_gradient(a, &mut sums);
            } else {
                self.direct_gradient(a, &mut sums);
            }
            sums.iter_mut().for_each(|sum| *sum *= f64::from(dy[a]));
            if self.rule.swap {
                self.swapped_gradient(a, dy, &mut sums);
            }
            gradient.iter_mut().zip(sums).for_each(|(gradient, sum)| *gradient = sum as f32);
        });
    }

    fn sorted_gradient(&self, a: usize, sums: &mut [f64]) {
        let negatives = SortedNegatives::new(self, a);
        // Differences of how many positives each sorted negative meets.
        let mut steps = vec![0.0; negatives.order.len() + 1];
        for p in marked(self.row(self.positives, a)) {
            let found = negatives.range(self.rule, f64::from(self.row(self.distances, a)[p]));
            sums[p] += (found.to - found.from) as f64;
            steps[found.from] += 1.0;
            steps[found.to] -= 1.0;
        }
        let mut met = 0.0;
        for (&n, step) in negatives.order.iter().zip(steps) {
            met += step;
            sums[n] -= met;
        }
    }

    fn direct_gradient(&self, a: usize, sums: &mut [f64]) {
        let negatives = marked(self.row(self.negatives, a));
        for p in marked(self.row(self.positives, a)) {
            for &n in &negatives {
                if let Some(term) = self.term(a, p, n) {
                    sums[p] += term.slope;
                    sums[n] -= term.slope * term.share;
                }
            }
        }
    }

    /// What reaches row `p` where it is the positive and nearer to the negative than the anchor is.
    fn swapped_gradient(&self, p: usize, dy: &[f32], sums: &mut [f64]) {
        for a in 0..dy.len() {
            if dy[a] == 0.0 || self.row(self.positives, a)[p] == 0.0 {
                continue;
            }
            for n in marked(self.row(self.negatives, a)) {
                if let Some(term) = self.term(a, p, n) {
                    sums[n] -= f64::from(dy[a]) * term.slope * (1.0 - term.share);
                }
            }
        }
    }

    /// A triplet that counts.
    fn term(&self, a: usize, p: usize, n: usize) -> Option<Term> {
        let at = |matrix: &[f32], r: usize, c: usize| f64::from(matrix[r * self.columns + c]);
        let mining = self.mining.unwrap_or(self.distances);
        let apart = at(mining, a, n) - at(mining, a, p);
        if !(apart > self.rule.low && apart <= self.rule.high) {
            return None;
        }
        let mut negative = at(self.distances, a, n);
        let mut share = 1.0;
        if self.rule.swap {
            let other = at(self.distances, p, n);
            share = if negative < other { 1.0 } else { f64::from(u8::from(negative == other)) / 2.0 };
            negative = negative.min(other);
        }
        let (loss, slope) = self.rule.loss(at(self.distances, a, p) - negative + self.rule.margin);
        (self.rule.above < loss && loss < self.rule.below).then_some(Term { loss, slope, share })
    }
}

struct Term {
    loss: f64,
    slope: f64,
    /// The part of the negative's gradient that goes to the anchor's distance.
    share: f64,
}

/// An anchor's negatives by distance, with prefix sums.
struct SortedNegatives {
    order: Vec<usize>,
    distances: Vec<f64>,
    /// `sums[i]`: of the first `i` distances.
    sums: Vec<f64>,
}

/// The negatives `from..to` have a slope; `counted` many count.
struct Found {
    from: usize,
    to: usize,
    counted: usize,
    sum: f64,
}

impl SortedNegatives {
    fn new(triplets: &Triplets<'_>, a: usize) -> Self {
        let row = triplets.row(triplets.distances, a);
        let mut order = marked(triplets.row(triplets.negatives, a));
        order.sort_unstable_by(|&i, &j| row[i].total_cmp(&row[j]).then(i.cmp(&j)));
        let distances: Vec<f64> = order.iter().map(|&n| f64::from(row[n])).collect();
        let mut sums = vec![0.0];
        for distance in &distances {
            sums.push(sums[sums.len() - 1] + distance);
        }
        SortedNegatives { order, distances, sums }
    }

    /// A triplet's loss falls as its negative gets farther, so those that count lie side by side.
    fn range(&self, rule: &TripletRule, positive: f64) -> Found {
        let loss = |negative: f64| rule.loss(positive - negative + rule.margin);
        let from = self.distances.partition_point(|n| !(n - positive > rule.low && loss(*n).0 < rule.below));
        let end = self.distances.partition_point(|n| n - positive <= rule.high && loss(*n).0 > rule.above).max(from);
        let to = self.distances.partition_point(|n| loss(*n).1 > 0.0).clamp(from, end);
        let sum = (to - from) as f64 * (positive + rule.margin) - (self.sums[to] - self.sums[from]);
        Found { from, to, counted: end - from, sum }
    }
}
