use std::ops::Range;

use engine::device::Pooling;
use engine::function::{Binary, Unary};
use engine::random::Key;
use engine::{Packing, Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::by_class::ByClass;
use super::row_blocks::row_blocks;
use super::triplet_margin::TripletsPerAnchor;
use super::{Batch, Loss, Miner};
use crate::error::Result;
use crate::objective::miner::key_of;
use crate::objective::reducer::Of;
use crate::objective::{Distance, Needs, Reducer};

/// Rows nearer to the centre of their own class than to those of others, by a margin.
///
/// ```text
/// loss(i, k) = max(0, d(x_i, c+_i) - d(x_i, c_k) + margin)   for every other class k of the batch
/// ```
///
/// c+_i is the mean of the other rows of i's class, c_k that of all rows of class k, of vectors as they are. Rows that are
/// alone in their class are no anchors.
///
/// Use it for classes whose single items are noisy: they are compared with the means of classes.
///
/// Reference: `CentroidTripletLoss` of pytorch-metric-learning up to 1.7.3, which wants classes of one size; Wieczorek,
/// Rychalska, Dabrowski 2021 (2104.13643).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CentroidTripletLoss {
    /// Default 0.05.
    pub margin: f64,
    /// Use the nearer of `d(x_i, c_k)` and `d(c+_i, c_k)`. Default false.
    pub swap: bool,
    /// `ln(1 + e^v)` in place of `max(0, v)`. Default false.
    pub smooth_loss: bool,
    /// `all`, or how many other classes to draw at random for each anchor. Default `all`.
    pub triplets_per_anchor: TripletsPerAnchor,
    /// Default `l2`, between normalised vectors.
    pub distance: Distance,
    /// Default `avg_non_zero`.
    pub reducer: Reducer,
}

impl Default for CentroidTripletLoss {
    fn default() -> Self {
        CentroidTripletLoss {
            margin: 0.05,
            swap: false,
            smooth_loss: false,
            triplets_per_anchor: TripletsPerAnchor::All,
            distance: Distance::L2,
            reducer: Reducer::AvgNonZero,
        }
    }
}

impl Loss for CentroidTripletLoss {
    fn needs(&self) -> Needs {
        Needs::Labels
    }

    fn mines(&self) -> bool {
        false
    }

    fn matrices(&self, _miner: Option<&dyn Miner>) -> usize {
        if self.reducer.adds_up() { 0 } else { 7 }
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let labels = &batch.layout.labels;
        let classes = ByClass::new(labels);
        let (centres, own) = centres(tape, batch.embeddings, &classes)?;
        let key = key_of(batch.embeddings.value());
        let (rows, count) = (labels.len(), classes.count());
        let blocks = if self.reducer.adds_up() { row_blocks(rows, count) } else { std::iter::once(0..rows).collect() };
        let over = (blocks, Of::Triplets, &labels[..]);
        self.reducer.of_blocks(tape, &[batch.embeddings, &own, &centres], over, |tape, inputs, block| {
            let (embeddings, own) =
                (tape.row_range(&inputs[0], block.clone())?, tape.row_range(&inputs[1], block.clone())?);
            let losses = self.losses(tape, &embeddings, &own, &inputs[2])?;
            let weights = self.weights(&classes, block, key);
            self.reducer.row_sums(tape, &losses, Some(&weights), Of::Triplets)
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        self.reducer.triplet_problems()
    }
}

impl CentroidTripletLoss {
    /// The loss of every anchor with every class, its own included.
    fn losses(&self, tape: &mut Tape<'_>, embeddings: &Var, own: &Var, centres: &Var) -> Result<Var> {
        let positive = self.distance.paired(tape, embeddings, own)?;
        let positive = tape.affine(&positive, -1.0, 0.0)?;
        let mut negative = self.distance.distances(tape, embeddings, centres)?;
        if self.swap {
            let other = self.distance.distances(tape, own, centres)?;
            negative = tape.binary(Binary::Minimum, &negative, &other)?;
        }
        let apart = tape.subtract(&negative, &positive)?;
        let violation = tape.affine(&apart, -1.0, self.margin)?;
        let shape = if self.smooth_loss { Unary::Softplus { scale: 1.0 } } else { Unary::Relu };
        Ok(tape.unary(shape, &violation)?)
    }

    /// How often each of those losses counts.
    fn weights(&self, classes: &ByClass, anchors: Range<usize>, key: Key) -> Tensor {
        let count = classes.count();
        let mut weights = Tensor::zeros(&[anchors.len(), count]);
        for (row, weights) in anchors.zip(weights.data_mut().chunks_mut(count.max(1))) {
            let own = classes.of_row[row] as usize;
            let others: Vec<usize> = (0..count).filter(|&class| class != own).collect();
            match self.triplets_per_anchor {
                _ if classes.rows_like(row) < 2 || others.is_empty() => {}
                TripletsPerAnchor::All => others.into_iter().for_each(|class| weights[class] = 1.0),
                TripletsPerAnchor::Random(draws) => (0..u64::from(draws)).for_each(|draw| {
                    let place = key.part(row as u64).uniform(draw) * others.len() as f64;
                    weights[others[place as usize]] += 1.0;
                }),
            }
        }
        weights
    }
}

/// The mean of each class, and for each row that of the others of its class: the mean of all of them, without this one.
fn centres(tape: &mut Tape<'_>, embeddings: &Var, classes: &ByClass) -> Result<(Var, Var)> {
    let by_class = tape.rows(embeddings, classes.order.clone().into())?;
    let packing = Packing::new(&classes.offsets, &(0..classes.count() as u32).collect::<Vec<_>>());
    let centres = tape.pool(Pooling::Mean, &by_class, &packing)?;
    let centre_of = tape.rows(&centres, classes.of_row.clone().into())?;
    let (rows, width) = (classes.of_row.len(), embeddings.value().columns());
    let factors = |factor: &dyn Fn(f64) -> f64| -> Result<Var> {
        let of_row = |row: usize| match classes.rows_like(row) {
            0 | 1 => 0.0,
            size => factor(size as f64) as f32,
        };
        let factors = (0..rows).flat_map(|row| std::iter::repeat_n(of_row(row), width));
        Ok(tape.constant(Tensor::from_vec(factors.collect(), &[rows, width])?))
    };
    let (of_all, of_one) = (factors(&|size| size / (size - 1.0))?, factors(&|size| 1.0 / (size - 1.0))?);
    let (all, one) = (tape.multiply(&centre_of, &of_all)?, tape.multiply(embeddings, &of_one)?);
    let own = tape.subtract(&all, &one)?;
    Ok((centres, own))
}
