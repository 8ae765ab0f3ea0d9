//! Losses that learn vectors for the classes: margins in a softmax, proxies, centres. Vectors are rows.

mod arc_face;
mod cos_face;
mod large_margin_softmax;
mod manifold;
mod normalized_softmax;
mod p2s_grad;
mod proxy_anchor;
mod proxy_nca;
mod soft_triple;
mod softmax;
mod sphere_face;
mod sub_center_arc_face;

use std::sync::Arc;

use engine::function::RowFunction;
use engine::{Tape, Tensor, Var};

pub use self::arc_face::ArcFaceLoss;
pub use self::cos_face::CosFaceLoss;
pub use self::large_margin_softmax::LargeMarginSoftmaxLoss;
pub use self::manifold::ManifoldLoss;
pub use self::normalized_softmax::NormalizedSoftmaxLoss;
pub use self::p2s_grad::P2SGradLoss;
pub use self::proxy_anchor::ProxyAnchorLoss;
pub use self::proxy_nca::ProxyNCALoss;
pub use self::soft_triple::SoftTripleLoss;
pub use self::sphere_face::SphereFaceLoss;
pub use self::sub_center_arc_face::{Outliers, SubCenterArcFaceLoss};
use super::Batch;
use crate::error::{Error, Result};
use crate::objective::reducer::Of;
use crate::objective::{Distance, Initial, Reducer, Sizes};

/// Where the vectors of pytorch-metric-learning start: N(0, 1).
const STANDARD_NORMAL: Initial = Initial::Normal { deviation: 1.0 };

/// The number of classes, after checking what the options say of the data and of the model.
fn class_count(num_classes: Option<usize>, embedding_size: Option<usize>, sizes: &Sizes) -> Result<usize> {
    check_dimension("embedding_size", embedding_size, sizes)?;
    match num_classes {
        Some(given) if given < sizes.classes => {
            let problem = format!("the training data holds {} classes, got {given}; leave it out", sizes.classes);
            Err(Error::spec("loss_options.num_classes", problem))
        }
        given => Ok(given.unwrap_or(sizes.classes)),
    }
}

/// Refuses another dimension than the model's.
fn check_dimension(option: &str, given: Option<usize>, sizes: &Sizes) -> Result<()> {
    match given {
        Some(given) if given != sizes.dimension => {
            let problem = format!("the model's embeddings have {}, got {given}; leave it out", sizes.dimension);
            Err(Error::spec(format!("loss_options.{option}"), problem))
        }
        _ => Ok(()),
    }
}

/// The labels of the batch, all below the number of classes.
fn classes(batch: &Batch<'_>, count: usize) -> Result<Vec<u32>> {
    let labels = &batch.layout.labels;
    match labels.iter().find(|label| **label as usize >= count) {
        None => Ok(labels.clone()),
        Some(label) => {
            Err(engine::Error::shape("objective", format!("labels below {count} classes"), label.to_string()).into())
        }
    }
}

/// A function of the similarities of each row of `a` with all rows of `b`, larger is closer; `[rows of a]`.
fn rows(
    tape: &mut Tape<'_>,
    distance: Distance,
    a: &Var,
    b: &Var,
    function: impl RowFunction + 'static,
) -> Result<Var> {
    let scale = if distance.inverted() { 1.0 } else { -1.0 };
    Ok(tape.similarity_rows(distance.similarity(), scale, a, b, Arc::new(function))?.0)
}

/// Reduces one loss a row, each times how often the miner's tuples hold the row, beside the row that they hold most
/// often; all 1 without a miner or where it chose nothing.
fn reduce(tape: &mut Tape<'_>, batch: &Batch<'_>, losses: &Var, reducer: &Reducer) -> Result<Var> {
    weigh(tape, batch, losses, reducer, true)
}

/// The same, where rows are compared `among_themselves` or only the anchors of the tuples count.
fn weigh(
    tape: &mut Tape<'_>,
    batch: &Batch<'_>,
    losses: &Var,
    reducer: &Reducer,
    among_themselves: bool,
) -> Result<Var> {
    let labels = &batch.layout.labels;
    let losses = match mined_weights(tape, batch, among_themselves) {
        None => losses.clone(),
        Some(weights) => {
            let weights = weights.into_iter().map(|weight| weight as f32).collect();
            let weights = tape.constant(Tensor::from_vec(weights, losses.value().shape())?);
            tape.multiply(losses, &weights)?
        }
    };
    reducer.reduce_labelled(tape, &losses, None, Of::Elements, labels)
}

/// One weight per row; `None` for all 1.
fn mined_weights(tape: &Tape<'_>, batch: &Batch<'_>, among_themselves: bool) -> Option<Vec<f64>> {
    batch.miner?;
    let labels = batch.masks();
    let counts = batch.mine(tape, &labels).times_chosen(tape.device(), &labels, among_themselves);
    let most = counts.iter().copied().fold(0.0, f64::max);
    (most > 0.0).then(|| counts.into_iter().map(|count| count / most).collect())
}
