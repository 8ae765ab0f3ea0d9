use engine::function::{Binary, Similarity, Unary};
use engine::{Tape, Tensor, Var};
use serde::{Deserialize, Serialize};

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
        7
    }

    fn compute(&self, tape: &mut Tape<'_>, batch: &Batch<'_>) -> Result<Var> {
        let labels = &batch.layout.labels;
        let mut classes = labels.clone();
        classes.sort_unstable();
        classes.dedup();
        let sizes: Vec<usize> =
            classes.iter().map(|class| labels.iter().filter(|label| *label == class).count()).collect();
        let class_of: Vec<usize> = labels.iter().filter_map(|label| classes.binary_search(label).ok()).collect();
        let (rows, count) = (labels.len(), classes.len());
        // The mean of the rows that a condition chooses for each centre.
        let transposed = tape.transpose(batch.embeddings)?;
        let mut means = |centres: usize, chosen: &dyn Fn(usize, usize) -> Option<usize>| -> Result<Var> {
            let mut shares = Tensor::zeros(&[centres, rows]);
            for (at, share) in shares.data_mut().iter_mut().enumerate() {
                *share = chosen(at / rows, at % rows).map_or(0.0, |size| 1.0 / size as f32);
            }
            let shares = tape.constant(shares);
            Ok(tape.similarities(Similarity::Dot { normalize: false }, &shares, &transposed)?)
        };
        let centres = means(count, &|class, row| (class_of[row] == class).then_some(sizes[class]))?;
        let own = means(rows, &|i, row| (i != row && class_of[i] == class_of[row]).then(|| sizes[class_of[i]] - 1))?;
        let positive = self.distance.paired(tape, batch.embeddings, &own)?;
        let positive = tape.affine(&positive, -1.0, 0.0)?;
        let mut negative = self.distance.distances(tape, batch.embeddings, &centres)?;
        if self.swap {
            let other = self.distance.distances(tape, &own, &centres)?;
            negative = tape.binary(Binary::Minimum, &negative, &other)?;
        }
        let apart = tape.subtract(&negative, &positive)?;
        let violation = tape.affine(&apart, -1.0, self.margin)?;
        let shape = if self.smooth_loss { Unary::Softplus { scale: 1.0 } } else { Unary::Relu };
        let losses = tape.unary(shape, &violation)?;

        let key = key_of(batch.embeddings.value());
        let mut weights = Tensor::zeros(&[rows, count]);
        for (row, weights) in weights.data_mut().chunks_mut(count).enumerate() {
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
        self.reducer.reduce_labelled(tape, &losses, Some(&weights), Of::Triplets, labels)
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        self.reducer.triplet_problems()
    }
}
