//! Items to embed or to search: texts, one a line, a row or an object; pictures of a folder; or vectors.

use std::io::Read;
use std::path::Path;

use anyhow::Result;
use engine::Device;
use finetuner::Error;
use finetuner::data::{Example, Kind, Modality, read};
use finetuner::encoder::{Model, Role};

use crate::terminal::Terminal;

/// Texts, addresses of pictures or vectors, in their order, equal ones kept apart.
pub(crate) struct Texts {
    pub(crate) texts: Vec<String>,
    pub(crate) modality: Modality,
    /// The data's own ids, or none.
    pub(crate) ids: Option<Vec<String>>,
    /// The class of each, where it was asked for and the data has classes.
    pub(crate) labels: Option<Vec<String>>,
}

impl Texts {
    /// Reads `.txt`, `.csv`, `.jsonl`, `.parquet`, `.npy` or a folder of pictures, or lines from standard input where the path
    /// is `-`. With `vectors` those beside texts are taken in place of
    /// these.
    pub(crate) fn read(input: &Path, vectors: bool, terminal: &Terminal) -> Result<Self> {
        Self::read_as(input, (vectors, false), terminal)
    }

    /// The same with the classes of labelled data.
    pub(crate) fn read_labelled(input: &Path, vectors: bool, terminal: &Terminal) -> Result<Self> {
        Self::read_as(input, (vectors, true), terminal)
    }

    fn read_as(input: &Path, (vectors, labelled): (bool, bool), terminal: &Terminal) -> Result<Self> {
        if input == Path::new("-") {
            return Ok(Texts { texts: standard_input()?, modality: Modality::Text, ids: None, labels: None });
        }
        let classes = if labelled { read(input, None).ok().filter(|data| data.kind == Kind::Labelled) } else { None };
        let data = match classes {
            Some(data) => data,
            None => read(input, Some(Kind::Single))?,
        };
        let data = if vectors { data.into_vectors()? } else { data };
        terminal.info(&data.decision);
        let texts = data.examples.iter().filter_map(|example| match example {
            Example::Single { item } | Example::Labelled { item, .. } => Some(data.items.get(*item).to_owned()),
            _ => None,
        });
        let texts = texts.collect();
        let modalities: Vec<Modality> =
            Modality::ALL.into_iter().filter(|modality| data.items.has(*modality)).collect();
        let [modality] = modalities[..] else {
            let problem = "expected texts, pictures or vectors, got several of them";
            return Err(Error::data(input, None, problem).into());
        };
        let label = |example: &Example| match example {
            Example::Labelled { label, .. } => Some(data.label_names[*label as usize].clone()),
            _ => None,
        };
        let labels = data.examples.iter().map(label).collect();
        Ok(Texts { texts, modality, ids: (!data.ids.is_empty()).then_some(data.ids), labels })
    }

    /// Embeddings `[texts, dimension]`, and the dimension.
    pub(crate) fn embed(
        &self,
        model: &Model,
        device: &dyn Device,
        role: Role,
        terminal: &mut Terminal,
    ) -> Result<(Vec<f32>, usize)> {
        let total = self.texts.len();
        let progress = |done: usize| {
            terminal.progress("encode", done, total, None);
            Ok(())
        };
        let (embeddings, truncated) = model.embed(device, &self.texts, (self.modality, role), progress)?;
        if truncated > 0 {
            let limit = model.preprocessor.tokenizer()?.max_length();
            terminal.warn(&format!("{truncated} of {total} texts were cut at {limit} tokens"));
        }
        Ok((embeddings, model.encoder.dimension()))
    }

    /// The data's own id of a text, else its number from 1.
    pub(crate) fn id(&self, place: usize) -> String {
        self.ids.as_ref().map_or_else(|| (place + 1).to_string(), |ids| ids[place].clone())
    }
}

/// The lines of standard input.
fn standard_input() -> Result<Vec<String>> {
    let name = Path::new("standard input");
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(Error::io("read", name))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count() as u64;
        Error::data(name, line, "expected UTF-8")
    })?;
    let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if let Some(empty) = lines.iter().position(String::is_empty) {
        return Err(Error::data(name, empty as u64 + 1, "expected a text, got an empty line").into());
    }
    if lines.is_empty() {
        return Err(Error::data(name, None, "holds no texts").into());
    }
    Ok(lines)
}
