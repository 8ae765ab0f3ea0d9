//! Row reductions of objectives, in f64.

use rayon::prelude::*;

/// The numbers of one row: those of weight 0 are left out, whatever they are.
fn weighted<'a>(x: &'a [f32], weights: Option<&'a [f32]>) -> impl Iterator<Item = (usize, f64, f64)> + 'a {
    x.iter().enumerate().filter_map(move |(c, &x)| {
        let weight = weights.map_or(1.0, |weights| f64::from(weights[c]));
        (weight != 0.0).then_some((c, f64::from(x), weight))
    })
}

fn row_of(data: Option<&[f32]>, row: usize, columns: usize) -> Option<&[f32]> {
    data.map(|data| &data[row * columns..(row + 1) * columns])
}

pub(super) fn row_sums(x: &[f32], weights: Option<&[f32]>, columns: usize, y: &mut [f32]) {
    y.par_iter_mut().enumerate().for_each(|(r, y)| {
        let row = &x[r * columns..(r + 1) * columns];
        *y = weighted(row, row_of(weights, r, columns)).map(|(_, x, weight)| weight * x).sum::<f64>() as f32;
    });
}

pub(super) fn row_sums_backward(weights: Option<&[f32]>, dy: &[f32], columns: usize, dx: &mut [f32]) {
    dx.par_chunks_mut(columns.max(1)).enumerate().for_each(|(r, dx)| match row_of(weights, r, columns) {
        Some(weights) => dx.iter_mut().zip(weights).for_each(|(dx, weight)| *dx = weight * dy[r]),
        None => dx.fill(dy[r]),
    });
}

/// The largest exponent and the sum of the exponentials relative to it.
fn exponentials(x: &[f32], weights: Option<&[f32]>, scale: f64) -> (f64, f64) {
    let largest = weighted(x, weights).map(|(_, x, _)| scale * x).fold(f64::NEG_INFINITY, f64::max);
    (largest, weighted(x, weights).map(|(_, x, weight)| weight * (scale * x - largest).exp()).sum())
}

pub(super) fn log_sum_exp(
    x: &[f32],
    weights: Option<&[f32]>,
    targets: Option<&[f32]>,
    columns: usize,
    scale: f64,
    y: &mut [f32],
) {
    y.par_iter_mut().enumerate().for_each(|(r, y)| {
        let row = &x[r * columns..(r + 1) * columns];
        let (largest, sum) = exponentials(row, row_of(weights, r, columns), scale);
        let target: f64 = row_of(targets, r, columns)
            .map_or(0.0, |targets| weighted(row, Some(targets)).map(|(_, x, target)| scale * target * x).sum());
        *y = if largest == f64::NEG_INFINITY { f32::NEG_INFINITY } else { (largest - target + sum.ln()) as f32 };
    });
}

pub(super) fn log_sum_exp_backward(
    x: &[f32],
    weights: Option<&[f32]>,
    targets: Option<&[f32]>,
    columns: usize,
    scale: f64,
    dy: &[f32],
    dx: &mut [f32],
) {
    dx.par_chunks_mut(columns.max(1)).enumerate().for_each(|(r, dx)| {
        let row = &x[r * columns..(r + 1) * columns];
        let (weights, targets) = (row_of(weights, r, columns), row_of(targets, r, columns));
        let (largest, sum) = exponentials(row, weights, scale);
        if largest == f64::NEG_INFINITY || dy[r] == 0.0 {
            return dx.fill(0.0);
        }
        for (c, (x, dx)) in row.iter().zip(dx).enumerate() {
            let weight = weights.map_or(1.0, |weights| f64::from(weights[c]));
            let target = targets.map_or(0.0, |targets| f64::from(targets[c]));
            let share = if weight == 0.0 { 0.0 } else { weight * (scale * f64::from(*x) - largest).exp() / sum };
            *dx = (f64::from(dy[r]) * scale * (share - target)) as f32;
        }
    });
}

/// See [`crate::function::Functions::ranked_pairs`]: sorted by target, every `j` meets the running log-sum-exp of all `i` before it,
/// so that time is `O(n log n)` and memory `O(n)`.
pub(super) fn ranked_pairs(x: &[f32], targets: &[f32], scale: f64, gradient: &mut [f32]) -> f32 {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&i, &j| targets[i].total_cmp(&targets[j]));
    let scaled: Vec<f64> = order.iter().map(|&i| scale * f64::from(x[i])).collect();
    let ranks: Vec<f32> = order.iter().map(|&i| targets[i]).collect();
    let up = before(&scaled, &ranks);
    let reversed: Vec<f64> = scaled.iter().rev().map(|x| -x).collect();
    let ranks: Vec<f32> = ranks.iter().rev().copied().collect();
    let mut down = before(&reversed, &ranks);
    down.reverse();
    // The total, with the 1 of ln(1 + …) as exponent 0.
    let pairs = scaled.iter().zip(&up).map(|(x, up)| up - x);
    let largest = pairs.clone().fold(0.0, f64::max);
    let total = largest + ((-largest).exp() + pairs.map(|pair| (pair - largest).exp()).sum::<f64>()).ln();
    for (k, &i) in order.iter().enumerate() {
        let as_smaller = (scaled[k] + down[k] - total).exp();
        let as_larger = (up[k] - scaled[k] - total).exp();
        gradient[i] = (scale * (as_smaller - as_larger)) as f32;
    }
    total as f32
}

/// For each element the log-sum-exp of the elements of strictly earlier groups of equal rank.
fn before(x: &[f64], ranks: &[f32]) -> Vec<f64> {
    let mut result = Vec::with_capacity(x.len());
    let (mut largest, mut sum) = (f64::NEG_INFINITY, 0.0f64);
    for group in ranks.chunk_by(|a, b| a == b) {
        let from = result.len();
        result.resize(from + group.len(), if sum > 0.0 { largest + sum.ln() } else { f64::NEG_INFINITY });
        for &x in &x[from..from + group.len()] {
            if x > largest {
                sum = sum * (largest - x).exp() + 1.0;
                largest = x;
            } else {
                sum += (x - largest).exp();
            }
        }
    }
    result
}
