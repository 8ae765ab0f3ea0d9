//! A whole model, opened: configuration, tokenizer, limits, prompts, and what follows the transformer.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::adapter::AdapterFolder;
use super::files::{ModelFiles, join};
use super::layout::Layout;
use super::manifest::Manifest;
use super::output::interrupted;
use super::weights::Weights;
use crate::error::{Error, Result};

/// Texts are cut to this many tokens where neither the tokenizer nor the model names a limit.
const DEFAULT_MAX_LENGTH: usize = 512;

/// The folders of the two models that a joined pair is saved as.
pub(crate) const TEXTS: &str = "text";
pub(crate) const PICTURES: &str = "image";

/// The `model_type` of a CLIP's image tower alone (`CLIPVisionModelWithProjection` of transformers).
pub(crate) const CLIP_VISION: &str = "clip_vision_model";

/// A model in the sentence-transformers layout, or a plain transformers folder (mean pooling, no normalisation).
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// Where its files are.
    pub files: ModelFiles,
    /// The subfolder of the transformer's own files; usually `""`, `0_Transformer` in old models.
    pub transformer: String,
    /// `config.json`, as it is.
    pub config: Value,
    /// Pooling and what follows.
    pub layout: Layout,
    /// Whether its files name a pooling; a backbone has one of its own.
    pub names_pooling: bool,
    /// Tokens a text is cut to, special tokens included.
    pub max_length: usize,
    /// Whether texts are lowercased before they reach the tokenizer (`do_lower_case` of old models).
    pub lowercase: bool,
    /// Texts put in front, by name: `query`, `document` …
    pub prompts: BTreeMap<String, String>,
    /// The name of the prompt for texts that are neither query nor document.
    pub default_prompt: Option<String>,
    /// What the model was made from and by, where a run of ours made it.
    pub manifest: Option<Manifest>,
    /// What is added to the weights, in order.
    pub adapters: Vec<AdapterFolder>,
    /// The model of pictures that this model of texts is joined with.
    pub pictures: Option<Box<ModelFolder>>,
    /// Whether there are no weights, so that training begins with random ones.
    pub untrained: bool,
    /// Where the transformer's weights are, if not in `files`: with the base of an adapter.
    weights: Option<(ModelFiles, String)>,
}

impl ModelFolder {
    /// Opens a folder.
    ///
    /// # Errors
    /// [`Error::Model`] if a file is missing, damaged or of an unsupported kind, or if the last save was interrupted.
    pub fn open(folder: &Path) -> Result<Self> {
        check_whole(folder)?;
        let [texts, pictures] = [TEXTS, PICTURES].map(|part| folder.join(part));
        if !folder.join("config.json").is_file() && [&texts, &pictures].into_iter().all(|part| part.is_dir()) {
            let joined = Self::read(texts.as_path().into())?;
            return Ok(joined.with_pictures(Self::read(pictures.as_path().into())?));
        }
        Self::read(folder.into())
    }

    /// A model that is only a shape.
    pub fn untrained(name: &'static str, config: Value, layout: Layout) -> Self {
        ModelFolder {
            files: ModelFiles::Embedded { name, files: &[] },
            transformer: String::new(),
            config,
            layout,
            names_pooling: true,
            max_length: DEFAULT_MAX_LENGTH,
            lowercase: false,
            prompts: BTreeMap::new(),
            default_prompt: None,
            manifest: None,
            adapters: Vec::new(),
            pictures: None,
            untrained: true,
            weights: None,
        }
    }

    /// This model of texts joined with a model of pictures; of a CLIP of transformers with its image tower.
    pub fn with_pictures(self, mut pictures: ModelFolder) -> Self {
        if let Some(vision) = vision_of_clip(&pictures.config) {
            pictures.config = vision;
        }
        ModelFolder { pictures: Some(Box::new(pictures)), ..self }
    }

