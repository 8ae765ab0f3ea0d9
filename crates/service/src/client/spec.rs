//! A spec as a server takes it: its data goes there first, and ids stand in place of paths.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

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
        // Several fields may name splits of one folder.
        let mut brought = HashMap::new();
        let mut bring = |value: &mut Value| -> Result<()> {
            if let Some(path) = value.as_str().filter(|path| !path.is_empty()) {
                *value = Value::String(self.upload_data(Path::new(path), &mut brought, progress)?);
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

    /// The id of what lies at a path, and the split or the columns of it that are meant; `brought` knows the ids of what is
    /// there already.
    fn upload_data(
        &self,
        path: &Path,
        brought: &mut HashMap<PathBuf, String>,
        progress: &mut dyn FnMut(&Path, u64, u64),
    ) -> Result<String> {
        let (place, holds, part) = match Address::of(path)? {
            Address::Beir { folder, split } => (folder, Some(Holds::Beir), split),
            Address::Pictures(folder) => (folder, Some(Holds::Pictures), None),
            Address::Shards(path) if path.is_dir() => (path, Some(Holds::Pictures), None),
            Address::Shards(file) => (file, None, None),
            Address::File { path, columns } => (path, None, columns),
        };
        let id = match brought.get(&place) {
            Some(id) => id.clone(),
            None => {
                let packed = holds.map(|holds| pack(&place, holds)).transpose()?;
                let file = packed.as_ref().map_or(&place, |packed| &packed.path);
                let id = self.upload(file, &mut |done, total| progress(path, done, total))?.id;
                brought.insert(place, id.clone());
                id
            }
        };
        Ok(match part {
            Some(part) => format!("{id}:{part}"),
            None => id,
        })
    }
}
