use engine::{Tape, Var};
use serde::{Deserialize, Serialize};

use super::softmax::{CrossEntropy, Margin, Target};
use super::{STANDARD_NORMAL, class_count, classes, rows, weigh};
use crate::error::Result;
use crate::objective::loss::{Batch, Loss};
use crate::objective::{Distance, LossParameter, Needs, Reducer, Sizes, registry};

/// A softmax over the distances to one proxy per class; unlike in the paper the own proxy stays in the denominator.
///
/// ```text
/// loss = -ln(e^(-softmax_scale d(x, w_own)) / sum over classes k of e^(-softmax_scale d(x, w_k)))
/// ```
///
/// The proxies `[num_classes, dimension]` start normally distributed and are learned by `loss_optimizer`. The anchors of
/// a miner's tuples become weights of the rows.
///
/// Use it as `ProxyAnchorLoss`, where a plain softmax over class vectors is enough.
///
/// Reference: `ProxyNCALoss` of pytorch-metric-learning; Movshovitz-Attias et al. 2017 (1703.07464).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyNCALoss {
    /// Classes of the data or more. Default: those of the data.
    pub num_classes: Option<usize>,
    /// Checked against the model. Default: the model's.
    pub embedding_size: Option<usize>,
    /// Default 1.
    pub softmax_scale: f64,
    /// Default `l2_squared`, between normalised vectors; similarities are taken as negated distances.
    pub distance: Distance,
    /// Over the rows. Default `mean`.
    pub reducer: Reducer,
}

impl Default for ProxyNCALoss {
    fn default() -> Self {
        ProxyNCALoss {
            num_classes: None,
            embedding_size: None,
            softmax_scale: 1.0,
            distance: Distance::L2_SQUARED,
            reducer: Reducer::Mean,
        }
    }
}

impl Loss for ProxyNCALoss {
    fn needs(&self) -> Needs {
        Needs::Classes
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        let count = class_count(self.num_classes, self.embedding_size, sizes)?;
        Ok(vec![LossParameter::vectors("proxies", count, sizes, STANDARD_NORMAL)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let proxies = batch.parameter(0)?;
        let logits = Margin { scale: self.softmax_scale, target: Target::Plain, vectors: 1 };
        let function = CrossEntropy { classes: classes(batch, proxies.value().rows())?, logits };
        let losses = rows(tape, self.distance, batch.embeddings, proxies, function)?;
        weigh(tape, batch, &losses, &self.reducer, false)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("softmax_scale", self.softmax_scale).into_iter().collect()
    }
}
