use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::softmax::{CrossEntropy, Margin, Target};
use super::{STANDARD_NORMAL, class_count, classes, reduce, rows};
use crate::error::Result;
use crate::objective::loss::{Batch, Loss};
use crate::objective::{Distance, LossParameter, Needs, Reducer, Sampler, Sizes, registry};

/// A softmax over the angles to one vector per class, with a margin on the angle to the own one.
///
/// ```text
/// c_k = cos(x, w_k)    angle = arccos(c_own)
/// loss = -ln(e^(scale psi) / (e^(scale psi) + sum over k != own of e^(scale c_k)))
/// psi = cos(angle + margin) where angle + margin <= pi, else c_own - margin sin(margin)
/// ```
///
/// The vectors `[num_classes, dimension]` start normally distributed and are learned by `loss_optimizer`. A miner's
/// tuples become weights of the rows: how often they hold a row, beside the row they hold most often.
///
/// Use it for many classes that are all known in training, such as faces or products.
///
/// Reference: `ArcFaceLoss` of pytorch-metric-learning; Deng et al. 2019 (1801.07698).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArcFaceLoss {
    /// Classes of the data or more. Default: those of the data.
    pub num_classes: Option<usize>,
    /// Checked against the model. Default: the model's.
    pub embedding_size: Option<usize>,
    /// In degrees. Default 28.6.
    pub margin: f64,
    /// Default 64.
    pub scale: f64,
    /// Over the rows. Default `mean`.
    pub reducer: Reducer,
}

impl Default for ArcFaceLoss {
    fn default() -> Self {
        ArcFaceLoss { num_classes: None, embedding_size: None, margin: 28.6, scale: 64.0, reducer: Reducer::Mean }
    }
}

impl Loss for ArcFaceLoss {
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
        let logits = Margin { scale: self.scale, target: Target::Angle(self.margin.to_radians()), vectors: 1 };
        let function = CrossEntropy { classes: classes(batch, vectors.value().rows())?, logits };
        let losses = rows(tape, Distance::Cosine, batch.embeddings, vectors, function)?;
        reduce(tape, batch, &losses, &self.reducer)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        [registry::positive("scale", self.scale), registry::angle("margin", self.margin)]
            .into_iter()
            .flatten()
            .collect()
    }
}
