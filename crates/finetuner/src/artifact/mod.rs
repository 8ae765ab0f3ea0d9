//! The folder on disk: open a model, save a run, never half of either.
//!
//! - [`safetensors`]: the file format of every tensor we read or write
//! - [`weights`]: a model's tensors by name and shape, from one file or several
//! - [`files`]: where a model's files are: a folder, or inside the binary
//! - [`layout`]: what follows the transformer (pooling, dense, normalise), as sentence-transformers writes it
//! - [`folder`]: a whole model, opened
//! - [`adapter`]: low-rank changes of a model's weights, as the `peft` library writes them
//! - [`atomic`]: a file is there completely or not at all
//! - [`checkpoint`]: everything a run needs to go on, in one file
//! - [`output`]: the folder a run writes, claimed by one run at a time
//! - [`manifest`]: what an artifact contains, with checksums
//! - [`save`]: writes an artifact
//! - [`event_log`]: everything the run said
//! - [`metrics_csv`], [`tensorboard`]: the numbers of a run, for other tools
//! - [`card`]: the model card

pub mod adapter;
pub mod atomic;
pub mod card;
pub mod checkpoint;
pub mod event_log;
pub mod files;
pub mod folder;
pub mod layout;
pub mod manifest;
pub mod metrics_csv;
pub mod output;
pub mod safetensors;
pub mod save;
pub mod tensorboard;
pub mod weights;

pub use adapter::{AdapterFolder, AdapterRecord};
pub use card::RunRecord;
pub use checkpoint::Checkpoint;
pub use event_log::{EventLog, LoggedEvent};
pub use files::ModelFiles;
pub use folder::ModelFolder;
#[cfg(feature = "engine")]
pub(crate) use folder::{CLIP_VISION, PICTURES, TEXTS};
pub use layout::{Activation, Dense, Layout, PoolingMode, Step};
pub use manifest::Manifest;
pub use output::Output;
pub use safetensors::{NamedTensor, Values};
pub use save::ArtifactWriter;
#[cfg(feature = "engine")]
pub(crate) use save::TOKENIZER_FILES;
pub use weights::Weights;
