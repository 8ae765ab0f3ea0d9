//! The shapes of vision transformers and how each library names their tensors.

use engine::device::Activation;
use serde_json::Value;

use crate::encoder::config::Reader;
use crate::encoder::family::{CLIP_LAYER, OPEN_CLIP_LAYER};
use crate::encoder::layers::{LayerConfig, LayerNames, NormPlace};
use crate::error::{Error, Result, nearest};

/// A vision transformer's shape.
#[derive(Debug, Clone)]
pub(crate) struct VisionConfig {
    pub(crate) names: VisionNames,
    pub(crate) layer: LayerConfig,
    /// Width and height that the position embeddings are made for.
    pub(crate) image: usize,
    /// Width and height of a patch.
    pub(crate) patch: usize,
    pub(crate) patch_bias: bool,
    /// A learned query over the patches instead of a class token (SigLIP).
    pub(crate) attention_pool: bool,
    /// Rows without a position between tokens and patches, which nothing reads in the end (Darcet et al. 2024).
    pub(crate) registers: usize,
    /// Whether the tokens before the patches have positions, too.
    pub(crate) placed_tokens: bool,
    /// Standard deviation of random initial weights.
    pub(crate) initializer_range: f32,
}

/// Where a vision transformer's tensors lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VisionNames {
    /// What task checkpoints put before every name.
    pub(crate) prefix: &'static str,
    pub(crate) patch: &'static str,
    /// The rows before the patches.
    pub(crate) tokens: &'static [&'static str],
    /// The registers, where there are any.
    pub(crate) registers: &'static str,
    pub(crate) positions: &'static str,
    /// Whether tokens and positions lie on disk with dimensions of 1 in front.
    pub(crate) batched: bool,
    /// Positions of pictures of another size are resized with a filter as wide as the step, timm's and open_clip's way.
    pub(crate) antialias: bool,
    pub(crate) first_norm: Option<&'static str>,
    pub(crate) layer: LayerNames,
    pub(crate) final_norm: &'static str,
    /// What nothing here uses.
    pub(crate) kept: &'static [&'static str],
}

const VIT: VisionNames = VisionNames {
    prefix: "vit.",
    patch: "embeddings.patch_embeddings.projection",
    tokens: &["embeddings.cls_token"],
    registers: "embeddings.register_tokens",
    positions: "embeddings.position_embeddings",
    batched: true,
    antialias: false,
    first_norm: None,
    layer: LayerNames {
        layers: "encoder.layer.",
        query_key_value: &["attention.attention.query", "attention.attention.key", "attention.attention.value"],
        attention_output: "attention.output.dense",
        attention_norm: "layernorm_before",
        up: "intermediate.dense",
        down: "output.dense",
        output_norm: "layernorm_after",
        scales: None,
    },
    final_norm: "layernorm",
    kept: &["embeddings.mask_token", "pooler.dense.weight", "pooler.dense.bias"],
};

const DEIT: VisionNames =
    VisionNames { prefix: "deit.", tokens: &["embeddings.cls_token", "embeddings.distillation_token"], ..VIT };

const DINOV2: VisionNames = VisionNames {
    prefix: "dinov2.",
    layer: LayerNames {
        attention_norm: "norm1",
        up: "mlp.fc1",
        down: "mlp.fc2",
        output_norm: "norm2",
        scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
        ..VIT.layer
    },
    ..VIT
};

/// Of other pictures' positions it is timm's way.
const DINOV2_REGISTERS: VisionNames = VisionNames { prefix: "dinov2_with_registers.", antialias: true, ..DINOV2 };

const TIMM: VisionNames = VisionNames {
    prefix: "",
    patch: "patch_embed.proj",
    tokens: &["cls_token"],
    registers: "reg_token",
    positions: "pos_embed",
    antialias: true,
    layer: LayerNames {
        layers: "blocks.",
        query_key_value: &["attn.qkv"],
        attention_output: "attn.proj",
        attention_norm: "norm1",
        up: "mlp.fc1",
        down: "mlp.fc2",
        output_norm: "norm2",
        scales: None,
    },
    final_norm: "norm",
    kept: &[],
    ..VIT
};

/// The scales of a timm model that has them, such as its DINOv2.
const TIMM_SCALES: [&str; 2] = ["ls1.gamma", "ls2.gamma"];

