use std::ops::Range;

use engine::function::Unary;
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::multiple_negatives_ranking::own;
use super::row_blocks::row_blocks;
use super::{Batch, Loss};
use crate::error::{Error, Result};
use crate::objective::{BatchLayout, Distance, Keep, LossParameter, Needs, Sizes};

/// The two sides of pairs find each other, with a learned temperature: images and texts, or any two columns.
///
/// ```text
/// z = e^logit_scale cos(u_i, v_j)
/// loss = 1/2 mean over i of cross-entropy(z_i., i) + 1/2 mean over j of cross-entropy(z_.j, j)
/// ```
///
/// `logit_scale` is learned by `loss_optimizer` without weight decay, and stays within `[0, ln 100]`. Pairs that are
/// known to match another stand in no denominator; with all labels distinct it is the reference's loss.
///
/// Use it for pairs of two kinds, such as images and texts, in large batches.
///
/// Reference: `ClipLoss` of open_clip (Finetuner's `CLIPLoss`); Radford et al. 2021 (2103.00020).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClipLoss {
    /// Where `logit_scale` starts. Default 2.659260036932778, which is ln(1 / 0.07).
    pub init_logit_scale: f64,
}

impl Default for ClipLoss {
    fn default() -> Self {
        ClipLoss { init_logit_scale: (1.0f64 / 0.07).ln() }
    }
}

/// `[0, ln 100]`: after every step as in open_clip.
pub(super) const SCALES: Keep = Keep::Within(0.0, 4.605_170_2);

impl Loss for ClipLoss {
    fn needs(&self) -> Needs {
        Needs::Pairs
    }

    fn parameters(&self, _: &Sizes) -> Result<Vec<LossParameter>> {
        Ok(vec![LossParameter::scalar("logit_scale", self.init_logit_scale).kept(SCALES)])
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        symmetric(tape, batch, Distance::Cosine)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        scale_problem(self.init_logit_scale).into_iter().collect()
    }
}

/// Both sides find each other among all, their similarities times e to the loss's one parameter.
pub(super) fn symmetric(tape: &mut Tape<'_>, batch: &Batch<'_>, distance: Distance) -> Result<Var> {
    let scale = tape.unary(Unary::Exp, batch.parameter(0)?)?;
    let count = pairs(batch)?;
    let total = tape.sum_of_parts(&[batch.embeddings, &scale], row_blocks(count, count), |tape, inputs, rows| {
        let compared = compared(batch.layout, &rows);
        let mut losses = Vec::new();
        for (from, to) in [(0, count), (count, 0)] {
            let asking = tape.row_range(&inputs[0], from + rows.start..from + rows.end)?;
            let others = tape.row_range(&inputs[0], to..to + count)?;
            let similar = distance.similarities(tape, &asking, &others)?;
            let logits = tape.multiply(&similar, &inputs[1])?;
            let crossed = tape.cross_entropy(&logits, Some(&compared), &own(rows.start, compared.shape()), 1.0)?;
            losses.push(tape.sum(&crossed, None)?);
        }
        Ok::<_, Error>(tape.add(&losses[0], &losses[1])?)
    })?;
    Ok(tape.affine(&total, 0.5 / count.max(1) as f64, 0.0)?)
}

pub(super) fn scale_problem(scale: f64) -> Option<(&'static str, String)> {
    let valid = (0.0..=100f64.ln()).contains(&scale);
    (!valid).then(|| ("init_logit_scale", format!("expected a number from 0 to ln 100 = 4.605, got {scale}")))
}

/// Both sides of pairs.
pub(super) fn two_columns(tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<(Var, Var)> {
    pairs(batch)?;
    Ok((batch.column(tape, 0)?, batch.column(tape, 1)?))
}

/// How many pairs there are.
pub(super) fn pairs(batch: &Batch<'_>) -> Result<usize> {
    match batch.layout.columns[..] {
        [first, second] if first == second => Ok(first),
        ref other => {
            let got = format!("columns of {other:?} rows");
            Err(engine::Error::shape("objective", "pairs: two columns of the same length", got).into())
        }
    }
}

/// 1 where one of these rows of a column and a row of the other are a pair or no known match.
pub(super) fn compared(layout: &BatchLayout, rows: &Range<usize>) -> Tensor {
    let count = layout.columns[0];
    let mut compared = Tensor::zeros(&[rows.len(), count]);
    for (at, value) in compared.data_mut().iter_mut().enumerate() {
        let (i, j) = (rows.start + at / count, at % count);
        *value = f32::from(u8::from(i == j || layout.labels[i] != layout.labels[j]));
    }
    compared
}
