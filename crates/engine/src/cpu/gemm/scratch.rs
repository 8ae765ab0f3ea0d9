//! Memory that a thread packs into again and again.

use std::cell::RefCell;
use std::thread::LocalKey;

/// What a buffer is made of.
pub(crate) trait Spare: Copy + Default + Send + Sync + 'static {
    /// Buffers that this thread packed into before.
    fn spare() -> &'static LocalKey<RefCell<Vec<Vec<Self>>>>;
}

macro_rules! spare {
    ($($element:ty),*) => {$(
        impl Spare for $element {
            fn spare() -> &'static LocalKey<RefCell<Vec<Vec<$element>>>> {
                thread_local!(static SPARE: RefCell<Vec<Vec<$element>>> = const { RefCell::new(Vec::new()) });
                &SPARE
            }
        }
    )*};
}

spare!(f32, f64, u32);

/// A buffer for packed operands and intermediate rows, taken from those of this thread and given back to them.
pub(crate) struct Scratch<T: Spare> {
    data: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Spare> Scratch<T> {
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

impl<T: Spare> Drop for Scratch<T> {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        T::spare().with_borrow_mut(|spare| spare.push(data));
    }
}
