//! Dense row-major tensors.

use std::sync::{Arc, OnceLock};

use crate::cuda;
use crate::error::{Error, Result};
use crate::pool::Buffer;
use crate::support::Support;

pub use crate::pool::release_free_buffers;

/// A dense row-major tensor of `f32`. Cloning shares the data; the last owner returns the buffer to a pool.
///
/// Its numbers lie in the processor's memory, on a device, or both: whoever reads them brings them over once, and writing
/// them in one place forgets them in the other.
#[derive(Debug, Clone)]
pub struct Tensor {
    shape: Arc<[usize]>,
    storage: Arc<Storage>,
}

/// Where the numbers lie; in none of its places before they are first written.
#[derive(Debug, Default)]
struct Storage {
    host: OnceLock<Buffer>,
    cuda: cuda::Numbers,
    /// The rows outside of which the numbers in the processor's memory are zero; none where nobody knows.
    support: Option<Support>,
}

impl Storage {
    fn host(buffer: Buffer) -> Self {
        Storage { host: OnceLock::from(buffer), ..Storage::default() }
    }

    /// The numbers in the processor's memory, fetched from the device if they lie there only.
    fn fetched(&self, len: usize) -> &Buffer {
        self.host.get_or_init(|| {
            let mut buffer = Buffer::stale(len);
            self.cuda.fetch(buffer.as_mut_slice());
            buffer
        })
    }
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
        Ok(Tensor { shape: shape.into(), storage: Arc::new(Storage::host(Buffer::from_vec(data))) })
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

    /// A tensor of this one's shape and of one value. Where this one's rows of zeros are known, zeros take no memory before they are
    /// written.
    pub fn filled_like(&self, value: f32) -> Self {
        match self.support() {
            Some(_) if value.to_bits() == 0 => Tensor::vacant(&self.shape),
            _ => Tensor::full(&self.shape, value),
        }
    }

    /// Zeros that are known to be zeros: they take no memory before they are written.
    pub(crate) fn vacant(shape: &[usize]) -> Self {
        let buffer = Buffer::vacant(shape.iter().product());
        let mut tensor = Tensor { shape: shape.into(), storage: Arc::new(Storage::host(buffer)) };
        let none = Support::none(tensor.rows(), tensor.columns());
        *tensor.unique().1 = Some(none);
        tensor
    }

    /// The same numbers, and which rows of them are zeros is known: for moments that were saved.
    #[must_use]
    pub fn with_zeros_known(mut self) -> Self {
        let support = Support::of(self.data(), self.columns());
        *self.unique().1 = Some(support);
        self
    }

    /// The rows outside of which all numbers are zero, where that is known; not under another shape.
    pub(crate) fn support(&self) -> Option<&Support> {
        self.storage.support.as_ref().filter(|support| support.columns() == self.columns())
    }

    /// A tensor of one element.
    pub fn scalar(value: f32) -> Self {
        Tensor::full(&[1], value)
    }

    /// A tensor whose elements are unspecified numbers, for outputs that are written completely.
    pub(crate) fn stale(shape: &[usize]) -> Self {
        Tensor { shape: shape.into(), storage: Arc::default() }
    }

    /// A tensor whose numbers a CUDA device has written.
    pub(crate) fn on_cuda(numbers: cuda::Numbers, shape: &[usize]) -> Self {
        let storage = Storage { cuda: numbers, ..Storage::default() };
        Tensor { shape: shape.into(), storage: Arc::new(storage) }
    }

    /// The numbers on a CUDA device, if they lie there.
    pub(crate) fn cuda(&self) -> &cuda::Numbers {
        &self.storage.cuda
    }

    /// The numbers on a CUDA device, if no other tensor shares them; until [`Tensor::set_cuda`] it has none.
    pub(crate) fn take_cuda(&mut self) -> Option<cuda::Numbers> {
        Arc::get_mut(&mut self.storage).map(|storage| std::mem::take(&mut storage.cuda))
    }

    /// Gives it the numbers that a CUDA device has written. It forgets all others and shares them no longer.
    pub(crate) fn set_cuda(&mut self, numbers: cuda::Numbers) {
        self.storage = Arc::new(Storage { cuda: numbers, ..Storage::default() });
    }

    /// Whether anything has been written yet.
    pub(crate) fn is_written(&self) -> bool {
        self.storage.host.get().is_some() || self.storage.cuda.format().is_some()
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

    /// The elements in row-major order; waits for the device that computes them.
    pub fn data(&self) -> &[f32] {
        self.storage.fetched(self.len()).as_slice()
    }

    /// The elements for writing; copies first if another tensor shares them.
    pub fn data_mut(&mut self) -> &mut [f32] {
        let (data, support) = self.unique();
        *support = None;
        data
    }

    /// The elements for writing where the rows of zeros are known, and the set that every row belongs to that is written.
    pub(crate) fn rows_mut(&mut self) -> Option<(&mut [f32], &mut Support)> {
        self.support()?;
        let (data, support) = self.unique();
        Some((data, support.as_mut()?))
    }

    /// The elements in the processor's memory and nowhere else, shared with no other tensor, and the rows that are not zeros.
    fn unique(&mut self) -> (&mut [f32], &mut Option<Support>) {
        let len = self.len();
        if Arc::get_mut(&mut self.storage).is_none() {
            let mut copy = Buffer::stale(len);
            copy.as_mut_slice().copy_from_slice(self.data());
            self.storage = Arc::new(Storage { support: self.support().cloned(), ..Storage::host(copy) });
        }
        let storage = Arc::get_mut(&mut self.storage).expect("the storage was just made unique");
        storage.fetched(len);
        storage.cuda = cuda::Numbers::default();
        let host = storage.host.get_mut().expect("the numbers were just fetched");
        (host.as_mut_slice(), &mut storage.support)
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
