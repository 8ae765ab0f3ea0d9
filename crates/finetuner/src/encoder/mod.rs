//! Packed batch to embeddings: a backbone, pooling, and what follows; weights in, weights out.

pub mod alias;
mod backbone;
mod cross_encoder;
mod family;
mod freeze;
pub mod hub;
mod input;
mod interpolate;
mod lora;
mod mini;
mod model;
mod preprocessor;
pub mod source;
mod tower;
mod transformer;
mod weights;

use engine::random::Key;
use engine::{Device, Gradients, Packing, ParameterId, Parameters, Tape, Var};

pub use self::backbone::Backbone;
pub use self::cross_encoder::CrossEncoder;
pub use self::family::{Family, TransformerConfig};
pub use self::input::Input;
use self::lora::Lora;
pub use self::lora::{LoraOptions, Save, Targets};
pub use self::model::{Model, ModelOptions, Prompts, Role};
pub use self::preprocessor::{Prepared, Preprocessor};
pub use self::tower::Tower;
pub use self::transformer::Transformer;
use self::weights::{Loader, Origin, Stored};
use crate::artifact::{self, ModelFolder, PoolingMode, Step};
use crate::data::Modality;
use crate::error::{Error, Result};
use crate::tokens::PackedBatch;

/// A tensor as it stands on disk: name, shape, values.
pub type Named<'a> = (&'a str, &'a [usize], &'a [f32]);

/// The same, not part of the parameters.
type OwnedTensor = (String, Vec<usize>, Vec<f32>);

/// How an encoder is built from a model's files.
#[derive(Debug, Clone, Default)]
pub struct EncoderOptions {
    /// Instead of the model's own pooling.
    pub pooling: Option<PoolingMode>,
    /// Width of a new projection head after pooling.
    pub output_dim: Option<usize>,
    /// Random weights of the model's shape instead of its own.
    pub random: bool,
    /// Seed of random weights, also of a new head.
    pub seed: u64,
}

/// Everything between packed items and one embedding an item: a tower for texts, one for pictures, or both.
#[derive(Debug)]
pub struct Encoder {
    /// All weights, trainable unless frozen.
    pub parameters: Parameters,
    /// At most one of a modality, texts first.
    towers: Vec<Tower>,
    lora: Lora,
    stored: Vec<Stored>,
    depths: Vec<usize>,
}

impl Encoder {
    /// Builds the encoder of a model.
    ///
    /// # Errors
    /// [`crate::Error::Model`] for an unknown family, a missing tensor or one of another shape.
    pub fn open(model: &ModelFolder, options: &EncoderOptions) -> Result<Self> {
        let config = TransformerConfig::read(&model.files.name(), &model.config)?;
        let key = Key::new(options.seed).part(0x1417);
        let weights = if options.random { None } else { Some(model.weights()?) };
        let dense: Vec<_> = model
            .layout
            .steps
            .iter()
            .filter_map(|step| if let Step::Dense(_, folder) = step { Some(folder) } else { None })
            .map(|folder| if options.random { Ok(None) } else { model.files.weights(folder).map(Some) })
            .collect::<Result<_>>()?;
        let origin = match &weights {
            Some(weights) => Origin::Pretrained(weights),
            None => Origin::Random { key, deviation: config.initializer_range },
        };
        let mut loader = Loader::new(origin, config.family.names().prefix);
        let pooler = weights.as_ref().map(|weights| pooler(weights, config.hidden)).transpose()?.unwrap_or_default();
        let transformer = Backbone::Text(Transformer::load(config, &mut loader)?);
        let tower = Tower::open(transformer, pooler, model, options, key, (&mut loader, &dense))?;
        let Loader { parameters, stored, depths, .. } = loader;
        let mut encoder = Encoder { parameters, towers: vec![tower], lora: Lora::default(), stored, depths };
        for adapter in if options.random { &[][..] } else { &model.adapters } {
            let applied = encoder.apply(adapter.changes()?);
            applied.map_err(|problem| Error::model(adapter.folder().display().to_string(), problem))?;
        }
        Ok(encoder)
    }

    /// The towers, that of texts first.
    pub fn towers(&self) -> &[Tower] {
        &self.towers
    }

    /// The tower that reads items of a modality.
    ///
    /// # Errors
    /// [`Error::Spec`] if there is none.
    pub fn tower(&self, modality: Modality) -> Result<&Tower> {
        let tower = self.towers.iter().find(|tower| tower.modality() == modality);
        tower.ok_or_else(|| backbone::unreadable(self.towers[0].modality(), modality))
    }

    /// The tower of texts, or of pictures where no texts are read.
    pub fn main_tower(&self) -> &Tower {
        &self.towers[0]
    }

    /// The layers of the deepest tower.
    pub fn layers(&self) -> usize {
        self.towers.iter().map(|tower| tower.backbone().layers()).max().unwrap_or_default()
    }

