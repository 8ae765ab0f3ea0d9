//! Convolutions as matrix products of patches that are packed block by block, group after group.

use rayon::prelude::*;

use super::gemm::{Matrix, Source, Threads, matmul, product};
use super::patches::Patches;
use super::{depthwise, rows};
use crate::map::{ConvolutionOptions, Map, Padding};
use crate::tensor::Tensor;

/// Output channels whose gradients are laid out at once: a cache line of them.
const COLUMNS: usize = 16;

/// The extents of a convolution.
#[derive(Clone, Copy)]
pub(super) struct Convolution<'a> {
    pub(super) map: Map,
    pub(super) output: Map,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: (usize, usize),
    pub(super) options: &'a ConvolutionOptions,
}

impl<'a> Convolution<'a> {
    /// Of a weight `[out, in / groups, height, width]`; the operation has checked that the output is not empty.
    pub(super) fn new(map: Map, weight: &[usize], options: &'a ConvolutionOptions) -> Self {
        let kernel = (weight[2], weight[3]);
        let output = options.output(map, kernel).unwrap_or(Map { images: 0, height: 0, width: 0 });
        Convolution { map, output, inputs: weight[1] * options.groups, outputs: weight[0], kernel, options }
    }

    /// Input and output channels of a group.
    fn group(&self) -> (usize, usize) {
        (self.inputs / self.options.groups, self.outputs / self.options.groups)
    }

    fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    /// A plain linear layer.
    fn is_pointwise(&self) -> bool {
        let ConvolutionOptions { stride, padding, groups, .. } = *self.options;
        self.taps() == 1 && stride == 1 && groups == 1 && padding == Padding::default()
    }

    fn is_depthwise(&self) -> bool {
        self.options.groups == self.inputs && self.outputs == self.inputs
    }

    /// What the windows of a group see.
    fn patches<'x>(&self, x: &'x [f32], group: usize) -> Patches<'x, f32> {
        let ConvolutionOptions { stride, padding, dilation, .. } = *self.options;
        let taps =
            |kernel: usize, before: usize| (0..kernel).map(|k| (k * dilation) as isize - before as isize).collect();
        let channels = self.group().0;
        Patches {
            source: x,
            map: self.map,
            columns: self.inputs,
            first_channel: group * channels,
            channels,
            grid: (self.output.height, self.output.width),
            step: stride,
            taps: (taps(self.kernel.0, padding.top), taps(self.kernel.1, padding.left)),
        }
    }

    /// `[out of the group, (height, width, in)]`
    fn weight_by_tap(&self, weight: &[f32], group: usize) -> Tensor {
        let ((inputs, outputs), taps) = (self.group(), self.taps());
        let size = inputs * taps;
        let mut by_tap = Tensor::stale(&[outputs, size]);
        let weight = &weight[group * outputs * size..(group + 1) * outputs * size];
        by_tap.data_mut().par_chunks_mut(size).zip(weight.par_chunks(size)).for_each(|(to, from)| {
            for (tap, to) in to.chunks_exact_mut(inputs).enumerate() {
                to.iter_mut().zip(from.iter().skip(tap).step_by(taps)).for_each(|(to, &from)| *to = from);
            }
        });
        by_tap
    }

    /// `[(taps, out of the group), in]` for taps of the kernel in a given order.
    fn weight_by_output(&self, weight: &[f32], group: usize, taps: &[usize]) -> Tensor {
        let ((inputs, outputs), all) = (self.group(), self.taps());
        let mut by_output = Tensor::stale(&[taps.len() * outputs, inputs]);
        // The rows of one output channel for all taps: its weights are read while they are in the cache.
        let mut rows: Vec<Vec<&mut [f32]>> = (0..outputs).map(|_| Vec::with_capacity(taps.len())).collect();
        for (row, to) in by_output.data_mut().chunks_exact_mut(inputs).enumerate() {
            rows[row % outputs].push(to);
        }
        let weight = &weight[group * outputs * inputs * all..];
        rows.into_par_iter().with_min_len(4).zip(weight.par_chunks(inputs * all)).for_each(|(rows, from)| {
            for (to, &tap) in rows.into_iter().zip(taps) {
                to.iter_mut().zip(from.iter().skip(tap).step_by(all)).for_each(|(to, &from)| *to = from);
            }
        });
        by_output
    }
}

