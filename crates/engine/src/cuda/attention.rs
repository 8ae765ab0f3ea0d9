//! Attention on a GPU: in tiles on tensor cores for bf16 and heads of 32, 64 and 128 numbers, in plain loops otherwise.

use super::buffer::Format;
use super::{Argument, Cuda, Grid, Layout, Precision, Program, Tiles};
use crate::cpu::Cpu;
use crate::device::{AttentionOptions, Device};
use crate::packing::Packing;
use crate::tensor::Tensor;

/// Further than any row is from another.
const EVERYWHERE: i32 = 1 << 30;
/// Lengths up to which one block computes all gradients of a sequence and head: there are kernels for either.
const SHORT: [usize; 2] = [64, 128];
/// Rows of a block in plain loops.
const PLAIN_ROWS: usize = 16;

/// What is asked for, and the kernels that do it.
struct Attention<'a> {
    cuda: &'a Cuda,
    qkv: &'a Tensor,
    packing: &'a Packing,
    layout: &'a Layout,
    bias: Option<&'a Tensor>,
    options: &'a AttentionOptions,
    /// Of a head.
    size: usize,
    /// In tiles, not in plain loops.
    flash: bool,
}

/// One kind of kernel: its file and name, rows of a tile, threads of a block, bytes of shared memory.
struct Kernel {
    program: Program,
    name: String,
    rows: usize,
    threads: usize,
    shared: usize,
}

impl<'a> Attention<'a> {
    /// Nothing where heads are too large.
    fn new(
        cuda: &'a Cuda,
        qkv: &'a Tensor,
        packing: &'a Packing,
        bias: Option<&'a Tensor>,
        options: &'a AttentionOptions,
    ) -> Option<Self> {
        let size = qkv.columns() / 3 / options.heads.max(1);
        let flash = cuda.precision == Precision::Bf16 && [32, 64, 128].contains(&size);
        let layout = cuda.layout(packing);
        let mut problem = Attention { cuda, qkv, packing, layout, bias, options, size, flash };
        // Smaller GPUs have no room for tiles of large heads with a bias.
        problem.flash = flash && problem.fits(&problem.forward()) && problem.backward().iter().all(|k| problem.fits(k));
        (size <= 256).then_some(problem)
    }

    /// Whether a block may have as much shared memory.
    fn fits(&self, kernel: &Kernel) -> bool {
        kernel.shared <= self.cuda.context.shared_limit as usize
    }

    /// Which kernels in tiles: 0 for neither dropout nor bias, 1 for dropout, 2 for either or both.
    fn extras(&self) -> usize {
        if self.bias.is_some() { 2 } else { usize::from(self.options.dropout.is_some()) }
    }

    /// A kernel in plain loops; `rows` of matrices in shared memory.
    fn plain(&self, name: &str, rows: usize, bytes: usize) -> Kernel {
        let columns = self.size.div_ceil(32).next_power_of_two();
        let pitch = (self.size.div_ceil(4) | 1) * 4;
        let name = format!("{name}_{columns}_{}", self.cuda.format().suffix());
        let program = Program::Attention { columns };
        Kernel { program, name, rows: PLAIN_ROWS, threads: 128, shared: 4 * rows * pitch + bytes }
    }

    fn forward(&self) -> Kernel {
        if !self.flash {
            return self.plain("attention", 48, 0);
        }
        let strips = if self.packing.rows() > 64 * self.packing.sequences() { 2 } else { 1 };
        let (rows, extras) = (64 * strips, self.extras());
        let name = format!("attention_{}_{strips}_{extras}", self.size);
        let bias = if extras == 2 { 8 * (rows + 64) } else { 0 };
        let program = Program::FlashAttention { size: self.size, extras };
        Kernel { program, name, rows, threads: 128, shared: 2 * self.size * (rows + 256) + bias }
    }

    /// The gradient of the queries and then that of keys and values.
    fn backward(&self) -> [Kernel; 2] {
        if !self.flash {
            return [self.plain("attention_queries", 64, 2112), self.plain("attention_keys", 64, 0)];
        }
        let (size, extras) = (self.size, self.extras());
        let kernel = |name: &str, rows: usize, more: usize, bias: usize| {
            let shared = 4 * size * (rows + 128) + more + if extras == 2 { bias } else { 0 };
            let program = Program::FlashAttentionBackward { size, extras };
            Kernel { program, name: format!("attention_{name}_{size}_{extras}"), rows, threads: 128, shared }
        };
        let rows = if size == 128 { 64 } else { 128 };
        [kernel("queries", rows, 0, 4 * (rows + 64) + 4 * 33 * rows), kernel("keys", rows, 2048, 8 * (rows + 64))]
    }

    /// All gradients of sequences of at most so many rows.
    fn short(&self, rows: usize) -> Kernel {
        let (size, extras) = (self.size, self.extras());
        let name = format!("attention_short_{size}_{rows}_{extras}");
        let program = Program::FlashAttentionBackward { size, extras };
        Kernel { program, name, rows, threads: 2 * rows, shared: rows * (8 * size + 2 * rows + 16) }
    }

