//! The model that a command uses.

use anyhow::Result;
use engine::Device;
use finetuner::artifact::PoolingMode;
use finetuner::encoder::hub::Hub;
use finetuner::encoder::{CrossEncoder, EncoderOptions, Model, ModelOptions, source};
use finetuner::pixels::Sources;

use crate::terminal::Terminal;

/// Which model, and what to use instead of what its files say.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArguments {
    /// A folder, a Hugging Face repository id, an alias (see `finetuner models`), a run's artifact, or `mini`
    #[arg(short, long, value_name = "MODEL", default_value = "mini", env = "FINETUNER_MODEL", hide_env_values = true)]
    model: String,
    /// Cut texts to this many tokens. Default: the model's own limit
    #[arg(long, value_name = "TOKENS")]
    max_length: Option<usize>,
    /// `mean`, `cls`, `max`, `last` or `gem`. Default: what the model says, else `mean`
    #[arg(long, value_name = "MODE", value_parser = PoolingMode::from_name)]
    pooling: Option<PoolingMode>,
    /// Text put before every query. Default: the model's own
    #[arg(long, value_name = "TEXT")]
    query_prompt: Option<String>,
    /// Text put before every document. Default: the model's own
    #[arg(long, value_name = "TEXT")]
    document_prompt: Option<String>,
    /// Pictures may be URLs, which are downloaded: from public addresses only
    #[arg(long)]
    allow_urls: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArguments,
}

/// What computes.
#[derive(Debug, clap::Args)]
pub(crate) struct DeviceArguments {
    /// `cpu`, `cuda`, a GPU by its number as in `cuda:1`, or `auto`, the first GPU that can be used, else the processor
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "FINETUNER_DEVICE", hide_env_values = true)]
    device: String,
    /// `f32`, `bf16` (a GPU, or a processor with AVX-512 BF16) or `auto`, which is `bf16` on a GPU that has it
    #[arg(long, value_name = "PRECISION", default_value = "auto", env = "FINETUNER_PRECISION", hide_env_values = true)]
    precision: String,
}

impl DeviceArguments {
    pub(crate) fn open(&self, terminal: &Terminal) -> Result<Box<dyn Device>> {
        let device = finetuner::device::open(&self.device, &self.precision)?;
        if let Some(remark) = finetuner::device::remark(&*device, &self.precision) {
            terminal.warn(remark);
        }
        Ok(device)
    }
}

impl ModelArguments {
    /// The model as a cross-encoder, where it is one.
    pub(crate) fn open_if_cross_encoder(&self, terminal: &mut Terminal) -> Result<Option<CrossEncoder>> {
        let folder = find(&self.model, terminal)?.open()?;
        Ok(folder.is_cross_encoder().then(|| CrossEncoder::open(&folder, self.max_length)).transpose()?)
    }

    /// Whether it is a model over vectors.
    pub(crate) fn reads_vectors(&self) -> bool {
        source::reads_vectors(&self.model)
    }

    /// Opens the model, downloading it if need be.
    pub(crate) fn open(&self, terminal: &mut Terminal) -> Result<Model> {
        let source = find(&self.model, terminal)?;
        let options = ModelOptions {
            encoder: EncoderOptions { pooling: self.pooling, ..EncoderOptions::default() },
            max_length: self.max_length,
            query_prompt: self.query_prompt.clone(),
            document_prompt: self.document_prompt.clone(),
            sources: if self.allow_urls { Sources::default().allow_urls()? } else { Sources::default() },
        };
        Ok(Model::open(source.open()?, &options)?)
    }
}

/// Opens a model as its files say, downloading it if need be.
pub(crate) fn open_plain(model: &str, terminal: &mut Terminal) -> Result<Model> {
    Ok(Model::open(find(model, terminal)?.open()?, &ModelOptions::default())?)
}

/// Opens a cross-encoder, downloading it if need be.
pub(crate) fn open_cross_encoder(
    model: &str,
    max_length: Option<usize>,
    terminal: &mut Terminal,
) -> Result<CrossEncoder> {
    Ok(CrossEncoder::open(&find(model, terminal)?.open()?, max_length)?)
}

/// Finds a model, showing the progress of downloads.
pub(crate) fn find(model: &str, terminal: &mut Terminal) -> Result<source::ModelSource> {
    let hub = Hub::from_environment()?;
    let source = source::resolve_with(model, &hub, &mut |transfer| {
        let megabytes = |bytes: u64| (bytes / 1_000_000) as usize;
        let phase = format!("{}, MB", transfer.file);
        terminal.progress(&phase, megabytes(transfer.done_bytes), megabytes(transfer.total_bytes), None);
    })?;
    Ok(source)
}
