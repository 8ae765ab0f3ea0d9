//! The reference device: portable kernels, vectorised for the instruction set found at run time, over the threads of
//! the current rayon pool. Same input, same bits, on any number of threads.

mod activation;
mod attention;
mod batch_norm;
mod convolution;
mod depthwise;
mod elementwise;
mod embedding;
mod function;
pub(crate) mod gemm;
mod map;
pub(crate) mod math;
mod inverse;
mod measure;
mod norm;
mod patches;
mod pooling;
mod reduce;
pub(crate) mod rows;
mod similarity;
mod triplets;
mod update;
mod windows;

use rayon::prelude::*;

use self::gemm::{Bf16, Format, Matrix, Packed, Scratch, Threads, cut, matmul, matmul_then, product, task_rows};
use crate::device::{Activation, AttentionOptions, Device, NormGradients, Operand, Pooling, UpdateRule};
use crate::packing::Packing;
use crate::random::Dropout;
use crate::tensor::Tensor;

/// The processor as a [`Device`], by the numbers that the products of linear layers are made of. It has no state: threads
/// are those of the rayon pool it is called in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cpu {
    /// Everything in f32.
    #[default]
    F32,
    /// Operands of the products of linear layers and of attention, and of their gradients, are rounded to bf16, to nearest, ties
    /// to even, and summed in f32; tensors, softmax, norms, losses and updates stay f32. Faster than [`Cpu::F32`] only where
    /// [`crate::has_bf16`]; elsewhere the same sums come slowly, added in another order.
    Bf16,
}

/// The inner products of all rows of `left [m, dimension]` with all rows of `right [n, dimension]`, into `products
/// [m, n]`, on the calling thread: the heavy part of an exact search.
///
/// # Panics
/// When the operands do not hold whole rows, or `products` not one element for each pair of rows.
pub fn inner_products(left: &[f32], right: &[f32], dimension: usize, products: &mut [f32]) {
    let (rows, columns) = (left.len() / dimension, right.len() / dimension);
    assert_eq!((left.len(), right.len()), (rows * dimension, columns * dimension), "whole rows");
    assert_eq!(products.len(), rows * columns, "one product for each pair of rows");
    let (left, right) = (Matrix::new(left, rows, dimension), Matrix::new(right, columns, dimension));
    matmul(left, right.transposed(), 1.0, products, columns, false, Threads::One);
}

/// Elements per task of elementwise passes.
const TASK: usize = 16_384;

impl Device for Cpu {
    fn name(&self) -> String {
        let precision = if *self == Cpu::Bf16 { ", bf16 products" } else { "" };
        let instructions = format!("{:?}", crate::instruction_set()).to_lowercase();
        format!("cpu ({instructions}{precision}, {} threads)", rayon::current_num_threads())
    }

    fn matmul(&self, a: Operand<'_>, b: Operand<'_>, alpha: f32, out: &mut Tensor, accumulate: bool) {
        let view = |operand| match operand {
            Operand::Plain(tensor) => Matrix::of(tensor),
            Operand::Transposed(tensor) => Matrix::of(tensor).transposed(),
        };
        let (a, b) = (view(a), view(b));
        let columns = out.columns();
        match self {
            Cpu::F32 => matmul(a, b, alpha, out.data_mut(), columns, accumulate, Threads::All),
            Cpu::Bf16 => {
                let out = (out.data_mut(), columns);
                product::<Bf16>(a.into(), b, alpha, out, accumulate, Threads::All, &mut [], |_, _, _| {});
            }
        }
    }

    fn add_assign(&self, sum: &mut Tensor, x: &Tensor) {
        let chunks = sum.data_mut().par_chunks_mut(TASK).zip(x.data().par_chunks(TASK));
        chunks.for_each(|(sum, x)| rows::add(sum, x));
    }

    fn scale_assign(&self, x: &mut Tensor, factor: f32) {
        x.data_mut().par_chunks_mut(TASK).for_each(|x| rows::scale(x, factor));
    }

