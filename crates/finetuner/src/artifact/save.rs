//! Writes an artifact: everything is put together aside, synced, and only then moved into place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::atomic::sync_folder;
use super::files::join;
use super::folder::ModelFolder;
use super::layout::{Layout, is_inside};
use super::manifest::{FORMAT, FileRecord, Hashing, MANIFEST, Manifest};
use super::output::{Output, STAGING, move_into_place};
use super::safetensors::{self, NamedTensor};
use crate::error::{Error, Result};

/// The files of a tokenizer: what is downloaded with a model, and taken over into the artifact of a run on it.
pub(crate) const TOKENIZER_FILES: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "sentencepiece.bpe.model",
    "spiece.model",
];

/// An artifact being put together in a claimed folder. Until [`ArtifactWriter::finish`] the folder's own files stay
/// as they are; dropped before that, or after any error, nothing of it remains.
#[derive(Debug)]
pub struct ArtifactWriter<'a> {
    output: &'a Output,
    staging: PathBuf,
    /// The folder in the artifact that files are written to: of one of a joined pair, else `""`.
    part: String,
    files: BTreeMap<String, FileRecord>,
}

impl<'a> ArtifactWriter<'a> {
    /// Starts an artifact.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(output: &'a Output) -> Result<Self> {
        let staging = output.folder().join(STAGING);
        if staging.exists() {
            std::fs::remove_dir_all(&staging).map_err(Error::io("remove", &staging))?;
        }
        std::fs::create_dir(&staging).map_err(Error::io("create", &staging))?;
        Ok(ArtifactWriter { output, staging, part: String::new(), files: BTreeMap::new() })
    }

    /// Files from here on lie in this folder of the artifact; `""` is the artifact itself.
    pub fn within(&mut self, part: &str) {
        part.clone_into(&mut self.part);
    }

    /// Writes a file from bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn bytes(&mut self, name: &str, contents: &[u8]) -> Result<()> {
        self.fill(name, |out| out.write_all(contents))
    }

    /// Writes a JSON file, indented.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn json(&mut self, name: &str, value: &Value) -> Result<()> {
        self.fill(name, |out| {
            serde_json::to_writer_pretty(&mut *out, value)?;
            out.write_all(b"\n")
        })
    }

    /// Writes a safetensors file: `model.safetensors` with the names of the Hugging Face files.
    ///
    /// # Errors
    /// [`Error::Io`]; a shape that does not fit its values is an `InvalidInput` in it.
    pub fn tensors(&mut self, name: &str, tensors: &[NamedTensor<'_>]) -> Result<()> {
        // transformers reads only files that say which framework they are laid out for.
        self.fill(name, |out| safetensors::write(out, &[("format", "pt")], tensors))
    }

    /// Takes over the tokenizer of the model the run started from.
    ///
    /// # Errors
    /// [`Error::Model`] if it has no `tokenizer.json`, [`Error::Io`].
    pub fn tokenizer(&mut self, source: &ModelFolder) -> Result<()> {
        source.tokenizer()?;
        for name in TOKENIZER_FILES {
            if let Some(contents) = source.files.read(&join(&source.transformer, name))? {
                self.bytes(name, &contents)?;
            }
        }
        Ok(())
    }

    /// Writes `modules.json` and the configurations of pooling and dense modules. The tensors of a dense module at
    /// position `i` of the layout belong in `layout.folder_of(i)`, names `linear.weight` and `linear.bias`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn layout(&mut self, layout: &Layout, width: usize) -> Result<()> {
        for (name, value) in layout.write(width) {
            self.json(&name, &value)?;
        }
        Ok(())
    }

    /// Writes `sentence_bert_config.json` and `config_sentence_transformers.json`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn limits_and_prompts(
        &mut self,
        max_length: usize,
        lowercase: bool,
        prompts: &BTreeMap<String, String>,
        default_prompt: Option<&str>,
    ) -> Result<()> {
        let sentence = json!({"max_seq_length": max_length, "do_lower_case": lowercase});
        self.json("sentence_bert_config.json", &sentence)?;
        let general = json!({
            "__version__": {"finetuner": env!("CARGO_PKG_VERSION")},
            "prompts": prompts,
            "default_prompt_name": default_prompt,
            "similarity_fn_name": "cosine",
        });
        self.json("config_sentence_transformers.json", &general)
    }

    /// Writes the manifest, moves everything into place and returns the manifest.
    ///
    /// # Errors
    /// [`Error::Io`]. If moving is cut short, claiming the folder to resume completes it.
    pub fn finish(mut self, spec: &Value, versions: BTreeMap<String, String>) -> Result<Manifest> {
        let mut versions = versions;
        versions.insert("finetuner".into(), env!("CARGO_PKG_VERSION").into());
        let manifest = Manifest { format: FORMAT, versions, spec: spec.clone(), files: self.files.clone() };
        let value =
            serde_json::to_value(&manifest).map_err(std::io::Error::from).map_err(Error::io("write", MANIFEST))?;
        sync_folder(&self.staging)?;
        self.json(MANIFEST, &value)?;
        sync_folder(&self.staging)?;
        move_into_place(self.output.folder())?;
        Ok(manifest)
    }

    fn fill(&mut self, name: &str, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
        let name = join(&self.part, name);
        assert!(is_inside(&name), "artifact file names are relative: bug");
        let path = self.staging.join(&name);
        let folder = super::atomic::parent(&path);
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let mut writer = Hashing::new(BufWriter::with_capacity(1 << 20, file));
        let written = fill(&mut writer).and_then(|()| writer.flush()).and_then(|()| writer.inner.get_ref().sync_all());
        written.map_err(Error::io("write", &path))?;
        self.files.insert(name, writer.record());
        Ok(())
    }
}

