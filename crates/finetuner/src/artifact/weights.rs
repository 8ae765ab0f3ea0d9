//! A model's tensors by name and shape, from `model.safetensors` or its shards.

use std::collections::BTreeMap;
use std::path::Path;

use super::safetensors::{SafetensorsFile, TensorInfo};
use crate::error::{Error, Result};

/// How to turn a pickle into safetensors; part of the sentence that refuses one.
pub(crate) const CONVERSION: &str = "convert it once, where PyTorch is installed and you trust the file: \
    `python -c \"import torch, safetensors.torch as s; s.save_file({k: v.clone().contiguous() for k, v in \
    torch.load('pytorch_model.bin', map_location='cpu', weights_only=True).items()}, 'model.safetensors')\"`";

/// The tensors of a model, in one file or several.
#[derive(Debug)]
pub struct Weights {
    origin: String,
    files: Vec<SafetensorsFile>,
    /// Which file holds a tensor.
    holders: BTreeMap<String, usize>,
}

impl Weights {
    /// Opens a safetensors file, or a folder's `model.safetensors`, `open_clip_model.safetensors` or
    /// `model.safetensors.index.json` with its shards.
    ///
    /// # Errors
    /// [`Error::Model`] if there is none (with a way out where there is only a pickle), if a file is damaged or if a
    /// shard lacks a tensor that the index promises; [`Error::Io`] if a file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        if !path.is_dir() {
            return Ok(Self::of(origin, vec![SafetensorsFile::open(path)?]));
        }
        let (single, index) = (path.join("model.safetensors"), path.join("model.safetensors.index.json"));
        let open_clip = path.join("open_clip_model.safetensors");
        if let Some(whole) = [&single, &open_clip].into_iter().find(|file| file.is_file()) {
            Ok(Self::of(origin, vec![SafetensorsFile::open(whole)?]))
        } else if index.is_file() {
            Self::open_shards(path, &index)
        } else {
            Err(Error::model(origin, missing(path)))
        }
    }

    /// Weights inside the binary. `name` is used in messages.
    ///
    /// # Errors
    /// [`Error::Model`] if the bytes are not a safetensors file.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Ok(Self::of(name.into(), vec![SafetensorsFile::embedded(name, bytes)?]))
    }

    fn of(origin: String, files: Vec<SafetensorsFile>) -> Self {
        let named = |(position, file): (usize, &SafetensorsFile)| {
            file.tensors().keys().map(|name| (name.clone(), position)).collect::<Vec<_>>()
        };
        let holders = files.iter().enumerate().flat_map(named).collect();
        Weights { origin, files, holders }
    }

    fn open_shards(folder: &Path, index: &Path) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let bad = |problem: String| Error::model(index.display().to_string(), problem);
        let text = std::fs::read(index).map_err(Error::io("read", index))?;
        let Index { weight_map } = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        let mut positions = BTreeMap::new();
        let mut files = Vec::new();
        let mut holders = BTreeMap::new();
        for (name, shard) in weight_map {
            let position = match positions.get(&shard) {
                Some(&position) => position,
                None => {
                    if shard.contains(['/', '\\']) || !shard.ends_with(".safetensors") {
                        return Err(bad(format!("`{shard}` is not the name of a safetensors file in this folder")));
                    }
                    files.push(SafetensorsFile::open(&folder.join(&shard))?);
                    positions.insert(shard.clone(), files.len() - 1);
                    files.len() - 1
                }
            };
            if !files[position].tensors().contains_key(&name) {
                return Err(bad(format!("tensor `{name}` should be in `{shard}`, which does not have it")));
            }
            holders.insert(name, position);
        }
        Ok(Weights { origin: folder.display().to_string(), files, holders })
    }

    /// Tensor names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.holders.keys().map(String::as_str)
    }

    /// Element type and shape of a tensor, if it is there.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.holders.get(name).and_then(|&position| self.files[position].tensors().get(name))
    }

    /// The values of a tensor that must have this shape, in row-major order, converted from F32, F16 or BF16.
    ///
    /// # Errors
    /// [`Error::Model`] if it is missing (the closest name is given), has another shape or another element type.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let Some(&position) = self.holders.get(name) else {
            let closest = self.holders.keys().min_by_key(|known| strsim::damerau_levenshtein(known, name));
            let hint = closest.map(|closest| format!(", the closest is `{closest}`")).unwrap_or_default();
            return Err(Error::model(&self.origin, format!("tensor `{name}` is missing{hint}")));
        };
        let file = &self.files[position];
        let found = &file.tensors()[name].shape;
        if found != shape {
            let problem = format!("tensor `{name}` has shape {found:?}, expected {shape:?}");
            return Err(Error::model(file.path().display().to_string(), problem));
        }
        file.f32s(name)
    }
}