    /// Opens a model wherever its files are.
    ///
    /// # Errors
    /// [`Error::Model`] if a file is missing, damaged or of an unsupported kind.
    pub fn read(files: ModelFiles) -> Result<Self> {
        Self::read_with(files, Value::Null)
    }

    /// As [`ModelFolder::read`], with the configuration of an adapter's base where there is none.
    fn read_with(files: ModelFiles, base: Value) -> Result<Self> {
        let manifest = files.json("finetuner.json")?.map(|value| Manifest::read(&files.name(), value)).transpose()?;
        let (layout, transformer) = match files.json("config.json")? {
            Some(config) if is_classifier(&config) => (Layout::mean(), String::new()),
            _ => Layout::read(&files)?,
        };
        let json = |file: &str| Ok::<_, Error>(files.json(&join(&transformer, file))?.unwrap_or(Value::Null));
        let open_clip = || json("open_clip_config.json");
        let config = match Some(json("config.json")?).filter(names_a_model) {
            Some(config) => config,
            None => Some(open_clip()?).filter(Value::is_object).unwrap_or(base),
        };
        if !config.is_object() {
            return Err(Error::model(files.name(), "has no `config.json`, so it is not a model's folder"));
        }
        let sentence = json("sentence_bert_config.json")?;
        let tokenizer = json("tokenizer_config.json")?;
        let general = files.json("config_sentence_transformers.json")?.unwrap_or(Value::Null);
        let prompts = general["prompts"].as_object().into_iter().flatten();
        let prompts = prompts.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())));
        Ok(ModelFolder {
            max_length: max_length(&sentence, &tokenizer, &config),
            lowercase: sentence["do_lower_case"] == true,
            prompts: prompts.filter(|(_, text)| !text.is_empty()).collect(),
            default_prompt: general["default_prompt_name"].as_str().map(str::to_owned),
            config,
            names_pooling: Layout::is_named(&files)?,
            layout,
            transformer,
            manifest,
            adapters: Vec::new(),
            pictures: None,
            untrained: false,
            weights: None,
            files,
        })
    }

    /// A file of the transformer's own folder.
    pub fn inside(&self, file: &str) -> String {
        join(&self.transformer, file)
    }

    /// What its configuration is called: open_clip has a name of its own.
    pub fn config_file(&self) -> &'static str {
        if self.is_open_clip() { "open_clip_config.json" } else { "config.json" }
    }

    /// What its weights are called.
    pub fn weights_file(&self) -> &'static str {
        if self.is_open_clip() { "open_clip_model.safetensors" } else { "model.safetensors" }
    }

    fn is_open_clip(&self) -> bool {
        self.config.get("model_cfg").is_some()
    }

    /// Whether this is a cross-encoder: a transformer that scores pairs of texts (`…ForSequenceClassification`).
    pub fn is_cross_encoder(&self) -> bool {
        is_classifier(&self.config)
    }

    /// The transformer's weights.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn weights(&self) -> Result<Weights> {
        let (files, folder) = self.weights.as_ref().map_or((&self.files, &self.transformer), |(f, t)| (f, t));
        files.weights(folder)
    }

    /// The model that an adapter makes of its base. A folder that lists its modules and holds its tokenizer, as ours and
    /// those of sentence-transformers do, takes only configuration and weights of the base; others take everything else
    /// from there, too.
    ///
    /// # Errors
    /// As [`ModelFolder::open`].
    pub fn adapted(base: ModelFolder, adapter: AdapterFolder) -> Result<Self> {
        let folder = adapter.folder();
        check_whole(folder)?;
        let own = ["modules.json", "tokenizer.json"].iter().all(|file| folder.join(file).is_file());
        let mut model = match own {
            true => Self::read_with(folder.into(), base.config.clone())?,
            false => base.clone(),
        };
        model.weights = base.weights.or(Some((base.files, base.transformer)));
        model.adapters = base.adapters;
        model.adapters.push(adapter);
        Ok(model)
    }

    /// The bytes of `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Model`] with a way to make one if it is missing.
    pub fn tokenizer(&self) -> Result<std::borrow::Cow<'static, [u8]>> {
        let name = join(&self.transformer, "tokenizer.json");
        self.files.read(&name)?.ok_or_else(|| {
            let way =
                "python -c \"import transformers as t; t.AutoTokenizer.from_pretrained('.').save_pretrained('.')\"";
            Error::model(self.files.name(), format!("has no `{name}`; make one in the folder with `{way}`"))
        })
    }

    /// The transformer's hidden width, `hidden_size` of the configuration (`dim` in DistilBERT).
    ///
    /// # Errors
    /// [`Error::Model`] if the configuration has neither.
    pub fn width(&self) -> Result<usize> {
        let width = ["hidden_size", "dim", "d_model"].iter().find_map(|key| self.config[*key].as_u64());
        width
            .map(|width| width as usize)
            .ok_or_else(|| Error::model(self.files.name(), "`config.json` has no `hidden_size`"))
    }

    /// The text put before queries: the prompt called `query`.
    pub fn query_prompt(&self) -> Option<&str> {
        self.prompts.get("query").map(String::as_str)
    }

    /// The text put before documents: the prompt called `document`, `passage` or `corpus`.
    pub fn document_prompt(&self) -> Option<&str> {
        ["document", "passage", "corpus"].iter().find_map(|name| self.prompts.get(*name)).map(String::as_str)
    }
}