    /// Runs a kernel with so many blocks for each head.
    ///
    /// # Safety
    /// As [`Cuda::launch`], for the arguments before those that all kernels share.
    unsafe fn run(&self, kernel: &Kernel, blocks: usize, arguments: &[Argument]) {
        let options = self.options;
        let behind = options.window.map_or(EVERYWHERE, |window| window.min(EVERYWHERE as usize) as i32);
        let shared: [Argument; 8] = [
            self.cuda.activations(self.qkv).into(),
            (self.size as u32).into(),
            (self.qkv.columns() as u32 / 3).into(),
            (options.heads as u32).into(),
            if options.causal { 0.into() } else { behind.into() },
            behind.into(),
            self.bias.map(|bias| self.cuda.floats(bias)).into(),
            self.bias.map_or(0, |bias| bias.rows().div_ceil(2) as i32).into(),
        ];
        let dropout = self.cuda.dropout_arguments(options.dropout.as_ref().map(|dropout| (dropout, self.packing)));
        let arguments = [arguments, &shared, &dropout].concat();
        let blocks = (blocks as u32, options.heads as u32, 1);
        let grid = Grid { blocks, threads: kernel.threads as u32, shared: kernel.shared as u32 };
        // SAFETY: the packing's sequences cover the rows of `qkv [rows, 3 hidden]`, the caller promises the others.
        unsafe { self.cuda.launch(kernel.program, &kernel.name, grid, &arguments) };
    }
}

/// [`crate::Device::attention`].
pub(super) fn attention(
    cuda: &Cuda,
    qkv: &Tensor,
    packing: &Packing,
    bias: Option<&Tensor>,
    options: &AttentionOptions,
) -> (Tensor, Tensor) {
    let Some(problem) = Attention::new(cuda, qkv, packing, bias, options) else {
        return Cpu::F32.attention(qkv, packing, bias, options);
    };
    let (rows, hidden, heads) = (qkv.rows(), qkv.columns() / 3, options.heads);
    let (output, log_sum_exp) = (cuda.stale(rows * hidden, cuda.format()), cuda.stale(rows * heads, Format::Float));
    let kernel = problem.forward();
    let tiles = problem.layout.tiles(packing, kernel.rows, 1..=usize::MAX);
    let offsets = &problem.layout.offsets;
    let arguments = [(&output).into(), (&log_sum_exp).into(), offsets.into(), (&tiles.list).into()];
    // SAFETY: the results are `[rows, hidden]` and `[rows, heads]`.
    unsafe { problem.run(&kernel, tiles.count, &arguments) };
    (cuda.tensor(output, cuda.format(), &[rows, hidden]), cuda.tensor(log_sum_exp, Format::Float, &[rows, heads]))
}

/// [`crate::Device::attention_backward`].
#[allow(clippy::too_many_arguments)]
pub(super) fn attention_backward(
    cuda: &Cuda,
    qkv: &Tensor,
    packing: &Packing,
    bias: Option<&Tensor>,
    options: &AttentionOptions,
    output: &Tensor,
    log_sum_exp: &Tensor,
    dy: &Tensor,
) -> (Tensor, Option<Tensor>) {
    let Some(problem) = Attention::new(cuda, qkv, packing, bias, options) else {
        return Cpu::F32.attention_backward(qkv, packing, bias, options, output, log_sum_exp, dy);
    };
    let layout = problem.layout;
    let dqkv = cuda.stale(qkv.len(), cuda.format());
    let inner = cuda.stale(log_sum_exp.len(), Format::Float);
    let short: Vec<usize> = if problem.flash && bias.is_none() {
        SHORT.into_iter().filter(|&rows| problem.fits(&problem.short(rows))).collect()
    } else {
        Vec::new()
    };
    let longer = short.last().map_or(1, |rows| rows + 1)..=usize::MAX;
    let [queries, keys] = problem.backward();
    let query_tiles = layout.tiles(packing, queries.rows, longer.clone());
    // Each group of tiles adds its gradients of the bias by itself.
    let groups = match bias {
        Some(_) => (4 * cuda.context.multiprocessors as usize).div_ceil(options.heads).min(query_tiles.count),
        None => query_tiles.count,
    };
    let parts = bias.map(|bias| cuda.stale(groups * bias.len(), Format::Float));
    let run = |kernel: &Kernel, blocks: usize, tiles: &Tiles| {
        let arguments = [
            cuda.activations(output).into(),
            cuda.activations(dy).into(),
            cuda.floats(log_sum_exp).into(),
            (&inner).into(),
            (&dqkv).into(),
            parts.as_ref().into(),
            (&layout.offsets).into(),
            (&tiles.list).into(),
            (tiles.count as u32).into(),
        ];
        // SAFETY: `output` and `dy` are `[rows, hidden]`, the statistics `[rows, heads]`, the result is as `qkv`, and
        // `parts` has one part for each block of queries.
        unsafe { problem.run(kernel, blocks, &arguments) };
    };
    let mut least = 1;
    for rows in short {
        let tiles = layout.tiles(packing, rows, least..=rows);
        run(&problem.short(rows), tiles.count, &tiles);
        least = rows + 1;
    }
    run(&queries, groups, &query_tiles);
    let key_tiles = layout.tiles(packing, keys.rows, longer);
    run(&keys, key_tiles.count, &key_tiles);
    let dbias = bias.zip(parts).map(|(bias, parts)| {
        let dbias = cuda.stale(bias.len(), Format::Float);
        cuda.sum_columns(&parts, Format::Float, (groups, bias.len()), &dbias, false);
        cuda.tensor(dbias, Format::Float, bias.shape())
    });
    (cuda.tensor(dqkv, cuda.format(), qkv.shape()), dbias)
}
