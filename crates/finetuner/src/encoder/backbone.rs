//! What turns an item into rows: a transformer over tokens, or a network over pixels.

use engine::random::Key;
use engine::{Packing, ParameterId, Tape, Var};

use super::input::Input;
use super::lora::Lora;
use super::transformer::Transformer;
use crate::data::Modality;
use crate::error::{Error, Result};

/// The network below pooling. Its last layer gives rows `[rows, width]`, some for each item: one a token, one a patch
/// or one a position of the last feature map.
#[derive(Debug)]
pub enum Backbone {
    /// BERT and its kin.
    Text(Transformer),
}

impl Backbone {
    /// What it reads.
    pub fn modality(&self) -> Modality {
        match self {
            Backbone::Text(_) => Modality::Text,
        }
    }

    /// Width of its rows.
    pub fn width(&self) -> usize {
        match self {
            Backbone::Text(transformer) => transformer.config.hidden,
        }
    }

    /// Number of layers, or of stages of a convolutional network; `freeze` counts them.
    pub fn layers(&self) -> usize {
        match self {
            Backbone::Text(transformer) => transformer.config.layers,
        }
    }

    /// The largest dropout rate; where it is 0, two views of a text are the same.
    pub fn dropout(&self) -> f32 {
        match self {
            Backbone::Text(transformer) => transformer.config.dropout(),
        }
    }

    /// What its query and value projections are called.
    pub(super) fn query_and_value(&self) -> [&'static str; 2] {
        match self {
            Backbone::Text(transformer) => {
                let names = transformer.config.family.names();
                [names.query, names.value]
            }
        }
    }

    /// What stands before the number of a layer in the names of its tensors.
    pub(super) fn layer_prefix(&self) -> &'static str {
        match self {
            Backbone::Text(transformer) => transformer.config.family.names().layer,
        }
    }

    /// Numbers that a training pass holds of each token where the lowest that learns is at this depth: of every layer from
    /// there on its queries, keys and values, the output of attention, the value between the feed-forward layers and two
    /// normalised rows; and what the backward pass of one layer takes beside.
    pub(crate) fn held(&self, lowest: usize) -> usize {
        match self {
            Backbone::Text(transformer) => {
                let config = &transformer.config;
                let layer = 6 * config.hidden + config.intermediate;
                let layers = (config.layers + 1).saturating_sub(lowest.max(1));
                layers * layer + layer + 2 * config.hidden
            }
        }
    }

    /// The weights of all linear layers.
    pub(super) fn linear_weights(&self) -> Vec<ParameterId> {
        match self {
            Backbone::Text(transformer) => transformer.linear_weights(),
        }
    }

    /// Layers before the last whose rows are to be had, what goes into the first among them.
    pub fn earlier_layers(&self) -> usize {
        match self {
            Backbone::Text(transformer) => transformer.config.layers,
        }
    }

    /// The rows of the last layer and of each of these [`Backbone::earlier_layers`]: see [`Backbone::forward`].
    pub(super) fn forward_layers(
        &self,
        tape: &mut Tape<'_>,
        input: &Input,
        (lora, key): (&Lora, Option<Key>),
        layers: &[usize],
    ) -> Result<(Vec<Var>, Packing)> {
        match (self, input) {
            (Backbone::Text(transformer), Input::Tokens(batch)) => {
                let packing = Packing::new(&batch.offsets, &batch.examples);
                let (last, earlier) = transformer.forward_layers(tape, batch, &packing, (lora, key), layers)?;
                Ok(([last].into_iter().chain(earlier).collect(), packing))
            }
            (backbone, input) => Err(unreadable(backbone.modality(), input.modality())),
        }
    }

    /// Rows, and which of them belong to which item. With a key, dropout is on.
    pub(super) fn forward(
        &self,
        tape: &mut Tape<'_>,
        input: &Input,
        lora: &Lora,
        key: Option<Key>,
    ) -> Result<(Var, Packing)> {
        match (self, input) {
            (Backbone::Text(transformer), Input::Tokens(batch)) => {
                let packing = Packing::new(&batch.offsets, &batch.examples);
                Ok((transformer.forward(tape, batch, &packing, lora, key)?, packing))
            }
            (backbone, input) => Err(unreadable(backbone.modality(), input.modality())),
        }
    }
}

/// The error of a model that cannot read what it is given.
pub(super) fn unreadable(reads: Modality, given: Modality) -> Error {
    let problem =
        format!("reads {}s, but the data holds {}s; take a model that reads both", reads.noun(), given.noun());
    Error::spec("model", problem)
}
