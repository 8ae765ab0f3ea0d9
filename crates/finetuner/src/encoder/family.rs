//! The model families and how each names its configuration keys and tensors.

use engine::device::Activation;
use serde_json::Value;

use super::config::Reader;
use super::layers::{LayerConfig, LayerNames, NormPlace};
use crate::error::{Error, Result, nearest};

/// A family of encoders, `model_type` in `config.json`. All are one transformer with options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// BERT and everything of its shape: MiniLM, E5, BGE, GTE (Devlin et al. 2019).
    Bert,
    /// RoBERTa (Liu et al. 2019); positions start after the padding id.
    Roberta,
    /// XLM-RoBERTa (Conneau et al. 2020), also CamemBERT's shape.
    XlmRoberta,
    /// DistilBERT (Sanh et al. 2019); no token types, no dropout after attention.
    DistilBert,
    /// MPNet (Song et al. 2020); relative position bias shared by all layers.
    MpNet,
    /// The text tower of CLIP (Radford et al. 2021), as transformers names it: norms before, causal attention.
    Clip,
    /// The same, as open_clip names it.
    OpenClip,
    /// The text tower of SigLIP (Zhai et al. 2023): as CLIP's, every token attends to every other.
    Siglip,
}

/// Where a family keeps its tensors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    /// What task checkpoints put before every name.
    pub(crate) prefix: &'static str,
    pub(crate) words: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) embedding_norm: Option<&'static str>,
    pub(crate) layer: LayerNames,
    pub(crate) final_norm: Option<&'static str>,
}

const BERT: Names = Names {
    prefix: "bert.",
    words: "embeddings.word_embeddings.weight",
    positions: "embeddings.position_embeddings.weight",
    embedding_norm: Some("embeddings.LayerNorm"),
    layer: LayerNames {
        layers: "encoder.layer.",
        query_key_value: &["attention.self.query", "attention.self.key", "attention.self.value"],
        attention_output: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        up: "intermediate.dense",
        down: "output.dense",
        output_norm: "output.LayerNorm",
        scales: None,
    },
    final_norm: None,
};

/// The layers of CLIP and SigLIP, of texts and of pictures, as transformers names them.
pub(crate) const CLIP_LAYER: LayerNames = LayerNames {
    layers: "encoder.layers.",
    query_key_value: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    attention_output: "self_attn.out_proj",
    attention_norm: "layer_norm1",
    up: "mlp.fc1",
    down: "mlp.fc2",
    output_norm: "layer_norm2",
    scales: None,
};

/// The same, as open_clip names them.
pub(crate) const OPEN_CLIP_LAYER: LayerNames = LayerNames {
    layers: "transformer.resblocks.",
    query_key_value: &["attn.in_proj"],
    attention_output: "attn.out_proj",
    attention_norm: "ln_1",
    up: "mlp.c_fc",
    down: "mlp.c_proj",
    output_norm: "ln_2",
    scales: None,
};

impl Family {
    /// Every `model_type` of a text encoder that can be trained.
    pub const MODEL_TYPES: [&str; 6] = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet"];

    pub(crate) fn names(self) -> Names {
        match self {
            Family::Bert => BERT,
            Family::Roberta | Family::XlmRoberta => Names { prefix: "roberta.", ..BERT },
            Family::DistilBert => Names {
                prefix: "distilbert.",
                layer: LayerNames {
                    layers: "transformer.layer.",
                    query_key_value: &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
                    attention_output: "attention.out_lin",
                    attention_norm: "sa_layer_norm",
                    up: "ffn.lin1",
                    down: "ffn.lin2",
                    output_norm: "output_layer_norm",
                    scales: None,
                },
                ..BERT
            },
            Family::MpNet => Names {
                prefix: "mpnet.",
                layer: LayerNames {
                    query_key_value: &["attention.attn.q", "attention.attn.k", "attention.attn.v"],
                    attention_output: "attention.attn.o",
                    attention_norm: "attention.LayerNorm",
                    ..BERT.layer
                },
                ..BERT
            },
            Family::Clip | Family::Siglip => Names {
                prefix: "",
                words: "embeddings.token_embedding.weight",
                positions: "embeddings.position_embedding.weight",
                embedding_norm: None,
                layer: CLIP_LAYER,
                final_norm: Some("final_layer_norm"),
            },
            Family::OpenClip => Names {
                prefix: "",
                words: "token_embedding.weight",
                positions: "positional_embedding",
                embedding_norm: None,
                layer: OPEN_CLIP_LAYER,
                final_norm: Some("ln_final"),
            },
        }
    }
}

/// A transformer's shape and rates, read from `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct TransformerConfig {
    /// The family.
    pub family: Family,
    /// Entries of the word embedding table.
    pub vocabulary: usize,
    /// Width of every token's representation.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads per layer.
    pub heads: usize,
    /// Width between the two linear layers of the feed-forward part.
    pub intermediate: usize,
    /// Entries of the position table.
    pub positions: usize,
    /// The position of the first token.
    pub first_position: usize,
    /// Entries of the token type table; 0 for none.
    pub token_types: usize,
    /// Buckets of the relative position bias; 0 for none.
    pub relative_buckets: usize,
    /// The feed-forward activation.
    pub activation: Activation,
    /// Epsilon of every layer norm.
    pub norm_eps: f32,
    /// Dropout of embeddings and of the feed-forward output.
    pub hidden_dropout: f32,
    /// Dropout after attention; 0 in DistilBERT.
    pub attention_output_dropout: f32,
    /// Dropout of attention probabilities.
    pub attention_dropout: f32,
    /// Standard deviation of random initial weights.
    pub initializer_range: f32,
}

