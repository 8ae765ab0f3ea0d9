//! Packed batch to embeddings: a transformer, pooling, and what follows; weights in, weights out.

pub mod alias;
mod cross_encoder;
mod family;
mod freeze;
pub mod hub;
mod interpolate;
mod lora;
mod mini;
pub mod source;
mod text;
mod transformer;
mod weights;

use engine::device::{Activation, Pooling};
use engine::random::Key;
use engine::{Device, Gradients, Packing, ParameterId, Parameters, Tape, Var};

pub use self::cross_encoder::CrossEncoder;
pub use self::family::{Family, TransformerConfig};
pub use self::lora::{LoraOptions, Save, Targets};
pub use self::text::{ModelOptions, Prompts, Role, TextModel};
use self::transformer::Transformer;
use self::weights::{Loader, Origin, Stored};
use crate::artifact::{self, Dense, Layout, ModelFolder, PoolingMode, Step};
use crate::error::{Error, Result};
use crate::tokens::PackedBatch;

/// A tensor as it stands on disk: name, shape, values.
pub type Named<'a> = (&'a str, &'a [usize], &'a [f32]);

/// The same, not part of the parameters.
type OwnedTensor = (String, Vec<usize>, Vec<f32>);

/// A dense step's place in the layout, its weight and its bias.
type DenseIds = (usize, ParameterId, Option<ParameterId>);

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

/// A text encoder: everything between token ids and one embedding per text.
#[derive(Debug)]
pub struct Encoder {
    /// All weights, trainable unless frozen.
    pub parameters: Parameters,
    transformer: Transformer,
    layout: Layout,
    /// Weight and bias of each dense step, by its position in the layout.
    dense: Vec<DenseIds>,
    /// The last dense step, where it is new and its first weights are random.
    new_head: Option<DenseIds>,
    stored: Vec<Stored>,
    depths: Vec<usize>,
    /// BERT's pooler, which no pooling here uses: kept as it came, so that the artifact is complete.
    pooler: Vec<OwnedTensor>,
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
        let origin = match &weights {
            Some(weights) => Origin::Pretrained(weights),
            None => Origin::Random { key, deviation: config.initializer_range },
        };
        let mut loader = Loader::new(origin, config.family.names().prefix);
        let hidden = config.hidden;
        let layers = config.layers;
        let pooler = weights.as_ref().map(|weights| pooler(weights, hidden)).transpose()?.unwrap_or_default();
        let transformer = Transformer::load(config, &mut loader)?;

