//! Named weights and their gradients.

use crate::tensor::Tensor;

/// Index of a parameter in its [`Parameters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParameterId(pub(crate) usize);

/// One named weight.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name, unique in its collection.
    pub name: String,
    /// Its current value.
    pub value: Tensor,
    /// Whether it takes part in training; without, no gradient is computed.
    pub trainable: bool,
    /// Whether it follows what batches say, without a gradient, as running statistics do ([`crate::Tape::observe`]).
    pub observed: bool,
}

impl Parameter {
    /// Whether training changes it.
    pub fn changes(&self) -> bool {
        self.trainable || self.observed
    }
}

/// All weights of a model, in a fixed order.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    list: Vec<Parameter>,
}

impl Parameters {
    /// Adds a trainable parameter.
    pub fn add(&mut self, name: impl Into<String>, value: Tensor) -> ParameterId {
        self.list.push(Parameter { name: name.into(), value, trainable: true, observed: false });
        ParameterId(self.list.len() - 1)
    }

    /// One parameter.
    pub fn get(&self, id: ParameterId) -> &Parameter {
        &self.list[id.0]
    }

    /// One parameter, for changing it.
    pub fn get_mut(&mut self, id: ParameterId) -> &mut Parameter {
        &mut self.list[id.0]
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Parameter> {
        self.list.iter()
    }

    /// The indices of all parameters in order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = ParameterId> + use<> {
        (0..self.list.len()).map(ParameterId)
    }

    /// All parameters in order, for changing them.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Parameter> {
        self.list.iter_mut()
    }

    /// How many parameters there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The parameter of a name.
    pub fn find(&self, name: &str) -> Option<ParameterId> {
        self.list.iter().position(|parameter| parameter.name == name).map(ParameterId)
    }
}

/// The gradient of every trainable parameter, kept from step to step so that no memory is allocated anew.
#[derive(Debug, Default)]
pub struct Gradients {
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    tensor: Option<Tensor>,
    /// Whether this step has written it; otherwise its content is old and the next write replaces it.
    written: bool,
}

impl Gradients {
    /// Room for the gradients of these parameters; memory is taken when a gradient first arrives.
    pub fn new(parameters: &Parameters) -> Self {
        Gradients { slots: parameters.iter().map(|_| Slot::default()).collect() }
    }

    /// Forgets the gradients of the last step.
    pub fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.written = false;
        }
    }

    /// The gradient of a parameter, if anything has contributed to it since [`Gradients::clear`].
    pub fn get(&self, id: ParameterId) -> Option<&Tensor> {
        let slot = &self.slots[id.0];
        if slot.written { slot.tensor.as_ref() } else { None }
    }

    /// All gradients in the order of the parameters.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<&Tensor>> {
        self.slots.iter().map(|slot| if slot.written { slot.tensor.as_ref() } else { None })
    }

    /// The gradients of the parameters that are wanted, in their order; zero where nothing has contributed.
    pub fn of(&mut self, parameters: &Parameters, wanted: &[bool]) -> Vec<&mut Tensor> {
        let slots = self.slots.iter_mut().zip(parameters.iter()).zip(wanted).filter(|(_, wanted)| **wanted);
        let tensor = slots.map(|((slot, parameter), _)| {
            if !std::mem::replace(&mut slot.written, true) {
                slot.tensor = None;
            }
            slot.tensor.get_or_insert_with(|| Tensor::zeros(parameter.value.shape()))
        });
        tensor.collect()
    }

    /// The buffer to add into, and whether it holds something already (otherwise it must be overwritten).
    pub(crate) fn slot(&mut self, id: ParameterId, shape: &[usize]) -> (&mut Tensor, bool) {
        let slot = &mut self.slots[id.0];
        let accumulate = std::mem::replace(&mut slot.written, true);
        (slot.tensor.get_or_insert_with(|| Tensor::stale(shape)), accumulate)
    }
}

/// Gradients that were computed elsewhere, such as those of leaves, in the order of their parameters.
impl FromIterator<Option<Tensor>> for Gradients {
    fn from_iter<I: IntoIterator<Item = Option<Tensor>>>(gradients: I) -> Self {
        let slot = |tensor: Option<Tensor>| Slot { written: tensor.is_some(), tensor };
        Gradients { slots: gradients.into_iter().map(slot).collect() }
    }
}
