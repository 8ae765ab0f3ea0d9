use engine::function::Unary;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, Needs, registry};

/// Pairs in the order of their scores, compared by angle in the complex plane: `CoSENTLoss` with another similarity.
///
/// ```text
/// loss = ln(1 + sum over k, l with score_k < score_l of e^(scale (c_k - c_l)))
/// c(x, w) = |x . w + x2 . w1 - x1 . w2| / (norm(x) norm(w))
/// ```
///
/// `x1` and `x2` are the halves of a vector: real and imaginary parts (an odd width gets a zero). Unlike the cosine it
/// does not saturate near 1. Of triplets, the positives count as scored 1 and the negatives as scored 0.
///
/// Use it as [`CoSENTLoss`](super::CoSENTLoss), where many cosines are near 1 and -1 and their gradients vanish.
///
/// Reference: `AnglELoss` of sentence-transformers; Li, Li 2023 (2309.12871), of whose loss it is the angle term.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnglELoss {
    /// Default 20.
    pub scale: f64,
}

impl Default for AnglELoss {
    fn default() -> Self {
        AnglELoss { scale: 20.0 }
    }
}

impl Loss for AnglELoss {
    fn needs(&self) -> Needs {
        Needs::RankedScores
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (first, second, scores) = batch.ranked_pairs(tape)?;
        let similarities = angles(tape, first, &second)?;
        Ok(tape.ranked_pairs(&similarities, &scores.into(), self.scale)?)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("scale", self.scale).into_iter().collect()
    }
}

/// `c(x, w)` of row `i` with row `i`. With `w` turned into `(w1 - w2, w1 + w2)`, which is sqrt(2) times as long, it is
/// `|x . turned| / (norm(x) norm(w))`.
fn angles(tape: &mut Tape<'_>, x: Var, w: &Var) -> Result<Var> {
    let width = x.value().columns();
    let half = width.div_ceil(2);
    let mut turn = Tensor::zeros(&[2 * half, width]);
    for i in 0..half {
        let mut put = |row: usize, column: usize, value: f32| {
            if column < width {
                turn.data_mut()[row * width + column] = value;
            }
        };
        put(i, i, 1.0);
        put(i, half + i, -1.0);
        put(half + i, i, 1.0);
        put(half + i, half + i, 1.0);
    }
    let turn = tape.constant(turn);
    let turned = tape.linear(w, &turn, None)?;
    let x = if width == 2 * half {
        x
    } else {
        let mut wider = Tensor::zeros(&[2 * half, width]);
        (0..width).for_each(|i| wider.data_mut()[i * width + i] = 1.0);
        let wider = tape.constant(wider);
        tape.linear(&x, &wider, None)?
    };
    let cosines = Distance::Cosine.paired(tape, &x, &turned)?;
    let absolute = tape.unary(Unary::Abs, &cosines)?;
    Ok(tape.affine(&absolute, std::f64::consts::SQRT_2, 0.0)?)
}
