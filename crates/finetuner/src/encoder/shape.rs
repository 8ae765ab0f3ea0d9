//! What a model's configuration describes: a text encoder, an image encoder, both in one checkpoint, or a perceptron over
//! vectors.

use super::backbone::Backbone;
use super::clip::{CLIP_TYPES, Clip, ClipConfig, ClipVisionConfig};
use super::family::{Family, TransformerConfig};
use super::image::{IMAGE_TYPES, ImageBackbone, ImageConfig};
use super::perceptron::{Perceptron, PerceptronConfig};
use super::projection::Projection;
use super::source::MLP;
use super::transformer::Transformer;
use super::weights::Loader;
use crate::artifact::{CLIP_VISION, ModelFolder, PoolingMode, Weights};
use crate::data::Modality;
use crate::error::{Error, Result, nearest};

/// The shape of an encoder, before its weights.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Text(TransformerConfig),
    Image(ImageConfig),
    Both(Box<ClipConfig>),
    /// The image tower of a CLIP.
    ClipVision(Box<ClipVisionConfig>),
    Vectors(PerceptronConfig),
}

/// What a tower is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) backbone: Backbone,
    /// Where nobody names another.
    pub(super) pooling: PoolingMode,
    /// What CLIP does after pooling, and how wide that is.
    pub(super) projection: Option<(Projection, usize)>,
}

impl Shape {
    /// Reads a model's configuration; some names of tensors decide what it does not say.
    ///
    /// # Errors
    /// [`Error::Model`] for an unknown kind, with the nearest known one, a number that is missing or out of range, or a variant
    /// that is not implemented.
    pub(super) fn read(model: &ModelFolder, weights: Option<&Weights>) -> Result<Self> {
        let (name, config) = (model.files.name(), &model.config);
        let has = |tensor: &str| weights.is_some_and(|weights| weights.info(tensor).is_some());
        if let Some(both) = ClipConfig::read(&model.files, config)? {
            return Ok(Shape::Both(Box::new(both)));
        }
        if let Some(vision) = ClipVisionConfig::read(&name, config)? {
            return Ok(Shape::ClipVision(Box::new(vision)));
        }
        if let Some(image) = ImageConfig::read(&name, config, &has)? {
            return Ok(Shape::Image(image));
        }
        let kind = config["model_type"].as_str().unwrap_or("(missing)");
        if kind == MLP {
            return PerceptronConfig::read(&name, config).map(Shape::Vectors);
        }
        if !Family::MODEL_TYPES.contains(&kind) {
            let known = Family::MODEL_TYPES.into_iter().chain(IMAGE_TYPES).chain(CLIP_TYPES).chain([CLIP_VISION]);
            let hint = nearest(kind, known);
            return Err(Error::model(name, format!("`model_type` is `{kind}`{hint}")));
        }
        TransformerConfig::read(&name, config).map(Shape::Text)
    }

    /// What task checkpoints put before every name.
    pub(super) fn prefix(&self) -> &'static str {
        match self {
            Shape::Text(config) => config.family.names().prefix,
            Shape::Image(config) => config.prefix(),
            Shape::Both(_) | Shape::ClipVision(_) | Shape::Vectors(_) => "",
        }
    }

    /// Whether it reads pictures and nothing else.
    pub(super) fn is_of_pictures(&self) -> bool {
        matches!(self, Shape::Image(_) | Shape::ClipVision(_))
    }

    /// Standard deviation of random initial weights.
    pub(super) fn initializer_range(&self) -> f32 {
        match self {
            Shape::Text(config) => config.initializer_range,
            Shape::Image(config) => config.initializer_range(),
            Shape::Both(config) => config.vision.initializer_range,
            Shape::ClipVision(config) => config.vision.initializer_range,
            Shape::Vectors(_) => 0.02, // layers take their own
        }
    }

    /// Loads a tower of texts, one of pictures, or both, texts first; or one of vectors.
    pub(super) fn load(self, loader: &mut Loader<'_>) -> Result<Vec<Parts>> {
        match self {
            Shape::Text(config) => {
                let backbone = Backbone::Text(Transformer::load(config, loader)?);
                // BERT's pooler, which no pooling here uses.
                loader.keep("pooler.dense.weight")?;
                loader.keep("pooler.dense.bias")?;
                Ok(vec![Parts { backbone, pooling: PoolingMode::Mean, projection: None }])
            }
            Shape::Image(config) => {
                loader.of_tower(Modality::Image);
                let network = ImageBackbone::load(&config, loader)?;
                let pooling = network.pooling();
                Ok(vec![Parts { backbone: Backbone::Image(network), pooling, projection: None }])
            }
            Shape::Vectors(config) => {
                loader.of_tower(Modality::Vector);
                let backbone = Backbone::Vectors(Perceptron::load(config, loader)?);
                Ok(vec![Parts { backbone, pooling: PoolingMode::Mean, projection: None }])
            }
            Shape::ClipVision(config) => {
                let width = config.width;
                let (image, projection) = config.load(loader)?;
                let backbone = Backbone::Image(ImageBackbone::from(image));
                Ok(vec![Parts { backbone, pooling: PoolingMode::Cls, projection: Some((projection, width)) }])
            }
            Shape::Both(config) => {
                let (pooling, width) = (config.text_pooling, config.width);
                let Clip { text, text_projection, image, image_projection } = Clip::load(*config, loader)?;
                let image = Backbone::Image(ImageBackbone::from(image));
                let text = Backbone::Text(text);
                Ok(vec![
                    Parts { backbone: text, pooling, projection: Some((text_projection, width)) },
                    Parts { backbone: image, pooling: PoolingMode::Cls, projection: Some((image_projection, width)) },
                ])
            }
        }
    }
}
