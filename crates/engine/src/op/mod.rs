//! The closed set of operations. Each file is one operation: a method of [`crate::Tape`] that checks shapes, computes
//! the value and leaves its backward pass beside it.

mod activation;
mod add_columns;
mod attention;
mod batch_norm;
mod channel_scale;
mod convolution;
mod dropout;
mod elementwise;
mod embedding;
mod feed_forward;
mod gem;
mod inverse;
mod linear;
mod norm;
mod normalize;
mod parts;
mod pool;
mod reduce;
mod resize;
mod rows;
mod select;
mod similarity;
mod triplets;
mod window_pool;

pub use self::batch_norm::RunningStatistics;
pub use self::resize::Interpolation;
pub use self::window_pool::WindowOptions;
use crate::error::{Error, Result};
use crate::map::Map;
use crate::packing::Packing;
use crate::tensor::Tensor;

/// Refuses a tensor whose matrix shape is not `[rows, columns]`.
pub(crate) fn expect_shape(operation: &'static str, name: &str, tensor: &Tensor, expected: &[usize]) -> Result<()> {
    if tensor.shape() == expected {
        return Ok(());
    }
    Err(Error::shape(operation, format!("{name} of shape {expected:?}"), format!("{:?}", tensor.shape())))
}

/// Refuses a matrix without columns: its rows could not be told apart.
pub(crate) fn expect_columns(operation: &'static str, name: &str, tensor: &Tensor) -> Result<()> {
    if tensor.columns() > 0 {
        return Ok(());
    }
    Err(Error::shape(operation, format!("{name} of at least one column"), format!("{:?}", tensor.shape())))
}

/// Refuses a packing of another number of rows.
pub(crate) fn expect_packed(operation: &'static str, tensor: &Tensor, packing: &Packing) -> Result<()> {
    if tensor.rows() == packing.rows() {
        return expect_columns(operation, "x", tensor);
    }
    Err(Error::shape(operation, format!("x of {} packed rows", packing.rows()), format!("{:?}", tensor.shape())))
}

/// Refuses a matrix that is not a feature map of this size.
pub(crate) fn expect_map(operation: &'static str, tensor: &Tensor, map: Map) -> Result<()> {
    if tensor.rows() == map.rows() && map.positions() > 0 {
        return expect_columns(operation, "x", tensor);
    }
    let expected = format!("x of {} x {} x {} rows", map.images, map.height, map.width);
    Err(Error::shape(operation, expected, format!("{:?}", tensor.shape())))
}

/// Refuses an index outside `0..limit`.
pub(crate) fn expect_indices(operation: &'static str, indices: &[u32], limit: usize) -> Result<()> {
    match indices.iter().position(|&index| index as usize >= limit) {
        None => Ok(()),
        Some(position) => Err(Error::Index { operation, index: indices[position] as usize, position, limit }),
    }
}
