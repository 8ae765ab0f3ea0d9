//! A spec as a server takes it: its data goes there first, and ids stand in place of paths.

use std::path::Path;

use finetuner::spec::{FieldType, RunSpec};
use serde_json::{Map, Value};

use super::Client;
use super::error::{Error, Result};

impl Client {
    /// Uploads what the spec names and gives every field that is not at its default, with ids in place of paths;
    /// `progress` hears of a file, its bytes done and in all.
    ///
    /// # Errors
    /// [`Error::Folder`] for data that is no file, else as [`Client::upload`].
    pub fn upload_spec(&self, spec: &RunSpec, progress: &mut dyn FnMut(&Path, u64, u64)) -> Result<Map<String, Value>> {
        let object = |spec: &RunSpec| match serde_json::to_value(spec) {
            Ok(Value::Object(fields)) => Ok(fields),
            _ => Err(Error::Protocol("a spec cannot be written as JSON".into())),
        };
        let (defaults, mut fields) = (object(&RunSpec::default())?, object(spec)?);
        fields.retain(|name, value| defaults.get(name) != Some(value) && name != "output");
        let mut bring = |value: &mut Value| -> Result<()> {
            if let Some(path) = value.as_str().filter(|path| !path.is_empty()) {
                *value = Value::String(self.upload_file(Path::new(path), progress)?);
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

    fn upload_file(&self, path: &Path, progress: &mut dyn FnMut(&Path, u64, u64)) -> Result<String> {
        if path.is_dir() || !path.exists() && path.to_string_lossy().contains(':') {
            return Err(Error::Folder(path.to_owned()));
        }
        Ok(self.upload(path, &mut |done, total| progress(path, done, total))?.id)
    }
}
