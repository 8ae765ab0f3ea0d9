use engine::function::Unary;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, Needs, Reducer};

/// The cosine of each pair against its score.
///
/// ```text
/// loss = mean (cos(a_i, b_i) - score_i)^2
/// ```
///
/// Use it for pairs with scores from 0 to 1 of which the value itself matters.
///
/// Reference: `CosineSimilarityLoss` of sentence-transformers; Reimers, Gurevych 2019 (1908.10084).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CosineSimilarityLoss {
    /// Default `mse`.
    pub loss_fct: LossFunction,
    /// Of the cosine before it is compared. Default `identity`.
    pub cos_score_transformation: ScoreTransformation,
}

/// How two numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossFunction {
    /// The squared difference.
    #[serde(alias = "MSE", alias = "MSELoss")]
    Mse,
    /// The absolute difference.
    #[serde(alias = "L1Loss")]
    Mae,
}

/// A function of the cosine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreTransformation {
    /// `x`
    Identity,
    /// `max(x, 0)`
    Relu,
}

impl Default for CosineSimilarityLoss {
    fn default() -> Self {
        CosineSimilarityLoss { loss_fct: LossFunction::Mse, cos_score_transformation: ScoreTransformation::Identity }
    }
}

impl Loss for CosineSimilarityLoss {
    fn needs(&self) -> Needs {
        Needs::Scores
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (first, second, scores) = batch.scored_pairs(tape)?;
        let mut cosines = Distance::Cosine.paired(tape, &first, &second)?;
        if self.cos_score_transformation == ScoreTransformation::Relu {
            cosines = tape.unary(Unary::Relu, &cosines)?;
        }
        let scores = tape.constant(Tensor::from_vec(scores.to_vec(), &[scores.len()])?);
        let difference = tape.subtract(&cosines, &scores)?;
        let function = match self.loss_fct {
            LossFunction::Mse => Unary::Square,
            LossFunction::Mae => Unary::Abs,
        };
        let losses = tape.unary(function, &difference)?;
        Reducer::Mean.reduce(tape, &losses, None)
    }
}
