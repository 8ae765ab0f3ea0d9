use engine::function::Unary;
use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, Needs, Reducer, registry};

/// Each positive pair against the negatives of its anchor; the anchor's other positives are left out.
///
/// ```text
/// loss(a, p) = -ln(e^(s_ap / temperature) / (e^(s_ap / temperature) + sum over negatives n of e^(s_an / temperature)))
/// ```
///
/// Reference: `NTXentLoss` of pytorch-metric-learning; Chen et al. 2020 (2002.05709). Also known as `NTXLoss`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NTXentLoss {
    /// Default 0.07.
    pub temperature: f64,
    /// Default `cosine`; distances are negated.
    pub distance: Distance,
    /// Over the positive pairs. Default `mean`.
    pub reducer: Reducer,
}

impl Default for NTXentLoss {
    fn default() -> Self {
        NTXentLoss { temperature: 0.07, distance: Distance::Cosine, reducer: Reducer::Mean }
    }
}

impl Loss for NTXentLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let distances = self.distance.distances(tape, batch.embeddings, batch.others())?;
        let labels = batch.masks();
        let mined = batch.mined(tape, self.distance, distances.value(), &labels);
        let pairs = mined.pairs(tape.device(), &labels);
        // -ln(e^s / (e^s + e^m)) = softplus(m - s), with m the soft maximum over the anchor's negatives.
        let negatives = tape.log_sum_exp(&distances, Some(&pairs.negatives), -1.0 / self.temperature)?;
        let negatives = tape.affine(&negatives, -self.temperature, 0.0)?;
        let apart = tape.subtract(&distances, &negatives)?;
        let losses = tape.unary(Unary::Softplus { scale: 1.0 / self.temperature }, &apart)?;
        self.reducer.reduce(tape, &losses, Some(&pairs.positives))
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("temperature", self.temperature).into_iter().collect()
    }
}
