use engine::Tensor;
use serde::{Deserialize, Serialize};

use super::pairs::chosen;
use super::{Miner, Seen};
use crate::objective::{Distance, Mined};

/// Pairs that contradict another of their anchor: positives farther than the nearest negative and negatives nearer than
/// the farthest positive, by a margin.
///
/// ```text
/// positive p if d_ap + epsilon > min over negatives of d, negative n if d_an - epsilon < max over positives of d
/// ```
///
/// An anchor without negatives keeps no positives, and the other way round.
///
/// Use it with `MultiSimilarityLoss`.
///
/// Reference: `MultiSimilarityMiner` of pytorch-metric-learning; Wang et al. 2019 (1904.06627).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultiSimilarityMiner {
    /// Default 0.1.
    pub epsilon: f64,
    /// How it measures. Default `cosine`.
    pub distance: Distance,
}

impl Default for MultiSimilarityMiner {
    fn default() -> Self {
        MultiSimilarityMiner { epsilon: 0.1, distance: Distance::Cosine }
    }
}

impl Miner for MultiSimilarityMiner {
    fn distance(&self) -> Distance {
        self.distance
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        let Seen { distances, labels, .. } = *seen;
        let extremes = |mask: &Tensor, start: f64, choose: fn(f64, f64) -> f64| -> Vec<f64> {
            let columns = distances.columns().max(1);
            let rows = distances.data().chunks(columns).zip(mask.data().chunks(columns));
            let of_row = |(d, mask): (&[f32], &[f32])| {
                let marked = d.iter().zip(mask).filter(|(_, mask)| **mask != 0.0);
                marked.map(|(d, _)| f64::from(*d)).fold(start, choose)
            };
            rows.map(of_row).collect()
        };
        let nearest = extremes(&labels.negatives, f64::INFINITY, f64::min);
        let farthest = extremes(&labels.positives, f64::NEG_INFINITY, f64::max);
        chosen(distances, labels, |row, d| d + self.epsilon > nearest[row], |row, d| d - self.epsilon < farthest[row])
    }
}
