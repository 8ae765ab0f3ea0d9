use engine::function::Binary;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, Needs, Reducer, registry};

/// The mean over an anchor's positives, each against all other rows of the batch.
///
/// ```text
/// loss(i) = -mean over positives p of (s_ip / temperature - ln sum over k != i of e^(s_ik / temperature))
/// ```
///
/// Anchors without positives have loss 0; a batch without positive or without negative pairs too.
///
/// Reference: `SupConLoss` of pytorch-metric-learning; Khosla et al. 2020 (2004.11362).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SupConLoss {
    /// Default 0.1.
    pub temperature: f64,
    /// Default `cosine`; distances are negated.
    pub distance: Distance,
    /// Over the anchors. Default `avg_non_zero`.
    pub reducer: Reducer,
}

impl Default for SupConLoss {
    fn default() -> Self {
        SupConLoss { temperature: 0.1, distance: Distance::Cosine, reducer: Reducer::AvgNonZero }
    }
}

impl Loss for SupConLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let distances = self.distance.distances(tape, batch.embeddings, batch.others())?;
        let (device, labels) = (tape.device(), batch.masks());
        let mined = batch.mined(tape, self.distance, distances.value(), &labels);
        let pairs = mined.present(device, &labels);
        let positives = device.row_sums(&pairs.positives, None);
        let negatives = device.row_sums(&pairs.negatives, None);
        let any = |counts: &Tensor| counts.data().iter().any(|&count| count > 0.0);
        let valid = any(&positives) && any(&negatives);

        let one = Tensor::scalar(1.0);
        let shares = device.binary(Binary::Divide, &pairs.positives, &device.binary(Binary::Maximum, &positives, &one));
        let others = device.binary(Binary::Add, &pairs.positives, &pairs.negatives);
        let losses = tape.cross_entropy(&distances, Some(&others), &shares, -1.0 / self.temperature)?;
        // Anchors without positives count 0. Not by a product: the log-sum-exp of nothing is infinite.
        let counted = device.binary(Binary::Minimum, &positives, &Tensor::scalar(f32::from(u8::from(valid))));
        let rows = positives.len();
        let losses = tape.reshape(&losses, &[rows, 1])?;
        let losses = tape.row_sums(&losses, Some(&counted.reshaped(&[rows, 1])?))?;
        self.reducer.reduce(tape, &losses, None)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("temperature", self.temperature).into_iter().collect()
    }
}
