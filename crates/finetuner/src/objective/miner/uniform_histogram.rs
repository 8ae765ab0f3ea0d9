use engine::Tensor;
use serde::{Deserialize, Serialize};

use super::pairs::marked;
use super::{Miner, Seen};
use crate::objective::{Distance, Masks, Mined};

/// Pairs drawn evenly over the range of their distances: equal bins between the smallest and the largest, of each
/// non-empty one the same number of pairs with replacement. The draw is a function of the embeddings.
///
/// Use it for pairs of all distances alike.
///
/// Reference: `UniformHistogramMiner` of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UniformHistogramMiner {
    /// Default 100.
    pub num_bins: usize,
    /// Positive pairs drawn of a bin. Default 10.
    pub pos_per_bin: u32,
    /// Negative pairs drawn of a bin. Default 10.
    pub neg_per_bin: u32,
    /// How it measures. Default `l2`, between normalised vectors.
    pub distance: Distance,
}

impl Default for UniformHistogramMiner {
    fn default() -> Self {
        UniformHistogramMiner { num_bins: 100, pos_per_bin: 10, neg_per_bin: 10, distance: Distance::L2 }
    }
}

impl UniformHistogramMiner {
    fn draw(&self, seen: &Seen<'_>, mask: &Tensor, side: u64, per_bin: u32) -> Tensor {
        let pairs = marked(mask);
        let distance = |pair: usize| f64::from(seen.distances.data()[pair]);
        let low = pairs.iter().map(|&pair| distance(pair)).fold(f64::INFINITY, f64::min);
        let high = pairs.iter().map(|&pair| distance(pair)).fold(f64::NEG_INFINITY, f64::max);
        let mut bins = vec![Vec::new(); self.num_bins];
        for pair in pairs {
            let place = if high > low { (distance(pair) - low) / (high - low) } else { 0.0 };
            bins[((place * self.num_bins as f64) as usize).min(self.num_bins - 1)].push(pair);
        }
        let (key, mut drawn) = (seen.key().part(side), Tensor::zeros(mask.shape()));
        for (bin, pairs) in bins.iter().enumerate().filter(|(_, pairs)| !pairs.is_empty()) {
            let key = key.part(bin as u64);
            for draw in 0..u64::from(per_bin) {
                drawn.data_mut()[pairs[(key.uniform(draw) * pairs.len() as f64) as usize]] += 1.0;
            }
        }
        drawn
    }
}

impl Miner for UniformHistogramMiner {
    fn distance(&self) -> Distance {
        self.distance
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        Mined::Pairs(Masks {
            positives: self.draw(seen, &seen.labels.positives, 0, self.pos_per_bin),
            negatives: self.draw(seen, &seen.labels.negatives, 1, self.neg_per_bin),
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        (self.num_bins == 0).then(|| ("num_bins", "expected at least 1".to_owned())).into_iter().collect()
    }
}
