//! Reads a model's `config.json` key by key, with messages that name the model and the key.

use engine::device::Activation;
use serde_json::Value;

use crate::error::{Error, Result, nearest};

/// A configuration and the model's name, for messages.
pub(crate) struct Reader<'a> {
    pub(crate) model: &'a str,
    pub(crate) config: &'a Value,
}

impl Reader<'_> {
    pub(crate) fn count(&self, key: &str) -> Result<usize> {
        // The upper bound keeps products of two extents far from overflow when a file is hostile.
        match self.config[key].as_u64() {
            Some(count) if (1..=1 << 24).contains(&count) => Ok(count as usize),
            _ => {
                let problem = format!("`{key}` in config.json must be a positive integer, got {}", self.config[key]);
                Err(Error::model(self.model, problem))
            }
        }
    }

    /// As [`Reader::count`], with the family's default where the key is missing.
    pub(crate) fn count_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.config[key].is_null() { Ok(default) } else { self.count(key) }
    }

    /// A rate in `[0, 1)`; 0.1 where it is missing, as BERT's.
    pub(crate) fn rate(&self, key: &str) -> Result<f32> {
        self.rate_or(key, 0.1)
    }

    pub(crate) fn rate_or(&self, key: &str, default: f32) -> Result<f32> {
        match &self.config[key] {
            Value::Null => Ok(default),
            value => match value.as_f64() {
                Some(rate) if (0.0..1.0).contains(&rate) => Ok(rate as f32),
                _ => Err(Error::model(self.model, format!("`{key}` in config.json must lie in [0, 1), got {value}"))),
            },
        }
    }

    pub(crate) fn activation(&self, key: &str) -> Result<Activation> {
        self.activation_or(key, "gelu")
    }

    pub(crate) fn activation_or(&self, key: &str, default: &str) -> Result<Activation> {
        let name = self.config[key].as_str().unwrap_or(default);
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

    /// Heads must share the hidden size evenly.
    pub(crate) fn check_heads(&self, hidden: usize, heads: usize) -> Result<()> {
        if hidden.is_multiple_of(heads) {
            return Ok(());
        }
        Err(Error::model(self.model, format!("hidden size {hidden} is no multiple of {heads} heads")))
    }
}
