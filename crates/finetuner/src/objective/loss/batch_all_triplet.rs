use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::batch_hard_triplet::EUCLIDEAN;
use super::{Batch, Loss, TripletMarginLoss};
use crate::error::Result;
use crate::objective::{Distance, Needs, Reducer};

/// All triplets of the batch, averaged over those whose loss is not 0.
///
/// ```text
/// loss(a, p, n) = max(0, d_ap - d_an + margin)
/// ```
///
/// Memory grows with the square of the batch, not with its triplets.
///
/// Use it for classes in small batches, where every triplet is needed.
///
/// Reference: `BatchAllTripletLoss` of sentence-transformers; Hermans, Beyer, Leibe 2017 (1703.07737).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchAllTripletLoss {
    /// How vectors are compared: `euclidean` or `cosine`. Default `euclidean`.
    pub distance_metric: Distance,
    /// Default 5.
    pub margin: f64,
}

impl Default for BatchAllTripletLoss {
    fn default() -> Self {
        BatchAllTripletLoss { distance_metric: EUCLIDEAN, margin: 5.0 }
    }
}

impl Loss for BatchAllTripletLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn mines(&self) -> bool {
        false
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (margin, distance) = (self.margin, self.distance_metric);
        TripletMarginLoss { margin, distance, ..TripletMarginLoss::default() }.compute(tape, batch)
    }
}

/// All triplets of the batch, or those that a miner chooses; the mean includes those whose loss is 0.
///
/// ```text
/// loss(a, p, n) = max(0, d_ap - d_an + margin)
/// ```
///
/// Use it to repeat runs of the original's version 0.4.1.
///
/// Reference: `TripletLoss` of Finetuner 0.4.1; Schroff, Kalenichenko, Philbin 2015 (1503.03832).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FinetunerTripletLoss {
    /// `cosine`, `euclidean` or `sqeuclidean`. Default `cosine`.
    pub distance: Distance,
    /// Default 1.
    pub margin: f64,
}

impl Default for FinetunerTripletLoss {
    fn default() -> Self {
        FinetunerTripletLoss { distance: Distance::Cosine, margin: 1.0 }
    }
}

impl Loss for FinetunerTripletLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (margin, distance) = (self.margin, self.distance);
        TripletMarginLoss { margin, distance, reducer: Reducer::Mean, ..TripletMarginLoss::default() }
            .compute(tape, batch)
    }
}
