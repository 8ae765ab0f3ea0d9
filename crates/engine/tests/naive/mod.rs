//! The operations again, from their documentation: plain loops over f64, nothing shared with the kernels.

#![allow(dead_code, reason = "not every test uses all of it")]

pub(crate) mod maps;

use std::ops::Range;

use engine::device::{Activation, Pooling};

/// What survives of each attention probability, per head, row and column within the sequence.
pub(crate) type Mask<'a> = &'a dyn Fn(usize, usize, usize) -> f64;

/// `a b^T`: `a [m, k]`, `b [n, k]`.
pub(crate) fn scores(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let products = |row: &[f64], other: &[f64]| row.iter().zip(other).map(|(x, y)| x * y).sum();
    a.chunks_exact(k).flat_map(|row| b.chunks_exact(k).map(move |other| products(row, other))).collect()
}

pub(crate) fn linear(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let mut y = scores(x, weight, weight.len() / bias.len());
    y.chunks_exact_mut(bias.len()).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
    y
}

/// The error function by its series near 0, and by the continued fraction of its complement where the series cancels.
fn erf(x: f64) -> f64 {
    let root = std::f64::consts::PI.sqrt();
    if x.abs() > 2.5 {
        let fraction = (1..200).rev().fold(0.0, |tail, n| 0.5 * f64::from(n) / (x.abs() + tail));
        return x.signum() * (1.0 - (-x * x).exp() / root / (x.abs() + fraction));
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..100 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    2.0 / root * sum
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(crate) fn activation(activation: Activation, x: &[f64]) -> Vec<f64> {
    let function = |x: f64| match activation {
        Activation::Identity => x,
        Activation::Gelu => x * (1.0 + erf(x / 2.0f64.sqrt())) / 2.0,
        Activation::GeluTanh => {
            x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()) / 2.0
        }
        Activation::Relu => x.max(0.0),
        Activation::Silu => x * sigmoid(x),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::HardSigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
    };
    x.iter().map(|&x| function(x)).collect()
}

/// `mask` multiplies `x` before the residual is added.
pub(crate) fn add_norm(
    x: &[f64],
    mask: &[f64],
    residual: Option<&[f64]>,
    weight: &[f64],
    bias: &[f64],
    eps: f64,
) -> Vec<f64> {
    let columns = weight.len();
    let mut y: Vec<f64> = x.iter().zip(mask).map(|(x, mask)| x * mask).collect();
    if let Some(residual) = residual {
        y.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
    }
    for row in y.chunks_exact_mut(columns) {
        let mean = row.iter().sum::<f64>() / columns as f64;
        let variance = row.iter().map(|z| (z - mean) * (z - mean)).sum::<f64>() / columns as f64;
        for (i, z) in row.iter_mut().enumerate() {
            *z = (*z - mean) / (variance + eps).sqrt() * weight[i] + bias[i];
        }
    }
    y
}

/// `bias [2 reach - 1, heads]`.
pub(crate) fn attention(
    qkv: &[f64],
    ranges: &[Range<usize>],
    heads: usize,
    bias: Option<&[f64]>,
    sees: impl Fn(usize, usize) -> bool,
    masks: &[Mask<'_>],
) -> Vec<f64> {
    let rows = ranges.last().map_or(0, |range| range.end);
    let hidden = qkv.len() / rows / 3;
    let size = hidden / heads;
    let part = |which: usize, row: usize, head: usize| {
        let start = row * 3 * hidden + which * hidden + head * size;
        &qkv[start..start + size]
    };
    let mut y = vec![0.0; rows * hidden];
    for (sequence, range) in ranges.iter().enumerate() {
        for head in 0..heads {
            for i in 0..range.len() {
                let score = |j: usize| {
                    let (query, key) = (part(0, range.start + i, head), part(1, range.start + j, head));
                    let product: f64 = query.iter().zip(key).map(|(q, k)| q * k).sum();
                    let added = bias.map_or(0.0, |bias| {
                        let reach = bias.len() / heads / 2 + 1;
                        bias[(j + reach - 1 - i) * heads + head]
                    });
                    if sees(i, j) { (product / (size as f64).sqrt() + added).exp() } else { 0.0 }
                };
                let weights: Vec<f64> = (0..range.len()).map(score).collect();
                let total: f64 = weights.iter().sum();
                let start = (range.start + i) * hidden + head * size;
                for (j, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
                    let share = weight / total * masks.get(sequence).map_or(1.0, |mask| mask(head, i, j));
                    for (y, v) in y[start..start + size].iter_mut().zip(part(2, range.start + j, head)) {
                        *y += share * v;
                    }
                }
            }
        }
    }
    y
}

pub(crate) fn pool(pooling: Pooling, x: &[f64], columns: usize, ranges: &[Range<usize>]) -> Vec<f64> {
    let embedding = |range: &Range<usize>, column: usize| {
        let values = range.clone().map(|row| x[row * columns + column]);
        let count = range.len() as f64;
        match pooling {
            Pooling::Mean => values.sum::<f64>() / count,
            Pooling::Cls => x[range.start * columns + column],
            Pooling::Last => x[(range.end - 1) * columns + column],
            Pooling::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Pooling::Gem { p, eps } if p.is_infinite() => values.fold(f64::from(eps), f64::max),
            Pooling::Gem { p, eps } => {
                let powers = values.map(|x| x.max(f64::from(eps)).powf(f64::from(p)));
                (powers.sum::<f64>() / count).powf(1.0 / f64::from(p))
            }
        }
    };
    ranges.iter().flat_map(|range| (0..columns).map(move |column| embedding(range, column))).collect()
}

pub(crate) fn normalize(x: &[f64], columns: usize) -> Vec<f64> {
    let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
    x.chunks_exact(columns).flat_map(|row| row.iter().map(move |x| x / norm(row))).collect()
}
