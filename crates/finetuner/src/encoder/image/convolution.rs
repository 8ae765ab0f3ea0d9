//! The parts that convolutional networks are made of: filters, batch norm, squeeze-and-excitation.
//!
//! Batch norm in training takes the mean and variance of the pictures that are encoded at once, a micro-batch: under the
//! gradient cache too, where a larger batch is encoded part by part. Both passes see the same parts, so the second computes
//! what the first did. A step moves the running statistics once, towards the mean over its micro-batches. A batch norm that is
//! frozen, or whose statistics are (`freeze` says so), uses the running ones in training, too.

use engine::device::{Activation, Pooling};
use engine::map::{BatchNormOptions, ConvolutionOptions, Padding, Statistics};
use engine::op::RunningStatistics;
use engine::{Map, ParameterId, Tape, Var};

use crate::encoder::weights::Loader;
use crate::error::Result;

/// A feature map: `[images * height * width, channels]` and its extents.
#[derive(Debug, Clone)]
pub(super) struct Features {
    pub(super) x: Var,
    pub(super) map: Map,
}

/// What surrounds a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Border {
    /// As many zeros on each side, torch's `padding`.
    Zeros(usize),
    /// TensorFlow's `SAME`: `ceil(extent / stride)` positions remain.
    Same,
}

/// The extents of a convolution with square filters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filters {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) border: Border,
    /// Parts that inputs and outputs are cut into; as many as inputs: depthwise.
    pub(super) groups: usize,
}

impl Filters {
    /// One group, with the zeros that keep the extent at stride 1.
    pub(super) fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Self {
        Filters { inputs, outputs, kernel, stride, border: Border::Zeros(kernel / 2), groups: 1 }
    }
}

/// A convolution, with a bias where no batch norm follows.
#[derive(Debug)]
pub(super) struct Convolution {
    weight: ParameterId,
    bias: Option<ParameterId>,
    filters: Filters,
}

impl Convolution {
    pub(super) fn load(loader: &mut Loader<'_>, name: &str, filters: Filters, bias: bool) -> Result<Self> {
        let Filters { inputs, outputs, kernel, groups, .. } = filters;
        let weight = loader.filters(&format!("{name}.weight"), &[outputs, inputs / groups, kernel, kernel])?;
        let bias = match bias {
            true => Some(loader.vector(&[format!("{name}.bias")], outputs, 0.0)?),
            false => None,
        };
        Ok(Convolution { weight, bias, filters })
    }

    pub(super) fn forward(&self, tape: &mut Tape<'_>, x: &Features) -> Result<Features> {
        let Filters { kernel, stride, border, groups, .. } = self.filters;
        let padding = match border {
            Border::Zeros(width) => Padding::all(width),
            Border::Same => Padding::same(x.map, (kernel, kernel), stride, 1),
        };
        let options = ConvolutionOptions { stride, padding, groups, dilation: 1 };
        let (weight, bias) = (tape.parameter(self.weight), self.bias.map(|bias| tape.parameter(bias)));
        let (x, map) = tape.conv2d(&x.x, x.map, &weight, bias.as_ref(), options)?;
        Ok(Features { x, map })
    }
}

/// How the batch norms of a network count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm {
    pub(super) eps: f32,
    /// The share of a batch in the running statistics.
    pub(super) momentum: f32,
}

impl Default for Norm {
    /// torch's defaults.
    fn default() -> Self {
        Norm { eps: 1e-5, momentum: 0.1 }
    }
}

/// A convolution, batch norm, and an activation.
#[derive(Debug)]
pub(super) struct Unit {
    convolution: Convolution,
    norm: Norm,
    weight: ParameterId,
    bias: ParameterId,
    mean: ParameterId,
    variance: ParameterId,
    activation: Activation,
}

