//! Batch norm over the rows of a matrix, with what follows it, in passes over memory that are as few as they can be.

use rayon::prelude::*;

use super::activation;
use super::gemm::Scratch;
use crate::device::Activation;

/// Elements of a task: they stay in the second-level cache between the steps of a pass.
const TASK: usize = 1 << 15;

/// Elements of whole rows that one task works on. It depends on the shape only, so that partial sums are the same on any
/// number of threads.
fn task(columns: usize) -> usize {
    (TASK / columns.max(1)).max(1) * columns
}

/// Sums over all rows, `[2 columns]`: partial sums per task, added in the order of the tasks.
fn sums(columns: usize, partial: Vec<Vec<f64>>) -> Vec<f64> {
    let mut sums = vec![0.0; 2 * columns];
    for part in &partial {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sums
}

kernel! {
    /// Adds the sums of `x` and of `x^2` over rows.
    fn add_moments(x: &[f32], totals: &mut [f64], squares: &mut [f64]) {
        let columns = totals.len();
        for row in x.chunks_exact(columns) {
            for i in 0..columns {
                let value = f64::from(row[i]);
                totals[i] += value;
                squares[i] += value * value;
            }
        }
    }
}

kernel! {
    /// Adds the sums of `dz` and of `dz (x - mean)` over rows.
    fn add_projections(x: &[f32], dz: &[f32], mean: &[f32], totals: &mut [f64], products: &mut [f64]) {
        let columns = totals.len();
        for (x, dz) in x.chunks_exact(columns).zip(dz.chunks_exact(columns)) {
            for i in 0..columns {
                totals[i] += f64::from(dz[i]);
                products[i] += f64::from(dz[i]) * f64::from(x[i] - mean[i]);
            }
        }
    }
}

kernel! {
    /// The same, after `dz` is kept only where `y` lies between `low` and `high`.
    fn add_projections_between(
        x: &[f32],
        y: &[f32],
        low: f32,
        high: f32,
        mean: &[f32],
        dz: &mut [f32],
        totals: &mut [f64],
        products: &mut [f64],
    ) {
        let columns = totals.len();
        for ((x, y), dz) in x.chunks_exact(columns).zip(y.chunks_exact(columns)).zip(dz.chunks_exact_mut(columns)) {
            for i in 0..columns {
                let kept = if y[i] > low && y[i] < high { dz[i] } else { 0.0 };
                dz[i] = kept;
                totals[i] += f64::from(kept);
                products[i] += f64::from(kept) * f64::from(x[i] - mean[i]);
            }
        }
    }
}

kernel! {
    /// `z = (x - mean) scale + bias (+ residual)`, then between `low` and `high`.
    fn scale_rows(
        x: &[f32],
        residual: &[f32],
        mean: &[f32],
        scale: &[f32],
        bias: &[f32],
        low: f32,
        high: f32,
        z: &mut [f32],
    ) {
        let columns = mean.len();
        if residual.is_empty() {
            for (x, z) in x.chunks_exact(columns).zip(z.chunks_exact_mut(columns)) {
                for i in 0..columns {
                    z[i] = ((x[i] - mean[i]) * scale[i] + bias[i]).max(low).min(high);
                }
            }
            return;
        }
        for ((x, residual), z) in x.chunks_exact(columns).zip(residual.chunks_exact(columns)).zip(z.chunks_exact_mut(columns)) {
            for i in 0..columns {
                z[i] = ((x[i] - mean[i]) * scale[i] + bias[i] + residual[i]).max(low).min(high);
            }
        }
    }
}

kernel! {
    /// `dx = scale dz + slope (x - mean) + shift`
    fn input_gradient(
        x: &[f32],
        dz: &[f32],
        mean: &[f32],
        scale: &[f32],
        slope: &[f32],
        shift: &[f32],
        dx: &mut [f32],
    ) {
        let columns = mean.len();
        for ((x, dz), dx) in x.chunks_exact(columns).zip(dz.chunks_exact(columns)).zip(dx.chunks_exact_mut(columns)) {
            for i in 0..columns {
                dx[i] = scale[i] * dz[i] + (slope[i] * (x[i] - mean[i]) + shift[i]);
            }
        }
    }
}

kernel! {
    /// The same in place of `dz`.
    fn input_gradient_in_place(
        x: &[f32],
        mean: &[f32],
        scale: &[f32],
        slope: &[f32],
        shift: &[f32],
        dz: &mut [f32],
    ) {
        let columns = mean.len();
        for (x, dz) in x.chunks_exact(columns).zip(dz.chunks_exact_mut(columns)) {
            for i in 0..columns {
                dz[i] = scale[i] * dz[i] + (slope[i] * (x[i] - mean[i]) + shift[i]);
            }
        }
    }
}

/// The bounds of an activation that only cuts off, which needs no value before it.
fn bounds(activation: Activation) -> Option<(f32, f32)> {
    match activation {
        Activation::Identity => Some((f32::NEG_INFINITY, f32::INFINITY)),
        Activation::Relu => Some((0.0, f32::INFINITY)),
        Activation::Relu6 => Some((0.0, 6.0)),
        _ => None,
    }
}

/// Mean and biased variance of each column.
pub(super) fn statistics(x: &[f32], mean: &mut [f32], variance: &mut [f32]) {
    let columns = mean.len();
    let partial = x.par_chunks(task(columns)).map(|x| {
        let mut moments = vec![0.0; 2 * columns];
        let (totals, squares) = moments.split_at_mut(columns);
        add_moments(x, totals, squares);
        moments
    });
    let (moments, count) = (sums(columns, partial.collect()), (x.len() / columns.max(1)) as f64);
    for i in 0..columns {
        let centre = moments[i] / count;
        mean[i] = centre as f32;
        variance[i] = (moments[columns + i] / count - centre * centre).max(0.0) as f32;
    }
}

/// What a column is multiplied by.
fn scales(deviation: &[f32], weight: &[f32]) -> Vec<f32> {
    deviation.iter().zip(weight).map(|(deviation, weight)| deviation * weight).collect()
}

/// The statistics and the learnt numbers of all columns.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) mean: &'a [f32],
    pub(super) deviation: &'a [f32],
    pub(super) weight: &'a [f32],
    pub(super) bias: &'a [f32],
}

