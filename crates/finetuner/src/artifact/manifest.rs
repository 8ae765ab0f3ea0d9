//! `finetuner.json`: what an artifact contains and what made it. Written last, so an artifact without it is not one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The manifest's file name.
pub const MANIFEST: &str = "finetuner.json";

/// The format we write. A reader opens every version up to its own.
pub const FORMAT: u32 = 1;

/// What an artifact contains and what made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format, [`FORMAT`].
    pub format: u32,
    /// Names and versions of what made it; `finetuner` is always there.
    pub versions: BTreeMap<String, String>,
    /// The run's specification, every default filled in.
    pub spec: Value,
    /// Every file by name, except the manifest and `events.jsonl`, which grows on.
    pub files: BTreeMap<String, FileRecord>,
}

/// One file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

impl Manifest {
    /// Reads a manifest. `model` is used in messages.
    ///
    /// # Errors
    /// [`Error::Model`] if it is damaged or of a later format.
    pub fn read(model: &str, value: Value) -> Result<Self> {
        match value["format"].as_u64() {
            Some(format) if format > u64::from(FORMAT) => {
                let problem =
                    format!("was written by a later Finetuner (format {format}, we read up to {FORMAT}); update");
                Err(Error::model(model, problem))
            }
            _ => serde_json::from_value(value)
                .map_err(|error| Error::model(model, format!("`{MANIFEST}` is damaged: {error}"))),
        }
    }

    /// Compares every file of the artifact in `folder` with its checksum.
    ///
    /// # Errors
    /// [`Error::Model`] that lists the missing and changed files.
    pub fn verify(&self, folder: &Path) -> Result<()> {
        let mut problems = Vec::new();
        for (name, record) in &self.files {
            let path = folder.join(name);
            let mut hash = Hashing::new(std::io::sink());
            match File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut hash)) {
                Ok(_) if hash.record() == *record => {}
                Ok(_) => problems.push(format!("`{name}` has changed since it was written")),
                Err(error) => problems.push(format!("`{name}`: {error}")),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::model(folder.display().to_string(), problems.join("; "))) }
    }
}

/// Passes bytes on and keeps their checksum.
pub(crate) struct Hashing<W> {
    pub(crate) inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Hashing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Hashing { inner, hash: Sha256::new(), bytes: 0 }
    }

    pub(crate) fn record(&self) -> FileRecord {
        FileRecord { sha256: hexadecimal(&self.hash.clone().finalize()), bytes: self.bytes }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hash.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_checksum_is_sha256() {
        let mut hash = Hashing::new(std::io::sink());
        hash.write_all(b"abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.record(), FileRecord { sha256: expected.into(), bytes: 3 });
    }

    #[test]
    fn a_later_format_and_a_damaged_manifest_are_refused() {
        let error = Manifest::read("runs/first", json!({"format": 99})).unwrap_err().to_string();
        assert!(error.contains("later Finetuner") && error.contains("99"), "{error}");
        assert!(Manifest::read("runs/first", json!({"format": 1})).unwrap_err().to_string().contains("damaged"));
    }

    /// Once written, a format is read for ever: add the next one's fixture, never change this.
    #[test]
    fn format_1_opens() {
        let value = json!({
            "format": 1,
            "versions": {"finetuner": "0.1.0"},
            "spec": {"model": "mini", "a field of another version": true},
            "files": {"config.json": {"sha256": "00", "bytes": 2}},
            "something new": 1,
        });
        let manifest = Manifest::read("runs/first", value).unwrap();
        assert_eq!((manifest.spec["model"].as_str(), manifest.files["config.json"].bytes), (Some("mini"), 2));
    }
}
