//! A model, ready to use: files, what prepares items for it, and encoder together.

use engine::Device;

use super::preprocessor::{Prepared, Preprocessor};
use super::{Backbone, Encoder, EncoderOptions, TransformerConfig};
use crate::artifact::adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use crate::artifact::{AdapterRecord, ArtifactWriter, ModelFolder, NamedTensor};
use crate::data::Modality;
use crate::error::{Error, Result};
use crate::tokens::Tokenizer;

/// Items that are prepared at once when embedding many: enough to sort by length, few enough to hold in memory.
const ITEMS_AT_ONCE: usize = 4096;

/// Tokens that the encoder sees at once when nothing is recorded.
const TOKENS_AT_ONCE: usize = 4096;

/// What an item is for; models may put a prompt before a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A question: the first column of pairs, and the queries of a search.
    Query,
    /// What is found.
    Document,
    /// Neither: labelled and scored texts.
    Plain,
}

/// Instead of what the model's files say.
#[derive(Debug, Clone, Default)]
pub struct ModelOptions {
    /// Pooling, head and initial weights.
    pub encoder: EncoderOptions,
    /// Tokens a text is cut to.
    pub max_length: Option<usize>,
    /// Put before every query.
    pub query_prompt: Option<String>,
    /// Put before every document.
    pub document_prompt: Option<String>,
}

/// A model: items in, embeddings out.
#[derive(Debug)]
pub struct Model {
    /// Its files.
    pub folder: ModelFolder,
    /// What turns items into its inputs.
    pub preprocessor: Preprocessor,
    /// Its weights.
    pub encoder: Encoder,
}

/// The texts put before queries, documents and others.
#[derive(Debug, Clone, Default)]
pub struct Prompts {
    query: String,
    document: String,
    plain: String,
}

impl Prompts {
    /// Those that were asked for, else the model's own.
    fn new(folder: &ModelFolder, options: &ModelOptions) -> Self {
        let default = folder.default_prompt.as_ref().and_then(|name| folder.prompts.get(name)).cloned();
        let plain = default.unwrap_or_default();
        let prompt = |asked: &Option<String>, own: Option<&str>| match (asked, own) {
            (Some(asked), _) => asked.clone(),
            (None, Some(own)) => own.to_owned(),
            (None, None) => plain.clone(),
        };
        Prompts {
            query: prompt(&options.query_prompt, folder.query_prompt()),
            document: prompt(&options.document_prompt, folder.document_prompt()),
            plain,
        }
    }

    /// The text with its prompt.
    pub fn apply(&self, role: Role, text: &str) -> String {
        let prompt = match role {
            Role::Query => &self.query,
            Role::Document => &self.document,
            Role::Plain => &self.plain,
        };
        format!("{prompt}{text}")
    }
}

impl Model {
    /// Opens a model's files.
    ///
    /// # Errors
    /// [`Error::Model`] if they are missing or damaged, [`Error::Spec`] for a length the model cannot read.
    pub fn open(folder: ModelFolder, options: &ModelOptions) -> Result<Self> {
        let encoder = Encoder::open(&folder, &options.encoder)?;
        let texts = match encoder.main_tower().backbone() {
            Backbone::Text(transformer) => {
                Some((tokenizer(&folder, &transformer.config, options)?, Prompts::new(&folder, options)))
            }
            Backbone::Image(_) => None,
        };
        let preprocessor = Preprocessor::new(folder.files.name(), texts);
        Ok(Model { folder, preprocessor, encoder })
    }

    /// One phrase on its shape.
    pub fn description(&self) -> String {
        let tower = self.encoder.main_tower();
        let (layers, width) = (tower.backbone().layers(), tower.backbone().width());
        let cut = self.preprocessor.tokenizer().map(|tokenizer| tokenizer.max_length());
        let cut = cut.map_or(String::new(), |limit| format!(", texts cut at {limit} tokens"));
        format!("{layers} layers of {width}, embeddings of {}{cut}", self.encoder.dimension())
    }