impl Unit {
    /// Of the tensors `convolution.weight`, `norm.weight`, `norm.bias`, `norm.running_mean` and `norm.running_var`.
    pub(super) fn load(
        loader: &mut Loader<'_>,
        (convolution, norm_name): (&str, &str),
        filters: Filters,
        norm: Norm,
        activation: Activation,
    ) -> Result<Self> {
        let channels = filters.outputs;
        Ok(Unit {
            convolution: Convolution::load(loader, convolution, filters, false)?,
            norm,
            weight: loader.vector(&[format!("{norm_name}.weight")], channels, 1.0)?,
            bias: loader.vector(&[format!("{norm_name}.bias")], channels, 0.0)?,
            mean: loader.statistic(&format!("{norm_name}.running_mean"), channels, 0.0)?,
            variance: loader.statistic(&format!("{norm_name}.running_var"), channels, 1.0)?,
            activation,
        })
    }

    pub(super) fn forward(&self, tape: &mut Tape<'_>, x: &Features, training: bool) -> Result<Features> {
        self.with_residual(tape, x, None, training)
    }

    /// The same, with another map added before the activation.
    pub(super) fn with_residual(
        &self,
        tape: &mut Tape<'_>,
        x: &Features,
        residual: Option<&Var>,
        training: bool,
    ) -> Result<Features> {
        let Features { x, map } = self.convolution.forward(tape, x)?;
        let value = |id: ParameterId| tape.parameters().get(id).value.clone();
        let running = RunningStatistics { mean: value(self.mean), variance: value(self.variance) };
        let statistics = match training && tape.parameters().get(self.mean).observed {
            true => Statistics::Batch { momentum: self.norm.momentum },
            false => Statistics::Running,
        };
        let (weight, bias) = (tape.parameter(self.weight), tape.parameter(self.bias));
        let options = BatchNormOptions { eps: self.norm.eps, statistics, activation: self.activation };
        let (x, moved) = tape.batch_norm(&x, residual, &weight, &bias, &running, options)?;
        if let Some(moved) = moved {
            tape.observe(self.mean, moved.mean);
            tape.observe(self.variance, moved.variance);
        }
        Ok(Features { x, map })
    }
}

/// Every channel times a factor between 0 and 1 that all channels of the picture decide (Hu, Shen, Sun 2018).
#[derive(Debug)]
pub(super) struct Squeeze {
    first: (ParameterId, ParameterId),
    second: (ParameterId, ParameterId),
    activation: Activation,
}

impl Squeeze {
    /// Of two convolutions of 1 x 1 with biases, to `squeezed` channels and back.
    pub(super) fn load(
        loader: &mut Loader<'_>,
        names: (&str, &str),
        channels: usize,
        squeezed: usize,
        activation: Activation,
    ) -> Result<Self> {
        let mut affine = |name: &str, inputs: usize, outputs: usize| {
            let weight = loader.folded(&format!("{name}.weight"), &[outputs, inputs, 1, 1], outputs)?;
            Ok::<_, crate::Error>((weight, loader.vector(&[format!("{name}.bias")], outputs, 0.0)?))
        };
        let first = affine(names.0, channels, squeezed)?;
        Ok(Squeeze { first, second: affine(names.1, squeezed, channels)?, activation })
    }

    pub(super) fn forward(&self, tape: &mut Tape<'_>, features: &Features) -> Result<Features> {
        let Features { x, map } = features;
        let pictures: Vec<u32> = (0..map.images as u32).collect();
        let mut factors = tape.pool(Pooling::Mean, x, &map.packing(&pictures))?;
        for ((weight, bias), activation) in [(self.first, self.activation), (self.second, Activation::Sigmoid)] {
            let (weight, bias) = (tape.parameter(weight), tape.parameter(bias));
            factors = tape.linear(&factors, &weight, Some(&bias))?;
            factors = tape.activation(activation, &factors)?;
        }
        Ok(Features { x: tape.channel_scale(x, *map, &factors)?, map: *map })
    }
}
