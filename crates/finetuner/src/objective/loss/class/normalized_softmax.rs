use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::softmax::{CrossEntropy, Margin, Target};
use super::{STANDARD_NORMAL, class_count, classes, reduce, rows};
use crate::error::Result;
use crate::objective::loss::{Batch, Loss};
use crate::objective::{Distance, LossParameter, Needs, Reducer, Sizes, registry};

/// A softmax over the similarities with one normalised vector per class.
///
/// ```text
/// loss = -ln(e^(s_own / temperature) / sum over classes k of e^(s_k / temperature)),   s_k = s(x, w_k / norm(w_k))
/// ```
///
/// The vectors `[num_classes, dimension]` start normally distributed and are learned by `loss_optimizer`; a miner's
/// tuples become weights of the rows.
///
/// Use it for classes known in training: a strong baseline with one number to tune.
///
/// Reference: `NormalizedSoftmaxLoss` of pytorch-metric-learning; Zhai, Wu 2018 (1811.12649).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NormalizedSoftmaxLoss {
    /// Classes of the data or more. Default: those of the data.
    pub num_classes: Option<usize>,
    /// Checked against the model. Default: the model's.
    pub embedding_size: Option<usize>,
    /// Default 0.05.
    pub temperature: f64,
    /// Default `cosine`, which is the reference's normalised dot product; distances are negated.
    pub distance: Distance,
    /// Over the rows. Default `mean`.
    pub reducer: Reducer,
}

impl Default for NormalizedSoftmaxLoss {
    fn default() -> Self {
        NormalizedSoftmaxLoss {
            num_classes: None,
            embedding_size: None,
            temperature: 0.05,
            distance: Distance::Cosine,
            reducer: Reducer::Mean,
        }
    }
}

impl Loss for NormalizedSoftmaxLoss {
    fn needs(&self) -> Needs {
        Needs::Classes
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        let count = class_count(self.num_classes, self.embedding_size, sizes)?;
        Ok(vec![LossParameter::vectors("classes", count, sizes, STANDARD_NORMAL)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let vectors = batch.parameter(0)?;
        let classes = classes(batch, vectors.value().rows())?;
        let logits = Margin { scale: 1.0 / self.temperature, target: Target::Plain, vectors: 1 };
        // A distance that normalises does so in f64.
        let normalised = match self.distance.similarity().norm() {
            Some(2.0) => vectors.clone(),
            _ => tape.normalize(vectors)?,
        };
        let losses = rows(tape, self.distance, batch.embeddings, &normalised, CrossEntropy { classes, logits })?;
        reduce(tape, batch, &losses, &self.reducer)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("temperature", self.temperature).into_iter().collect()
    }
}