const CLIP: VisionNames = VisionNames {
    prefix: "",
    patch: "embeddings.patch_embedding",
    tokens: &["embeddings.class_embedding"],
    registers: "",
    positions: "embeddings.position_embedding.weight",
    batched: false,
    antialias: false,
    first_norm: Some("pre_layrnorm"), // so on disk
    layer: CLIP_LAYER,
    final_norm: "post_layernorm",
    kept: &[],
};

const SIGLIP: VisionNames = VisionNames { tokens: &[], first_norm: None, ..CLIP };

const OPEN_CLIP: VisionNames = VisionNames {
    patch: "conv1",
    tokens: &["class_embedding"],
    positions: "positional_embedding",
    antialias: true,
    first_norm: Some("ln_pre"),
    layer: OPEN_CLIP_LAYER,
    final_norm: "ln_post",
    ..CLIP
};

/// timm's sizes by name: width, heads and depth.
const SIZES: [(&str, usize, usize, usize); 5] = [
    ("tiny", 192, 3, 12),
    ("small", 384, 6, 12),
    ("base", 768, 12, 12),
    ("large", 1024, 16, 24),
    ("giant", 1536, 24, 40), // DINOv2's, with gates
];

impl VisionConfig {
    /// Reads a `vit`, `deit`, `dinov2` or `dinov2_with_registers` of transformers.
    ///
    /// # Errors
    /// [`Error::Model`] for a number that is missing or out of range, or a variant that is not implemented.
    pub(crate) fn hugging_face(model: &str, config: &Value) -> Result<Self> {
        let read = Reader { model, config };
        let dinov2 = matches!(config["model_type"].as_str(), Some("dinov2" | "dinov2_with_registers"));
        let gated = config["use_swiglu_ffn"] == true;
        check_colours(model, config)?;
        let hidden = read.count_or("hidden_size", 768)?;
        let intermediate = match dinov2 {
            true => hidden * read.count_or("mlp_ratio", 4)?,
            false => read.count_or("intermediate_size", 3072)?,
        };
        // As many weights as without gates, in a width that is a multiple of 8.
        let intermediate = if gated { (intermediate * 2 / 3).div_ceil(8) * 8 } else { intermediate };
        let mut names = match config["model_type"].as_str() {
            Some("dinov2") => DINOV2,
            Some("dinov2_with_registers") => DINOV2_REGISTERS,
            Some("deit") => DEIT,
            _ => VIT,
        };
        if gated {
            names.layer = LayerNames { up: "mlp.weights_in", down: "mlp.weights_out", ..names.layer };
        }
        let dropout = read.rate_or("hidden_dropout_prob", 0.0)?;
        let layer = LayerConfig {
            query_key_value_bias: config["qkv_bias"].as_bool().unwrap_or(true),
            hidden_dropout: dropout,
            attention_output_dropout: dropout,
            attention_dropout: read.rate_or("attention_probs_dropout_prob", 0.0)?,
            ..layers(&read, hidden, intermediate, "gelu", if dinov2 { 1e-6 } else { 1e-12 })?
        };
        let layer = if gated { layer.gated() } else { layer };
        let (image, patch) = (("image_size", 224), ("patch_size", if dinov2 { 14 } else { 16 }));
        let registers = match config["model_type"] == "dinov2_with_registers" {
            true => read.count_or("num_register_tokens", 4)?,
            false => 0,
        };
        Ok(VisionConfig { registers, ..Self::new(&read, names, layer, image, patch)? })
    }

    /// Reads the `vision_config` of a CLIP or SigLIP model of transformers. Files leave out what equals the default.
    ///
    /// # Errors
    /// As [`VisionConfig::hugging_face`].
    pub(crate) fn clip(model: &str, config: &Value, siglip: bool) -> Result<Self> {
        let read = Reader { model, config };
        check_colours(model, config)?;
        let hidden = read.count_or("hidden_size", 768)?;
        let intermediate = read.count_or("intermediate_size", 3072)?;
        let (names, act, eps, patch) = match siglip {
            false => (CLIP, "quick_gelu", 1e-5, 32),
            true => (SIGLIP, "gelu_pytorch_tanh", 1e-6, 16),
        };
        let layer = LayerConfig {
            attention_dropout: read.rate_or("attention_dropout", 0.0)?,
            ..layers(&read, hidden, intermediate, act, eps)?
        };
        let result = Self::new(&read, names, layer, ("image_size", 224), ("patch_size", patch))?;
        if siglip && config["vision_use_head"] == false {
            return Err(Error::model(
                model,
                "`vision_use_head` is false, only SigLIP's attention pooling is supported",
            ));
        }
        Ok(VisionConfig { patch_bias: siglip, attention_pool: siglip, ..result })
    }

