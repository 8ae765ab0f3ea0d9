//! The operations over feature maps again, from their documentation.

use engine::Map;
use engine::map::{ConvolutionOptions, Span, Windows};

/// `weight [out, in / groups, kernel.0, kernel.1]`
pub(crate) fn convolution(
    x: &[f64],
    map: Map,
    weight: &[f64],
    bias: &[f64],
    kernel: (usize, usize),
    options: ConvolutionOptions,
) -> Vec<f64> {
    let ConvolutionOptions { stride, padding, dilation, groups } = options;
    let (outputs, channels) = (bias.len(), x.len() / map.rows());
    let (in_group, out_group) = (channels / groups, outputs / groups);
    let output = options.output(map, kernel).unwrap();
    let mut y = Vec::new();
    for position in 0..output.rows() {
        let (image, i, j) =
            (position / output.positions(), position / output.width % output.height, position % output.width);
        for o in 0..outputs {
            let mut sum = bias[o];
            for (a, b) in (0..kernel.0).flat_map(|a| (0..kernel.1).map(move |b| (a, b))) {
                let (row, column) = (i * stride + a * dilation, j * stride + b * dilation);
                let (Some(row), Some(column)) = (row.checked_sub(padding.top), column.checked_sub(padding.left)) else {
                    continue;
                };
                if row >= map.height || column >= map.width {
                    continue;
                }
                for c in 0..in_group {
                    let at = (image * map.height + row) * map.width + column;
                    let value = x[at * channels + o / out_group * in_group + c];
                    sum += weight[((o * in_group + c) * kernel.0 + a) * kernel.1 + b] * value;
                }
            }
            y.push(sum);
        }
    }
    y
}

/// Mean and biased variance of each column.
pub(crate) fn statistics(x: &[f64], columns: usize) -> (Vec<f64>, Vec<f64>) {
    let count = (x.len() / columns) as f64;
    let column = |c: usize| x.iter().skip(c).step_by(columns);
    let mean: Vec<f64> = (0..columns).map(|c| column(c).sum::<f64>() / count).collect();
    let variance = (0..columns).map(|c| column(c).map(|x| (x - mean[c]).powi(2)).sum::<f64>() / count).collect();
    (mean, variance)
}

/// Before activation and residual.
pub(crate) fn batch_norm(
    x: &[f64],
    (mean, variance): (&[f64], &[f64]),
    weight: &[f64],
    bias: &[f64],
    eps: f64,
) -> Vec<f64> {
    let value = |(i, x): (usize, &f64)| {
        let c = i % mean.len();
        (x - mean[c]) / (variance[c] + eps).sqrt() * weight[c] + bias[c]
    };
    x.iter().enumerate().map(value).collect()
}

/// `fold` of the values of each window.
pub(crate) fn pool(x: &[f64], map: Map, windows: &Windows, fold: impl Fn(&[f64], usize) -> f64) -> Vec<f64> {
    let channels = x.len() / map.rows();
    let mut y = Vec::new();
    let each = |image: usize| {
        let rows = windows.rows.iter().flat_map(|&row| windows.columns.iter().map(move |&column| (row, column)));
        rows.map(move |(row, column)| (image, row, column))
    };
    for (image, row, column) in (0..map.images).flat_map(each) {
        let along = |span: Span| span.start..span.end;
        for c in 0..channels {
            let value = |i: usize, j: usize| x[((image * map.height + i) * map.width + j) * channels + c];
            let seen: Vec<f64> = along(row).flat_map(|i| along(column).map(move |j| value(i, j))).collect();
            y.push(fold(&seen, row.extent * column.extent));
        }
    }
    y
}