/// Why a folder has no weights for us.
fn missing(folder: &Path) -> String {
    let pickle = |name: &str| name.starts_with("pytorch_model") || name.ends_with(".pt") || name.ends_with(".pth");
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let found = names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| pickle(name)).min();
    match found {
        Some(name) => format!(
            "holds its weights only as a pickle (`{name}`), which can run code when it is opened; {}",
            CONVERSION.replace("pytorch_model.bin", &name)
        ),
        None => "has no `model.safetensors`".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::safetensors::{NamedTensor, write};

    fn save(folder: &Path, file: &str, tensors: &[(&str, &[usize], &[f32])]) {
        let tensors: Vec<_> =
            tensors.iter().map(|(name, shape, values)| NamedTensor::f32(name, shape, values)).collect();
        let mut bytes = Vec::new();
        write(&mut bytes, &[], &tensors).unwrap();
        std::fs::write(folder.join(file), bytes).unwrap();
    }

    #[test]
    fn a_tensor_is_given_by_name_and_shape_and_refused_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), "model.safetensors", &[("pooler.weight", &[2, 1], &[1.0, 2.0])]);
        let weights = Weights::open(folder.path()).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["pooler.weight"]);
        assert_eq!(weights.info("pooler.weight").unwrap().shape, [2, 1]);
        assert_eq!(weights.tensor("pooler.weight", &[2, 1]).unwrap(), [1.0, 2.0]);
        let error = weights.tensor("pooler.weight", &[1, 2]).unwrap_err().to_string();
        assert!(
            error.contains("[2, 1]") && error.contains("expected [1, 2]") && error.contains("safetensors"),
            "{error}"
        );
        let error = weights.tensor("pooler.wieght", &[2, 1]).unwrap_err().to_string();
        assert!(error.contains("closest is `pooler.weight`"), "{error}");
    }

    #[test]
    fn shards_are_one_model() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), "model-00001-of-00002.safetensors", &[("a", &[1], &[1.0])]);
        save(folder.path(), "model-00002-of-00002.safetensors", &[("b", &[1], &[2.0])]);
        let index = folder.path().join("model.safetensors.index.json");
        let shards = r#""a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors""#;
        std::fs::write(&index, format!(r#"{{"weight_map": {{{shards}}}}}"#)).unwrap();
        let weights = Weights::open(folder.path()).unwrap();
        assert_eq!((weights.tensor("a", &[1]).unwrap(), weights.tensor("b", &[1]).unwrap()), (vec![1.0], vec![2.0]));

        std::fs::write(&index, r#"{"weight_map": {"c": "model-00002-of-00002.safetensors"}}"#).unwrap();
        assert!(Weights::open(folder.path()).unwrap_err().to_string().contains("`c`"));
        std::fs::write(&index, r#"{"weight_map": {"c": "../model.safetensors"}}"#).unwrap();
        assert!(Weights::open(folder.path()).unwrap_err().to_string().contains("`../model.safetensors`"));
        std::fs::write(&index, r#"{"weight_map": {"c": "model-3.safetensors"}}"#).unwrap();
        assert!(Weights::open(folder.path()).unwrap_err().to_string().contains("model-3.safetensors"));
    }

    #[test]
    fn a_folder_with_only_a_pickle_says_how_to_convert_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Weights::open(folder.path()).unwrap_err().to_string().contains("no `model.safetensors`"));
        std::fs::write(folder.path().join("model.pt"), "x").unwrap();
        let error = Weights::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("torch.load('model.pt'") && error.contains("save_file"), "{error}");
    }
}