    /// Reads the `vision_cfg` of open_clip.
    ///
    /// # Errors
    /// As [`VisionConfig::hugging_face`].
    pub(crate) fn open_clip(model: &str, config: &Value, activation: Activation) -> Result<Self> {
        for key in ["timm_model_name", "attentional_pool", "no_ln_pre", "ls_init_value", "global_average_pool"] {
            if !matches!(config[key], Value::Null | Value::Bool(false)) {
                let problem = format!("`vision_cfg` has `{key}`, only open_clip's own vision transformer is supported");
                return Err(Error::model(model, problem));
            }
        }
        if !config["layers"].is_u64() {
            let problem =
                format!("`vision_cfg` has layers {}, a ResNet; only transformers are supported", config["layers"]);
            return Err(Error::model(model, problem));
        }
        let read = Reader { model, config };
        let hidden = read.count_or("width", 768)?;
        let head = read.count_or("head_width", 64)?;
        let ratio = config["mlp_ratio"].as_f64().unwrap_or(4.0);
        let layer = LayerConfig {
            layers: read.count("layers")?,
            heads: hidden / head.min(hidden),
            activation,
            ..layers(&read, hidden, (hidden as f64 * ratio) as usize, "gelu", 1e-5)?
        };
        read.check_heads(hidden, layer.heads)?;
        let result = Self::new(&read, OPEN_CLIP, layer, ("image_size", 224), ("patch_size", 16))?;
        Ok(VisionConfig { patch_bias: false, ..result })
    }

    /// Reads timm's `vit_{tiny, small, base, large}_patch…` and DINOv2's `giant`: sizes and the number of registers are in the
    /// name, unless `model_args` say otherwise. `scaled` where the checkpoint has layer scales.
    ///
    /// # Errors
    /// As [`VisionConfig::hugging_face`].
    pub(crate) fn timm(model: &str, config: &Value, scaled: bool) -> Result<Self> {
        let refuse = |problem: String| Error::model(model, problem);
        let architecture = config["architecture"].as_str().unwrap_or_default();
        let named = TimmName::read(architecture)
            .map_err(|problem| refuse(format!("`architecture` is `{architecture}`{problem}")))?;
        let arguments = &config["model_args"];
        check_timm_arguments(arguments).map_err(|problem| refuse(format!("`model_args` has {problem}")))?;
        let registers = arguments["reg_tokens"].as_u64().map(|count| count as usize).or(named.registers).unwrap_or(0);
        let placed_tokens = !arguments["no_embed_class"].as_bool().unwrap_or(named.registers.is_some());
        if registers > 1 << 10 || registers > 0 && placed_tokens {
            return Err(refuse(format!("{registers} registers with positions of their own are not supported")));
        }
        let read = Reader { model, config: arguments };
        let hidden = read.count_or("embed_dim", named.hidden)?;
        let ratio = arguments["mlp_ratio"].as_f64().unwrap_or(if named.gated { 2.66667 * 2.0 } else { 4.0 });
        let intermediate = (hidden as f64 * ratio) as usize / if named.gated { 2 } else { 1 };
        let layer = LayerConfig {
            layers: read.count_or("depth", named.depth)?,
            heads: read.count_or("num_heads", named.heads)?,
            query_key_value_bias: arguments["qkv_bias"].as_bool().unwrap_or(true),
            ..layers(&read, hidden, intermediate, "gelu", 1e-6)?
        };
        let layer = if named.gated { layer.gated() } else { layer };
        read.check_heads(hidden, layer.heads)?;
        let scales = scaled.then_some(TIMM_SCALES);
        let names = VisionNames { layer: LayerNames { scales, ..TIMM.layer }, ..TIMM };
        let image = config["pretrained_cfg"]["input_size"][1].as_u64().unwrap_or(224) as usize;
        let result = Self::new(&read, names, layer, ("img_size", image), ("patch_size", named.patch))?;
        Ok(VisionConfig { registers, placed_tokens, ..result })
    }

    /// Rows of the table of positions before those of patches.
    pub(crate) fn leading_positions(&self) -> usize {
        if self.placed_tokens { self.names.tokens.len() } else { 0 }
    }

