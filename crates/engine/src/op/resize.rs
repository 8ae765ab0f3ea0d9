use crate::device::Operand::{Plain, Transposed};
use crate::error::{Error, Result};
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// How values between the positions of a grid are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// From the two nearest along each axis.
    Bilinear,
    /// From the four nearest along each axis, by Keys' cubic (a = -0.75; with antialiasing -0.5, as Pillow has it).
    Bicubic,
}

impl Tape<'_> {
    /// A grid of position embeddings for pictures of another size.
    ///
    /// ```text
    /// y[i, j] = sum over a, b of vertical[i, a] horizontal[j, b] x[a, b]      corners not aligned, weights sum to 1
    /// ```
    ///
    /// With `antialias` the filter grows with the step when the grid shrinks. ViT, DINOv2 and SigLIP of transformers
    /// resize bicubically without it; SigLIP 2 bilinearly and timm bicubically with it.
    ///
    /// # Shapes
    /// `x [height * width, columns]` for `from = (height, width)`; gives `[to.0 * to.1, columns]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` is not such a grid, or an extent is 0.
    ///
    /// # Reference
    /// `torch.nn.functional.interpolate(size=to, align_corners=False)`.
    pub fn resize_grid(
        &mut self,
        x: &Var,
        from: (usize, usize),
        to: (usize, usize),
        interpolation: Interpolation,
        antialias: bool,
    ) -> Result<Var> {
        if x.value().rows() != from.0 * from.1 || x.value().is_empty() || to.0 == 0 || to.1 == 0 {
            let expected = format!("x of {} x {} rows, to an extent of at least 1", from.0, from.1);
            return Err(Error::shape("resize_grid", expected, format!("{:?}, to {to:?}", x.value().shape())));
        }
        let vertical = weights(from.0, to.0, interpolation, antialias);
        let horizontal = weights(from.1, to.1, interpolation, antialias);
        let mut both = Tensor::stale(&[to.0 * to.1, from.0 * from.1]);
        for (row, out) in both.data_mut().chunks_exact_mut(from.0 * from.1).enumerate() {
            let (vertical, horizontal) =
                (&vertical[row / to.1 * from.0..][..from.0], &horizontal[row % to.1 * from.1..][..from.1]);
            let products = vertical.iter().flat_map(|v| horizontal.iter().map(move |h| (v * h) as f32));
            out.iter_mut().zip(products).for_each(|(out, product)| *out = product);
        }
        let mut y = Tensor::stale(&[to.0 * to.1, x.value().columns()]);
        self.device().matmul(Plain(&both), Plain(x.value()), 1.0, &mut y, false);
        let (source, shape) = (x.source(), x.value().shape().to_vec());
        Ok(self.record(&[x], y, move |backward, dy| {
            backward.write(source, &shape, |device, dx, accumulate| {
                device.matmul(Transposed(&both), Plain(&dy), 1.0, dx, accumulate);
            });
            Ok(())
        }))
    }
}

/// The share of every old position in each new one, `[to, from]`.
fn weights(from: usize, to: usize, interpolation: Interpolation, antialias: bool) -> Vec<f64> {
    let step = from as f64 / to as f64;
    let mut weights = vec![0.0; to * from];
    for (index, weights) in weights.chunks_exact_mut(from).enumerate() {
        let centre = (index as f64 + 0.5) * step;
        if antialias {
            let width = step.max(1.0);
            let reach = width * if interpolation == Interpolation::Bicubic { 2.0 } else { 1.0 };
            let start = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            for at in start..end {
                let distance = (at as f64 - centre + 0.5) / width;
                weights[at] = match interpolation {
                    Interpolation::Bilinear => (1.0 - distance.abs()).max(0.0),
                    Interpolation::Bicubic => cubic(distance, -0.5),
                };
            }
            let total: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= total);
            continue;
        }
        // Positions beyond the edge are those at the edge.
        let mut add = |at: isize, weight: f64| weights[at.clamp(0, from as isize - 1) as usize] += weight;
        match interpolation {
            Interpolation::Bilinear => {
                let place = (centre - 0.5).max(0.0);
                add(place as isize, 1.0 - place.fract());
                add(place as isize + 1, place.fract());
            }
            Interpolation::Bicubic => {
                let place = centre - 0.5;
                let first = place.floor() as isize - 1;
                (first..first + 4).for_each(|at| add(at, cubic(at as f64 - place, -0.75)));
            }
        }
    }
    weights
}

/// Keys' cubic convolution (1981).
fn cubic(distance: f64, a: f64) -> f64 {
    let x = distance.abs();
    match x {
        0.0..=1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        1.0..2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}