impl TransformerConfig {
    /// Reads the Hugging Face `config.json`. `model` is used in messages.
    ///
    /// # Errors
    /// [`Error::Model`] for an unknown `model_type` (the known ones are listed), a missing number, an unknown
    /// activation or a variant that is not implemented.
    pub fn read(model: &str, config: &Value) -> Result<Self> {
        let kind = config["model_type"].as_str().unwrap_or("(missing)");
        let family = match kind {
            "bert" => Family::Bert,
            "roberta" | "camembert" => Family::Roberta,
            "xlm-roberta" => Family::XlmRoberta,
            "distilbert" => Family::DistilBert,
            "mpnet" => Family::MpNet,
            _ => {
                let hint = nearest(kind, Family::MODEL_TYPES);
                return Err(Error::model(model, format!("`model_type` is `{kind}`{hint}")));
            }
        };
        let read = Reader { model, config };
        if let Some(kind) = config["position_embedding_type"].as_str().filter(|kind| *kind != "absolute") {
            return Err(Error::model(model, format!("`position_embedding_type` is `{kind}`, only `absolute` works")));
        }
        if config["is_decoder"] == true {
            return Err(Error::model(model, "`is_decoder` is true; only encoders can be fine-tuned here"));
        }
        let padding = config["pad_token_id"].as_u64().unwrap_or(1) as usize;
        let distil = family == Family::DistilBert;
        let pick = |distil_name: &'static str, name: &'static str| if distil { distil_name } else { name };
        let result = TransformerConfig {
            family,
            vocabulary: read.count("vocab_size")?,
            hidden: read.count(pick("dim", "hidden_size"))?,
            layers: read.count(pick("n_layers", "num_hidden_layers"))?,
            heads: read.count(pick("n_heads", "num_attention_heads"))?,
            intermediate: read.count(pick("hidden_dim", "intermediate_size"))?,
            positions: read.count("max_position_embeddings")?,
            first_position: match family {
                Family::Roberta | Family::XlmRoberta | Family::MpNet => padding + 1,
                _ => 0,
            },
            token_types: match family {
                Family::DistilBert | Family::MpNet => 0,
                _ => read.count("type_vocab_size")?,
            },
            relative_buckets: match family {
                Family::MpNet => config["relative_attention_num_buckets"].as_u64().unwrap_or(32) as usize,
                _ => 0,
            },
            activation: read.activation(pick("activation", "hidden_act"))?,
            norm_eps: config["layer_norm_eps"].as_f64().unwrap_or(1e-12) as f32,
            hidden_dropout: read.rate(pick("dropout", "hidden_dropout_prob"))?,
            attention_output_dropout: if distil { 0.0 } else { read.rate("hidden_dropout_prob")? },
            attention_dropout: read.rate(pick("attention_dropout", "attention_probs_dropout_prob"))?,
            initializer_range: config["initializer_range"].as_f64().unwrap_or(0.02) as f32,
        };
        read.check_heads(result.hidden, result.heads)?;
        Ok(result)
    }

    /// Reads the `text_config` of a CLIP or SigLIP model of transformers. Files leave out what equals the default.
    pub(crate) fn text_tower(model: &str, config: &Value, siglip: bool) -> Result<Self> {
        let read = Reader { model, config };
        let (family, act, eps) = match siglip {
            false => (Family::Clip, "quick_gelu", 1e-5),
            true => (Family::Siglip, "gelu_pytorch_tanh", 1e-6),
        };
        let pick = |clip: usize, other: usize| if siglip { other } else { clip };
        let result = TransformerConfig {
            family,
            vocabulary: read.count_or("vocab_size", pick(49408, 32000))?,
            hidden: read.count_or("hidden_size", pick(512, 768))?,
            layers: read.count_or("num_hidden_layers", 12)?,
            heads: read.count_or("num_attention_heads", pick(8, 12))?,
            intermediate: read.count_or("intermediate_size", pick(2048, 3072))?,
            positions: read.count_or("max_position_embeddings", pick(77, 64))?,
            first_position: 0,
            token_types: 0,
            relative_buckets: 0,
            activation: read.activation_or("hidden_act", act)?,
            norm_eps: config["layer_norm_eps"].as_f64().unwrap_or(eps) as f32,
            hidden_dropout: 0.0,
            attention_output_dropout: 0.0,
            attention_dropout: read.rate_or("attention_dropout", 0.0)?,
            initializer_range: config["initializer_range"].as_f64().unwrap_or(0.02) as f32,
        };
        read.check_heads(result.hidden, result.heads)?;
        Ok(result)
    }

    /// What its layers have in common.
    pub(crate) fn layer(&self) -> LayerConfig {
        let clip = matches!(self.family, Family::Clip | Family::OpenClip);
        let before = clip || self.family == Family::Siglip;
        LayerConfig {
            layers: self.layers,
            hidden: self.hidden,
            heads: self.heads,
            intermediate: self.intermediate,
            gated: false,
            activation: self.activation,
            norm: if before { NormPlace::Before } else { NormPlace::After },
            norm_eps: self.norm_eps,
            causal: clip,
            query_key_value_bias: true,
            hidden_dropout: self.hidden_dropout,
            attention_output_dropout: self.attention_output_dropout,
            attention_dropout: self.attention_dropout,
        }
    }

    /// The largest of the dropout rates.
    pub fn dropout(&self) -> f32 {
        self.hidden_dropout.max(self.attention_output_dropout).max(self.attention_dropout)
    }

    /// The longest text in tokens that the position table serves.
    pub fn longest(&self) -> usize {
        self.positions.saturating_sub(self.first_position)
    }
}
