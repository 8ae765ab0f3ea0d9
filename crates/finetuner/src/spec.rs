//! `RunSpec`: every decision of a run as data.
//!
//! The same names stand in the TOML or JSON file, on the command line (dashes for underscores), in the environment
//! (`FINETUNER_LEARNING_RATE`) and in Python. Precedence, highest first: flag, environment, file, default
//! ([`RunSpec::resolve`]). Unknown fields are refused with the nearest known name; [`RunSpec::check`] lists every
//! problem at once.

mod apply;
mod check;
mod datasets;
mod device;
mod duration;
mod field;
mod preset;
mod read;
mod value;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::datasets::DATASET_FIELDS;
pub use self::device::DeviceChoice;
pub use self::duration::parse_duration;
use self::field::Typed;
pub use self::field::{Field, FieldType};
pub use self::value::{parse_options, split_list};

/// Options of a loss, miner, optimiser or scheduler: `key=value` pairs whose names and types the chosen one defines.
pub type Options = serde_json::Map<String, serde_json::Value>;

/// Makes the struct, its defaults and the table of its fields from one list.
macro_rules! run_spec {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr,)*) => {
        /// Everything that decides what a training run does.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct RunSpec {
            $($(#[doc = $doc])+ pub $name: $type,)*
        }

        impl Default for RunSpec {
            fn default() -> Self {
                RunSpec { $($name: $default,)* }
            }
        }

        impl RunSpec {
            /// Every field, in order: what help texts and documentation are made from.
            pub const FIELDS: &'static [Field] = &[$(Field {
                name: stringify!($name),
                value: <$type as Typed>::TYPE,
                optional: <$type as Typed>::OPTIONAL,
                doc: concat!($($doc),+).trim_ascii(),
            },)*];
        }
    };
}

