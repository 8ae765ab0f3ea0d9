use std::sync::Arc;

use engine::function::{MatrixFunction, Unary};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{STANDARD_NORMAL, class_count, classes, reduce};
use crate::error::Result;
use crate::objective::loss::{Batch, Loss};
use crate::objective::{Distance, LossParameter, Needs, Reducer, Sizes, registry};

/// A softmax over products with one vector per class, whose own angle is multiplied.
///
/// ```text
/// logit_k = scale norm(x) norm(w_k) cos(x, w_k), for the own class with psi in place of the cosine
/// psi = (-1)^q cos(margin angle) - 2 q,   q = floor(margin angle / pi), without gradient
/// ```
///
/// The vectors `[num_classes, dimension]` start normally distributed and are learned by `loss_optimizer`; a miner's
/// tuples become weights of the rows.
///
/// Use it to repeat published results; `ArcFaceLoss` is easier to train.
///
/// Reference: `LargeMarginSoftmaxLoss` of pytorch-metric-learning; Liu et al. 2016 (1612.02295).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LargeMarginSoftmaxLoss {
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

impl Default for LargeMarginSoftmaxLoss {
    fn default() -> Self {
        LargeMarginSoftmaxLoss {
            num_classes: None,
            embedding_size: None,
            margin: 4,
            scale: 1.0,
            reducer: Reducer::Mean,
        }
    }
}

impl Loss for LargeMarginSoftmaxLoss {
    fn needs(&self) -> Needs {
        Needs::Classes
    }

    fn parameters(&self, sizes: &Sizes) -> Result<Vec<LossParameter>> {
        let count = class_count(self.num_classes, self.embedding_size, sizes)?;
        Ok(vec![LossParameter::vectors("classes", count, sizes, STANDARD_NORMAL)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let vectors = batch.parameter(0)?;
        let logits = multiplied_angle(tape, batch, vectors, self.margin)?;
        let norms = norms(tape, vectors)?;
        let norms = tape.reshape(&norms, &[1, vectors.value().rows()])?;
        let logits = tape.multiply(&logits, &norms)?;
        softmax(tape, batch, &logits, self.scale, &self.reducer)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        problems(self.margin, self.scale)
    }
}

pub(super) fn problems(margin: u32, scale: f64) -> Vec<(&'static str, String)> {
    let none = (margin == 0).then(|| ("margin", "expected 1 or more, got 0".to_owned()));
    none.into_iter().chain(registry::positive("scale", scale)).collect()
}

/// `norm(x_i) cos(x_i, w_k)`, with psi in place of the own class's cosine: `[rows, classes]`.
pub(super) fn multiplied_angle(tape: &mut Tape<'_>, batch: &Batch<'_>, vectors: &Var, margin: u32) -> Result<Var> {
    let count = vectors.value().rows();
    let labels = classes(batch, count)?;
    let cosines = Distance::Cosine.similarities(tape, batch.embeddings, vectors)?;
    let places: Arc<[[u32; 2]]> = (0..).zip(&labels).map(|(row, label)| [row, *label]).collect();
    let own = tape.gather(&cosines, places)?;
    let own = tape.reshape(&own, &[labels.len(), 1])?;
    let (psi, _) = tape.matrix_rows(&own, Arc::new(MultipleAngle(margin)))?;
    let marked = one_hot(&labels, count);
    let others = tape.constant(tape.device().unary(Unary::Affine { scale: -1.0, shift: 1.0 }, &marked));
    let others = tape.multiply(&cosines, &others)?;
    let marked = tape.constant(marked);
    let own = tape.multiply(&marked, &psi)?;
    let cosines = tape.add(&others, &own)?;
    let norms = norms(tape, batch.embeddings)?;
    Ok(tape.multiply(&cosines, &norms)?)
}

pub(super) fn softmax(
    tape: &mut Tape<'_>,
    batch: &Batch<'_>,
    logits: &Var,
    scale: f64,
    reducer: &Reducer,
) -> Result<Var> {
    let targets = one_hot(&batch.layout.labels, logits.value().columns());
    let losses = tape.cross_entropy(logits, None, &targets, scale)?;
    reduce(tape, batch, &losses, reducer)
}

/// 1 where a row meets its class.
pub(super) fn one_hot(labels: &[u32], classes: usize) -> Tensor {
    let mut marked = Tensor::zeros(&[labels.len(), classes]);
    let rows = marked.data_mut().chunks_mut(classes.max(1));
    rows.zip(labels).for_each(|(row, label)| row[*label as usize] = 1.0);
    marked
}

/// The Euclidean norm of each row.
fn norms(tape: &mut Tape<'_>, x: &Var) -> Result<Var> {
    let squares = tape.unary(Unary::Square, x)?;
    let sums = tape.row_sums(&squares, None)?;
    Ok(tape.unary(Unary::Sqrt, &sums)?)
}

/// psi of each cosine of a column.
struct MultipleAngle(u32);

impl MultipleAngle {
    /// Value and slope by the recursions of Chebyshev's polynomials: `T_m(c) = cos(m arccos c)`, `T_m' = m U_(m-1)`.
    fn of(&self, cosine: f64) -> (f64, f64) {
        let cosine = cosine.clamp(-1.0, 1.0);
        let margin = f64::from(self.0);
        let q = (cosine.acos() / (std::f64::consts::PI / margin)).floor();
        let (mut before, mut value) = (1.0, cosine);
        let (mut slope_before, mut slope) = (0.0, 1.0);
        for _ in 1..self.0 {
            (before, value) = (value, 2.0 * cosine * value - before);
            (slope_before, slope) = (slope, 2.0 * cosine * slope - slope_before);
        }
        let sign = if q % 2.0 == 0.0 { 1.0 } else { -1.0 };
        (sign * value - 2.0 * q, sign * margin * slope)
    }
}

impl MatrixFunction for MultipleAngle {
    fn row(&self, row: usize, x: &Tensor) -> (f64, f64) {
        (self.of(f64::from(x.data()[row])).0, 1.0)
    }

    fn gradient(&self, row: usize, x: &Tensor, dy: &[f32], gradient: &mut [f64]) {
        gradient[0] += f64::from(dy[row]) * self.of(f64::from(x.data()[row])).1;
    }
}
