//! Attention on a GPU: in tiles on tensor cores for bf16 and heads of 32, 64 and 128 numbers, in plain loops otherwise.

use super::buffer::Format;
use super::{Argument, Cuda, Grid, Precision, Program, Tiles};
use crate::cpu::Cpu;
use crate::device::{AttentionOptions, Device};
use crate::packing::Packing;
use crate::tensor::Tensor;

/// Further than any row is from another.
const EVERYWHERE: i32 = 1 << 30;

/// Lengths up to which one block computes all gradients of a sequence and head: there are kernels for either.
const SHORT: [usize; 2] = [64, 128];

/// The kernels in tiles, if there are any for a problem, and the size of a head.
fn flash(cuda: &Cuda, qkv: &Tensor, options: &AttentionOptions) -> Option<(Program, usize)> {
    let size = qkv.columns() / 3 / options.heads.max(1);
    let program = match size {
        32 => Program::FlashAttention32,
        64 => Program::FlashAttention64,
        128 => Program::FlashAttention128,
        _ => return None,
    };
    (cuda.precision == Precision::Bf16).then_some((program, size))
}

/// What the kernels of one problem share: their last parameters.
fn shared_arguments(
    cuda: &Cuda,
    qkv: &Tensor,
    packing: &Packing,
    bias: Option<&Tensor>,
    options: &AttentionOptions,
) -> Vec<Argument> {
    let behind = options.window.map_or(EVERYWHERE, |window| window.min(EVERYWHERE as usize) as i32);
    let ahead = if options.causal { 0 } else { behind };
    let reach = bias.map_or(0, |bias| bias.rows().div_ceil(2));
    let mut arguments: Vec<Argument> = vec![
        cuda.activations(qkv).into(),
        (qkv.columns() as u32 / 3).into(),
        (options.heads as u32).into(),
        ahead.into(),
        behind.into(),
        bias.map(|bias| cuda.floats(bias)).into(),
        (reach as i32).into(),
    ];
    arguments.extend(cuda.dropout_arguments(options.dropout.as_ref().map(|dropout| (dropout, packing))));
    arguments
}

/// Which kernels: 0 for neither dropout nor bias, 1 for dropout, 2 for either or both.
fn extras(bias: Option<&Tensor>, options: &AttentionOptions) -> usize {
    if bias.is_some() { 2 } else { usize::from(options.dropout.is_some()) }
}

/// [`crate::Device::attention`].
pub(super) fn attention(
    cuda: &Cuda,
    qkv: &Tensor,
    packing: &Packing,
    bias: Option<&Tensor>,
    options: &AttentionOptions,
) -> (Tensor, Tensor) {
    let Some((program, size)) = flash(cuda, qkv, options) else {
        return Cpu.attention(qkv, packing, bias, options);
    };
    let (rows, hidden, heads) = (qkv.rows(), qkv.columns() / 3, options.heads);
    let output = cuda.stale(rows * hidden, cuda.format());
    let log_sum_exp = cuda.stale(rows * heads, Format::Float);
    let layout = cuda.layout(packing);
    let strips = if rows > 64 * packing.sequences() { 2 } else { 1 };
    let tiles = layout.tiles(packing, 64 * strips, 1..=usize::MAX);
    let extras = extras(bias, options);
    let bias_bytes = if extras == 2 { 8 * (64 * strips + 64) } else { 0 };
    let grid = Grid {
        blocks: (tiles.count as u32, heads as u32, 1),
        threads: 128,
        shared: (2 * size * (64 * strips + 256) + bias_bytes) as u32,
    };
    let mut arguments: Vec<Argument> =
        vec![(&output).into(), (&log_sum_exp).into(), (&layout.offsets).into(), (&tiles.list).into()];
    arguments.extend(shared_arguments(cuda, qkv, packing, bias, options));
    // SAFETY: the packing's sequences cover the rows of `qkv [rows, 3 hidden]` and of the results.
    unsafe { cuda.launch(program, &format!("attention_{size}_{strips}_{extras}"), grid, &arguments) };
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
    let Some((program, size)) = flash(cuda, qkv, options) else {
        return Cpu.attention_backward(qkv, packing, bias, options, output, log_sum_exp, dy);
    };
    let (heads, layout, extras) = (options.heads, cuda.layout(packing), extras(bias, options));
    let dqkv = cuda.stale(qkv.len(), cuda.format());
    let inner = cuda.stale(qkv.rows() * heads, Format::Float);
    let (query_rows, key_rows) = (if size == 128 { 64 } else { 128 }, if size == 32 { 128 } else { 64 });
    let longer = if bias.is_some() { 1 } else { SHORT[1] + 1 };
    let query_tiles = layout.tiles(packing, query_rows, longer..=usize::MAX);
    // Each group of tiles adds its gradients of the bias by itself.
    let groups = match bias {
        Some(_) => (4 * cuda.context.multiprocessors as usize).div_ceil(heads).min(query_tiles.count),
        None => query_tiles.count,
    };
    let parts = bias.map(|bias| cuda.stale(groups * bias.len(), Format::Float));
    let shared = shared_arguments(cuda, qkv, packing, bias, options);
    let run = |name: &str, blocks: usize, threads: usize, shared_bytes: usize, tiles: &Tiles| {
        let mut arguments: Vec<Argument> = vec![
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
        arguments.extend(&shared);
        let grid =
            Grid { blocks: (blocks as u32, heads as u32, 1), threads: threads as u32, shared: shared_bytes as u32 };
        // SAFETY: the packing's sequences cover the rows of all matrices; `parts` has one part for each block of queries.
        unsafe { cuda.launch(program, name, grid, &arguments) };
    };
    if bias.is_none() {
        for (least, rows) in [(1, SHORT[0]), (SHORT[0] + 1, SHORT[1])] {
            let tiles = layout.tiles(packing, rows, least..=rows);
            let shared = rows * (8 * size + 2 * rows + 16);
            run(&format!("attention_short_{size}_{rows}_{extras}"), tiles.count, 2 * rows, shared, &tiles);
        }
    }
    let (query_bytes, key_bytes) = (4 * size * (query_rows + 128), 4 * size * (key_rows + 128) + 2048);
    let (query_bias, key_bias) = match bias {
        Some(_) => (4 * (query_rows + 64) + 4 * 33 * query_rows, 8 * (key_rows + 64)),
        None => (0, 0),
    };
    run(&format!("attention_queries_{size}_{extras}"), groups, 128, query_bytes + query_bias, &query_tiles);
    let key_tiles = layout.tiles(packing, key_rows, longer..=usize::MAX);
    run(&format!("attention_keys_{size}_{extras}"), key_tiles.count, 128, key_bytes + key_bias, &key_tiles);
    let dbias = bias.zip(parts).map(|(bias, parts)| {
        let dbias = cuda.stale(bias.len(), Format::Float);
        cuda.sum_columns(&parts, Format::Float, (groups, bias.len()), &dbias, false);
        cuda.tensor(dbias, Format::Float, bias.shape())
    });
    (cuda.tensor(dqkv, cuda.format(), qkv.shape()), dbias)
}
