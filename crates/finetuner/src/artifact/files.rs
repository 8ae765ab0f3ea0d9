//! Where a model's files are: a folder, or inside the binary.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::weights::Weights;
use crate::error::{Error, Result};

/// The files of one model, addressed by names such as `config.json` or `1_Pooling/config.json`.
#[derive(Debug, Clone)]
pub enum ModelFiles {
    /// A folder on disk.
    Folder(PathBuf),
    /// Files compiled into the binary.
    Embedded {
        /// The model's name, used in messages.
        name: &'static str,
        /// File names and contents.
        files: &'static [(&'static str, &'static [u8])],
    },
}

impl ModelFiles {
    /// The folder, or the name of the embedded model.
    pub fn name(&self) -> String {
        match self {
            ModelFiles::Folder(folder) => folder.display().to_string(),
            ModelFiles::Embedded { name, .. } => (*name).to_owned(),
        }
    }

    /// The contents of a file; `None` if there is no such file.
    ///
    /// # Errors
    /// [`Error::Io`] if it is there but cannot be read.
    pub fn read(&self, file: &str) -> Result<Option<Cow<'static, [u8]>>> {
        match self {
            ModelFiles::Folder(folder) => {
                let path = folder.join(file);
                match std::fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes.into())),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Error::io("read", path)(error)),
                }
            }
            ModelFiles::Embedded { files, .. } => {
                Ok(files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| Cow::Borrowed(*bytes)))
            }
        }
    }

    /// The contents of a JSON file; `None` if there is no such file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Model`] if it is not JSON.
    pub fn json(&self, file: &str) -> Result<Option<Value>> {
        let Some(bytes) = self.read(file)? else { return Ok(None) };
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::model(self.name(), format!("`{file}` is not valid JSON: {error}")))?;
        Ok(Some(value))
    }

    /// The weights in a subfolder; `""` for the model's own.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn weights(&self, subfolder: &str) -> Result<Weights> {
        match self {
            ModelFiles::Folder(folder) => Weights::open(&folder.join(subfolder)),
            ModelFiles::Embedded { name, files } => {
                let file = join(subfolder, "model.safetensors");
                match files.iter().find(|(name, _)| *name == file) {
                    Some((_, bytes)) => Weights::embedded(&format!("{name}/{file}"), bytes),
                    None => Err(Error::model(*name, format!("`{file}` is missing"))),
                }
            }
        }
    }
}

impl From<&Path> for ModelFiles {
    fn from(folder: &Path) -> Self {
        ModelFiles::Folder(folder.to_owned())
    }
}

/// A file in a subfolder, where the subfolder may be `""`.
pub(crate) fn join(subfolder: &str, file: &str) -> String {
    if subfolder.is_empty() { file.to_owned() } else { format!("{}/{file}", subfolder.trim_end_matches('/')) }
}
