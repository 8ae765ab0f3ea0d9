//! Embeddings in the file formats that other tools read.

mod jsonl;
mod npy;
mod parquet;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use finetuner::Error;
use finetuner::artifact::atomic::write_file;
use finetuner::error::nearest;

use crate::texts::Texts;

/// Texts and their embeddings `[texts, dimension]`, row-major.
pub(crate) struct Vectors<'a> {
    pub(crate) texts: &'a Texts,
    pub(crate) embeddings: &'a [f32],
    pub(crate) dimension: usize,
}

/// Where embeddings go, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// JSON lines on standard output.
    StandardOutput,
    /// A file that is there completely or not at all.
    File(PathBuf, Format),
}

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// NumPy: float32 `[texts, dimension]`, without the texts.
    Npy,
    /// An object a line: `text`, `embedding`, and `id` and `label` where the input has them; of vectors without `text`.
    Jsonl,
    /// Columns `text` (of vectors: their ids), `embedding` (a list of floats), and `label` where the input has classes.
    Parquet,
}

impl Target {
    const FORMATS: [(&'static str, Format); 3] =
        [("npy", Format::Npy), ("jsonl", Format::Jsonl), ("parquet", Format::Parquet)];

    /// `-`, or a file whose ending names the format.
    ///
    /// # Errors
    /// [`Error::Spec`] with the known endings.
    pub(crate) fn of(output: &Path) -> Result<Target> {
        if output == Path::new("-") {
            return Ok(Target::StandardOutput);
        }
        let ending = output.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_lowercase();
        let format = Self::FORMATS.iter().find(|(name, _)| *name == ending).map(|(_, format)| *format);
        let format = format.ok_or_else(|| {
            let known = nearest(&ending, Self::FORMATS.iter().map(|(name, _)| *name));
            Error::spec("output", format!("`{}` has no known ending{known}", output.display()))
        })?;
        Ok(Target::File(output.to_owned(), format))
    }

    /// Writes everything, or nothing.
    pub(crate) fn write(&self, vectors: &Vectors<'_>) -> Result<()> {
        match self {
            Target::StandardOutput => {
                let mut out = std::io::BufWriter::new(std::io::stdout().lock());
                jsonl::write(vectors, &mut out)?;
                Ok(out.flush()?)
            }
            Target::File(path, format) => Ok(write_file(path, |out| match format {
                Format::Npy => npy::write(vectors, out),
                Format::Jsonl => jsonl::write(vectors, out),
                Format::Parquet => parquet::write(vectors, out),
            })?),
        }
    }
}

impl Vectors<'_> {
    /// Each text's place, text and embedding.
    fn rows(&self) -> impl Iterator<Item = (usize, &str, &[f32])> {
        let rows = self.texts.texts.iter().zip(self.embeddings.chunks_exact(self.dimension));
        rows.enumerate().map(|(place, (text, embedding))| (place, text.as_str(), embedding))
    }
}
