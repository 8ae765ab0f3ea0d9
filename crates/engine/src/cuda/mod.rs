//! An NVIDIA GPU as a [`crate::Device`]: the twin of [`crate::Cpu`].
//!
//! The driver and the libraries are looked for when a device is opened, never before: one binary serves machines with and
//! without a GPU. Matrix products are cuBLASLt's; the other kernels are this crate's own, in `kernels/`, compiled by NVRTC
//! for the device at hand when first used and kept in the user's cache folder.
//!
//! Everything happens on one stream, in the order it was asked for; only [`crate::Tensor::data`] waits. A failure makes
//! everything after it do nothing until [`crate::Device::check`] has said what it was.

mod attention;
mod buffer;
mod context;
mod device;
mod function;
mod map;
mod matmul;
mod monitor;
mod nccl;
mod program;
mod similarity;
mod update;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use self::buffer::Format;
pub(crate) use self::buffer::{Buffer, Numbers};
use self::context::Context;
use self::matmul::{Product, Side};
use self::program::{Argument, Grid, Program};
use crate::error::{Error, Result};
use crate::packing::Packing;
use crate::tensor::Tensor;

/// How a device holds and multiplies activations. Parameters, their gradients, statistics, pooled embeddings and losses
/// are 32 bits wide either way, and every sum is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits with the range of 32: the upper half of a float.
    Bf16,
}

/// A GPU that the driver knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its number, from 0.
    pub ordinal: usize,
    /// What the driver calls it.
    pub name: String,
    /// Its compute capability, such as (9, 0).
    pub capability: (u32, u32),
    /// Bytes of memory.
    pub total_bytes: u64,
    /// The newest CUDA that the driver knows, such as (13, 0).
    pub driver: (u32, u32),
}

/// The GPUs that the driver knows.
///
/// # Errors
/// [`Error::Unavailable`] where there is no driver, or it is too old.
pub fn found() -> Result<Vec<Found>> {
    let (count, version) = context::start()?;
    let found = (0..count).map(|ordinal| {
        let (name, capability, total_bytes) = context::look(ordinal);
        Found { ordinal, name, capability, total_bytes, driver: (version / 1000, version % 1000 / 10) }
    });
    Ok(found.collect())
}

/// Compiles every kernel for an architecture such as `sm_90`; gives the name of each file and the bytes it becomes. Needs NVRTC,
/// but no GPU and no driver.
///
/// # Errors
/// [`Error::Unavailable`] without NVRTC, [`Error::Device`] with what the compiler says.
pub fn compile_for(architecture: &str) -> Result<Vec<(String, usize)>> {
    program::compile_all(architecture)
}

/// A GPU as a [`crate::Device`].
#[derive(Debug, Clone)]
pub struct Cuda {
    context: Arc<Context>,
    precision: Precision,
    /// What stands for memory that could not be had; nothing is launched on it, as the context has failed then.
    missing: Arc<Buffer>,
}

impl Cuda {
    /// Opens the GPU of a number.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is none of this number, the driver or one of the libraries (NVRTC, cuBLASLt) is
    /// missing, or the GPU is too old: compute capability 7.0 is needed, 8.0 for [`Precision::Bf16`].
    pub fn open(ordinal: usize, precision: Precision) -> Result<Self> {
        let context = Context::open(ordinal)?;
        let (needed, what) = match precision {
            Precision::F32 => ((7, 0), "f32"),
            Precision::Bf16 => ((8, 0), "bf16"),
        };
        if context.capability < needed {
            let ((major, minor), (n, m)) = (context.capability, needed);
            let found = format!("{} has compute capability {major}.{minor}", context.name);
            let reason = format!("{found}; {what} needs {n}.{m} or more");
            return Err(Error::Unavailable { device: format!("cuda:{ordinal}"), reason });
        }
        let context = Arc::new(context);
        let missing = Arc::new(Buffer::stale(&context, 0));
        Ok(Cuda { context, precision, missing })
    }

    /// The most bytes of memory that tensors have had at once.
    pub fn peak_bytes(&self) -> u64 {
        self.context.peak_bytes()
    }

    /// The format of activations.
    fn format(&self) -> Format {
        match self.precision {
            Precision::F32 => Format::Float,
            Precision::Bf16 => Format::Bf16,
        }
    }

    /// Room for so many numbers.
    fn stale(&self, len: usize, format: Format) -> Buffer {
        Buffer::stale(&self.context, len * format.bytes())
    }

    /// A tensor of numbers that a kernel was told to write.
    fn tensor(&self, buffer: Buffer, format: Format, shape: &[usize]) -> Tensor {
        Tensor::on_cuda(Numbers::of(buffer, format), shape)
    }

    /// The numbers of a tensor in a format; brings them over or converts them once. A tensor keeps only what there was
    /// memory for.
    fn numbers<'t>(&'t self, tensor: &'t Tensor, format: Format) -> &'t Buffer {
        let numbers = tensor.cuda();
        if let Some(found) = numbers.get(format) {
            return found;
        }
        let made = match (format, numbers.get(Format::Bf16)) {
            (Format::Float, None) => Buffer::upload(&self.context, tensor.data()),
            (Format::Float, Some(short)) => self.converted(short, tensor.len(), Format::Float),
            (Format::Bf16, _) => self.converted(self.numbers(tensor, Format::Float), tensor.len(), Format::Bf16),
        };
        if made.is_missing() { &self.missing } else { numbers.slot(format).get_or_init(|| made) }
    }

