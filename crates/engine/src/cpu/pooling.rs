//! One embedding per sequence, and row normalisation.

use rayon::prelude::*;

use super::rows::{TASK_ROWS, add, add_scaled, dot};
use crate::device::Pooling;
use crate::packing::Packing;

/// [`crate::Device::pool`]; an empty sequence gives zeros.
pub(crate) fn pool(pooling: Pooling, x: &[f32], columns: usize, packing: &Packing, y: &mut [f32]) {
    let ranges: Vec<_> = packing.ranges().collect();
    y.par_chunks_mut(columns).zip(ranges).for_each(|(y, range)| {
        let rows = &x[range.start * columns..range.end * columns];
        y.fill(0.0);
        if rows.is_empty() {
            return;
        }
        match pooling {
            Pooling::Mean => {
                rows.chunks_exact(columns).for_each(|row| add(y, row));
                super::rows::scale(y, 1.0 / range.len() as f32);
            }
            Pooling::Cls => y.copy_from_slice(&rows[..columns]),
            Pooling::Last => y.copy_from_slice(&rows[rows.len() - columns..]),
            Pooling::Max => {
                y.copy_from_slice(&rows[..columns]);
                for row in rows.chunks_exact(columns) {
                    y.iter_mut().zip(row).for_each(|(y, &x)| *y = y.max(x));
                }
            }
            Pooling::Gem { p, eps } => {
                // Powers are taken relative to the largest value: no p over- or underflows, and infinity is its limit.
                let mut largest = vec![eps.max(f32::MIN_POSITIVE); columns];
                for row in rows.chunks_exact(columns) {
                    largest.iter_mut().zip(row).for_each(|(largest, &x)| *largest = largest.max(x));
                }
                for row in rows.chunks_exact(columns) {
                    for column in 0..columns {
                        y[column] += (row[column].max(eps) / largest[column]).powf(p);
                    }
                }
                for column in 0..columns {
                    y[column] = largest[column] * (y[column] / range.len() as f32).powf(1.0 / p);
                }
            }
        }
    });
}

/// [`crate::Device::pool_backward`]; writes all of `dx`. A maximum that several rows share goes to the first.
pub(crate) fn pool_backward(
    pooling: Pooling,
    x: &[f32],
    pooled: &[f32],
    columns: usize,
    packing: &Packing,
    dy: &[f32],
    dx: &mut [f32],
) {
    dx.fill(0.0);
    for (sequence, range) in packing.ranges().enumerate().filter(|(_, range)| !range.is_empty()) {
        let own = sequence * columns..(sequence + 1) * columns;
        let (dy, pooled) = (&dy[own.clone()], &pooled[own]);
        let here = range.start * columns..range.end * columns;
        let (x, dx) = (&x[here.clone()], &mut dx[here]);
        match pooling {
            Pooling::Mean => {
                let share = 1.0 / range.len() as f32;
                dx.chunks_exact_mut(columns).for_each(|row| add_scaled(row, share, dy));
            }
            Pooling::Cls => dx[..columns].copy_from_slice(dy),
            Pooling::Last => {
                let last = dx.len() - columns;
                dx[last..].copy_from_slice(dy);
            }
            Pooling::Max | Pooling::Gem { p: f32::INFINITY, .. } => {
                for column in 0..columns {
                    let row = (0..range.len()).find(|row| x[row * columns + column] == pooled[column]);
                    if let Some(row) = row {
                        dx[row * columns + column] = dy[column];
                    }
                }
            }
            Pooling::Gem { p, eps } => {
                for (x, dx) in x.chunks_exact(columns).zip(dx.chunks_exact_mut(columns)) {
                    for column in 0..columns {
                        // Below the clamp the value does not depend on x.
                        if x[column] > eps {
                            let ratio = (x[column] / pooled[column]).powf(p - 1.0);
                            dx[column] = dy[column] * ratio / range.len() as f32;
                        }
                    }
                }
            }
        }
    }
}

kernel! {
    fn normalize_row(x: &[f32], eps: f32, y: &mut [f32]) -> f32 {
        let norm = dot(x, x).sqrt();
        let factor = 1.0 / norm.max(eps);
        for (x, y) in x.iter().zip(y) {
            *y = x * factor;
        }
        norm
    }
}

kernel! {
    fn normalize_row_backward(y: &[f32], norm: f32, eps: f32, dy: &[f32], dx: &mut [f32]) {
        // Below eps the divisor is constant, so nothing is projected away.
        let inner = if norm > eps { dot(y, dy) } else { 0.0 };
        let factor = 1.0 / norm.max(eps);
        for i in 0..y.len() {
            dx[i] = factor * (dy[i] - y[i] * inner);
        }
    }
}

/// [`crate::Device::normalize`].
pub(crate) fn normalize(x: &[f32], columns: usize, eps: f32, y: &mut [f32], norms: &mut [f32]) {
    let task = TASK_ROWS * columns;
    y.par_chunks_mut(task).zip(x.par_chunks(task)).zip(norms.par_chunks_mut(TASK_ROWS)).for_each(|((y, x), norms)| {
        for ((y, x), norm) in y.chunks_exact_mut(columns).zip(x.chunks_exact(columns)).zip(norms) {
            *norm = normalize_row(x, eps, y);
        }
    });
}

/// [`crate::Device::normalize_backward`].
pub(crate) fn normalize_backward(y: &[f32], norms: &[f32], columns: usize, eps: f32, dy: &[f32], dx: &mut [f32]) {
    dx.par_chunks_mut(columns).enumerate().for_each(|(row, dx)| {
        let here = row * columns..(row + 1) * columns;
        normalize_row_backward(&y[here.clone()], norms[row], eps, &dy[here], dx);
    });
}

/// The derivative of a generalised mean by its power: `y / p (sum x^p ln x / sum x^p - ln(mean x^p) / p)`, relative to
/// the largest value, as the mean itself is computed.
pub(crate) fn gem_power_gradient(x: &[f32], y: &[f32], p: f32, eps: f32, packing: &Packing, dy: &[f32]) -> f64 {
    let (columns, p) = (y.len() / packing.sequences().max(1), f64::from(p));
    let derivative = |sequence: usize, column: usize| {
        let range = packing.range(sequence);
        let values = || range.clone().map(|row| f64::from(x[row * columns + column].max(eps)));
        let largest = values().fold(f64::MIN_POSITIVE, f64::max);
        let (mut powers, mut weighted) = (0.0, 0.0);
        for ratio in values().map(|x| x / largest).filter(|&ratio| ratio > 0.0) {
            powers += ratio.powf(p);
            weighted += ratio.powf(p) * ratio.ln();
        }
        let at = sequence * columns + column;
        let mean = (powers / range.len() as f64).ln() / p;
        f64::from(dy[at]) * f64::from(y[at]) / p * (weighted / powers - mean)
    };
    let partial: Vec<f64> = (0..packing.sequences())
        .into_par_iter()
        .map(|sequence| match packing.range(sequence).is_empty() {
            true => 0.0,
            false => (0..columns).map(|column| derivative(sequence, column)).sum(),
        })
        .collect();
    partial.into_iter().sum()
}
