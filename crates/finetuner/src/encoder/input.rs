//! What an encoder reads.

use super::perceptron::VectorBatch;
use crate::data::Modality;
use crate::pixels::PixelBatch;
use crate::tokens::PackedBatch;

/// Some items of one modality, packed.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Texts.
    Tokens(PackedBatch),
    /// Pictures.
    Pixels(PixelBatch),
    /// Vectors.
    Vectors(VectorBatch),
}

impl Input {
    /// What its items are.
    pub fn modality(&self) -> Modality {
        match self {
            Input::Tokens(_) => Modality::Text,
            Input::Pixels(_) => Modality::Image,
            Input::Vectors(_) => Modality::Vector,
        }
    }

    /// The row of the whole batch each item belongs to: `[items]`.
    pub fn examples(&self) -> &[u32] {
        match self {
            Input::Tokens(batch) => &batch.examples,
            Input::Pixels(batch) => &batch.examples,
            Input::Vectors(batch) => &batch.examples,
        }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.examples().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.examples().is_empty()
    }

    /// Its size: tokens of texts, patches of 16 x 16 pixels of pictures, 1 a vector. Micro-batches are cut by it.
    pub fn tokens(&self) -> usize {
        match self {
            Input::Tokens(batch) => batch.tokens(),
            Input::Pixels(batch) => batch.tokens(),
            Input::Vectors(batch) => batch.examples.len(),
        }
    }
}

impl From<PackedBatch> for Input {
    fn from(batch: PackedBatch) -> Self {
        Input::Tokens(batch)
    }
}

impl From<PixelBatch> for Input {
    fn from(batch: PixelBatch) -> Self {
        Input::Pixels(batch)
    }
}