    /// Width of the embeddings.
    pub fn dimension(&self) -> usize {
        self.main_tower().dimension()
    }

    /// Embeddings `[items, dimension]` of a packed batch. With a key, dropout is on; the same key draws the same
    /// masks for an example in whatever batch it comes.
    ///
    /// # Errors
    /// [`Error::Spec`] for items that the model does not read, [`crate::Error::Engine`] for a token id or position outside
    /// the model's tables.
    pub fn forward(&self, tape: &mut Tape<'_>, input: &Input, dropout: Option<Key>) -> Result<Var> {
        self.forward_layers(tape, input, dropout, &[])
    }

    /// As [`Encoder::forward`], with the embeddings that pooling and what follows make of these earlier layers to the
    /// right of the last one's: `[items, (1 + layers) dimension]`. Layer 0 is what goes into the first one.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn forward_layers(
        &self,
        tape: &mut Tape<'_>,
        input: &Input,
        dropout: Option<Key>,
        layers: &[usize],
    ) -> Result<Var> {
        self.tower(input.modality())?.forward(tape, input, (&self.lora, dropout), layers)
    }

    /// Token representations `[tokens, hidden]` of the last layer, without dropout.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn tokens(&self, tape: &mut Tape<'_>, batch: &PackedBatch) -> Result<Var> {
        match self.tower(Modality::Text)?.backbone() {
            Backbone::Text(transformer) => {
                let packing = Packing::new(&batch.offsets, &batch.examples);
                transformer.forward(tape, batch, &packing, &self.lora, None)
            }
        }
    }

    /// Embeddings of packed batches for searching: no dropout, nothing recorded. Row `i` of the result belongs to
    /// example `i` of the batches.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn embed(
        &self,
        device: &dyn Device,
        batches: impl IntoIterator<Item = Input>,
        examples: usize,
    ) -> Result<Vec<f32>> {
        let width = self.dimension();
        let mut embeddings = vec![0.0; examples * width];
        for batch in batches {
            let mut tape = Tape::inference(device, &self.parameters);
            let rows = self.forward(&mut tape, &batch, None)?;
            for (&example, row) in batch.examples().iter().zip(rows.value().data().chunks_exact(width)) {
                embeddings[example as usize * width..][..width].copy_from_slice(row);
            }
        }
        Ok(embeddings)
    }

    /// The backbones' tensors as they stand on disk: name, shape, values.
    pub fn weights(&self) -> Vec<Named<'_>> {
        let own = self.stored.iter().filter(|stored| !self.is_dense(stored.parameter));
        let own = own.map(|stored| (stored.name.as_str(), &stored.shape[..], stored.values(&self.parameters)));
        let unused = self.towers.iter().flat_map(|tower| &tower.unused);
        own.chain(unused.map(|(name, shape, values)| (name.as_str(), &shape[..], &values[..]))).collect()
    }

    /// The tensors of each dense step of a tower: its position in the layout and name, shape, values.
    pub fn dense_weights(&self, tower: &Tower) -> Vec<(usize, Vec<Named<'_>>)> {
        let of = |id: ParameterId| {
            let stored = self.stored.iter().find(|stored| stored.parameter == id).expect("a stored parameter (bug)");
            (stored.name.as_str(), &stored.shape[..], stored.values(&self.parameters))
        };
        let steps = tower.dense.iter();
        steps.map(|&(position, weight, bias)| (position, [weight].into_iter().chain(bias).map(of).collect())).collect()
    }

    /// Gradients under their names on disk, for comparison with other implementations.
    pub fn named_gradients<'a>(&'a self, gradients: &'a Gradients) -> impl Iterator<Item = (&'a str, &'a [f32])> {
        self.stored.iter().filter_map(|stored| Some((stored.name.as_str(), stored.gradient(gradients)?)))
    }

    /// For each parameter how far it lies from the input: 0 embeddings, 1… the layers, then the head.
    pub fn depths(&self) -> &[usize] {
        &self.depths
    }

    fn is_dense(&self, id: ParameterId) -> bool {
        self.towers.iter().any(|tower| tower.is_dense(id))
    }
}

/// BERT's and RoBERTa's pooler, under its plain name.
fn pooler(weights: &artifact::Weights, hidden: usize) -> Result<Vec<OwnedTensor>> {
    let mut found = Vec::new();
    for (name, shape) in [("pooler.dense.weight", vec![hidden, hidden]), ("pooler.dense.bias", vec![hidden])] {
        let on_disk = weights.names().find(|known| known.ends_with(name)).map(str::to_owned);
        if let Some(on_disk) = on_disk {
            found.push((name.to_owned(), shape.clone(), weights.tensor(&on_disk, &shape)?));
        }
    }
    Ok(found)
}
