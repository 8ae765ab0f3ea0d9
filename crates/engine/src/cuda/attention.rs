//! Attention on a GPU: in tiles on tensor cores for bf16 and heads of 32, 64 and 128 numbers, in plain loops otherwise.

use super::buffer::Format;
use super::{Argument, Cuda, Grid, Precision, Program};
use crate::cpu::Cpu;
use crate::device::{AttentionOptions, Device};
use crate::packing::Packing;
use crate::tensor::Tensor;

/// Further than any row is from another.
const EVERYWHERE: i32 = 1 << 30;

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
    let tiles = layout.tiles(packing, 64 * strips);
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
    _cuda: &Cuda,
    qkv: &Tensor,
    packing: &Packing,
    bias: Option<&Tensor>,
    options: &AttentionOptions,
    output: &Tensor,
    log_sum_exp: &Tensor,
    dy: &Tensor,
) -> (Tensor, Option<Tensor>) {
    Cpu.attention_backward(qkv, packing, bias, options, output, log_sum_exp, dy)
}