    fn new(
        read: &Reader<'_>,
        names: VisionNames,
        layer: LayerConfig,
        image: (&str, usize),
        patch: (&str, usize),
    ) -> Result<Self> {
        let (image, patch) = (read.count_or(image.0, image.1)?, read.count_or(patch.0, patch.1)?);
        // Positions are a square of the patches of an image; both bounds keep products far from overflow.
        if patch > image || image > 1 << 13 {
            let problem = format!("an image size of {image} and a patch size of {patch} do not go together");
            return Err(Error::model(read.model, problem));
        }
        let initializer_range = read.config["initializer_range"].as_f64().unwrap_or(0.02) as f32;
        Ok(VisionConfig {
            names,
            layer,
            image,
            patch,
            patch_bias: true,
            attention_pool: false,
            registers: 0,
            placed_tokens: true,
            initializer_range,
        })
    }
}

/// What the name of a timm model says.
struct TimmName {
    hidden: usize,
    heads: usize,
    depth: usize,
    patch: usize,
    /// How many, where the name says so.
    registers: Option<usize>,
    gated: bool,
}

impl TimmName {
    /// Reads `vit_base_patch16_224`, `vit_giant_patch14_reg4_dinov2` and the like, else says what of it is not known.
    fn read(architecture: &str) -> std::result::Result<Self, String> {
        let mut parts = architecture.trim_start_matches("vit_").split('_');
        let size = parts.next().unwrap_or_default();
        let Some(&(_, hidden, heads, depth)) = SIZES.iter().find(|(name, ..)| *name == size) else {
            return Err(format!(": unknown size `{size}`{}", nearest(size, SIZES.map(|(name, ..)| name))));
        };
        let patch = parts.next().and_then(|part| part.strip_prefix("patch")?.parse().ok()).unwrap_or(16);
        let variants: Vec<&str> = parts.filter(|part| part.parse::<usize>().is_err()).collect();
        let registers_of = |variant: &&str| variant.strip_prefix("reg")?.parse::<usize>().ok();
        let known = |variant: &&str| *variant == "dinov2" || registers_of(variant).is_some();
        let gated = size == "giant";
        if !variants.iter().all(known) || gated && !variants.contains(&"dinov2") {
            return Err(", a variant of the vision transformer that is not supported".into());
        }
        Ok(TimmName { hidden, heads, depth, patch, registers: variants.iter().find_map(registers_of), gated })
    }
}

/// Refuses what a timm model's arguments make of it that is not implemented.
fn check_timm_arguments(arguments: &Value) -> std::result::Result<(), String> {
    for (key, plain) in [("global_pool", "token"), ("class_token", "true")] {
        let given = &arguments[key];
        let given = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
        if given != "null" && given != plain {
            return Err(format!("{key} {given}, only {plain} is supported"));
        }
    }
    let missing = ["pre_norm", "qk_norm", "fc_norm", "pos_embed", "swiglu_mlp"];
    match missing.iter().find(|key| !matches!(arguments[**key], Value::Null | Value::Bool(false))) {
        Some(key) => Err(format!("`{key}`, which is not supported")),
        None => Ok(()),
    }
}

/// The layers by the keys of transformers, without dropout.
fn layers(read: &Reader<'_>, hidden: usize, intermediate: usize, activation: &str, eps: f64) -> Result<LayerConfig> {
    let heads = read.count_or("num_attention_heads", 12)?;
    if read.config["num_attention_heads"].is_u64() {
        read.check_heads(hidden, heads)?;
    }
    Ok(LayerConfig {
        layers: read.count_or("num_hidden_layers", 12)?,
        hidden,
        heads,
        intermediate,
        gated: false,
        activation: read.activation_or("hidden_act", activation)?,
        norm: NormPlace::Before,
        norm_eps: read.config["layer_norm_eps"].as_f64().unwrap_or(eps) as f32,
        causal: false,
        query_key_value_bias: true,
        hidden_dropout: 0.0,
        attention_output_dropout: 0.0,
        attention_dropout: 0.0,
    })
}

fn check_colours(model: &str, config: &Value) -> Result<()> {
    match config["num_channels"].as_u64() {
        None | Some(3) => Ok(()),
        Some(other) => Err(Error::model(model, format!("`num_channels` is {other}, expected 3: red, green and blue"))),
    }
}
