//! The miners of Finetuner 0.4.1, which left the distance to the loss: here it is an option of theirs, too.

use serde::{Deserialize, Serialize};

use super::{BatchEasyHardMiner, Miner, Seen, Strategy};
use crate::objective::{Distance, Masks, Mined};

/// Every pair, as without a miner.
///
/// Use it to repeat runs of the original's version 0.4.1.
///
/// Reference: `SiameseMiner` of Finetuner 0.4.1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiameseMiner {}

/// Every triplet, as without a miner.
///
/// Use it to repeat runs of the original's version 0.4.1.
///
/// Reference: `TripletMiner` of Finetuner 0.4.1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TripletMiner {}

/// As [`BatchEasyHardMiner`], but an anchor looks only at later rows, so that no pair is seen from both sides.
///
/// Use it to repeat runs of the original's version 0.4.1.
///
/// Reference: `SiameseEasyHardMiner` of Finetuner 0.4.1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiameseEasyHardMiner {
    /// Default `hard`.
    pub pos_strategy: Strategy,
    /// Default `hard`. Not `semihard` where `pos_strategy` is `semihard` or `all`, and the other way round.
    pub neg_strategy: Strategy,
    /// How it measures; give the loss's own. Default `cosine`, as the losses of Finetuner 0.4.1 have it.
    pub distance: Distance,
}

/// As [`BatchEasyHardMiner`], with other defaults.
///
/// Use it to repeat runs of the original's version 0.4.1.
///
/// Reference: `TripletEasyHardMiner` of Finetuner 0.4.1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TripletEasyHardMiner {
    /// Default `hard`.
    pub pos_strategy: Strategy,
    /// Default `hard`. Not `semihard` where `pos_strategy` is `semihard` or `all`, and the other way round.
    pub neg_strategy: Strategy,
    /// How it measures; give the loss's own. Default `cosine`, as the losses of Finetuner 0.4.1 have it.
    pub distance: Distance,
}

impl Default for SiameseEasyHardMiner {
    fn default() -> Self {
        let hard = Strategy::Hard;
        SiameseEasyHardMiner { pos_strategy: hard, neg_strategy: hard, distance: Distance::Cosine }
    }
}

impl Default for TripletEasyHardMiner {
    fn default() -> Self {
        let hard = Strategy::Hard;
        TripletEasyHardMiner { pos_strategy: hard, neg_strategy: hard, distance: Distance::Cosine }
    }
}

fn easy_hard(pos_strategy: Strategy, neg_strategy: Strategy, distance: Distance) -> BatchEasyHardMiner {
    BatchEasyHardMiner { pos_strategy, neg_strategy, distance, ..BatchEasyHardMiner::default() }
}

impl Miner for SiameseMiner {
    fn distance(&self) -> Distance {
        Distance::Cosine
    }

    fn mine(&self, _: &Seen<'_>) -> Mined {
        Mined::Everything
    }
}

impl Miner for TripletMiner {
    fn distance(&self) -> Distance {
        Distance::Cosine
    }

    fn mine(&self, _: &Seen<'_>) -> Mined {
        Mined::Everything
    }
}

impl Miner for SiameseEasyHardMiner {
    fn distance(&self) -> Distance {
        self.distance
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        let columns = seen.distances.columns();
        let mut later = seen.labels.clone();
        for mask in [&mut later.positives, &mut later.negatives] {
            for (row, mask) in mask.data_mut().chunks_mut(columns.max(1)).enumerate() {
                mask[..columns.min(row + 1)].fill(0.0);
            }
        }
        let labels: &Masks = &later;
        easy_hard(self.pos_strategy, self.neg_strategy, self.distance).mine(&Seen { labels, ..*seen })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        easy_hard(self.pos_strategy, self.neg_strategy, self.distance).problems()
    }
}

impl Miner for TripletEasyHardMiner {
    fn distance(&self) -> Distance {
        self.distance
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        easy_hard(self.pos_strategy, self.neg_strategy, self.distance).mine(seen)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        easy_hard(self.pos_strategy, self.neg_strategy, self.distance).problems()
    }
}
