//! Pixel batch to rows: the encoders of pictures.
//!
//! - [`vit`]: vision transformers; [`vit_config`] reads their shapes, [`patches`] cuts pictures, [`attention_pool`] is
//!   SigLIP's pooling
//! - [`convolution`]: the parts of convolutional networks: [`resnet`], [`inverted`] (MobileNetV2, EfficientNet),
//!   [`squeezenet`], and [`graph`], which is read from a list of operations

mod attention_pool;
mod convolution;
mod graph;
mod inverted;
mod patches;
mod resnet;
mod squeezenet;
mod vit;
mod vit_config;

use engine::random::Key;
use engine::{Map, Packing, Tape, Tensor, Var};
use serde_json::Value;

use self::convolution::Features;
use self::graph::{Graph, GraphConfig};
use self::inverted::{InvertedConfig, InvertedNetwork};
use self::resnet::{ResNet, ResNetConfig};
use self::squeezenet::SqueezeNet;
pub(crate) use self::vit::VisionTransformer;
pub(crate) use self::vit_config::VisionConfig;
use super::layers::{Layers, Rows};
use super::lora::Lora;
use super::weights::Loader;
use crate::artifact::PoolingMode;
use crate::error::{Error, Result, nearest};
use crate::pixels::PixelBatch;

/// Everything of a picture's encoder before pooling.
#[derive(Debug)]
pub struct ImageBackbone {
    network: Network,
}

#[derive(Debug)]
enum Network {
    Vision(Box<VisionTransformer>),
    ResNet(ResNet),
    Inverted(InvertedNetwork),
    SqueezeNet(SqueezeNet),
    Graph(Graph),
}

/// The shape of an image encoder, read from `config.json`.
#[derive(Debug, Clone)]
pub(crate) enum ImageConfig {
    Vision(Box<VisionConfig>),
    ResNet(ResNetConfig),
    Inverted(InvertedConfig),
    SqueezeNet,
    Graph(GraphConfig),
}

/// Every `model_type` of transformers that is an image encoder here.
pub(crate) const IMAGE_TYPES: [&str; 5] = ["vit", "deit", "dinov2", "dinov2_with_registers", "resnet"];

/// Every `architecture` that is known, a name of timm or torchvision; sizes vary.
const ARCHITECTURES: [&str; 13] = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet20",
    "resnet56",
    "mobilenet_v2",
    "mobilenetv2_100",
    "efficientnet_b0",
    "tf_efficientnet_b0",
    "squeezenet1_0",
    "vit_base_patch16_224",
];

impl ImageConfig {
    /// Reads the configuration of transformers (`model_type`), or one that names an `architecture` as timm's do; `None`
    /// where it does neither. `has` says whether the checkpoint has a tensor.
    ///
    /// # Errors
    /// [`Error::Model`] for an unknown architecture, a number that is missing or out of range, or a variant that is not
    /// implemented.
    pub(crate) fn read(model: &str, config: &Value, has: &dyn Fn(&str) -> bool) -> Result<Option<Self>> {
        let vision = |config: VisionConfig| ImageConfig::Vision(Box::new(config));
        let Some(architecture) = config["architecture"].as_str() else {
            return match config["model_type"].as_str() {
                Some("vit" | "deit" | "dinov2" | "dinov2_with_registers") => {
                    VisionConfig::hugging_face(model, config).map(vision).map(Some)
                }
                Some("resnet") => ResNetConfig::transformers(model, config).map(ImageConfig::ResNet).map(Some),
                _ => Ok(None),
            };
        };
        let starts = |start: &str| architecture.starts_with(start);
        let found = if starts("vit_") {
            vision(VisionConfig::timm(model, config, has("blocks.0.ls1.gamma"))?)
        } else if starts("resnet") {
            ImageConfig::ResNet(ResNetConfig::named(model, config)?)
        } else if ["mobilenet", "efficientnet_b", "tf_efficientnet_b"].into_iter().any(starts) {
            ImageConfig::Inverted(InvertedConfig::read(model, config, has)?)
        } else if architecture == "squeezenet1_0" {
            ImageConfig::SqueezeNet
        } else if architecture == "graph" {
            ImageConfig::Graph(GraphConfig::read(model, config)?)
        } else {
            let hint = nearest(architecture, ARCHITECTURES);
            return Err(Error::model(model, format!("`architecture` is `{architecture}`{hint}")));
        };
        Ok(Some(found))
    }

