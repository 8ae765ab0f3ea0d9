//! What a tower of CLIP does with its pooled row, under names of its own: a matrix, or two with a GELU between.

use engine::device::Activation;
use engine::{ParameterId, Tape, Var};

use super::weights::Loader;
use crate::error::Result;

/// Steps from a pooled row to the space that both towers share.
#[derive(Debug, Default)]
pub(crate) struct Projection {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Linear {
        weight: ParameterId,
        bias: Option<ParameterId>,
        /// `[in, out]` on disk, as open_clip keeps it.
        transposed: bool,
    },
    Activation(Activation),
}

impl Projection {
    /// `x Wᵀ` with `W: [outputs, inputs]`, as torch's linear layers lie on disk.
    pub(crate) fn linear(loader: &mut Loader<'_>, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(Projection { steps: vec![matrix(loader, name, outputs, inputs)?] })
    }

    /// The same with a bias, of the module `name`.
    pub(crate) fn affine(loader: &mut Loader<'_>, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = loader.matrix(&[format!("{name}.weight")], outputs, inputs)?;
        let bias = Some(loader.vector(&[format!("{name}.bias")], outputs, 0.0)?);
        Ok(Projection { steps: vec![Step::Linear { weight, bias, transposed: false }] })
    }

    /// `x W` with `W: [inputs, outputs]`.
    pub(crate) fn transposed(loader: &mut Loader<'_>, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = loader.matrix(&[name.to_owned()], inputs, outputs)?;
        Ok(Projection { steps: vec![Step::Linear { weight, bias: None, transposed: true }] })
    }

    /// `gelu(x W0ᵀ) W2ᵀ`, halfway between the two widths in the middle: the text towers of open_clip's multilingual models.
    pub(crate) fn perceptron(loader: &mut Loader<'_>, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        let middle = (inputs + outputs) / 2;
        let first = matrix(loader, &format!("{name}.0.weight"), middle, inputs)?;
        let second = matrix(loader, &format!("{name}.2.weight"), outputs, middle)?;
        Ok(Projection { steps: vec![first, Step::Activation(Activation::Gelu), second] })
    }

    /// `[rows, inputs]` to `[rows, outputs]`.
    pub(crate) fn forward(&self, tape: &mut Tape<'_>, mut x: Var) -> Result<Var> {
        for step in &self.steps {
            x = match step {
                Step::Linear { weight, bias, transposed } => {
                    let mut weight = tape.parameter(*weight);
                    if *transposed {
                        weight = tape.transpose(&weight)?;
                    }
                    let bias = bias.map(|bias| tape.parameter(bias));
                    tape.linear(&x, &weight, bias.as_ref())?
                }
                Step::Activation(activation) => tape.activation(*activation, &x)?,
            };
        }
        Ok(x)
    }
}

fn matrix(loader: &mut Loader<'_>, name: &str, outputs: usize, inputs: usize) -> Result<Step> {
    let weight = loader.matrix(&[name.to_owned()], outputs, inputs)?;
    Ok(Step::Linear { weight, bias: None, transposed: false })
}