    fn column_sums(&self, x: &Tensor, out: &mut Tensor, accumulate: bool) {
        let columns = x.columns();
        let partial: Vec<Vec<f32>> = x
            .data()
            .par_chunks(rows::TASK_ROWS * columns)
            .map(|x| {
                let mut sums = vec![0.0; columns];
                rows::add_column_sums(x, &mut sums);
                sums
            })
            .collect();
        let out = out.data_mut();
        if !accumulate {
            out.fill(0.0);
        }
        partial.iter().for_each(|sums| rows::add(out, sums));
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let mut y = Tensor::stale(&[x.rows(), weight.rows()]);
        let add_bias = |_: usize, y: &mut [f32], _: &mut [f32]| {
            if let Some(bias) = bias {
                y.chunks_exact_mut(bias.len()).for_each(|row| rows::add(row, bias.data()));
            }
        };
        let (x, weight) = (Matrix::of(x), Matrix::of(weight).transposed());
        match self {
            Cpu::F32 => matmul_then::<f32>(x, weight, y.data_mut(), &mut [], add_bias),
            Cpu::Bf16 => matmul_then::<Bf16>(x, weight, y.data_mut(), &mut [], add_bias),
        }
        y
    }

    fn activation(&self, activation: Activation, x: &Tensor) -> Tensor {
        let mut y = Tensor::stale(x.shape());
        let chunks = y.data_mut().par_chunks_mut(TASK).zip(x.data().par_chunks(TASK));
        chunks.for_each(|(y, x)| activation::forward(activation, x, y));
        y
    }

    fn activation_backward(&self, activation: Activation, x: &Tensor, dy: &Tensor) -> Tensor {
        let mut dx = Tensor::stale(x.shape());
        let chunks = dx.data_mut().par_chunks_mut(TASK).zip(x.data().par_chunks(TASK)).zip(dy.data().par_chunks(TASK));
        chunks.for_each(|((dx, x), dy)| {
            dx.copy_from_slice(dy);
            activation::backward(activation, x, &mut vec![0.0; x.len()], dx);
        });
        dx
    }

    fn feed_forward(
        &self,
        x: &Tensor,
        (first_weight, first_bias): (&Tensor, &Tensor),
        (second_weight, second_bias): (&Tensor, &Tensor),
        activation: Activation,
        keep_middle: bool,
    ) -> (Tensor, Tensor) {
        let (first, second) = ((first_weight, first_bias), (second_weight, second_bias));
        match self {
            Cpu::F32 => feed_forward::<f32>(x, first, second, activation, keep_middle),
            Cpu::Bf16 => feed_forward::<Bf16>(x, first, second, activation, keep_middle),
        }
    }

    fn feed_forward_backward(
        &self,
        middle: &Tensor,
        second_weight: &Tensor,
        dy: &Tensor,
        activation: Activation,
    ) -> (Tensor, Tensor, Tensor) {
        let inner = middle.columns();
        let (mut active, mut dmiddle) = (Tensor::stale(middle.shape()), Tensor::stale(middle.shape()));
        let (dy, weight) = (Matrix::of(dy), Matrix::of(second_weight));
        let through_activation = |first: usize, dmiddle: &mut [f32], active: &mut [f32]| {
            let middle = &middle.data()[first * inner..][..dmiddle.len()];
            activation::backward(activation, middle, active, dmiddle);
        };
        match self {
            Cpu::F32 => matmul_then::<f32>(dy, weight, dmiddle.data_mut(), active.data_mut(), through_activation),
            Cpu::Bf16 => matmul_then::<Bf16>(dy, weight, dmiddle.data_mut(), active.data_mut(), through_activation),
        }
        let mut sums = Tensor::stale(&[inner]);
        self.column_sums(&dmiddle, &mut sums, false);
        (active, dmiddle, sums)
    }

    fn embedding_sum(&self, tables: &[(&Tensor, &[u32])], columns: usize) -> Tensor {
        let mut y = Tensor::stale(&[tables.first().map_or(0, |(_, ids)| ids.len()), columns]);
        embedding::sum(tables, columns, y.data_mut());
        y
    }

    fn embedding_backward(&self, ids: &[u32], dy: &Tensor, out: &mut Tensor, accumulate: bool) {
        embedding::backward(ids, dy, out, accumulate);
    }

