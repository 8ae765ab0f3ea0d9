use engine::{Cpu, Tensor};
use serde::{Deserialize, Serialize};

use super::pairs::marked;
use super::{Miner, Seen};
use crate::error::{Error, Result};
use crate::objective::{Distance, Masks, Mined, registry};
use crate::spec::Options;

/// The hardest share of all positive and of all negative pairs of the batch: the farthest positives, the nearest
/// negatives. Of equally hard pairs the first by row and column are taken.
///
/// Use it to leave the easier half of the pairs out.
///
/// With `miner` it takes the share of what another miner chose, also one of its own kind, for a cascade:
/// `{"miner": "HDCMiner", "miner_options": {"filter_percentage": 0.5}}`. A triplet counts as its two pairs, once each.
///
/// Reference: `HDCMiner` of pytorch-metric-learning, where `set_idx_externally` makes the cascade; Yuan, Yang, Zhang 2017
/// (1611.05720).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HDCMiner {
    /// Share of the pairs, rounded up. Default 0.5.
    pub filter_percentage: f64,
    /// How it measures. Default `l2`, between normalised vectors.
    pub distance: Distance,
    /// Whose pairs it takes, in place of all of the labels. Default none.
    pub miner: Option<String>,
    /// Options of that miner. Default none.
    pub miner_options: Options,
    #[serde(skip)]
    before: Option<Box<dyn Miner>>,
}

impl Default for HDCMiner {
    fn default() -> Self {
        HDCMiner {
            filter_percentage: 0.5,
            distance: Distance::L2,
            miner: None,
            miner_options: Options::new(),
            before: None,
        }
    }
}

impl Miner for HDCMiner {
    fn distance(&self) -> Distance {
        self.distance
    }

    fn complete(&mut self) -> Result<()> {
        let Some(name) = &self.miner else {
            return match self.miner_options.is_empty() {
                true => Ok(()),
                false => Err(Error::spec("miner_options.miner_options", "given without a miner")),
            };
        };
        let before = super::new(name, &self.miner_options).map_err(|error| match error {
            Error::Spec { mut problems } => {
                problems.iter_mut().for_each(|problem| problem.field.insert_str(0, "miner_options."));
                Error::Spec { problems }
            }
            other => other,
        })?;
        self.before = Some(before);
        Ok(())
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        let distances = seen.distances;
        let before = self.before.as_ref().map(|before| {
            let own = before.distance().measure(&Cpu::F32, seen.rows, seen.others);
            before.mine(&Seen { distances: &own, ..*seen }).present(&Cpu::F32, seen.labels)
        });
        let labels = before.as_ref().unwrap_or(seen.labels);
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
