//! Pooling over windows of a map, vectorised over channels.

use rayon::prelude::*;

use super::rows::{add, add_scaled, scale};
use crate::map::{Map, Span, WindowPooling, Windows};

kernel! {
    /// The larger of both; not a number where one is none, as in torch.
    fn raise(y: &mut [f32], x: &[f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = if x > *y || x.is_nan() { x } else { *y };
        }
    }
}

kernel! {
    /// Gives what is left of the gradient to where the maximum lies.
    fn give(x: &[f32], y: &[f32], left: &mut [f32], dx: &mut [f32]) {
        for i in 0..x.len().min(y.len()).min(left.len()).min(dx.len()) {
            let found = x[i] == y[i];
            dx[i] += if found { left[i] } else { 0.0 };
            left[i] = if found { 0.0 } else { left[i] };
        }
    }
}

/// Positions of a window within an image.
fn positions(vertical: Span, horizontal: Span, width: usize) -> impl Iterator<Item = usize> {
    (vertical.start..vertical.end).flat_map(move |y| (horizontal.start..horizontal.end).map(move |x| y * width + x))
}

/// [`crate::map::Maps::window_pool`]; writes all of `y`.
pub(super) fn pool(pooling: WindowPooling, x: &[f32], map: Map, channels: usize, windows: &Windows, y: &mut [f32]) {
    let (image_len, height) = (map.positions() * channels, windows.rows.len());
    y.par_chunks_exact_mut(windows.columns.len() * channels).enumerate().for_each(|(row, y)| {
        let (image, vertical) = (&x[row / height * image_len..][..image_len], windows.rows[row % height]);
        for (&horizontal, y) in windows.columns.iter().zip(y.chunks_exact_mut(channels)) {
            let seen = positions(vertical, horizontal, map.width).map(|at| &image[at * channels..][..channels]);
            match pooling {
                WindowPooling::Max => {
                    y.fill(f32::NEG_INFINITY);
                    seen.for_each(|x| raise(y, x));
                }
                WindowPooling::Mean => {
                    y.fill(0.0);
                    seen.for_each(|x| add(y, x));
                    scale(y, 1.0 / (vertical.extent * horizontal.extent) as f32);
                }
            }
        }
    });
}

/// [`crate::map::Maps::window_pool_backward`]; writes all of `dx`.
pub(super) fn pool_backward(
    pooling: WindowPooling,
    (x, y): (&[f32], &[f32]),
    map: Map,
    channels: usize,
    windows: &Windows,
    dy: &[f32],
    dx: &mut [f32],
) {
    let (image_len, width) = (map.positions() * channels, windows.columns.len());
    dx.par_chunks_exact_mut(image_len).enumerate().for_each(|(image, dx)| {
        dx.fill(0.0);
        let x = &x[image * image_len..][..image_len];
        let mut left = vec![0.0; channels];
        for (row, &vertical) in windows.rows.iter().enumerate() {
            for (column, &horizontal) in windows.columns.iter().enumerate() {
                let own = ((image * windows.rows.len() + row) * width + column) * channels;
                let (y, dy) = (&y[own..own + channels], &dy[own..own + channels]);
                left.copy_from_slice(dy);
                let share = 1.0 / (vertical.extent * horizontal.extent) as f32;
                for at in positions(vertical, horizontal, map.width) {
                    let here = at * channels..(at + 1) * channels;
                    match pooling {
                        WindowPooling::Max => give(&x[here.clone()], y, &mut left, &mut dx[here]),
                        WindowPooling::Mean => add_scaled(&mut dx[here], share, dy),
                    }
                }
            }
        }
    });
}
