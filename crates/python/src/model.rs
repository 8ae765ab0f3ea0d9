//! Items to embeddings, and what is measured with them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::Device;
use finetuner::Error;
use finetuner::artifact::PoolingMode;
use finetuner::data::{Kind, Modality};
use finetuner::encoder::alias::ALIASES;
use finetuner::encoder::hub::Hub;
use finetuner::encoder::source::{self, MINI, ModelSource};
use finetuner::encoder::{EncoderOptions, Model as Encoder, ModelOptions, Role};
use finetuner::evaluate::Similarity;
use finetuner::pixels::Sources;
use finetuner::train::{Measurement, read_target};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use serde_json::json;

use crate::work::{interruptible, tell};

/// What `mini` embeds into.
const MINI_DIMENSION: usize = 384;

/// A model on a device.
#[pyclass(frozen, module = "finetuner._native")]
pub(crate) struct Model(Arc<Opened>);

struct Opened {
    encoder: Encoder,
    device: Box<dyn Device>,
}

#[pymethods]
impl Model {
    /// Opens a model, downloading it if need be; `on_transfer` hears of a file, its bytes done and in all.
    #[staticmethod]
    #[pyo3(signature = (name, *, pooling=None, max_length=None, query_prompt=None, document_prompt=None, device="auto",
                        precision="auto", allow_urls=false, on_transfer=None))]
    fn open(
        py: Python<'_>,
        name: String,
        pooling: Option<String>,
        max_length: Option<usize>,
        query_prompt: Option<String>,
        document_prompt: Option<String>,
        device: &str,
        precision: &str,
        allow_urls: bool,
        on_transfer: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let (device, precision) = (device.to_owned(), precision.to_owned());
        let open = move |_: &AtomicBool| {
            let pooling = pooling.as_deref().map(PoolingMode::from_name).transpose();
            let pooling = pooling.map_err(|problem| Error::spec("pooling", problem))?;
            let options = ModelOptions {
                encoder: EncoderOptions { pooling, ..EncoderOptions::default() },
                max_length,
                query_prompt,
                document_prompt,
                sources: if allow_urls { Sources::default().allow_urls()? } else { Sources::default() },
            };
            let device = finetuner::device::open(&device, &precision)?;
            let encoder = Encoder::open(find(&name, on_transfer.as_ref())?.open()?, &options)?;
            Ok::<_, Error>(Opened { encoder, device })
        };
        Ok(Model(Arc::new(interruptible(py, open)?)))
    }

    /// Embeddings `[items, dimension]` as float32 in native order, and how many texts were cut.
    fn embed<'py>(
        &self,
        py: Python<'py>,
        items: Vec<String>,
        modality: &str,
        role: Option<&str>,
    ) -> PyResult<(Bound<'py, PyByteArray>, usize)> {
        let modality = match modality {
            "text" => Modality::Text,
            "image" => Modality::Image,
            "vector" => Modality::Vector,
            other => {
                return Err(PyValueError::new_err(format!(
                    "modality: expected `text`, `image` or `vector`, got `{other}`"
                )));
            }
        };
        let role = match role {
            None => Role::Plain,
            Some("query") => Role::Query,
            Some("document") => Role::Document,
            Some(other) => {
                return Err(PyValueError::new_err(format!("role: expected `query` or `document`, got `{other}`")));
            }
        };
        let opened = self.0.clone();
        let (embeddings, truncated) = interruptible(py, move |stop| {
            opened.encoder.embed(&*opened.device, &items, (modality, role), |_| unless_stopped(stop))
        })?;
        Ok((PyByteArray::new(py, bytemuck::cast_slice(&embeddings)), truncated))
    }

    /// Measures it on queries or scored pairs; gives JSON.
    #[pyo3(signature = (data, index_data=None, kind=None, k=20))]
    fn evaluate(
        &self,
        py: Python<'_>,
        data: PathBuf,
        index_data: Option<PathBuf>,
        kind: Option<String>,
        k: usize,
    ) -> PyResult<String> {
        let opened = self.0.clone();
        interruptible(py, move |stop| {
            let kind = kind.as_deref().map(str::parse::<Kind>).transpose()?;
            let target = read_target(&data, index_data.as_deref(), kind)?;
            let measured =
                target.measure(&opened.encoder, &*opened.device, Similarity::Cosine, k, |_| unless_stopped(stop))?;
            Ok::<_, Error>(match measured {
                Measurement::Retrieval(evaluation) => {
                    let summary = evaluation.summary();
                    json!({"k": summary.k, "metrics": summary.metrics, "original": summary.original,
                           "queries": summary.queries})
                    .to_string()
                }
                Measurement::Scored(correlation) => json!(correlation).to_string(),
            })
        })
    }

    /// Numbers in an embedding.
    #[getter]
    fn dimension(&self) -> usize {
        self.0.encoder.encoder.dimension()
    }

    /// What it reads: `text`, `image`, both, or `vector`.
    #[getter]
    fn modalities(&self) -> Vec<&'static str> {
        let names = |modality| match modality {
            Modality::Text => "text",
            Modality::Image => "image",
            Modality::Vector => "vector",
        };
        self.0.encoder.encoder.towers().iter().map(|tower| names(tower.modality())).collect()
    }

    /// Tokens a text is cut to; none where it reads no texts.
    #[getter]
    fn max_length(&self) -> Option<usize> {
        self.0.encoder.preprocessor.tokenizer().ok().map(|tokenizer| tokenizer.max_length())
    }

    /// One phrase on its shape.
    #[getter]
    fn description(&self) -> String {
        self.0.encoder.description()
    }

    /// What it computes on.
    #[getter]
    fn device(&self) -> String {
        self.0.device.name()
    }
}

/// Known short names, as JSON: `name`, `repository`, `family`, `dimension`, `description`.
#[pyfunction]
pub(crate) fn aliases() -> String {
    let inside = "English; inside this package, needs no download";
    let mini =
        json!({"name": MINI, "repository": null, "family": "bert", "dimension": MINI_DIMENSION, "description": inside});
    let others = ALIASES.iter().map(|alias| {
        json!({"name": alias.name, "repository": alias.repository, "family": alias.family,
               "dimension": alias.dimension, "description": alias.description})
    });
    std::iter::once(mini).chain(others).collect::<serde_json::Value>().to_string()
}

/// Finds a model, telling of downloads.
pub(crate) fn find(name: &str, on_transfer: Option<&Py<PyAny>>) -> finetuner::Result<ModelSource> {
    let hub = Hub::from_environment()?;
    source::resolve_with(name, &hub, &mut |transfer| {
        if let Some(on_transfer) = on_transfer {
            tell(on_transfer, (transfer.file, transfer.done_bytes, transfer.total_bytes));
        }
    })
}

fn unless_stopped(stop: &AtomicBool) -> finetuner::Result<()> {
    if stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
}