    /// Embeddings `[items, dimension]`, and how many texts were cut. `progress` hears the number of items done before
    /// each batch, and ends the work with its error where it has one.
    ///
    /// # Errors
    /// [`Error::Model`] if a text has no tokens; that of `progress`.
    pub fn embed<T: AsRef<str>>(
        &self,
        device: &dyn Device,
        items: &[T],
        column: (Modality, Role),
        mut progress: impl FnMut(usize) -> Result<()>,
    ) -> Result<(Vec<f32>, usize)> {
        let mut embeddings = Vec::with_capacity(items.len() * self.encoder.dimension());
        let mut all_truncated = 0;
        for (chunk, items) in items.chunks(ITEMS_AT_ONCE).enumerate() {
            let Prepared { inputs, truncated } = self.preprocessor.prepare_for_search(items, column, TOKENS_AT_ONCE)?;
            all_truncated += truncated;
            let mut done = chunk * ITEMS_AT_ONCE;
            let mut told = Ok(());
            let inputs = inputs.into_iter().take_while(|input| {
                done += input.len();
                told = progress(done);
                told.is_ok()
            });
            embeddings.extend(self.encoder.embed(device, inputs, items.len())?);
            told?;
        }
        Ok((embeddings, all_truncated))
    }

    /// Writes everything that other tools need to load the model; with a record, its adapters in place of its weights.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, writer: &mut ArtifactWriter<'_>, adapter: Option<&AdapterRecord>) -> Result<()> {
        if adapter.is_none() {
            // Where a folder has one, transformers takes it for a whole model with an adapter beside its weights.
            writer.json("config.json", &self.folder.config)?;
        }
        let tower = self.encoder.main_tower();
        writer.layout(tower.layout(), tower.backbone().width())?;
        if tower.modality() == Modality::Text {
            writer.tokenizer(&self.folder)?;
            let own = self.preprocessor.prompts()?;
            let mut prompts = self.folder.prompts.clone();
            for (name, prompt) in [("query", &own.query), ("document", &own.document)] {
                if !prompt.is_empty() {
                    prompts.insert(name.to_owned(), prompt.clone());
                }
            }
            let default = self.folder.default_prompt.as_deref();
            let max_length = self.preprocessor.tokenizer()?.max_length();
            writer.limits_and_prompts(max_length, self.folder.lowercase, &prompts, default)?;
        }
        let (file, own) = match adapter {
            Some(record) => {
                writer.json(ADAPTER_CONFIG, &record.config())?;
                (ADAPTER_WEIGHTS, self.encoder.adapter_weights())
            }
            None => ("model.safetensors", self.encoder.weights()),
        };
        let own: Vec<_> = own.iter().map(|(name, shape, values)| NamedTensor::f32(name, shape, values)).collect();
        writer.tensors(file, &own)?;
        for (position, tensors) in self.encoder.dense_weights(tower) {
            let tensors: Vec<_> =
                tensors.iter().map(|(name, shape, values)| NamedTensor::f32(name, shape, values)).collect();
            let name = format!("{}/model.safetensors", tower.layout().folder_of(position));
            writer.tensors(&name, &tensors)?;
        }
        Ok(())
    }
}

/// The tokenizer of a model's texts, cutting them where the model or the options say.
fn tokenizer(folder: &ModelFolder, config: &TransformerConfig, options: &ModelOptions) -> Result<Tokenizer> {
    let (name, longest, vocabulary) = (folder.files.name(), config.longest(), config.vocabulary);
    let max_length = options.max_length.unwrap_or(folder.max_length.min(longest));
    if max_length > longest {
        let problem = format!("is {max_length}, but `{name}` reads at most {longest} tokens");
        return Err(Error::spec("max_length", problem));
    }
    let tokenizer = Tokenizer::from_bytes(&name, &folder.tokenizer()?, max_length)?;
    if tokenizer.vocabulary_size() > vocabulary {
        let known = tokenizer.vocabulary_size();
        let problem = format!("the tokenizer knows {known} tokens, but the weights only {vocabulary}");
        return Err(Error::model(name, problem));
    }
    Ok(tokenizer.lowercase(folder.lowercase))
}
