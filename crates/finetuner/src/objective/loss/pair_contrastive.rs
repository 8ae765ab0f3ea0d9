use engine::function::{Binary, Unary};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Batch, Loss};
use crate::error::Result;
use crate::objective::{Distance, Needs, Reducer};

/// Pairs scored 1 together, pairs scored 0 at least a margin apart.
///
/// ```text
/// loss = mean of (score d^2 + (1 - score) max(0, margin - d)^2) / 2
/// ```
///
/// Known as `sentence_transformers.ContrastiveLoss`; `ContrastiveLoss` alone is that of pytorch-metric-learning, which
/// compares all pairs of a batch.
///
/// Use it for pairs marked 1 (match) or 0 (no match).
///
/// Reference: `ContrastiveLoss` of sentence-transformers; Hadsell, Chopra, LeCun 2006.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PairContrastiveLoss {
    /// Of a cosine, 1 - cosine is the distance. Default `cosine`.
    pub distance_metric: Distance,
    /// Default 0.5.
    pub margin: f64,
    /// The mean over the batch, or else the sum. Default true.
    pub size_average: bool,
}

impl Default for PairContrastiveLoss {
    fn default() -> Self {
        PairContrastiveLoss { distance_metric: Distance::Cosine, margin: 0.5, size_average: true }
    }
}

impl Loss for PairContrastiveLoss {
    fn needs(&self) -> Needs {
        Needs::BinaryScores
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (distances, scores) = pair_distances(tape, batch, self.distance_metric)?;
        let score = |scale: f64, shift: f64| -> Result<Tensor> {
            let weight = |score: &f32| (scale * f64::from(*score) + shift) as f32;
            Ok(Tensor::from_vec(scores.iter().map(weight).collect(), &[scores.len()])?)
        };
        let [positive, negative] = squares(tape, &distances, self.margin)?;
        let positive = weighted(tape, &positive, score(0.5, 0.0)?)?;
        let negative = weighted(tape, &negative, score(-0.5, 0.5)?)?;
        let losses = tape.add(&positive, &negative)?;
        let reducer = if self.size_average { Reducer::Mean } else { Reducer::Sum };
        reducer.reduce(tape, &losses, None)
    }
}

/// Contrastive loss over the hard pairs of a batch only: positives farther apart than its nearest negative, and
/// negatives nearer than its farthest positive.
///
/// ```text
/// loss = sum over hard positives of d^2 + sum over hard negatives of max(0, margin - d)^2
/// ```
///
/// Without any negative, positives farther than the mean of the positives are hard, and the other way round.
///
/// Use it for pairs marked 1 or 0 of which most are easy: only the hard ones of a batch count.
///
/// Reference: `OnlineContrastiveLoss` of sentence-transformers 6.2 (6.0 overlooked a lone positive).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnlineContrastiveLoss {
    /// Of a cosine, 1 - cosine is the distance. Default `cosine`.
    pub distance_metric: Distance,
    /// Default 0.5.
    pub margin: f64,
}

impl Default for OnlineContrastiveLoss {
    fn default() -> Self {
        OnlineContrastiveLoss { distance_metric: Distance::Cosine, margin: 0.5 }
    }
}

impl Loss for OnlineContrastiveLoss {
    fn needs(&self) -> Needs {
        Needs::BinaryScores
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let (distances, scores) = pair_distances(tape, batch, self.distance_metric)?;
        let of = |wanted: f32| -> Vec<f64> {
            let pairs = distances.value().data().iter().zip(scores);
            pairs.filter(|(_, score)| **score == wanted).map(|(d, _)| f64::from(*d)).collect()
        };
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        let (positives, negatives) = (of(1.0), of(0.0));
        let nearest = if negatives.is_empty() {
            mean(&positives)
        } else {
            negatives.iter().copied().fold(f64::INFINITY, f64::min)
        };
        let farthest = if positives.is_empty() {
            mean(&negatives)
        } else {
            positives.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        };
        let hard = |positive: bool| -> Result<Tensor> {
            let marks = distances.value().data().iter().zip(scores).map(|(d, score)| {
                let d = f64::from(*d);
                let hard = if positive { *score == 1.0 && d > nearest } else { *score == 0.0 && d < farthest };
                if hard { 1.0 } else { 0.0 }
            });
            Ok(Tensor::from_vec(marks.collect(), &[scores.len()])?)
        };
        let marks = [hard(true)?, hard(false)?];
        let [positive, negative] = squares(tape, &distances, self.margin)?;
        let [hard_positives, hard_negatives] = marks;
        let positive = weighted(tape, &positive, hard_positives)?;
        let negative = weighted(tape, &negative, hard_negatives)?;
        let losses = tape.add(&positive, &negative)?;
        Reducer::Sum.reduce(tape, &losses, None)
    }
}

/// How far apart the two texts of each scored pair are, and the scores.
fn pair_distances<'b>(tape: &mut Tape<'_>, batch: &'b Batch<'_>, metric: Distance) -> Result<(Var, &'b [f32])> {
    let (first, second, scores) = batch.scored_pairs(tape)?;
    let similarities = metric.paired(tape, &first, &second)?;
    let distances = tape.affine(&similarities, -1.0, if metric.inverted() { 1.0 } else { 0.0 })?;
    Ok((distances, scores))
}

/// `d^2` and `max(0, margin - d)^2`.
fn squares(tape: &mut Tape<'_>, distances: &Var, margin: f64) -> Result<[Var; 2]> {
    let too_far = tape.unary(Unary::Square, distances)?;
    let too_near = tape.affine(distances, -1.0, margin)?;
    let too_near = tape.unary(Unary::Relu, &too_near)?;
    Ok([too_far, tape.unary(Unary::Square, &too_near)?])
}

fn weighted(tape: &mut Tape<'_>, values: &Var, weights: Tensor) -> Result<Var> {
    let weights = tape.constant(weights);
    Ok(tape.binary(Binary::Multiply, values, &weights)?)
}
