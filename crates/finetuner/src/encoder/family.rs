//! The model families and how each names its configuration keys and tensors.

use engine::device::Activation;
use serde_json::Value;

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
}

/// Where a family keeps the tensors of a layer; the bias stands beside each weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    /// What task checkpoints put before every name.
    pub(crate) prefix: &'static str,
    pub(crate) layer: &'static str,
    pub(crate) query: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) attention_output: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    pub(crate) output_norm: &'static str,
}

const BERT: Names = Names {
    prefix: "bert.",
    layer: "encoder.layer.",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
};

impl Family {
    /// Every `model_type` that can be trained.
    pub const MODEL_TYPES: [&str; 6] = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet"];

    pub(crate) fn names(self) -> Names {
        match self {
            Family::Bert => BERT,
            Family::Roberta | Family::XlmRoberta => Names { prefix: "roberta.", ..BERT },
            Family::DistilBert => Names {
                prefix: "distilbert.",
                layer: "transformer.layer.",
                query: "attention.q_lin",
                key: "attention.k_lin",
                value: "attention.v_lin",
                attention_output: "attention.out_lin",
                attention_norm: "sa_layer_norm",
                up: "ffn.lin1",
                down: "ffn.lin2",
                output_norm: "output_layer_norm",
            },
            Family::MpNet => Names {
                prefix: "mpnet.",
                query: "attention.attn.q",
                key: "attention.attn.k",
                value: "attention.attn.v",
                attention_output: "attention.attn.o",
                attention_norm: "attention.LayerNorm",
                ..BERT
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
                Family::Bert | Family::DistilBert => 0,
                Family::Roberta | Family::XlmRoberta | Family::MpNet => padding + 1,
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
        if !result.hidden.is_multiple_of(result.heads) {
            let problem = format!("hidden size {} is no multiple of {} heads", result.hidden, result.heads);
            return Err(Error::model(model, problem));
        }
        Ok(result)
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

struct Reader<'a> {
    model: &'a str,
    config: &'a Value,
}

impl Reader<'_> {
    fn count(&self, key: &str) -> Result<usize> {
        // The upper bound keeps products of two extents far from overflow when a file is hostile.
        match self.config[key].as_u64() {
            Some(count) if (1..=1 << 24).contains(&count) => Ok(count as usize),
            _ => {
                let problem = format!("`{key}` in config.json must be a positive integer, got {}", self.config[key]);
                Err(Error::model(self.model, problem))
            }
        }
    }

    fn rate(&self, key: &str) -> Result<f32> {
        match &self.config[key] {
            Value::Null => Ok(0.1),
            value => match value.as_f64() {
                Some(rate) if (0.0..1.0).contains(&rate) => Ok(rate as f32),
                _ => Err(Error::model(self.model, format!("`{key}` in config.json must lie in [0, 1), got {value}"))),
            },
        }
    }

    fn activation(&self, key: &str) -> Result<Activation> {
        let name = self.config[key].as_str().unwrap_or("gelu");
        match name {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            "silu" | "swish" => Ok(Activation::Silu),
            "quick_gelu" => Ok(Activation::QuickGelu),
            _ => {
                let known =
                    ["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "swish", "quick_gelu"];
                Err(Error::model(self.model, format!("`{key}` is `{name}`{}", nearest(name, known))))
            }
        }
    }
}
