//! `metrics.csv`: every number of a run, one a line, for spreadsheets and plots.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A CSV file of the columns `step,metric,value`, open for writing.
#[derive(Debug)]
pub struct MetricsCsv {
    file: File,
    path: PathBuf,
}

impl MetricsCsv {
    /// Opens a file, after what it holds already: a run that goes on goes on there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let folder = super::atomic::parent(path);
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let mut file = File::options().create(true).append(true).open(path).map_err(Error::io("open", path))?;
        let empty = file.metadata().map_err(Error::io("read", path))?.len() == 0;
        if empty {
            file.write_all(b"step,metric,value\n").map_err(Error::io("write", path))?;
        }
        Ok(MetricsCsv { file, path: path.to_owned() })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&mut self, metric: &str, step: usize, value: f64) -> Result<()> {
        let mut line = csv::WriterBuilder::new().from_writer(Vec::new());
        let written = line.write_record([step.to_string().as_str(), metric, &value.to_string()]);
        let line = written
            .map_err(std::io::Error::other)
            .and_then(|()| line.into_inner().map_err(|error| std::io::Error::other(error.to_string())));
        line.and_then(|line| self.file.write_all(&line)).map_err(Error::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_on_where_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/metrics.csv");
        MetricsCsv::open(&path).unwrap().add("train_loss", 1, 0.25).unwrap();
        MetricsCsv::open(&path).unwrap().add("a, b_mrr", 2, 1e-7).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "step,metric,value\n1,train_loss,0.25\n2,\"a, b_mrr\",0.0000001\n");
    }
}
