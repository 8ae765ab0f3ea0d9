use engine::function::Unary;
use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::large_margin_softmax::one_hot;
use super::{check_dimension, class_count, classes};
use crate::error::Result;
use crate::objective::loss::{Batch, Loss};
use crate::objective::{Distance, Initial, Keep, LossParameter, Needs, Sizes};

/// The squared error of the cosines with one unit vector per class: 1 for the own class, 0 for all others.
///
/// ```text
/// loss = mean over rows and classes k of (cos(x, w_k) - [k = own])^2
/// ```
///
/// The vectors `[num_classes, dimension]` start uniformly in all directions, are learned by `loss_optimizer` and brought
/// back to length 1 after every step.
///
/// Use it for known classes when no margin or scale is to be tuned.
///
/// Reference: `P2SGradLoss` of pytorch-metric-learning; Zhang et al. 2019 (1905.02479).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct P2SGradLoss {
    /// Classes of the data or more. Default: those of the data.
    pub num_classes: Option<usize>,
    /// Checked against the model. Default: the model's.
    pub descriptors_dim: Option<usize>,
}

impl Loss for P2SGradLoss {
    fn needs(&self) -> Needs {
        Needs::Classes
    }

    fn mines(&self) -> bool {
        false
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        let count = class_count(self.num_classes, None, sizes)?;
        check_dimension("descriptors_dim", self.descriptors_dim, sizes)?;
        Ok(vec![LossParameter::vectors("classes", count, sizes, Initial::Uniform { bound: 1.0 }).kept(Keep::UnitRows)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let vectors = batch.parameter(0)?;
        let count = vectors.value().rows();
        let labels = classes(batch, count)?;
        // The vectors have length 1 already; normalised again they would lose their part of the gradient.
        let directions = tape.normalize(batch.embeddings)?;
        let cosines = Distance::Dot.similarities(tape, &directions, vectors)?;
        let targets = tape.constant(one_hot(&labels, count));
        let errors = tape.subtract(&cosines, &targets)?;
        let squares = tape.unary(Unary::Square, &errors)?;
        let sum = tape.sum(&squares, None)?;
        Ok(tape.affine(&sum, 1.0 / (labels.len() * count).max(1) as f64, 0.0)?)
    }
}
