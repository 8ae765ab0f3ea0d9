use engine::function::Unary;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, Needs};

/// Spreads the embeddings of each column as random directions would be: similarities of mean 0 and variance `1 / D`.
///
/// ```text
/// loss = mean over columns of mean_weight m1^2 + second_moment_weight max(0, m2 - 1 / D)
/// ```
///
/// with m1 the mean and m2 the mean square of the similarities of different rows. It looks at no label; beside another
/// loss it stands in `MultipleLosses`.
///
/// Use it beside another loss in `MultipleLosses`, to spread embeddings over the sphere.
///
/// Reference: `GlobalOrthogonalRegularizationLoss` of sentence-transformers; Zhang et al. 2017 (1708.06320).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GlobalOrthogonalRegularizationLoss {
    /// Default `cosine`.
    pub similarity_fct: Distance,
    /// Default 1.
    pub mean_weight: Option<f64>,
    /// Default 1.
    pub second_moment_weight: Option<f64>,
    /// `mean` or `sum` over the columns. Default `mean`.
    pub aggregation: Aggregation,
}

/// How columns become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
}

impl Default for GlobalOrthogonalRegularizationLoss {
    fn default() -> Self {
        GlobalOrthogonalRegularizationLoss {
            similarity_fct: Distance::Cosine,
            mean_weight: Some(1.0),
            second_moment_weight: Some(1.0),
            aggregation: Aggregation::Mean,
        }
    }
}

impl Loss for GlobalOrthogonalRegularizationLoss {
    fn needs(&self) -> Needs {
        Needs::Any
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let columns = batch.layout.columns.len();
        let share = match self.aggregation {
            Aggregation::Mean => 1.0 / columns.max(1) as f64,
            Aggregation::Sum => 1.0,
        };
        let mut total = tape.constant(Tensor::scalar(0.0));
        for column in 0..columns {
            let x = batch.column(tape, column)?;
            let similarities = self.similarity_fct.similarities(tape, &x, &x)?;
            let rows = x.value().rows();
            let mut others = Tensor::full(&[rows, rows], 1.0);
            (0..rows).for_each(|row| others.data_mut()[row * rows + row] = 0.0);
            let count = (rows * rows.saturating_sub(1)).max(1) as f64;

            let sum = tape.sum(&similarities, Some(&others))?;
            let mean = tape.affine(&sum, 1.0 / count, 0.0)?;
            let mean = tape.unary(Unary::Square, &mean)?;
            let squares = tape.unary(Unary::Square, &similarities)?;
            let sum = tape.sum(&squares, Some(&others))?;
            let second = tape.affine(&sum, 1.0 / count, -1.0 / x.value().columns().max(1) as f64)?;
            let second = tape.unary(Unary::Relu, &second)?;
            for (term, weight) in [(mean, self.mean_weight), (second, self.second_moment_weight)] {
                let term = tape.affine(&term, share * weight.unwrap_or(0.0), 0.0)?;
                total = tape.add(&term, &total)?;
            }
        }
        Ok(total)
    }
}
