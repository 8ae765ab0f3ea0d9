use serde::{Deserialize, Serialize};

use super::{Miner, Seen};
use crate::objective::{Distance, Mined};

/// Triplets by `t = d_an - d_ap`, how much farther the negative is than the positive.
///
/// Use it with `TripletMarginLoss`; `hard` or `semihard` once the model knows the domain a little.
///
/// Reference: `TripletMarginMiner` of pytorch-metric-learning; Schroff, Kalenichenko, Philbin 2015 (1503.03832).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TripletMarginMiner {
    /// Default 0.2.
    pub margin: f64,
    /// Default `all`.
    pub type_of_triplets: TypeOfTriplets,
    /// How it measures. Default `l2`, between normalised vectors.
    pub distance: Distance,
}

/// Which triplets a [`TripletMarginMiner`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeOfTriplets {
    /// `t <= margin`
    All,
    /// `t <= 0` (and `t <= margin`)
    Hard,
    /// `0 < t <= margin`
    Semihard,
    /// `t > margin`
    Easy,
}

impl Default for TripletMarginMiner {
    fn default() -> Self {
        TripletMarginMiner { margin: 0.2, type_of_triplets: TypeOfTriplets::All, distance: Distance::L2 }
    }
}

impl Miner for TripletMarginMiner {
    fn distance(&self) -> Distance {
        self.distance
    }

    fn chooses_by_margin(&self) -> bool {
        true
    }

    fn mine(&self, seen: &Seen<'_>) -> Mined {
        let (low, high) = match self.type_of_triplets {
            TypeOfTriplets::All => (f64::NEG_INFINITY, self.margin),
            TypeOfTriplets::Hard => (f64::NEG_INFINITY, self.margin.min(0.0)),
            TypeOfTriplets::Semihard => (0.0, self.margin),
            TypeOfTriplets::Easy => (self.margin, f64::INFINITY),
        };
        Mined::Interval { low, high, distance: self.distance, distances: seen.distances.clone() }
    }
}
