use std::ops::Range;

use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::multiple_negatives_ranking::{Places, own};
use super::row_blocks::row_blocks;
use super::{Batch, Loss};
use crate::error::{Error, Result};
use crate::objective::{Distance, Needs, registry};

/// In-batch negatives without the false ones: a guide model leaves out what it finds as similar as the positive.
///
/// ```text
/// loss(i) = ln sum over survivors of e^(s / temperature) - s(a_i, p_i) / temperature
/// ```
///
/// Candidates are (a_i, p_k), (a_i, a_k) and (p_i, p_k) if asked for, and (a_i, n_k), in cosines. One survives if the
/// guide's cosine of it is at most `t - margin` (`absolute`) or `t - margin |t|` (`relative`), `t` being the guide's cosine
/// of (a_i, p_i); the own positive always does. Rows known to match and a text with itself never count as negatives.
///
/// The guide is the run's `guide`: any model, with its own tokenizer; it is not trained.
///
/// Use it for pairs of which many match one another without being labelled, and a good guide is at hand.
///
/// Reference: `GISTEmbedLoss` of sentence-transformers; Solatorio 2024 (2402.16829).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GISTEmbedLoss {
    /// Default 0.01.
    pub temperature: f64,
    /// Default `absolute`.
    pub margin_strategy: MarginStrategy,
    /// Default 0.
    pub margin: f64,
    /// Compare anchors with anchors. Default true.
    pub contrast_anchors: bool,
    /// Compare positives with positives. Default true.
    pub contrast_positives: bool,
}

/// How far below the positive a candidate has to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarginStrategy {
    /// `t - margin`
    Absolute,
    /// `t - margin |t|`
    Relative,
}

impl Default for GISTEmbedLoss {
    fn default() -> Self {
        GISTEmbedLoss {
            temperature: 0.01,
            margin_strategy: MarginStrategy::Absolute,
            margin: 0.0,
            contrast_anchors: true,
            contrast_positives: true,
        }
    }
}

impl Loss for GISTEmbedLoss {
    fn needs(&self) -> Needs {
        Needs::Pairs
    }

    fn needs_guide(&self) -> bool {
        true
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let places = Places::new(batch.layout)?;
        let guide = batch.guide()?.clone();
        let (count, rows) = (places.queries, batch.layout.rows());
        // Where the rows that ask begin, and which they are compared with.
        let mut sides = vec![(0, count..rows)];
        if self.contrast_anchors {
            sides.push((0, 0..count));
        }
        if self.contrast_positives {
            sides.push((count, count..2 * count));
        }
        let width = sides.iter().map(|(_, to)| to.len()).sum();
        let total = tape.sum_of_parts(&[batch.embeddings], row_blocks(count, width), |tape, inputs, queries| {
            let guide = tape.constant(guide.clone());
            let (mut logits, mut weights) = (Vec::new(), Vec::new());
            let mut limits = Vec::new();
            for (start, to) in &sides {
                let from = start + queries.start..start + queries.end;
                logits.push(cosines(tape, &inputs[0], &from, to)?);
                let guided = cosines(tape, &guide, &from, to)?;
                if limits.is_empty() {
                    // The first side holds every query's own positive, in order.
                    let own = |(place, i)| self.limit(guided.value().data()[place * to.len() + i]);
                    limits = queries.clone().enumerate().map(own).collect();
                }
                let survivors = survivors(&places, &limits, guided.value(), (queries.start, *start), to)?;
                weights.push(tape.constant(survivors));
            }
            let logits = tape.side_by_side(&logits.iter().collect::<Vec<_>>())?;
            let weights = tape.side_by_side(&weights.iter().collect::<Vec<_>>())?;
            let targets = own(queries.start, logits.value().shape());
            let losses = tape.cross_entropy(&logits, Some(weights.value()), &targets, 1.0 / self.temperature)?;
            Ok::<_, Error>(tape.sum(&losses, None)?)
        })?;
        Ok(tape.affine(&total, 1.0 / count.max(1) as f64, 0.0)?)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        registry::positive("temperature", self.temperature).into_iter().collect()
    }
}

impl GISTEmbedLoss {
    /// The largest guide's cosine that survives beside a positive of this one.
    fn limit(&self, positive: f32) -> f64 {
        let positive = f64::from(positive);
        match self.margin_strategy {
            MarginStrategy::Absolute => positive - self.margin,
            MarginStrategy::Relative => positive - self.margin * positive.abs(),
        }
    }
}

fn cosines(tape: &mut Tape<'_>, x: &Var, from: &Range<usize>, to: &Range<usize>) -> Result<Var> {
    let (from, to) = (tape.row_range(x, from.clone())?, tape.row_range(x, to.clone())?);
    Distance::Cosine.similarities(tape, &from, &to)
}

/// 1 for every candidate that counts. The rows are those of the queries from the first on, or of their positives, which
/// begin at `start`.
fn survivors(
    places: &Places<'_>,
    limits: &[f64],
    guided: &Tensor,
    (first, start): (usize, usize),
    to: &Range<usize>,
) -> Result<Tensor> {
    let columns = to.len();
    let survives = |at: usize| {
        let (i, row) = (first + at / columns, to.start + at % columns);
        let own_positive = start == 0 && row == places.queries + i;
        let same_label = places.labels[row] == places.labels[i];
        own_positive || (row != start + i && !same_label && f64::from(guided.data()[at]) <= limits[at / columns])
    };
    let weights = (0..guided.len()).map(|at| if survives(at) { 1.0 } else { 0.0 });
    Ok(Tensor::from_vec(weights.collect(), guided.shape())?)
}
