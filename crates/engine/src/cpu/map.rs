//! The kernels over feature maps on the processor.

use rayon::prelude::*;

use super::batch_norm::{self, Columns};
use super::convolution::{self, Convolution};
use super::{Cpu, pooling, windows};
use crate::device::{Activation, Pooling};
use crate::map::{BatchNormGradients, ConvolutionOptions, Map, Maps, Normalisation, WindowPooling, Windows};
use crate::packing::Packing;
use crate::tensor::Tensor;

kernel! {
    /// `y = x factors` row by row.
    fn scale_rows(x: &[f32], factors: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks_exact(factors.len()).zip(y.chunks_exact_mut(factors.len())) {
            for i in 0..factors.len() {
                y[i] = x[i] * factors[i];
            }
        }
    }
}

kernel! {
    /// `sums += x dy` over rows.
    fn add_row_products(x: &[f32], dy: &[f32], sums: &mut [f32]) {
        for (x, dy) in x.chunks_exact(sums.len()).zip(dy.chunks_exact(sums.len())) {
            for i in 0..sums.len() {
                sums[i] += x[i] * dy[i];
            }
        }
    }
}

fn columns<'a>(normalisation: &'a Normalisation, weight: &'a Tensor, bias: &'a Tensor) -> Columns<'a> {
    Columns {
        mean: normalisation.mean.data(),
        deviation: normalisation.deviation.data(),
        weight: weight.data(),
        bias: bias.data(),
    }
}

impl Maps for Cpu {
    fn convolution(
        &self,
        x: &Tensor,
        map: Map,
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: &ConvolutionOptions,
    ) -> Tensor {
        let convolution = Convolution::new(map, weight.shape(), options);
        let mut y = Tensor::stale(&[convolution.output.rows(), convolution.outputs]);
        convolution::forward(&convolution, x.data(), weight.data(), bias.map(Tensor::data), y.data_mut());
        y
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
        let convolution = Convolution::new(map, weight.shape(), options);
        convolution::backward_input(&convolution, dy.data(), weight.data(), dx.data_mut(), accumulate);
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
        let shape = dweight.shape().to_vec();
        let convolution = Convolution::new(map, &shape, options);
        convolution::backward_weight(&convolution, x.data(), dy.data(), dweight.data_mut(), accumulate);
    }

    fn column_statistics(&self, x: &Tensor) -> (Tensor, Tensor) {
        let (mut mean, mut variance) = (Tensor::stale(&[x.columns()]), Tensor::stale(&[x.columns()]));
        batch_norm::statistics(x.data(), mean.data_mut(), variance.data_mut());
        (mean, variance)
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
        let mut y = Tensor::stale(x.shape());
        let columns = columns(normalisation, weight, bias);
        batch_norm::forward(x.data(), columns, residual.map(Tensor::data), activation, y.data_mut());
        y
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
        mut dy: Tensor,
    ) -> BatchNormGradients {
        let columns = columns(normalisation, weight, bias);
        let before = residual.map(Tensor::data);
        let (dweight, dbias) =
            batch_norm::backward_sums(x.data(), y.data(), columns, before, activation, dy.data_mut());
        let sums = batch.then_some((&dweight[..], &dbias[..]));
        let narrow = |sums: &[f64]| {
            let mut tensor = Tensor::stale(weight.shape());
            tensor.data_mut().iter_mut().zip(sums).for_each(|(to, &sum)| *to = sum as f32);
            tensor
        };
        let (weight, bias) = (narrow(&dweight), narrow(&dbias));
        if residual.is_none() {
            batch_norm::backward_input(x.data(), columns, sums, dy.data_mut(), None);
            return BatchNormGradients { x: dy, residual: None, weight, bias };
        }
        let mut dx = Tensor::stale(x.shape());
        batch_norm::backward_input(x.data(), columns, sums, dy.data_mut(), Some(dx.data_mut()));
        BatchNormGradients { x: dx, residual: Some(dy), weight, bias }
    }

    fn window_pool(&self, pooling: WindowPooling, x: &Tensor, map: Map, windows: &Windows) -> Tensor {
        let mut y = Tensor::stale(&[windows.output(map).rows(), x.columns()]);
        windows::pool(pooling, x.data(), map, x.columns(), windows, y.data_mut());
        y
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
        let mut dx = Tensor::stale(x.shape());
        let both = (x.data(), y.data());
        windows::pool_backward(pooling, both, map, x.columns(), windows, dy.data(), dx.data_mut());
        dx
    }

    fn channel_scale(&self, x: &Tensor, map: Map, factors: &Tensor) -> Tensor {
        let mut y = Tensor::stale(x.shape());
        let (channels, image) = (x.columns(), map.positions() * x.columns());
        let images = y.data_mut().par_chunks_mut(image).zip(x.data().par_chunks(image));
        images.zip(factors.data().par_chunks(channels)).for_each(|((y, x), factors)| scale_rows(x, factors, y));
        y
    }

    fn channel_products(&self, x: &Tensor, map: Map, dy: &Tensor) -> Tensor {
        let (channels, image) = (x.columns(), map.positions() * x.columns());
        let mut sums = Tensor::zeros(&[map.images, channels]);
        let images = x.data().par_chunks(image).zip(dy.data().par_chunks(image));
        let sums_of = sums.data_mut().par_chunks_mut(channels);
        sums_of.zip(images).for_each(|(sums, (x, dy))| add_row_products(x, dy, sums));
        sums
    }

    fn gem(&self, x: &Tensor, power: &Tensor, eps: f32, packing: &Packing) -> Tensor {
        let mut y = Tensor::stale(&[packing.sequences(), x.columns()]);
        let pooling = Pooling::Gem { p: power.item(), eps };
        pooling::pool(pooling, x.data(), x.columns(), packing, y.data_mut());
        y
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
        let mut dx = Tensor::stale(x.shape());
        let pooling = Pooling::Gem { p: power.item(), eps };
        pooling::pool_backward(pooling, x.data(), y.data(), x.columns(), packing, dy.data(), dx.data_mut());
        let dpower = pooling::gem_power_gradient(x.data(), y.data(), power.item(), eps, packing, dy.data());
        (dx, Tensor::scalar(dpower as f32))
    }
}
