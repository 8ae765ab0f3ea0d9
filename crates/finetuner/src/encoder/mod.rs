//! Packed batch to embeddings: a backbone, pooling, and what follows; weights in, weights out.

pub mod alias;
mod backbone;
mod clip;
mod config;
mod cross_encoder;
mod family;
mod freeze;
pub mod hub;
mod image;
mod input;
mod interpolate;
mod layers;
mod lora;
mod mini;
mod model;
mod perceptron;
mod preprocessor;
mod projection;
mod shape;
pub mod source;
mod tower;
mod transformer;
mod weights;

use std::collections::{BTreeMap, HashMap};

use engine::random::Key;
use engine::{Device, Gradients, ParameterId, Parameters, Tape, Tensor, Var};

pub use self::backbone::Backbone;
pub use self::cross_encoder::CrossEncoder;
pub use self::family::{Family, TransformerConfig};
pub use self::image::ImageBackbone;
pub use self::input::Input;
use self::layers::Rows;
use self::lora::Lora;
pub use self::lora::{LoraOptions, Save, Targets};
pub use self::model::{Model, ModelOptions, Prompts, Role};
pub(crate) use self::perceptron::untrained;
pub use self::perceptron::{Perceptron, VectorBatch};
pub use self::preprocessor::{Prepared, Preprocessor, Wanted};
use self::shape::Shape;
pub use self::tower::Tower;
pub use self::transformer::Transformer;
use self::weights::{Loader, Origin, Stored};
use crate::artifact::{Layout, ModelFolder, PoolingMode, Step, Weights};
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
    /// The same of the pictures of a joined pair only, whose weights are not read then.
    pub random_pictures: bool,
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
    /// For each parameter what its tower reads.
    modalities: Vec<Modality>,
    /// Tensors that nothing here uses, such as BERT's pooler: kept as they came, so that the artifact is complete; and their folders.
    unused: Vec<(usize, OwnedTensor)>,
}

impl Encoder {
    /// Builds the encoder of a model.
    ///
    /// # Errors
    /// [`crate::Error::Model`] for an unknown family, a missing tensor or one of another shape.
    pub fn open(model: &ModelFolder, options: &EncoderOptions) -> Result<Self> {
        let key = Key::new(options.seed).part(0x1417);
        let main = Files::open(model, options)?;
        let mut loader = Loader::new(main.origin(key), main.shape.prefix());
        let mut towers = main.towers(options, key, &mut loader)?;
        let own =
            EncoderOptions { random: options.random || options.random_pictures, pooling: None, ..options.clone() };
        let pictures = model.pictures.as_deref().map(|pictures| Files::open(pictures, &own)).transpose()?;
        if let Some(pictures) = &pictures {
            let key = key.part(0x7069_6373);
            loader.next_folder(pictures.origin(key), pictures.shape.prefix());
            let own = EncoderOptions { output_dim: pictures.projection_to(&towers)?, ..own };
            towers.extend(pictures.towers(&own, key, &mut loader)?);
        }
        let Loader { parameters, stored, depths, modalities, kept: unused, .. } = loader;
        let mut encoder = Encoder { parameters, towers, lora: Lora::default(), stored, depths, modalities, unused };
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
        let input = Input::Tokens(batch.clone());
        let backbone = self.tower(Modality::Text)?.backbone();
        backbone.forward(tape, &input, Rows::All, (&self.lora, None)).map(|(rows, _)| rows)
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
            for (&example, row) in batch.examples().iter().zip(tape.read(&rows)?.chunks_exact(width)) {
                embeddings[example as usize * width..][..width].copy_from_slice(row);
            }
        }
        Ok(embeddings)
    }

    /// The backbones' tensors as they stand on disk: name, shape, values. `folder` is 0, or 1 for the pictures of a joined
    /// pair.
    pub fn weights(&self, folder: usize) -> Vec<Named<'_>> {
        let own = self.stored.iter().filter(|stored| stored.folder == folder && !self.is_dense(stored.parameter));
        let own = own.map(|stored| (stored.name.as_str(), &stored.shape[..], stored.values(&self.parameters)));
        let unused = self.unused.iter().filter(|(own, _)| *own == folder);
        own.chain(unused.map(|(_, (name, shape, values))| (name.as_str(), &shape[..], &values[..]))).collect()
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

    /// Takes over what parameters without a gradient became in a step: the mean of what each micro-batch says of a running
    /// statistic.
    pub fn settle(&mut self, observed: Vec<(ParameterId, Tensor)>) {
        let mut sums: BTreeMap<usize, (ParameterId, Vec<f64>, usize)> = BTreeMap::new();
        let places: HashMap<ParameterId, usize> = self.parameters.ids().enumerate().map(|(at, id)| (id, at)).collect();
        for (id, value) in observed {
            let (_, sum, count) = sums.entry(places[&id]).or_insert((id, vec![0.0; value.len()], 0));
            sum.iter_mut().zip(value.data()).for_each(|(sum, value)| *sum += f64::from(*value));
            *count += 1;
        }
        for (id, sum, count) in sums.into_values() {
            let values = self.parameters.get_mut(id).value.data_mut();
            values.iter_mut().zip(sum).for_each(|(value, sum)| *value = (sum / count as f64) as f32);
        }
    }

    /// For each parameter how far it lies from the input: 0 embeddings, 1… the layers, then the head.
    pub fn depths(&self) -> &[usize] {
        &self.depths
    }

    /// The same, counted so that the heads of all towers lie equally far: what is rated by its distance from the top is
    /// rated by that of its own tower.
    pub fn levelled_depths(&self) -> Vec<usize> {
        let top = |modality| {
            let own = self.depths.iter().zip(&self.modalities).filter(move |(_, own)| **own == modality);
            own.map(|(depth, _)| *depth).max().unwrap_or_default()
        };
        let tops = Modality::ALL.map(|modality| (modality, top(modality)));
        let highest = tops.iter().map(|(_, top)| *top).max().unwrap_or_default();
        let missing = |modality| tops.iter().find(|(own, _)| *own == modality).map_or(0, |(_, top)| highest - top);
        self.depths.iter().zip(&self.modalities).map(|(depth, modality)| depth + missing(*modality)).collect()
    }

    /// For each parameter what its tower reads.
    pub fn modalities(&self) -> &[Modality] {
        &self.modalities
    }

    /// Pooling and what follows in a tower, with the power of `gem` as it was learnt.
    pub fn layout(&self, tower: &Tower) -> Layout {
        let mut layout = tower.layout().clone();
        if let (PoolingMode::Gem { p, .. }, Some(power)) = (&mut layout.pooling, tower.power) {
            *p = self.parameters.get(power).value.data()[0];
        }
        layout
    }

    fn is_head(&self, id: ParameterId) -> bool {
        self.towers.iter().any(|tower| tower.is_head(id))
    }

    fn is_dense(&self, id: ParameterId) -> bool {
        self.towers.iter().any(|tower| tower.is_dense(id))
    }
}

