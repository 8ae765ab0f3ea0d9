//! Feature maps, and the part of a [`crate::Device`] that image encoders need.
//!
//! A map is a matrix `[images * height * width, channels]`: one row a position, image by image, row by row (NHWC). So a
//! 1x1 convolution is a linear layer, a batch norm looks at columns, and a picture is a packed sequence of its positions.

use crate::device::Activation;
use crate::packing::Packing;
use crate::tensor::Tensor;

/// How the rows of a matrix lie in pictures of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    /// The number of pictures.
    pub images: usize,
    /// Rows of positions of each.
    pub height: usize,
    /// Positions of a row.
    pub width: usize,
}

impl Map {
    /// Positions of one picture.
    pub fn positions(&self) -> usize {
        self.height * self.width
    }

    /// Positions of all pictures: rows of the matrix.
    pub fn rows(&self) -> usize {
        self.images * self.positions()
    }

    /// Every picture as one sequence, for pooling; `examples` are their numbers in the batch.
    ///
    /// # Panics
    /// When there is not one example number for each picture.
    pub fn packing(&self, examples: &[u32]) -> Packing {
        let offsets: Vec<u32> = (0..=self.images).map(|image| (image * self.positions()) as u32).collect();
        Packing::new(&offsets, examples)
    }
}

/// Positions outside a map that a window may reach, on each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Above the first row.
    pub top: usize,
    /// Below the last row.
    pub bottom: usize,
    /// Left of the first column.
    pub left: usize,
    /// Right of the last column.
    pub right: usize,
}

impl Padding {
    /// The same on all four sides, as `padding=` of torch's layers.
    pub fn all(width: usize) -> Self {
        Padding { top: width, bottom: width, left: width, right: width }
    }

    /// What gives `ceil(extent / stride)` positions, the odd one below and to the right: TensorFlow's `SAME`.
    pub fn same(map: Map, kernel: (usize, usize), stride: usize, dilation: usize) -> Self {
        let total = |extent: usize, kernel: usize| {
            let reach = extent.div_ceil(stride).saturating_sub(1) * stride + dilation * kernel.saturating_sub(1) + 1;
            reach.saturating_sub(extent)
        };
        let (vertical, horizontal) = (total(map.height, kernel.0), total(map.width, kernel.1));
        Padding {
            top: vertical / 2,
            bottom: vertical - vertical / 2,
            left: horizontal / 2,
            right: horizontal - horizontal / 2,
        }
    }
}

/// How a kernel moves over a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvolutionOptions {
    /// Positions from one window to the next.
    pub stride: usize,
    /// Zeros around the map.
    pub padding: Padding,
    /// Positions from one tap of the kernel to the next.
    pub dilation: usize,
    /// Parts that input and output channels are cut into; each output channel sees the inputs of its part only.
    pub groups: usize,
}

impl Default for ConvolutionOptions {
    /// Stride 1, no padding, dilation 1, one group: torch's defaults.
    fn default() -> Self {
        ConvolutionOptions { stride: 1, padding: Padding::default(), dilation: 1, groups: 1 }
    }
}

impl ConvolutionOptions {
    /// The map of a convolution's output; `None` where no window fits.
    pub fn output(&self, map: Map, kernel: (usize, usize)) -> Option<Map> {
        let extent = |extent: usize, kernel: usize, before: usize, after: usize| {
            let room = (extent + before + after).checked_sub(self.dilation * kernel.checked_sub(1)? + 1)?;
            Some(room.checked_div(self.stride)? + 1)
        };
        let Padding { top, bottom, left, right } = self.padding;
        let height = extent(map.height, kernel.0, top, bottom)?;
        Some(Map { images: map.images, height, width: extent(map.width, kernel.1, left, right)? })
    }
}

/// What becomes of the values in a window of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowPooling {
    /// The largest; a tie's gradient goes to the first.
    Max,
    /// Their sum divided by the window's extent.
    Mean,
}

/// One window along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first position in the map.
    pub start: usize,
    /// One past its last position in the map.
    pub end: usize,
    /// What a mean is divided by; more than `end - start` where padding counts.
    pub extent: usize,
}

/// The windows that a map is pooled by: every pair of a vertical and a horizontal span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// From top to bottom.
    pub rows: Vec<Span>,
    /// From left to right.
    pub columns: Vec<Span>,
}

impl Windows {
    /// The map of one position a window.
    pub fn output(&self, map: Map) -> Map {
        Map { images: map.images, height: self.rows.len(), width: self.columns.len() }
    }
}