/// [`crate::map::Maps::convolution`]; writes all of `y`.
pub(super) fn forward(convolution: &Convolution<'_>, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let Convolution { inputs, outputs, options, .. } = *convolution;
    if convolution.is_depthwise() {
        return depthwise::forward(convolution, x, weight, bias, y);
    }
    let (_, group_outputs) = convolution.group();
    for group in 0..options.groups {
        let bias = bias.map(|bias| &bias[group * group_outputs..(group + 1) * group_outputs]);
        let finish = |_: usize, y: &mut [f32], _: &mut [f32]| {
            if let Some(bias) = bias {
                y.chunks_mut(outputs).for_each(|row| rows::add(&mut row[..group_outputs], bias));
            }
        };
        let to = (&mut y[group * group_outputs..], outputs);
        if convolution.is_pointwise() {
            let x = Matrix::new(x, convolution.map.rows(), inputs);
            let weight = Matrix::new(weight, outputs, inputs).transposed();
            product::<f32>(x.into(), weight, 1.0, to, false, Threads::All, &mut [], finish);
        } else {
            let patches = convolution.patches(x, group);
            let weight = convolution.weight_by_tap(weight, group);
            let weight = Matrix::of(&weight).transposed();
            product::<f32>(Source::Patches(&patches), weight, 1.0, to, false, Threads::All, &mut [], finish);
        }
    }
}

/// Which taps of a kernel reach a position `phase + i * stride` of the map, and from which output `i + offset`, by rising
/// offset.
fn taps_of_phase(phase: usize, kernel: usize, before: usize, stride: usize, dilation: usize) -> Vec<(usize, isize)> {
    let offset = |tap: usize| (phase + before) as isize - (tap * dilation) as isize;
    let stride = stride as isize;
    (0..kernel).rev().filter(|&tap| offset(tap) % stride == 0).map(|tap| (tap, offset(tap) / stride)).collect()
}