    fn add_norm(
        &self,
        x: &Tensor,
        residual: Option<&Tensor>,
        weight: &Tensor,
        bias: &Tensor,
        eps: f32,
        dropout: Option<(&Dropout, &Packing)>,
    ) -> (Tensor, Tensor, Tensor) {
        let mut y = Tensor::stale(x.shape());
        let mut normalised = Tensor::stale(x.shape());
        let mut deviations = Tensor::stale(&[x.rows()]);
        norm::add_norm(
            x.data(),
            residual.map(Tensor::data),
            weight.data(),
            bias.data(),
            eps,
            dropout,
            y.data_mut(),
            normalised.data_mut(),
            deviations.data_mut(),
        );
        (y, normalised, deviations)
    }

    fn scale_shift(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
        let mut y = Tensor::stale(x.shape());
        norm::scale_shift(x.data(), weight.data(), bias.data(), y.data_mut());
        y
    }

    fn add_norm_backward(
        &self,
        normalised: &Tensor,
        deviation: &Tensor,
        weight: &Tensor,
        dy: &Tensor,
        dropout: Option<(&Dropout, &Packing)>,
    ) -> NormGradients {
        let mut sum = Tensor::stale(dy.shape());
        let (mut dweight, mut dbias) = (Tensor::stale(weight.shape()), Tensor::stale(weight.shape()));
        norm::add_norm_backward(
            normalised.data(),
            deviation.data(),
            weight.data(),
            dy.data(),
            sum.data_mut(),
            dweight.data_mut(),
            dbias.data_mut(),
        );
        let x = dropout.map_or_else(|| sum.clone(), |(dropout, packing)| self.dropout(&sum, dropout, packing));
        NormGradients { sum, x, weight: dweight, bias: dbias }
    }

    fn dropout(&self, x: &Tensor, dropout: &Dropout, packing: &Packing) -> Tensor {
        let mut y = Tensor::stale(x.shape());
        norm::dropout(x.data(), x.columns(), dropout, packing, y.data_mut());
        y
    }

    fn attention(
        &self,
        qkv: &Tensor,
        packing: &Packing,
        bias: Option<&Tensor>,
        options: &AttentionOptions,
    ) -> (Tensor, Tensor) {
        let hidden = qkv.columns() / 3;
        let mut output = Tensor::stale(&[qkv.rows(), hidden]);
        let mut log_sum_exp = Tensor::stale(&[qkv.rows(), options.heads]);
        let attention = match self {
            Cpu::F32 => attention::attention::<f32>,
            Cpu::Bf16 => attention::attention::<Bf16>,
        };
        attention(
            qkv.data(),
            hidden,
            packing,
            bias.map(Tensor::data),
            options,
            output.data_mut(),
            log_sum_exp.data_mut(),
        );
        (output, log_sum_exp)
    }

    fn attention_backward(
        &self,
        qkv: &Tensor,
        packing: &Packing,
        bias: Option<&Tensor>,
        options: &AttentionOptions,
        output: &Tensor,
        log_sum_exp: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Option<Tensor>) {
        let mut dqkv = Tensor::stale(qkv.shape());
        let mut dbias = bias.map(|bias| Tensor::zeros(bias.shape()));
        let attention_backward = match self {
            Cpu::F32 => attention::attention_backward::<f32>,
            Cpu::Bf16 => attention::attention_backward::<Bf16>,
        };
        attention_backward(
            qkv.data(),
            qkv.columns() / 3,
            packing,
            bias.map(Tensor::data),
            options,
            output.data(),
            log_sum_exp.data(),
            dy.data(),
            dqkv.data_mut(),
            dbias.as_mut().map(Tensor::data_mut),
        );
        (dqkv, dbias)
    }

    fn pool(&self, pooling: Pooling, x: &Tensor, packing: &Packing) -> Tensor {
        let mut y = Tensor::stale(&[packing.sequences(), x.columns()]);
        pooling::pool(pooling, x.data(), x.columns(), packing, y.data_mut());
        y
    }

