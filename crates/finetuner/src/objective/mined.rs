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

    /// Which pairs take part at all: [`Mined::pairs`] without multiplicity.
    pub fn present(&self, device: &dyn Device, labels: &Masks) -> Masks {
        let pairs = self.pairs(device, labels);
        let one = Tensor::scalar(1.0);
        Masks {
            positives: device.binary(Binary::Minimum, &pairs.positives, &one),
            negatives: device.binary(Binary::Minimum, &pairs.negatives, &one),
        }
    }

    /// Every triplet, listed in order: for inspection, as there may be very many.
    pub fn list_triplets(&self, labels: &Masks) -> Vec<[u32; 3]> {
        let joined = |masks: &Masks, keep: &dyn Fn(usize, usize) -> bool| {
            let columns = masks.positives.columns();
            let mut triplets = Vec::new();
            for a in 0..masks.positives.rows() {
                let row = a * columns..(a + 1) * columns;
                let (positives, negatives) =
                    (&masks.positives.data()[row.clone()], &masks.negatives.data()[row.clone()]);
                for p in (0..columns).filter(|&p| positives[p] != 0.0) {
                    for n in (0..columns).filter(|&n| negatives[n] != 0.0 && keep(row.start + p, row.start + n)) {
                        triplets.push([a as u32, p as u32, n as u32]);
                    }
                }
            }
            triplets
        };
        match self {
            Mined::Everything => joined(labels, &|_, _| true),
            Mined::Pairs(pairs) => joined(pairs, &|_, _| true),
            Mined::Triplets(triplets) => triplets.clone(),
            Mined::Interval { low, high, distances, .. } => joined(labels, &|p, n| {
                let apart = f64::from(distances.data()[n]) - f64::from(distances.data()[p]);
                apart > *low && apart <= *high
            }),
        }
    }
}