/// Whether a configuration is one of transformers or timm; open_clip's folders may hold an empty one.
fn names_a_model(config: &Value) -> bool {
    config.is_object() && config.as_object().is_some_and(|keys| !keys.is_empty())
}

/// By the name of the architecture, as transformers writes it.
/// The configuration of the image tower of transformers' CLIP as that of a model of its own; `None` for other models.
fn vision_of_clip(config: &Value) -> Option<Value> {
    if config["model_type"] != "clip" {
        return None;
    }
    let mut vision = config["vision_config"].as_object().cloned().unwrap_or_default();
    vision.insert("model_type".into(), CLIP_VISION.into());
    vision.insert("architectures".into(), json!(["CLIPVisionModelWithProjection"]));
    vision.insert("projection_dim".into(), config.get("projection_dim").cloned().unwrap_or(json!(512)));
    Some(Value::Object(vision))
}

fn is_classifier(config: &Value) -> bool {
    let names = config["architectures"].as_array().into_iter().flatten().filter_map(Value::as_str);
    names.into_iter().any(|name| name.ends_with("ForSequenceClassification"))
}

/// Refuses a folder that is not there or not whole.
fn check_whole(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Err(Error::model(folder.display().to_string(), "there is no such folder"));
    }
    if interrupted(folder) {
        let problem = "the last save was interrupted; run the same command again with `--resume` to complete it";
        return Err(Error::model(folder.display().to_string(), problem));
    }
    Ok(())
}

