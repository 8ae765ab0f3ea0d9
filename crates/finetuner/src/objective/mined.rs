//! What a miner chose.

use engine::function::{Binary, TripletRule, TripletShape, Unary};
use engine::{Device, Tensor};

use super::Distance;

/// Which pairs of rows have the same label and which do not: two matrices `[rows, others]` of 0 and 1, where the others
/// are the rows themselves unless said. A row is never a pair with itself.
#[derive(Debug, Clone)]
pub struct Masks {
    /// 1 where two different rows share their label.
    pub positives: Tensor,
    /// 1 where the labels differ.
    pub negatives: Tensor,
}

impl Masks {
    /// The masks of these labels.
    pub fn new(labels: &[u32]) -> Self {
        Masks::between(labels, labels, &(0..labels.len() as u32).collect::<Vec<_>>())
    }

    /// The masks of pairs of a row and one of the others. `own` says for each row which of the others is itself; empty
    /// if none is.
    pub fn between(labels: &[u32], others: &[u32], own: &[u32]) -> Self {
        let shape = [labels.len(), others.len()];
        let (mut positives, mut negatives) = (Tensor::zeros(&shape), Tensor::zeros(&shape));
        let width = others.len().max(1);
        let rows = positives.data_mut().chunks_mut(width).zip(negatives.data_mut().chunks_mut(width));
        for (i, (positives, negatives)) in rows.enumerate() {
            for (j, label) in others.iter().enumerate() {
                let mask = if labels[i] == *label { &mut positives[j] } else { &mut negatives[j] };
                *mask = f32::from(u8::from(own.get(i) != Some(&(j as u32))));
            }
        }
        Masks { positives, negatives }
    }
}

/// The tuples of a batch that a loss sees. Mined distances carry no gradient.
#[derive(Debug, Clone)]
pub enum Mined {
    /// Every pair and every triplet of the labels.
    Everything,
    /// These pairs: nonzero in `[rows, rows]`.
    Pairs(Masks),
    /// Every triplet with `low < d_an - d_ap <= high`.
    Interval {
        /// Lower bound, excluded.
        low: f64,
        /// Upper bound, included.
        high: f64,
        /// How it was measured.
        distance: Distance,
        /// Distances of all pairs, smaller is closer.
        distances: Tensor,
    },
    /// Every triplet whose negative sees anchor and positive under a large angle:
    /// `‖a - p‖ > 2 tangent ‖n - (a + p) / 2‖`.
    Angles {
        /// Of the smallest angle.
        tangent: f64,
        /// Squared distances of rows and others.
        squares: Tensor,
        /// Squared distances among the others.
        among: Tensor,
    },
    /// These triplets of anchor, positive and negative.
    Triplets(Vec<[u32; 3]>),
}

impl Mined {
    /// How often each pair takes part: pairs as they are, a triplet `(a, p, n)` as the pairs `(a, p)` and `(a, n)`.
    pub fn pairs(&self, device: &dyn Device, labels: &Masks) -> Masks {
        match self {
            Mined::Everything => labels.clone(),
            Mined::Pairs(pairs) => pairs.clone(),
            Mined::Triplets(triplets) => {
                let shape = labels.positives.shape();
                let mut pairs = Masks { positives: Tensor::zeros(shape), negatives: Tensor::zeros(shape) };
                let columns = shape[1];
                for &[a, p, n] in triplets {
                    pairs.positives.data_mut()[a as usize * columns + p as usize] += 1.0;
                    pairs.negatives.data_mut()[a as usize * columns + n as usize] += 1.0;
                }
                pairs
            }
            Mined::Angles { .. } => {
                let shape = labels.positives.shape();
                let mut pairs = Masks { positives: Tensor::zeros(shape), negatives: Tensor::zeros(shape) };
                let (positives, negatives) = (pairs.positives.data_mut(), pairs.negatives.data_mut());
                self.each_triplet(labels, |a, p, n| {
                    positives[a * shape[1] + p] += 1.0;
                    negatives[a * shape[1] + n] += 1.0;
                });
                pairs
            }
            Mined::Interval { low, high, distances, .. } => {
                // The gradient of sum (d_ap - d_an) counts: positives upwards, negatives downwards.
                let rule = TripletRule::mined(*low, *high, TripletShape::Linear);
                let ones = Tensor::full(&[distances.rows()], 1.0);
                let (positives, negatives) = (&labels.positives, &labels.negatives);
                let counts = device.triplets_backward(&rule, distances, None, positives, negatives, &ones);
                let negated = device.unary(Unary::Affine { scale: -1.0, shift: 0.0 }, &counts);
                Masks { positives: device.unary(Unary::Relu, &counts), negatives: device.unary(Unary::Relu, &negated) }
            }
        }
    }

