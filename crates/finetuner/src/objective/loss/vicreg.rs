use engine::function::{Similarity, Unary};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Needs, Reducer};

/// Two views of the same example close to each other, without negatives: each dimension keeps its variance over the batch
/// and is uncorrelated with the others, so that not everything becomes the same.
///
/// ```text
/// loss = invariance_lambda mean over i of mean over j of (x_ij - u_ij)^2
///      + variance_mu       sum over both views of mean over j of max(0, 1 - sqrt(Var_i(z_ij) + eps)) / 2
///      + covariance_v      sum over both views of sum over j != k of Cov(z)_jk^2 / D
/// ```
///
/// of vectors as they are, with unbiased variances. The first two columns of the data are the views.
///
/// Use it for pairs of views when batches are too small to give good negatives: it needs none.
///
/// Reference: `VICRegLoss` of pytorch-metric-learning; Bardes, Ponce, LeCun 2022 (2105.04906), whose first term sums over j.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VICRegLoss {
    /// Default 25.
    pub invariance_lambda: f64,
    /// Default 25.
    pub variance_mu: f64,
    /// Default 1.
    pub covariance_v: f64,
    /// Default 1e-4.
    pub eps: f64,
    /// Of `invariance_loss` over the examples, and of `variance_loss1` and `variance_loss2` over the dimensions. Default
    /// `mean`.
    pub reducer: Reducer,
}

impl VICRegLoss {
    /// Of a view the losses of each dimension's variance `[columns]` and that of the covariances `[1]`.
    fn spread(&self, tape: &mut Tape<'_>, view: &Var) -> Result<(Var, Var)> {
        let (rows, columns) = (view.value().rows(), view.value().columns());
        // One example has no variance; the original divides by 0 there.
        let divisor = rows.saturating_sub(1).max(1) as f64;
        let dimensions = tape.transpose(view)?;
        let means = tape.row_sums(&dimensions, None)?;
        let means = tape.affine(&means, 1.0 / rows as f64, 0.0)?;
        let centred = tape.subtract(&dimensions, &means)?;
        let squares = tape.unary(Unary::Square, &centred)?;
        let variances = tape.row_sums(&squares, None)?;
        let variances = tape.affine(&variances, 1.0 / divisor, self.eps)?;
        let deviations = tape.unary(Unary::Sqrt, &variances)?;
        let missing = tape.affine(&deviations, -1.0, 1.0)?;
        let missing = tape.unary(Unary::Relu, &missing)?;
        let variance = tape.affine(&missing, self.variance_mu / 2.0, 0.0)?;

        let products = tape.similarities(Similarity::Dot { normalize: false }, &centred, &centred)?;
        let products = tape.unary(Unary::Square, &products)?;
        let mut others = Tensor::full(&[columns, columns], 1.0);
        (0..columns).for_each(|column| others.data_mut()[column * (columns + 1)] = 0.0);
        let sum = tape.sum(&products, Some(&others))?;
        let covariance = tape.affine(&sum, self.covariance_v / (divisor * divisor * columns as f64), 0.0)?;
        Ok((variance, covariance))
    }
}

impl Default for VICRegLoss {
    fn default() -> Self {
        VICRegLoss { invariance_lambda: 25.0, variance_mu: 25.0, covariance_v: 1.0, eps: 1e-4, reducer: Reducer::Mean }
    }
}

impl Loss for VICRegLoss {
    fn needs(&self) -> Needs {
        Needs::Pairs
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (first, second) = (batch.column(tape, 0)?, batch.column(tape, 1)?);
        let columns = first.value().columns();
        let apart = tape.subtract(&first, &second)?;
        let squares = tape.unary(Unary::Square, &apart)?;
        let squares = tape.row_sums(&squares, None)?;
        let squares = tape.affine(&squares, self.invariance_lambda / columns as f64, 0.0)?;
        let mut loss = self.reducer.part("invariance_loss").reduce(tape, &squares, None)?;
        for (view, part) in [(&first, "variance_loss1"), (&second, "variance_loss2")] {
            let (variance, covariance) = self.spread(tape, view)?;
            let variance = self.reducer.part(part).reduce(tape, &variance, None)?;
            loss = tape.add(&loss, &variance)?;
            loss = tape.add(&loss, &covariance)?;
        }
        Ok(loss)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        (self.eps < 0.0).then(|| ("eps", format!("expected at least 0, got {}", self.eps))).into_iter().collect()
    }
}
