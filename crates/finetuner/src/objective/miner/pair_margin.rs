use serde::{Deserialize, Serialize};

use super::pairs::chosen;
use super::{Miner, Seen};
use crate::objective::{Distance, Mined};

/// Positive pairs farther apart than a margin and negative pairs nearer than another.
///
/// With a similarity the comparisons flip, and the margins are similarities.
///
/// Use it with pair losses: positives too far and negatives too near.
///
/// Reference: `PairMarginMiner` of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PairMarginMiner {
    /// Default 0.2.
    pub pos_margin: f64,
    /// Default 0.8.
    pub neg_margin: f64,
    /// How it measures. Default `l2`, between normalised vectors.
    pub distance: Distance,
}

impl Default for PairMarginMiner {
    fn default() -> Self {
        PairMarginMiner { pos_margin: 0.2, neg_margin: 0.8, distance: Distance::L2 }
    }
}

impl Miner for PairMarginMiner {
    fn distance(&self) -> Distance {
        self.distance
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        let Seen { distances, labels, .. } = *seen;
        let far = self.distance.threshold(self.pos_margin);
        let near = self.distance.threshold(self.neg_margin);
        chosen(distances, labels, |_, d| d > far, |_, d| d < near)
    }
}