    fn pool_backward(&self, pooling: Pooling, x: &Tensor, pooled: &Tensor, packing: &Packing, dy: &Tensor) -> Tensor {
        let mut dx = Tensor::stale(x.shape());
        pooling::pool_backward(pooling, x.data(), pooled.data(), x.columns(), packing, dy.data(), dx.data_mut());
        dx
    }

    fn normalize(&self, x: &Tensor, eps: f32) -> (Tensor, Tensor) {
        let mut y = Tensor::stale(x.shape());
        let mut norms = Tensor::stale(&[x.rows()]);
        pooling::normalize(x.data(), x.columns(), eps, y.data_mut(), norms.data_mut());
        (y, norms)
    }

    fn normalize_backward(&self, y: &Tensor, norms: &Tensor, eps: f32, dy: &Tensor) -> Tensor {
        let mut dx = Tensor::stale(y.shape());
        pooling::normalize_backward(y.data(), norms.data(), y.columns(), eps, dy.data(), dx.data_mut());
        dx
    }

    fn sum_of_squares(&self, tensors: &[&Tensor]) -> f64 {
        let of = |x: &&Tensor| -> f64 {
            let (data, columns) = (x.data(), x.columns());
            let parts = data.par_chunks(TASK);
            // Rows of whole lanes: those left out would have added zeros.
            let Some(support) = x.support().filter(|_| columns > 0 && columns.is_multiple_of(rows::SQUARES)) else {
                let parts: Vec<f64> = parts.map(|part| rows::sum_of_squares(&[part])).collect();
                return parts.into_iter().sum();
            };
            let of_rows = |(task, part): (usize, &[f32])| {
                let (from, to) = (task * TASK, task * TASK + part.len());
                let rows = support.within(from / columns..to.div_ceil(columns));
                let rows = rows.map(|row| &data[(row * columns).max(from)..((row + 1) * columns).min(to)]);
                rows::sum_of_squares(&rows.collect::<Vec<_>>())
            };
            let parts: Vec<f64> = parts.enumerate().map(of_rows).collect();
            parts.into_iter().sum()
        };
        tensors.iter().map(of).sum()
    }

    fn update(
        &self,
        rule: &UpdateRule,
        learning_rate: f32,
        gradient_scale: f32,
        weight: &mut Tensor,
        gradient: &Tensor,
        state: &mut [Tensor],
    ) {
        update::update(rule, learning_rate, gradient_scale, weight, gradient, state);
    }
}

/// [`Device::feed_forward`] with products in one format.
fn feed_forward<F: Format<Number = f32>>(
    x: &Tensor,
    (first_weight, first_bias): (&Tensor, &Tensor),
    (second_weight, second_bias): (&Tensor, &Tensor),
    activation: Activation,
    keep_middle: bool,
) -> (Tensor, Tensor) {
    let (count, inputs, inner, outputs) = (x.rows(), x.columns(), first_weight.rows(), second_weight.rows());
    let mut y = Tensor::stale(&[count, outputs]);
    let mut middle = Tensor::stale(&[if keep_middle { count } else { 0 }, inner]);
    let first = Packed::<F>::new(Matrix::of(first_weight).transposed(), Threads::All);
    let second = Packed::<F>::new(Matrix::of(second_weight).transposed(), Threads::All);
    let rows = task_rows(count);
    let results = cut(y.data_mut(), &rows, outputs).into_iter().zip(cut(middle.data_mut(), &rows, inner));
    let tasks: Vec<_> = rows.iter().zip(results).collect();
    tasks.into_par_iter().with_max_len(1).for_each(|(rows, (y, middle))| {
        let x = &x.data()[rows.start * inputs..rows.end * inputs];
        // The rows between the two layers stay in the cache.
        let len = rows.len() * inner;
        let (mut scratch, mut active) = (Scratch::<f32>::stale(len - middle.len()), Scratch::<f32>::stale(len));
        let middle = if keep_middle { middle } else { scratch.as_mut_slice() };
        first.apply(x, middle);
        activation::bias_forward(activation, middle, first_bias.data(), active.as_mut_slice());
        second.apply(active.as_slice(), y);
        y.chunks_exact_mut(outputs).for_each(|row| rows::add(row, second_bias.data()));
    });
    (y, middle)
}
