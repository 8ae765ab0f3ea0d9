//! Dense row-major tensors.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::pool::Buffer;

pub use crate::pool::release_free_buffers;

/// A dense row-major tensor of `f32`. Cloning shares the data; the last owner returns the buffer to a pool.
#[derive(Debug, Clone)]
pub struct Tensor {
    shape: Arc<[usize]>,
    storage: Storage,
}

/// Where the numbers lie. A second device adds a variant here; operations never look inside, only its kernels do.
#[derive(Debug, Clone)]
#[non_exhaustive]
enum Storage {
    Host(Arc<Buffer>),
}

impl Tensor {
    /// A tensor from its elements in row-major order.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of elements is not the product of the shape.
    pub fn from_vec(data: Vec<f32>, shape: &[usize]) -> Result<Self> {
        let expected: usize = shape.iter().product();
        if data.len() != expected {
            return Err(Error::shape("tensor", format!("{expected} elements for {shape:?}"), data.len().to_string()));
        }
        Ok(Tensor { shape: shape.into(), storage: Storage::Host(Arc::new(Buffer::from_vec(data))) })
    }

    /// A tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        let mut tensor = Tensor::stale(shape);
        tensor.data_mut().fill(0.0);
        tensor
    }

    /// A tensor of one value repeated.
    pub fn full(shape: &[usize], value: f32) -> Self {
        let mut tensor = Tensor::stale(shape);
        tensor.data_mut().fill(value);
        tensor
    }

    /// A tensor of one element.
    pub fn scalar(value: f32) -> Self {
        Tensor::full(&[1], value)
    }

    /// A tensor whose elements are unspecified numbers, for outputs that are written completely.
    pub(crate) fn stale(shape: &[usize]) -> Self {
        let len = shape.iter().product();
        Tensor { shape: shape.into(), storage: Storage::Host(Arc::new(Buffer::stale(len))) }
    }

    /// The extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The product of all extents but the last: a tensor is a matrix `[rows, columns]` to most operations.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// The last extent.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &[f32] {
        match &self.storage {
            Storage::Host(buffer) => buffer.as_slice(),
        }
    }

    /// The elements for writing; copies first if another tensor shares them.
    pub fn data_mut(&mut self) -> &mut [f32] {
        let Storage::Host(buffer) = &mut self.storage;
        if Arc::get_mut(buffer).is_none() {
            let mut copy = Buffer::stale(buffer.as_slice().len());
            copy.as_mut_slice().copy_from_slice(buffer.as_slice());
            *buffer = Arc::new(copy);
        }
        Arc::get_mut(buffer).expect("the buffer was just made unique").as_mut_slice()
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of elements differs.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Self> {
        let expected: usize = shape.iter().product();
        if self.len() != expected {
            return Err(Error::shape("reshape", format!("{} elements", self.len()), format!("{shape:?}")));
        }
        Ok(Tensor { shape: shape.into(), storage: self.storage.clone() })
    }

    /// The only element of a tensor of one element.
    ///
    /// # Panics
    /// When there is not exactly one; only objectives call it, on their own results.
    pub fn item(&self) -> f32 {
        assert_eq!(self.len(), 1, "item() of a tensor of shape {:?}", self.shape);
        self.data()[0]
    }
}
