//! Attention on a GPU.

use super::Cuda;
use crate::cpu::Cpu;
use crate::device::{AttentionOptions, Device};
use crate::packing::Packing;
use crate::tensor::Tensor;

/// [`crate::Device::attention`].
pub(super) fn attention(
    _cuda: &Cuda,
    qkv: &Tensor,
    packing: &Packing,
    bias: Option<&Tensor>,
    options: &AttentionOptions,
) -> (Tensor, Tensor) {
    Cpu.attention(qkv, packing, bias, options)
}

/// [`crate::Device::attention_backward`].
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
