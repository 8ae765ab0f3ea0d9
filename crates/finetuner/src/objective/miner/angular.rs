use engine::Cpu;
use engine::function::{Functions, Similarity};
use serde::{Deserialize, Serialize};

use super::{Miner, Seen};
use crate::objective::{Distance, Mined};

/// Triplets whose negative sees anchor and positive under a large angle.
///
/// ```text
/// kept if arctan(‖a - p‖ / (2 ‖n - (a + p) / 2‖)) > angle
/// ```
///
/// of the vectors as they are, as in the original.
///
/// Use it with `AngularLoss`.
///
/// Reference: `AngularMiner` of pytorch-metric-learning; Wang et al. 2017 (1708.01682).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AngularMiner {
    /// In degrees, between 0 and 90. Default 20.
    pub angle: f64,
}

impl Default for AngularMiner {
    fn default() -> Self {
        AngularMiner { angle: 20.0 }
    }
}

impl Miner for AngularMiner {
    fn distance(&self) -> Distance {
        Distance::Euclidean { normalize: false, squared: true }
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        let squared = Similarity::Euclidean { normalize: false, squared: true };
        let among = Cpu::F32.similarities(squared, seen.others, seen.others);
        Mined::Angles { tangent: self.angle.to_radians().tan(), squares: seen.distances.clone(), among }
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let valid = 0.0 < self.angle && self.angle < 90.0;
        (!valid)
            .then(|| ("angle", format!("expected degrees between 0 and 90, got {}", self.angle)))
            .into_iter()
            .collect()
    }
}
