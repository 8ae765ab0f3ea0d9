//! Memory of a CUDA device.

use std::sync::{Arc, OnceLock};

use super::context::Context;

/// How a device holds numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// 32 bits.
    Float,
    /// The upper 16 bits of a float.
    Bf16,
}

impl Format {
    /// Bytes of one number.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Format::Float => 4,
            Format::Bf16 => 2,
        }
    }

    /// The end of the names of the kernels over it.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Format::Float => "f32",
            Format::Bf16 => "bf16",
        }
    }
}

/// A block of device memory, given back to the stream's pool when dropped: kernels that were asked for before still see it.
#[derive(Debug)]
pub(crate) struct Buffer {
    context: Arc<Context>,
    address: u64,
    bytes: usize,
}

impl Buffer {
    /// Memory with unspecified content. Where there is none left its address is 0 and the context has failed: nothing is
    /// launched any more until that is asked about.
    pub(crate) fn stale(context: &Arc<Context>, bytes: usize) -> Self {
        Buffer { context: context.clone(), address: context.allocate(bytes), bytes }
    }

    /// A copy of the processor's memory.
    pub(crate) fn upload<T: bytemuck::Pod>(context: &Arc<Context>, data: &[T]) -> Self {
        let buffer = Buffer::stale(context, size_of_val(data));
        context.upload(buffer.address, bytemuck::cast_slice(data));
        buffer
    }

    /// A copy of another block.
    pub(crate) fn copy(&self) -> Self {
        let copy = Buffer::stale(&self.context, self.bytes);
        self.context.copy(self.address, copy.address, self.bytes);
        copy
    }

    /// Whether there was no memory for it, or none was asked for.
    pub(crate) fn is_missing(&self) -> bool {
        self.address == 0
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// The address of a part.
    pub(crate) fn at(&self, byte: usize) -> u64 {
        debug_assert!(byte <= self.bytes);
        self.address + byte as u64
    }

    /// Sets every byte to 0.
    pub(crate) fn clear(&self) {
        self.context.clear(self.address, self.bytes);
    }

    /// Waits for everything asked for so far and copies the block to the processor's memory.
    pub(crate) fn download<T: bytemuck::Pod>(&self, data: &mut [T]) {
        self.context.download(self.address, bytemuck::cast_slice_mut(data));
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.context.free(self.address);
    }
}

/// The numbers of a tensor on a device: in one format or both, or not there at all.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    float: OnceLock<Buffer>,
    bf16: OnceLock<Buffer>,
}

impl Numbers {
    pub(crate) fn of(buffer: Buffer, format: Format) -> Self {
        let mut numbers = Numbers::default();
        *numbers.slot_mut(format) = OnceLock::from(buffer);
        numbers
    }

    pub(crate) fn slot(&self, format: Format) -> &OnceLock<Buffer> {
        match format {
            Format::Float => &self.float,
            Format::Bf16 => &self.bf16,
        }
    }

    fn slot_mut(&mut self, format: Format) -> &mut OnceLock<Buffer> {
        match format {
            Format::Float => &mut self.float,
            Format::Bf16 => &mut self.bf16,
        }
    }

    pub(crate) fn get(&self, format: Format) -> Option<&Buffer> {
        self.slot(format).get()
    }

    pub(crate) fn take(&mut self, format: Format) -> Option<Buffer> {
        self.slot_mut(format).take()
    }

    /// The format that they were written in: the longer one, if there are both.
    pub(crate) fn format(&self) -> Option<Format> {
        [Format::Float, Format::Bf16].into_iter().find(|&format| self.get(format).is_some())
    }

    /// Copies them to the processor's memory, after waiting for the device; leaves it as it is if there are none.
    pub(crate) fn fetch(&self, data: &mut [f32]) {
        if let Some(float) = self.get(Format::Float) {
            float.download(data);
        } else if let Some(short) = self.get(Format::Bf16) {
            let mut bits = vec![0u16; data.len()];
            short.download(&mut bits);
            data.iter_mut().zip(bits).for_each(|(x, bits)| *x = f32::from_bits(u32::from(bits) << 16));
        }
    }
}