impl Columns<'_> {
    fn value(&self, scale: &[f32], x: &[f32], residual: &[f32], activation: Activation, y: &mut [f32]) {
        if let Some((low, high)) = bounds(activation) {
            return scale_rows(x, residual, self.mean, scale, self.bias, low, high, y);
        }
        let mut z = Scratch::stale(x.len());
        self.value(scale, x, residual, Activation::Identity, z.as_mut_slice());
        activation::forward(activation, z.as_slice(), y);
    }
}

/// The rows of a task of `residual`; none of none.
fn piece(residual: Option<&[f32]>, start: usize, len: usize) -> &[f32] {
    residual.filter(|residual| !residual.is_empty()).map_or(&[], |residual| &residual[start..start + len])
}

/// [`crate::map::Maps::batch_norm`].
pub(super) fn forward(
    x: &[f32],
    columns: Columns<'_>,
    residual: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    let (scale, task) = (scales(columns.deviation, columns.weight), task(columns.mean.len()));
    y.par_chunks_mut(task).zip(x.par_chunks(task)).enumerate().for_each(|(index, (y, x))| {
        columns.value(&scale, x, piece(residual, index * task, x.len()), activation, y);
    });
}

/// Turns the gradient of the output into that of the sum before the activation, and gives the gradients of weight and
/// bias.
pub(super) fn backward_sums(
    x: &[f32],
    y: &[f32],
    columns: Columns<'_>,
    residual: Option<&[f32]>,
    activation: Activation,
    dz: &mut [f32],
) -> (Vec<f64>, Vec<f64>) {
    let width = columns.mean.len();
    let (scale, task) = (scales(columns.deviation, columns.weight), task(width));
    let partial = dz.par_chunks_mut(task).zip(x.par_chunks(task)).zip(y.par_chunks(task)).enumerate();
    let partial = partial.map(|(index, ((dz, x), y))| {
        let mut sums = vec![0.0; 2 * width];
        let (totals, products) = sums.split_at_mut(width);
        match bounds(activation) {
            Some((low, high)) if activation != Activation::Identity => {
                add_projections_between(x, y, low, high, columns.mean, dz, totals, products);
            }
            Some(_) => add_projections(x, dz, columns.mean, totals, products),
            None => {
                let (mut z, mut value) = (Scratch::stale(x.len()), Scratch::stale(x.len()));
                let residual = piece(residual, index * task, x.len());
                columns.value(&scale, x, residual, Activation::Identity, z.as_mut_slice());
                activation::backward(activation, z.as_slice(), value.as_mut_slice(), dz);
                add_projections(x, dz, columns.mean, totals, products);
            }
        }
        sums
    });
    let mut dbias = sums(width, partial.collect());
    let products = dbias.split_off(width);
    let dweight = products.iter().zip(columns.deviation).map(|(sum, &deviation)| sum * f64::from(deviation)).collect();
    (dweight, dbias)
}

/// The gradient of the input from the gradient before the activation, through the statistics of the rows too where
/// `sums` (of weight and bias) are given. In place where `dx` is none.
pub(super) fn backward_input(
    x: &[f32],
    columns: Columns<'_>,
    sums: Option<(&[f64], &[f64])>,
    dz: &mut [f32],
    dx: Option<&mut [f32]>,
) {
    let width = columns.mean.len();
    let (scale, task, count) = (scales(columns.deviation, columns.weight), task(width), x.len() as f64 / width as f64);
    let (mut slope, mut shift) = (vec![0.0; width], vec![0.0; width]);
    if let Some((dweight, dbias)) = sums {
        for i in 0..width {
            let factor = -f64::from(scale[i]) / count;
            slope[i] = (factor * dweight[i] * f64::from(columns.deviation[i])) as f32;
            shift[i] = (factor * dbias[i]) as f32;
        }
    }
    let tasks = dz.par_chunks_mut(task).zip(x.par_chunks(task));
    match dx {
        Some(dx) => tasks.zip(dx.par_chunks_mut(task)).for_each(|((dz, x), dx)| {
            input_gradient(x, dz, columns.mean, &scale, &slope, &shift, dx);
        }),
        None => tasks.for_each(|(dz, x)| input_gradient_in_place(x, columns.mean, &scale, &slope, &shift, dz)),
    }
}