    /// Whether it keeps a triplet of an anchor, one of its positives and one of its negatives; `true` where it chose by
    /// other means.
    pub fn keeps(&self, a: usize, p: usize, n: usize) -> bool {
        let at = |matrix: &Tensor, row: usize, column: usize| f64::from(matrix.data()[row * matrix.columns() + column]);
        match self {
            Mined::Interval { low, high, distances, .. } => {
                let apart = at(distances, a, n) - at(distances, a, p);
                apart > *low && apart <= *high
            }
            Mined::Angles { tangent, squares, among } => {
                // The median of a triangle from its sides.
                let base = at(squares, a, p);
                let median = at(squares, a, n) / 2.0 + at(among, p, n) / 2.0 - base / 4.0;
                base > 4.0 * tangent * tangent * median
            }
            _ => true,
        }
    }

    /// Which pairs take part at all: [`Mined::pairs`] without multiplicity.
    pub fn present(&self, device: &dyn Device, labels: &Masks) -> Masks {
        let pairs = self.pairs(device, labels);
        let one = Tensor::scalar(1.0);
        Masks {
            positives: device.binary(Binary::Minimum, &pairs.positives, &one),
            negatives: device.binary(Binary::Minimum, &pairs.negatives, &one),
        }
    }

    /// How often each row is an anchor, a positive or a negative; only as an anchor if the others are not the rows
    /// themselves.
    pub fn times_chosen(&self, device: &dyn Device, labels: &Masks, among_themselves: bool) -> Vec<f64> {
        let pairs = self.pairs(device, labels);
        let (rows, columns) = (labels.positives.rows(), labels.positives.columns());
        let mut counts = vec![0.0; rows];
        for (at, (positive, negative)) in pairs.positives.data().iter().zip(pairs.negatives.data()).enumerate() {
            let (row, column) = (at / columns, at % columns);
            // The anchor of a triplet stands in two of its pairs.
            let as_anchor = if matches!(self, Mined::Interval { .. } | Mined::Angles { .. } | Mined::Triplets(_)) {
                0.0
            } else {
                *negative
            };
            counts[row] += f64::from(positive + as_anchor);
            if among_themselves {
                counts[column] += f64::from(positive + negative);
            }
        }
        counts
    }

    /// Every triplet, listed in order: for inspection, as there may be very many.
    pub fn list_triplets(&self, labels: &Masks) -> Vec<[u32; 3]> {
        if let Mined::Triplets(triplets) = self {
            return triplets.clone();
        }
        let mut triplets = Vec::new();
        let pairs = if let Mined::Pairs(pairs) = self { pairs } else { labels };
        self.each_triplet(pairs, |a, p, n| triplets.push([a as u32, p as u32, n as u32]));
        triplets
    }

    /// Every triplet of these pairs that is kept, in order.
    fn each_triplet(&self, pairs: &Masks, mut visit: impl FnMut(usize, usize, usize)) {
        let columns = pairs.positives.columns();
        for a in 0..pairs.positives.rows() {
            let marked = |mask: &Tensor| -> Vec<usize> {
                (0..columns).filter(|column| mask.data()[a * columns + column] != 0.0).collect()
            };
            let negatives = marked(&pairs.negatives);
            for p in marked(&pairs.positives) {
                negatives.iter().filter(|&&n| self.keeps(a, p, n)).for_each(|&n| visit(a, p, n));
            }
        }
    }
}