/// The files of a model, opened.
struct Files<'a> {
    model: &'a ModelFolder,
    shape: Shape,
    /// `None` for random weights.
    weights: Option<Weights>,
    /// Those of each dense module.
    dense: Vec<Option<Weights>>,
}

impl<'a> Files<'a> {
    fn open(model: &'a ModelFolder, options: &EncoderOptions) -> Result<Self> {
        let random = options.random || model.untrained;
        let weights = if random { None } else { Some(model.weights()?) };
        let shape = Shape::read(model, weights.as_ref())?;
        let folders = model.layout.steps.iter();
        let folders = folders.filter_map(|step| if let Step::Dense(_, folder) = step { Some(folder) } else { None });
        let dense = folders.map(|folder| if random { Ok(None) } else { model.files.weights(folder).map(Some) });
        Ok(Files { model, shape, dense: dense.collect::<Result<_>>()?, weights })
    }

    fn origin(&self, key: Key) -> Origin<'_> {
        match &self.weights {
            Some(weights) => Origin::Pretrained(weights),
            None => Origin::Random { key, deviation: self.shape.initializer_range() },
        }
    }

    fn towers<'f>(&'f self, options: &EncoderOptions, key: Key, loader: &mut Loader<'f>) -> Result<Vec<Tower>> {
        let parts = self.shape.clone().load(loader)?;
        if options.pooling.is_some() && parts.iter().any(|parts| parts.projection.is_some()) {
            let problem = "the towers of `MODEL` pool in their own ways; leave it out";
            return Err(Error::spec("pooling", problem.replace("MODEL", &self.model.files.name())));
        }
        if parts.len() > 1 && (options.output_dim.is_some() || !self.dense.is_empty()) {
            let problem =
                "both towers embed into one space by projections of their own; they take no further dense layers";
            return Err(Error::model(self.model.files.name(), problem));
        }
        parts.into_iter().map(|parts| Tower::open(parts, self.model, options, key, (loader, &self.dense))).collect()
    }

    /// The width of a new head that joins pictures to the texts of another model; `None` where they have one already.
    fn projection_to(&self, towers: &[Tower]) -> Result<Option<usize>> {
        let [texts] = towers else {
            let problem = "reads pictures already; leave `image_model` out";
            return Err(Error::spec("model", problem));
        };
        if texts.modality() != Modality::Text || !self.shape.is_of_pictures() {
            let problem = "joins a model of texts (`model`) with a model of pictures (`image_model`)";
            return Err(Error::spec("image_model", problem));
        }
        let own = self.model.layout.steps.iter().rev().find_map(|step| match step {
            Step::Dense(module, _) => Some(module.out_features),
            Step::Normalise => None,
        });
        let own = own.or(match &self.shape {
            Shape::ClipVision(config) => Some(config.width),
            _ => None,
        });
        Ok(Some(texts.dimension()).filter(|width| own != Some(*width)))
    }
}
