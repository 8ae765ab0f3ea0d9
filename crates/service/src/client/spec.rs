//! A spec as a server takes it: its data goes there first, and ids stand in place of paths.

use std::path::Path;

use finetuner::data::Address;
use finetuner::spec::{FieldType, RunSpec};
use serde_json::{Map, Value};

use super::Client;
use super::error::{Error, Result};
use super::pack::{Holds, pack};

impl Client {
    /// Uploads what the spec names, folders as one zip each, and gives every field that is not at its default, with ids in
    /// place of paths (`file-…:test` for a split of a BEIR folder); `progress` hears of a path, its bytes done and in all.
    ///
    /// # Errors
    /// [`Error::Local`] for a folder without data, else as [`Client::upload`].
    pub fn upload_spec(&self, spec: &RunSpec, progress: &mut dyn FnMut(&Path, u64, u64)) -> Result<Map<String, Value>> {
        let object = |spec: &RunSpec| match serde_json::to_value(spec) {
            Ok(Value::Object(fields)) => Ok(fields),
            _ => Err(Error::Protocol("a spec cannot be written as JSON".into())),
        };
        let (defaults, mut fields) = (object(&RunSpec::default())?, object(spec)?);
        fields.retain(|name, value| defaults.get(name) != Some(value) && name != "output");
        let mut bring = |value: &mut Value| -> Result<()> {
            if let Some(path) = value.as_str().filter(|path| !path.is_empty()) {
                *value = Value::String(self.upload_data(Path::new(path), progress)?);
            }
            Ok(())
        };
        for field in RunSpec::FIELDS {
            match (fields.get_mut(field.name), field.value) {
                (Some(value), FieldType::Path) => bring(value)?,
                (Some(Value::Array(tables)), FieldType::Tables) => {
                    for (name, value) in tables.iter_mut().filter_map(Value::as_object_mut).flatten() {
                        if name.ends_with("_data") {
                            bring(value)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    /// The id of what lies at a path, and the split of it that is meant.
    fn upload_data(&self, path: &Path, progress: &mut dyn FnMut(&Path, u64, u64)) -> Result<String> {
        let (packed, split) = match Address::of(path)? {
            Address::Beir { folder, split } => (Some(pack(&folder, Holds::Beir)?), split),
            Address::Pictures(folder) => (Some(pack(&folder, Holds::Pictures)?), None),
            Address::Shards(path) if path.is_dir() => (Some(pack(&path, Holds::Pictures)?), None),
            Address::Shards(_) | Address::File(_) => (None, None),
        };
        let file = packed.as_ref().map_or(path, |packed| &packed.path);
        let id = self.upload(file, &mut |done, total| progress(path, done, total))?.id;
        Ok(split.map_or(id.clone(), |split| format!("{id}:{split}")))
    }
}
