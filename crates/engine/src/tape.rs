//! Records operations and runs them backwards.
//!
//! A model or a loss is written as forward code only: every operation of [`crate::op`] computes its value, and, when
//! recording, leaves a closure that turns the gradient of its output into gradients of its inputs.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::parameter::{Gradients, ParameterId, Parameters};
use crate::tensor::Tensor;

/// Where the gradient of a value goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nowhere: it depends on nothing that is trained.
    Constant,
    /// To an earlier operation or leaf of the tape.
    Node(usize),
    /// To a parameter.
    Parameter(ParameterId),
}

/// A value on a tape. Cloning is cheap; dropping the last clone of an unrecorded value frees it.
#[derive(Debug, Clone)]
pub struct Var {
    value: Tensor,
    source: Source,
    /// How to compute the value again, where that is cheaper than keeping it until the backward pass.
    again: Option<Kept>,
}

/// What an operation keeps of an input for its backward pass.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    Value(Tensor),
    /// The output of a layer norm, from the normalised rows that the norm itself keeps.
    Norm {
        normalised: Tensor,
        weight: Tensor,
        bias: Tensor,
    },
}

impl Kept {
    pub(crate) fn value(&self, device: &dyn Device) -> Tensor {
        match self {
            Kept::Value(value) => value.clone(),
            Kept::Norm { normalised, weight, bias } => device.scale_shift(normalised, weight, bias),
        }
    }

    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Kept::Value(value) => value.shape(),
            Kept::Norm { normalised, .. } => normalised.shape(),
        }
    }
}

impl Var {
    /// The value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The value, without its history.
    pub fn into_value(self) -> Tensor {
        self.value
    }

    /// The value, and what remains to say where its gradient goes: lets an operation write over the value in place.
    pub(crate) fn taken(self) -> (Tensor, Var) {
        (self.value, Var { value: Tensor::zeros(&[0]), source: self.source, again: None })
    }

    pub(crate) fn source(&self) -> Source {
        self.source
    }

    /// What to keep of it for a backward pass.
    pub(crate) fn keep(&self) -> Kept {
        self.again.clone().unwrap_or_else(|| Kept::Value(self.value.clone()))
    }

    /// Lets operations keep `again` instead of the value, where there is a backward pass at all.
    pub(crate) fn computed_again_from(self, again: Kept) -> Self {
        Var { again: self.needs_gradient().then_some(again), ..self }
    }

    /// Whether a gradient flows through it.
    pub fn needs_gradient(&self) -> bool {
        self.source != Source::Constant
    }
}

type BackwardFn = Box<dyn FnOnce(&mut Backward<'_>, Tensor) -> Result<()>>;

/// Records operations; see the module's documentation.
pub struct Tape<'a> {
    device: &'a dyn Device,
    parameters: &'a Parameters,
    /// `None` for a leaf.
    nodes: Vec<Option<BackwardFn>>,
    recording: bool,
    observed: Vec<(ParameterId, Tensor)>,
    operations: u64,
}

impl<'a> Tape<'a> {
    /// A tape that records, for training.
    pub fn recording(device: &'a dyn Device, parameters: &'a Parameters) -> Self {
        Tape { device, parameters, nodes: Vec::new(), recording: true, observed: Vec::new(), operations: 0 }
    }

    /// A tape that only computes: nothing is kept, values are freed as soon as they are dropped.
    pub fn inference(device: &'a dyn Device, parameters: &'a Parameters) -> Self {
        Tape { device, parameters, nodes: Vec::new(), recording: false, observed: Vec::new(), operations: 0 }
    }

