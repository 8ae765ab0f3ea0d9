//! Everything a run needs to go on, in one file: named tensors and a JSON record.

use std::path::Path;

use serde_json::Value;

use super::atomic::write_file;
use super::safetensors::{self, NamedTensor, SafetensorsFile};
use crate::error::{Error, Result};

/// The `__metadata__` key under which the JSON record lies.
const RECORD: &str = "finetuner_checkpoint";

/// A checkpoint opened for reading: a safetensors file whose metadata carries the record.
#[derive(Debug)]
pub struct Checkpoint {
    file: SafetensorsFile,
    /// What the run wrote beside the tensors: step, positions, best value …
    pub record: Value,
}

impl Checkpoint {
    /// Writes a checkpoint under a temporary name, syncs it and renames it to `path`: after a crash or on a full disk
    /// the one before is still there.
    ///
    /// # Errors
    /// [`Error::Io`]; a shape that does not fit its values or a repeated name is an `InvalidInput` in it.
    pub fn write(path: &Path, record: &Value, tensors: &[NamedTensor<'_>]) -> Result<()> {
        let record = record.to_string();
        write_file(path, |out| safetensors::write(out, &[(RECORD, &record)], tensors))
    }

    /// Opens a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Model`] if it is damaged or not a checkpoint.
    pub fn open(path: &Path) -> Result<Self> {
        let file = SafetensorsFile::open(path)?;
        let bad = |problem: String| Error::model(path.display().to_string(), problem);
        let record = file.metadata().get(RECORD).ok_or_else(|| bad("is not a checkpoint of a run".into()))?;
        let record = serde_json::from_str(record).map_err(|error| bad(format!("has a damaged record: {error}")))?;
        Ok(Checkpoint { file, record })
    }

    /// Names and shapes of the tensors, in alphabetical order.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.file.tensors().iter().map(|(name, info)| (name.as_str(), info.shape.as_slice()))
    }

    /// The values of an f32 tensor of this shape.
    ///
    /// # Errors
    /// [`Error::Model`] if it is missing or has another shape or element type.
    pub fn f32s(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.file.f32s(name)?;
        let found = &self.file.tensors()[name].shape;
        if found != shape {
            let problem =
                format!("tensor `{name}` has shape {found:?}, expected {shape:?}: not a checkpoint of this run");
            return Err(Error::model(self.file.path().display().to_string(), problem));
        }
        Ok(values)
    }

    /// The values of a u64 tensor.
    ///
    /// # Errors
    /// [`Error::Model`] if it is missing or has another element type.
    pub fn u64s(&self, name: &str) -> Result<Vec<u64>> {
        self.file.u64s(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use crate::artifact::atomic::full_disk;

    #[test]
    fn a_checkpoint_comes_back_with_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        let odd = [f32::MIN_POSITIVE / 2.0, -0.0, f32::NAN];
        let tensors = [NamedTensor::f32("weight", &[3], &odd), NamedTensor::u64("rng", &[2], &[u64::MAX, 3])];
        Checkpoint::write(&path, &serde_json::json!({"step": 7, "best": 0.1}), &tensors).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.record, serde_json::json!({"step": 7, "best": 0.1}));
        assert_eq!(checkpoint.shapes().collect::<Vec<_>>(), [("rng", &[2usize][..]), ("weight", &[3])]);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&checkpoint.f32s("weight", &[3]).unwrap()), bits(&odd));
        assert_eq!(checkpoint.u64s("rng").unwrap(), [u64::MAX, 3]);
        assert!(checkpoint.f32s("weight", &[1, 3]).unwrap_err().to_string().contains("expected [1, 3]"));
        assert!(checkpoint.f32s("missing", &[1]).unwrap_err().to_string().contains("`missing`"));
    }

    #[test]
    fn other_safetensors_files_are_not_checkpoints() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write_file(&path, |out| safetensors::write(out, &[], &[])).unwrap();
        assert!(Checkpoint::open(&path).unwrap_err().to_string().contains("not a checkpoint"));
    }

    #[cfg(unix)]
    #[test]
    fn a_full_disk_leaves_the_checkpoint_before() {
        let large = vec![1.0f32; 1 << 20];
        let save = |path: &Path, step: u32, values: &[f32]| {
            let shape = [values.len()];
            let tensors = [NamedTensor::f32("weight", &shape, values)];
            Checkpoint::write(path, &serde_json::json!({"step": step}), &tensors)
        };
        if let Some(folder) = full_disk::folder() {
            let error = save(&folder.join("checkpoint"), 2, &large).unwrap_err();
            assert!(matches!(error, Error::Io { action: "write", .. }), "{error}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        save(&path, 1, &[1.0]).unwrap();
        full_disk::repeat("artifact::checkpoint::tests::a_full_disk_leaves_the_checkpoint_before", folder.path());
        assert_eq!(Checkpoint::open(&path).unwrap().record["step"], 1);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the partial file was left behind");
        save(&path, 2, &large).unwrap();
        assert_eq!(Checkpoint::open(&path).unwrap().record["step"], 2);
    }
}
