use std::sync::Arc;

use engine::function::Unary;
use engine::random::Key;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{STANDARD_NORMAL, check_dimension};
use crate::error::Result;
use crate::objective::loss::{Batch, Loss};
use crate::objective::miner::key_of;
use crate::objective::{Distance, LossParameter, Needs, Reducer, Sizes, registry};

/// Rows gather around proxies along the manifold of the batch, without labels: each row belongs to a proxy that is drawn
/// anew, every proxy having at least one row where there are enough.
///
/// ```text
/// S = e^(2 max(0, cos)) among rows and proxies, zero diagonal;   D = row sums of S
/// F = (1 - alpha) (I - alpha D^(-1/2) S D^(-1/2))^(-1)
/// T(G) = mean over rows i of ln(1 + sum over proxies k != own with z >= 0 of e^z),   z = G_ik - G_i,own + margin
/// loss = T(F_ik) + lambdaC T(cos(row i of F, row of proxy k of F))
/// ```
///
/// The `K` proxies `[K, dimension]` start normally distributed and are learned by `loss_optimizer`. Time grows with the
/// cube of rows and proxies.
///
/// Use it where only some or none of the items have labels.
///
/// Reference: `ManifoldLoss` of pytorch-metric-learning; Aziere, Todorovic 2019 (CVPR).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(non_snake_case, reason = "the reference's names")]
pub struct ManifoldLoss {
    /// The embedding's dimension, checked against the model. Default: the model's.
    pub l: Option<usize>,
    /// Proxies. Default 50.
    pub K: usize,
    /// Weight of the second term. Default 1.
    pub lambdaC: f64,
    /// How far similarity passes on to neighbours, between 0 and 1. Default 0.8.
    pub alpha: f64,
    /// Default 0.0005.
    pub margin: f64,
}

impl Default for ManifoldLoss {
    fn default() -> Self {
        ManifoldLoss { l: None, K: 50, lambdaC: 1.0, alpha: 0.8, margin: 5e-4 }
    }
}

impl Loss for ManifoldLoss {
    fn needs(&self) -> Needs {
        Needs::Any
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        check_dimension("l", self.l, sizes)?;
        Ok(vec![LossParameter::vectors("proxies", self.K, sizes, STANDARD_NORMAL)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let proxies = batch.parameter(0)?;
        let (rows, count) = (batch.layout.rows(), proxies.value().rows());
        let all = rows + count;
        let drawn = draw(batch.embeddings.value(), count);
        let nodes = tape.stacked(&[batch.embeddings, proxies])?;

        let cosines = Distance::Cosine.similarities(tape, &nodes, &nodes)?;
        let cosines = tape.unary(Unary::Relu, &cosines)?;
        let exponents = tape.affine(&cosines, 2.0, 0.0)?;
        let near = tape.unary(Unary::Exp, &exponents)?;
        let mut identity = Tensor::zeros(&[all, all]);
        (0..all).for_each(|i| identity.data_mut()[i * all + i] = 1.0);
        let others = tape.constant(tape.device().unary(Unary::Affine { scale: -1.0, shift: 1.0 }, &identity));
        let near = tape.multiply(&near, &others)?;

        let sums = tape.row_sums(&near, None)?;
        let roots = tape.unary(Unary::Sqrt, &sums)?;
        let near = tape.divide(&near, &roots)?;
        let roots = tape.reshape(&roots, &[1, all])?;
        let near = tape.divide(&near, &roots)?;
        let steps = tape.affine(&near, -self.alpha, 0.0)?;
        let identity = tape.constant(identity);
        let steps = tape.add(&steps, &identity)?;
        let walks = tape.inverse(&steps)?;
        let walks = tape.affine(&walks, 1.0 - self.alpha, 0.0)?;

        let (of_rows, of_proxies) = (tape.row_range(&walks, 0..rows)?, tape.row_range(&walks, rows..all)?);
        let direct = tape.column_range(&of_rows, rows..all)?;
        let intrinsic = self.term(tape, &direct, &drawn)?;
        let contexts = Distance::Cosine.similarities(tape, &of_rows, &of_proxies)?;
        let context = self.term(tape, &contexts, &drawn)?;
        let context = tape.affine(&context, self.lambdaC, 0.0)?;
        Ok(tape.add(&intrinsic, &context)?)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems: Vec<_> = registry::positive("alpha", self.alpha).into_iter().collect();
        if self.alpha >= 1.0 {
            problems.push(("alpha", format!("expected a number below 1, got {}", self.alpha)));
        }
        if self.K == 0 {
            problems.push(("K", "expected 1 or more, got 0".to_owned()));
        }
        if !(self.lambdaC >= 0.0 && self.lambdaC.is_finite()) {
            problems.push(("lambdaC", format!("expected a number of at least 0, got {}", self.lambdaC)));
        }
        problems
    }
}

impl ManifoldLoss {
    /// T of `g [rows, proxies]`.
    fn term(&self, tape: &mut Tape<'_>, g: &Var, drawn: &[u32]) -> Result<Var> {
        let places: Arc<[[u32; 2]]> = (0..).zip(drawn).map(|(row, own)| [row, *own]).collect();
        let own = tape.gather(g, places)?;
        let apart = tape.subtract(g, &own)?;
        let z = tape.affine(&apart, 1.0, self.margin)?;
        let columns = z.value().columns();
        let counts = z.value().data().iter().enumerate();
        let counts =
            counts.map(|(at, z)| f32::from(u8::from(*z >= 0.0 && drawn[at / columns] as usize != at % columns)));
        let counted = Tensor::from_vec(counts.collect(), z.value().shape())?;
        let sums = tape.log_sum_exp(&z, Some(&counted), 1.0)?;
        let losses = tape.unary(Unary::Softplus { scale: 1.0 }, &sums)?;
        Reducer::Mean.reduce(tape, &losses, None)
    }
}

/// A proxy for each row, a function of the embeddings: every proxy once, the other rows at random, shuffled.
fn draw(embeddings: &Tensor, proxies: usize) -> Vec<u32> {
    let key = key_of(embeddings);
    let rows = embeddings.rows();
    let pick = |key: Key, counter: usize, count: usize| (key.uniform(counter as u64) * count as f64) as usize;
    let mut drawn: Vec<u32> = (0..proxies as u32).collect();
    drawn.extend((proxies..rows).map(|row| pick(key.part(1), row, proxies) as u32));
    for last in (1..drawn.len()).rev() {
        drawn.swap(last, pick(key.part(2), last, last + 1));
    }
    drawn.truncate(rows);
    drawn
}
