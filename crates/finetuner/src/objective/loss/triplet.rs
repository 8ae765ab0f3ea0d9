use engine::function::Unary;
use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, Needs, Reducer};

/// Each anchor nearer to its positive than to its own negatives, by a margin.
///
/// ```text
/// loss = mean over given triplets of max(0, d(a, p) - d(a, n) + triplet_margin)
/// ```
///
/// Only the given negatives count; `TripletMarginLoss` also compares with the rest of the batch. Several negatives of
/// an anchor are as many triplets.
///
/// Use it for given triplets of anchor, positive and negative, where no other row may serve as a negative.
///
/// Reference: `TripletLoss` of sentence-transformers; Schroff, Kalenichenko, Philbin 2015 (1503.03832).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TripletLoss {
    /// Between vectors as they are; of a cosine, 1 - cosine. Default `euclidean`.
    pub distance_metric: Distance,
    /// Default 5.
    pub triplet_margin: f64,
}

impl Default for TripletLoss {
    fn default() -> Self {
        let distance_metric = Distance::Euclidean { normalize: false, squared: false };
        TripletLoss { distance_metric, triplet_margin: 5.0 }
    }
}

impl Loss for TripletLoss {
    fn needs(&self) -> Needs {
        Needs::Triplets
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (anchors, positives, negatives) = batch.triplets(tape)?;
        // Larger is closer, for distances and similarities alike.
        let positive = self.distance_metric.paired(tape, &anchors, &positives)?;
        let negative = self.distance_metric.paired(tape, &anchors, &negatives)?;
        let apart = tape.subtract(&negative, &positive)?;
        let violation = tape.affine(&apart, 1.0, self.triplet_margin)?;
        let losses = tape.unary(Unary::Relu, &violation)?;
        Reducer::Mean.reduce(tape, &losses, None)
    }
}