/// Where the mean and variance of a batch norm come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Statistics {
    /// From the rows at hand, as in training; running statistics move by `momentum` towards them.
    Batch {
        /// The share of the new statistics; torch's default is 0.1, TensorFlow's 0.01.
        momentum: f32,
    },
    /// The running ones, as in evaluation. With weight and bias not trained this is a frozen batch norm.
    Running,
}

/// How a batch norm goes on, fused into its pass over memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNormOptions {
    /// Added to the variance.
    pub eps: f32,
    /// Where mean and variance come from.
    pub statistics: Statistics,
    /// Applied after the norm and the residual.
    pub activation: Activation,
}

/// What a batch norm keeps for its backward pass.
#[derive(Debug, Clone)]
pub struct Normalisation {
    /// The mean that was subtracted, `[channels]`.
    pub mean: Tensor,
    /// `1 / sqrt(variance + eps)`, `[channels]`.
    pub deviation: Tensor,
}

/// The gradients of a batch norm's inputs.
pub struct BatchNormGradients {
    /// Of `x`.
    pub x: Tensor,
    /// Of the sum before the activation, which is the residual's; `None` unless asked for.
    pub residual: Option<Tensor>,
    /// Of the weight.
    pub weight: Tensor,
    /// Of the bias.
    pub bias: Tensor,
}

/// The kernels over feature maps. Shapes are checked by the operations. `accumulate` means: add to what `out` holds;
/// otherwise overwrite all of it.
pub trait Maps {
    /// `x [map rows, in]`, `weight [out, in / groups, height, width]`, `bias [out]`; gives `[output rows, out]`.
    fn convolution(
        &self,
        x: &Tensor,
        map: Map,
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: &ConvolutionOptions,
    ) -> Tensor;

    /// The gradient of the input.
    fn convolution_backward_input(
        &self,
        dy: &Tensor,
        map: Map,
        weight: &Tensor,
        options: &ConvolutionOptions,
        dx: &mut Tensor,
        accumulate: bool,
    );

    /// The gradient of the weight.
    fn convolution_backward_weight(
        &self,
        x: &Tensor,
        map: Map,
        dy: &Tensor,
        options: &ConvolutionOptions,
        dweight: &mut Tensor,
        accumulate: bool,
    );

    /// The mean and the biased variance over the rows, `[channels]` each, summed in f64.
    fn column_statistics(&self, x: &Tensor) -> (Tensor, Tensor);

    /// `activation((x - mean) deviation weight + bias + residual)` column by column.
    fn batch_norm(
        &self,
        x: &Tensor,
        normalisation: &Normalisation,
        weight: &Tensor,
        bias: &Tensor,
        residual: Option<&Tensor>,
        activation: Activation,
    ) -> Tensor;

    /// The gradients of [`Maps::batch_norm`]'s inputs from that of its output `y`; with `batch`, through the statistics
    /// of the rows as well. Where there was a residual, `residual` holds it (or nothing, if the activation only cuts off)
    /// and its gradient is given.
    #[allow(clippy::too_many_arguments)]
    fn batch_norm_backward(
        &self,
        x: &Tensor,
        y: &Tensor,
        normalisation: &Normalisation,
        weight: &Tensor,
        bias: &Tensor,
        residual: Option<&Tensor>,
        activation: Activation,
        batch: bool,
        dy: Tensor,
    ) -> BatchNormGradients;

    /// One row a window of every image.
    fn window_pool(&self, pooling: WindowPooling, x: &Tensor, map: Map, windows: &Windows) -> Tensor;

    /// The gradient of `x` from that of the pooled `y`.
    fn window_pool_backward(
        &self,
        pooling: WindowPooling,
        x: &Tensor,
        y: &Tensor,
        map: Map,
        windows: &Windows,
        dy: &Tensor,
    ) -> Tensor;

    /// `y[r, c] = x[r, c] factors[image of r, c]`
    fn channel_scale(&self, x: &Tensor, map: Map, factors: &Tensor) -> Tensor;

    /// `sum over the rows r of an image of x[r, c] dy[r, c]`: the gradient of the factors, `[images, channels]`.
    fn channel_products(&self, x: &Tensor, map: Map, dy: &Tensor) -> Tensor;

    /// [`crate::device::Pooling::Gem`] with the power in a tensor of one element.
    fn gem(&self, x: &Tensor, power: &Tensor, eps: f32, packing: &Packing) -> Tensor;

    /// The gradients of `x` and the power.
    fn gem_backward(
        &self,
        x: &Tensor,
        power: &Tensor,
        eps: f32,
        packing: &Packing,
        y: &Tensor,
        dy: &Tensor,
    ) -> (Tensor, Tensor);
}
