//! Training data of queries and texts that nobody has judged.

use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use finetuner::artifact::atomic::write_file;
use finetuner::encoder::{CrossEncoder, Model, ModelOptions};
use finetuner::mine::{SynthesisOptions, relations_table, synthesize as relate};
use finetuner::{Error, Result};
use pyo3::prelude::*;

use crate::error::IntoPython;
use crate::model::find;
use crate::training::Stop;
use crate::work::tell;

/// Relates texts to queries, scores them, writes rows (JSON lines) and gives how many; `None` where `stop` ended it.
/// `on_progress` hears of a phase, what is done and in all.
#[pyfunction]
pub(crate) fn synthesize(
    py: Python<'_>,
    queries: Vec<String>,
    corpus: Vec<String>,
    models: Vec<String>,
    cross_encoder: String,
    num_relations: usize,
    device: &str,
    output: PathBuf,
    on_progress: Py<PyAny>,
    stop: &Stop,
) -> PyResult<Option<usize>> {
    let (device, stop) = (device.to_owned(), stop.0.clone());
    let work = move || -> Result<Option<usize>> {
        let device = finetuner::device::open(&device, "auto")?;
        let cross_encoder = CrossEncoder::open(&find(&cross_encoder, None)?.open()?, None)?;
        let open = |name: &String| Model::open(find(name, None)?.open()?, &ModelOptions::default());
        let encoders = models.iter().map(open).collect::<Result<Vec<_>>>()?;
        let candidates = SynthesisOptions::default().candidates.max(num_relations);
        let options = SynthesisOptions { num_relations, candidates, ..SynthesisOptions::default() };
        let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
        let corpus: Vec<&str> = corpus.iter().map(String::as_str).collect();
        let mut progress = |phase: &str, done: usize, total: usize| {
            tell(&on_progress, (phase, done, total));
            if stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
        };
        let relations = relate(&queries, &corpus, &encoders, &cross_encoder, &*device, &options, &mut progress);
        let relations = match relations {
            Err(Error::Stopped) => return Ok(None),
            relations => relations?,
        };
        let table = relations_table(&queries, &corpus, &relations);
        write_file(&output, |out| table.write_jsonl(BufWriter::new(out)))?;
        Ok(Some(relations.len()))
    };
    py.detach(work).map_err(|error| error.into_python(py))
}
