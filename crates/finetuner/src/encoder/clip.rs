//! CLIP, SigLIP and their kin: a text tower and an image tower in one checkpoint, as transformers or open_clip writes it.

use engine::device::Activation;
use serde_json::{Value, json};

use super::config::Reader;
use super::family::{Family, TransformerConfig};
use super::image::{VisionConfig, VisionTransformer};
use super::projection::Projection;
use super::transformer::Transformer;
use super::weights::Loader;
use crate::artifact::layout::is_inside;
use crate::artifact::{CLIP_VISION, ModelFiles, PoolingMode};
use crate::data::Modality;
use crate::error::{Error, Result, nearest};

/// Every `model_type` of two towers; open_clip's files have none.
pub(crate) const CLIP_TYPES: [&str; 2] = ["clip", "siglip"];

/// The shapes of both towers.
#[derive(Debug, Clone)]
pub(crate) struct ClipConfig {
    library: Library,
    pub(crate) text: TransformerConfig,
    pub(crate) vision: VisionConfig,
    /// Width of the space that both towers embed into.
    pub(crate) width: usize,
    pub(crate) text_pooling: PoolingMode,
}

/// Who wrote the checkpoint, and so what its tensors are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Library {
    /// transformers' `CLIPModel`
    Transformers,
    /// transformers' `SiglipModel`
    Siglip,
    /// open_clip's `CLIP`
    OpenClip,
    /// open_clip's `CustomTextCLIP` with a text tower of transformers
    OpenClipText(Head),
}

/// What follows such a text tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    Linear,
    Perceptron,
}

/// The image tower of a CLIP alone: transformers' `CLIPVisionModelWithProjection`.
#[derive(Debug, Clone)]
pub(crate) struct ClipVisionConfig {
    pub(crate) vision: VisionConfig,
    pub(crate) width: usize,
}

/// The weights of both towers.
#[derive(Debug)]
pub(crate) struct Clip {
    pub(crate) text: Transformer,
    pub(crate) text_projection: Projection,
    pub(crate) image: VisionTransformer,
    pub(crate) image_projection: Projection,
}

impl ClipConfig {
    /// Reads `config.json` of transformers or `open_clip_config.json`; `None` where it is neither a CLIP's nor a SigLIP's.
    ///
    /// # Errors
    /// [`Error::Model`] for a number that is missing or out of range, or a variant that is not implemented.
    pub(crate) fn read(files: &ModelFiles, config: &Value) -> Result<Option<Self>> {
        let model = files.name();
        if config["model_cfg"].is_object() {
            return Self::open_clip(files, &config["model_cfg"]).map(Some);
        }
        let siglip = match config["model_type"].as_str() {
            Some("clip") => false,
            Some("siglip") => true,
            _ => return Ok(None),
        };
        let text = TransformerConfig::text_tower(&model, &config["text_config"], siglip)?;
        let vision = VisionConfig::clip(&model, &config["vision_config"], siglip)?;
        let width = match siglip {
            false => Reader { model: &model, config }.count_or("projection_dim", 512)?,
            true => vision.layer.hidden,
        };
        if siglip {
            let read = Reader { model: &model, config: &config["text_config"] };
            let text = read.count_or("projection_size", text.hidden)?;
            if text != width {
                let problem = format!("texts become {text} numbers and pictures {width}; they must be as many");
                return Err(Error::model(model, problem));
            }
        }
        let library = if siglip { Library::Siglip } else { Library::Transformers };
        Ok(Some(ClipConfig { library, text, vision, width, text_pooling: PoolingMode::Last }))
    }

    fn open_clip(files: &ModelFiles, config: &Value) -> Result<Self> {
        let model = files.name();
        let activation = if config["quick_gelu"] == true { Activation::QuickGelu } else { Activation::Gelu };
        let vision = VisionConfig::open_clip(&model, &config["vision_cfg"], activation)?;
        let width = Reader { model: &model, config }.count("embed_dim")?;
        let text = &config["text_cfg"];
        let refuse = |problem: String| Err(Error::model(&model, format!("`text_cfg` has {problem}")));
        if !text["hf_model_name"].is_null() {
            let head = match text["hf_proj_type"].as_str().or(text["proj_type"].as_str()) {
                Some("mlp") => Head::Perceptron,
                Some("linear") => Head::Linear,
                other => return refuse(format!("proj_type {other:?}, expected mlp or linear")),
            };
            let pooler = text["hf_pooler_type"].as_str().or(text["pooler_type"].as_str()).unwrap_or_default();
            let text_pooling = match pooler {
                "mean_pooler" => PoolingMode::Mean,
                "max_pooler" => PoolingMode::Max,
                "cls_last_hidden_state_pooler" => PoolingMode::Cls,
                other => {
                    let known = ["mean_pooler", "max_pooler", "cls_last_hidden_state_pooler"];
                    return refuse(format!("pooler_type `{other}`{}", nearest(other, known)));
                }
            };
            let text = hugging_face_text(files, text["hf_model_name"].as_str().unwrap_or_default())?;
            return Ok(ClipConfig { library: Library::OpenClipText(head), text, vision, width, text_pooling });
        }
        for key in ["embed_cls", "no_causal_mask", "proj_bias", "ls_init_value", "mlp_ratio", "pool_type"] {
            let plain =
                matches!(&text[key], Value::Null | Value::Bool(false)) || text[key] == "argmax" || text[key] == 4.0;
            if !plain {
                return refuse(format!("{key} {}, which is not supported", text[key]));
            }
        }
        if config["custom_text"] == true {
            return refuse("a tower of its own (`custom_text`), which is not supported".into());
        }
        let read = Reader { model: &model, config: text };
        let hidden = read.count_or("width", 512)?;
        let text = TransformerConfig {
            family: Family::OpenClip,
            vocabulary: read.count_or("vocab_size", 49408)?,
            hidden,
            layers: read.count_or("layers", 12)?,
            heads: read.count_or("heads", 8)?,
            intermediate: 4 * hidden,
            positions: read.count_or("context_length", 77)?,
            first_position: 0,
            token_types: 0,
            relative_buckets: 0,
            activation,
            norm_eps: 1e-5,
            hidden_dropout: 0.0,
            attention_output_dropout: 0.0,
            attention_dropout: 0.0,
            initializer_range: 0.02,
        };
        read.check_heads(text.hidden, text.heads)?;
        Ok(ClipConfig { library: Library::OpenClip, text, vision, width, text_pooling: PoolingMode::Last })
    }
}