impl Drop for ArtifactWriter<'_> {
    fn drop(&mut self) {
        // A complete artifact that could not be moved is kept: it is finished when the run resumes.
        if !self.staging.join(MANIFEST).is_file() {
            let _ = std::fs::remove_dir_all(&self.staging);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Activation, Dense, PoolingMode, Step};
    use std::path::Path;

    fn source(folder: &Path) -> ModelFolder {
        std::fs::write(folder.join("config.json"), r#"{"model_type": "bert", "hidden_size": 2}"#).unwrap();
        std::fs::write(folder.join("tokenizer.json"), "{}").unwrap();
        std::fs::write(folder.join("vocab.txt"), "[PAD]\n").unwrap();
        ModelFolder::open(folder).unwrap()
    }

    fn save(output: &Output, source: &ModelFolder, weight: f32) -> Result<Manifest> {
        let dense = Dense { in_features: 2, out_features: 1, bias: false, activation: Activation::Identity };
        let steps = vec![Step::Dense(dense, "2_Dense".into()), Step::Normalise];
        let layout = Layout { pooling: PoolingMode::Mean, steps };
        let prompts = [("query".to_owned(), "query: ".to_owned())].into();
        let mut writer = ArtifactWriter::new(output)?;
        writer.json("config.json", &source.config)?;
        writer.tokenizer(source)?;
        writer.layout(&layout, 2)?;
        writer.limits_and_prompts(128, true, &prompts, None)?;
        writer.tensors("model.safetensors", &[NamedTensor::f32("weight", &[1, 2], &[weight, 0.0])])?;
        let head = layout.folder_of(0);
        writer.tensors(
            &format!("{head}/model.safetensors"),
            &[NamedTensor::f32("linear.weight", &[1, 2], &[1.0, 2.0])],
        )?;
        writer.finish(&json!({"model": "mini"}), BTreeMap::new())
    }

    #[test]
    fn a_saved_artifact_opens_with_all_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let source = source(folder.path());
        let target = folder.path().join("runs/first");
        let output = Output::claim(&target, false).unwrap();
        let manifest = save(&output, &source, 1.0).unwrap();
        drop(output);
        let model = ModelFolder::open(&target).unwrap();
        assert_eq!(model.manifest.as_ref(), Some(&manifest));
        manifest.verify(&target).unwrap();
        assert_eq!((model.max_length, model.lowercase, model.query_prompt()), (128, true, Some("query: ")));
        assert_eq!(model.layout.output_width(2), 1);
        assert_eq!(model.weights().unwrap().tensor("weight", &[1, 2]).unwrap(), [1.0, 0.0]);
        let head = model.files.weights("2_Dense").unwrap();
        assert_eq!(head.tensor("linear.weight", &[1, 2]).unwrap(), [1.0, 2.0]);
        assert!(manifest.files.contains_key("vocab.txt") && !manifest.files.contains_key("merges.txt"));
        assert!(!target.join(STAGING).exists());

        std::fs::write(target.join("vocab.txt"), "[PAD]\n[UNK]\n").unwrap();
        std::fs::remove_file(target.join("model.safetensors")).unwrap();
        let error = manifest.verify(&target).unwrap_err().to_string();
        assert!(error.contains("`vocab.txt` has changed") && error.contains("`model.safetensors`"), "{error}");
    }

    #[test]
    fn the_same_artifact_is_written_with_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let source = source(folder.path());
        let manifests = ["a", "b"]
            .map(|name| save(&Output::claim(&folder.path().join(name), false).unwrap(), &source, 1.0).unwrap());
        assert_eq!(manifests[0], manifests[1]);
    }

    #[test]
    fn an_artifact_given_up_leaves_the_one_before_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let source = source(folder.path());
        let target = folder.path().join("run");
        let output = Output::claim(&target, false).unwrap();
        let manifest = save(&output, &source, 1.0).unwrap();
        let mut writer = ArtifactWriter::new(&output).unwrap();
        let misfit = writer.tensors("model.safetensors", &[NamedTensor::f32("weight", &[3], &[2.0])]);
        assert!(misfit.unwrap_err().to_string().contains("cannot write"));
        drop(writer);
        assert!(!target.join(STAGING).exists());
        manifest.verify(&target).unwrap();
        save(&output, &source, 2.0).unwrap().verify(&target).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_full_disk_leaves_the_artifact_before() {
        use crate::artifact::atomic::full_disk;
        let save_large = |folder: &Path| {
            let output = Output::claim(&folder.join("run"), true)?;
            let mut writer = ArtifactWriter::new(&output)?;
            writer.json("config.json", &json!({"changed": true}))?;
            writer.tensors("model.safetensors", &[NamedTensor::f32("weight", &[1 << 20], &vec![1.0; 1 << 20])])?;
            writer.finish(&json!({}), BTreeMap::new())
        };
        if let Some(folder) = full_disk::folder() {
            let error = save_large(&folder).unwrap_err();
            assert!(matches!(error, Error::Io { action: "write", .. }), "{error}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let source = source(folder.path());
        let target = folder.path().join("run");
        let manifest = save(&Output::claim(&target, false).unwrap(), &source, 1.0).unwrap();
        full_disk::repeat("artifact::save::tests::a_full_disk_leaves_the_artifact_before", folder.path());
        manifest.verify(&target).unwrap();
        assert!(!target.join(STAGING).exists());
        save_large(folder.path()).unwrap().verify(&target).unwrap();
    }

    #[test]
    fn a_source_without_tokenizer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let source = source(folder.path());
        std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
        let output = Output::claim(&folder.path().join("run"), false).unwrap();
        assert!(save(&output, &source, 1.0).unwrap_err().to_string().contains("tokenizer.json"));
    }
}