    /// The device that computes.
    pub fn device(&self) -> &'a dyn Device {
        self.device
    }

    /// The parameters it was made for.
    pub fn parameters(&self) -> &'a Parameters {
        self.parameters
    }

    /// A value without gradient.
    pub fn constant(&self, value: Tensor) -> Var {
        Var { value, source: Source::Constant, again: None }
    }

    /// A parameter's value; its gradient goes to [`Gradients`] if it is trainable.
    pub fn parameter(&self, id: ParameterId) -> Var {
        let parameter = self.parameters.get(id);
        let source = if self.recording && parameter.trainable { Source::Parameter(id) } else { Source::Constant };
        Var { value: parameter.value.clone(), source, again: None }
    }

    /// A value whose gradient is asked for after [`Tape::backward`], such as the embeddings that a loss sees.
    pub fn leaf(&mut self, value: Tensor) -> Var {
        if !self.recording {
            return self.constant(value);
        }
        self.nodes.push(None);
        Var { value, source: Source::Node(self.nodes.len() - 1), again: None }
    }

    /// Notes what a parameter that learns without a gradient, such as a running mean, should become after the step. A tape
    /// that does not record forgets it.
    pub fn observe(&mut self, id: ParameterId, value: Tensor) {
        if self.recording {
            self.observed.push((id, value));
        }
    }

    /// What was noted since the last call.
    pub fn take_observed(&mut self) -> Vec<(ParameterId, Tensor)> {
        std::mem::take(&mut self.observed)
    }

    /// Additions and multiplications of the matrix products and convolutions so far, and of those that their gradients will
    /// take: the counted work of a model, whatever the device computes again or beside it.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Counts a product's operations, and the same again for the gradient of each of these operands.
    pub(crate) fn count(&mut self, operations: usize, operands: &[&Var]) {
        let gradients = operands.iter().filter(|operand| self.recording && operand.needs_gradient()).count();
        self.operations += operations as u64 * (1 + gradients as u64);
    }

    /// The numbers of a value, once the device has said that nothing went wrong on the way to them.
    ///
    /// # Errors
    /// What [`Device::check`] says.
    pub fn read<'v>(&self, var: &'v Var) -> Result<&'v [f32]> {
        let numbers = var.value.data();
        self.device.check()?;
        Ok(numbers)
    }

    /// Whether an operation on these inputs must be recorded.
    pub(crate) fn tracks(&self, inputs: &[&Var]) -> bool {
        self.recording && inputs.iter().any(|input| input.needs_gradient())
    }

    /// Wraps an operation's value, keeping `backward` if a gradient flows through one of its inputs. The closure gets
    /// the gradient of the value and adds to the inputs' gradients.
    pub(crate) fn record(
        &mut self,
        inputs: &[&Var],
        value: Tensor,
        backward: impl FnOnce(&mut Backward<'_>, Tensor) -> Result<()> + 'static,
    ) -> Var {
        if !self.tracks(inputs) {
            return self.constant(value);
        }
        self.nodes.push(Some(Box::new(backward)));
        Var { value, source: Source::Node(self.nodes.len() - 1), again: None }
    }

    /// Runs the tape backwards from `root`, whose gradient is `upstream`. Gradients of parameters are added to
    /// `gradients`; those of leaves are returned by [`LeafGradients::take`]. Saved values are freed on the way.
    ///
    /// # Errors
    /// [`Error::Shape`] when `upstream` has another shape than the root; what [`Device::check`] says.
    pub fn backward(self, root: &Var, upstream: Tensor, gradients: &mut Gradients) -> Result<LeafGradients> {
        if upstream.shape() != root.value.shape() {
            return Err(Error::shape(
                "backward",
                format!("an upstream gradient of shape {:?}", root.value.shape()),
                format!("{:?}", upstream.shape()),
            ));
        }
        let count = self.nodes.len();
        let mut backward = Backward { device: self.device, nodes: vec![None; count], gradients };
        backward.add(root.source, upstream);
        for (index, node) in self.nodes.into_iter().enumerate().rev() {
            let Some(run) = node else { continue };
            if let Some(gradient) = backward.nodes[index].take() {
                run(&mut backward, gradient)?;
            }
        }
        self.device.check()?;
        Ok(LeafGradients(backward.nodes))
    }
}

/// The gradients of a tape's leaves.
pub struct LeafGradients(Vec<Option<Tensor>>);

impl LeafGradients {
    /// The gradient of a leaf; `None` if the root does not depend on it.
    pub fn take(&mut self, leaf: &Var) -> Option<Tensor> {
        match leaf.source {
            Source::Node(index) => self.0[index].take(),
            _ => None,
        }
    }
}

/// The backward pass under way: gradients by source.
pub(crate) struct Backward<'b> {
    pub(crate) device: &'b dyn Device,
    nodes: Vec<Option<Tensor>>,
    gradients: &'b mut Gradients,
}

impl Backward<'_> {
    /// Adds a gradient of the source's own shape.
    pub(crate) fn add(&mut self, source: Source, gradient: Tensor) {
        match source {
            Source::Constant => {}
            Source::Node(index) => match &mut self.nodes[index] {
                Some(sum) => self.device.add_assign(sum, &gradient),
                empty => *empty = Some(gradient),
            },
            Source::Parameter(id) => {
                let (slot, accumulate) = self.gradients.slot(id, gradient.shape());
                if accumulate {
                    self.device.add_assign(slot, &gradient);
                } else {
                    *slot = gradient;
                }
            }
        }
    }

    /// Lets `write` add into the source's gradient in place: it gets the device, the buffer and whether the buffer
    /// holds something already (if not, every element must be overwritten).
    pub(crate) fn write(
        &mut self,
        source: Source,
        shape: &[usize],
        write: impl FnOnce(&dyn Device, &mut Tensor, bool),
    ) {
        match source {
            Source::Constant => {}
            Source::Node(index) => {
                let accumulate = self.nodes[index].is_some();
                write(self.device, self.nodes[index].get_or_insert_with(|| Tensor::stale(shape)), accumulate);
            }
            Source::Parameter(id) => {
                let (slot, accumulate) = self.gradients.slot(id, shape);
                write(self.device, slot, accumulate);
            }
        }
    }
}
