use serde::{Deserialize, Serialize};

use super::batch_easy_hard::{BatchEasyHardMiner, Strategy};
use super::{Miner, Seen};
use crate::objective::{Distance, Mined};

/// One triplet per anchor: its farthest positive and its nearest negative. Anchors without either are left out.
///
/// Use it for clean labels: one triplet per anchor, the hardest.
///
/// Reference: `BatchHardMiner` of pytorch-metric-learning; Hermans, Beyer, Leibe 2017 (1703.07737).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchHardMiner {
    /// How it measures. Default `l2`, between normalised vectors.
    pub distance: Distance,
}

impl Default for BatchHardMiner {
    fn default() -> Self {
        BatchHardMiner { distance: Distance::L2 }
    }
}

impl Miner for BatchHardMiner {
    fn distance(&self) -> Distance {
        self.distance
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        let hard = BatchEasyHardMiner {
            pos_strategy: Strategy::Hard,
            neg_strategy: Strategy::Hard,
            distance: self.distance,
            ..BatchEasyHardMiner::default()
        };
        Mined::Triplets(hard.mine(seen).list_triplets(seen.labels))
    }
}