run_spec! {
    /// A folder, a Hugging Face repository id, an alias, an earlier run's artifact, `mlp` for vectors, or `mini`. Default `mini`.
    model: String = "mini".into(),
    /// `small`: for a few hundred examples. A low rate, lower in lower layers, early stopping on a held-out part and weights mixed with the pretrained ones; of two models that are joined only the projection learns. It fills only what is not set, and says what and why.
    preset: Option<String> = None,
    /// Options of `mlp`, a perceptron over vectors from random weights: `hidden_sizes` (one layer as wide as the vectors), `bias` (true), `activation` between layers (`identity`; `relu`, `gelu`, `tanh`, `sigmoid`), `l2` (false), which gives embeddings the length 1, and `input_size`, which is the data's.
    model_options: Options = Options::new(),
    /// A model of pictures joined with `model`, which then is one of texts: both embed into the space of the texts, the pictures through a new projection unless they are as wide already. Of a CLIP of transformers it is the image tower.
    image_model: Option<String> = None,
    /// The examples to learn from: CSV, JSONL, Parquet, lines of text, vectors (`.npy`, lists of numbers), or a BEIR folder as `DIR:split`. Here and wherever a file is named, columns of other names than the known ones are told behind it: `products.csv:anchor=name,positive=description`.
    train_data: PathBuf = PathBuf::new(),
    /// Several data sets at once in place of `train_data`: a table each, with `train_data` and whatever of `eval_data`, `kind`, `loss`, `batch_size` … is its own.
    datasets: Vec<Options> = Vec::new(),
    /// Whose batch is next: `proportional`, where every batch comes once, or `round_robin`, until the first data set ends. Default `proportional`.
    dataset_sampler: String = "proportional".into(),
    /// Held-out examples of the same kind: validation loss, and retrieval metrics unless `query_data` is given. Beside texts alone also of another kind, such as scored pairs: metrics only.
    eval_data: Option<PathBuf> = None,
    /// Share of `train_data` held out when `eval_data` is not given. Default 0.
    val_split: f64 = 0.0,
    /// Queries for the before and after retrieval metrics; a BEIR `DIR:split` brings its own index.
    query_data: Option<PathBuf> = None,
    /// What the queries search. Labelled queries without it are searched against themselves, excluding self.
    index_data: Option<PathBuf> = None,
    /// `pairs`, `triplets`, `labelled`, `scored`, `single`, `scored_triplets` or `labelled_pairs`; taken from the header where not
    /// given.
    kind: Option<String> = None,
    /// Pictures that cannot be used (missing, damaged, not pictures) are left out with their rows and counted in the report, instead of ending the run. Default false.
    skip_bad: bool = false,
    /// Pictures may be URLs, which are downloaded: from public addresses only. Default false.
    allow_urls: bool = false,
    /// Warnings about the data end the run before it starts. Default false.
    strict: bool = false,
    /// Measures on general sentences, before and after, whether the model forgets. Default true.
    canary: bool = true,
    /// The loss by name. Default `auto`: `TripletMarginLoss`, or what suits scored pairs (`CoSENTLoss`), a teacher's scores (`MarginMSELoss`) or texts alone (`MultipleNegativesRankingLoss`).
    loss: String = "auto".into(),
    /// Random views of training pictures: `none`, `simclr` (a random part, mirrored, in other colours, grey or blurred), `supervised` (a random part, mirrored) or `auto`, which is `simclr` for pictures alone and else `none`. Default `auto`.
    augment: String = "auto".into(),
    /// Options of the loss.
    loss_options: Options = Options::new(),
    /// A model that is not trained, for losses that compare with one: it leaves out false negatives (`GISTEmbedLoss`) or teaches (`EmbedDistillLoss`, `MSELoss`).
    guide: Option<String> = None,
    /// The miner by name; without one every tuple of the batch is used.
    miner: Option<String> = None,
    /// Options of the miner.
    miner_options: Options = Options::new(),
    /// `auto`, `class`, `random`, `m_per_class`, `group_by_label`, `hierarchical` or `no_duplicates`. Default `auto`: what the loss needs.
    sampler: String = "auto".into(),
    /// Options of the sampler: `super_classes_per_batch` (2) and `batches_per_super_tuple` (4) of `hierarchical`.
    sampler_options: Options = Options::new(),
    /// Items of each class in a class-sampled batch. Default 4.
    num_items_per_class: usize = 4,
    /// `Adam`, `AdamW`, `SGD`, `RAdam`, `NAdam`, `Adamax`, `Adagrad`, `Adadelta`, `RMSprop`, `ASGD` or `Rprop`. Default `Adam`.
    optimizer: String = "Adam".into(),
    /// Options of the optimiser, `layer_wise_lr_decay`, and of two towers `learning_rate_text` and `learning_rate_image`, where one is not to learn at `learning_rate`.
    optimizer_options: Options = Options::new(),
    /// The optimiser of the loss's own parameters, such as class centres; without one that of `optimizer`, with its own options.
    loss_optimizer: Option<String> = None,
    /// Options of `loss_optimizer`, and `learning_rate`, which is the run's unless given.
    loss_optimizer_options: Options = Options::new(),
    /// Learning rate. Default 1e-5.
    learning_rate: f64 = 1e-5,
    /// Passes over the training data. Default 5.
    epochs: usize = 5,
    /// Examples per optimiser step. Default 64.
    batch_size: usize = 64,
    /// Tokens the encoder sees at once; a larger batch goes through the gradient cache. Default: 16,384, and 4,096 where a batch has more; on a GPU as many as its memory holds. Where memory runs out it is halved.
    micro_batch_tokens: Option<usize> = None,
    /// `constant`, `linear`, `cosine`, `polynomial`, `inverse_sqrt`, `warmup_stable_decay` or another of `schedules.md`; without one the rate is constant.
    scheduler: Option<String> = None,
    /// Options of the scheduler.
    scheduler_options: Options = Options::new(),
    /// Warm-up: steps if 1 or more, a share of the run if less than 1. Default 0.
    warmup: f64 = 0.0,
    /// Clip the global norm of the gradients of the model's weights (not of the loss's own) to this; 0: off. Default 1.
    max_grad_norm: f64 = 1.0,
    /// Tokens a text is cut to; default: the model's own limit.
    max_length: Option<usize> = None,
    /// `mean`, `cls`, `max`, `last` or `gem`, a generalised mean whose power is learnt; of the texts where two models are joined. Default: what the model says, else `mean`.
    pooling: Option<String> = None,
    /// Options of `gem`: the power `p` it starts with (3) and `eps`, what smaller numbers are raised to (1e-6).
    pooling_options: Options = Options::new(),
    /// Adds a projection head of this width.
    output_dim: Option<usize> = None,
    /// `embeddings`, `layers:0-3`, `all`, `statistics` (of batch norms), or several joined by commas; of one of two towers `text` or `image`, or a part of it as in `text:embeddings`.
    freeze: Option<String> = None,
    /// Low-rank adapters beside frozen weights, as in `rank=8,alpha=16,targets=query+value,dropout=0,save=merged` (the
    /// defaults); `targets` may be `all-linear`, `save` may be `adapter`. Without it all weights learn.
    lora: Options = Options::new(),
    /// `pretrained`, `random`, or `random:image`, which is random in `image_model` only: that needs no weights then. Default `pretrained`.
    init: String = "pretrained".into(),
    /// Text put before every query (first column). Default: the model's own.
    query_prompt: Option<String> = None,
    /// Text put before every document (other columns). Default: the model's own.
    document_prompt: Option<String> = None,
    /// The numbers that are multiplied: `f32`, `bf16` (weights, their gradients and every sum stay `f32`; on the processor those of linear layers and of attention alone, with AVX-512 BF16, else it says so and takes `f32`) or `auto`. Default `auto`: `bf16` on a GPU that has it, else `f32`.
    precision: String = "auto".into(),
    /// `cpu`, `cuda`, a GPU by its number as in `cuda:1`, several that share every batch as in `cuda:0,1` or `cuda:all` (`fit` only), or `auto`. Default `auto`: the first GPU that can be used, else the processor; `finetuner devices` shows what there is.
    device: String = "auto".into(),
    /// Worker threads; default: all cores.
    threads: Option<usize> = None,
    /// Everything random comes from this. Default 42.
    seed: u64 = 42,
    /// `Name(field=value,…)`, as in `EarlyStopping(monitor=val_loss,patience=2)`.
    callbacks: Vec<String> = Vec::new(),
    /// Train for at most so long, as in `90s`, `30m` or `1h30m`, the measurements included; the run then ends as after its
    /// last step. Without it all epochs are trained.
    max_time: Option<String> = None,
    /// Train on 25 and 50 % of the data first, and say whether more labels or more time would pay. Default false.
    advise: bool = false,
    /// The folder the run writes. Default `runs/<model>-<time>`.
    output: Option<PathBuf> = None,
    /// Continue the run in `output` from its last checkpoint. Default false.
    resume: bool = false,
    /// `best`, `last`, or `interpolate` (trained and pretrained weights mixed, see `WiSEFTCallback`): which weights the
    /// artifact holds. Default `best` when something is evaluated.
    keep: Option<String> = None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_the_fields_that_are_read_and_written() {
        let serde_json::Value::Object(written) = serde_json::to_value(RunSpec::default()).unwrap() else { panic!() };
        let names: Vec<&str> = RunSpec::FIELDS.iter().map(|field| field.name).collect();
        assert_eq!(names, written.keys().collect::<Vec<_>>());
        for field in RunSpec::FIELDS {
            assert!(field.accepts(&written[field.name]), "{}: {}", field.name, written[field.name]);
            assert!(field.doc.ends_with('.') && !field.doc.contains('\n'), "{}: {}", field.name, field.doc);
        }
    }

    #[test]
    fn the_documentation_of_a_field_states_its_default() {
        for field in RunSpec::FIELDS {
            if let Some(default) = field.default() {
                let stated = field.doc.replace(['`', ','], "").contains(&format!("Default {default}"));
                assert!(stated, "{}: default {default} is not in: {}", field.name, field.doc);
            }
        }
    }

    #[test]
    fn a_spec_survives_being_written_and_read() {
        let spec = RunSpec { train_data: "a.csv".into(), threads: Some(2), ..RunSpec::default() };
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<RunSpec>(&json).unwrap(), spec);
        let toml = toml::to_string(&spec).unwrap();
        assert_eq!(toml::from_str::<RunSpec>(&toml).unwrap(), spec);
    }
}
