//! Low-rank adapters on disk, in the layout of the `peft` library: `adapter_config.json` and
//! `adapter_model.safetensors`, which hold what is added to the weights of another model, their base.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::weights::Weights;
use crate::error::{Error, Result};

/// The file that makes a folder an adapter.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// The file of its matrices.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// What stands before the names of modules in an adapter's file.
const PREFIX: &str = "base_model.model.";

/// An adapter of a model, opened.
#[derive(Debug, Clone)]
pub struct AdapterFolder {
    folder: PathBuf,
    /// The model whose weights it changes: a repository id, or a folder, also relative to the adapter's.
    pub base: String,
    alpha: f64,
    /// Whether the scale is `alpha / sqrt(rank)` instead of `alpha / rank` (Kalajdzievski 2023, arXiv 2312.03732).
    rank_stabilised: bool,
}

/// What an adapter adds to one weight: `scale up down`.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    /// The linear layer by its name in the model, as in `encoder.layer.0.attention.self.query`.
    pub module: String,
    /// Rows of `down` and columns of `up`.
    pub rank: usize,
    /// `[rank, in]`
    pub down: Vec<f32>,
    /// `[out, rank]`
    pub up: Vec<f32>,
    /// `alpha / rank`
    pub scale: f64,
}

/// What an adapter's configuration says, for writing one.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterRecord {
    /// The model whose weights it changes: a repository id, or an absolute path.
    pub base: String,
    /// The commit of a repository.
    pub revision: Option<String>,
    /// The rank.
    pub rank: usize,
    /// The numerator of the scale.
    pub alpha: f64,
    /// Dropout of the input of the first matrix while training.
    pub dropout: f32,
    /// The ends of the names of the adapted layers.
    pub targets: Vec<String>,
}