        let mut layout = model.layout.clone();
        layout.pooling = options.pooling.unwrap_or(layout.pooling);
        let files: Vec<_> = layout
            .steps
            .iter()
            .filter_map(|step| if let Step::Dense(_, folder) = step { Some(folder) } else { None })
            .map(|folder| if options.random { Ok(None) } else { model.files.weights(folder).map(Some) })
            .collect::<Result<_>>()?;
        let mut files = files.iter();
        let mut width = hidden;
        let mut dense = Vec::new();
        loader.at_depth(layers + 1);
        for (position, step) in layout.steps.iter().enumerate() {
            let Step::Dense(module, _) = step else { continue };
            match files.next() {
                Some(Some(weights)) => loader.continue_from(Origin::Pretrained(weights)),
                _ => loader.continue_from(Origin::Random { key, deviation: (1.0 / width as f32).sqrt() }),
            }
            dense.push(load_dense(&mut loader, position, module)?);
            width = module.out_features;
        }
        let mut new_head = None;
        if let Some(output_dim) = options.output_dim {
            // Before a final normalisation, so that its input and not its output is projected.
            let position = match layout.steps.last() {
                Some(Step::Normalise) => layout.steps.len() - 1,
                _ => layout.steps.len(),
            };
            let module = Dense {
                in_features: width,
                out_features: output_dim,
                bias: true,
                activation: artifact::Activation::Identity,
            };
            loader.continue_from(Origin::Random { key: key.part(1), deviation: (1.0 / width as f32).sqrt() });
            layout.steps.insert(position, Step::Dense(module.clone(), String::new()));
            let head = load_dense(&mut loader, position, &module)?;
            dense.push(head);
            new_head = Some(head);
        }
        let Loader { parameters, stored, depths, .. } = loader;
        let mut encoder = Encoder { parameters, transformer, layout, dense, new_head, stored, depths, pooler };
        for adapter in if options.random { &[][..] } else { &model.adapters } {
            let applied = encoder.apply(adapter.changes()?);
            applied.map_err(|problem| Error::model(adapter.folder().display().to_string(), problem))?;
        }
        Ok(encoder)
    }

    /// The transformer's shape.
    pub fn config(&self) -> &TransformerConfig {
        &self.transformer.config
    }

    /// Pooling and what follows.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Width of the embeddings.
    pub fn dimension(&self) -> usize {
        self.layout.output_width(self.transformer.config.hidden)
    }

    /// Embeddings `[sequences, dimension]` of a packed batch. With a key, dropout is on; the same key draws the same
    /// masks for an example in whatever batch it comes.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] for a token id or position outside the model's tables.
    pub fn forward(&self, tape: &mut Tape<'_>, batch: &PackedBatch, dropout: Option<Key>) -> Result<Var> {
        let packing = Packing::new(&batch.offsets, &batch.examples);
        let tokens = self.transformer.forward(tape, batch, &packing, dropout)?;
        let pooling = match self.layout.pooling {
            PoolingMode::Mean => Pooling::Mean,
            PoolingMode::Cls => Pooling::Cls,
            PoolingMode::Max => Pooling::Max,
            PoolingMode::Last => Pooling::Last,
            PoolingMode::Gem { p } => Pooling::Gem { p, eps: 1e-6 },
        };
        let mut x = tape.pool(pooling, &tokens, &packing)?;
        for (position, step) in self.layout.steps.iter().enumerate() {
            x = match step {
                Step::Normalise => tape.normalize(&x)?,
                Step::Dense(module, _) => {
                    let found = self.dense.iter().find(|(at, ..)| *at == position);
                    let &(_, weight, bias) = found.expect("every dense step was loaded (bug)");
                    let (weight, bias) = (tape.parameter(weight), bias.map(|bias| tape.parameter(bias)));
                    let y = tape.linear(&x, &weight, bias.as_ref())?;
                    tape.activation(activation(module.activation), &y)?
                }
            };
        }
        Ok(x)
    }

    /// Token representations `[tokens, hidden]` of the last layer, without dropout.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn tokens(&self, tape: &mut Tape<'_>, batch: &PackedBatch) -> Result<Var> {
        let packing = Packing::new(&batch.offsets, &batch.examples);
        self.transformer.forward(tape, batch, &packing, None)
    }

    /// Embeddings of packed batches for searching: no dropout, nothing recorded. Row `i` of the result belongs to
    /// example `i` of the batches.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn embed(
        &self,
        device: &dyn Device,
        batches: impl IntoIterator<Item = PackedBatch>,
        examples: usize,
    ) -> Result<Vec<f32>> {
        let width = self.dimension();
        let mut embeddings = vec![0.0; examples * width];
        for batch in batches {
            let mut tape = Tape::inference(device, &self.parameters);
            let rows = self.forward(&mut tape, &batch, None)?;
            for (&example, row) in batch.examples.iter().zip(rows.value().data().chunks_exact(width)) {
                embeddings[example as usize * width..][..width].copy_from_slice(row);
            }
        }
        Ok(embeddings)
    }

    /// The transformer's tensors as they stand on disk: name, shape, values.
    pub fn weights(&self) -> Vec<Named<'_>> {
        let own = self.stored.iter().filter(|stored| !self.is_dense(stored.parameter));
        let own = own.map(|stored| (stored.name.as_str(), &stored.shape[..], stored.values(&self.parameters)));
        own.chain(self.pooler.iter().map(|(name, shape, values)| (name.as_str(), &shape[..], &values[..]))).collect()
    }

    /// The tensors of each dense step: its position in the layout and name, shape, values.
    pub fn dense_weights(&self) -> Vec<(usize, Vec<Named<'_>>)> {
        let of = |id: ParameterId| {
            let stored = self.stored.iter().find(|stored| stored.parameter == id).expect("a stored parameter (bug)");
            (stored.name.as_str(), &stored.shape[..], stored.values(&self.parameters))
        };
        let steps = self.dense.iter();
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
        self.dense.iter().any(|&(_, weight, bias)| weight == id || bias == Some(id))
    }
}

fn load_dense(loader: &mut Loader<'_>, position: usize, module: &Dense) -> Result<DenseIds> {
    let weight = loader.matrix(&["linear.weight".into()], module.out_features, module.in_features)?;
    let bias = match module.bias {
        true => Some(loader.vector(&["linear.bias".into()], module.out_features, 0.0)?),
        false => None,
    };
    Ok((position, weight, bias))
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

fn activation(activation: artifact::Activation) -> Activation {
    match activation {
        artifact::Activation::Identity => Activation::Identity,
        artifact::Activation::Tanh => Activation::Tanh,
        artifact::Activation::Relu => Activation::Relu,
        artifact::Activation::Gelu => Activation::Gelu,
        artifact::Activation::Sigmoid => Activation::Sigmoid,
    }
}
