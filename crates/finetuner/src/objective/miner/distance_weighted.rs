use serde::{Deserialize, Serialize};

use super::pairs::of_row;
use super::{Miner, Seen};
use crate::objective::{Distance, Mined, registry};

/// Triplets whose negatives are drawn evenly over distances, so that near ones are not outnumbered.
///
/// An anchor has as many draws as its class has rows: a positive evenly, a negative n with weight
///
/// ```text
/// d^(2 - D) (1 - d^2 / 4)^((3 - D) / 2), d = max(d_an, cutoff), only for d < nonzero_loss_cutoff
/// ```
///
/// the inverse of how often that distance occurs between random points on a sphere in D dimensions. An anchor without
/// such a negative has none. The draw is a function of the embeddings.
///
/// Use it with `MarginLoss`: negatives of all distances, not the crowd in the middle.
///
/// Reference: `DistanceWeightedMiner` of pytorch-metric-learning; Wu et al. 2017 (1706.07567).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistanceWeightedMiner {
    /// Nearer negatives count as this far. Default 0.5.
    pub cutoff: f64,
    /// Negatives that are as far or farther are never drawn. Default 1.4.
    pub nonzero_loss_cutoff: f64,
}

impl Default for DistanceWeightedMiner {
    fn default() -> Self {
        DistanceWeightedMiner { cutoff: 0.5, nonzero_loss_cutoff: 1.4 }
    }
}

impl Miner for DistanceWeightedMiner {
    fn distance(&self) -> Distance {
        Distance::L2
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        let (key, columns, dimension) = (seen.key(), seen.distances.columns(), seen.rows.columns() as f64);
        let mut triplets = Vec::new();
        for a in 0..seen.distances.rows() {
            let (positives, negatives) = (of_row(&seen.labels.positives, a), of_row(&seen.labels.negatives, a));
            let logarithm = |n: usize| {
                let d = f64::from(seen.distances.data()[a * columns + n]).max(self.cutoff);
                let weight = (2.0 - dimension) * d.ln() - (dimension - 3.0) / 2.0 * (1.0 - d * d / 4.0).ln();
                (d < self.nonzero_loss_cutoff && weight.is_finite()).then_some((n, weight))
            };
            let weights: Vec<(usize, f64)> = negatives.into_iter().filter_map(logarithm).collect();
            let largest = weights.iter().map(|(_, weight)| *weight).fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = weights.iter().map(|(_, weight)| (weight - largest).exp()).sum();
            if positives.is_empty() || weights.is_empty() {
                continue;
            }
            let key = key.part(a as u64);
            for draw in 0..=positives.len() as u64 {
                let p = positives[(key.uniform(2 * draw) * positives.len() as f64) as usize];
                let mut left = key.uniform(2 * draw + 1) * total;
                let passed = weights.iter().find(|(_, weight)| {
                    left -= (weight - largest).exp();
                    left < 0.0
                });
                let n = passed.unwrap_or(&weights[weights.len() - 1]).0;
                triplets.push([a as u32, p as u32, n as u32]);
            }
        }
        Mined::Triplets(triplets)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("cutoff", self.cutoff).into_iter().collect()
    }
}
