use super::{expect_columns, expect_shape};
use crate::device::Activation;
use crate::error::{Error, Result};
use crate::map::{BatchNormOptions, Normalisation, Statistics};
use crate::tape::{Source, Tape, Var};
use crate::tensor::Tensor;

/// The running statistics of a batch norm.
#[derive(Debug, Clone)]
pub struct RunningStatistics {
    /// `[channels]`
    pub mean: Tensor,
    /// `[channels]`, unbiased.
    pub variance: Tensor,
}

impl Tape<'_> {
    /// Batch norm over rows, then the sum with a residual and an activation, in the same pass over memory.
    ///
    /// ```text
    /// y = activation((x - mean) / sqrt(variance + eps) * weight + bias + residual)      per column
    /// running = (1 - momentum) running + momentum (mean, variance rows / (rows - 1))    with Statistics::Batch
    /// ```
    ///
    /// With [`Statistics::Batch`] mean and biased variance are those of the rows of `x`, summed in f64, the gradient goes
    /// through them, and the moved running statistics are given back for the caller to keep; with
    /// [`Statistics::Running`] they are the running ones, and nothing moves.
    ///
    /// # Shapes
    /// `x`, `residual [rows, channels]`, `weight`, `bias`, running mean and variance `[channels]`; gives
    /// `[rows, channels]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when they do not fit, or when statistics are asked of fewer than two rows.
    ///
    /// # Reference
    /// Ioffe and Szegedy 2015; `torch.nn.BatchNorm2d`.
    pub fn batch_norm(
        &mut self,
        x: &Var,
        residual: Option<&Var>,
        weight: &Var,
        bias: &Var,
        running: &RunningStatistics,
        options: BatchNormOptions,
    ) -> Result<(Var, Option<RunningStatistics>)> {
        let (rows, channels) = (x.value().rows(), x.value().columns());
        expect_columns("batch_norm", "x", x.value())?;
        expect_shape("batch_norm", "weight", weight.value(), &[channels])?;
        expect_shape("batch_norm", "bias", bias.value(), &[channels])?;
        expect_shape("batch_norm", "running mean", &running.mean, &[channels])?;
        expect_shape("batch_norm", "running variance", &running.variance, &[channels])?;
        if let Some(residual) = residual {
            expect_shape("batch_norm", "residual", residual.value(), x.value().shape())?;
        }
        let BatchNormOptions { eps, statistics, activation } = options;
        let deviation =
            |variance: &Tensor| combined(variance, variance, |variance, _| 1.0 / (variance + f64::from(eps)).sqrt());
        let (normalisation, moved) = match statistics {
            Statistics::Running => {
                (Normalisation { mean: running.mean.clone(), deviation: deviation(&running.variance) }, None)
            }
            Statistics::Batch { .. } if rows < 2 => {
                return Err(Error::shape("batch_norm", "at least two rows to take statistics of", rows.to_string()));
            }
            Statistics::Batch { momentum } => {
                let (mean, variance) = self.device().column_statistics(x.value());
                let (momentum, unbiased) = (f64::from(momentum), rows as f64 / (rows - 1) as f64);
                let moved = RunningStatistics {
                    mean: combined(&running.mean, &mean, |old, new| (1.0 - momentum) * old + momentum * new),
                    variance: combined(&running.variance, &variance, |old, new| {
                        (1.0 - momentum) * old + momentum * new * unbiased
                    }),
                };
                (Normalisation { mean, deviation: deviation(&variance) }, Some(moved))
            }
        };
        let y = self.device().batch_norm(
            x.value(),
            &normalisation,
            weight.value(),
            bias.value(),
            residual.map(Var::value),
            activation,
        );
        let sources = (x.source(), residual.map(Var::source), weight.source(), bias.source());
        let (x_value, weight_value, bias_value) = (x.value().clone(), weight.value().clone(), bias.value().clone());
        let tracked: Vec<&Var> = [x, weight, bias].into_iter().chain(residual).collect();
        let batch = moved.is_some();
        // The output says where one of these cut off; any other activation needs the value before it.
        let cuts = matches!(activation, Activation::Identity | Activation::Relu | Activation::Relu6);
        let (y_value, residual) = (y.clone(), residual.map(|residual| residual.value().clone()));
        let residual = residual.map(|residual| if cuts { Tensor::zeros(&[0]) } else { residual });
        let y = self.record(&tracked, y, move |backward, dy| {
            let (x_source, residual_source, weight_source, bias_source) = sources;
            let gradients = backward.device.batch_norm_backward(
                &x_value,
                &y_value,
                &normalisation,
                &weight_value,
                &bias_value,
                residual.as_ref(),
                activation,
                batch,
                dy,
            );
            if x_source != Source::Constant {
                backward.add(x_source, gradients.x);
            }
            backward.add(weight_source, gradients.weight);
            backward.add(bias_source, gradients.bias);
            if let (Some(source), Some(gradient)) = (residual_source, gradients.residual) {
                backward.add(source, gradient);
            }
            Ok(())
        });
        Ok((y, moved))
    }
}

/// A number for each channel from two of each.
fn combined(a: &Tensor, b: &Tensor, function: impl Fn(f64, f64) -> f64) -> Tensor {
    let mut out = Tensor::stale(a.shape());
    for ((out, &a), &b) in out.data_mut().iter_mut().zip(a.data()).zip(b.data()) {
        *out = function(f64::from(a), f64::from(b)) as f32;
    }
    out
}
