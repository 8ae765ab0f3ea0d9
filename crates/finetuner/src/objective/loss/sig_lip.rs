use engine::function::Unary;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::clip::{SCALES, compared, pairs, scale_problem};
use super::row_blocks::row_blocks;
use super::{Batch, Loss};
use crate::error::{Error, Result};
use crate::objective::{Distance, LossParameter, Needs, Sizes};

/// Every pairing of the two sides of pairs is told apart by itself: a match or none, with learned temperature and bias.
///
/// ```text
/// z = e^logit_scale cos(u_i, v_j) + logit_bias
/// loss = -1 / B sum over i, j of ln sigma(z_ij) where i = j, of ln sigma(-z_ij) else
/// ```
///
/// `logit_scale`, within `[0, ln 100]`, and `logit_bias` are learned by `loss_optimizer` without weight decay. Pairs that
/// are known to match another are no negatives; with all labels distinct it is the reference's loss.
///
/// Use it as `ClipLoss` in smaller batches: every pair is judged by itself.
///
/// Reference: `SigLipLoss` of open_clip; Zhai et al. 2023 (2303.15343).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SigLipLoss {
    /// Where `logit_scale` starts. Default 2.302585092994046, which is ln 10.
    pub init_logit_scale: f64,
    /// Where `logit_bias` starts. Default -10.
    pub init_logit_bias: f64,
}

impl Default for SigLipLoss {
    fn default() -> Self {
        SigLipLoss { init_logit_scale: 10f64.ln(), init_logit_bias: -10.0 }
    }
}

impl Loss for SigLipLoss {
    fn needs(&self) -> Needs {
        Needs::Pairs
    }

    fn parameters(&self, _: &Sizes) -> Result<Vec<LossParameter>> {
        Ok(vec![
            LossParameter::scalar("logit_scale", self.init_logit_scale).kept(SCALES),
            LossParameter::scalar("logit_bias", self.init_logit_bias),
        ])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let scale = tape.unary(Unary::Exp, batch.parameter(0)?)?;
        let count = pairs(batch)?;
        let inputs = [batch.embeddings, &scale, batch.parameter(1)?];
        let sum = tape.sum_of_parts(&inputs, row_blocks(count, count), |tape, inputs, rows| {
            let first = tape.row_range(&inputs[0], rows.clone())?;
            let second = tape.row_range(&inputs[0], count..2 * count)?;
            let cosines = Distance::Cosine.similarities(tape, &first, &second)?;
            let logits = tape.multiply(&cosines, &inputs[1])?;
            let logits = tape.add(&logits, &inputs[2])?;
            // -ln sigma(z) = softplus(-z)
            let mut signs = Tensor::full(&[rows.len(), count], 1.0);
            (0..rows.len()).for_each(|i| signs.data_mut()[i * count + rows.start + i] = -1.0);
            let signs = tape.constant(signs);
            let wrong = tape.multiply(&logits, &signs)?;
            let losses = tape.unary(Unary::Softplus { scale: 1.0 }, &wrong)?;
            Ok::<_, Error>(tape.sum(&losses, Some(&compared(batch.layout, &rows)))?)
        })?;
        Ok(tape.affine(&sum, 1.0 / count.max(1) as f64, 0.0)?)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let bias = (!self.init_logit_bias.is_finite())
            .then(|| ("init_logit_bias", format!("expected a number, got {}", self.init_logit_bias)));
        scale_problem(self.init_logit_scale).into_iter().chain(bias).collect()
    }
}
