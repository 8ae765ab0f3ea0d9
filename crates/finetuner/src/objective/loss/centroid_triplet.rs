use engine::device::Pooling;
use engine::function::{Binary, Unary};
use engine::{Packing, Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::row_blocks::row_blocks;
use super::triplet_margin::TripletsPerAnchor;
use super::{Batch, Loss};
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

    fn matrices(&self) -> usize {
        if self.reducer.adds_up() { 0 } else { 7 }
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let labels = &batch.layout.labels;
        let rows = labels.len();
        // The rows class by class: a centre is the mean of a run of them.
        let mut order: Vec<u32> = (0..rows as u32).collect();
        order.sort_by_key(|&row| labels[row as usize]);
        let label = |place: usize| labels[order[place] as usize];
        let starts = (0..rows).filter(|&place| place == 0 || label(place) != label(place - 1));
        let offsets: Vec<u32> = starts.map(|place| place as u32).chain([rows as u32]).collect();
        let count = offsets.len() - 1;
        let mut class_of = vec![0; rows];
        let mut sizes = vec![0; count];
        for (class, ends) in offsets.windows(2).enumerate() {
            let run = ends[0] as usize..ends[1] as usize;
            sizes[class] = run.len();
            order[run].iter().for_each(|&row| class_of[row as usize] = class);
        }
        let by_class = tape.rows(batch.embeddings, order.into())?;
        let packing = Packing::new(&offsets, &(0..count as u32).collect::<Vec<_>>());
        let centres = tape.pool(Pooling::Mean, &by_class, &packing)?;
        // The mean of the other rows of a class: of all of them, without this one.
        let centre_of = tape.rows(&centres, class_of.iter().map(|&class| class as u32).collect())?;
        let width = batch.embeddings.value().columns();
        let factors = |factor: &dyn Fn(f64) -> f64| -> Result<Var> {
            let of_row = |&class: &usize| match sizes[class] {
                0 | 1 => 0.0,
                size => factor(size as f64) as f32,
            };
            let factors = class_of.iter().flat_map(|class| std::iter::repeat_n(of_row(class), width));
            Ok(tape.constant(Tensor::from_vec(factors.collect(), &[rows, width])?))
        };
        let (of_all, of_one) = (factors(&|size| size / (size - 1.0))?, factors(&|size| 1.0 / (size - 1.0))?);
        let (all, one) = (tape.multiply(&centre_of, &of_all)?, tape.multiply(batch.embeddings, &of_one)?);
        let own = tape.subtract(&all, &one)?;

        let key = key_of(batch.embeddings.value());
        let blocks = if self.reducer.adds_up() { row_blocks(rows, count) } else { std::iter::once(0..rows).collect() };
        let over = (blocks, Of::Triplets, &labels[..]);
        self.reducer.of_blocks(tape, &[batch.embeddings, &own, &centres], over, |tape, inputs, block| {
            let (embeddings, own) =
                (tape.row_range(&inputs[0], block.clone())?, tape.row_range(&inputs[1], block.clone())?);
            let centres = &inputs[2];
            let positive = self.distance.paired(tape, &embeddings, &own)?;
            let positive = tape.affine(&positive, -1.0, 0.0)?;
            let mut negative = self.distance.distances(tape, &embeddings, centres)?;
            if self.swap {
                let other = self.distance.distances(tape, &own, centres)?;
                negative = tape.binary(Binary::Minimum, &negative, &other)?;
            }
            let apart = tape.subtract(&negative, &positive)?;
            let violation = tape.affine(&apart, -1.0, self.margin)?;
            let shape = if self.smooth_loss { Unary::Softplus { scale: 1.0 } } else { Unary::Relu };
            let losses = tape.unary(shape, &violation)?;

            let mut weights = Tensor::zeros(&[block.len(), count]);
            for (row, weights) in block.zip(weights.data_mut().chunks_mut(count.max(1))) {
                let others: Vec<usize> = (0..count).filter(|&class| class != class_of[row]).collect();
                match self.triplets_per_anchor {
                    _ if sizes[class_of[row]] < 2 || others.is_empty() => {}
                    TripletsPerAnchor::All => others.into_iter().for_each(|class| weights[class] = 1.0),
                    TripletsPerAnchor::Random(draws) => (0..u64::from(draws)).for_each(|draw| {
                        let place = key.part(row as u64).uniform(draw) * others.len() as f64;
                        weights[others[place as usize]] += 1.0;
                    }),
                }
            }
            self.reducer.row_sums(tape, &losses, Some(&weights), Of::Triplets)
        })
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        self.reducer.triplet_problems()
    }
}
