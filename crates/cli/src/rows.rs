//! Where the rows of a table go: a CSV file, a file of JSON lines, or standard output.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::Result;
use finetuner::Error;
use finetuner::mine::Table;

use crate::terminal::{self, Terminal};

/// The target of a table.
pub(crate) enum Rows {
    Csv(PathBuf),
    Jsonl(PathBuf),
    Print,
}

impl Rows {
    /// By the ending of the path.
    ///
    /// # Errors
    /// [`Error::Spec`] for another ending.
    pub(crate) fn of(path: &Path) -> Result<Rows> {
        if path == Path::new("-") {
            return Ok(Rows::Print);
        }
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("csv") => Ok(Rows::Csv(path.into())),
            Some("jsonl" | "ndjson") => Ok(Rows::Jsonl(path.into())),
            _ => {
                let problem = format!("expected a file ending in `.csv` or `.jsonl`, or `-`, got `{}`", path.display());
                Err(Error::spec("output", problem).into())
            }
        }
    }

    /// Writes the table, whole or not at all.
    pub(crate) fn write(&self, table: &Table, terminal: &Terminal) -> Result<()> {
        let (path, csv) = match self {
            Rows::Print => {
                let mut lines = Vec::new();
                table.write_jsonl(&mut lines)?;
                return terminal::print(&String::from_utf8(lines)?);
            }
            Rows::Csv(path) => (path, true),
            Rows::Jsonl(path) => (path, false),
        };
        let partial = path.with_extension("partial");
        let file = std::fs::File::create(&partial).map_err(Error::io("write", &partial))?;
        let out = BufWriter::new(file);
        let written = if csv { table.write_csv(out) } else { table.write_jsonl(out) };
        written.map_err(Error::io("write", &partial))?;
        std::fs::rename(&partial, path).map_err(Error::io("write", path))?;
        terminal.info(&format!("{} rows in `{}`", table.rows.len(), path.display()));
        Ok(())
    }
}