impl Clip {
    pub(crate) fn load(config: ClipConfig, loader: &mut Loader<'_>) -> Result<Self> {
        let (library, width) = (config.library, config.width);
        let (text_hidden, text_layers) = (config.text.hidden, config.text.layers);
        let head = text_layers.max(config.vision.layer.layers) + 1;
        loader.within(match library {
            Library::Transformers | Library::Siglip => "text_model.",
            Library::OpenClip => "",
            Library::OpenClipText(_) => "text.transformer.",
        });
        let text = Transformer::load(config.text, loader)?;
        loader.at_depth(head);
        let text_projection = match library {
            Library::Transformers => {
                loader.within("");
                Projection::linear(loader, "text_projection.weight", text_hidden, width)?
            }
            Library::Siglip => Projection::affine(loader, "head", text_hidden, width)?,
            Library::OpenClip => Projection::transposed(loader, "text_projection", text_hidden, width)?,
            Library::OpenClipText(head) => {
                loader.within("text.");
                match head {
                    Head::Linear => Projection::linear(loader, "proj.weight", text_hidden, width)?,
                    Head::Perceptron => Projection::perceptron(loader, "proj", text_hidden, width)?,
                }
            }
        };
        let (image, image_projection) = load_vision(library, config.vision, (width, head), loader)?;
        for name in ["logit_scale", "logit_bias"] {
            loader.keep(name)?;
        }
        Ok(Clip { text, text_projection, image, image_projection })
    }
}

impl ClipVisionConfig {
    /// Reads `config.json`; `None` where it is another model's.
    ///
    /// # Errors
    /// As [`ClipConfig::read`].
    pub(crate) fn read(model: &str, config: &Value) -> Result<Option<Self>> {
        if config["model_type"] != CLIP_VISION {
            return Ok(None);
        }
        let vision = VisionConfig::clip(model, config, false)?;
        let width = Reader { model, config }.count_or("projection_dim", 512)?;
        Ok(Some(ClipVisionConfig { vision, width }))
    }

    /// Its tower and what follows pooling; a whole CLIP's checkpoint will do.
    pub(crate) fn load(self, loader: &mut Loader<'_>) -> Result<(VisionTransformer, Projection)> {
        let head = self.vision.layer.layers + 1;
        load_vision(Library::Transformers, self.vision, (self.width, head), loader)
    }
}

fn load_vision(
    library: Library,
    config: VisionConfig,
    (width, head): (usize, usize),
    loader: &mut Loader<'_>,
) -> Result<(VisionTransformer, Projection)> {
    let hidden = config.layer.hidden;
    loader.of_tower(Modality::Image);
    loader.within(match library {
        Library::Transformers | Library::Siglip => "vision_model.",
        Library::OpenClip | Library::OpenClipText(_) => "visual.",
    });
    let image = VisionTransformer::load(config, loader)?;
    loader.at_depth(head);
    let projection = match library {
        Library::Transformers => {
            loader.within("");
            Projection::linear(loader, "visual_projection.weight", hidden, width)?
        }
        Library::Siglip => Projection::default(),
        Library::OpenClip | Library::OpenClipText(_) => Projection::transposed(loader, "proj", hidden, width)?,
    };
    loader.within("");
    Ok((image, projection))
}

/// The configuration of a text tower that open_clip only names: a folder beside its own file, or one of these.
fn hugging_face_text(files: &ModelFiles, name: &str) -> Result<TransformerConfig> {
    let beside = if is_inside(name) { files.json(&format!("{name}/config.json"))? } else { None };
    if let Some(config) = beside {
        return TransformerConfig::read(&files.name(), &config);
    }
    let (hidden, layers, heads, kind, vocabulary) = match name.rsplit('/').next().unwrap_or(name) {
        "xlm-roberta-base" => (768, 12, 12, "xlm-roberta", 250_002),
        "xlm-roberta-large" => (1024, 24, 16, "xlm-roberta", 250_002),
        "roberta-base" => (768, 12, 12, "roberta", 50_265),
        other => {
            let hint = nearest(other, ["xlm-roberta-base", "xlm-roberta-large", "roberta-base"]);
            return Err(Error::model(files.name(), format!("`hf_model_name` is `{other}`{hint}")));
        }
    };
    let config = json!({
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
    });
    TransformerConfig::read(&files.name(), &config)
}
