use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::large_margin_softmax::{multiplied_angle, problems, softmax};
use super::{STANDARD_NORMAL, class_count};
use crate::error::Result;
use crate::objective::loss::{Batch, Loss};
use crate::objective::{LossParameter, Needs, Reducer, Sizes};

/// [`LargeMarginSoftmaxLoss`](super::LargeMarginSoftmaxLoss) with normalised class vectors.
///
/// ```text
/// logit_k = scale norm(x) cos(x, w_k), for the own class with psi in place of the cosine
/// psi = (-1)^q cos(margin angle) - 2 q,   q = floor(margin angle / pi), without gradient
/// ```
///
/// The vectors `[num_classes, dimension]` start normally distributed and are learned by `loss_optimizer`; a miner's
/// tuples become weights of the rows.
///
/// Use it to repeat published results; `ArcFaceLoss` is easier to train.
///
/// Reference: `SphereFaceLoss` of pytorch-metric-learning; Liu et al. 2017 (1704.08063).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SphereFaceLoss {
    /// Classes of the data or more. Default: those of the data.
    pub num_classes: Option<usize>,
    /// Checked against the model. Default: the model's.
    pub embedding_size: Option<usize>,
    /// The multiple of the angle, a whole number. Default 4.
    pub margin: u32,
    /// Default 1.
    pub scale: f64,
    /// Over the rows. Default `mean`.
    pub reducer: Reducer,
}

impl Default for SphereFaceLoss {
    fn default() -> Self {
        SphereFaceLoss { num_classes: None, embedding_size: None, margin: 4, scale: 1.0, reducer: Reducer::Mean }
    }
}

impl Loss for SphereFaceLoss {
    fn needs(&self) -> Needs {
        Needs::Classes
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        let count = class_count(self.num_classes, self.embedding_size, sizes)?;
        Ok(vec![LossParameter::vectors("classes", count, sizes, STANDARD_NORMAL)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let logits = multiplied_angle(tape, batch, batch.parameter(0)?, self.margin)?;
        softmax(tape, batch, &logits, self.scale, &self.reducer)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        problems(self.margin, self.scale)
    }
}