    /// The numbers of a tensor in the format of activations.
    fn activations<'t>(&'t self, tensor: &'t Tensor) -> &'t Buffer {
        self.numbers(tensor, self.format())
    }

    fn floats<'t>(&'t self, tensor: &'t Tensor) -> &'t Buffer {
        self.numbers(tensor, Format::Float)
    }

    /// A copy in another format.
    fn converted(&self, from: &Buffer, len: usize, to: Format) -> Buffer {
        let buffer = self.stale(len, to);
        let name = match to {
            Format::Float => "to_f32",
            Format::Bf16 => "to_bf16",
        };
        let arguments = [from.into(), (&buffer).into(), len.into()];
        // SAFETY: both blocks have `len` numbers of the kernel's types.
        unsafe { self.launch(Program::Elementwise, name, Grid::one_each(len.div_ceil(8)), &arguments) };
        buffer
    }

    /// Lets `write` write or change the numbers of a tensor in a format: it gets their block. With `keep` the block holds
    /// them already, otherwise anything.
    fn write(&self, tensor: &mut Tensor, format: Format, keep: bool, write: impl FnOnce(&Buffer)) {
        if keep {
            self.numbers(tensor, format);
        }
        let own = tensor.take_cuda().and_then(|mut numbers| numbers.take(format)).filter(|own| !own.is_missing());
        let buffer = match own {
            Some(buffer) => buffer,
            None if keep => self.numbers(tensor, format).copy(),
            None => self.stale(tensor.len(), format),
        };
        write(&buffer);
        tensor.set_cuda(Numbers::of(buffer, format));
    }

    /// Runs a kernel; see [`Context::launch`].
    ///
    /// # Safety
    /// The arguments have the types of the kernel's parameters, and their blocks the lengths that it touches.
    unsafe fn launch(&self, program: Program, name: &str, grid: Grid, arguments: &[Argument]) {
        // SAFETY: passed on.
        unsafe { self.context.launch(program, name, grid, arguments) }
    }

    /// Runs the kernel of a name over activations, `name_f32` or `name_bf16`.
    ///
    /// # Safety
    /// As [`Cuda::launch`].
    unsafe fn launch_for(&self, program: Program, name: &str, format: Format, grid: Grid, arguments: &[Argument]) {
        // SAFETY: passed on.
        unsafe { self.context.launch(program, &format!("{name}_{}", format.suffix()), grid, arguments) }
    }

    fn layout<'p>(&self, packing: &'p Packing) -> &'p Layout {
        packing.on_cuda.get_or_init(|| Layout::new(&self.context, packing))
    }
}

/// A packing on a device.
#[derive(Debug)]
pub(crate) struct Layout {
    /// `[sequences + 1]`, 32 bits each.
    pub(crate) offsets: Buffer,
    /// Example and position of each row, 32 bits each.
    pub(crate) rows: Buffer,
    /// What was asked for so far.
    tiles: Mutex<HashMap<TilesOf, Arc<Tiles>>>,
}

/// The rows of a tile, and the lengths of the sequences that are cut.
type TilesOf = (usize, RangeInclusive<usize>);

/// The sequences of a packing cut into tiles of equally many rows, the last of a sequence shorter.
#[derive(Debug)]
pub(crate) struct Tiles {
    pub(crate) count: usize,
    /// Sequence and first row within it, 32 bits each; those of long sequences come first.
    pub(crate) list: Buffer,
}

impl Layout {
    fn new(context: &Arc<Context>, packing: &Packing) -> Self {
        let (offsets, rows) = packing.words();
        let rows: Vec<[u32; 2]> = rows.iter().map(|&(example, position)| [example, position]).collect();
        let (offsets, rows) = (Buffer::upload(context, offsets), Buffer::upload(context, &rows));
        Layout { offsets, rows, tiles: Mutex::default() }
    }

    /// Tiles of so many rows of the sequences of some lengths.
    pub(crate) fn tiles(&self, packing: &Packing, rows: usize, lengths: RangeInclusive<usize>) -> Arc<Tiles> {
        let mut tiles = self.tiles.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let make = || {
            let mut sequences: Vec<(u32, usize)> = (0..).zip(packing.ranges().map(|range| range.len())).collect();
            sequences.retain(|(_, len)| lengths.contains(len));
            sequences.sort_by_key(|&(_, len)| std::cmp::Reverse(len));
            let tiles = sequences
                .iter()
                .flat_map(|&(sequence, len)| (0..len).step_by(rows).map(move |first| [sequence, first as u32]));
            let list: Vec<[u32; 2]> = tiles.collect();
            Arc::new(Tiles { count: list.len(), list: Buffer::upload(self.offsets.context(), &list) })
        };
        tiles.entry((rows, lengths.clone())).or_insert_with(make).clone()
    }
}
