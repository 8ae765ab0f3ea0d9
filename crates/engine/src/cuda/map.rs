//! The kernels over feature maps: computed by the processor, with the copies to and fro that this takes.

use super::Cuda;
use crate::cpu::Cpu;
use crate::device::Activation;
use crate::map::{BatchNormGradients, ConvolutionOptions, Map, Maps, Normalisation, WindowPooling, Windows};
use crate::packing::Packing;
use crate::tensor::Tensor;

impl Maps for Cuda {
    fn convolution(
        &self,
        x: &Tensor,
        map: Map,
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: &ConvolutionOptions,
    ) -> Tensor {
        Cpu::F32.convolution(x, map, weight, bias, options)
    }

    fn convolution_backward_input(
        &self,
        dy: &Tensor,
        map: Map,
        weight: &Tensor,
        options: &ConvolutionOptions,
        dx: &mut Tensor,
        accumulate: bool,
    ) {
        Cpu::F32.convolution_backward_input(dy, map, weight, options, dx, accumulate)
    }

    fn convolution_backward_weight(
        &self,
        x: &Tensor,
        map: Map,
        dy: &Tensor,
        options: &ConvolutionOptions,
        dweight: &mut Tensor,
        accumulate: bool,
    ) {
        Cpu::F32.convolution_backward_weight(x, map, dy, options, dweight, accumulate)
    }

    fn column_statistics(&self, x: &Tensor) -> (Tensor, Tensor) {
        Cpu::F32.column_statistics(x)
    }

    fn batch_norm(
        &self,
        x: &Tensor,
        normalisation: &Normalisation,
        weight: &Tensor,
        bias: &Tensor,
        residual: Option<&Tensor>,
        activation: Activation,
    ) -> Tensor {
        Cpu::F32.batch_norm(x, normalisation, weight, bias, residual, activation)
    }

    fn batch_norm_backward(
        &self,
        x: &Tensor,
        y: &Tensor,
        normalisation: &Normalisation,
        weight: &Tensor,
        bias: &Tensor,
        residual: Option<&Tensor>,
        activation: Activation,
        batch: bool,
        dy: Tensor,
    ) -> BatchNormGradients {
        Cpu::F32.batch_norm_backward(x, y, normalisation, weight, bias, residual, activation, batch, dy)
    }

    fn window_pool(&self, pooling: WindowPooling, x: &Tensor, map: Map, windows: &Windows) -> Tensor {
        Cpu::F32.window_pool(pooling, x, map, windows)
    }

    fn window_pool_backward(
        &self,
        pooling: WindowPooling,
        x: &Tensor,
        y: &Tensor,
        map: Map,
        windows: &Windows,
        dy: &Tensor,
    ) -> Tensor {
        Cpu::F32.window_pool_backward(pooling, x, y, map, windows, dy)
    }

    fn channel_scale(&self, x: &Tensor, map: Map, factors: &Tensor) -> Tensor {
        Cpu::F32.channel_scale(x, map, factors)
    }

    fn channel_products(&self, x: &Tensor, map: Map, dy: &Tensor) -> Tensor {
        Cpu::F32.channel_products(x, map, dy)
    }

    fn gem(&self, x: &Tensor, power: &Tensor, eps: f32, packing: &Packing) -> Tensor {
        Cpu::F32.gem(x, power, eps, packing)
    }

    fn gem_backward(
        &self,
        x: &Tensor,
        power: &Tensor,
        eps: f32,
        packing: &Packing,
        y: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Tensor) {
        Cpu::F32.gem_backward(x, power, eps, packing, y, dy)
    }
}
