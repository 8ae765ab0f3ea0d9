//! `RunSpec`: every decision of a run as data.
//!
//! The same names stand in the TOML or JSON file, on the command line (dashes for underscores) and in Python.
//! Precedence, highest first: flag, environment, file, default. Unknown fields are refused with the nearest known
//! name; [`RunSpec::check`] lists every problem at once.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Options of a loss, miner, optimiser or scheduler: `key=value` pairs whose names and types the chosen one defines.
pub type Options = serde_json::Map<String, serde_json::Value>;

/// Everything that decides what a training run does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSpec {
    /// A folder, a Hugging Face repository id, an alias, an earlier run's artifact, or `mini`.
    pub model: String,
    /// The examples to learn from: CSV, JSONL or a BEIR folder as `DIR:split`.
    pub train_data: PathBuf,
    /// Held-out examples of the same kind: validation loss, and retrieval metrics unless `query_data` is given.
    pub eval_data: Option<PathBuf>,
    /// Share of `train_data` held out when `eval_data` is not given. Default 0.
    pub val_split: f64,
    /// Queries for the before and after retrieval metrics; a BEIR `DIR:split` brings its own index.
    pub query_data: Option<PathBuf>,
    /// What the queries search. Labelled queries without it are searched against themselves, excluding self.
    pub index_data: Option<PathBuf>,
    /// `pairs`, `triplets`, `labelled`, `scored` or `single`; taken from the header where not given.
    pub kind: Option<String>,
    /// The loss by name. Default `TripletMarginLoss`.
    pub loss: String,
    /// Options of the loss.
    pub loss_options: Options,
    /// The miner by name; without one every tuple of the batch is used.
    pub miner: Option<String>,
    /// Options of the miner.
    pub miner_options: Options,
    /// `auto`, `class` or `random`. Default `auto`: what the loss needs.
    pub sampler: String,
    /// Items of each class in a class-sampled batch. Default 4.
    pub num_items_per_class: usize,
    /// `Adam`, `AdamW` or `SGD`. Default `Adam`.
    pub optimizer: String,
    /// Options of the optimiser, and `layer_wise_lr_decay`.
    pub optimizer_options: Options,
    /// Learning rate. Default 1e-5.
    pub learning_rate: f64,
    /// Passes over the training data. Default 5.
    pub epochs: usize,
    /// Examples per optimiser step. Default 64.
    pub batch_size: usize,
    /// Tokens the encoder sees at once; a larger batch goes through the gradient cache. Default 16,384.
    pub micro_batch_tokens: usize,
    /// `constant`, `linear`, `cosine` or `polynomial`; without one the rate is constant.
    pub scheduler: Option<String>,
    /// Options of the scheduler.
    pub scheduler_options: Options,
    /// Warm-up: steps if 1 or more, a share of the run if less than 1. Default 0.
    pub warmup: f64,
    /// Clip the global gradient norm to this; 0 switches clipping off. Default 1.
    pub max_grad_norm: f64,
    /// Tokens a text is cut to; default: the model's own limit.
    pub max_length: Option<usize>,
    /// `mean`, `cls`, `max`, `last` or `gem`; default: what the model says, else `mean`.
    pub pooling: Option<String>,
    /// Adds a projection head of this width.
    pub output_dim: Option<usize>,
    /// `embeddings`, `layers:0-3`, `all`, or several joined by commas.
    pub freeze: Option<String>,
    /// `pretrained` or `random`. Default `pretrained`.
    pub init: String,
    /// Text put before every query (first column). Default: the model's own.
    pub query_prompt: Option<String>,
    /// Text put before every document (other columns). Default: the model's own.
    pub document_prompt: Option<String>,
    /// `f32`.
    pub precision: String,
    /// `cpu` or `auto`.
    pub device: String,
    /// Worker threads; default: all cores.
    pub threads: Option<usize>,
    /// Everything random comes from this. Default 42.
    pub seed: u64,
    /// `Name(field=value,…)`, as in `EarlyStopping(monitor=val_loss,patience=2)`.
    pub callbacks: Vec<String>,
    /// The folder the run writes. Default `runs/<model>-<time>`.
    pub output: Option<PathBuf>,
    /// Continue the run in `output` from its last checkpoint.
    pub resume: bool,
    /// `best`, `last` : which weights the artifact holds. Default `best` when something is evaluated.
    pub keep: Option<String>,
}

impl Default for RunSpec {
    fn default() -> Self {
        RunSpec {
            model: "mini".into(),
            train_data: PathBuf::new(),
            eval_data: None,
            val_split: 0.0,
            query_data: None,
            index_data: None,
            kind: None,
            loss: "TripletMarginLoss".into(),
            loss_options: Options::new(),
            miner: None,
            miner_options: Options::new(),
            sampler: "auto".into(),
            num_items_per_class: 4,
            optimizer: "Adam".into(),
            optimizer_options: Options::new(),
            learning_rate: 1e-5,
            epochs: 5,
            batch_size: 64,
            micro_batch_tokens: 16_384,
            scheduler: None,
            scheduler_options: Options::new(),
            warmup: 0.0,
            max_grad_norm: 1.0,
            max_length: None,
            pooling: None,
            output_dim: None,
            freeze: None,
            init: "pretrained".into(),
            query_prompt: None,
            document_prompt: None,
            precision: "f32".into(),
            device: "auto".into(),
            threads: None,
            seed: 42,
            callbacks: Vec::new(),
            output: None,
            resume: false,
            keep: None,
        }
    }
}
