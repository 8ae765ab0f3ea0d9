//! What turns an item into rows: a transformer over tokens, a network over pixels, or a perceptron over vectors.

use engine::random::Key;
use engine::{Packing, ParameterId, Tape, Var};

use super::image::ImageBackbone;
use super::input::Input;
use super::layers::{Layers, Rows};
use super::lora::Lora;
use super::perceptron::Perceptron;
use super::transformer::Transformer;
use crate::data::Modality;
use crate::error::{Error, Result};

/// The network below pooling. Its last layer gives rows `[rows, width]`, some for each item: one a token, one a patch,
/// one a position of the last feature map, or the only one of a vector.
#[derive(Debug)]
pub enum Backbone {
    /// BERT and its kin, the text towers of CLIP.
    Text(Transformer),
    /// Vision transformers and convolutional networks.
    Image(ImageBackbone),
    /// A perceptron.
    Vectors(Perceptron),
}

impl Backbone {
    /// What it reads.
    pub fn modality(&self) -> Modality {
        match self {
            Backbone::Text(_) => Modality::Text,
            Backbone::Image(_) => Modality::Image,
            Backbone::Vectors(_) => Modality::Vector,
        }
    }

    /// Width of its rows.
    pub fn width(&self) -> usize {
        match self {
            Backbone::Text(transformer) => transformer.config.hidden,
            Backbone::Image(network) => network.width(),
            Backbone::Vectors(perceptron) => perceptron.config.width(),
        }
    }

    /// Number of layers, or of stages of a convolutional network; `freeze` counts them.
    pub fn layers(&self) -> usize {
        match self {
            Backbone::Text(transformer) => transformer.config.layers,
            Backbone::Image(network) => network.layers(),
            Backbone::Vectors(perceptron) => perceptron.config.layers(),
        }
    }

    /// The largest dropout rate; where it is 0, two views of a text are the same.
    pub fn dropout(&self) -> f32 {
        match self {
            Backbone::Text(transformer) => transformer.config.dropout(),
            Backbone::Image(network) => network.dropout(),
            Backbone::Vectors(_) => 0.0,
        }
    }

    /// What its query and value projections are called; nothing where it has none.
    pub(super) fn query_and_value(&self) -> Vec<String> {
        self.stack().map(|layers| layers.names.query_and_value()).unwrap_or_default()
    }

    /// What stands before the number of a layer in the names of its tensors.
    pub(super) fn layer_prefix(&self) -> &'static str {
        self.stack().map_or("", |layers| layers.names.layers)
    }

    /// Numbers that a training pass holds of each token (each patch of 16 x 16 pixels) where the lowest that learns is at this
    /// depth: of every layer from there on its queries, keys and values, the output of attention, the value between the
    /// feed-forward layers and two normalised rows, the last ones only of rows that are read; and what the backward pass of one
    /// layer takes beside.
    pub(super) fn held(&self, lowest: usize, read: Rows) -> usize {
        if let Backbone::Vectors(perceptron) = self {
            return perceptron.config.held();
        }
        match self.stack() {
            Some(layers) => {
                let config = &layers.config;
                let after = 2 * config.hidden + config.intermediate * if config.gated { 6 } else { 1 };
                let layer = 4 * config.hidden + after;
                let layers = (config.layers + 1).saturating_sub(lowest.max(1));
                let unread = if layers > 0 && read != Rows::All { after } else { 0 };
                layers * layer - unread + layer + 2 * config.hidden
            }
            // Maps before and after every norm: about this many numbers a pixel in ResNet-50 and its like.
            None => 256 * 250,
        }
    }

    /// The weights of all linear layers that adapters may take.
    pub(super) fn linear_weights(&self) -> Vec<ParameterId> {
        self.stack().map(Layers::linear_weights).unwrap_or_default()
    }

    /// The transformer layers, where it has them.
    fn stack(&self) -> Option<&Layers> {
        match self {
            Backbone::Text(transformer) => Some(&transformer.layers),
            Backbone::Image(network) => network.layers_of_transformer(),
            Backbone::Vectors(_) => None,
        }
    }

    /// Layers before the last whose rows are to be had, what goes into the first among them.
    pub fn earlier_layers(&self) -> usize {
        match self {
            Backbone::Text(transformer) => transformer.config.layers,
            Backbone::Image(_) | Backbone::Vectors(_) => 0,
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
                let (last, earlier, packing) = transformer.forward_layers(tape, batch, (lora, key), layers)?;
                Ok(([last].into_iter().chain(earlier).collect(), packing))
            }
            (Backbone::Image(network), Input::Pixels(batch)) if layers.is_empty() => {
                let (rows, packing) = network.forward(tape, batch, Rows::All, (lora, key))?;
                Ok((vec![rows], packing))
            }
            (Backbone::Vectors(perceptron), Input::Vectors(batch)) if layers.is_empty() => {
                let (rows, packing) = perceptron.forward(tape, batch)?;
                Ok((vec![rows], packing))
            }
            (Backbone::Image(_), Input::Pixels(_)) | (Backbone::Vectors(_), Input::Vectors(_)) => {
                Err(Error::spec("loss", "earlier layers are learnt from in transformers of texts only"))
            }
            (backbone, input) => Err(unreadable(backbone.modality(), input.modality())),
        }
    }

    /// Rows, and which of them belong to which item; a transformer computes only those that are asked for. With a key it is
    /// training: dropout is on, and batch norms take the statistics of the batch.
    pub(super) fn forward(
        &self,
        tape: &mut Tape<'_>,
        input: &Input,
        rows: Rows,
        (lora, key): (&Lora, Option<Key>),
    ) -> Result<(Var, Packing)> {
        match (self, input) {
            (Backbone::Text(transformer), Input::Tokens(batch)) => transformer.forward(tape, batch, rows, (lora, key)),
            (Backbone::Image(network), Input::Pixels(batch)) => network.forward(tape, batch, rows, (lora, key)),
            (Backbone::Vectors(perceptron), Input::Vectors(batch)) => perceptron.forward(tape, batch),
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