/// [`crate::map::Maps::convolution_backward_input`]: a convolution of `dy` for every position within a stride.
pub(super) fn backward_input(
    convolution: &Convolution<'_>,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
    accumulate: bool,
) {
    let Convolution { map, output, inputs, outputs, kernel, options } = *convolution;
    let ConvolutionOptions { stride, padding, dilation, groups } = *options;
    if convolution.is_pointwise() {
        let (dy, weight) = (Matrix::new(dy, map.rows(), outputs), Matrix::new(weight, outputs, inputs));
        return matmul(dy, weight, 1.0, dx, inputs, accumulate, Threads::All);
    }
    if convolution.is_depthwise() {
        return depthwise::backward_input(convolution, dy, weight, dx, accumulate);
    }
    let (group_inputs, group_outputs) = convolution.group();
    for (phase_y, phase_x) in (0..stride).flat_map(|y| (0..stride).map(move |x| (y, x))) {
        let grid =
            (map.height.saturating_sub(phase_y).div_ceil(stride), map.width.saturating_sub(phase_x).div_ceil(stride));
        let vertical = taps_of_phase(phase_y, kernel.0, padding.top, stride, dilation);
        let horizontal = taps_of_phase(phase_x, kernel.1, padding.left, stride, dilation);
        let taps: Vec<usize> =
            vertical.iter().flat_map(|&(y, _)| horizontal.iter().map(move |&(x, _)| y * kernel.1 + x)).collect();
        if grid.0 * grid.1 == 0 || accumulate && taps.is_empty() {
            continue;
        }
        let mut phase = (stride > 1).then(|| Tensor::stale(&[map.images * grid.0 * grid.1, inputs]));
        for group in 0..groups {
            let patches = Patches {
                source: dy,
                map: output,
                columns: outputs,
                first_channel: group * group_outputs,
                channels: group_outputs,
                grid,
                step: 1,
                taps: (vertical.iter().map(|tap| tap.1).collect(), horizontal.iter().map(|tap| tap.1).collect()),
            };
            let weight = convolution.weight_by_output(weight, group, &taps);
            let (to, accumulate) = match &mut phase {
                Some(phase) => (phase.data_mut(), false),
                None => (&mut *dx, accumulate),
            };
            let to = (&mut to[group * group_inputs..], inputs);
            product::<f32>(
                Source::Patches(&patches),
                Matrix::of(&weight),
                1.0,
                to,
                accumulate,
                Threads::All,
                &mut [],
                |_, _, _| {},
            );
        }
        if let Some(phase) = phase {
            let rows = phase.data().par_chunks_exact(grid.1 * inputs);
            let image_rows = dx.par_chunks_exact_mut(map.width * inputs).enumerate();
            let image_rows = image_rows.filter(|(row, _)| row % map.height % stride == phase_y);
            image_rows.map(|(_, row)| row).collect::<Vec<_>>().into_par_iter().zip(rows).for_each(|(row, from)| {
                let positions = row.chunks_exact_mut(inputs).skip(phase_x).step_by(stride);
                positions.zip(from.chunks_exact(inputs)).for_each(|(to, from)| match accumulate {
                    true => rows::add(to, from),
                    false => to.copy_from_slice(from),
                });
            });
        }
    }
}

/// [`crate::map::Maps::convolution_backward_weight`]: `patches^T dy`.
pub(super) fn backward_weight(
    convolution: &Convolution<'_>,
    x: &[f32],
    dy: &[f32],
    dweight: &mut [f32],
    accumulate: bool,
) {
    let Convolution { map, output, inputs, outputs, options, .. } = *convolution;
    if convolution.is_depthwise() {
        return depthwise::backward_weight(convolution, x, dy, dweight, accumulate);
    }
    if convolution.is_pointwise() && outputs >= inputs {
        let (x, dy) = (Matrix::new(x, map.rows(), inputs), Matrix::new(dy, map.rows(), outputs));
        return matmul(dy.transposed(), x, 1.0, dweight, inputs, accumulate, Threads::All);
    }
    let ((group_inputs, group_outputs), taps) = (convolution.group(), convolution.taps());
    let size = taps * group_inputs;
    let mut transposed = Tensor::stale(&[size, group_outputs]);
    for group in 0..options.groups {
        let patches = convolution.patches(x, group);
        let source = match convolution.is_pointwise() {
            true => Matrix::new(x, map.rows(), inputs).transposed().into(),
            false => Source::PatchesTransposed(&patches),
        };
        let dy = Matrix::strided(&dy[(group * group_outputs).min(dy.len())..], output.rows(), group_outputs, outputs);
        let to = (transposed.data_mut(), group_outputs);
        product::<f32>(source, dy, 1.0, to, false, Threads::All, &mut [], |_, _, _| {});
        let transposed = transposed.data();
        let dweight = &mut dweight[group * group_outputs * size..(group + 1) * group_outputs * size];
        // Some output channels at a time, which lie side by side in what is read.
        dweight.par_chunks_mut(COLUMNS * size).enumerate().for_each(|(index, dweight)| {
            let from = index * COLUMNS;
            for (channel, tap) in (0..group_inputs).flat_map(|channel| (0..taps).map(move |tap| (channel, tap))) {
                let row = &transposed[(tap * group_inputs + channel) * group_outputs + from..];
                let to = dweight.iter_mut().skip(channel * taps + tap).step_by(size);
                to.zip(row).for_each(|(to, &value)| *to = if accumulate { *to + value } else { value });
            }
        });
    }
}
