//! Choosing pairs one by one.

use engine::Tensor;

use crate::objective::{Masks, Mined};

/// The pairs whose row and distance the two conditions accept.
pub(super) fn chosen(
    distances: &Tensor,
    labels: &Masks,
    positive: impl Fn(usize, f64) -> bool,
    negative: impl Fn(usize, f64) -> bool,
) -> Mined {
    let columns = distances.columns();
    let kept = |mask: &Tensor, accepts: &dyn Fn(usize, f64) -> bool| {
        let mut kept = Tensor::zeros(mask.shape());
        for pair in marked(mask) {
            kept.data_mut()[pair] = f32::from(u8::from(accepts(pair / columns, f64::from(distances.data()[pair]))));
        }
        kept
    };
    Mined::Pairs(Masks { positives: kept(&labels.positives, &positive), negatives: kept(&labels.negatives, &negative) })
}

/// The places in a mask that are not 0.
pub(super) fn marked(mask: &Tensor) -> Vec<usize> {
    (0..mask.len()).filter(|&place| mask.data()[place] != 0.0).collect()
}

/// The columns that a row of a mask marks.
pub(super) fn of_row(mask: &Tensor, row: usize) -> Vec<usize> {
    let columns = mask.columns();
    (0..columns).filter(|column| mask.data()[row * columns + column] != 0.0).collect()
}
