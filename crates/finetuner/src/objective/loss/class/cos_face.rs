use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::softmax::{CrossEntropy, Margin, Target};
use super::{STANDARD_NORMAL, class_count, classes, reduce, rows};
use crate::error::Result;
use crate::objective::loss::{Batch, Loss};
use crate::objective::{Distance, LossParameter, Needs, Reducer, Sampler, Sizes, registry};

/// A softmax over the cosines with one vector per class, with a margin on the own one.
///
/// ```text
/// c_k = cos(x, w_k)
/// loss = -ln(e^(scale (c_own - margin)) / (e^(scale (c_own - margin)) + sum over k != own of e^(scale c_k)))
/// ```
///
/// The vectors `[num_classes, dimension]` start normally distributed and are learned by `loss_optimizer`; a miner's
/// tuples become weights of the rows.
///
/// Use it as `ArcFaceLoss`; its margin is on the cosine, which is easier to train.
///
/// Reference: `CosFaceLoss` of pytorch-metric-learning; Wang et al. 2018 (1801.09414).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CosFaceLoss {
    /// Classes of the data or more. Default: those of the data.
    pub num_classes: Option<usize>,
    /// Checked against the model. Default: the model's.
    pub embedding_size: Option<usize>,
    /// A cosine. Default 0.35.
    pub margin: f64,
    /// Default 64.
    pub scale: f64,
    /// Over the rows. Default `mean`.
    pub reducer: Reducer,
}

impl Default for CosFaceLoss {
    fn default() -> Self {
        CosFaceLoss { num_classes: None, embedding_size: None, margin: 0.35, scale: 64.0, reducer: Reducer::Mean }
    }
}

impl Loss for CosFaceLoss {
    fn needs(&self) -> Needs {
        Needs::Classes
    }

    fn sampler(&self) -> Sampler {
        Sampler::Random
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        let count = class_count(self.num_classes, self.embedding_size, sizes)?;
        Ok(vec![LossParameter::vectors("classes", count, sizes, STANDARD_NORMAL)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let vectors = batch.parameter(0)?;
        let logits = Margin { scale: self.scale, target: Target::Cosine(self.margin), vectors: 1 };
        let function = CrossEntropy { classes: classes(batch, vectors.value().rows())?, logits };
        let losses = rows(tape, Distance::Cosine, batch.embeddings, vectors, function)?;
        reduce(tape, batch, &losses, &self.reducer)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("scale", self.scale).into_iter().collect()
    }
}
