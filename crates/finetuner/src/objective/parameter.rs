//! What a loss learns or remembers beside the model.

use engine::Tensor;
use engine::random::Key;

use super::initial::Initial;

/// What the model and the data say about the sizes of a loss's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Of an embedding.
    pub dimension: usize,
    /// Of labelled training data; 0 for other kinds.
    pub classes: usize,
    /// Layers of the model before the last one, that before the first among them; 0 where it has none to show.
    pub layers: usize,
}

/// A tensor of a loss. It lives in the [`Objective`](super::Objective), is kept by checkpoints, and is no part of the
/// model that a run gives.
#[derive(Debug, Clone, PartialEq)]
pub struct LossParameter {
    /// Unique in its loss.
    pub name: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Its values before the first step.
    pub initial: Initial,
    /// Who changes it.
    pub role: Role,
}

/// Who changes a tensor of a loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Role {
    /// The optimiser of the loss, by the gradient.
    Learned {
        /// Whether the optimiser's weight decay applies to it.
        decay: bool,
        /// What holds for it at the start and after every step.
        keep: Keep,
        /// Whether its columns are those of the embedding, so that a truncated embedding meets its truncated rows.
        spans_embedding: bool,
    },
    /// The loss itself, by [`Batch::remember`](super::loss::Batch::remember).
    Remembered,
}

/// What holds for a learned tensor at the start and after every step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keep {
    /// Nothing.
    Free,
    /// Numbers within these bounds.
    Within(f32, f32),
    /// Rows of length 1.
    UnitRows,
}

impl Keep {
    pub(super) fn apply(self, tensor: &mut Tensor) {
        match self {
            Keep::Free => {}
            Keep::Within(low, high) => tensor.data_mut().iter_mut().for_each(|x| *x = x.clamp(low, high)),
            Keep::UnitRows => {
                let columns = tensor.columns().max(1);
                for row in tensor.data_mut().chunks_mut(columns) {
                    let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt().max(1e-12);
                    row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
                }
            }
        }
    }
}

impl LossParameter {
    /// A tensor that is learned, with weight decay where the optimiser has one.
    pub fn learned(name: impl Into<String>, shape: &[usize], initial: Initial) -> Self {
        let role = Role::Learned { decay: true, keep: Keep::Free, spans_embedding: false };
        LossParameter { name: name.into(), shape: shape.to_vec(), initial, role }
    }

    /// Vectors in the space of the embeddings, `[count, dimension]`, learned.
    pub fn vectors(name: impl Into<String>, count: usize, sizes: &Sizes, initial: Initial) -> Self {
        let role = Role::Learned { decay: true, keep: Keep::Free, spans_embedding: true };
        LossParameter { name: name.into(), shape: vec![count, sizes.dimension], initial, role }
    }

    /// One learned number without weight decay.
    pub fn scalar(name: impl Into<String>, initial: f64) -> Self {
        let role = Role::Learned { decay: false, keep: Keep::Free, spans_embedding: false };
        LossParameter { name: name.into(), shape: vec![1], initial: Initial::Constant(initial), role }
    }

    /// A tensor that the loss changes itself, of one value at first.
    pub fn remembered(name: impl Into<String>, shape: &[usize], value: f64) -> Self {
        let initial = Initial::Constant(value);
        LossParameter { name: name.into(), shape: shape.to_vec(), initial, role: Role::Remembered }
    }

    /// The same with something that always holds for it.
    #[must_use]
    pub fn kept(mut self, always: Keep) -> Self {
        if let Role::Learned { keep, .. } = &mut self.role {
            *keep = always;
        }
        self
    }

    /// The values before the first step, a function of `key` alone.
    pub(super) fn draw(&self, key: Key) -> Tensor {
        let mut tensor = Tensor::zeros(&self.shape);
        for (counter, value) in (0u64..).zip(tensor.data_mut()) {
            *value = match self.initial {
                Initial::Constant(constant) => constant,
                Initial::Normal { deviation } => deviation * key.normal(counter),
                Initial::Uniform { bound } => bound * (2.0 * key.uniform(counter) - 1.0),
            } as f32;
        }
        if let Role::Learned { keep, .. } = self.role {
            keep.apply(&mut tensor);
        }
        tensor
    }
}
