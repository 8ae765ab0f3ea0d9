use engine::Tensor;
use serde::{Deserialize, Serialize};

use super::pairs::marked;
use super::{Miner, Seen};
use crate::objective::{Distance, Masks, Mined, registry};

/// The hardest share of all positive and of all negative pairs of the batch: the farthest positives, the nearest
/// negatives. Of equally hard pairs the first by row and column are taken.
///
/// Use it to leave the easier half of the pairs out.
///
/// Reference: `HDCMiner` of pytorch-metric-learning, which also takes its pairs from another miner for a cascade; Yuan,
/// Yang, Zhang 2017 (1611.05720).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HDCMiner {
    /// Share of the pairs, rounded up. Default 0.5.
    pub filter_percentage: f64,
    /// How it measures. Default `l2`, between normalised vectors.
    pub distance: Distance,
}

impl Default for HDCMiner {
    fn default() -> Self {
        HDCMiner { filter_percentage: 0.5, distance: Distance::L2 }
    }
}

impl Miner for HDCMiner {
    fn distance(&self) -> Distance {
        self.distance
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        let Seen { distances, labels, .. } = *seen;
        let hardest = |mask: &Tensor, sign: f32| -> Tensor {
            let mut pairs = marked(mask);
            pairs.sort_by(|&one, &other| (sign * distances.data()[one]).total_cmp(&(sign * distances.data()[other])));
            pairs.truncate((self.filter_percentage * pairs.len() as f64).ceil() as usize);
            let mut kept = Tensor::zeros(mask.shape());
            pairs.into_iter().for_each(|pair| kept.data_mut()[pair] = 1.0);
            kept
        };
        let (positives, negatives) = (hardest(&labels.positives, -1.0), hardest(&labels.negatives, 1.0));
        Mined::Pairs(Masks { positives, negatives })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let above = (self.filter_percentage > 1.0).then(|| ("filter_percentage", "expected at most 1".to_owned()));
        registry::positive("filter_percentage", self.filter_percentage).into_iter().chain(above).collect()
    }
}
