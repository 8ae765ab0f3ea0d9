//! Memory that a thread packs into again and again.

use super::Scalar;

/// A buffer for packed operands and intermediate rows, taken from those of this thread and given back to them.
pub(crate) struct Scratch<T: Scalar> {
    data: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Scalar> Scratch<T> {
    /// `len` unspecified numbers that start on a cache line.
    pub(crate) fn stale(len: usize) -> Self {
        let line = 64 / size_of::<T>();
        let mut data = T::spare().with_borrow_mut(Vec::pop).unwrap_or_default();
        if data.len() < len + line {
            data.resize(len + line, T::default());
        }
        let start = data.as_ptr().align_offset(64).min(line);
        Scratch { data, start, len }
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        &self.data[self.start..self.start + self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.data[self.start..self.start + self.len]
    }
}

impl<T: Scalar> Drop for Scratch<T> {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        T::spare().with_borrow_mut(|spare| spare.push(data));
    }
}