/// The limit of sentence-transformers, else of the tokenizer; never more than the model has positions for.
///
/// RoBERTa and its kin count positions from `pad_token_id + 1`, so 514 of them hold 512 tokens.
fn max_length(sentence: &Value, tokenizer: &Value, config: &Value) -> usize {
    let number = |value: &Value| value.as_u64().map(|number| number as usize).filter(|&number| number > 0);
    // A tokenizer without a limit says 1e30, which is no integer.
    let asked = number(&sentence["max_seq_length"]).or_else(|| number(&tokenizer["model_max_length"]));
    let offset = match config["model_type"].as_str() {
        Some("roberta" | "xlm-roberta" | "camembert" | "mpnet") => number(&config["pad_token_id"]).unwrap_or(1) + 1,
        _ => 0,
    };
    let positions = number(&config["max_position_embeddings"]).map(|positions| positions.saturating_sub(offset));
    [asked, positions].into_iter().flatten().min().unwrap_or(DEFAULT_MAX_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{PoolingMode, Step};
    use serde_json::json;

    #[test]
    fn the_length_limit_follows_the_files_in_order() {
        let bert = json!({"model_type": "bert", "max_position_embeddings": 512});
        let roberta = json!({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1});
        let (none, sentence) = (json!({}), json!({"max_seq_length": 256}));
        let tokenizer = json!({"model_max_length": 128});
        let unlimited: Value =
            serde_json::from_str(r#"{"model_max_length": 1000000000000000019884624838656}"#).unwrap();
        assert_eq!(max_length(&sentence, &tokenizer, &bert), 256);
        assert_eq!(max_length(&none, &tokenizer, &bert), 128);
        assert_eq!(max_length(&none, &unlimited, &bert), 512);
        assert_eq!(max_length(&none, &none, &roberta), 512);
        assert_eq!(max_length(&json!({"max_seq_length": 1024}), &none, &roberta), 512);
        assert_eq!(max_length(&none, &none, &none), DEFAULT_MAX_LENGTH);
    }

    #[test]
    fn a_plain_transformers_folder_opens_with_mean_pooling() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"model_type": "bert", "hidden_size": 8}"#).unwrap();
        let model = ModelFolder::open(folder.path()).unwrap();
        assert_eq!(model.layout, Layout::mean());
        assert_eq!((model.width().unwrap(), model.lowercase, model.manifest.is_none()), (8, false, true));
        assert!(model.tokenizer().unwrap_err().to_string().contains("tokenizer.json"));
        assert!(model.weights().unwrap_err().to_string().contains("model.safetensors"));
    }

    #[test]
    fn prompts_and_an_old_transformer_subfolder_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, value: Value| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value.to_string()).unwrap();
        };
        let module =
            |kind: &str, path: &str| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path});
        write("modules.json", json!([module("Transformer", "0_Transformer"), module("Pooling", "1_Pooling")]));
        write("0_Transformer/config.json", json!({"dim": 16}));
        write("0_Transformer/sentence_bert_config.json", json!({"max_seq_length": 64, "do_lower_case": true}));
        write("0_Transformer/tokenizer.json", json!({}));
        let prompts = json!({"query": "query: ", "passage": "passage: ", "other": ""});
        write("config_sentence_transformers.json", json!({"prompts": prompts, "default_prompt_name": "query"}));
        let model = ModelFolder::open(folder.path()).unwrap();
        assert_eq!((model.width().unwrap(), model.max_length, model.lowercase), (16, 64, true));
        assert_eq!((model.query_prompt(), model.document_prompt()), (Some("query: "), Some("passage: ")));
        assert_eq!((model.prompts.len(), model.default_prompt.as_deref()), (2, Some("query")));
        assert_eq!(&model.tokenizer().unwrap()[..], b"{}");
    }

    #[test]
    fn what_is_not_a_model_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(ModelFolder::open(folder.path()).unwrap_err().to_string().contains("config.json"));
        assert!(ModelFolder::open(&folder.path().join("none")).unwrap_err().to_string().contains("no such folder"));
        std::fs::write(folder.path().join("config.json"), "{\"hidden").unwrap();
        assert!(ModelFolder::open(folder.path()).unwrap_err().to_string().contains("not valid JSON"));
    }

    #[test]
    fn the_real_all_minilm_opens() {
        let Some(folder) = std::env::var_os("FINETUNER_MINILM") else {
            return eprintln!("skipped: FINETUNER_MINILM does not name the folder of all-MiniLM-L6-v2");
        };
        let model = ModelFolder::open(Path::new(&folder)).unwrap();
        assert_eq!((model.layout.pooling, &model.layout.steps[..]), (PoolingMode::Mean, &[Step::Normalise][..]));
        assert_eq!((model.width().unwrap(), model.max_length, model.lowercase), (384, 256, false));
        let embeddings = model.weights().unwrap().tensor("embeddings.word_embeddings.weight", &[30522, 384]).unwrap();
        assert!(embeddings.iter().all(|value| value.is_finite()));
    }
}