impl AdapterFolder {
    /// Opens a folder; `None` where it holds no adapter.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Model`] for a configuration that is damaged, of another method than LoRA, or of a variant
    /// that is not implemented, which is named.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(ADAPTER_CONFIG);
        if !path.is_file() {
            return Ok(None);
        }
        let refuse = |problem: String| Error::model(path.display().to_string(), problem);
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let config: Value = serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
        if config["peft_type"] != "LORA" {
            return Err(refuse(format!("has `peft_type` {}, expected \"LORA\"", config["peft_type"])));
        }
        let empty = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            value => *value == "none",
        };
        let variants = [
            "use_dora",
            "use_qalora",
            "use_bdlora",
            "kasa_config",
            "velora_config",
            "bias",
            "lora_bias",
            "fan_in_fan_out",
            "rank_pattern",
            "alpha_pattern",
            "modules_to_save",
            "layer_replication",
            "trainable_token_indices",
            "target_parameters",
        ];
        if let Some(variant) = variants.iter().find(|variant| !empty(&config[**variant])) {
            return Err(refuse(format!("sets `{variant}` to {}, which is not implemented", config[*variant])));
        }
        let base = config["base_model_name_or_path"].as_str().filter(|base| !base.is_empty());
        let base = base.ok_or_else(|| refuse("has no `base_model_name_or_path`".into()))?;
        let alpha = config["lora_alpha"].as_f64().ok_or_else(|| refuse("has no `lora_alpha`".into()))?;
        let beside = folder.join(base);
        let base = match config["revision"].as_str() {
            _ if Path::new(base).is_dir() => base.to_owned(),
            _ if beside.is_dir() => beside.display().to_string(),
            Some(revision) => format!("{base}@{revision}"),
            None => base.to_owned(),
        };
        let rank_stabilised = config["use_rslora"] == true;
        Ok(Some(AdapterFolder { folder: folder.to_owned(), base, alpha, rank_stabilised }))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is added to each weight, in the order of the names.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Model`] for a missing file, a tensor that is none of LoRA's, or shapes that do not fit.
    pub fn changes(&self) -> Result<Vec<LowRank>> {
        let path = self.folder.join(ADAPTER_WEIGHTS);
        let refuse = |problem: String| Error::model(path.display().to_string(), problem);
        if !path.is_file() {
            return Err(refuse("is missing; save the adapter as safetensors, not as a pickle".into()));
        }
        let weights = Weights::open(&path)?;
        let mut changes = Vec::new();
        for name in weights.names() {
            let module = name.strip_prefix(PREFIX).unwrap_or(name);
            if module.ends_with(".lora_B.weight") {
                continue; // read with its partner
            }
            let Some(module) = module.strip_suffix(".lora_A.weight") else {
                return Err(refuse(format!("tensor `{name}` is neither `….lora_A.weight` nor `….lora_B.weight`")));
            };
            let partner = name.replace(".lora_A.", ".lora_B.");
            let shape = |name: &str| weights.info(name).map_or(&[][..], |info| &info.shape);
            let (&[rank, inputs], &[outputs, _]) = (shape(name), shape(&partner)) else {
                return Err(refuse(format!("`{name}` and `{partner}` must be two matrices")));
            };
            let divisor = if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 };
            changes.push(LowRank {
                module: module.to_owned(),
                rank,
                down: weights.tensor(name, &[rank, inputs])?,
                up: weights.tensor(&partner, &[outputs, rank])?,
                scale: self.alpha / divisor,
            });
        }
        if changes.is_empty() { Err(refuse("holds no adapter".into())) } else { Ok(changes) }
    }
}

impl AdapterRecord {
    /// `adapter_config.json`.
    pub fn config(&self) -> Value {
        json!({
            "peft_type": "LORA",
            "task_type": "FEATURE_EXTRACTION",
            "base_model_name_or_path": self.base,
            "revision": self.revision,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": self.targets,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "use_rslora": false,
            "use_dora": false,
            "modules_to_save": null,
            "rank_pattern": {},
            "alpha_pattern": {},
        })
    }
}

/// The names of a layer's two matrices in an adapter's file: `down [rank, in]` and `up [out, rank]`.
pub fn adapter_names(module: &str) -> [String; 2] {
    ["A", "B"].map(|matrix| format!("{PREFIX}{module}.lora_{matrix}.weight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(config: &Value) -> (tempfile::TempDir, Result<Option<AdapterFolder>>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(ADAPTER_CONFIG), config.to_string()).unwrap();
        let opened = AdapterFolder::open(folder.path());
        (folder, opened)
    }

    fn record() -> AdapterRecord {
        let targets = vec!["attention.self.query".to_owned()];
        AdapterRecord { base: "a/b".into(), revision: None, rank: 4, alpha: 8.0, dropout: 0.1, targets }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (folder, opened) = written(&record().config());
        let opened = opened.unwrap().unwrap();
        assert_eq!((opened.base.as_str(), opened.alpha, opened.rank_stabilised), ("a/b", 8.0, false));
        assert!(opened.changes().unwrap_err().to_string().contains("is missing"));
        std::fs::remove_file(folder.path().join(ADAPTER_CONFIG)).unwrap();
        assert!(AdapterFolder::open(folder.path()).unwrap().is_none());
    }

    #[test]
    fn a_revision_goes_with_a_repository() {
        let (_folder, opened) = written(&AdapterRecord { revision: Some("abc".into()), ..record() }.config());
        assert_eq!(opened.unwrap().unwrap().base, "a/b@abc");
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (field, value) in
            [("use_dora", json!(true)), ("bias", json!("all")), ("alpha_pattern", json!({"query": 3}))]
        {
            let mut config = record().config();
            config[field] = value;
            let problem = written(&config).1.unwrap_err().to_string();
            assert!(problem.contains(&format!("`{field}`")), "{problem}");
        }
        let mut config = record().config();
        config["peft_type"] = "IA3".into();
        assert!(written(&config).1.unwrap_err().to_string().contains("expected \"LORA\""));
    }
}
