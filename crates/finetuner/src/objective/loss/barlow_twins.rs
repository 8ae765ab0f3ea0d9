use engine::function::{Similarity, Unary};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::Needs;

/// Two views of the same example close to each other, without negatives: each dimension agrees with itself in the other view
/// and says nothing that another dimension says.
///
/// ```text
/// loss = sum over j of (1 - c_jj)^2 + lambda sum over j != k of c_jk^2
/// c    = x^T u / N,   every dimension of x and of u with mean 0 and variance 1 over the batch
/// ```
///
/// of vectors as they are, with biased variances. The first two columns of the data are the views.
///
/// Use it for pairs of views when batches are small: it needs no negatives, and gains from wide embeddings (`output_dim`).
///
/// Reference: the authors' code, facebookresearch/barlowtwins; Zbontar et al. 2021 (2103.03230).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BarlowTwinsLoss {
    /// Weight of what the dimensions share. Default 0.0051.
    pub lambda: f64,
    /// Added to the variances. Default 1e-5.
    pub eps: f64,
}

impl Default for BarlowTwinsLoss {
    fn default() -> Self {
        BarlowTwinsLoss { lambda: 0.0051, eps: 1e-5 }
    }
}

impl BarlowTwinsLoss {
    /// The dimensions of a view as rows, `[columns, rows]`, each with mean 0 and variance 1.
    fn standardized(&self, tape: &mut Tape<'_>, view: &Var) -> Result<Var> {
        let share = 1.0 / view.value().rows() as f64;
        let dimensions = tape.transpose(view)?;
        let means = tape.row_sums(&dimensions, None)?;
        let means = tape.affine(&means, share, 0.0)?;
        let centred = tape.subtract(&dimensions, &means)?;
        let squares = tape.unary(Unary::Square, &centred)?;
        let variances = tape.row_sums(&squares, None)?;
        let variances = tape.affine(&variances, share, self.eps)?;
        let deviations = tape.unary(Unary::Sqrt, &variances)?;
        Ok(tape.divide(&centred, &deviations)?)
    }
}

impl Loss for BarlowTwinsLoss {
    fn needs(&self) -> Needs {
        Needs::Pairs
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (first, second) = (batch.column(tape, 0)?, batch.column(tape, 1)?);
        let (rows, columns) = (first.value().rows(), first.value().columns());
        let (first, second) = (self.standardized(tape, &first)?, self.standardized(tape, &second)?);
        let products = tape.similarities(Similarity::Dot { normalize: false }, &first, &second)?;
        let correlations = tape.affine(&products, 1.0 / rows as f64, 0.0)?;

        let own = tape.diagonal(&correlations)?;
        let missing = tape.affine(&own, -1.0, 1.0)?;
        let missing = tape.unary(Unary::Square, &missing)?;
        let invariance = tape.sum(&missing, None)?;
        let shared = tape.unary(Unary::Square, &correlations)?;
        let mut others = Tensor::full(&[columns, columns], self.lambda as f32);
        (0..columns).for_each(|column| others.data_mut()[column * (columns + 1)] = 0.0);
        let redundancy = tape.sum(&shared, Some(&others))?;
        Ok(tape.add(&invariance, &redundancy)?)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let expected = |name, value: f64| (name, format!("expected at least 0, got {value}"));
        let given = [("lambda", self.lambda), ("eps", self.eps)];
        given.into_iter().filter(|(_, value)| *value < 0.0).map(|(name, value)| expected(name, value)).collect()
    }
}
