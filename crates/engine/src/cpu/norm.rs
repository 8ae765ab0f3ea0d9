//! Dropout, residual addition and layer norm in one pass over each row.

use rayon::prelude::*;

use super::rows::{TASK_ROWS, dot, squared_deviations, sum};
use crate::packing::Packing;
use crate::random::{Dropout, SPAN, kept};

kernel! {
    /// `y[i] = x[i]` if it survives, scaled, else 0.
    pub(crate) fn drop_row(x: &[f32], words: (u32, u32), threshold: u32, scale: f32, y: &mut [f32]) {
        let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<SPAN>(), y.as_chunks_mut::<SPAN>());
        let mut counter = 0;
        for (x, y) in x.iter().zip(y) {
            let kept = kept(words, counter, threshold);
            for i in 0..SPAN {
                y[i] = x[i] * scale * kept[i];
            }
            counter += SPAN as u32;
        }
        for ((x, y), kept) in x_rest.iter().zip(y_rest).zip(kept(words, counter, threshold)) {
            *y = x * scale * kept;
        }
    }
}

/// Dropout of packed rows into `y`.
pub(crate) fn dropout(x: &[f32], columns: usize, dropout: &Dropout, packing: &Packing, y: &mut [f32]) {
    let (threshold, scale) = (dropout.threshold(), dropout.scale());
    y.par_chunks_mut(TASK_ROWS * columns).zip(x.par_chunks(TASK_ROWS * columns)).enumerate().for_each(
        |(task, (y, x))| {
            for (i, (y, x)) in y.chunks_exact_mut(columns).zip(x.chunks_exact(columns)).enumerate() {
                drop_row(x, packing.row_words(dropout.key, task * TASK_ROWS + i), threshold, scale, y);
            }
        },
    );
}

kernel! {
    /// Normalises `normalised` in place, writes `y`, gives `1 / sqrt(var + eps)`.
    fn norm_row(normalised: &mut [f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) -> f32 {
        let count = normalised.len() as f32;
        let mean = sum(normalised) / count;
        let deviation = 1.0 / (squared_deviations(normalised, mean) / count + eps).sqrt();
        for i in 0..normalised.len() {
            normalised[i] = (normalised[i] - mean) * deviation;
            y[i] = normalised[i] * weight[i] + bias[i];
        }
        deviation
    }
}

kernel! {
    fn scale_shift_rows(x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks_exact(weight.len()).zip(y.chunks_exact_mut(weight.len())) {
            for i in 0..weight.len() {
                y[i] = x[i] * weight[i] + bias[i];
            }
        }
    }
}

/// [`crate::Device::scale_shift`].
pub(crate) fn scale_shift(x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
    let task = TASK_ROWS * weight.len();
    y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| scale_shift_rows(x, weight, bias, y));
}

/// [`crate::Device::add_norm`].
#[allow(clippy::too_many_arguments)]
pub(crate) fn add_norm(
    x: &[f32],
    residual: Option<&[f32]>,
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    dropout: Option<(&Dropout, &Packing)>,
    y: &mut [f32],
    normalised: &mut [f32],
    deviations: &mut [f32],
) {
    let columns = weight.len();
    let task = TASK_ROWS * columns;
    y.par_chunks_mut(task)
        .zip(normalised.par_chunks_mut(task))
        .zip(deviations.par_chunks_mut(TASK_ROWS))
        .enumerate()
        .for_each(|(index, ((y, normalised), deviations))| {
            for (i, deviation) in deviations.iter_mut().enumerate() {
                let row = index * TASK_ROWS + i;
                let here = row * columns..(row + 1) * columns;
                let sum = &mut normalised[i * columns..(i + 1) * columns];
                match dropout {
                    Some((dropout, packing)) => drop_row(
                        &x[here.clone()],
                        packing.row_words(dropout.key, row),
                        dropout.threshold(),
                        dropout.scale(),
                        sum,
                    ),
                    None => sum.copy_from_slice(&x[here.clone()]),
                }
                if let Some(residual) = residual {
                    super::rows::add(sum, &residual[here]);
                }
                *deviation = norm_row(sum, weight, bias, eps, &mut y[i * columns..(i + 1) * columns]);
            }
        });
}

kernel! {
    fn norm_row_backward(
        normalised: &[f32],
        deviation: f32,
        weight: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
    ) {
        for i in 0..dy.len() {
            dweight[i] += dy[i] * normalised[i];
            dbias[i] += dy[i];
            dx[i] = dy[i] * weight[i];
        }
        let count = dy.len() as f32;
        let mean = sum(dx) / count;
        let projection = dot(dx, normalised) / count;
        for i in 0..dy.len() {
            dx[i] = deviation * (dx[i] - mean - normalised[i] * projection);
        }
    }
}

/// [`crate::Device::add_norm_backward`]: partial sums per task, added in the order of the tasks.
pub(crate) fn add_norm_backward(
    normalised: &[f32],
    deviations: &[f32],
    weight: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let columns = weight.len();
    let task = TASK_ROWS * columns;
    let partial: Vec<(Vec<f32>, Vec<f32>)> = dx
        .par_chunks_mut(task)
        .enumerate()
        .map(|(index, dx)| {
            let (mut dweight, mut dbias) = (vec![0.0; columns], vec![0.0; columns]);
            for (i, dx) in dx.chunks_exact_mut(columns).enumerate() {
                let row = index * TASK_ROWS + i;
                let here = row * columns..(row + 1) * columns;
                norm_row_backward(
                    &normalised[here.clone()],
                    deviations[row],
                    weight,
                    &dy[here],
                    dx,
                    &mut dweight,
                    &mut dbias,
                );
            }
            (dweight, dbias)
        })
        .collect();
    dweight.fill(0.0);
    dbias.fill(0.0);
    for (weight_part, bias_part) in &partial {
        super::rows::add(dweight, weight_part);
        super::rows::add(dbias, bias_part);
    }
}
