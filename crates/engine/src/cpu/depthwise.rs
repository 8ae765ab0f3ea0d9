//! Depthwise convolutions: every channel with its own kernel, vectorised over channels.

use rayon::prelude::*;

use super::convolution::Convolution;
use super::rows;
use crate::map::{ConvolutionOptions, Map};

/// Positions of a task that adds up the gradient of the weight. Fixed, so that partial sums are the same on any number
/// of threads.
const TASK_POSITIONS: usize = 1024;

/// `[taps, channels]` of `[channels, taps]`, or back.
fn transposed(from: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| from.iter().skip(column).step_by(columns)).copied().collect()
}

/// Pairs of an index along one axis of the map and one of the output that a tap joins: `map = output stride + offset`.
fn reached(output: usize, extent: usize, stride: usize, offset: isize) -> Option<usize> {
    let at = (output * stride) as isize + offset;
    (at >= 0 && at < extent as isize).then_some(at as usize)
}

/// The output index from which a tap reaches an index of the map.
fn reaching(index: usize, outputs: usize, stride: usize, offset: isize) -> Option<usize> {
    let distance = index as isize - offset;
    let (output, rest) = (distance.div_euclid(stride as isize), distance.rem_euclid(stride as isize));
    (rest == 0 && output >= 0 && output < outputs as isize).then_some(output as usize)
}

kernel! {
    /// `y += sum over the taps of x[position] weight[tap]`; `taps` are pairs of a position and a tap.
    fn add_taps(x: &[f32], weight: &[f32], taps: &[(usize, usize)], y: &mut [f32]) {
        let channels = y.len();
        let (blocks, rest) = y.as_chunks_mut::<16>();
        let done = 16 * blocks.len();
        for (block, y) in blocks.iter_mut().enumerate() {
            let mut sums = *y;
            for &(position, tap) in taps {
                let x = &x[position * channels + 16 * block..][..16];
                let weight = &weight[tap * channels + 16 * block..][..16];
                for i in 0..16 {
                    sums[i] += x[i] * weight[i];
                }
            }
            *y = sums;
        }
        for (i, y) in rest.iter_mut().enumerate() {
            for &(position, tap) in taps {
                *y += x[position * channels + done + i] * weight[tap * channels + done + i];
            }
        }
    }
}

kernel! {
    /// `sums += x dy`
    fn add_products(x: &[f32], dy: &[f32], sums: &mut [f32]) {
        for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
            *sum += x * dy;
        }
    }
}

impl Convolution<'_> {
    /// Vertical and horizontal offset of a tap.
    fn offset(&self, tap: usize) -> (isize, isize) {
        let ConvolutionOptions { padding, dilation, .. } = *self.options;
        let along = |tap: usize, before: usize| (tap * dilation) as isize - before as isize;
        (along(tap / self.kernel.1, padding.top), along(tap % self.kernel.1, padding.left))
    }

    /// For every position of `to`, what `joined` finds of the other map by each tap.
    fn gather(
        &self,
        from: (&[f32], Map),
        weight: &[f32],
        to: Map,
        out: &mut [f32],
        joined: impl Fn((usize, usize), (isize, isize)) -> Option<(usize, usize)> + Sync,
    ) {
        let (channels, taps) = (self.inputs, self.kernel.0 * self.kernel.1);
        let by_tap = transposed(weight, taps);
        out.par_chunks_exact_mut(to.width * channels).enumerate().for_each(|(row, out)| {
            let (image, y) = (row / to.height, row % to.height);
            let mut seen = Vec::with_capacity(taps);
            for (x, out) in out.chunks_exact_mut(channels).enumerate() {
                seen.clear();
                seen.extend((0..taps).filter_map(|tap| {
                    let (y, x) = joined((y, x), self.offset(tap))?;
                    Some(((image * from.1.height + y) * from.1.width + x, tap))
                }));
                add_taps(from.0, &by_tap, &seen, out);
            }
        });
    }
}

/// Writes all of `y`.
pub(super) fn forward(convolution: &Convolution<'_>, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let Convolution { map, output, options, .. } = *convolution;
    match bias {
        Some(bias) => y.par_chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias)),
        None => y.fill(0.0),
    }
    convolution.gather((x, map), weight, output, y, |at, offset| {
        let y = reached(at.0, map.height, options.stride, offset.0)?;
        Some((y, reached(at.1, map.width, options.stride, offset.1)?))
    });
}

/// Adds to `dx`, after clearing it unless accumulating.
pub(super) fn backward_input(
    convolution: &Convolution<'_>,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
    accumulate: bool,
) {
    let Convolution { map, output, options, .. } = *convolution;
    if !accumulate {
        dx.fill(0.0);
    }
    convolution.gather((dy, output), weight, map, dx, |at, offset| {
        let y = reaching(at.0, output.height, options.stride, offset.0)?;
        Some((y, reaching(at.1, output.width, options.stride, offset.1)?))
    });
}

/// Adds to `dweight [channels, taps]`, after clearing it unless accumulating.
pub(super) fn backward_weight(
    convolution: &Convolution<'_>,
    x: &[f32],
    dy: &[f32],
    dweight: &mut [f32],
    accumulate: bool,
) {
    let Convolution { map, output, options, inputs: channels, .. } = *convolution;
    let taps = convolution.kernel.0 * convolution.kernel.1;
    let task = TASK_POSITIONS.div_ceil(output.width) * output.width;
    let partial: Vec<Vec<f32>> = dy
        .par_chunks(task * channels)
        .enumerate()
        .map(|(index, dy)| {
            let mut sums = vec![0.0; taps * channels];
            for (i, dy) in dy.chunks_exact(channels).enumerate() {
                let (row, column) = ((index * task + i) / output.width, (index * task + i) % output.width);
                let (image, row) = (row / output.height, row % output.height);
                for (tap, sums) in sums.chunks_exact_mut(channels).enumerate() {
                    let offset = convolution.offset(tap);
                    let y = reached(row, map.height, options.stride, offset.0);
                    let at = y.zip(reached(column, map.width, options.stride, offset.1));
                    if let Some((y, column)) = at {
                        let position = (image * map.height + y) * map.width + column;
                        add_products(&x[position * channels..][..channels], dy, sums);
                    }
                }
            }
            sums
        })
        .collect();
    let mut sums = vec![0.0; taps * channels];
    partial.iter().for_each(|part| rows::add(&mut sums, part));
    let sums = transposed(&sums, channels);
    match accumulate {
        true => rows::add(dweight, &sums),
        false => dweight.copy_from_slice(&sums),
    }
}
