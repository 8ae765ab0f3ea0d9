use serde::{Deserialize, Serialize};

use super::{Miner, Seen};
use crate::objective::{Distance, Mined};

/// The triplets that the data is made of, and no others: example `i`'s anchor, positive and each of its negatives. Of
/// items in one column, rows 3k, 3k + 1 and 3k + 2; one or two rows that are left over make none.
///
/// Use it for batches whose rows are triplets in order.
///
/// Reference: `EmbeddingsAlreadyPackagedAsTriplets` of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingsAlreadyPackagedAsTriplets {}

impl Miner for EmbeddingsAlreadyPackagedAsTriplets {
    fn distance(&self) -> Distance {
        Distance::L2
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        if seen.columns.len() < 2 {
            let triplets = (0..seen.rows.rows() as u32 / 3).map(|k| [3 * k, 3 * k + 1, 3 * k + 2]);
            return Mined::Triplets(triplets.collect());
        }
        let (mut start, mut triplets) = (seen.columns[0] + seen.columns[1], Vec::new());
        for &rows in &seen.columns[2..] {
            let positives = seen.columns[0];
            triplets.extend((0..rows).map(|i| [i as u32, (positives + i) as u32, (start + i) as u32]));
            start += rows;
        }
        Mined::Triplets(triplets)
    }
}