    /// What task checkpoints of its library put before every name.
    pub(crate) fn prefix(&self) -> &'static str {
        match self {
            ImageConfig::Vision(config) => config.names.prefix,
            ImageConfig::ResNet(config) => config.prefix(),
            _ => "",
        }
    }

    /// Standard deviation of random initial weights.
    pub(crate) fn initializer_range(&self) -> f32 {
        match self {
            ImageConfig::Vision(config) => config.initializer_range,
            _ => 0.02, // filters take their own
        }
    }
}

impl ImageBackbone {
    pub(crate) fn load(config: &ImageConfig, loader: &mut Loader<'_>) -> Result<Self> {
        let network = match config {
            ImageConfig::Vision(config) => {
                Network::Vision(Box::new(VisionTransformer::load((**config).clone(), loader)?))
            }
            ImageConfig::ResNet(config) => Network::ResNet(ResNet::load(config.clone(), loader)?),
            ImageConfig::Inverted(config) => Network::Inverted(InvertedNetwork::load(config.clone(), loader)?),
            ImageConfig::SqueezeNet => Network::SqueezeNet(SqueezeNet::load(loader)?),
            ImageConfig::Graph(config) => Network::Graph(Graph::load(config, loader)?),
        };
        Ok(ImageBackbone { network })
    }

    /// Rows `[rows, width]`, one sequence a picture: its patches with the class token first, or the positions of its last
    /// map; a transformer computes only those rows that are asked for. With a key it is training: dropout is on, and batch
    /// norms take the statistics of the batch.
    pub(crate) fn forward(
        &self,
        tape: &mut Tape<'_>,
        batch: &PixelBatch,
        rows: Rows,
        (lora, key): (&Lora, Option<Key>),
    ) -> Result<(Var, Packing)> {
        if let Network::Vision(vision) = &self.network {
            return vision.forward(tape, batch, rows, (lora, key));
        }
        let map = Map { images: batch.examples.len(), height: batch.height, width: batch.width };
        let pixels = Tensor::from_vec(batch.values.clone(), &[map.rows(), 3])?;
        let pixels = Features { x: tape.constant(pixels), map };
        let training = key.is_some();
        let Features { x, map } = match &self.network {
            Network::ResNet(network) => network.forward(tape, &pixels, training)?,
            Network::Inverted(network) => network.forward(tape, &pixels, training)?,
            Network::SqueezeNet(network) => network.forward(tape, &pixels)?,
            Network::Graph(network) => network.forward(tape, &pixels)?,
            Network::Vision(_) => pixels,
        };
        Ok((x, map.packing(&batch.examples)))
    }

    /// Width of the rows.
    pub(crate) fn width(&self) -> usize {
        match &self.network {
            Network::Vision(vision) => vision.config.layer.hidden,
            Network::ResNet(network) => network.config.width(),
            Network::Inverted(network) => network.config.width(),
            Network::SqueezeNet(_) => SqueezeNet::WIDTH,
            Network::Graph(network) => network.width(),
        }
    }

    /// Number of layers, of stages of a convolutional network, or of operations of a graph: for freezing and rates by layer.
    pub(crate) fn layers(&self) -> usize {
        match &self.network {
            Network::Vision(vision) => vision.config.layer.layers,
            Network::ResNet(network) => network.config.stages(),
            Network::Inverted(network) => network.config.stages() + 1,
            Network::SqueezeNet(_) => SqueezeNet::STAGES,
            Network::Graph(network) => network.stages(),
        }
    }

    /// How its rows become an embedding where nobody says otherwise: the class token (SigLIP's only row), or the mean.
    pub(crate) fn pooling(&self) -> PoolingMode {
        match &self.network {
            Network::Vision(_) => PoolingMode::Cls,
            _ => PoolingMode::Mean,
        }
    }

    /// The largest dropout rate.
    pub(crate) fn dropout(&self) -> f32 {
        match &self.network {
            Network::Vision(vision) => vision.config.layer.hidden_dropout.max(vision.config.layer.attention_dropout),
            _ => 0.0,
        }
    }

    /// The transformer layers, where it has them.
    pub(crate) fn layers_of_transformer(&self) -> Option<&Layers> {
        match &self.network {
            Network::Vision(vision) => Some(&vision.layers),
            _ => None,
        }
    }
}

impl From<VisionTransformer> for ImageBackbone {
    fn from(vision: VisionTransformer) -> Self {
        ImageBackbone { network: Network::Vision(Box::new(vision)) }
    }
}
